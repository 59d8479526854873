"""How far a correctly computed sum may lie from the exact one: the one place where tolerances come from.

A sum of n products, accumulated in a format of unit roundoff u in any order, has an error of at most
`n * u * sum |a*b|` to first order. Where the single rounding errors are independent and of mean zero it is at most
`lambda * sqrt(n) * u * sum |a*b|` with a probability of at least `1 - 2 * n * exp(-lambda^2 / 2)` (Higham and Mary,
"A new approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41, 2019). The smaller of the two is
used, with lambda = 6. Rounding to a narrower result adds one unit roundoff of that. Near zero, a result that is no
normal number is rounded to a multiple of the smallest one, and hardware may flush what the accumulator cannot hold.
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

_CONFIDENCE = 6.0


def unit_roundoff(dtype: Any) -> float:
    """Half the distance from 1 to the next number of `dtype` (of its components, where complex)."""
    return float(jnp.finfo(dtype).eps) / 2


def error_bound(magnitude: Any, terms: int, accumulate: Any, result: Any) -> np.ndarray:
    """Largest plausible `|computed - exact|`, entry by entry, for sums of `terms` products.

    Args:
        magnitude: the same sums over the absolute values of both factors.
        terms: number of products in each sum.
        accumulate: dtype that the sums are carried in.
        result: dtype that they are rounded to in the end.
    """
    size = np.asarray(magnitude, np.float64)
    factor = 1.0
    if jnp.issubdtype(result, jnp.complexfloating):
        # A complex product is two real ones in each component, and the two components err independently.
        terms, factor = 2 * terms, math.sqrt(2)
    relative = factor * min(terms, _CONFIDENCE * math.sqrt(terms)) * unit_roundoff(accumulate)
    if unit_roundoff(result) > unit_roundoff(accumulate):
        relative += factor * unit_roundoff(result) * (1 + relative)
    return relative * size + float(jnp.finfo(result).smallest_subnormal) + float(jnp.finfo(accumulate).tiny)


def in_roundings(difference: Any, reference: Any, dtype: Any) -> float:
    """The largest `|difference|` in unit roundoffs of the largest `|reference|`."""
    largest = float(np.abs(reference).max(initial=0))
    worst = float(np.abs(difference).max(initial=0))
    return worst / (unit_roundoff(dtype) * largest) if largest else math.inf if worst else 0.0
