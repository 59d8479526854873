"""What the public functions ask of their arguments: arrays, dtypes, channels. Each check raises by name."""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax


def with_batch(argument: str, value: Any, rank: int, hint: str = "") -> tuple[Array, bool]:
    """`value` as an array `(N, C, *spatial)` of `rank` spatial axes, and whether it came with its batch axis.

    Raises:
        TypeError: it is no floating or complex array.
        ValueError: its number of axes is neither `rank + 2` nor `rank + 1`, or an axis other than N is empty or not known.
    """
    array = inexact_array(argument, value)
    if array.ndim not in (rank + 1, rank + 2):
        raise ValueError(
            f"`{argument}` must have {rank + 2} axes, or {rank + 1} without the batch, got shape {array.shape}{hint}"
        )
    batched = array.ndim == rank + 2
    if not all(isinstance(size, int) for size in array.shape[1 if batched else 0 :]):
        raise ValueError(
            f"`{argument}` may have an unknown size (of `jax.export`) in its batch axis alone, got {array.shape}"
        )
    if 0 in array.shape[1 if batched else 0 :]:
        raise ValueError(f"`{argument}` may be empty only in its batch axis, got shape {array.shape}")
    return (array if batched else array[None]), batched


def inexact_array(argument: str, value: Any) -> Array:
    """`value` as a JAX array of a floating or complex dtype, or a TypeError that names `argument`."""
    if not isinstance(value, (Array, np.ndarray, np.generic)):
        raise TypeError(f"`{argument}` must be a JAX or NumPy array, got {type(value).__name__}: {value!r:.80}")
    if value.dtype.name not in _DTYPES:
        raise TypeError(f"`{argument}` must have a dtype among {', '.join(_DTYPES)}, got {value.dtype.name}")
    return jnp.asarray(value)


_DTYPES = ("float64", "float32", "bfloat16", "float16", "complex128", "complex64")


def accumulator(dtype: Any) -> Any:
    """The dtype that sums over `dtype` are carried in: float32 at least."""
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype


def check_rank(name: str, weight: Any, rank: int) -> None:
    shape = inexact_array("weight", weight).shape
    if len(shape) != rank + 2:
        raise ValueError(
            f"`weight` of {name} must have {rank + 2} axes, two of channels and {rank} of the kernel, got shape {shape}"
        )


def operands(
    input: Any, weight: Any, bias: Any, preferred_element_type: Any, rank: int | None = None, hint: str = ""
) -> tuple[Array, bool, Array, Array | None, Any]:
    """The arrays of a convolution with the input's batch axis, whether that was there, and the dtype of the result.

    `rank` is the number of spatial axes, by default all of the weight's behind its two of channels; `hint` ends what is said of
    an input of another rank.
    """
    weight = inexact_array("weight", weight)
    if weight.ndim < 3:
        raise ValueError(
            f"`weight` must have two axes of channels and at least one of the kernel, got shape {weight.shape}"
        )
    if 0 in weight.shape:
        raise ValueError(f"`weight` must have no empty axis, got shape {weight.shape}")
    input, batched = with_batch("input", input, weight.ndim - 2 if rank is None else rank, hint)
    bias = None if bias is None else inexact_array("bias", bias)
    check_dtypes(input, weight, bias)
    return input, batched, weight, bias, result_dtype(input.dtype, preferred_element_type)


def is_last(data_format: Any) -> bool:
    """Whether the channels are an image's last axis, or a ValueError."""
    if data_format not in ("channels_first", "channels_last"):
        raise ValueError(f'`data_format` must be "channels_first" or "channels_last", got {data_format!r}')
    return data_format == "channels_last"


def image_sizes(image: Array, channels_last: bool) -> tuple[int, tuple[int, ...], int]:
    """Batch, spatial size and channels of an image."""
    batch, *rest = image.shape
    return (batch, tuple(rest[:-1]), rest[-1]) if channels_last else (batch, tuple(rest[1:]), rest[0])


