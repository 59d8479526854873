"""Output and gradients of conv against torch: every geometry, every dtype, every spelling of an argument."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from geometries import GEOMETRIES, Geometry, geometries
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.lax import Precision
from oracle import assert_right, forward_and_backward, lax_conv, torch_results

import jaxconv
from jaxconv.choice import ENGINES
from jaxconv.engines import NAMES
from jaxconv.rounding import error_bound

NAMED = pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: g.name)
DTYPES = [np.float64, np.float32, ml_dtypes.bfloat16, np.float16, np.complex64, np.complex128]


def run(geometry, arrays, **more):
    return forward_and_backward(lambda *a: jaxconv.conv(*a, **geometry.options, **more), arrays)


@NAMED
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
def test_torch_agrees_on_named_geometries(geometry, dtype):
    arrays = geometry.arrays(dtype)
    assert_right(geometry, arrays, run(geometry, arrays), dtype)


@given(
    geometry=geometries(),
    dtype=st.sampled_from(DTYPES),
    engine=st.sampled_from(ENGINES),
    seed=st.integers(0, 99),
)
@settings(max_examples=45)
def test_torch_agrees_on_drawn_geometries(geometry, dtype, engine, seed):
    arrays = geometry.arrays(dtype, seed)
    assert_right(geometry, arrays, run(geometry, arrays, engine=engine), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
def test_every_dtype(dtype):
    geometry = Geometry("dtype", (2, 32, 9, 9), (8, 16, 3, 3), {"stride": 2, "padding": 1, "groups": 2})
    arrays = geometry.arrays(dtype)
    assert_right(geometry, arrays, run(geometry, arrays), dtype)


@pytest.mark.parametrize("geometry", [g for g in GEOMETRIES if len(g.input) == g.rank + 2], ids=lambda g: g.name)
def test_lax_and_its_autodiff_agree(geometry):
    arrays = geometry.arrays(np.float64, seed=5)
    ours = run(geometry, arrays)
    theirs = forward_and_backward(lambda *a: lax_conv(geometry, *a), arrays)
    magnitudes = torch_results(geometry, tuple(np.abs(array) for array in arrays))  # type: ignore[arg-type]
    for mine, other, magnitude, terms in zip(ours, theirs, magnitudes, geometry.terms(), strict=True):
        assert (np.abs(mine - other) <= 2 * error_bound(magnitude, terms, np.float64, np.float64)).all()


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_named_ranks_take_torch_arguments_by_position_and_name(rank):
    ours = getattr(jaxconv, f"conv{rank}d")
    theirs = getattr(F, f"conv{rank}d")
    generator = np.random.default_rng(6)
    input, weight, bias = (
        generator.integers(-9, 9, shape).astype(np.float32)
        for shape in ((2, 4, *(7,) * rank), (6, 2, *(2,) * rank), (6,))
    )
    tensors = [torch.from_numpy(array) for array in (input, weight, bias)]
    np.testing.assert_array_equal(ours(input, weight, bias, 2, 1, 3, 2), theirs(*tensors, 2, 1, 3, 2))
    np.testing.assert_array_equal(ours(input, weight, groups=2), theirs(tensors[0], tensors[1], groups=2))
    options = {"padding": "same", "dilation": 2, "groups": 2}
    expected = theirs(input=tensors[0], weight=tensors[1], bias=tensors[2], **options)
    np.testing.assert_array_equal(ours(input=input, weight=weight, bias=bias, **options), expected)


def test_any_number_of_axes():
    """Four spatial axes are three, applied once for every tap of the first."""
    generator = np.random.default_rng(7)
    input, weight = (generator.integers(-9, 9, shape) * 1.0 for shape in ((1, 2, 4, 3, 3, 3), (3, 2, 2, 2, 2, 2)))
    expected = [
        sum(jaxconv.conv3d(input[:, :, at + tap], weight[:, :, tap]) for tap in range(2))  # type: ignore[arg-type]
        for at in range(3)
    ]
    np.testing.assert_array_equal(jaxconv.conv(input, weight), np.stack(expected, axis=2))


def test_rows_that_a_stride_leaves_out_have_a_gradient_of_exactly_zero():
    weight = jnp.ones((1, 1, 2))
    gradient = jax.grad(lambda x: jnp.sum(jaxconv.conv1d(x, weight, stride=4)))(jnp.ones((1, 1, 11)))
    np.testing.assert_array_equal(gradient[0, 0], [1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0])


@pytest.mark.parametrize(
    ("dtype", "wide"), [(jnp.bfloat16, jnp.float32), (jnp.float16, jnp.float64), (jnp.float32, jnp.float64)]
)
def test_preferred_element_type_is_the_dtype_of_sums_and_result(dtype, wide):
    geometry = Geometry("preferred", (2, 8, 6, 6), (4, 4, 3, 3), {"groups": 2, "padding": 1})
    arrays = geometry.arrays(dtype)
    *operands, cotangent = arrays
    results = run(geometry, (*operands, cotangent.astype(wide)), preferred_element_type=wide)  # type: ignore[arg-type]
    assert_right(geometry, arrays, results, wide)


@pytest.mark.parametrize(
    "precision", ["highest", ("highest", "default"), ("default", "highest"), (Precision.HIGH, Precision.HIGHEST)]
)
@pytest.mark.parametrize("engine", [name for name in NAMES if name != "taps"])  # which multiplies entry by entry
def test_precision_reaches_every_product(engine, precision):
    """Both factors have the higher one of a pair: an engine may have the weight on either side."""
    geometry = Geometry("precision", (2, 4, 36), (4, 2, 12), {"groups": 2})
    arrays = tuple(map(jnp.asarray, geometry.arrays(np.float32)))

    def both(input, weight, bias, cotangent):
        options = {**geometry.options, "precision": precision, "engine": engine}
        return jax.vjp(lambda *a: jaxconv.conv(*a, **options), input, weight, bias)[1](cotangent)

    text = str(jax.make_jaxpr(both)(*arrays))
    assert text.count("dot_general[") == text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") >= 2


def test_sums_in_half_precision_do_not_overflow_on_the_way():
    """The exact sum is 4096 and fits in float16; a partial sum of 4096 * 32 would not."""
    weight = np.ones((1, 8192, 1), np.float16)
    input = np.concatenate([np.full(4096, 32), np.full(4096, -31)]).astype(np.float16)[None, :, None]
    assert float(jaxconv.conv1d(input, weight)[0, 0, 0]) == 4096


def test_float32_is_the_default_world_too():
    """Without x64, float64 arrays arrive as float32 as everywhere in JAX."""
    with jax.enable_x64(False):
        output = jaxconv.conv1d(np.ones((1, 1, 5)), jnp.ones((1, 1, 3)))
        assert output.dtype == jnp.float32


def test_infinity_and_nan_stay_in_their_windows():
    input = np.ones((1, 1, 9), np.float32)
    input[0, 0, 2], input[0, 0, 7] = np.inf, np.nan
    weight = np.ones((1, 1, 3), np.float32)
    ours = jaxconv.conv1d(input, weight, padding=1)
    np.testing.assert_array_equal(ours, F.conv1d(torch.from_numpy(input), torch.from_numpy(weight), padding=1))
