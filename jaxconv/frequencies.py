"""The three matrices by which `fourier` convolves: windows, kernels and outputs to frequencies, and back.

Of n cells `x` and k taps `w` there are l = n - k + 1 outputs `y[j] = sum_i w[i] x[i + j]`. With the n-th roots of unity, whose
powers add up to n where the exponent is a multiple of n and else to 0, that is

    y[j] = 1/n sum_f (sum_i w[i] e^(2 pi f i / n)) (sum_m x[m] e^(-2 pi f m / n)) e^(2 pi f j / n),

and as all numbers are real, frequency f and n - f are one: one real product for f = 0 and f = n / 2, and for each other f a
complex one, which is three real products, after Gauss: with sums r = a c - b d and i = (a + b)(c + d) - a c - b d. So

    y[j] = sum_p OUT[p, j] (sum_i TAPS[p, i] w[i]) (sum_m CELLS[p, m] x[m])

with 3 n / 2 - 1 products p in place of k l: `derivations` proves that (`derivations.frequencies`).
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxconv.convolution import Convolution
from jaxconv.counts import positions_of


def products(cells: int) -> int:
    """How many products a window of so many cells, an even number, has for a channel in and out."""
    return 3 * cells // 2 - 1


def windows_of(convolution: Convolution, part: str) -> int:
    """How many windows of `unfolded` cells a sample has."""
    (taps,), (dilation,) = convolution.window.kernel, convolution.window.dilation
    (positions,) = positions_of(convolution, part)
    return dilation * math.ceil(-(-positions // dilation) / (convolution.unfolded - taps + 1))


def numbers_of_window(convolution: Convolution, given: int, made: int) -> int:
    """How many numbers of a group a window of `unfolded` cells has in memory for all of its products: cells, and outputs twice, as
    they are moved."""
    return convolution.unfolded * given + 2 * (convolution.unfolded - convolution.window.taps + 1) * made


def turns(convolution: Convolution, numbers: int) -> int:
    """In how many turns products are taken, of which each has so many numbers in memory, so that these have half of the room."""
    room = convolution.tile // (2 * jnp.dtype(convolution.accumulate).itemsize)
    count = products(convolution.unfolded)
    return min(count, -(-count * numbers // max(1, room)))


class Matrices(NamedTuple):
    """OUT, TAPS and CELLS, with a row per product: (p, l), (p, k) and (p, n)."""

    out: Any
    taps: Any
    cells: Any


@lru_cache
def matrices(cells: int, taps: int) -> Matrices:
    """In float64; what is a half or none of an entry is that to the bit."""
    of_cells, of_taps, out = [], [], []
    for frequency in range(cells // 2 + 1):
        cosine, sine = _roots(frequency, cells, cells)
        if 2 * frequency in (0, cells):
            of_cells.append(cosine)
            of_taps.append(cosine[:taps])
            out.append(cosine[: cells - taps + 1] / cells)
            continue
        real, imaginary = (2 * wave[: cells - taps + 1] / cells for wave in (cosine, sine))
        of_cells += [cosine, -sine, cosine - sine]
        of_taps += [cosine[:taps], sine[:taps], (cosine + sine)[:taps]]
        out += [real + imaginary, imaginary - real, -imaginary]
    return Matrices(np.stack(out), np.stack(of_taps), np.stack(of_cells))


def _roots(frequency: int, cells: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of 2 pi f m / n for the first so many m."""
    turns = frequency * np.arange(count) % cells
    angle = 2 * np.pi * turns / cells
    cosine, sine = np.cos(angle), np.sin(angle)
    # Quarters of a turn, which the library rounds.
    cosine[4 * turns % (2 * cells) == cells] = 0
    sine[2 * turns % cells == 0] = 0
    return cosine, sine
