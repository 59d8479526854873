"""The three matrices by which `fourier` convolves: windows, kernels and outputs to frequencies, and back.

Of n cells `x` and k taps `w` there are l = n - k + 1 outputs `y[j] = sum_i w[i] x[i + j]`. With the n-th roots of unity, whose
powers add up to n where the exponent is a multiple of n and else to 0, that is

    y[j] = 1/n sum_f (sum_i w[i] e^(2 pi f i / n)) (sum_m x[m] e^(-2 pi f m / n)) e^(2 pi f j / n),

and as all numbers are real, frequency f and n - f are one: one real product for f = 0 and f = n / 2, and for each other f a
complex one, which is three real products, after Gauss: with sums r = a c - b d and i = (a + b)(c + d) - a c - b d. So

    y[j] = sum_p OUT[p, j] (sum_i TAPS[p, i] w[i]) (sum_m CELLS[p, m] x[m])

with 3 n / 2 - 1 products p in place of k l. `jaxconv/frequency_proofs.py` proves that sum for these very matrices.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxconv.convolution import Convolution


def products(cells: int) -> int:
    """How many products a window of so many cells, an even number, has for a channel in and out."""
    return 3 * cells // 2 - 1


def outputs_of(convolution: Convolution) -> int:
    """How many outputs a window of `unfolded` cells has."""
    return convolution.unfolded - convolution.window.taps + 1


def windows_of(convolution: Convolution, positions: int) -> int:
    """How many windows so many neighbouring outputs are of: as many beside each other as the dilation has cells."""
    (dilation,) = convolution.window.dilation
    return dilation * -(-positions // (dilation * outputs_of(convolution)))


def numbers_of_window(convolution: Convolution, given: int, made: int) -> int:
    """How many numbers of a group a window of `unfolded` cells has in memory for all of its products: cells, and outputs, which
    are moved, twice."""
    return convolution.unfolded * given + 2 * outputs_of(convolution) * made


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
    """Of windows of so many cells and a kernel of so many taps, in float64; quarters of a turn are exact."""
    turned = np.outer(np.arange(cells // 2 + 1), np.arange(cells)) % cells
    cosine, sine = (wave(2 * np.pi * turned / cells) for wave in (np.cos, np.sin))
    # What the library rounds.
    cosine[4 * turned % (2 * cells) == cells] = 0
    sine[2 * turned % cells == 0] = 0
    return of_waves(cosine, sine, taps)


def of_waves(cosine: np.ndarray, sine: np.ndarray, taps: int) -> Matrices:
    """The matrices for cosine and sine of 2 pi f m / n, in an axis of f up to n / 2 and one of m up to n."""
    _, cells = cosine.shape
    of_cells, of_taps, out = [cosine[0]], [cosine[0]], [cosine[0]]
    for real, imaginary in zip(cosine[1:-1], sine[1:-1], strict=True):
        of_cells += [real, -imaginary, real - imaginary]
        of_taps += [real, imaginary, real + imaginary]
        out += [2 * (real + imaginary), 2 * (imaginary - real), -2 * imaginary]
    of_cells, of_taps, out = (np.stack([*rows, cosine[-1]]) for rows in (of_cells, of_taps, out))
    return Matrices(out[:, : cells - taps + 1] / cells, of_taps[:, :taps], of_cells)
