"""16-bit numbers on a CPU, where tiles are copied as bits: the same sums, their derivatives, and no whole array in float32."""

import importlib

import jax
import jax.numpy as jnp
import memory
import numpy as np
import pytest

import jaxconv
from jaxconv.batches import image_by_parts, sum_by_parts
from jaxconv.convolution import Convolution
from jaxconv.platforms import in_bits
from jaxconv.window import make_window

HALVES = ["bfloat16", "float16"]
TILED = ["stream", "fold", "taps", "batched"]
CALLS = [
    # Input, weight, stride, padding, dilation, groups.
    ((4, 3, 9, 8), (4, 3, 3, 3), 1, 1, 1, 1),
    ((4, 4, 9, 8), (6, 2, 3, 2), (2, 1), ((2, 0), (0, 1)), 1, 2),
    ((4, 3, 40), (3, 1, 13), 1, 6, 1, 3),
    ((4, 2, 30), (3, 2, 4), 3, 1, 2, 1),
    ((2, 2, 4, 5, 6), (3, 2, 2, 3, 2), 1, 1, 1, 1),
    ((2, 2, 512), (2, 2, 3), 1, 1, 1, 1),
]
MANY = ((4, 160, 7, 9), (160, 1, 3, 3), 1, ((1, 1), (0, 0)), 1, 160)
# With a dtype, parts of the batch, and whether channels are last.
CALLED = [
    (MANY, "bfloat16", 1, True),
    *((call, "bfloat16", 1, False) for call in CALLS),
    *((call, "bfloat16", 1, True) for call in CALLS[1:3]),
    (CALLS[0], "float16", 1, False),
    (CALLS[1], "bfloat16", 2, False),
]


def integers(shape, generator, dtype):
    """Small enough for any sum of their products to be a number of float32; their rounding is what is left to compare."""
    return jnp.asarray(generator.integers(-4, 5, shape), dtype)


@pytest.mark.parametrize(("call", "dtype", "parts", "last"), CALLED)
@pytest.mark.parametrize("name", TILED)
def test_bits_are_summed_as_numbers(name, call, dtype, parts, last):
    """To the bit, with every number of axes unfolded, what the readable engine gives in float32, rounded once."""
    input, weight, stride, padding, dilation, groups = call
    engine, plain = (importlib.import_module(f"jaxconv.engines.{each}") for each in (name, "materialise"))
    single, half, rank = jnp.dtype("float32"), jnp.dtype(dtype), len(weight) - 2
    window = make_window(weight[2:], stride, padding, dilation, rank)
    exact = Convolution(window, input[2:], groups, None, single, single, last)
    shapes = (exact.shape(input[0], input[2:], input[1]), weight, weight[:1])
    shapes = (*shapes, exact.shape(input[0], exact.out_spatial, weight[0]))
    generator = np.random.default_rng(0)
    x, w, b, g = (integers(shape, generator, half) for shape in shapes)
    unfolded = range(1 + rank if name == "fold" else 1)
    # Long tiles of a signal are put as rows, short ones as bits that are copied at last.
    given = [
        Convolution(window, input[2:], groups, None, half, single, last, "auto", tile, n, parts)
        for tile in (400, 8192)
        for n in unfolded
    ]
    for part, by_parts, arrays in (
        ("output", image_by_parts(engine.output, 0), (x, w, b)),
        ("input_gradient", image_by_parts(engine.input_gradient, 1), (w, g)),
        ("weight_gradient", sum_by_parts(engine.weight_gradient), (x, g)),
    ):
        sums = getattr(plain, part)(exact, *(array.astype(single) for array in arrays))
        mine = jax.jit(lambda *a, by_parts=by_parts: [in_bits(by_parts, one, *a) for one in given])(*arrays)
        for result in mine:
            assert result.dtype == half
            np.testing.assert_array_equal(result.astype(single), sums.astype(half).astype(single))


# Input, weight and output: in tiles, and of a first layer, which has a product per sample.
LARGE = ((4, 16, 64, 64), (16, 16, 3, 3), (4, 16, 64, 64))
FIRST = ((4, 3, 128, 160), (32, 3, 3, 3), (4, 32, 128, 160))


def arrays(dtype, layer=LARGE):
    generator = np.random.default_rng(0)
    return [integers(shape, generator, dtype) for shape in (*layer[:2], *layer)]


