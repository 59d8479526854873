"""Walking over tiles: how many loops there are, what they hold, and what is computed for one of their turns.

Every loop, and every number that is computed by itself, is one more thing to compile.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxprs import equations

import jaxconv
from jaxconv.convolution import Convolution
from jaxconv.engines import fold, taps
from jaxconv.tiles import held, moved, place
from jaxconv.window import make_window


def layer(given, weight, padding=0, groups=1, stride=1, **more) -> Convolution:
    window = make_window(weight[2:], stride, padding, 1, len(weight) - 2)
    return Convolution(window, given[2:], groups, None, jnp.float32, jnp.float32, **more)


def traced(function, convolution, *shapes):
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return list(equations(jax.make_jaxpr(function, static_argnums=0)(convolution, *arrays).jaxpr))


@pytest.mark.parametrize(
    ("sizes", "remainders"), [((5,), 0), ((1, 7, 1), 0), ((3, 4), 1), ((2, 1, 3, 2), 2), ((1, 1), 0), ((), 0)]
)
def test_the_place_of_an_index(sizes, remainders):
    for index in range(int(np.prod(sizes))):
        assert place(index, sizes) == list(np.unravel_index(index, sizes))
        assert [int(at) for at in place(jnp.asarray(index), sizes)] == list(np.unravel_index(index, sizes))
    names = [one.primitive.name for one in jax.make_jaxpr(lambda index: place(index, sizes))(3).jaxpr.eqns]
    assert names.count("rem") == remainders


@pytest.mark.parametrize(
    ("given", "weight", "padding", "loops"),
    [
        ((2, 8, 40, 40), (8, 8, 3, 3), 1, 2),  # What is outside of the image concerns the first and last tile.
        ((2, 8, 42, 40), (8, 8, 3, 3), 0, 1),  # No tile.
        ((2, 1, 40, 40), (1, 1, 31, 31), 15, 1),  # Every tile.
        ((2, 8, 43, 40), (8, 8, 3, 3), 0, 2),  # The last tile has rows that are another's.
    ],
)
def test_ends_have_a_loop_of_their_own_where_they_differ(given, weight, padding, loops):
    convolution = layer(given, weight, padding, tile=2**17, unfolded=1, calls=True)
    cotangent = (given[0], weight[0], *convolution.out_spatial)
    equations_of_all = traced(fold.weight_gradient, convolution, given, cotangent)
    assert [one.primitive.name for one in equations_of_all].count("dot_general") == loops


@pytest.mark.parametrize("taps_of_an_axis", [3, 31])
@pytest.mark.parametrize("part", ["output", "weight_gradient"])
def test_a_loop_holds_no_axis_of_one_entry(part, taps_of_an_axis):
    """XLA gives such an axis an order in memory, and copies all where what makes an array gives it another one."""
    given = (2, 64, 32, 32)
    convolution = layer(given, (64, 1, taps_of_an_axis, taps_of_an_axis), taps_of_an_axis // 2, 64, tile=2**16)
    second = given if part == "weight_gradient" else (64, 1, taps_of_an_axis, taps_of_an_axis)
    loops = [one for one in traced(getattr(taps, part), convolution, given, second) if one.primitive.name == "scan"]
    held_arrays = [one.aval.shape for loop in loops for one in loop.invars[: loop.params["num_consts"]]]
    assert loops
    assert any(held_arrays)
    assert not any(1 in shape for shape in held_arrays)


def test_moved_is_a_transpose():
    array = jnp.arange(24.0).reshape(2, 1, 3, 1, 4)
    for order in ((0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (1, 2, 0, 4, 3)):
        np.testing.assert_array_equal(moved(array, order), jnp.transpose(array, order))
    names = [one.primitive.name for one in jax.make_jaxpr(lambda a: moved(a, (1, 0, 2, 4, 3)))(array).jaxpr.eqns]
    assert "transpose" not in names  # Where only axes of one entry are moved.
    np.testing.assert_array_equal(held(array)(), array)


@pytest.mark.parametrize(("count", "copies"), [(5, 5), (9, 1)])
def test_many_copies_of_a_signal_are_a_loop(count, copies):
    given, weight = (4, 16, 3 * 1599 + count), (16, 16, count)
    convolution = layer(given, weight, stride=3, tile=2**17, unfolded=1)
    names = [one.primitive.name for one in traced(fold.output, convolution, given, weight)]
    # One more puts the tile into the output.
    assert names.count("dynamic_update_slice") - 1 == copies


def test_what_another_platform_would_do_is_not_traced():
    """Until somebody differentiates it: then it is not known where that will be compiled."""
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((8, 64, 56, 56), (64, 64, 3, 3))]

    def convolved(x, w):
        return jaxconv.conv(x, w, padding=1)

    def names(function):
        return {one.primitive.name for one in equations(jax.make_jaxpr(function)(*shapes).jaxpr)}

    assert "dot_general" in names(convolved)
    assert "platform_index" not in names(jax.grad(lambda x, w: convolved(x, w).sum()))
    assert "platform_index" in names(jax.hessian(lambda x, w: convolved(x, w).sum()))
