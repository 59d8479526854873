"""`jax.vmap` over samples is a batch, whatever else is done; and a gradient for every sample needs no more memory than a few."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from devices import on_eight
from jaxprs import equations

import jaxconv
from jaxconv import choice, evaluation, primitive
from jaxconv.batches import mapped_by_parts


def integers(*shapes):
    generator = np.random.default_rng(0)
    return [jnp.asarray(generator.integers(-4, 5, shape), jnp.float32) for shape in shapes]


def shapes_in(jaxpr):
    """Of everything that a jaxpr makes, inside other primitives too."""
    return (variable.aval.shape for equation in equations(jaxpr) for variable in equation.outvars)


LAYERS = {
    "conv2d": (partial(jaxconv.conv2d, padding=1, stride=(2, 1)), (7, 4, 6, 5), (8, 4, 3, 2), (8,)),
    "grouped": (partial(jaxconv.conv2d, dilation=2, groups=4), (7, 4, 6, 5), (4, 1, 2, 2), (4,)),
    "channels last": (partial(jaxconv.conv1d, data_format="channels_last"), (7, 9, 3), (5, 3, 3), (5,)),
    "transposed": (partial(jaxconv.conv_transpose2d, stride=2), (7, 4, 3, 5), (4, 3, 3, 2), (3,)),
    "local": (jaxconv.conv_local, (7, 2, 5), (3, 2, 2, 4), (3,)),
}


@pytest.mark.parametrize("jitted", [False, True], ids=["", "jitted inside"])
@pytest.mark.parametrize("name", LAYERS)
def test_every_sample_is_a_batch(name, jitted):
    """To the bit on integers, forward and backward, of samples with and without a batch of their own, on any axis."""
    layer, *shapes = LAYERS[name]
    x, w, b = integers(*shapes)
    expected, pull = jax.vjp(layer, x, w, b)
    gradients = pull(expected)
    sample = jax.jit(layer) if jitted else layer

    def of_batches(x, w, b):
        return jax.vmap(sample, (0, None, None))(x[:, None], w, b)[:, 0]

    def on_the_last_axis(x, w, b):
        return jax.vmap(sample, (-1, None, None), -1)(jnp.moveaxis(x, 0, -1), w, b)

    for mapped in (jax.vmap(sample, (0, None, None)), of_batches):
        output, pull = jax.vjp(mapped, x, w, b)
        np.testing.assert_array_equal(output, expected)
        for mine, theirs in zip(pull(expected), gradients, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(jnp.moveaxis(on_the_last_axis(x, w, b), -1, 0), expected)


@pytest.mark.parametrize("name", ["conv2d", "grouped", "transposed"])
def test_a_shared_weight_has_no_gradient_for_every_sample(name):
    """Which would be as many weights as there are samples, only to be added up."""
    layer, *shapes = LAYERS[name]
    x, w, b = integers(*shapes)

    def loss(w):
        return jnp.sum(jax.vmap(layer, (0, None, None))(x, w, b) ** 2)

    made = set(shapes_in(jax.make_jaxpr(jax.grad(loss))(w).jaxpr))
    assert not [shape for shape in made if len(shape) > len(w.shape) and np.prod(shape) == x.shape[0] * w.size]


def test_two_axes_are_mapped_into_one_batch():
    x, w = integers((2, 3, 4, 6, 5), (6, 4, 3, 3))
    twice = jax.vmap(jax.vmap(jaxconv.conv2d, (0, None)), (0, None))
    np.testing.assert_array_equal(twice(x, w), jaxconv.conv2d(x.reshape(6, 4, 6, 5), w).reshape(2, 3, 6, 4, 3))
    assert (6, 6, 4, 3) in set(shapes_in(jax.make_jaxpr(twice)(x, w).jaxpr))


def test_layers_of_one_shape_are_traced_once(monkeypatch):
    """Here by three layers, with their gradients, as often as by one."""
    calls = []
    monkeypatch.setattr(evaluation, "chosen", lambda *a: calls.append(a) or choice.chosen(*a))

    def network(depth: int) -> int:
        def loss(x, *weights):
            for weight in weights:
                x = jaxconv.conv2d(x, weight, padding=1)
            return x.sum()

        jax.clear_caches()
        calls.clear()
        jax.make_jaxpr(jax.grad(loss, range(1 + depth)))(jnp.ones((2, 3, 9, 9)), *[jnp.ones((3, 3, 3, 3))] * depth)
        return len(calls)

    assert network(3) == network(1) == 3


def test_nothing_is_traced_that_is_mapped_as_a_whole():
    """A jaxpr of one sample would be thrown away."""
    seen = []

    def function(static, array):
        seen.append(array.shape)
        return array * static

    def rule(call, function, static, length, batched, arrays):
        return function(static, *arrays)

    twice = partial(primitive.with_rule(function, rule), 2.0)
    np.testing.assert_array_equal(jax.jit(jax.vmap(twice))(jnp.ones((3, 4))), 2.0)
    assert seen == [(3, 4)]
    jax.make_jaxpr(twice)(jnp.ones(4))
    assert seen == [(3, 4), (4,)]


def test_an_empty_batch_of_samples():
    output = jax.vmap(jaxconv.conv2d, (0, None))(jnp.zeros((0, 4, 6, 5)), jnp.zeros((6, 4, 3, 3)))
    assert output.shape == (0, 6, 4, 3)


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)], ids=["input", "weight", "both"])
def test_ensembles(axes):
    """A weight for every sample or a sample for every weight: as one after the other."""
    layer = partial(jaxconv.conv2d, padding=1, groups=2)
    x, w = integers((2, 4, 6, 5), (6, 2, 3, 3))
    x, w = (
        array if axis is None else jnp.stack([array, 2 * array, -array])
        for array, axis in zip((x, w), axes, strict=True)
    )

    def both(x, w):
        output, pull = jax.vjp(layer, x, w)
        return output, *pull(output)

    mapped = jax.jit(jax.vmap(both, axes))(x, w)
    for at in range(3):
        alone = both(*(array if axis is None else array[at] for array, axis in zip((x, w), axes, strict=True)))
        for mine, theirs in zip(mapped, alone, strict=True):
            np.testing.assert_array_equal(mine[at], theirs)


@pytest.mark.parametrize(
    ("samples", "weight", "options"),
    [
        ((48, 8, 12, 12), (16, 8, 3, 3), {"padding": 1}),
        ((48, 1, 12, 12), (6, 1, 5, 5), {}),
        ((24, 8, 9, 9), (16, 8, 3, 3), {"stride": 2}),
        ((24, 6, 40), (8, 6, 5), {"padding": 2}),
        ((24, 8, 12, 12), (8, 1, 3, 3), {"groups": 8}),
        ((24, 9, 9, 4), (8, 4, 3, 3), {"data_format": "channels_last"}),
    ],
    ids=["3x3", "first", "strided", "signal", "depthwise", "channels last"],
)
def test_a_gradient_for_every_sample(samples, weight, options, monkeypatch):
    """To the bit on integers, in so many parts that each has a few samples."""
    monkeypatch.setattr(evaluation, "_PART", 2**15)
    x, w = integers(samples, weight)
    layer = partial(jaxconv.conv, **options)
    g = layer(x, w)

    def gradient(x, g):
        return jax.grad(lambda w: jnp.vdot(layer(x[None], w)[0], g))(w)

    every = jax.jit(jax.vmap(gradient))
    assert "while" in every.lower(x, g).as_text()
    np.testing.assert_array_equal(every(x, g), jnp.stack([gradient(*pair) for pair in zip(x, g, strict=True)]))
    jax.clear_caches()


@pytest.mark.parametrize(
    ("samples", "weight", "most"),
    [
        ((256, 8, 16, 16), (16, 8, 3, 3), 1 / 4),
        ((64, 64, 16, 16), (64, 64, 3, 3), 1 / 4),
        ((8, 64, 56, 56), (64, 64, 3, 3), 3 / 8),
    ],
    ids=["#1606", "dense", "few large"],
)
def test_temporaries_of_a_gradient_for_every_sample(samples, weight, most):
    """At most a quarter of U where samples are taken in parts, and three eighths of eight, which are all taken at once."""
    x, w = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (samples, weight))
    g = jax.ShapeDtypeStruct((samples[0], weight[0], *samples[2:]), jnp.float32)

    def loss(w, x, g):
        return jnp.vdot(jaxconv.conv2d(x, w, padding=1), g)

    program = jax.jit(jax.vmap(jax.grad(loss), (None, 0, 0))).lower(w, x, g).compile()
    memory = program.memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes <= most * 4 * np.prod(samples) * np.prod(weight[2:])


@pytest.mark.parametrize("parts", [1, 2, 6])
def test_a_map_by_parts_is_the_map(parts):
    x, y = integers((12, 3), (12, 3))
    one = jax.ShapeDtypeStruct((3, 3), x.dtype)
    np.testing.assert_array_equal(mapped_by_parts(jnp.outer, one, parts, x, y), jax.vmap(jnp.outer)(x, y))


def test_what_is_mapped_can_be_transposed():
    """`jax.linear_transpose`, which needs no derivative, of a mapped layer, inside of `forward_mode`."""
    x, w = integers((3, 4, 6, 5), (6, 4, 3, 3))
    with jaxconv.forward_mode():
        layer = jax.vmap(lambda x: jaxconv.conv2d(x, w))
        output, tangent = jax.jvp(layer, (x,), (x,))
        (back,) = jax.linear_transpose(layer, x)(output)
    np.testing.assert_array_equal(output, tangent)
    np.testing.assert_array_equal(back, jax.vjp(lambda x: jaxconv.conv2d(x, w), x)[1](output)[0])


SHARDED = """
import jaxconv
layers = {
    "dense": (jaxconv.conv2d, (64, 64, 32, 32), (64, 64, 3, 3), {"padding": 1}),
    "first": (jaxconv.conv2d, (64, 3, 64, 64), (32, 3, 3, 3), {"padding": 1}),
    "strided": (jaxconv.conv2d, (64, 32, 32, 32), (64, 32, 3, 3), {"padding": 1, "stride": 2}),
    "signal": (jaxconv.conv1d, (16, 64, 2048), (64, 64, 5), {"padding": 2}),
    "grouped": (jaxconv.conv2d, (16, 64, 32, 32), (64, 2, 3, 3), {"padding": 1, "groups": 32}),
    "depthwise": (jaxconv.conv2d, (16, 64, 48, 48), (64, 1, 3, 3), {"padding": 1, "groups": 64}),
    "transposed": (jaxconv.conv_transpose2d, (16, 32, 32, 32), (32, 16, 4, 4), {"padding": 1, "stride": 2}),
    "channels last": (jaxconv.conv2d, (16, 32, 32, 64), (64, 64, 3, 3), {"padding": 1, "data_format": "channels_last"}),
}
for name, (function, x, w, options) in layers.items():
    layer = partial(function, **options)
    g = jax.eval_shape(layer, *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (x, w))).shape
    def gradient(at, layer, x, w, g):
        return jax.vjp(layer, x, w)[1](g)[at]
    def every(x, w, g):
        return jax.vmap(partial(gradient, 1, lambda x, w: layer(x[None], w)[0]), (0, None, 0))(x, w, g)
    for way, one in (("", layer), ("mapped", jax.vmap(layer, (0, None)))):
        print(name, way, kinds(one, (x, w), (split, whole), split),
            kinds(partial(gradient, 0, one), (x, w, g), (split, whole, split), split),
            kinds(partial(gradient, 1, one), (x, w, g), (split, whole, split), whole))
    print(name, "every sample", kinds(every, (x, w, g), (split, whole, split), split))
