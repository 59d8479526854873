"""unfold and fold: against torch, against their definition, and against each other."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from geometries import GEOMETRIES, Geometry, geometries, normal
from hypothesis import given, settings

import jaxconv

NAMED = pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: g.name)


def by_definition(geometry: Geometry, input: np.ndarray) -> np.ndarray:
    """U of an input `(C, *spatial)`, entry by entry: `position = stride*l + dilation*k - padding`, zero outside."""
    stride, dilation = geometry.per_axis("stride"), geometry.per_axis("dilation")
    sizes = geometry.output_shape()[-geometry.rank :]
    columns = []
    for channel, *tap in itertools.product(range(input.shape[0]), *map(range, geometry.weight[2:])):
        row = []
        for place in itertools.product(*map(range, sizes)):
            position = [s * l + d * k - p[0] for s, l, d, k, p in zip(stride, place, dilation, tap, geometry.pads())]  # noqa: B905
            inside = all(0 <= at < size for at, size in zip(position, input.shape[1:], strict=True))
            row.append(input[(channel, *position)] if inside else 0)
        columns.append(row)
    return np.array(columns)


def arguments(geometry: Geometry) -> dict:
    options = {name: geometry.options[name] for name in ("stride", "padding", "dilation") if name in geometry.options}
    return {"kernel_size": geometry.weight[2:], **options}


@NAMED
def test_unfold_is_its_definition(geometry):
    input = normal(np.random.default_rng(1), geometry.input, np.float32)
    u = jaxconv.unfold(input, **arguments(geometry))
    if len(geometry.input) == geometry.rank + 1:
        np.testing.assert_array_equal(u, by_definition(geometry, input))
    else:
        assert u.shape[0] == len(input)
        for sample, column in zip(input, u, strict=True):
            np.testing.assert_array_equal(column, by_definition(geometry, sample))


@given(geometry=geometries())
@settings(max_examples=20)
def test_fold_is_the_adjoint_of_unfold(geometry):
    """<unfold(x), u> = <x, fold(u)>, with small integers so that both sides are exact."""
    generator = np.random.default_rng(2)
    input = generator.integers(-9, 9, geometry.input).astype(np.float64)
    unfolded = jaxconv.unfold(input, **arguments(geometry))
    u = generator.integers(-9, 9, unfolded.shape).astype(np.float64)
    folded = jaxconv.fold(u, geometry.input[-geometry.rank :], **arguments(geometry))
    assert folded.shape == input.shape
    assert float(jnp.sum(unfolded * u)) == float(jnp.sum(input * folded))


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3},
        {"kernel_size": (2, 3), "dilation": 2},
        {"kernel_size": (3, 2), "padding": (2, 1), "stride": (2, 3)},
        {"kernel_size": 2, "dilation": (1, 3), "padding": 3, "stride": 2},
    ],
)
def test_torch_agrees(options, batched):
    """Same arguments by position and name, same bits."""
    generator = np.random.default_rng(3)
    input = normal(generator, (2, 3, 7, 8) if batched else (3, 7, 8), np.float32)
    theirs = F.unfold(torch.from_numpy(input), **options)
    np.testing.assert_array_equal(jaxconv.unfold(input, **options), theirs.numpy())
    columns = generator.integers(-9, 9, tuple(theirs.shape)).astype(np.float32)
    folded = F.fold(torch.from_numpy(columns), (7, 8), **options)
    np.testing.assert_array_equal(jaxconv.fold(columns, (7, 8), **options), folded.numpy())


def test_arguments_stand_in_torch_order():
    input = np.arange(2 * 9 * 9, dtype=np.float32).reshape(1, 2, 9, 9)
    theirs = F.unfold(torch.from_numpy(input), 2, 3, 1, 2)
    np.testing.assert_array_equal(jaxconv.unfold(input, 2, 3, 1, 2), theirs.numpy())
    np.testing.assert_array_equal(jaxconv.fold(theirs.numpy(), 9, 2, 3, 1, 2), F.fold(theirs, 9, 2, 3, 1, 2).numpy())


@NAMED
def test_each_is_the_vjp_of_the_other(geometry):
    options, spatial = arguments(geometry), geometry.input[-geometry.rank :]
    generator = np.random.default_rng(4)
    input = generator.integers(-9, 9, geometry.input).astype(np.float64)
    u, unfold_pullback = jax.vjp(lambda x: jaxconv.unfold(x, **options), input)
    columns = jnp.asarray(generator.integers(-9, 9, u.shape).astype(np.float64))
    image, fold_pullback = jax.vjp(lambda c: jaxconv.fold(c, spatial, **options), columns)
    np.testing.assert_array_equal(unfold_pullback(columns)[0], image)
    np.testing.assert_array_equal(fold_pullback(image)[0], jaxconv.unfold(image, **options))


@pytest.mark.parametrize("name", ["unfold", "fold"])
def test_the_vjp_is_registered_and_can_be_differentiated_again(name):
    options = {"kernel_size": (3,), "stride": 2, "padding": 1}
    function = (
        (lambda x: jaxconv.unfold(x, **options)) if name == "unfold" else (lambda x: jaxconv.fold(x, (9,), **options))
    )
    array = jnp.arange(1.0, 19.0).reshape(1, 2, 9) if name == "unfold" else jnp.arange(1.0, 31.0).reshape(1, 6, 5)
    assert "custom_vjp_call" in str(jax.make_jaxpr(function)(array))

    def loss(x):
        return jnp.sum(function(x) ** 3)

    # The loss is a cubic, so central differences of its gradient are exact but for rounding.
    direction = jnp.ones_like(array)
    expected = (jax.grad(loss)(array + 0.5) - jax.grad(loss)(array - 0.5)) @ jnp.eye(array.shape[-1])
    reverse = jax.grad(lambda x: jnp.vdot(jax.grad(loss)(x), direction))(array)
    np.testing.assert_allclose(reverse, expected, rtol=1e-12)
    hessian = jax.hessian(loss)(array).reshape(array.size, array.size)
    np.testing.assert_allclose(hessian @ direction.ravel(), expected.ravel(), rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64, jnp.complex64, jnp.complex128])
def test_dtypes_are_kept_and_fold_rounds_once(dtype):
    """A sum of 9 taps is rounded once: for values whose exact sum is representable, nothing is lost."""
    unfolded = jaxconv.unfold(jnp.ones((1, 1, 5, 5), dtype), 3, padding=1)
    assert unfolded.dtype == dtype
    # 1 + 8 * eps/4 = 1 + 2 eps is representable, but adding one eps/4 at a time to 1 would round each away.
    quarter = float(jnp.finfo(dtype).eps) / 4 if jnp.finfo(dtype).bits < 32 else 0.0
    columns = jnp.full((1, 9, 25), quarter, dtype).at[:, 0].set(1)
    folded = jaxconv.fold(columns, 5, 3, padding=1)
    assert folded.dtype == dtype
    assert complex(folded[0, 0, 2, 2]) == 1 + 8 * quarter


def test_a_long_kernel_stays_a_small_program():
    """1024 taps are two levels of 32 and not 1024 slices, and still the same U."""
    input = jnp.arange(3000.0).reshape(1, 1, 3000)
    jaxpr = jax.make_jaxpr(lambda x: jaxconv.unfold(x, (1021,), dilation=2, stride=3))(input)
    assert len(str(jaxpr)) < 40_000
    u = jaxconv.unfold(input, (1021,), dilation=2, stride=3)
    expected = 3 * np.arange(u.shape[2])[None] + 2 * np.arange(1021)[:, None]
    np.testing.assert_array_equal(u[0], expected)


def test_ints_alone_mean_two_axes_as_in_torch():
    assert jaxconv.unfold(jnp.ones((2, 5, 5)), 3).shape == (18, 9)
    assert jaxconv.unfold(jnp.ones((2, 5, 5)), (3,)).shape == (2, 15, 3)
    assert jaxconv.unfold(jnp.ones((2, 5, 5)), 3, padding=(1,)).shape == (2, 15, 5)