@pytest.mark.parametrize("large", [LARGE, FIRST], ids=["in tiles", "first layer"])
@pytest.mark.parametrize("dtype", HALVES)
def test_derivatives_of_bits_are_those_of_numbers(dtype, large):
    """Forward mode, and the gradients' own derivatives, of a layer that is copied as bits."""
    single, half = (arrays(kind, large) for kind in ("float32", dtype))

    def layer(x, w):
        return jaxconv.conv(x, w, padding=1)

    def gradients(x, w, g):
        return jax.vjp(layer, x, w)[1](g)

    def both(x, w, dx, dw, g):
        with jaxconv.forward_mode():
            tangent = jax.jvp(layer, (x, w), (dx, dw))
            second = jax.jvp(gradients, (x, w, g), (dx, dw, g))
        again = jax.vjp(gradients, x, w, g)[1]((dx, dw))
        return *tangent, *second, again

    assert "bitcast_convert" in jax.jit(layer).lower(*half[:2]).as_text()
    for mine, theirs in zip(
        jax.tree.leaves(jax.jit(both)(*half)), jax.tree.leaves(jax.jit(both)(*single)), strict=True
    ):
        assert mine.dtype == dtype
        size = np.abs(theirs).max()
        assert size > 0
        # Cotangents are rounded on the way, and so is each of two terms of a tangent.
        np.testing.assert_allclose(mine.astype("float32"), theirs, rtol=0, atol=float(jnp.finfo(dtype).eps) * size)


def test_copies_of_few_16_bit_numbers_add_up_in_float32():
    """The derivatives of unfolding, and of the weight's copies, of a layer too small for bits. In bfloat16
    256 and 1 are 256, so that ones would be lost."""
    x, w = jnp.zeros((17, 1, 4, 4), jnp.bfloat16), jnp.zeros((32, 1, 4, 4), jnp.bfloat16)

    def gradients(x, w, g):
        return jax.vjp(lambda x, w: jaxconv.conv(x, w, padding=3, engine="batched"), x, w)[1](g)

    g = jnp.zeros((17, 32, 7, 7), jnp.bfloat16).at[:, 0, 3, 3].set(1)
    pull = jax.vjp(gradients, x, w, g)[1]
    dx = jnp.ones_like(x).at[0].set(256)
    np.testing.assert_array_equal(pull((dx, w))[1][0], jnp.full((1, 4, 4), 272, jnp.bfloat16))
    g = jnp.zeros_like(g).at[:, 0].set(1)
    pull = jax.vjp(gradients, x, w, g)[1]
    dw = jnp.ones_like(w).at[0, 0, 0, 0].set(256).at[0, 0, 3, 3].set(256).at[0, 0, 1, 1].set(3)
    np.testing.assert_array_equal(pull((x, dw))[0], jnp.full_like(x, 528))


@pytest.mark.parametrize("function", [jaxconv.conv, jaxconv.conv_transpose])
def test_a_result_of_another_dtype(function):
    """Sums of bfloat16 numbers asked for in float32, whose cotangents are in float32, and gradients in bfloat16 again."""
    x, w, *_ = arrays("bfloat16")
    g = arrays("float32")[0]

    def results(*given):
        output, pull = jax.vjp(lambda x, w: function(x, w, padding=1, preferred_element_type=jnp.float32), *given)
        return output, *pull(g)

    mine = jax.jit(results)(x, w)
    exact = jax.jit(results)(x.astype("float32"), w.astype("float32"))
    np.testing.assert_array_equal(mine[0], exact[0])
    for half, single in zip(mine[1:], exact[1:], strict=True):
        assert half.dtype == jnp.bfloat16
        np.testing.assert_array_equal(half.astype("float32"), single.astype("bfloat16").astype("float32"))


@pytest.mark.parametrize("last", [False, True], ids=["channels_first", "channels_last"])
@pytest.mark.parametrize(
    ("input", "weight", "options"),
    [
        ((8, 64, 56, 56), (64, 64, 3, 3), {"padding": 1}),
        ((8, 3, 224, 224), (64, 3, 7, 7), {"stride": 2, "padding": 3}),
        ((8, 64, 4096), (64, 64, 5), {"padding": 2}),
        ((8, 64, 16392), (128, 64, 16), {"stride": 8}),
        ((8, 144, 56, 56), (144, 1, 3, 3), {"padding": 1, "groups": 144}),
    ],
    ids=["r64", "stem", "signal", "a signal of no whole number of tiles", "depthwise"],
)
def test_no_image_is_whole_in_float32(input, weight, options, last):
    """Temporaries of the compiled VJP are a quarter of U at most."""
    temporaries, u, _, _ = memory.of_vjp(input, weight, options, last, jnp.bfloat16)
    assert u > 2**24
    assert temporaries <= u / 4


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("engine", ["auto", "materialise", "batched"])
@pytest.mark.parametrize(("channels", "out_channels", "taps"), [(2, 8, 1), (5, 1, 3), (5, 8, 1)])
def test_a_single_sample_is_multiplied(channels, out_channels, taps, engine, last):
    """XLA folds its transpositions into the product, and for 16-bit numbers has no code for some that it makes so."""
    x, w = (
        jnp.ones((1, 20, channels) if last else (1, channels, 20), "bfloat16"),
        jnp.ones((out_channels, channels, taps)),
    )
    options = {"engine": engine, "data_format": "channels_last" if last else "channels_first"}

    @jax.jit
    def both(x, w):
        output, pull = jax.vjp(lambda x, w: jaxconv.conv1d(x, w, **options), x, w)
        return output, *pull(jnp.ones_like(output))

    output, _, weight_gradient = both(x, w.astype("bfloat16"))
    assert (output == channels * taps).all()
    assert (weight_gradient == 21 - taps).all()
