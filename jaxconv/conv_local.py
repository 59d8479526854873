"""Locally connected layer: a convolution whose weight is not shared, one kernel an output position."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from jaxconv import formulas
from jaxconv.arguments import accumulator, check_channels, is_last, one_precision, operands, varying_alike
from jaxconv.convolution import Convolution
from jaxconv.differentiation import bilinear
from jaxconv.pad import pad_for_mode
from jaxconv.shapes import Input, LocalBias, LocalWeight, Output
from jaxconv.unfold import fold_columns, unfold_columns
from jaxconv.window import Padding, integer, make_window


def conv_local(
    input: Input,
    weight: LocalWeight,
    bias: LocalBias | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    data_format: str = "channels_first",
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
) -> Output:
    """Convolution with a kernel of its own at every output position: eq. 2 with `W~[q,m,r]` in place of `W~[q,m]`.

    One batched product with U, `O~[p,q,r] = sum_m W~[q,m,r] U[p,m,r] + B~`. The gradients are eq. 3 and fold, eq. 4 without
    its sum over r, and eq. 5, registered with `jax.custom_vjp`. What it computes is that of
    `jax.lax.conv_general_dilated_local`, which takes the weight with its channels and taps in one axis.

    Args:
        input: `(N, C_in, *spatial)`, or `(C_in, *spatial)` without a batch; floating or complex.
        weight: `(C_out, C_in/groups, *kernel, *out_spatial)`, of the input's dtype. Half of the axes behind the first two
            are the kernel's; the others must be the output's size.
        bias: `(C_out,)`, or `(C_out, *out_spatial)` for one of its own at every position, or None.
        stride, padding, dilation, groups, padding_mode, data_format, precision, preferred_element_type: as in `conv`.

    Returns:
        `(N, C_out, *out_spatial)` or `(C_out, *out_spatial)`, with `out_spatial` as in `conv`.

    Raises:
        TypeError, ValueError: as `conv`, and where `weight` is not made for the output's positions.
    """
    shape = jnp.shape(weight)
    rank = (len(shape) - 2) // 2
    if len(shape) < 4 or len(shape) % 2:
        raise ValueError(
            f"`weight` must be (C_out, C_in/groups, *kernel, *out_spatial), with as many kernel as output axes, got {shape}"
        )
    input, batched, weight, bias, result = operands(
        input,
        weight,
        bias,
        preferred_element_type,
        rank,
        hint=f", for a `weight` of shape {shape}, which ends in {rank} axes of the kernel and {rank} of the output",
    )
    groups = integer("groups", groups, 1)
    window = make_window(shape[2 : 2 + rank], stride, padding, dilation, rank)
    last = is_last(data_format)
    input = jnp.moveaxis(input, -1, 1) if last else input
    input, window = pad_for_mode(input, window, padding_mode, 2)
    out_spatial = window.output_size(input.shape[2:])
    if shape[2 + rank :] != out_spatial:
        raise ValueError(f"`weight` must end in the output's size {out_spatial}, got shape {shape}")
    shapes = ((shape[0],), (shape[0], *out_spatial))
    if bias is not None and bias.shape not in shapes:
        raise ValueError(
            f"`bias` must have shape {shapes[0]}, or {shapes[1]} for one of its own at every position, got {bias.shape}"
        )
    check_channels(input, False, weight, None, groups)
    convolution = Convolution(window, input.shape[2:], groups, one_precision(precision), result, accumulator(result))
    output = _convolve_locally(convolution, *varying_alike(input, weight, bias))
    output = jnp.moveaxis(output, 1, -1) if last else output
    return output if batched else output[0]


def _by_position(convolution: Convolution, weight: Array) -> Array:
    """W~ as `(g, q, m, r)`: group, its output channels, its rows of U, output positions."""
    out_channels, group_channels = weight.shape[:2]
    rows = group_channels * convolution.window.taps
    return weight.reshape(convolution.groups, out_channels // convolution.groups, rows, -1)


def _by_group(convolution: Convolution, array: Array) -> Array:
    """`(p, channels, r)` as `(p, g, channels/g, r)`."""
    batch, channels, positions = array.shape
    return array.reshape(batch, convolution.groups, channels // convolution.groups, positions)


def _output(convolution: Convolution, input: Array, weight: Array, bias: Array | None) -> Array:
    u = _by_group(convolution, unfold_columns(convolution.window, input))
    product = jnp.einsum("gqmr,pgmr->pgqr", _by_position(convolution, weight), u, **convolution.dot)
    output = product.reshape(input.shape[0], weight.shape[0], *convolution.out_spatial)
    if bias is not None:
        wide = bias.astype(output.dtype)
        output = output + wide.reshape(1, *wide.shape, *(1,) * (output.ndim - 1 - wide.ndim))
    return output.astype(convolution.result)


def _input_gradient(convolution: Convolution, weight: Array, cotangent: Array) -> Array:
    """Eq. 3 with a weight per position, and fold."""
    flat = _by_group(convolution, formulas.flat(cotangent))
    by_position = _by_position(convolution, weight).astype(flat.dtype)
    columns = jnp.einsum("gqjk,igqk->igjk", by_position, flat, **convolution.dot)
    batch, groups, rows, positions = columns.shape
    columns = columns.reshape(batch, groups * rows, positions)
    return fold_columns(convolution.window, convolution.spatial, columns).astype(weight.dtype)


def _weight_gradient(convolution: Convolution, input: Array, cotangent: Array) -> Array:
    """Eq. 4 without its sum over the positions."""
    u = _by_group(convolution, unfold_columns(convolution.window, input)).astype(cotangent.dtype)
    flat = _by_group(convolution, formulas.flat(cotangent))
    blocks = jnp.einsum("pgir,pgjr->gijr", flat, u, **convolution.dot)
    group_channels = input.shape[1] // convolution.groups
    shape = (cotangent.shape[1], group_channels, *convolution.window.kernel, *convolution.out_spatial)
    return blocks.reshape(shape).astype(input.dtype)


def _bias_gradient(convolution: Convolution, bias: Array, cotangent: Array) -> Array:
    """Eq. 5, over the positions too where they share the bias."""
    axes = (0,) if bias.ndim > 1 else (0, *range(2, cotangent.ndim))
    return cotangent.sum(axes, dtype=convolution.accumulate).astype(bias.dtype)


_convolve_locally = bilinear(_output, _input_gradient, _weight_gradient, _bias_gradient)
