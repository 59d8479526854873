"""What is proven of the matrices that `fourier` convolves by: with exact roots of unity they are a convolution.

Numbers are polynomials in a root of unity `w` of order n, modulo the polynomial that it is the root of: cosine and sine of
2 pi m / n are (w^m + w^-m) / 2 and (w^m - w^-m) / 2i, and i is w^(n / 4). The matrices that ship are made of floating point by
the same function of cosines and sines.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import sympy as sp
from sympy import QQ, cyclotomic_poly, ring

from derivations.prove import Counterexample, Verdict
from jaxconv.frequencies import of_waves
from jaxconv.statements import Proof

_SIZES = ((4, 3), (8, 3), (12, 5), (16, 4), (24, 7))


def of_frequencies() -> Iterator[Proof]:
    """That the three matrices are a convolution, for some sizes of windows and kernels."""
    for cells, taps in _SIZES:
        where = f"{taps} taps in windows of {cells} cells"
        yield Proof("frequencies", "the matrices are a convolution", where, partial(verdict, cells, taps))


def verdict(cells: int, taps: int) -> Verdict:
    """Whether `sum_p OUT[p, j] TAPS[p, i] CELLS[p, m]` is 1 where m = i + j and else 0, of windows of 4 cells or a multiple."""
    numbers, root = ring("w", QQ)
    unity = numbers.from_expr(cyclotomic_poly(cells, sp.Symbol("w")))

    def reduced(number: Any) -> Any:
        return number.rem([unity])

    waves = _waves(cells, root)
    out, of_taps, of_cells = (np.vectorize(reduced, "O")(matrix) for matrix in of_waves(*waves, taps))
    statement = f"the matrices of {taps} taps and {cells} cells are a convolution"
    sizes = [matrix.shape[1] for matrix in (out, of_taps, of_cells)]
    for j, i in np.ndindex(*sizes[:2]):
        both = np.vectorize(reduced, "O")(out[:, j] * of_taps[:, i])
        for m in range(sizes[2]):
            left, true = reduced((both * of_cells[:, m]).sum()), int(m == i + j)
            if left != true:
                where = f"{taps} taps and {cells} cells"
                different = Counterexample("matrices", (j, i, m), where, str(left), str(true))
                return Verdict("refuted", statement, math.prod(sizes), None, different)
    return Verdict("proven", statement, math.prod(sizes), None)


def _waves(cells: int, root: Any) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of 2 pi f m / n for f up to n / 2 and m up to n, as polynomials in the root of unity."""

    def power(exponent: int) -> Any:
        return root ** (exponent % cells)

    cosine, sine = (np.empty((cells // 2 + 1, cells), object) for _ in range(2))
    for f, m in np.ndindex(cosine.shape):
        turns, three_quarters = f * m, 3 * cells // 4
        cosine[f, m] = (power(turns) + power(-turns)) / 2
        # Divided by i, which is to turn three quarters on.
        sine[f, m] = (power(turns + three_quarters) - power(three_quarters - turns)) / 2
    return cosine, sine
