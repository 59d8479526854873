"""Equations 2 to 5 of *Some formulae*, one function each, in its own letters.

p is the sample, q the output channel, m a row of U (input channel, then tap), r the output position. Groups split
q and m into `groups` equal blocks that do not see each other; with one group each line below is the published formula.

Eqs. 2 to 4 take `precision` and `preferred_element_type`, the dtype that sums are accumulated and returned in (default: the
operands'), with their meanings in `jax.lax.dot_general`; eq. 5 has no product and takes the second only. Operands must have
the shapes that their annotations say; a ValueError names the one that has not.
"""

import math
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxconv.shapes import FlatBias, FlatOutput, FlatWeight, U
from jaxconv.window import integer


def flat(output: Array) -> FlatOutput:
    """The view that makes O into O~ and G into G~: all output positions in one axis."""
    return output.reshape(*output.shape[:2], math.prod(output.shape[2:]))


def output(u: U, weight: FlatWeight, bias: FlatBias | None = None, groups: int = 1, **dot) -> FlatOutput:
    """Eq. 2: `O~[p,q,r] = sum_m W~[q,m] U[p,m,r] + B~[0,q,0]`."""
    _check(groups, u=u, weight=weight)
    product = jnp.einsum("gqm,pgmr->pgqr", _rows(weight, groups), _channels(u, groups), **dot)
    result = _joined(product)
    if bias is None:
        return result
    if bias.shape != weight.shape[:1]:
        raise ValueError(
            f"`bias` must have one entry for each of the {weight.shape[0]} rows of `weight`, got {bias.shape}"
        )
    return result + bias.reshape(1, bias.shape[0], 1)


def unfolded_gradient(cotangent: FlatOutput, weight: FlatWeight, groups: int = 1, **dot) -> U:
    """Eq. 3: `dL/dU[i,j,k] = sum_q G~[i,q,k] W~[q,j]`."""
    _check(groups, weight=weight, cotangent=cotangent)
    return _joined(jnp.einsum("gqj,igqk->igjk", _rows(weight, groups), _channels(cotangent, groups), **dot))


def weight_gradient(cotangent: FlatOutput, u: U, groups: int = 1, **dot) -> FlatWeight:
    """Eq. 4: `dL/dW~[i,j] = sum_{p,r} G~[p,i,r] U[p,j,r]`."""
    _check(groups, u=u, cotangent=cotangent)
    blocks = jnp.einsum("pgir,pgjr->gij", _channels(cotangent, groups), _channels(u, groups), **dot)
    return blocks.reshape(groups * blocks.shape[1], blocks.shape[2])


def bias_gradient(cotangent: FlatOutput, preferred_element_type=None) -> FlatBias:
    """Eq. 5: `dL/dB[i] = sum_{p,r} G~[p,i,r]`."""
    _check(1, cotangent=cotangent)
    return cotangent.sum(axis=(0, 2), dtype=preferred_element_type)


def _check(groups: int, u: Any = None, weight: Any = None, cotangent: Any = None) -> None:
    """Refuses operands of eqs. 2-4 whose shapes do not fit each other, before a product could broadcast them."""
    groups = integer("groups", groups, 1)
    for name, array, axes in (("u", u, 3), ("weight", weight, 2), ("cotangent", cotangent, 3)):
        if array is not None and not hasattr(array, "ndim"):
            raise TypeError(f"`{name}` must be an array, got {type(array).__name__}: {array!r:.80}")
        if array is not None and array.ndim != axes:
            raise ValueError(f"`{name}` must have {axes} axes, got shape {array.shape}")
    rows = None if weight is None else weight.shape[0]
    for name, channels in (("u", u), ("cotangent", cotangent)):
        if channels is not None and channels.shape[1] % groups:
            raise ValueError(f"`groups` must divide the {channels.shape[1]} channels of `{name}`, got groups={groups}")
    if rows is not None and rows % groups:
        raise ValueError(f"`groups` must divide the {rows} rows of `weight`, got groups={groups}")
    if u is not None and weight is not None and u.shape[1] != weight.shape[1] * groups:
        raise ValueError(f"`u` must have {weight.shape[1] * groups} rows (weight.shape[1] * groups), got {u.shape[1]}")
    if cotangent is not None and weight is not None and cotangent.shape[1] != rows:
        raise ValueError(f"`cotangent` must have {rows} channels, one per row of `weight`, got {cotangent.shape[1]}")
    if u is not None and cotangent is not None and (u.shape[0], u.shape[2]) != (cotangent.shape[0], cotangent.shape[2]):
        raise ValueError(f"`u` and `cotangent` must agree in axes 0 and 2, got {u.shape} and {cotangent.shape}")


def _rows(weight: Array, groups: int) -> Array:
    """W~ `(q, m)` as one block of rows a group, `(g, q/g, m)`."""
    return weight.reshape(groups, weight.shape[0] // groups, weight.shape[1])


def _channels(array: Array, groups: int) -> Array:
    """`(p, channels, r)` as one block of channels per group, `(p, g, channels/g, r)`."""
    return array.reshape(array.shape[0], groups, array.shape[1] // groups, array.shape[2])


def _joined(blocks: Array) -> Array:
    """The inverse of `_channels`."""
    return blocks.reshape(blocks.shape[0], blocks.shape[1] * blocks.shape[2], blocks.shape[3])
