"""Convolutions with the signatures of `jax.lax`, by unfolding: a drop-in for code that calls those.

Any `dimension_numbers`, dilation of the input, groups of features or of the batch, string and negative padding are
reduced to `jaxconv.conv`: by transposing, by `jax.lax.pad` (which spreads and crops), and by taking groups of the batch for
groups of features.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

from jaxconv.arguments import inexact_array, one_precision, result_dtype
from jaxconv.conv import conv
from jaxconv.unfold import unfold
from jaxconv.window import integer, is_sequence

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
        padding: "SAME", "SAME_LOWER", "VALID", or a `(low, high)` pair per axis; a negative entry crops.
        lhs_dilation: spreads the input by this factor an axis; default 1.
        rhs_dilation: distance between taps, one per axis; default 1.
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
    numbers = _numbers(lhs.shape, rhs.shape, dimension_numbers)
    input, weight = lhs.transpose(numbers.lhs_spec), rhs.transpose(numbers.rhs_spec)
    if 0 in weight.shape[2:]:
        raise ValueError(f"`rhs` must have no empty spatial axis, got shape {rhs.shape}")
    if lhs.dtype != rhs.dtype:
        raise TypeError(f"`rhs` must have the dtype of `lhs`, {lhs.dtype}, got {rhs.dtype}")
    precision = one_precision(precision)
    result = result_dtype(input.dtype, preferred_element_type)
    rank = input.ndim - 2
    strides = _integers("window_strides", window_strides, rank)
    spread = _factors("lhs_dilation", lhs_dilation, rank)
    dilation = _factors("rhs_dilation", rhs_dilation, rank)
    pads = _pads(padding, input.shape[2:], weight.shape[2:], strides, dilation, spread)
    if rank == 0:
        # No axis to slide along: one of a single cell does no harm.
        input, weight = input[..., None], weight[..., None]
        strides, spread, dilation, pads = (1,), (1,), (1,), ((0, 0),)
    input, pads = _spread_and_cropped(input, spread, pads)
    groups = _groups(input.shape, weight.shape, numbers, feature_group_count, batch_group_count)
    if batch_group_count > 1:
        # Output channels of a group see only its part of the batch: the part is a group of features.
        samples = input.shape[0] // batch_group_count
        channels = batch_group_count * input.shape[1]
        input = jnp.moveaxis(input.reshape(batch_group_count, samples, *input.shape[1:]), 0, 1)
        input = input.reshape(samples, channels, *input.shape[3:])
    sizes = _sizes(input.shape[2:], weight.shape[2:], strides, pads, dilation)
    if 0 in (*input.shape[1:], *weight.shape, *sizes):
        # Nothing to compute or nothing to sum, which `jaxconv.conv` refuses.
        output = jnp.zeros((input.shape[0], weight.shape[0], *sizes), result)
    else:
        options: dict[str, Any] = {"precision": precision, "preferred_element_type": preferred_element_type}
        if numbers.lhs_spec[1] == numbers.out_spec[1] == lhs.ndim - 1:
            # Channels come and go last: the transposes here and there cancel, and none is left.
            input, options["data_format"] = jnp.moveaxis(input, 1, -1), "channels_last"
            output = jnp.moveaxis(conv(input, weight, None, strides, pads, dilation, groups, **options), -1, 1)
        else:
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
    if lhs.ndim < 2:
        raise ValueError(f"`lhs` must have 2 axes at least, got shape {lhs.shape}")
    result = result_dtype(lhs.dtype, preferred_element_type)
    rank = lhs.ndim - 2
    kernel = _integers("filter_shape", filter_shape, rank)
    numbers = _numbers(lhs.shape, (1, 1, *kernel), dimension_numbers)
    input = lhs.transpose(numbers.lhs_spec)
    if input.shape[1] == 0:
        raise ValueError(f"`lhs` must have features, got shape {lhs.shape}")
    strides = _integers("window_strides", window_strides, rank)
    spread = _factors("lhs_dilation", lhs_dilation, rank)
    dilation = _factors("rhs_dilation", rhs_dilation, rank)
    pads = _pads(padding, input.shape[2:], kernel, strides, dilation, spread)
    input, pads = _spread_and_cropped(input, spread, pads)
    sizes = _sizes(input.shape[2:], kernel, strides, pads, dilation)
    shape = (input.shape[0], input.shape[1] * math.prod(kernel), *sizes)
    if rank == 0:
        patches = input.astype(result)
    elif 0 in (*input.shape, *sizes):
        patches = jnp.zeros(shape, result)
    else:
        patches = unfold(input, kernel, dilation, pads, strides).reshape(shape).astype(result)
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
    numbers = _numbers(lhs.shape, rhs.shape, dimension_numbers)
    kernel = [rhs.shape[axis] for axis in numbers.rhs_spec[2:]]
    steps = _integers("strides", strides, rank)
    dilation = _factors("rhs_dilation", rhs_dilation, rank)
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    if isinstance(padding, str) and (use_consistent_padding or padding in ("SAME", "VALID")):
        padding = [_transposed_pads(extent, step, padding) for extent, step in zip(extents, steps, strict=True)]
    elif use_consistent_padding:
        pairs = _pairs(padding, rank)
        padding = [(extent - low - 1, extent - high - 1) for extent, (low, high) in zip(extents, pairs, strict=True)]
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


def _numbers(lhs: tuple, rhs: tuple, dimension_numbers: Any) -> lax.ConvDimensionNumbers:
    """`dimension_numbers` as permutations, by the function of JAX that its own convolutions ask."""
    try:
        return lax.conv_dimension_numbers(lhs, rhs, dimension_numbers)
    except TypeError as error:
        raise TypeError(
            f"`dimension_numbers` must be None or fit shapes {lhs} and {rhs}, got {dimension_numbers!r}: {error}"
        ) from error


def _integers(argument: str, value: Any, rank: int) -> tuple[int, ...]:
    """One integer of at least 1 an axis, and no single one for all of them, as `jax.lax` wants it."""
    entries = _entries(value)
    if entries is None or len(entries) != rank:
        told = value if entries is None else f"{len(entries)} entries: {entries}"
        raise ValueError(f"`{argument}` must be one integer for each of the {rank} spatial axes, got {told}")
    return tuple(integer(argument, entry, 1) for entry in entries)


def _entries(value: Any) -> tuple | None:
    """What `value` lists, as an iterator too, or None where it lists nothing."""
    return tuple(value) if is_sequence(value) or isinstance(value, Iterator) else None


def _factors(argument: str, value: Any, rank: int) -> tuple[int, ...]:
    """One dilation an axis: no dilation where `value` is None."""
    return (1,) * rank if value is None else _integers(argument, value, rank)


def _pads(
    padding: _Pads, spatial: tuple, kernel: tuple, strides: tuple, dilation: tuple, spread: tuple
) -> tuple[tuple[int, int], ...]:
    """`padding` as one (low, high) an axis; a string only where the input is not spread, as in `jax.lax`."""
    if not isinstance(padding, str):
        return _pairs(padding, len(spatial))
    if any(factor != 1 for factor in spread):
        raise ValueError(f"`padding` must be made of pairs where `lhs_dilation` is not 1, got {padding!r}")
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    try:
        return tuple(lax.padtype_to_pads(spatial, extents, strides, padding))
    except (RuntimeError, ValueError) as error:
        raise ValueError(f'`padding` as a string must be "SAME", "SAME_LOWER" or "VALID", got {padding!r}') from error


def _pairs(padding: Any, rank: int) -> tuple[tuple[int, int], ...]:
    """`padding` as one (low, high) an axis, of which both may be negative."""
    pairs = _entries(padding)
    if pairs is None or len(pairs) != rank or any(not is_sequence(pair) or len(pair) != 2 for pair in pairs):
        raise ValueError(f"`padding` must be one (low, high) for each of the {rank} spatial axes, got {padding!r}")
    return tuple((integer("padding", low, -(2**31)), integer("padding", high, -(2**31))) for low, high in pairs)


def _spread_and_cropped(
    input: Array, spread: tuple[int, ...], pads: tuple[tuple[int, int], ...]
) -> tuple[Array, tuple[tuple[int, int], ...]]:
    """`input` with zeros between its cells, padded on every axis where `pads` crop, and the `pads` that are left.

    An axis is cropped and padded in one go: of 3 cells, `(-5, 6)` leaves none and then makes 4.
    """
    crops = [min(pair) < 0 for pair in pads]
    for size, factor, pair in zip(input.shape[2:], spread, pads, strict=True):
        if max(0, factor * (size - 1) + 1) + sum(pair) < 0:
            raise ValueError(f"`padding` must crop no more cells than there are, got {pads} for shape {input.shape}")
    now = [(*(pair if crop else (0, 0)), factor - 1) for pair, crop, factor in zip(pads, crops, spread, strict=True)]
    if any(map(any, now)):
        input = lax.pad(input, jnp.zeros((), input.dtype), [(0, 0, 0), (0, 0, 0), *now])
    return input, tuple((0, 0) if crop else pair for pair, crop in zip(pads, crops, strict=True))


def _groups(input: tuple, weight: tuple, numbers: lax.ConvDimensionNumbers, features: int, batches: int) -> int:
    """The groups of features that stand for both kinds, of an input and a weight whose features are in front of their axes."""
    features, batches = integer("feature_group_count", features, 1), integer("batch_group_count", batches, 1)
    if features > 1 and batches > 1:
        raise ValueError(
            f"only one of `feature_group_count` and `batch_group_count` may exceed 1, got {features} and {batches}"
        )
    if input[0] % batches or weight[0] % batches:
        raise ValueError(
            f"`batch_group_count` must divide the batch {input[0]} and the output features {weight[0]}, got {batches}"
        )
    if weight[0] % features:
        raise ValueError(
            f"`feature_group_count` must divide the output features of `rhs`, rhs.shape[{numbers.rhs_spec[0]}] = {weight[0]}, "
            f"got {features}"
        )
    if input[1] != weight[1] * features:
        raise ValueError(
            f"`lhs` must have {weight[1] * features} features on axis {numbers.lhs_spec[1]}, rhs.shape[{numbers.rhs_spec[1]}] = "
            f"{weight[1]} times feature_group_count = {features}, got {input[1]}"
        )
    return features * batches


def _sizes(spatial: tuple, kernel: tuple, strides: tuple, pads: tuple, dilation: tuple) -> tuple[int, ...]:
    """The output's spatial size, 0 where no window fits, which elsewhere in jaxconv is a mistake."""
    return tuple(
        max(0, (low + size + high - d * (k - 1) - 1) // s + 1)
        for size, k, s, (low, high), d in zip(spatial, kernel, strides, pads, dilation, strict=True)
    )
