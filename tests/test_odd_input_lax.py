"""Arguments at large, legal and not, of the drop-ins and of conv_local: each call agrees with jax.lax, or both refuse it.

Differences that are meant, none of which is drawn except where the test says so: bfloat16 and float16 as the
`preferred_element_type` of one another, which are equally wide; integers, which jaxconv has no convolutions of; and with
`use_consistent_padding`, lax cuts off what is too much of `padding` and refuses pairs that are lists, where jaxconv always
refuses the first and always takes the second.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from test_odd_input import drawn, integers

import jaxconv

REFUSALS = (TypeError, ValueError, RuntimeError, AssertionError, RuntimeWarning)


def both(function):
    """Value and gradients for a cotangent of small integers."""

    def run(*arrays):
        output, pull = jax.vjp(function, *arrays)
        return output, pull(jnp.asarray(integers(output.shape, 9), output.dtype))

    return jax.jit(run)


def compared(ours, theirs, arrays, options, exact=None):
    """Both raise, or both give the same value and the same gradients, of the same shapes and dtypes.

    What the values are, lax is asked in double precision: all sums are exact in both, but of float32 and complex64 XLA's
    convolution for the CPU reads cells that do not exist where a padding crops, as a gradient's may.
    """
    arrays = [jnp.asarray(array) for array in arrays]
    wide = [array.astype(jnp.promote_types(array.dtype, jnp.float64)) for array in arrays]
    try:
        kinds = jax.eval_shape(both(partial(theirs, **options)), *arrays)
        expected = both(partial(theirs, **options | (exact or {})))(*wide)
    except REFUSALS as refused:
        with pytest.raises((ValueError, TypeError), match="`"):
            print(ours(*arrays, **options), "although jax.lax says", refused)
        return
    results = both(partial(ours, **options))(*arrays)

    def check(mine, kind, other):
        assert (mine.shape, mine.dtype) == (kind.shape, kind.dtype)
        np.testing.assert_array_equal(mine, other)

    jax.tree.map(check, results, kinds, expected)


def compared_drop_ins(name, arrays, options):
    compared(getattr(jaxconv.lax, name), getattr(lax, name), arrays, options, {"preferred_element_type": None})


@st.composite
def cases(draw, *mistakes):
    """A function that draws an argument and, for the one of `mistakes` that was chosen, if any, a value that is none."""
    wrong = draw(st.sampled_from([None, *mistakes])) if draw(st.booleans()) else None

    def argument(name, good, bad):
        return draw(bad if name == wrong else good)

    return argument


def entries(rank, low, high):
    """One integer an axis."""
    return st.tuples(*[st.integers(low, high)] * rank)


def no_entries(rank, low, high):
    """One too small, or no integer, or one entry too many or too few, or a single one for all axes."""
    numbers = st.sampled_from([(low - 1,) * rank, (-1,) * rank, (1.5,) * rank]) if rank else st.integers(1, 2)
    return st.one_of(entries(rank + 1, low, high), entries(abs(rank - 1), low, high), st.integers(1, 2), numbers)


def pads(rank, strings=("SAME", "SAME_LOWER", "VALID", "same")):
    """A string, or pairs, some of which crop."""
    sides = [st.tuples(st.integers(low, 3), st.integers(low, 3)) for low in (0, -3)]
    return st.one_of(st.sampled_from(strings), *(st.tuples(*[pair] * rank) for pair in sides))


def no_pads(rank):
    several = max(rank, 1)
    alike = [
        ((1, 1, 1),) * several,
        ((0.5, 0),) * several,
        (1,) * several,
        ((-4, -4),) * several,
        ((1, 1),) * (rank + 1),
    ]
    return st.sampled_from(["FULL", 1, None, *alike])


def layouts(rank):
    """None, or the three strings with their letters in any order."""
    letters = "HWD"[:rank]
    orders = [st.permutations(channels + letters).map("".join) for channels in ("NC", "OI", "NC")]
    return st.one_of(st.none(), st.tuples(*orders))


NO_LAYOUTS = st.sampled_from([("NC", "OI"), ("NCX", "OIX", "NCY"), ("NCHWDX", "OIHWDX", "NCHWDX"), "NCHW", (1, 2, 3)])
# Of the arrays and of the result. Integers as small as these have exact sums in all of them.
DTYPES = st.sampled_from(
    [
        (jnp.float32, None),
        (jnp.float64, None),
        (jnp.float32, jnp.float64),
        (jnp.bfloat16, jnp.float32),
        (jnp.float16, jnp.float64),
        (jnp.complex64, jnp.complex128),
    ]
)
NO_DTYPES = st.sampled_from(
    [(jnp.float64, jnp.float32), (jnp.float32, jnp.complex64), (jnp.complex64, jnp.float32), (jnp.float32, jnp.int32)]
)


def laid_out(shape, letters, order):
    """`shape`, whose axes are `letters`, in another order of them."""
    return tuple(shape[letters.index(letter)] for letter in order)


@st.composite
def convolutions(draw):
    """Shapes, options and dtype of a conv_general_dilated, half of which have a mistake or none by chance."""
    names = "window_strides", "padding", "lhs_dilation", "rhs_dilation", "dimension_numbers", "preferred_element_type"
    argument = draw(cases(*names, "groups", "inputs", "outputs", "batch", "kernel", "axes"))
    rank = draw(st.integers(0, 3))
    legal = st.sampled_from([(1, 1), (1, 1), (2, 1), (3, 1), (1, 2), (1, 3)])
    features, batches = argument(
        "groups", legal, st.sampled_from([(2, 2), (0, 1), (1, 0), (-1, 1), (1.5, 1), (1, 1.5)])
    )
    whole = [max(int(groups), 1) for groups in (features, batches)]
    few = st.sampled_from([1, 2, 1, 2, 1, 2, 0])
    batch, inside, outside = draw(few) * whole[1], draw(few), draw(few) * math.prod(whole)
    batch = argument("batch", st.just(batch), st.just(batch + 1))
    inputs = argument("inputs", st.just(inside * whole[0]), st.just(inside * whole[0] + 1))
    outside = argument("outputs", st.just(outside), st.just(outside + 1))
    sizes = draw(st.tuples(*[st.sampled_from([3, 4, 5, 6, 2, 1, 0])] * rank))
    kernel = argument("kernel", entries(rank, 1, 3), st.just((0,) * rank))
    default = tuple(channels + "HWD"[:rank] for channels in ("NC", "OI", "NC"))
    layout = draw(layouts(rank))
    shapes = [
        laid_out(shape, letters, order)
        for shape, letters, order in zip(
            ((batch, inputs, *sizes), (outside, inside, *kernel)), default, layout or default, strict=False
        )
    ]
    shapes[1] = argument("axes", st.just(shapes[1]), st.just((*shapes[1], 1)))
    dtype, result = argument("preferred_element_type", DTYPES, NO_DTYPES)
    padding = argument("padding", pads(rank), no_pads(rank))
    spread = st.none() if isinstance(padding, str) and draw(st.booleans()) else st.none() | entries(rank, 1, 3)
    options = {
        "window_strides": argument("window_strides", entries(rank, 1, 3), no_entries(rank, 1, 3)),
        "padding": padding,
        "lhs_dilation": argument("lhs_dilation", spread, no_entries(rank, 1, 3)),
        "rhs_dilation": argument("rhs_dilation", st.none() | entries(rank, 1, 2), no_entries(rank, 1, 2)),
        "dimension_numbers": argument("dimension_numbers", st.just(layout), NO_LAYOUTS),
        "feature_group_count": features,
        "batch_group_count": batches,
        "preferred_element_type": result,
    }
    return [jnp.asarray(array, dtype) for array in drawn(shapes)], options


@given(case=convolutions())
@settings(max_examples=32)
def test_conv_general_dilated(case):
    compared_drop_ins("conv_general_dilated", *case)


@st.composite
def transposes(draw):
    """The same of a conv_transpose."""
    names = "strides", "padding", "rhs_dilation", "dimension_numbers", "preferred_element_type"
    argument = draw(cases(*names, "inputs", "kernel"))
    rank = draw(st.integers(0, 3))
    batch, inside, outside = draw(st.tuples(*[st.sampled_from([1, 2, 1, 2, 0])] * 3))
    sizes, kernel = draw(entries(rank, 1, 4)), argument("kernel", entries(rank, 1, 3), st.just((0,) * rank))
    letters = "HWD"[:rank]
    default = f"N{letters}C", f"{letters}IO", f"N{letters}C"
    layout = draw(layouts(rank))
    flip, consistent = draw(st.booleans()), draw(st.booleans())
    channels = (inside, outside) if flip else (outside, inside)
    inputs = argument("inputs", st.just(inside), st.just(inside + 1))
    shapes = [
        laid_out((batch, inputs, *sizes), "NC" + letters, (layout or default)[0]),
        laid_out((*channels, *kernel), "OI" + letters, (layout or default)[1]),
    ]
    dtype, result = argument("preferred_element_type", DTYPES, NO_DTYPES)
    options = {
        "strides": argument("strides", entries(rank, 1, 4), no_entries(rank, 1, 4)),
        "padding": argument("padding", pads(rank, ("SAME", "VALID", "SAME", "VALID", "SAME_LOWER")), no_pads(rank)),
        "rhs_dilation": argument("rhs_dilation", st.none() | entries(rank, 1, 2), no_entries(rank, 1, 2)),
        "dimension_numbers": argument("dimension_numbers", st.just(layout), NO_LAYOUTS),
        "transpose_kernel": flip,
        "use_consistent_padding": consistent,
        "preferred_element_type": result,
    }
    return [jnp.asarray(array, dtype) for array in drawn(shapes)], options


@given(case=transposes())
@settings(max_examples=25)
def test_conv_transpose(case):
    arrays, options = case
    padding, rank = options["padding"], arrays[0].ndim - 2
    too_much = isinstance(padding, tuple) and (len(padding) > rank or (padding and np.size(padding[0]) > 2))
    if options["use_consistent_padding"] and too_much:
        with pytest.raises(ValueError, match="`padding` must be one"):
            jaxconv.lax.conv_transpose(*arrays, **options)
        return
    compared_drop_ins("conv_transpose", arrays, options)


@st.composite
def patches(draw):
    """The same of a conv_general_dilated_patches."""
    names = "filter_shape", "window_strides", "padding", "lhs_dilation", "rhs_dilation", "dimension_numbers"
    argument = draw(cases(*names, "preferred_element_type", "inputs"))
    rank = draw(st.integers(0, 3))
    inputs = argument("inputs", st.integers(1, 2), st.just(0))
    shape = (draw(st.sampled_from([1, 2, 0])), inputs, *draw(st.tuples(*[st.sampled_from([3, 4, 5, 2, 0])] * rank)))
    default, layout = "NC" + "HWD"[:rank], draw(layouts(rank))
    padding = argument("padding", pads(rank), no_pads(rank))
    spread = st.none() if isinstance(padding, str) and draw(st.booleans()) else st.none() | entries(rank, 1, 3)
    dtype, result = argument("preferred_element_type", DTYPES, NO_DTYPES)
    options = {
        "filter_shape": argument("filter_shape", entries(rank, 1, 3), no_entries(rank, 1, 3)),
        "window_strides": argument("window_strides", entries(rank, 1, 3), no_entries(rank, 1, 3)),
        "padding": padding,
        "lhs_dilation": argument("lhs_dilation", spread, no_entries(rank, 1, 3)),
        "rhs_dilation": argument("rhs_dilation", st.none() | entries(rank, 1, 2), no_entries(rank, 1, 2)),
        "dimension_numbers": argument("dimension_numbers", st.just(layout), NO_LAYOUTS),
        "preferred_element_type": result,
    }
    return [jnp.asarray(integers(laid_out(shape, default, (layout or (default,))[0]), 1), dtype)], options


@given(case=patches())
@settings(max_examples=28)
def test_conv_general_dilated_patches(case):
    compared_drop_ins("conv_general_dilated_patches", *case)


def local_by_lax(x, w, b, stride, padding, dilation, groups):
    """conv_local, group by group and unbatched too, by lax's, which has its taps and channels in one axis."""
    if x.ndim == w.ndim // 2:
        return local_by_lax(x[None], w, b, stride, padding, dilation, groups)[0]
    rank = x.ndim - 2
    kernel = w.shape[2 : 2 + rank]
    outputs = [
        lax.conv_general_dilated_local(
            part, own.reshape(own.shape[0], -1, *w.shape[2 + rank :]), stride, padding, kernel, rhs_dilation=dilation
        )
        for part, own in zip(jnp.split(x, groups, 1), jnp.split(w, groups, 0), strict=True)
    ]
    return jnp.concatenate(outputs, 1) + b.reshape(*b.shape, *(1,) * (1 + rank - b.ndim))