def check_channels(
    input: Array, channels_last: bool, weight: Array, bias: Array | None, groups: int, transposed: bool = False
) -> None:
    """Refuses an `input`, with its batch axis, whose channels do not fit `weight` (C_out, C_in/groups, ..), or (C_in,
    C_out/groups, ..) where transposed."""
    whole, part = weight.shape[:2]
    channels = image_sizes(input, channels_last)[2]
    in_channels, out_channels = (whole, part * groups) if transposed else (part * groups, whole)
    named = "input" if transposed else "output"
    if whole % groups:
        raise ValueError(f"`groups` must divide the {whole} {named} channels of `weight`, got groups={groups}")
    if channels % groups:
        raise ValueError(f"`groups` must divide the {channels} channels of `input`, got groups={groups}")
    if channels != in_channels:
        told = "weight.shape[0]" if transposed else f"weight.shape[1] = {part} times groups = {groups}"
        raise ValueError(
            f"`input` must have {in_channels} channels ({told}), got {channels}, on axis "
            f"{input.ndim - 1 if channels_last else 1} of (N, ..) = {input.shape}"
            + _other_layout(input, channels_last, in_channels)
        )
    if bias is not None and bias.shape != (out_channels,):
        raise ValueError(f"`bias` must have shape {(out_channels,)}, one entry per output channel, got {bias.shape}")


def _other_layout(input: Array, channels_last: bool, in_channels: int) -> str:
    """A hint, where the channels seem to be where `data_format` does not say."""
    if input.shape[1 if channels_last else -1] != in_channels:
        return ""
    return f'; `data_format="{"channels_first" if channels_last else "channels_last"}"` has them on the other side'


def check_dtypes(input: Array, weight: Array, bias: Array | None) -> None:
    for argument, array in (("weight", weight), ("bias", bias)):
        if array is not None and array.dtype != input.dtype:
            raise TypeError(f"`{argument}` must have the dtype of `input`, {input.dtype}, got {array.dtype}")


def one_precision(precision: Any) -> Any:
    """What `jax.lax` takes for both factors of a product: of a pair the higher one, as it depends on the order of summation which
    factor is on the left."""
    try:
        _check_precision(precision)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"`precision` must be one of jax.lax.PrecisionLike, or a tuple of two, got {precision!r}"
        ) from error
    return max(map(lax.Precision, precision), key=_RISING.index) if isinstance(precision, tuple) else precision


_RISING = (lax.Precision.DEFAULT, lax.Precision.HIGH, lax.Precision.HIGHEST)


@cache
def _check_precision(precision: Any) -> None:
    """Asks JAX, which has no public function for it."""
    number = jax.ShapeDtypeStruct((1,), jnp.float32)
    jax.eval_shape(partial(lax.dot, precision=precision), number, number)


def varying_alike(*arrays: Array | None) -> tuple[Array | None, ...]:
    """Inside `jax.shard_map`: all arrays as varying over every mesh axis that one of them varies over.

    That a gradient is then summed over the devices on which an argument was the same is JAX's own rule for `pcast`; a
    custom_vjp rule must give a gradient that varies like its argument, and would have to do it by hand.
    """
    axes = [frozenset() if array is None else jax.typeof(array).manual_axis_type.varying for array in arrays]
    all_axes = frozenset().union(*axes)
    return tuple(
        array if array is None or own == all_axes else lax.pcast(array, tuple(all_axes - own), to="varying")
        for array, own in zip(arrays, axes, strict=True)
    )


# What sums of products of a dtype can be returned in: itself, or wider.
_RESULTS = {
    "bfloat16": ("bfloat16", "float32", "float64"),
    "float16": ("float16", "float32", "float64"),
    "float32": ("float32", "float64"),
    "float64": ("float64",),
    "complex64": ("complex64", "complex128"),
    "complex128": ("complex128",),
}


def result_dtype(dtype: Any, preferred: Any) -> Any:
    """The output's dtype: the input's, or `preferred_element_type`."""
    if preferred is None:
        return dtype
    try:
        # Without `jax_enable_x64` JAX warns, and has 32 bits for 64.
        result = jax.eval_shape(partial(jnp.empty, 0, preferred)).dtype
    except TypeError as error:
        raise TypeError(f"`preferred_element_type` must be a dtype, got {preferred!r}") from error
    if result.name not in _RESULTS[dtype.name]:
        allowed = ", ".join(_RESULTS[dtype.name])
        raise TypeError(
            f"`preferred_element_type` must be one of {allowed} for an input of {dtype.name}, got {result.name}"
        )
    return result
