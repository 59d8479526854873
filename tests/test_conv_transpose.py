"""Transposed convolution against torch, against the adjoint of conv, and what it refuses."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from geometries import normal
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import double_sided, forward_and_backward

import jaxconv
from jaxconv.choice import ENGINES
from jaxconv.rounding import error_bound

TORCH: dict[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@st.composite
def calls(draw):
    """Shapes and options of a legal call, whose output may have any size."""
    rank = draw(st.integers(1, 3))
    axes: dict[str, list[int]] = {"stride": [], "padding": [], "output_padding": [], "dilation": []}
    kernel, spatial = [], []
    for _ in range(rank):
        taps, size = draw(st.integers(1, 3)), draw(st.integers(1, 4))
        stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        added = draw(st.integers(0, max(stride, dilation) - 1))
        length = (size - 1) * stride + dilation * (taps - 1) + 1 + added
        padding = draw(st.integers(0, min(2, (length - 1) // 2)))
        kernel.append(taps)
        spatial.append(size)
        for name, value in zip(axes, (stride, padding, added, dilation), strict=True):
            axes[name].append(value)
    groups, inputs, outputs = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    batch = draw(st.sampled_from([(), (0,), (2,)]))
    shapes = ((*batch, groups * inputs, *spatial), (groups * inputs, outputs, *kernel), (groups * outputs,))
    return shapes, {name: tuple(values) for name, values in axes.items()} | {"groups": groups}


def torch_results(arrays, cotangent, options):
    wide = np.complex128 if np.iscomplexobj(arrays[0]) else np.float64
    leaves = [torch.from_numpy(array.astype(wide)).requires_grad_() for array in arrays]
    output = TORCH[arrays[1].ndim - 2](*leaves, **options)
    gradients = torch.autograd.grad(output, leaves, torch.from_numpy(cotangent.astype(wide)).conj())
    return [output.detach().numpy(), *(gradient.conj().resolve_conj().numpy() for gradient in gradients)]


@given(
    call=calls(),
    dtype=st.sampled_from([np.float64, np.float32, jnp.bfloat16, np.float16, np.complex64]),
    engine=st.sampled_from(ENGINES),
    seed=st.integers(0, 9),
)
@settings(max_examples=40)
def test_torch_agrees(call, dtype, engine, seed):
    shapes, options = call
    generator = np.random.default_rng(seed)
    arrays = tuple(normal(generator, shape, dtype) for shape in shapes)
    output = jax.eval_shape(lambda *a: jaxconv.conv_transpose(*a, **options), *arrays)
    cotangent = normal(generator, output.shape, dtype)
    function = partial(jaxconv.conv_transpose, **options, engine=engine)
    results = forward_and_backward(function, (*arrays, cotangent))
    truth = torch_results(arrays, cotangent, options)
    magnitudes = torch_results([abs(array) for array in arrays], abs(cotangent), options)
    taps, positions = int(np.prod(shapes[1][2:])), int(np.prod(output.shape))
    terms = max(positions, taps * max(shapes[0][0], *shapes[1][:2])) + 1
    for got, true, magnitude in zip(results, truth, magnitudes, strict=True):
        assert got.shape == true.shape
        assert got.dtype == dtype
        bound = double_sided(dtype) * error_bound(magnitude, terms, jnp.promote_types(dtype, jnp.float32), dtype)
        assert (np.abs(np.asarray(got).astype(true.dtype) - true) <= bound).all()


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_arguments_stand_in_torch_order(rank):
    generator = np.random.default_rng(0)
    shapes = ((1, 4, *(3,) * rank), (4, 2, *(2,) * rank), (4,))
    arrays = [generator.integers(-9, 9, shape).astype(np.float32) for shape in shapes]
    theirs = TORCH[rank](*map(torch.from_numpy, arrays), 2, 1, 1, 2, 3)
    np.testing.assert_array_equal(getattr(jaxconv, f"conv_transpose{rank}d")(*arrays, 2, 1, 1, 2, 3), theirs)


def test_it_is_the_adjoint_of_conv():
    """<conv(x, w), y> = <x, conv_transpose(y, w)>, exactly, with asymmetric padding too."""
    generator = np.random.default_rng(1)
    x, w = (generator.integers(-9, 9, shape) * 1.0 for shape in ((2, 4, 7, 6), (6, 2, 3, 2)))
    options: dict[str, Any] = {"stride": (2, 1), "padding": ((1, 2), (0, 1)), "dilation": (1, 2), "groups": 2}
    forward = jaxconv.conv2d(x, w, **options)
    y = generator.integers(-9, 9, forward.shape) * 1.0
    back = jaxconv.conv_transpose2d(y, w, **options, output_padding=(1, 0))
    assert back.shape == x.shape
    assert float(jnp.sum(forward * y)) == float(jnp.sum(x * back))


def shaped(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (
            ((1, 4, 5), (4, 2, 3)),
            {"output_padding": 1},
            r"`output_padding` must be below stride or dilation, got 1 .*stride 1",
        ),
        (
            ((1, 4, 5), (4, 2, 3)),
            {"padding": 4},
            r"`padding` must leave cells in the output, got \(4, 4\).*has 7 cells",
        ),
        (
            ((1, 4, 5), (4, 2, 3)),
            {"padding": "same"},
            r"`padding` of a transposed convolution must be made of integers",
        ),
        (((1, 4, 5), (3, 2, 3)), {}, r"`input` must have 3 channels \(weight.shape\[0\]\), got 4"),
        (((1, 4, 5), (4, 2, 3)), {"groups": 3}, r"`groups` must divide the 4 input channels of `weight`"),
        (((1, 4, 5), (4, 2, 3), (2,)), {"groups": 2}, r"`bias` must have shape \(4,\)"),
        (((1, 4, 5), (4, 2, 3)), {"stride": 0}, r"`stride` must be at least 1, got 0"),
        (((1, 4, 5), (4, 2, 3)), {"output_padding": -1}, r"`output_padding` must be at least 0, got -1"),
    ],
)
def test_mistakes_are_named(shapes, options, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda *a: jaxconv.conv_transpose(*a, **options), *(shaped(*shape) for shape in shapes))
