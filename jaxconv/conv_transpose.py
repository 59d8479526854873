"""Transposed convolution: the adjoint of `conv`, as a forward operation.

What is the input gradient of `conv`, eq. 3 and fold, is the output here; its own gradients are eq. 2 and eq. 4 with the roles
of input and output exchanged.
"""

from collections.abc import Sequence
from typing import Any

from jax import Array
from jax.typing import DTypeLike

from jaxconv import choice, evaluation
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
from jaxconv.conv import summed_to_bias
from jaxconv.convolution import Convolution
from jaxconv.differentiation import bilinear
from jaxconv.shapes import Bias, Input, Output, TransposedWeight
from jaxconv.window import Padding, Window, integer, make_window, per_axis


def conv_transpose(
    input: Input,
    weight: TransposedWeight,
    bias: Bias | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
    *,
    data_format: str = "channels_first",
    engine: str = "auto",
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
) -> Output:
    """Transposed convolution over any number of spatial axes, `weight.ndim - 2` of them.

    Every input entry adds its multiple of the kernel to the output, `stride` apart: eq. 3 of *Some formulae* and then fold,
    run forwards. Signature and results are those of `torch.nn.functional.conv_transpose1d`, `conv_transpose2d` and
    `conv_transpose3d`; the gradients, eqs. 2 and 4 with the roles exchanged, are registered with `jax.custom_vjp`.

    Args:
        input: `(N, C_in, *spatial)`, or `(C_in, *spatial)` without a batch; floating or complex.
        weight: `(C_in, C_out/groups, *kernel)`, of the input's dtype: that of the convolution whose adjoint this is.
        bias: `(C_out,)`, of the input's dtype, or None for none.
        stride: distance between the kernels in the output, an int or one per axis.
        padding: cells left off around the output: an int, one per axis, or a `(low, high)` pair per axis.
        output_padding: cells added at the high side, an int or one per axis; below `stride` or `dilation`.
        groups: blocks of channels that do not see each other; divides C_in and C_out.
        dilation: distance between taps, an int or one per axis.
        data_format, engine, precision, preferred_element_type: as in `conv`.

    Returns:
        `(N, C_out, *out_spatial)` or `(C_out, *out_spatial)`, with
        `out = (size - 1) * stride - low - high + dilation * (kernel - 1) + output_padding + 1` on each axis.

    Raises:
        TypeError: as `conv`.
        ValueError: as `conv`; an `output_padding` that is not below stride or dilation; an output without cells.
    """
    input, batched, weight, bias, result = operands(input, weight, bias, preferred_element_type)
    groups = integer("groups", groups, 1)
    last = is_last(data_format)
    choice.check_engine(engine)
    _, sizes, _ = image_sizes(input, last)
    check_channels(input, last, weight, bias, groups, transposed=True)
    if isinstance(padding, str):
        raise ValueError(f"`padding` of a transposed convolution must be made of integers, got {padding!r}")
    window, spatial = _adjoint_window(sizes, weight.shape[2:], stride, padding, output_padding, dilation)
    convolution = Convolution(
        window, spatial, groups, one_precision(precision), result, accumulator(result), last, engine
    )
    output = _convolve_transposed(convolution, *varying_alike(input, weight, bias))
    return output if batched else output[0]


def _adjoint_window(
    sizes: tuple[int, ...], kernel: Any, stride: Any, padding: Any, output_padding: Any, dilation: Any
) -> tuple[Window, tuple[int, ...]]:
    """The window of the convolution that this is the adjoint of, and the size of its input, which is our output."""
    window = make_window(kernel, stride, padding, dilation, len(sizes))
    extra = per_axis("output_padding", output_padding, window.rank, 0)
    spatial, pads = [], []
    for axis, size in enumerate(sizes):
        (low, high), step, added = window.padding[axis], window.stride[axis], extra[axis]
        if added >= max(step, window.dilation[axis]):
            raise ValueError(
                f"`output_padding` must be below stride or dilation, got {added} on spatial axis {axis} with "
                f"stride {step} and dilation {window.dilation[axis]}"
            )
        length = (size - 1) * step + window.extent(axis) + added - low - high
        if length < 1:
            raise ValueError(
                f"`padding` must leave cells in the output, got {(low, high)} on spatial axis {axis}, which has "
                f"{length + low + high} cells before"
            )
        spatial.append(length)
        # The convolution reads no further than its last window: what output_padding adds is not its to read.
        pads.append((low, high - added))
    return Window(window.kernel, window.stride, tuple(pads), window.dilation), tuple(spatial)


def _output(convolution: Convolution, input: Array, weight: Array, bias: Array | None) -> Array:
    """Eq. 3 and fold, plus the bias."""
    return evaluation.input_gradient(convolution, weight, input, bias)


def _input_gradient(convolution: Convolution, weight: Array, cotangent: Array) -> Array:
    """Eq. 2 without a bias, on the cotangent."""
    return evaluation.output(convolution.giving(weight.dtype), cotangent, weight.astype(cotangent.dtype), None)


def _weight_gradient(convolution: Convolution, input: Array, cotangent: Array) -> Array:
    """Eq. 4 with the cotangent unfolded, and the input where the cotangent stands."""
    return evaluation.weight_gradient(convolution.giving(input.dtype), cotangent, input.astype(cotangent.dtype))


_convolve_transposed = bilinear(_output, _input_gradient, _weight_gradient, summed_to_bias)


def conv_transpose1d(
    input: Input,
    weight: TransposedWeight,
    bias: Bias | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
    *,
    data_format: str = "channels_first",
    engine: str = "auto",
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
) -> Output:
    """`conv_transpose` over one spatial axis, with the signature of `torch.nn.functional.conv_transpose1d`.

    Arguments, results and errors are those of `conv_transpose`, for an input with one spatial axis.
    """
    check_rank("conv_transpose1d", weight, 1)
    options = {
        "data_format": data_format,
        "engine": engine,
        "precision": precision,
        "preferred_element_type": preferred_element_type,
    }
    return conv_transpose(input, weight, bias, stride, padding, output_padding, groups, dilation, **options)


def conv_transpose2d(
    input: Input,
    weight: TransposedWeight,
    bias: Bias | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
    *,
    data_format: str = "channels_first",
    engine: str = "auto",
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
) -> Output:
    """`conv_transpose` over two spatial axes, with the signature of `torch.nn.functional.conv_transpose2d`.

    Arguments, results and errors are those of `conv_transpose`, for an input with two spatial axes.
    """
    check_rank("conv_transpose2d", weight, 2)
    options = {
        "data_format": data_format,
        "engine": engine,
        "precision": precision,
        "preferred_element_type": preferred_element_type,
    }
    return conv_transpose(input, weight, bias, stride, padding, output_padding, groups, dilation, **options)


def conv_transpose3d(
    input: Input,
    weight: TransposedWeight,
    bias: Bias | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
    *,
    data_format: str = "channels_first",
    engine: str = "auto",
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
) -> Output:
    """`conv_transpose` over three spatial axes, with the signature of `torch.nn.functional.conv_transpose3d`.

    Arguments, results and errors are those of `conv_transpose`, for an input with three spatial axes.
    """
    check_rank("conv_transpose3d", weight, 3)
    options = {
        "data_format": data_format,
        "engine": engine,
        "precision": precision,
        "preferred_element_type": preferred_element_type,
    }
    return conv_transpose(input, weight, bias, stride, padding, output_padding, groups, dilation, **options)
