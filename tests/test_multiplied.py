"""How much is multiplied: no product is made twice, and none of the zeros around an image, where there are many."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

import jaxconv
from jaxconv.convolution import Convolution
from jaxconv.engines import fold
from jaxconv.window import make_window


def multiplied(jaxpr, times=1):
    """Multiplications of all matrix products of a jaxpr, of those in a loop for every turn."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            ((axes, _), _), (left, _) = equation.params["dimension_numbers"], equation.invars
            total += times * math.prod(equation.outvars[0].aval.shape) * math.prod(left.aval.shape[at] for at in axes)
        assert equation.primitive.name != "while"  # whose turns would not be known
        turns = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        total += sum(multiplied(inner, times * turns) for inner in core.jaxprs_in_params(equation.params))
    return total


def of_layer(layer, input, weight, part):
    """Of the output of a layer, or of a gradient, for every product that there is."""
    x, w = (jnp.zeros(shape, jnp.float32) for shape in (input, weight))
    y = jax.eval_shape(layer, x, w)
    g = jnp.zeros(y.shape, y.dtype)
    gradients = {
        "input gradient": lambda x, w, g: jax.vjp(lambda x: layer(x, w), x)[1](g),
        "weight gradient": lambda x, w, g: jax.vjp(lambda w: layer(x, w), w)[1](g),
    }
    total = multiplied(jax.make_jaxpr(layer)(x, w).jaxpr)
    if part in gradients:
        total = multiplied(jax.make_jaxpr(gradients[part])(x, w, g).jaxpr) - total
    return total / (math.prod(y.shape) * math.prod(weight[1:]))


@pytest.mark.parametrize(
    ("input", "weight", "stride", "padding"),
    [((2, 61, 73, 73), (158, 61, 7, 7), 2, 3), ((4, 187, 43, 43), (79, 187, 5, 5), 2, 2)],
)
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_an_input_gradient_at_a_stride_makes_no_product_twice(input, weight, stride, padding, layout):
    """Of long kernels and few samples: a tile of one row of blocks would multiply the four or three rows that it sees."""
    layer = partial(jaxconv.conv2d, stride=stride, padding=padding, data_format=layout)
    input = (input[0], *input[2:], input[1]) if layout == "channels_last" else input
    # The last channels are some that the tile before has.
    assert 1 <= of_layer(layer, input, weight, "input gradient") < 1.1


@pytest.mark.parametrize("part", ["output", "input gradient", "weight gradient"])
def test_blocks_do_not_multiply_the_zeros_around_a_signal(part):
    """Of half as many taps as positions, of which a third sees zeros alone."""
    layer = partial(jaxconv.conv1d, padding=64, groups=16)
    assert of_layer(layer, (2, 768, 250), (768, 48, 128), part) < 1.1


@pytest.mark.parametrize("last", [False, True], ids=["channels_first", "channels_last"])
@pytest.mark.parametrize("tile", [20_000, 2**16])
def test_channels_at_a_time_are_all_channels(tile, last, monkeypatch):
    """Of an input gradient at a stride, with a bias; the last of them has some channels that the one before has, too."""
    counts, made = [], fold._channels_at_once
    monkeypatch.setattr(fold, "_channels_at_once", lambda *given: counts.append(made(*given)) or counts[-1])
    window = make_window((5, 5), (2, 3), 2, 1, 2)
    convolution = Convolution(window, (12, 14), 1, None, jnp.dtype("float32"), jnp.float32, last, tile=tile)
    random = np.random.default_rng(0)
    w, g, b = (jnp.asarray(random.standard_normal(shape), jnp.float32) for shape in ((3, 7, 5, 5), (2, 3, 6, 5), (7,)))
    result = convolution.channels_second(fold.input_gradient(convolution, w, convolution.as_given(g), b))
    assert counts == [{20_000: 3, 2**16: 0}[tile]]
    x = jnp.zeros((2, 7, 12, 14), jnp.float32)
    expected = jax.vjp(lambda x: jaxconv.conv2d(x, w, stride=(2, 3), padding=2, engine="materialise"), x)[1](g)[0]
    np.testing.assert_allclose(result, expected + b[:, None, None], rtol=2e-5, atol=2e-5)