"""


def test_sharded_samples_stay_where_they_are():
    """On 8 devices: no collective in output, input gradient, and gradients for every sample; one all-reduce for all samples."""
    lines = on_eight(SHARDED)
    assert len(lines) == 24  # eight layers, plain, mapped, and with a gradient for every sample
    for line in lines:
        expected = "[]" if "every sample" in line else "[] [] ['all-reduce']"
        assert line.endswith(f" {expected}"), line


def test_the_sum_over_devices_is_outside_of_the_loop_over_tiles():
    """Or every tile's would be added up. The numbers are those of one device."""
    (told,) = on_eight("""
import jaxconv, numpy as np
generator = np.random.default_rng(0)
x, g, w = (jnp.asarray(generator.integers(-3, 4, shape), jnp.float32)
    for shape in ((16, 64, 40, 40), (16, 64, 40, 40), (64, 64, 3, 3)))
def gradient(x, g):
    return jax.vjp(lambda w: jaxconv.conv2d(x, w, padding=1), w)[1](g)[0]
program = jax.jit(gradient, in_shardings=(split, split), out_shardings=whole).lower(x, g).compile()
bodies = [body for body in program.as_text().split("\\n}") if "all-reduce(" in body]
alone = jax.jit(gradient)(x, g)
print(["ENTRY" in body for body in bodies], np.array_equal(program(jax.device_put(x, split), jax.device_put(g, split)), alone))
""")
    assert told == "[True] True"
