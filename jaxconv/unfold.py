"""unfold and fold for any number of spatial axes, each the other's transpose and the other's VJP.

A window is a product of axes, so unfolding goes axis by axis: a kernel of K1 x K2 taps is K1 + K2 strided slices
and not K1 * K2, and folding adds K1 + K2 shifted arrays. A long axis of taps is split in two in the same way.
No gather, no scatter, no convolution primitive.
"""

import math
import operator
from collections.abc import Sequence
from functools import reduce

import jax.numpy as jnp
from jax import Array, lax

from jaxconv.arguments import accumulator, is_last, with_batch
from jaxconv.differentiation import linear
from jaxconv.shapes import Columns, Folded, Input, Unfolded
from jaxconv.window import Padding, Window, agreed_rank, make_window, per_axis


def unfold(
    input: Input,
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    padding: Padding = 0,
    stride: int | Sequence[int] = 1,
    *,
    data_format: str = "channels_first",
) -> Unfolded:
    """Copies every window of `input` into a column: the U of eq. 1.

    `U[n, c*taps + k, l] = input[n, c, stride*l + dilation*k - padding]`, zero where that position is outside; `k` and
    `l` run over the kernel and the output positions in row-major order. Names, order, defaults, layout and results are
    those of `torch.nn.functional.unfold`, for any number of spatial axes instead of two.

    Args:
        input: `(N, C, *spatial)` or `(C, *spatial)`, floating or complex.
        kernel_size: an int, or one per axis. The number of spatial axes is the length of the sequences among
            `kernel_size`, `dilation`, `padding` and `stride`; where all are ints there are two axes, as in torch.
        dilation: distance between taps, an int or one per axis.
        padding: cells of zeros around the input: an int, one per axis, a `(low, high)` pair per axis, `"valid"` or
            `"same"` (stride 1 only).
        stride: distance between windows, an int or one per axis.
        data_format: "channels_first", or "channels_last" for an input `(N, *spatial, C)` or `(*spatial, C)`; U is the same.

    Returns:
        U, `(N, C * prod(kernel_size), L)` or `(C * prod(kernel_size), L)`, of the input's dtype.

    Raises:
        TypeError: `input` is no floating or complex array, or a size is not an integer.
        ValueError: a wrong rank, an empty channel or spatial axis, a size below 1, a negative padding, a kernel larger
            than the padded input.
    """
    rank = agreed_rank(2, kernel_size=kernel_size, dilation=dilation, padding=padding, stride=stride)
    window = make_window(kernel_size, stride, padding, dilation, rank)
    input, batched = with_batch(
        "input", input, rank, hint="; say another number of spatial axes with a sequence, as in kernel_size=(3, 3, 3)"
    )
    input = jnp.moveaxis(input, -1, 1) if is_last(data_format) else input
    window.output_size(input.shape[2:])
    columns = _unfold(window, input.shape[2:], input)
    return columns if batched else columns[0]


def fold(
    input: Columns,
    output_size: int | Sequence[int],
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    padding: Padding = 0,
    stride: int | Sequence[int] = 1,
    *,
    data_format: str = "channels_first",
) -> Folded:
    """Adds every column of `input` back into its window: the transpose of `unfold`, known as weight sharing.

    Names, order, defaults and results are those of `torch.nn.functional.fold`, for any number of spatial axes.
    Sums are accumulated in float32 at least and rounded once to the input's dtype.

    Args:
        input: `(N, C * prod(kernel_size), L)` or `(C * prod(kernel_size), L)`, floating or complex.
        output_size: spatial size of the result, an int or one per axis.
        kernel_size, dilation, padding, stride: as in `unfold`, which also says how they give the number of axes.
        data_format: where the result has its channels, "channels_first" or "channels_last".

    Returns:
        `(N, C, *output_size)` or `(C, *output_size)`, or the same with C at the end, of the input's dtype.

    Raises:
        TypeError: `input` is no floating or complex array, or a size is not an integer.
        ValueError: as `unfold`, and where the rows are no multiple of the taps or `L` is not the number of windows that
            `output_size` holds.
    """
    rank = agreed_rank(
        2, output_size=output_size, kernel_size=kernel_size, dilation=dilation, padding=padding, stride=stride
    )
    last = is_last(data_format)
    spatial = per_axis("output_size", output_size, rank, 1)
    window = make_window(kernel_size, stride, padding, dilation, rank)
    input, batched = with_batch("input", input, 1)
    blocks = window.output_size(spatial, argument="output_size")
    rows, columns = input.shape[1:]
    if rows % window.taps:
        raise ValueError(
            f"`input` must have a multiple of prod(kernel_size) = {window.taps} rows "
            f"(kernel_size={window.kernel}), got {rows} in shape {input.shape}"
        )
    positions = math.prod(blocks)
    if columns != positions:
        raise ValueError(
            f"`input` must have one column a window, {positions} = prod{blocks} for output_size={spatial}, "
            f"kernel_size={window.kernel}, dilation={window.dilation}, padding={window.padding}, "
            f"stride={window.stride}; got {columns} in shape {input.shape}"
        )
    image = _fold(window, spatial, input)
    image = jnp.moveaxis(image, 1, -1) if last else image
    return image if batched else image[0]


def unfold_columns(window: Window, input: Array) -> Array:
    """U `(N, C*taps, L)` of `input` `(N, C, *spatial)`, in plain JAX operations.

    Copies through the accumulator's dtype, so that its derivative, a fold, sums there and rounds once.
    """
    taps = input.astype(accumulator(input.dtype))
    out_spatial = window.output_size(input.shape[2:])
    for axis in range(window.rank):
        # Before: (N, C, k_0.., l_0.., spatial_axis..). The new tap axis goes behind the ones already there.
        at = 2 + 2 * axis
        taps = _pad_axis(taps, at, *window.padding[axis])
        taps = _slide(taps, *_axis(window, axis), out_spatial[axis], at, tap_axis=2 + axis)
    batch, channels = input.shape[:2]
    return taps.reshape(batch, channels * window.taps, math.prod(out_spatial)).astype(input.dtype)