@st.composite
def locals_(draw):
    """Shapes and options of a conv_local, and whether they are legal."""
    options = "stride", "padding", "dilation", "groups"
    argument = draw(cases(*options, "input", "outputs", "inside", "positions", "bias", "axes"))
    rank = draw(st.integers(1, 3))
    groups, inside, outside = draw(st.tuples(*[st.integers(1, 2)] * 3))
    kernel, stride, dilation = draw(entries(rank, 1, 3)), draw(entries(rank, 1, 3)), draw(entries(rank, 1, 2))
    padding = draw(st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * rank))
    out = draw(entries(rank, 1, 2))
    sizes = tuple(
        max(1, s * (o - 1) + d * (k - 1) + 1 - sum(p))
        for s, o, d, k, p in zip(stride, out, dilation, kernel, padding, strict=True)
    )
    out = tuple(
        (n + sum(p) - d * (k - 1) - 1) // s + 1
        for n, s, d, k, p in zip(sizes, stride, dilation, kernel, padding, strict=True)
    )
    input = (*draw(st.sampled_from([(2,), (1,), (), (0,)])), groups * inside, *sizes)
    one_more = tuple(size + 1 for size in out)
    weight = (
        argument("outputs", st.just(groups * outside), st.just(0)),
        argument("inside", st.just(inside), st.sampled_from([inside + 1, 0])),
        *kernel,
        *argument("positions", st.just(out), st.sampled_from([one_more, (0,) * rank])),
    )
    weight = argument(
        "axes", st.just(weight), st.sampled_from([weight[:-1], (*weight, 1), weight[:2], (*weight, 1, 1)])
    )
    bias = [(groups * outside,), (groups * outside, *out)]
    shapes = (
        argument("input", st.just(input), st.sampled_from([(1, 1, *input), (*input[:-1], 0), (2,)])),
        weight,
        argument("bias", st.sampled_from(bias), st.sampled_from([(groups * outside + 1,), out, (), (*bias[1], 1)])),
    )
    chosen = {
        "stride": argument("stride", st.just(stride), no_steps(rank)),
        "padding": argument("padding", st.just(padding), st.sampled_from(["full", ((1, 1),) * (rank + 1), 1.5, -1])),
        "dilation": argument("dilation", st.just(dilation), no_steps(rank)),
        "groups": argument("groups", st.just(groups), st.sampled_from([0, -1, 7, 1.5, None])),
    }
    legal = shapes == (input, weight, shapes[2]) and shapes[2] in bias and weight[2:] == (*kernel, *out)
    legal = legal and weight[:2] == (groups * outside, inside) and chosen["groups"] == groups
    legal = legal and (chosen["stride"], chosen["padding"], chosen["dilation"]) == (stride, padding, dilation)
    return drawn(shapes), chosen, legal


def no_steps(rank):
    """What is no stride or dilation of `rank` axes: jaxconv takes a single integer for all of them, as torch does."""
    return st.sampled_from([0, (0,) * rank, -1, 1.5, None, (1,) * (rank + 1), "one"])


@given(case=locals_())
@settings(max_examples=22)
def test_conv_local(case):
    arrays, options, legal = case
    if not legal:
        with pytest.raises((ValueError, TypeError), match="`"):
            jaxconv.conv_local(*arrays, **options)
        return
    compared(jaxconv.conv_local, local_by_lax, arrays, options)
