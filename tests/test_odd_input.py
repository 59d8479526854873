"""Arguments at large, legal and not: each call agrees with torch, or raises our own error where torch raises.

Differences that are meant: torch accepts an input without channels, and may end the process on a number of groups of 0, so
neither is drawn; and its transposed convolution takes a dilation of 0, an output_padding of a whole stride and an empty spatial
axis on some of its paths and refuses them on others, and checks nothing of an empty batch, where jaxconv always refuses.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from geometries import geometries
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracle import torch_results

import jaxconv
from jaxconv.choice import ENGINES

CONV: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_TRANSPOSE: dict[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def integers(shape, seed):
    return np.random.default_rng(seed).integers(-5, 5, shape) * 1.0


def mostly(draw, good, bad):
    """A value of `good`, or now and then one of `bad`."""
    return draw(bad if draw(st.integers(0, 11)) == 0 else good)


@st.composite
def setting(draw, rank, low, high):
    """An argument as torch takes it: an int, or one per axis; seldom one that is none."""
    one = st.integers(low, high)
    bad = st.one_of(st.integers(-2, low - 1), st.tuples(*[one] * (rank + 1)), st.just(1.5), st.none())
    return mostly(draw, st.one_of(one, st.tuples(*[one] * rank), st.tuples(one)), bad)


@st.composite
def layers(draw):
    """Shapes and options of a convolution, most of them legal."""
    rank = draw(st.integers(1, 3))
    groups = draw(st.integers(1, 3))
    inputs, outputs = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    spatial = tuple(mostly(draw, st.integers(1, 5), st.just(0)) for _ in range(rank))
    kernel = tuple(mostly(draw, st.integers(1, 3), st.integers(4, 7)) for _ in range(rank))
    batch = draw(st.sampled_from([(2,), (1,), (), (0,)]))
    input = (*batch, mostly(draw, st.just(groups * inputs), st.integers(1, 5)), *spatial)
    weight = (groups * outputs, inputs, *kernel)
    weight = mostly(draw, st.just(weight), st.sampled_from([weight[:-1], (*weight, 1), (weight[0] + 1, *weight[1:])]))
    bias = draw(st.sampled_from([None, (weight[0],), (weight[0],), (weight[0] + 1,)]))
    options = {
        "stride": draw(setting(rank, 1, 3)),
        "padding": draw(st.one_of(setting(rank, 0, 2), st.sampled_from(["same", "valid", "full"]))),
        "dilation": draw(setting(rank, 1, 2)),
        "groups": groups,
    }
    return rank, (input, weight, bias), options


def compared(ours, theirs, arrays):
    """Both raise, or both give the same output and the same gradients."""
    tensors = [None if array is None else torch.from_numpy(array).requires_grad_() for array in arrays]
    leaves = [tensor for tensor in tensors if tensor is not None]
    try:
        expected = theirs(*tensors)
        cotangent = torch.from_numpy(integers(tuple(expected.shape), 9))
        gradients = torch.autograd.grad(expected, leaves, cotangent)
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as refused:
        with pytest.raises((ValueError, TypeError), match="`"):
            print(ours(*arrays), "although torch says", refused)
        return
    given_arrays = [None if array is None else jnp.asarray(array) for array in arrays]

    def both(*a):
        output, pull = jax.vjp(ours, *a)
        return output, pull(jnp.asarray(cotangent.numpy()))

    output, pulled = jax.jit(both)(*given_arrays)
    np.testing.assert_array_equal(output, expected.detach().numpy(), strict=True)
    for mine, other in zip([g for g in pulled if g is not None], gradients, strict=True):
        np.testing.assert_array_equal(mine, other.numpy(), strict=True)


def drawn(shapes):
    return [None if shape is None else integers(shape, seed) for seed, shape in enumerate(shapes)]


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch, of its own speed
@given(layer=layers())
@example(layer=(2, ((1, 3, 5, 5), (4, 3, 3, 3), None), {"stride": 2, "padding": "same", "dilation": 1, "groups": 1}))
@example(layer=(1, ((0, 2, 1), (2, 2, 2), (2,)), {"stride": 1, "padding": 1, "dilation": 2, "groups": 1}))
@settings(max_examples=60)
def test_conv(layer):
    rank, shapes, options = layer
    ours = getattr(jaxconv, f"conv{rank}d")
    compared(lambda *a: ours(*a, **options), lambda *a: CONV[rank](*a, **options), drawn(shapes))


def out_of_bounds(rank, stride, dilation, output_padding, **others):
    """Whether a transposed convolution has a dilation below 1, or an output_padding of a stride or more."""
    try:
        values = [(value * rank if len(value) == 1 else value) if isinstance(value, tuple) else (value,) * rank
                  for value in (stride, dilation, output_padding)]  # fmt: skip
        return any(d < 1 or o >= max(s, d) for s, d, o in zip(*values, strict=True))
    except (TypeError, ValueError):
        return False  # no integers, or not one per axis: both refuse


@given(layer=layers(), data=st.data())
@settings(max_examples=60)
def test_conv_transpose(layer, data):
    rank, (input, weight, bias), options = layer
    if isinstance(options["padding"], str):
        options["padding"] = 0
    if len(input) == rank + 2:
        input = (max(input[0], 1), *input[1:])  # torch checks no size of an empty batch
    groups = options["groups"]
    # The weight of a transposed convolution begins with the input's channels.
    weight = (mostly(data.draw, st.just(input[-rank - 1]), st.just(input[-rank - 1] + 1)), 2, *weight[2:])
    bias = None if bias is None else data.draw(st.sampled_from([(2 * groups,), (2 * groups,), (2 * groups + 1,)]))
    options["output_padding"] = data.draw(setting(rank, 0, 1))
    ours = getattr(jaxconv, f"conv_transpose{rank}d")
    if 0 in input[-rank:] or out_of_bounds(rank, **options):
        with pytest.raises((ValueError, TypeError), match="`"):
            ours(*drawn((input, weight, bias)), **options)
        return
    compared(
        lambda *a: ours(*a, **options), lambda *a: CONV_TRANSPOSE[rank](*a, **options), drawn((input, weight, bias))
    )


@given(data=st.data())
@settings(max_examples=60)
def test_unfold(data):
    shape = data.draw(
        st.sampled_from([(2, 3, 5, 4), (3, 5, 4), (0, 2, 4, 4), (2, 3, 5), (2, 0, 4, 4), (1, 2, 3, 3, 3)])
    )
    options = {name: data.draw(setting(2, low, 2)) for name, low in (("dilation", 1), ("padding", 0), ("stride", 1))}
    options: Any = {
        name: value for name, value in options.items() if not (isinstance(value, tuple) and len(value) != 2)
    }
    kernel = data.draw(st.one_of(st.integers(0, 6), st.tuples(*[st.integers(1, 3)] * 2)))
    compared(lambda x: jaxconv.unfold(x, kernel, **options), lambda x: F.unfold(x, kernel, **options), drawn([shape]))


@given(data=st.data())
@settings(max_examples=60)
def test_fold(data):
    options = {name: data.draw(setting(2, low, 2)) for name, low in (("dilation", 1), ("padding", 0), ("stride", 1))}
    options: Any = {
        name: value for name, value in options.items() if not (isinstance(value, tuple) and len(value) != 2)
    }
    size, kernel = data.draw(st.integers(3, 6)), data.draw(st.integers(1, 3))
    try:
        columns = F.unfold(torch.zeros(1, 2, size, size), kernel, **options).shape[1:]
    except (RuntimeError, TypeError):
        columns = (2 * kernel * kernel, 4)
    rows, length = (mostly(data.draw, st.just(number), st.just(number + 1)) for number in columns)
    shape = (*data.draw(st.sampled_from([(2,), (), (0,)])), rows, length)
    compared(
        lambda x: jaxconv.fold(x, size, kernel, **options), lambda x: F.fold(x, size, kernel, **options), drawn([shape])
    )


@given(
    at=st.integers(0, 40),
    value=st.sampled_from([np.nan, np.inf, -np.inf]),
    seed=st.integers(0, 5),
    engine=st.sampled_from(ENGINES),
)
@settings(max_examples=40)
def test_infinity_and_nan_land_where_torch_has_them(at, value, seed, engine):
    input, weight = integers((1, 2, 7, 6), seed), integers((4, 1, 3, 2), seed + 1)
    input.flat[at] = value
    options: dict[str, Any] = {"stride": (2, 1), "padding": 1, "groups": 2}
    expected = F.conv2d(torch.from_numpy(input), torch.from_numpy(weight), **options)
    ours, pull = jax.vjp(lambda w: jaxconv.conv2d(input, w, **options, engine=engine), weight)
    np.testing.assert_array_equal(ours, expected)
    tensor = torch.from_numpy(weight).requires_grad_()
    ones = torch.ones_like(expected)
    (by_weight,) = torch.autograd.grad(F.conv2d(torch.from_numpy(input), tensor, **options), [tensor], ones)
    np.testing.assert_array_equal(pull(jnp.ones(expected.shape, ours.dtype))[0], by_weight)
    back = F.conv_transpose2d(torch.from_numpy(input), torch.from_numpy(weight.reshape(2, 2, 3, 2)), stride=2)
    transposed = jaxconv.conv_transpose2d(input, weight.reshape(2, 2, 3, 2), stride=2, engine=engine)
    np.testing.assert_array_equal(transposed, back)


@given(
    geometry=geometries(),
    engine=st.sampled_from(ENGINES),
    last=st.booleans(),
    place=st.sampled_from([0, 1, 3]),
    at=st.integers(0, 10**6),
)
@settings(max_examples=60)
def test_no_engine_hides_an_infinity(geometry, engine, last, place, at):
    """What sees an infinite entry of input, weight or cotangent is no number, in the output and both gradients."""
    arrays = tuple(map(np.ones_like, geometry.arrays(np.float32)))
    if 0 in (array.size for array in arrays):
        return

    def with_entry(value):
        some = [array.copy() for array in arrays]
        some[place].flat[at % some[place].size] = value
        return tuple(some)

    one, other = (torch_results(geometry, with_entry(value))[:3] for value in (1, 2))
    input, weight, _, cotangent = map(jnp.asarray, with_entry(np.inf))
    axis = input.ndim - geometry.rank - 1

    def placed(image, old, new):
        return jnp.moveaxis(image, old, new) if last else image

    options = geometry.options | {"engine": engine, "data_format": "channels_last" if last else "channels_first"}
    output, pull = jax.vjp(lambda x, w: jaxconv.conv(x, w, **options), placed(input, axis, -1), weight)
    by_input, by_weight = pull(placed(cotangent, axis, -1))
    mine = placed(output, -1, axis), placed(by_input, -1, axis), by_weight
    for ours, before, after in zip(mine, one, other, strict=True):
        assert not np.isfinite(np.asarray(ours)[np.asarray(before) != np.asarray(after)]).any()