def fold_columns(window: Window, spatial: tuple[int, ...], columns: Array) -> Array:
    """The transpose of `unfold_columns`: `(N, C*taps, L)` to `(N, C, *spatial)`, in plain JAX operations.

    Sums in the dtype of `columns`, which is the caller's to choose.
    """
    batch, rows = columns.shape[:2]
    taps = columns.reshape(batch, rows // window.taps, *window.kernel, *window.output_size(spatial))
    for axis in reversed(range(window.rank)):
        low, _ = window.padding[axis]
        taps = _add_back(taps, *_axis(window, axis), spatial[axis], low, 2 + 2 * axis, tap_axis=2 + axis)
    return taps


def _axis(window: Window, axis: int) -> tuple[int, int, int]:
    return window.kernel[axis], window.stride[axis], window.dilation[axis]


def _slide(
    array: Array, taps: int, stride: int, dilation: int, positions: int, spatial_axis: int, tap_axis: int
) -> Array:
    """Unfolds one axis: `out[.., k, .., l, ..] = array[.., stride*l + dilation*k, ..]`, a strided slice a tap; or a view, where
    windows neither overlap nor leave anything out between them."""
    if taps == stride and dilation == 1:
        array = lax.slice_in_dim(array, 0, stride * positions, 1, spatial_axis)
        shape = (*array.shape[:spatial_axis], positions, taps, *array.shape[spatial_axis + 1 :])
        return jnp.moveaxis(array.reshape(shape), spatial_axis + 1, tap_axis)
    if taps > _DIRECT_TAPS:
        inner, outer = _factors(taps)
        reach = stride * (positions - 1) + dilation * inner * (outer - 1) + 1
        array = _pad_axis(array, spatial_axis, 0, reach + dilation * (inner - 1) - array.shape[spatial_axis])
        array = _slide(array, inner, 1, dilation, reach, spatial_axis, tap_axis)
        array = _slide(array, outer, stride, dilation * inner, positions, spatial_axis + 1, tap_axis)
        merged = array.reshape(*array.shape[:tap_axis], outer * inner, *array.shape[tap_axis + 2 :])
        return lax.slice_in_dim(merged, 0, taps, 1, tap_axis)
    reach = stride * (positions - 1) + 1
    starts = [dilation * tap for tap in range(taps)]
    slices = [lax.slice_in_dim(array, start, start + reach, stride, spatial_axis) for start in starts]
    return jnp.stack(slices, axis=tap_axis)


def _add_back(
    array: Array, taps: int, stride: int, dilation: int, size: int, low: int, spatial_axis: int, tap_axis: int
) -> Array:
    """The transpose of padding by `low` and `_slide`: spreads every tap by the stride, shifts it into place, adds."""
    positions = array.shape[spatial_axis + 1]
    if taps == stride and dilation == 1:
        array = jnp.moveaxis(array, tap_axis, spatial_axis + 1)
        array = array.reshape(*array.shape[:spatial_axis], positions * taps, *array.shape[spatial_axis + 2 :])
        return _pad_axis(array, spatial_axis, -low, size - positions * taps + low)
    if taps > _DIRECT_TAPS:
        inner, outer = _factors(taps)
        reach = stride * (positions - 1) + dilation * inner * (outer - 1) + 1
        array = _pad_axis(array, tap_axis, 0, outer * inner - taps)
        array = array.reshape(*array.shape[:tap_axis], outer, inner, *array.shape[tap_axis + 1 :])
        array = _add_back(array, outer, stride, dilation * inner, reach, 0, spatial_axis + 1, tap_axis)
        return _add_back(array, inner, 1, dilation, size, low, spatial_axis, tap_axis)
    spread = stride * (positions - 1) + 1
    parts = []
    for tap in range(taps):
        start = dilation * tap - low
        part = lax.index_in_dim(array, tap, tap_axis, keepdims=False)
        parts.append(_pad_axis(part, spatial_axis, start, size - start - spread, stride - 1))
    return reduce(operator.add, parts)


# A program of thousands of slices takes minutes to compile (measured: 1024 taps 18 s, 4096 taps 127 s), so a longer
# axis of taps is unfolded twice, by `inner` neighbours and then by every `inner`-th, as if it were two axes.
_DIRECT_TAPS = 32


def _factors(taps: int) -> tuple[int, int]:
    """`inner` and `outer` near the square root, whose product is at least `taps`."""
    inner = math.isqrt(taps - 1) + 1
    return inner, -(-taps // inner)


def _pad_axis(array: Array, axis: int, low: int, high: int, interior: int = 0) -> Array:
    """`lax.pad` with zeros along one axis; a negative `low` or `high` crops."""
    if not (low or high or interior):
        return array
    configuration = [(0, 0, 0)] * array.ndim
    configuration[axis] = (low, high, interior)
    return lax.pad(array, jnp.zeros((), array.dtype), configuration)


def _unfold_primal(window: Window, spatial: tuple[int, ...], input: Array) -> Array:
    return unfold_columns(window, input)


def _fold_primal(window: Window, spatial: tuple[int, ...], columns: Array) -> Array:
    return fold_columns(window, spatial, columns.astype(accumulator(columns.dtype))).astype(columns.dtype)


_unfold = linear(_unfold_primal, transpose=_fold_primal)
_fold = linear(_fold_primal, transpose=_unfold_primal)
