"""Rows of positions as one run, in which `fold` adds up the taps of the last axis, and `batched` copies what they see."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxprs import equations

from jaxconv.convolution import Convolution
from jaxconv.engines import batched, fold, materialise
from jaxconv.runs import Runs
from jaxconv.tiles import tiles
from jaxconv.window import make_window

# Input, weight, padding, dilation, groups: as many positions as cells on the last axis.
SAME = {
    "3x3": ((2, 3, 9, 7), (4, 3, 3, 3), 1, 1, 1),
    "all on one side": ((2, 3, 6, 7), (4, 3, 3, 3), ((2, 0), (0, 2)), 1, 1),
    "all on the other": ((2, 3, 6, 7), (4, 3, 3, 3), ((0, 2), (2, 0)), 1, 1),
    "dilated": ((1, 2, 6, 5), (3, 2, 2, 3), ((1, 0), (3, 3)), 3, 1),
    "a tap that sees nothing": ((1, 2, 5, 3), (3, 2, 1, 3), ((0, 0), (3, 3)), 3, 1),
    "groups": ((2, 6, 8, 5), (4, 3, 3, 5), ((1, 1), (2, 2)), 1, 2),
    "volume": ((2, 2, 5, 4, 6), (3, 2, 3, 3, 3), 1, 1, 1),
}


def convolution_of(given, weight, padding=1, dilation=1, groups=1, *, tile) -> Convolution:
    window = make_window(weight[2:], 1, padding, dilation, len(weight) - 2)
    sizes = window, given[2:], groups, None, jnp.float64, jnp.float64
    return Convolution(*sizes, tile=tile, unfolded=window.rank - 1, calls=True)


@pytest.mark.parametrize("tile", [1, 2**11, 2**14, 2**23])
@pytest.mark.parametrize("name", SAME)
def test_no_tap_sees_past_the_end_of_a_row(name, tile):
    """The reference's output and input gradient, of an image with an infinity at both ends of every row, and in corners."""
    given, weight, *rest = SAME[name]
    convolution = convolution_of(given, weight, *rest, tile=tile)
    assert Runs.of(convolution, tiles(convolution.out_spatial, 1, 2**23)) is not None
    rng = np.random.default_rng(0)
    w, bias = (jnp.asarray(rng.standard_normal(shape)) for shape in (weight, weight[0]))
    output, gradient = (jax.jit(function, static_argnums=0) for function in (fold.output, fold.input_gradient))
    g = (given[0], weight[0], *convolution.out_spatial)
    for end in (1, np.inf):
        x, cotangent = (rng.standard_normal(shape) for shape in (given, g))
        for image in (x, cotangent):
            image[..., 0], image[..., -1] = end, -end
        expected = materialise.output(convolution, jnp.asarray(x), w, bias)
        np.testing.assert_allclose(output(convolution, x, w, bias), expected, atol=1e-12)
        expected = materialise.input_gradient(convolution, w, jnp.asarray(cotangent))
        np.testing.assert_allclose(gradient(convolution, w, cotangent), expected, atol=1e-12)


@pytest.mark.parametrize("name", SAME)
def test_no_copy_has_what_is_past_the_end_of_a_row(name):
    """The reference's output and weight gradient, of an image with an infinity at both ends of every row."""
    given, weight, *rest = SAME[name]
    convolution = convolution_of(given, weight, *rest, tile=2**23)
    rng = np.random.default_rng(0)
    w, g = (jnp.asarray(rng.standard_normal(s)) for s in (weight, (given[0], weight[0], *convolution.out_spatial)))
    for end in (1, np.inf):
        x = rng.standard_normal(given)
        x[..., 0], x[..., -1] = end, -end
        for function, arrays in (("output", (x, w)), ("weight_gradient", (x, g))):
            mine, expected = (getattr(engine, function)(convolution, *arrays) for engine in (batched, materialise))
            np.testing.assert_allclose(mine, expected, atol=1e-12)


@pytest.mark.parametrize(("row", "runs"), [(8, [64, 64]), (96, [96, 768])])
def test_short_rows_are_copied_as_one_run(row, runs):
    """XLA's compiler unrolls a loop of few cells, and fills no vectors; of a long row it would select for nothing."""
    convolution = convolution_of((2, 3, 8, row), (4, 3, 3, 3), tile=2**23)
    image, weight = (jax.ShapeDtypeStruct(shape, jnp.float64) for shape in ((2, 3, 8, row), (4, 3, 3, 3)))
    jaxpr = jax.make_jaxpr(batched.output, static_argnums=0)(convolution, image, weight).jaxpr
    assert [one.outvars[0].aval.shape[-1] for one in equations(jaxpr) if one.primitive.name == "concatenate"] == runs


@pytest.mark.parametrize(
    "change",
    [
        {"channels_last": True},
        {"parts": 2},
        {"spread": True},
        {"unfolded": 0},
        {"unfolded": 2},
        {"window": make_window((3, 3), 1, ((1, 1), (0, 1)), 1, 2)},
        {"window": make_window((3, 3), (1, 2), ((1, 1), (4, 5)), 1, 2)},
        {"window": make_window((3, 13), 1, ((1, 1), (6, 6)), 1, 2)},
        {"window": make_window((1, 2), 1, ((0, 0), (9, 0)), 9, 2)},
    ],
    ids=lambda change: ", ".join(change),
)
def test_what_is_no_run(change):
    convolution = convolution_of((2, 3, 9, 8), (4, 3, 3, 3), tile=2**23)
    assert Runs.of(convolution, tiles(convolution.out_spatial, 1, 2**23)) is not None
    changed = replace(convolution, **change)
    assert Runs.of(changed, tiles(changed.out_spatial, 1, 2**23)) is None


def test_a_row_that_is_cut_is_no_run():
    convolution = convolution_of((2, 3, 9, 8), (4, 3, 3, 3), tile=2**23)
    assert Runs.of(convolution, tiles((9, 8), 1, 4)) is None
