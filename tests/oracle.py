"""What torch and jax.lax say, and how far from it a right answer may be. Nothing here calls jaxconv's arithmetic."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from geometries import Geometry
from jax import lax

from jaxconv.rounding import error_bound, in_roundings

Four = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def torch_results(geometry: Geometry, arrays: Four) -> Four:
    """Output and gradients of input, weight and bias by torch's autograd, in float64 or complex128."""
    wide = np.complex128 if np.iscomplexobj(arrays[0]) else np.float64
    input, weight, bias, cotangent = (torch.from_numpy(np.asarray(array).astype(wide)) for array in arrays)
    leaves = [array.requires_grad_() for array in (input, weight, bias)]
    output = torch_conv(geometry, *leaves)
    # torch gives the conjugate of what jax does for a complex gradient; conjugating the cotangent and the result
    # turns one into the other, and leaves real numbers alone.
    gradients = torch.autograd.grad(output, leaves, cotangent.conj())
    return tuple(array.detach().conj().resolve_conj().numpy() for array in (output.conj(), *gradients))  # type: ignore


def torch_conv(geometry: Geometry, input: Any, weight: Any, bias: Any) -> Any:
    function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[geometry.rank]
    flat = [cells for pair in reversed(geometry.pads()) for cells in pair]
    stride, dilation = geometry.per_axis("stride"), geometry.per_axis("dilation")
    return function(F.pad(input, flat), weight, bias, stride, 0, dilation, geometry.groups)


def lax_conv(geometry: Geometry, input: Any, weight: Any, bias: Any) -> Any:
    """The same by `jax.lax.conv_general_dilated`, batched input only."""
    product = lax.conv_general_dilated(
        input,
        weight,
        window_strides=geometry.per_axis("stride"),
        padding=geometry.pads(),
        rhs_dilation=geometry.per_axis("dilation"),
        feature_group_count=geometry.groups,
    )
    return product + bias.reshape(-1, *(1,) * geometry.rank)


def forward_and_backward(function: Any, arrays: tuple) -> tuple:
    """Output and gradients of a JAX function of input, weight and bias, compiled."""

    def both(input, weight, bias, cotangent):
        output, pullback = jax.vjp(function, input, weight, bias)
        return output, *pullback(cotangent)

    return jax.jit(both)(*map(jnp.asarray, arrays))


def double_sided(dtype: Any) -> int:
    """2 where a result in double precision is no truth for `dtype` but an equal, else 1."""
    return 2 if np.dtype(dtype) in (np.float64, np.complex128) else 1


def assert_close(ours: Any, theirs: Any) -> None:
    """Two ways to compute a chain of a few such sums in float64: for derivatives of derivatives.

    A sum of n = 100 terms may lose `6 * sqrt(n) = 60` roundings of its largest entry; a loss, its gradient and the
    gradient of that are a chain of at most 8 such sums, on each side.
    """

    def check(mine, other):
        assert mine.shape == other.shape
        assert in_roundings(mine - other, other, np.float64) < 2 * 8 * 60

    jax.tree.map(check, ours, theirs)


def assert_right(geometry: Geometry, arrays: Four, results: tuple, result: Any) -> None:
    """Each of output and gradients is within rounding of torch's in double precision, and of the right shape and dtype.

    Where that is the precision of what is tested, torch errs as much, and the bound is one for both.

    `result` is the output's dtype; gradients have that of `arrays`. Sums are carried in float32 at least, and in `result`.
    """
    truth = torch_results(geometry, arrays)
    magnitudes = torch_results(geometry, tuple(np.abs(array) for array in arrays))  # type: ignore[arg-type]
    dtypes = (result, *(array.dtype for array in arrays[:3]))
    names = ("output", "input gradient", "weight gradient", "bias gradient")
    for name, got, true, magnitude, terms, dtype in zip(
        names, results, truth, magnitudes, geometry.terms(), dtypes, strict=True
    ):
        assert got.shape == true.shape, name
        assert got.dtype == dtype, name
        bound = double_sided(dtype) * error_bound(magnitude, terms, jnp.promote_types(result, jnp.float32), dtype)
        error = np.abs(np.asarray(got).astype(true.dtype) - true)
        worst = (error / bound).max(initial=0)
        assert (error <= bound).all(), f"{name}: error is {worst:.3g} times what rounding explains"
