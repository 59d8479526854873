"""Equations 2 to 5 of `some-formulae.md`, one function each, in its own letters.

p is the sample, q the output channel, m a row of U (input channel, then tap), r the output position. Groups split
q and m into `groups` equal blocks that do not see each other; with one group each line below is the seed's formula.

Every function takes `precision` and `preferred_element_type` with their meanings in `jax.lax.dot_general`; the
second is the dtype that sums are accumulated and returned in (default: the operands').
"""

import math

import jax.numpy as jnp
from jax import Array

from jaxconv.shapes import FlatBias, FlatOutput, FlatWeight, U


def flat(output: Array) -> FlatOutput:
    """The view that makes O into O~ and G into G~: all output positions in one axis."""
    return output.reshape(*output.shape[:2], math.prod(output.shape[2:]))


def output(u: U, weight: FlatWeight, bias: FlatBias | None = None, groups: int = 1, **dot) -> FlatOutput:
    """Eq. 2: `O~[p,q,r] = sum_m W~[q,m] U[p,m,r] + B~[0,q,0]`."""
    product = jnp.einsum("gqm,pgmr->pgqr", _rows(weight, groups), _channels(u, groups), **dot)
    result = _joined(product)
    return result if bias is None else result + bias.astype(result.dtype).reshape(1, bias.shape[0], 1)


def unfolded_gradient(cotangent: FlatOutput, weight: FlatWeight, groups: int = 1, **dot) -> U:
    """Eq. 3: `dL/dU[i,j,k] = sum_q G~[i,q,k] W~[q,j]`."""
    return _joined(jnp.einsum("gqj,igqk->igjk", _rows(weight, groups), _channels(cotangent, groups), **dot))


def weight_gradient(cotangent: FlatOutput, u: U, groups: int = 1, **dot) -> FlatWeight:
    """Eq. 4: `dL/dW~[i,j] = sum_{p,r} G~[p,i,r] U[p,j,r]`."""
    blocks = jnp.einsum("pgir,pgjr->gij", _channels(cotangent, groups), _channels(u, groups), **dot)
    return blocks.reshape(groups * blocks.shape[1], blocks.shape[2])


def bias_gradient(cotangent: FlatOutput, preferred_element_type=None) -> FlatBias:
    """Eq. 5: `dL/dB[i] = sum_{p,r} G~[p,i,r]`."""
    return cotangent.sum(axis=(0, 2), dtype=preferred_element_type)


def _rows(weight: Array, groups: int) -> Array:
    """W~ `(q, m)` as one block of rows a group, `(g, q/g, m)`."""
    return weight.reshape(groups, weight.shape[0] // groups, weight.shape[1])


def _channels(array: Array, groups: int) -> Array:
    """`(p, channels, r)` as one block of channels a group, `(p, g, channels/g, r)`."""
    return array.reshape(array.shape[0], groups, array.shape[1] // groups, array.shape[2])


def _joined(blocks: Array) -> Array:
    """The inverse of `_channels`."""
    return blocks.reshape(blocks.shape[0], blocks.shape[1] * blocks.shape[2], blocks.shape[3])
