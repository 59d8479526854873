"""The three matrices by which `fourier` convolves: windows, kernels and outputs to frequencies, and back.

Of n cells `x` and k taps `w` there are l = n - k + 1 outputs `y[j] = sum_i w[i] x[i + j]`. With the n-th roots of unity, whose
powers add up to n where the exponent is a multiple of n and else to 0, that is

    y[j] = 1/n sum_f (sum_i w[i] e^(2 pi f i / n)) (sum_m x[m] e^(-2 pi f m / n)) e^(2 pi f j / n),

and as all numbers are real, frequency f and n - f are one: one real product for f = 0 and f = n / 2, and for each other f a
complex one, which is three real products, after Gauss: with sums r = a c - b d and i = (a + b)(c + d) - a c - b d. So

    y[j] = sum_p OUT[j, p] (sum_i TAPS[p, i] w[i]) (sum_m CELLS[p, m] x[m])

with 3 n / 2 - 1 products p in place of k l: `derivations` proves that (`derivations.frequencies`).
"""

from functools import lru_cache

import numpy as np


def products(cells: int) -> int:
    """How many products a window of so many cells, an even number, has for a channel in and out."""
    return 3 * cells // 2 - 1


@lru_cache
def matrices(cells: int, taps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """OUT (l, p), TAPS (p, k) and CELLS (p, n), in float64: what is a half or none of an entry is that to the bit."""
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
    return np.stack(out, -1), np.stack(of_taps), np.stack(of_cells)


def _roots(frequency: int, cells: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of 2 pi f m / n for the first so many m."""
    turns = frequency * np.arange(count) % cells
    angle = 2 * np.pi * turns / cells
    cosine, sine = np.cos(angle), np.sin(angle)
    # Quarters of a turn, which the library rounds.
    cosine[4 * turns % (2 * cells) == cells] = 0
    sine[2 * turns % cells == 0] = 0
    return cosine, sine
