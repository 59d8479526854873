"""Exported with a batch whose size is left open."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometries import GEOMETRIES
from jax import export

import jaxconv
from jaxconv.choice import ENGINES

OPEN = export.symbolic_shape("n")[0]
BATCHED = [geometry for geometry in GEOMETRIES if len(geometry.input) == geometry.rank + 2]


def forward_and_backward(layer, x, w):
    output, pull = jax.vjp(layer, x, w)
    return output, *pull(jnp.ones_like(output))


def assert_exported_is_itself(function, input, weight):
    """For batches of one and of five; the numbers are integers, so that all sums are exact."""
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((OPEN, *input[1:]), weight)]
    exported = export.export(jax.jit(function), platforms=["cpu", "cuda"])(*shapes)
    random = np.random.default_rng(0)
    for batch in (1, 5):
        arrays = [jnp.asarray(random.integers(-4, 5, s), jnp.float32) for s in ((batch, *input[1:]), weight)]
        for mine, theirs in zip(exported.call(*arrays), function(*arrays), strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("geometry", BATCHED, ids=lambda geometry: geometry.name)
def test_forward_and_backward_of_any_batch(geometry):
    layer = partial(jaxconv.conv, **geometry.options)
    assert_exported_is_itself(partial(forward_and_backward, layer), geometry.input, geometry.weight)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_is_exported_for_any_batch(engine):
    """As `materialise`: no other has tiles of a batch that is not known."""
    layer = partial(jaxconv.conv2d, padding=1, engine=engine, data_format="channels_last")
    assert_exported_is_itself(partial(forward_and_backward, layer), (2, 6, 5, 3), (4, 3, 3, 3))


@pytest.mark.parametrize(
    ("layer", "input", "weight"),
    [
        (partial(jaxconv.conv_transpose, stride=2), (2, 3, 6, 5), (3, 4, 3, 3)),
        (jaxconv.conv_local, (2, 3, 6), (4, 3, 3, 4)),
        (partial(jaxconv.lax.conv_general_dilated, window_strides=(2,), padding="SAME"), (2, 3, 6), (4, 3, 3)),
        (jax.vmap(lambda x, w: jaxconv.conv(x, w), (0, None)), (2, 3, 6), (4, 3, 3)),
    ],
    ids=["transposed", "local", "lax", "mapped"],
)
def test_other_functions_are_exported_for_any_batch(layer, input, weight):
    assert_exported_is_itself(partial(forward_and_backward, layer), input, weight)


def test_a_gradient_for_every_sample_of_any_batch():
    def each(x, w):
        return (jax.vmap(jax.grad(lambda w, x: (jaxconv.conv(x, w) ** 2).sum()), (None, 0))(w, x),)

    assert_exported_is_itself(each, (2, 3, 6), (4, 3, 3))


def test_another_size_that_is_open_is_refused():
    shape = jax.ShapeDtypeStruct((2, 3, OPEN), jnp.float32)
    for function in (lambda x: jaxconv.conv(x, jnp.ones((4, 3, 3))), lambda x: jaxconv.unfold(x, 3)):
        with pytest.raises(
            ValueError, match=r"`input` may have an unknown size .* in its batch axis alone, got \(2, 3, n\)"
        ):
            export.export(jax.jit(function))(shape)
