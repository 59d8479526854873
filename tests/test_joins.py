"""Copies side by side: that they are those of the parts, and how they are given to the compiler."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxprs import equations
from layers import layer, traced

from jaxconv.engines import batched, fold
from jaxconv.joins import interleaved, joined, stacked


def copied(function, *arrays):
    """The shapes that something is joined to, or put into, inside of a function."""
    names = ("concatenate", "dynamic_update_slice")
    made = equations(jax.make_jaxpr(function)(*arrays).jaxpr)
    return [one.outvars[0].aval.shape for one in made if one.primitive.name in names]


def pieces(count, image):
    return [image[:, start : start + 512] for start in range(count)]


@pytest.mark.parametrize("count", [1, 8, 9, 31, 64])
def test_what_is_joined_is_one_fused_loop(count):
    """Which both cores share. XLA by itself makes one of at most eight arrays: of more it copies every one by itself first."""
    image = jnp.arange(8 * 640.0).reshape(8, 640)
    compiled = jax.jit(lambda image: joined(pieces(count, image), 0)).lower(image).compile()
    plain = jax.jit(lambda image: jnp.concatenate(pieces(count, image), 0)).lower(image).compile()
    np.testing.assert_array_equal(compiled(image), plain(image))
    fusions = [str(program.as_text()).count("kind=kLoop") for program in (compiled, plain)]
    assert fusions == [1, 1 if count <= 8 else count]


@pytest.mark.parametrize(("count", "loops"), [(1, 0), (24, 0), (25, 1)])
def test_many_are_stacked_in_a_loop(count, loops):
    image = jnp.arange(3 * 50.0).reshape(3, 50)

    def stack(image):
        return stacked(lambda index: jax.lax.dynamic_slice_in_dim(image[:, None], index, 20, 2), count, 1)

    expected = jnp.stack([image[:, start : start + 20] for start in range(count)], 1)
    np.testing.assert_array_equal(stack(image), expected)
    names = [one.primitive.name for one in jax.make_jaxpr(stack)(image).jaxpr.eqns]
    assert names.count("scan") == loops


@pytest.mark.parametrize(
    ("shape", "axis", "expected"),
    [
        ((3, 1, 8), 1, (3, 2, 4, 2)),
        ((3, 1, 6), 1, (3, 2, 6)),  # A few entries.
        ((3, 1, 9), 1, (3, 2, 9)),  # An odd number.
        ((3, 8), 1, (3, 16)),  # What is joined is the last axis itself.
    ],
)
def test_parts_are_joined_in_pairs(shape, axis, expected):
    one = jnp.arange(float(np.prod(shape))).reshape(shape)

    def join(one, paired=True):
        return joined([one, one + 1], axis, paired)

    np.testing.assert_array_equal(join(one), jnp.concatenate([one, one + 1], axis))
    assert copied(join, one) == [expected]
    assert copied(lambda one: join(one, paired=False), one) == [join(one).shape]


def test_many_are_stacked_as_they_are():
    image = jnp.arange(3 * 50.0).reshape(3, 1, 50)

    def stack(image):
        return stacked(lambda at: jax.lax.dynamic_slice_in_dim(image, at, 20, 2), 30, 1)

    np.testing.assert_array_equal(stack(image), jnp.stack([image[:, 0, at : at + 20] for at in range(30)], 1))
    assert copied(stack, image) == [(3, 30, 20)]


@pytest.mark.parametrize(("axis", "expected"), [(0, (3, 3, 5, 2)), (1, (3, 10, 3))])
def test_phases_in_turn(axis, expected):
    phases = [jnp.arange(30.0).reshape(3, 10) + at for at in range(3)]
    whole = interleaved(phases, axis)
    for at, phase in enumerate(phases):
        np.testing.assert_array_equal(jax.lax.slice_in_dim(whole, at, None, 3, axis), phase)
    assert copied(lambda *phases: interleaved(phases, axis), *phases) == [expected]


@pytest.mark.parametrize("engine", [batched, fold])
@pytest.mark.parametrize(("padding", "paired"), [(0, True), (1, False)])
def test_zeros_beside_a_row_are_not_copied_in_pairs(engine, padding, paired):
    """Of pairs LLVM asks for every one whether it is there, and fills no vectors (measured: a fifth more time)."""
    given = (4, 8, 41 - padding)
    weight = (8, 8, 2 + padding)
    convolution = layer(given, weight, padding, unfolded=1, calls=True)
    made = [one for one in traced(engine.output, convolution, given, weight) if one.primitive.name == "concatenate"]
    assert [one.outvars[0].aval.shape[-1] == 2 for one in made] == [paired]
