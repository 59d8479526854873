"""conv, conv1d, conv2d, conv3d: checks, then eq. 2 with the pipelines around eqs. 3, 4 and 5 as its VJP."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero
from jax.typing import DTypeLike

from jaxconv import formulas
from jaxconv.convolution import Convolution
from jaxconv.engines import materialise as engine
from jaxconv.shapes import Bias, Input, Output, Weight
from jaxconv.unfold import accumulator, inexact_array, with_batch
from jaxconv.window import Padding, integer, make_window


def conv(
    input: Input,
    weight: Weight,
    bias: Bias | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
) -> Output:
    """Convolution over any number of spatial axes, `weight.ndim - 2` of them.

    Unfolds the input and multiplies by the weight: eqs. 1 and 2 of *Some formulae*, a cross-correlation as in every
    deep-learning library. Its gradients are the pipelines around eqs. 3, 4 and 5, registered with `jax.custom_vjp`; one
    that is not asked for is not computed. Signature and results are those of `torch.nn.functional.conv1d`, `conv2d` and
    `conv3d`.

    Args:
        input: `(N, C_in, *spatial)`, or `(C_in, *spatial)` without a batch; floating or complex.
        weight: `(C_out, C_in/groups, *kernel)`, of the input's dtype.
        bias: `(C_out,)`, of the input's dtype, or None for none.
        stride: distance between windows, an int or one an axis.
        padding: cells of zeros around the input: an int, one an axis, a `(low, high)` pair an axis, `"valid"` (none),
            or `"same"` (keeps the size, the odd cell on the high side; stride 1 only).
        dilation: distance between taps, an int or one an axis.
        groups: blocks of channels that do not see each other; divides C_in and C_out.
        precision: of the products, as in `jax.lax.dot_general`; a tuple is for (input, weight).
        preferred_element_type: dtype of the result, and of the sums that it is rounded from where those are not wider:
            the input's (the default) or a wider one of its kind. Sums are carried in float32 at least and rounded once.

    Returns:
        O, `(N, C_out, *out_spatial)` or `(C_out, *out_spatial)`, with
        `out = (low + size + high - dilation * (kernel - 1) - 1) // stride + 1` on each axis.

    Raises:
        TypeError: an argument is no floating or complex array, dtypes differ, a size is not an integer, or
            `preferred_element_type` is narrower or of another kind than the input's dtype.
        ValueError: a wrong rank, channels or groups that do not match, a size below 1, a negative padding, `"same"`
            with a stride, a kernel larger than the padded input.
    """
    weight = inexact_array("weight", weight)
    if weight.ndim < 3:
        raise ValueError(
            f"`weight` must be (C_out, C_in/groups, *kernel) with at least one kernel axis, got shape {weight.shape}"
        )
    input, batched = with_batch("input", input, weight.ndim - 2)
    bias = None if bias is None else inexact_array("bias", bias)
    groups = integer("groups", groups, 1)
    _check_channels(input, weight, bias, groups)
    _check_dtypes(input, weight, bias)
    result = _result_dtype(input.dtype, preferred_element_type)
    window = make_window(weight.shape[2:], stride, padding, dilation, weight.ndim - 2)
    window.output_size(input.shape[2:])
    _check_precision(precision)
    convolution = Convolution(window, input.shape[2:], groups, precision, result, accumulator(result))
    output = _compiled_convolve(convolution, *_varying_alike(input, weight, bias))
    return output if batched else output[0]


def conv1d(
    input: Input,
    weight: Weight,
    bias: Bias | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
) -> Output:
    """`conv` over one spatial axis, with the signature of `torch.nn.functional.conv1d`.

    Arguments, results and errors are those of `conv`, for an input `(N, C_in, width)` or `(C_in, width)` and
    a weight `(C_out, C_in/groups, kernel_width)`.
    """
    _check_rank("conv1d", weight, 1)
    options = {"precision": precision, "preferred_element_type": preferred_element_type}
    return conv(input, weight, bias, stride, padding, dilation, groups, **options)


def conv2d(
    input: Input,
    weight: Weight,
    bias: Bias | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
) -> Output:
    """`conv` over two spatial axes, with the signature of `torch.nn.functional.conv2d`.

    Arguments, results and errors are those of `conv`, for an input `(N, C_in, height, width)` or
    `(C_in, height, width)` and a weight `(C_out, C_in/groups, kernel_height, kernel_width)`.
    """
    _check_rank("conv2d", weight, 2)
    options = {"precision": precision, "preferred_element_type": preferred_element_type}
    return conv(input, weight, bias, stride, padding, dilation, groups, **options)


def conv3d(
    input: Input,
    weight: Weight,
    bias: Bias | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
) -> Output:
    """`conv` over three spatial axes, with the signature of `torch.nn.functional.conv3d`.

    Arguments, results and errors are those of `conv`, for an input `(N, C_in, depth, height, width)` or
    `(C_in, depth, height, width)` and a weight `(C_out, C_in/groups, *kernel)`.
    """
    _check_rank("conv3d", weight, 3)
    options = {"precision": precision, "preferred_element_type": preferred_element_type}
    return conv(input, weight, bias, stride, padding, dilation, groups, **options)


def _convolve_primal(convolution: Convolution, input: Array, weight: Array, bias: Array | None) -> Array:
    return engine.output(convolution, input, weight, bias)


def _convolve_forward(convolution: Convolution, input: Any, weight: Any, bias: Any) -> tuple[Array, tuple]:
    """The output, and of the arguments only what the gradients that somebody asked for will need.

    Calls the engine and not `_convolve`: jax.hessian differentiates this rule forwards, which a custom_vjp refuses.
    """
    output = engine.output(convolution, input.value, weight.value, None if bias is None else bias.value)
    for_input = _kept(weight.value, input.perturbed)
    for_weight = _kept(input.value, weight.perturbed)
    for_bias = None if bias is None else _kept(bias.value, bias.perturbed)
    return output, (for_input, for_weight, for_bias)


def _kept(residual: Array, wanted: bool) -> Array:
    """`residual`, or an empty array in its place: JAX wants residuals of one tree structure, whoever is perturbed."""
    return residual if wanted else jnp.zeros((0,), residual.dtype)


def _convolve_backward(convolution: Convolution, residuals: tuple, cotangent: Any) -> tuple:
    """The pipelines around eqs. 3, 4 and 5; None, which JAX reads as zero, where nobody asked (or the batch is empty)."""
    if isinstance(cotangent, SymbolicZero):
        return None, None, None
    weight, input, bias = residuals
    return (
        engine.input_gradient(convolution, weight, cotangent) if weight.size else None,
        engine.weight_gradient(convolution, input, cotangent) if input.size else None,
        _bias_gradient(convolution, bias, cotangent) if bias is not None and bias.size else None,
    )


def _bias_gradient(convolution: Convolution, bias: Array, cotangent: Array) -> Array:
    """View, eq. 5."""
    gradient = formulas.bias_gradient(formulas.flat(cotangent), preferred_element_type=convolution.accumulate)
    return gradient.astype(bias.dtype)


_convolve = jax.custom_vjp(_convolve_primal, nondiff_argnums=(0,))
_convolve.defvjp(_convolve_forward, _convolve_backward, symbolic_zeros=True)

# Outside jit the work is then one compiled program and not a dispatch an operation; inside jit it vanishes.
_compiled_convolve = jax.jit(_convolve, static_argnums=0, inline=True)


def _check_rank(name: str, weight: Any, rank: int) -> None:
    shape = inexact_array("weight", weight).shape
    if len(shape) != rank + 2:
        raise ValueError(
            f"`weight` of {name} must have {rank + 2} axes (C_out, C_in/groups, *kernel), got shape {shape}"
        )


def _check_channels(input: Array, weight: Array, bias: Array | None, groups: int) -> None:
    out_channels, group_channels = weight.shape[:2]
    if 0 in weight.shape:
        raise ValueError(f"`weight` must have no empty axis, got shape {weight.shape}")
    if out_channels % groups:
        raise ValueError(f"`groups` must divide the {out_channels} output channels of `weight`, got groups={groups}")
    if input.shape[1] % groups:
        raise ValueError(f"`groups` must divide the {input.shape[1]} channels of `input`, got groups={groups}")
    if input.shape[1] != group_channels * groups:
        raise ValueError(
            f"`input` must have {group_channels * groups} channels (weight.shape[1] = {group_channels} times "
            f"groups = {groups}), got {input.shape[1]}"
        )
    if bias is not None and bias.shape != (out_channels,):
        raise ValueError(f"`bias` must have shape {(out_channels,)}, one entry an output channel, got {bias.shape}")


def _check_dtypes(input: Array, weight: Array, bias: Array | None) -> None:
    for argument, array in (("weight", weight), ("bias", bias)):
        if array is not None and array.dtype != input.dtype:
            raise TypeError(f"`{argument}` must have the dtype of `input`, {input.dtype}, got {array.dtype}")


def _check_precision(precision: Any) -> None:
    try:
        hash(precision)
    except TypeError as error:
        raise TypeError(
            f"`precision` must be one of jax.lax.PrecisionLike, or a tuple of two, got {precision!r}"
        ) from error


def _varying_alike(*arrays: Array | None) -> tuple[Array | None, ...]:
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


def _result_dtype(dtype: Any, preferred: Any) -> Any:
    """The output's dtype: the input's, or `preferred_element_type`."""
    if preferred is None:
        return dtype
    try:
        result = jax.dtypes.canonicalize_dtype(preferred)
    except TypeError as error:
        raise TypeError(f"`preferred_element_type` must be a dtype, got {preferred!r}") from error
    if result.name not in _RESULTS[dtype.name]:
        allowed = ", ".join(_RESULTS[dtype.name])
        raise TypeError(
            f"`preferred_element_type` must be one of {allowed} for an input of {dtype.name}, got {result.name}"
        )
    return result
