"""Convolutions with the signatures of `jax.lax`, by unfolding: a drop-in for code that calls those.

Any `dimension_numbers`, dilation of the input, groups of features or of the batch, string and negative padding are
reduced to `jaxconv.conv`: by transposing, by `jax.lax.pad` (which spreads and crops), and by taking groups of the batch for
groups of features.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

from jaxconv.arguments import inexact_array
from jaxconv.conv import conv
from jaxconv.unfold import unfold
from jaxconv.window import Window, per_axis

_Pads = str | Sequence[tuple[int, int]]


def conv_general_dilated(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: _Pads,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
    out_sharding: Any = None,
) -> Array:
    """`jax.lax.conv_general_dilated`: same arguments, same results, by `jaxconv.conv`.

    Args:
        lhs, rhs: input and weight, laid out as `dimension_numbers` says; floating or complex, of one dtype.
        window_strides: an int for each spatial axis.
        padding: "SAME", "SAME_LOWER", "VALID", or a `(low, high)` pair an axis; a negative entry crops.
        lhs_dilation: spreads the input by this factor an axis; default 1.
        rhs_dilation: distance between taps an axis; default 1.
        dimension_numbers: as in `jax.lax`; default batch, features, spatial for input and output, and out, in, spatial.
        feature_group_count, batch_group_count: as in `jax.lax`; one of them must be 1.
        precision, preferred_element_type: as in `jaxconv.conv`.
        out_sharding: must be None.

    Raises:
        TypeError, ValueError: as `jaxconv.conv`, naming the argument.
    """
    lhs, rhs = inexact_array("lhs", lhs), inexact_array("rhs", rhs)
    if out_sharding is not None:
        raise ValueError(f"`out_sharding` must be None: sharding is left to the compiler, got {out_sharding}")
    if lhs.ndim != rhs.ndim or lhs.ndim < 2:
        raise ValueError(
            f"`lhs` and `rhs` must have the same number of axes, 2 at least, got {lhs.shape} and {rhs.shape}"
        )
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    input, weight = lhs.transpose(numbers.lhs_spec), rhs.transpose(numbers.rhs_spec)
    rank = input.ndim - 2
    if rank == 0:
        # No axis to slide along: one of a single cell does no harm.
        input, weight, padding = input[..., None], weight[..., None], ((0, 0),)
        window_strides, lhs_dilation, rhs_dilation = (1,), None, None
    rank = max(rank, 1)
    strides = per_axis("window_strides", tuple(window_strides), rank, 1)
    spread = _factors("lhs_dilation", lhs_dilation, rank)
    dilation = _factors("rhs_dilation", rhs_dilation, rank)
    pads = _pads(padding, input.shape[2:], weight.shape[2:], strides, dilation, spread)
    input = _spread_and_cropped(input, spread, pads)
    pads = tuple((max(low, 0), max(high, 0)) for low, high in pads)
    groups = _groups(input.shape, weight.shape, feature_group_count, batch_group_count)
    if batch_group_count > 1:
        # Output channels of a group see only its part of the batch: the part is a group of features.
        samples = input.shape[0] // batch_group_count
        channels = batch_group_count * input.shape[1]
        input = jnp.moveaxis(input.reshape(batch_group_count, samples, *input.shape[1:]), 0, 1)
        input = input.reshape(samples, channels, *input.shape[3:])
    empty = _empty_output(input, weight, strides, pads, dilation)
    if empty is not None:
        output = jnp.zeros(empty, preferred_element_type or lhs.dtype)
    else:
        options = {"precision": precision, "preferred_element_type": preferred_element_type}
        output = conv(input, weight, None, strides, pads, dilation, groups, **options)
    output = output.reshape(output.shape[: lhs.ndim])
    return output.transpose(sorted(range(output.ndim), key=numbers.out_spec.__getitem__))


def conv_general_dilated_patches(
    lhs: Array,
    filter_shape: Sequence[int],
    window_strides: Sequence[int],
    padding: _Pads,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
) -> Array:
    """`jax.lax.conv_general_dilated_patches`: every window of `lhs` along the feature axis, by `jaxconv.unfold`.

    Arguments are those of `conv_general_dilated`; `filter_shape` is the kernel's. `precision` is of no matter to a copy.
    """
    lhs = inexact_array("lhs", lhs)
    rank = lhs.ndim - 2
    kernel = per_axis("filter_shape", tuple(filter_shape), rank, 1)
    weight_shape = (lhs.shape[0], 1, *kernel) if dimension_numbers is None else None
    numbers = lax.conv_dimension_numbers(lhs.shape, weight_shape or lhs.shape, dimension_numbers)
    input = lhs.transpose(numbers.lhs_spec)
    strides = per_axis("window_strides", tuple(window_strides), rank, 1)
    spread = _factors("lhs_dilation", lhs_dilation, rank)
    dilation = _factors("rhs_dilation", rhs_dilation, rank)
    pads = _pads(padding, input.shape[2:], kernel, strides, dilation, spread)
    input = _spread_and_cropped(input, spread, pads)
    window = Window(kernel, strides, tuple((max(low, 0), max(high, 0)) for low, high in pads), dilation)
    columns = unfold(input, kernel, dilation, window.padding, strides)
    patches = columns.reshape(*columns.shape[:2], *window.output_size(input.shape[2:]))
    patches = patches.astype(preferred_element_type or lhs.dtype)
    return patches.transpose(sorted(range(patches.ndim), key=numbers.out_spec.__getitem__))


def conv_transpose(
    lhs: Array,
    rhs: Array,
    strides: Sequence[int],
    padding: _Pads,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    transpose_kernel: bool = False,
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
    use_consistent_padding: bool = False,
) -> Array:
    """`jax.lax.conv_transpose`: same arguments, same results, by `conv_general_dilated` of this module.

    With `transpose_kernel` it is the gradient of a convolution by its input; without, a convolution over an input spread
    by the strides. Strings pad the convolution that this is the transpose of, pairs the spread input, unless
    `use_consistent_padding` makes them mean the first too. The default `dimension_numbers` put the features last.
    """
    lhs, rhs = inexact_array("lhs", lhs), inexact_array("rhs", rhs)
    rank = lhs.ndim - 2
    if dimension_numbers is None:
        letters = "HWD"[:rank] if rank <= 3 else None
        if letters is None:
            raise ValueError(f"`dimension_numbers` must be given for {rank} spatial axes")
        dimension_numbers = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    kernel = [rhs.shape[axis] for axis in numbers.rhs_spec[2:]]
    steps = per_axis("strides", tuple(strides), rank, 1)
    dilation = _factors("rhs_dilation", rhs_dilation, rank)
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    if isinstance(padding, str):
        padding = [_transposed_pads(extent, step, padding) for extent, step in zip(extents, steps, strict=True)]
    elif use_consistent_padding:
        padding = [(extent - low - 1, extent - high - 1) for extent, (low, high) in zip(extents, padding, strict=True)]
    if transpose_kernel:
        out, into, *spatial = numbers.rhs_spec
        rhs = jnp.swapaxes(jnp.flip(rhs, spatial), out, into)
    return conv_general_dilated(
        lhs, rhs, (1,) * rank, padding, steps, dilation, dimension_numbers, 1, 1, precision, preferred_element_type
    )


def _transposed_pads(extent: int, step: int, padding: str) -> tuple[int, int]:
    """What "SAME" (size times stride) and "VALID" (all that the kernel reaches) mean for a transposed convolution."""
    if padding == "SAME":
        total = extent + step - 2
        low = extent - 1 if step > extent - 1 else math.ceil(total / 2)
    elif padding == "VALID":
        total, low = extent + step - 2 + max(extent - step, 0), extent - 1
    else:
        raise ValueError(f'`padding` as a string must be "SAME" or "VALID", got {padding!r}')
    return low, total - low


def _factors(argument: str, value: Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """One dilation an axis: no dilation where `value` is None."""
    return (1,) * rank if value is None else per_axis(argument, tuple(value), rank, 1)


def _pads(
    padding: _Pads, spatial: tuple, kernel: tuple, strides: tuple, dilation: tuple, spread: tuple
) -> tuple[tuple[int, int], ...]:
    """`padding` as one (low, high) an axis; a string only where the input is not spread, as in `jax.lax`."""
    if isinstance(padding, str):
        if any(factor != 1 for factor in spread):
            raise ValueError(f"`padding` must be made of pairs where `lhs_dilation` is not 1, got {padding!r}")
        extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        try:
            return tuple(lax.padtype_to_pads(spatial, extents, strides, padding))
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f'`padding` as a string must be "SAME", "SAME_LOWER" or "VALID", got {padding!r}'
            ) from error
    pads = tuple(tuple(pair) for pair in padding)
    if len(pads) != len(spatial) or any(len(pair) != 2 for pair in pads):
        raise ValueError(
            f"`padding` must be one (low, high) for each of the {len(spatial)} spatial axes, got {padding!r}"
        )
    return pads  # type: ignore[return-value]


def _spread_and_cropped(input: Array, spread: tuple[int, ...], pads: tuple[tuple[int, int], ...]) -> Array:
    """`input` with zeros between its cells and without what a negative padding takes away."""
    config = [(min(low, 0), min(high, 0), factor - 1) for (low, high), factor in zip(pads, spread, strict=True)]
    if not any(map(any, config)):
        return input
    return lax.pad(input, jnp.zeros((), input.dtype), [(0, 0, 0), (0, 0, 0), *config])


def _groups(input: tuple, weight: tuple, features: int, batches: int) -> int:
    """The groups of features that stand for both kinds."""
    for name, count in (("feature_group_count", features), ("batch_group_count", batches)):
        if count < 1:
            raise ValueError(f"`{name}` must be at least 1, got {count}")
    if features > 1 and batches > 1:
        raise ValueError(
            f"only one of `feature_group_count` and `batch_group_count` may exceed 1, got {features} and {batches}"
        )
    if input[0] % batches or weight[0] % batches:
        raise ValueError(
            f"`batch_group_count` must divide the batch {input[0]} and the output features {weight[0]}, got {batches}"
        )
    return features * batches


def _empty_output(input: Array, weight: Array, strides: tuple, pads: tuple, dilation: tuple) -> tuple[int, ...] | None:
    """The output's shape where it, or what it is summed over, has no cells, which `jaxconv.conv` refuses."""
    sizes = []
    for size, k, s, (low, high), d in zip(input.shape[2:], weight.shape[2:], strides, pads, dilation, strict=True):
        sizes.append(max(0, (low + size + high - d * (k - 1) - 1) // s + 1))
    if all(sizes) and 0 not in input.shape[1:] and 0 not in weight.shape:
        return None
    return (input.shape[0], weight.shape[0], *sizes)
