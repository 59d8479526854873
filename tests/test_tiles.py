"""Walking over tiles: how many loops there are, what they hold, and what is computed for one of their turns.

Every loop, and every number that is computed by itself, is one more thing to compile.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxprs import equations
from layers import layer, traced

import jaxconv
from jaxconv.convolution import Convolution
from jaxconv.engines import fold, stream, taps
from jaxconv.periods import cells_of_windows, has_runs_of_rows, period, windows, windows_of_rows
from jaxconv.primitive import ACCELERATOR
from jaxconv.tiles import blank, cut, held, is_run, moved, place
from jaxconv.window import make_window


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
        ((2, 8, 24, 40), (8, 8, 3, 3), 1, 1),  # Of three tiles one is in the middle, and that would be no loop.
    ],
)
def test_ends_have_a_loop_of_their_own_where_they_differ(given, weight, padding, loops):
    convolution = layer(given, weight, padding, tile=2**17, unfolded=1, calls=True)
    cotangent = (given[0], weight[0], *convolution.out_spatial)
    equations_of_all = traced(fold.weight_gradient, convolution, given, cotangent)
    assert [one.primitive.name for one in equations_of_all].count("dot_general") == loops


def some_rows(image, start):
    return cut(image, 1, [(start, 4, (-2, 7)), (0, image.shape[2], (0, 0))])


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((2, 9, 7, 5), 2),
        ((2, 9, 7, 128), 4),  # Long loops as they are.
        ((1, 2**13, 2**13, 31), 2),
        ((1, 2**13, 2**13, 32), 4),  # An index into the run would have more than 31 bits.
    ],
)
def test_axes_behind_the_one_that_is_cut_are_one_run(shape, axes):
    given = jax.ShapeDtypeStruct(shape, jnp.float32)
    slices = [
        one for one in equations(jax.make_jaxpr(some_rows)(given, 0).jaxpr) if one.primitive.name == "dynamic_slice"
    ]
    assert [one.invars[0].aval.ndim for one in slices] == [axes]


@pytest.mark.parametrize(
    ("shape", "first", "cells", "expected"),
    [
        ((2, 9, 7, 5), 1, [(3, 4, (0, 5)), (2, 2, (0, 5))], True),  # Channels are last,
        ((2, 9, 7, 128), 1, [(3, 4, (0, 5)), (2, 2, (0, 5))], False),  # and many.
        ((2, 5, 9, 7), 2, [(3, 4, (0, 5)), (0, 7, (0, 0))], True),
        ((2, 5, 9, 7), 2, [(3, 4, (0, 5)), (2, 2, (0, 5))], False),  # What is cut along its last axis is no run,
        ((2, 5, 9), 2, [(3, 4, (0, 5))], False),  # as a place in it would be found by division.
        ((2, 5, 9), 2, [(0, 9, (0, 0))], False),
    ],
)
def test_what_is_taken_as_a_run(shape, first, cells, expected):
    assert is_run(jnp.zeros(shape), first, cells) == expected


@pytest.mark.parametrize("channels", [5, 128])
def test_what_is_cut_has_zeros_outside(channels):
    image = jnp.arange(1.0, 1.0 + 2 * 9 * 3 * channels).reshape(2, 9, 3, channels)
    padded = np.pad(image, ((0, 0), (2, 2), (1, 1), (0, 0)))
    for start in range(-2, 8):
        np.testing.assert_array_equal(some_rows(image, jnp.asarray(start)), padded[:, start + 2 : start + 6, 1:-1])
        for column in range(-1, 3):
            cells = [(start, 4, (start, start)), (jnp.asarray(column), 2, (-1, 2))]
            expected = padded[:, start + 2 : start + 6, column + 1 : column + 3]
            np.testing.assert_array_equal(cut(image, 1, cells), expected)
    assert cut(image, 1, [(0, 9, (0, 0)), (0, 3, (0, 0))]) is image


def test_a_result_of_short_rows_begins_as_one_run_for_every_sample():
    def zeros(shape):
        made = equations(jax.make_jaxpr(lambda: blank(shape, jnp.float32))().jaxpr)
        return [one.outvars[0].aval.shape for one in made if one.primitive.name == "broadcast_in_dim"]

    assert zeros((2, 3, 4, 111)) == [(2, 3 * 4 * 111)]
    assert zeros((2, 3, 37)) == [(2 * 3 * 37,)]
    assert zeros((2, 3, 4, 112)) == [(2, 3, 4, 112)]
    assert zeros((2, 1, 111)) == [(2, 1, 111)]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("part", ["output", "input_gradient", "weight_gradient"])
@pytest.mark.parametrize("engine", [fold, taps])
def test_no_index_is_asked_whether_it_is_negative(engine, part, channels_last):
    given, weight = (2, 4, 24, 20), (4, 1, 3, 3)
    convolution = layer(given, weight, 1, 4, tile=2**10, channels_last=channels_last)
    image = convolution.shape(given[0], given[2:], given[1])
    shapes = {"output": (image, weight), "input_gradient": (weight, image), "weight_gradient": (image, image)}[part]
    names = [one.primitive.name for one in traced(getattr(engine, part), convolution, *shapes)]
    assert "dynamic_slice" in names
    assert "lt" not in names


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
    made = jax.make_jaxpr(lambda a: moved(a, (0, 2, 4, 1, 3)))(jnp.zeros((2, 3, 4, 5, 6))).jaxpr.eqns
    assert [one.invars[0].aval.shape for one in made if one.primitive.name == "transpose"] == [(2, 3, 4, 5, 6)]
    made = jax.make_jaxpr(lambda a: moved(a, (0, 2, 3, 4, 1)))(jnp.zeros((2, 3, 4, 5, 6))).jaxpr.eqns
    assert [one.invars[0].aval.shape for one in made if one.primitive.name == "transpose"] == [(2, 3, 120)]
    assert moved(jnp.zeros((0, 1, 3)), (2, 1, 0)).shape == (3, 1, 0)
    np.testing.assert_array_equal(held(array)(), array)


@pytest.mark.parametrize(
    ("length", "kernel", "stride", "channels", "expected"),
    [
        (56, 3, 1, 64, 4),  # 3 windows are none: 56 is no multiple of it.
        (57, 3, 1, 64, 3),
        (56, 2, 2, 64, 2),
        (56, 7, 2, 3, 4),  # Four windows at a stride of two have seven cells,
        (57, 7, 2, 3, 4),  # and 15 times four are not much more than 57.
        (14, 7, 1, 64, 7),
        (14, 8, 1, 64, None),  # Twice eight are more than an eighth more than 14.
        (16, 8, 1, 64, 8),
        (18, 9, 1, 64, 9),  # Nine copies are not one fused loop, but as many as there are taps;
        (54, 9, 2, 64, 6),
        (22, 10, 1, 64, None),  # more, of ten taps eleven, are what few channels alone are worth.
        (22, 10, 1, 4, 11),
        (141, 80, 4, 1, 21),  # Seven times 21 are 147, and eight times 20 far more than 141.
        (400, 97, 4, 1, None),
        (55, 4, 4, 64, 5),  # One window alone is no run.
        (56, 2, 1, 56, 2),  # A run of 112 is a loop, and one of 111 is written out,
        (56, 3, 1, 37, None),
        (56, 3, 1, 4, 4),  # but for four channels.
        (56, 3, 1, 5, None),
    ],
)
def test_the_period_of_windows(length, kernel, stride, channels, expected):
    assert period(length, kernel, stride, channels) == expected


@pytest.mark.parametrize(
    ("length", "kernel", "stride", "count"),
    [(8, 3, 1, 4), (6, 2, 2, 2), (6, 5, 2, 3), (8, 3, 3, 8), (7, 2, 1, 4), (9, 5, 2, 5)],
)
def test_windows_are_copied_as_runs(length, kernel, stride, count):
    """As many copies as there are windows in a period, whatever the kernel, also where the last period is not whole."""
    cells = cells_of_windows(length, stride, count)
    image = jnp.arange(2 * 3 * cells * 5.0).reshape(2, 3, cells, 5)

    def runs(image):
        return windows(image, 2, length, kernel, stride, count)

    starts = [stride * position for position in range(length)]
    expected = jnp.stack([image[:, :, start : start + kernel].reshape(2, 3, -1) for start in starts], 2)
    np.testing.assert_array_equal(runs(image), expected)
    (together,) = [one for one in equations(jax.make_jaxpr(runs)(image).jaxpr) if one.primitive.name == "concatenate"]
    assert len(together.invars) == count


@pytest.mark.parametrize(
    ("lengths", "kernels", "strides", "count"), [((4, 8), (7, 7), (2, 2), 4), ((3, 7), (2, 3), (1, 2), 4)]
)
def test_rows_of_windows_are_runs(lengths, kernels, strides, count):
    """One copy a row of positions, beside those of the windows of a row."""
    rows, cells = strides[0] * (lengths[0] - 1) + kernels[0], cells_of_windows(lengths[1], strides[1], count)
    image = jnp.arange(2 * rows * cells * 3.0).reshape(1, 2, rows, cells, 3)

    def runs(image):
        return windows_of_rows(image, 2, lengths, kernels, strides, count)

    def window(row, column):
        high, wide = strides[0] * row, strides[1] * column
        return image[:, :, high : high + kernels[0], wide : wide + kernels[1]].reshape(1, 2, -1)

    expected = [jnp.stack([window(row, column) for column in range(lengths[1])], 2) for row in range(lengths[0])]
    np.testing.assert_array_equal(runs(image), jnp.stack(expected, 2))
    made = equations(jax.make_jaxpr(runs)(image).jaxpr)
    assert [len(one.invars) for one in made if one.primitive.name == "concatenate"] == [count, lengths[0]]


@pytest.mark.parametrize(
    ("lengths", "kernels", "channels", "expected"),
    [
        ((4, 112), (7, 7), 3, True),
        ((8, 112), (7, 7), 3, True),
        ((9, 112), (7, 7), 3, False),  # More rows of positions than are joined at once.
        ((4, 112), (3, 3), 3, False),  # All of a window is short,
        ((4, 112), (7, 7), 16, False),  # or a row of it is long.
    ],
)
def test_where_rows_of_windows_are_runs(lengths, kernels, channels, expected):
    assert has_runs_of_rows(lengths, kernels, channels) == expected


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_stem_with_channels_last(groups, stride):
    """Its rows of windows are runs, and the sums those of the definition."""
    given, weight, rng = (2, 23, 24, 3 * groups), (4 * groups, 3, 7, 7), np.random.default_rng(0)
    x, w = (jnp.array(rng.integers(-4, 5, shape), jnp.float32) for shape in (given, weight))

    def results(x, w, engine):
        def conv(x, w):
            options = {"stride": stride, "padding": 3, "groups": groups, "data_format": "channels_last"}
            return jaxconv.conv2d(x, w, engine=engine, **options)

        output, pull = jax.vjp(conv, x, w)
        return output, *pull(output)

    first = (2, 3 * groups, 23, 24)
    convolution = layer(first, weight, 3, groups, stride, tile=2**17, channels_last=True)
    made = traced(stream.output, convolution, given, weight)
    assert any(one.primitive.name == "concatenate" and one.outvars[0].aval.shape[-1] == 147 for one in made)
    for mine, expected in zip(results(x, w, "stream"), results(x, w, "materialise"), strict=True):
        np.testing.assert_array_equal(mine, expected)


@pytest.mark.parametrize(("last", "loops"), [(False, 2), (True, 1)], ids=["channels_first", "channels_last"])
def test_with_channels_last_all_tiles_are_one_loop(last, loops):
    convolution = layer((2, 8, 40, 40), (8, 8, 3, 3), 1, tile=2**17, unfolded=1, channels_last=last)
    given = convolution.shape(2, (40, 40), 8)
    names = [one.primitive.name for one in traced(fold.output, convolution, given, (8, 8, 3, 3))]
    assert names.count("dot_general") == loops


def test_the_gradient_of_a_weight_is_put_in_order_once():
    """A call may return it in another order in memory, from which whoever called copies it once more."""
    images, weight = [jax.ShapeDtypeStruct((8, 64, 56, 56), jnp.float32)] * 2, (64, 64, 3, 3)

    def gradient(x, g):
        _, pull = jax.vjp(lambda w: jaxconv.conv(x, w, padding=1), jnp.zeros(weight, x.dtype))
        return pull(g)

    lines = str(jax.jit(gradient).lower(*images).compile().as_text()).split("\n")
    begin = next(at for at, line in enumerate(lines) if line.startswith("ENTRY"))
    made = [line for line in lines[begin:] if "= f32[64,64,3,3]" in line and "parameter(" not in line]
    assert len(made) == 1
    assert " call(" in made[0]


@pytest.mark.parametrize(("mapped", "sums"), [(1, 3), (4, 1)])
def test_a_gradient_for_every_sample_is_one_sum(mapped, sums):
    """Of all taps, which is one thing to compile; of one gradient there are sums for every column."""
    image = (2, 16, 12, 12)
    convolution = layer(image, (16, 1, 3, 3), 1, 16, mapped=mapped)
    names = [one.primitive.name for one in traced(taps.weight_gradient, convolution, image, image)]
    assert names.count("reduce_sum") == sums


@pytest.mark.parametrize("dilation", [1, 2])
def test_a_gradient_without_a_stride_adds_up_as_the_output_does(dilation):
    """So that what is compiled for one is there for the other."""
    window = make_window((5, 5), 1, 2 * dilation, dilation, 2)
    convolution = Convolution(window, (32, 32), 16, None, jnp.float32, jnp.float32)
    image, weight = (2, 16, 32, 32), (16, 1, 5, 5)

    mine, others = (
        [one.primitive.name for one in traced(function, convolution, *shapes)]
        for function, shapes in ((taps.output, (image, weight)), (taps.input_gradient, (weight, image)))
    )
    assert mine.count("mul") == 25
    # Before that the kernel is turned.
    assert others[-len(mine) :] == mine
    assert "rev" in others[: -len(mine)]


@pytest.mark.parametrize(
    ("row", "kernel", "options", "loops"),
    [
        (15, (7, 7), {}, False),
        (16, (7, 7), {}, True),
        (16, (6, 6), {}, False),
        (32, (7, 7), {"stride": (2, 1)}, False),
        (32, (7, 7), {"result": jnp.bfloat16}, True),
        (12288, (7, 7), {"result": jnp.bfloat16}, True),
        (12289, (7, 7), {"result": jnp.bfloat16}, False),
        (15, (9, 8), {}, True),
        (32, (9, 8), {"platform": ACCELERATOR}, False),
        (32, (13, 7), {"platform": ACCELERATOR}, True),
    ],
)
def test_taps_of_a_large_kernel_are_added_up_in_a_loop(row, kernel, options, loops):
    """Those of its first axis: of more than 36 terms, or more than 64 of short rows, at a stride, or of much that is rounded."""
    window = make_window(kernel, options.get("stride", 1), 3, 1, 2)
    result, platform = options.get("result", jnp.float32), options.get("platform")
    convolution = Convolution(window, (16, row), 4, None, result, jnp.float32, tile=2**26, platform=platform)
    shapes = (2, 4, 16, row), (4, 1, *kernel)
    names = [one.primitive.name for one in traced(taps.output, convolution, *shapes)]
    assert (names.count("mul") < math.prod(kernel)) == loops


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
