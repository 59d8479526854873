"""conv, conv1d, conv2d, conv3d: checks, then eq. 2 with the pipelines around eqs. 3, 4 and 5 as its VJP."""

from collections.abc import Sequence
from typing import Any

from jax import Array
from jax.typing import DTypeLike

from jaxconv import choice, evaluation, formulas
from jaxconv.arguments import (
    accumulator,
    check_channels,
    check_rank,
    image_sizes,
    is_last,
    one_precision,
    operands,
    varying_alike,
)
from jaxconv.convolution import Convolution
from jaxconv.differentiation import bilinear
from jaxconv.pad import pad_for_mode
from jaxconv.shapes import Bias, Input, Output, Weight
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
    padding_mode: str = "zeros",
    data_format: str = "channels_first",
    engine: str = "auto",
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
        stride: distance between windows, an int or one per axis.
        padding: cells of zeros around the input: an int, one per axis, a `(low, high)` pair per axis, `"valid"` (none),
            or `"same"` (keeps the size, the odd cell on the high side; stride 1 only).
        dilation: distance between taps, an int or one per axis.
        groups: blocks of channels that do not see each other; divides C_in and C_out.
        padding_mode: what the padding holds: "zeros", or what torch's `nn.Conv2d` means by "reflect" (the input mirrored,
            without its border), "replicate" (the border repeated) and "circular" (the input from its other side).
        data_format: "channels_first", as the shapes here say, or "channels_last" for input and output `(N, *spatial, C)` or
            `(*spatial, C)`, which costs no transpose. The weight is the same.
        engine: in which order the sums are taken: "auto" (by the rule of `jaxconv.choice`), "stream", "fold", "taps",
            "batched", "blocks", "fourier", "phases" or "materialise". Of "fourier", which "auto" takes for long kernels of
            signals, an output has the rounding error of the largest one near it, and an infinity or NaN spoils what is near it.
        precision: of the products, as in `jax.lax.dot_general`; of a tuple for (input, weight) the higher one is for both. With
            "highest" "auto" never takes "fourier".
        preferred_element_type: dtype of the result, and of the sums that it is rounded from where those are not wider:
            the input's (the default) or a wider one of its kind. Sums are carried in float32 at least and rounded once.

    Returns:
        O, `(N, C_out, *out_spatial)` or `(C_out, *out_spatial)`, with
        `out = (low + size + high - dilation * (kernel - 1) - 1) // stride + 1` on each axis.

    Raises:
        TypeError: an argument is no floating or complex array, dtypes differ, a size is not an integer, or
            `preferred_element_type` is narrower or of another kind than the input's dtype.
        ValueError: a wrong rank, channels or groups that do not match, a size below 1, a negative padding, `"same"`
            with a stride, a kernel larger than the padded input, a padding that its mode cannot fill.
    """
    input, batched, weight, bias, result = operands(input, weight, bias, preferred_element_type)
    groups = integer("groups", groups, 1)
    last = is_last(data_format)
    choice.check_engine(engine)
    check_channels(input, last, weight, bias, groups)
    window = make_window(weight.shape[2:], stride, padding, dilation, weight.ndim - 2)
    input, window = pad_for_mode(input, window, padding_mode, 1 if last else 2)
    _, spatial, _ = image_sizes(input, last)
    window.output_size(spatial)
    convolution = Convolution(
        window, spatial, groups, one_precision(precision), result, accumulator(result), last, engine
    )
    output = _convolve(convolution, *varying_alike(input, weight, bias))
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
    padding_mode: str = "zeros",
    data_format: str = "channels_first",
    engine: str = "auto",
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
) -> Output:
    """`conv` over one spatial axis, with the signature of `torch.nn.functional.conv1d`.

    Arguments, results and errors are those of `conv`, for an input `(N, C_in, width)` or `(C_in, width)` and
    a weight `(C_out, C_in/groups, kernel_width)`.
    """
    check_rank("conv1d", weight, 1)
    options = {
        "padding_mode": padding_mode,
        "data_format": data_format,
        "engine": engine,
        "precision": precision,
        "preferred_element_type": preferred_element_type,
    }
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
    padding_mode: str = "zeros",
    data_format: str = "channels_first",
    engine: str = "auto",
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
) -> Output:
    """`conv` over two spatial axes, with the signature of `torch.nn.functional.conv2d`.

    Arguments, results and errors are those of `conv`, for an input `(N, C_in, height, width)` or
    `(C_in, height, width)` and a weight `(C_out, C_in/groups, kernel_height, kernel_width)`.
    """
    check_rank("conv2d", weight, 2)
    options = {
        "padding_mode": padding_mode,
        "data_format": data_format,
        "engine": engine,
        "precision": precision,
        "preferred_element_type": preferred_element_type,
    }
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
    padding_mode: str = "zeros",
    data_format: str = "channels_first",
    engine: str = "auto",
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
) -> Output:
    """`conv` over three spatial axes, with the signature of `torch.nn.functional.conv3d`.

    Arguments, results and errors are those of `conv`, for an input `(N, C_in, depth, height, width)` or
    `(C_in, depth, height, width)` and a weight `(C_out, C_in/groups, *kernel)`.
    """
    check_rank("conv3d", weight, 3)
    options = {
        "padding_mode": padding_mode,
        "data_format": data_format,
        "engine": engine,
        "precision": precision,
        "preferred_element_type": preferred_element_type,
    }
    return conv(input, weight, bias, stride, padding, dilation, groups, **options)


def _input_gradient(convolution: Convolution, weight: Array, cotangent: Array) -> Array:
    """View, eq. 3, fold."""
    return evaluation.input_gradient(convolution.giving(weight.dtype), weight, cotangent)


def _weight_gradient(convolution: Convolution, input: Array, cotangent: Array) -> Array:
    """View, eq. 4, view."""
    return evaluation.weight_gradient(convolution.giving(input.dtype), input, cotangent)


def summed_to_bias(convolution: Convolution, bias: Array, cotangent: Array) -> Array:
    """View, eq. 5."""
    flat = formulas.flat(convolution.channels_second(cotangent))
    return formulas.bias_gradient(flat, preferred_element_type=convolution.accumulate).astype(bias.dtype)


_convolve = bilinear(evaluation.output, _input_gradient, _weight_gradient, summed_to_bias)
