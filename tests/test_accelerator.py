"""The rule for an accelerator: which engine it names, and that what it names computes eqs. 2 to 4 there.

Where there is none the same functions run on a CPU, in the way that they would be compiled for one.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from choices import PARTS, chosen, named
from devices import on_eight
from jax import export
from jaxprs import equations

import jaxconv
from jaxconv import choice
from jaxconv.convolution import Convolution
from jaxconv.engines import materialise
from jaxconv.platforms import with_channels_first
from jaxconv.primitive import ACCELERATOR
from jaxconv.window import make_window


def layer(input, weight, stride=1, padding=1, last=False, dtype="float64") -> Convolution:
    rank = len(weight) - 2
    window = make_window(weight[2:], stride, padding, 1, rank)
    groups = input[1] // weight[1]
    return Convolution(window, input[2:], groups, None, jnp.dtype(dtype), dtype, last, platform=ACCELERATOR)


@pytest.mark.parametrize(
    ("input", "weight", "stride", "padding", "expected"),
    [
        # Dense: folded along the last axis, at a stride along none; a signal is copied in tiles.
        ((8, 64, 56, 56), (64, 64, 3, 3), 1, 1, ("fold 1", "fold 1", "fold 1")),
        ((8, 16, 8, 28, 28), (16, 16, 3, 3, 3), 1, 1, ("fold 2", "fold 2", "fold 2")),
        ((16, 64, 4096), (64, 64, 5), 1, 2, ("stream", "stream", "stream")),
        ((16, 3, 4096), (64, 3, 5), 1, 2, ("materialise", "materialise", "materialise")),
        ((16, 64, 4096), (64, 64, 5), 2, 2, ("materialise", "materialise", "materialise")),
        ((1024, 64, 4096), (64, 64, 5), 2, 2, ("stream", "stream", "stream")),
        # Few channels, at a stride and without.
        ((64, 3, 32, 32), (48, 3, 3, 3), 1, 1, ("materialise", "materialise", "materialise")),
        ((64, 5, 32, 32), (48, 5, 3, 3), 1, 1, ("fold 1", "fold 1", "fold 1")),
        ((8, 3, 224, 224), (64, 3, 7, 7), 2, 3, ("materialise", "materialise", "batched")),
        ((8, 128, 28, 28), (256, 128, 3, 3), 2, 1, ("fold 2", "fold 2", "fold 2")),
        ((512, 128, 56, 56), (256, 128, 3, 3), 2, 1, ("fold 2", "fold 2", "fold 2")),
        ((8, 128, 28, 28), (256, 128, 1, 1), 2, 0, ("materialise", "materialise", "materialise")),
        ((8, 128, 28, 28), (256, 8, 3, 3), 2, 1, ("materialise", "materialise", "materialise")),
        # One tap: U is the input.
        ((8, 256, 56, 56), (64, 256, 1, 1), 1, 0, ("batched", "batched", "batched")),
        ((8, 256, 56, 56), (64, 256, 1, 1), 1, 1, ("fold 1", "fold 1", "fold 1")),
        # Few pairs of channels per group are added up; of many taps the gradient of a depthwise weight is a product.
        ((8, 144, 56, 56), (144, 1, 3, 3), 1, 1, ("taps", "taps", "taps")),
        ((8, 128, 56, 56), (128, 4, 3, 3), 1, 1, ("taps", "taps", "taps")),
        ((8, 64, 28, 28), (64, 1, 8, 8), 1, 1, ("taps", "taps", "taps")),
        ((8, 64, 28, 28), (64, 1, 5, 13), 1, 1, ("taps", "taps", "fold 1")),
        ((8, 128, 56, 56), (160, 4, 3, 3), 1, 1, ("fold 1", "fold 1", "fold 1")),
    ],
)
def test_the_rule(input, weight, stride, padding, expected):
    convolution = layer(input, weight, stride, padding)
    assert named(convolution, weight, input[0]) == expected
    for _, own in chosen(convolution, weight, input[0]):
        assert (own.parts, own.calls, own.tile) == (1, False, 2**30)


SMALL = {
    "dense": ((2, 6, 7, 8), (6, 6, 3, 3), 1, 1),
    "signal": ((2, 6, 17), (5, 6, 4), 1, 2),
    "few channels": ((2, 3, 9, 7), (5, 3, 3, 3), 1, 1),
    "first layer": ((2, 3, 11, 9), (6, 3, 5, 5), 2, 2),
    "strided": ((2, 6, 9, 8), (8, 6, 3, 3), 2, 1),
    "one tap": ((2, 6, 5, 4), (3, 6, 1, 1), 1, 0),
    "depthwise": ((2, 6, 9, 8), (6, 1, 3, 3), 1, 1),
    "depthwise, strided": ((2, 6, 9, 8), (12, 1, 3, 2), 2, 1),
    "wide": ((1, 4, 11, 12), (4, 1, 7, 11), 1, 5),
    "grouped": ((2, 8, 7, 6), (8, 4, 3, 3), 1, 1),
    "grouped signal": ((3, 8, 21), (8, 2, 9), 1, 4),
}


@pytest.mark.parametrize("tile", [2**30, 2**10], ids=["one tile", "tiles"])
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize("name", SMALL)
def test_what_the_rule_names_gives_what_materialise_gives(name, last, tile):
    input, weight, stride, padding = SMALL[name]
    convolution = layer(input, weight, stride, padding, last)
    random = np.random.default_rng(0)
    x, w = (jnp.asarray(random.integers(-4, 5, shape), jnp.float64) for shape in (input, weight))
    x = convolution.as_given(x)
    g = jnp.asarray(random.integers(-4, 5, convolution.shape(input[0], convolution.out_spatial, weight[0])), x.dtype)
    arrays = {"output": (x, w), "input_gradient": (w, g), "weight_gradient": (x, g)}
    for part in PARTS:
        engine, own = choice.chosen(convolution, part, weight, x)
        function = with_channels_first(getattr(engine, part), part)
        result = jax.jit(partial(function, replace(own, tile=tile)))(*arrays[part])
        np.testing.assert_array_equal(result, getattr(materialise, part)(convolution, *arrays[part]), part)


@pytest.mark.parametrize(
    ("input", "weight", "stride", "moved"),
    [
        ((8, 64, 28, 28), (64, 1, 3, 3), 1, PARTS),
        ((8, 64, 28), (64, 1, 3), 1, ()),
        ((8, 64, 28, 28), (128, 1, 3, 3), 1, ()),
        ((8, 64, 28, 28), (64, 4, 3, 3), 2, ()),
        ((8, 64, 28, 28), (64, 64, 3, 3), 1, ()),
        ((8, 64, 28, 28), (64, 64, 3, 3), (1, 2), ("weight_gradient",)),
        ((8, 3, 28, 28), (64, 3, 3, 3), (1, 2), PARTS),
        ((8, 64, 28), (64, 64, 3), 2, PARTS),
        ((8, 64, 28, 28), (64, 64, 1, 1), 2, ()),
    ],
)
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_channels_that_are_last_are_moved_in_memory(input, weight, stride, moved, last):
    """Behind a barrier, of one axis, as a transposition alone is another order for XLA to loop over."""
    convolution = layer(input, weight, stride, 1, last, "float32")
    x = convolution.shape(input[0], input[2:], input[1])
    g = convolution.shape(input[0], convolution.out_spatial, weight[0])
    sizes = {"x": x, "g": g, "w": weight}
    shapes: Any = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in sizes.items()}
    for part, names in (("output", "xw"), ("input_gradient", "wg"), ("weight_gradient", "xg")):
        engine, own = choice.chosen(convolution, part, weight, shapes["x"])
        assert own.channels_moved == (part in moved and last)
        function = with_channels_first(getattr(engine, part), part)
        made = equations(jax.make_jaxpr(partial(function, own))(*(shapes[name] for name in names)).jaxpr)
        barriers = [one.invars[0].aval for one in made if one.primitive.name == "optimization_barrier"]
        flat = [one.size for one in barriers if one.ndim == 1]
        # What is given and, of an image, what is made.
        for name in "xg" if own.channels_moved else ():
            assert shapes[name].size in flat, (part, name)


@pytest.mark.parametrize(("platform", "moved"), [("cuda", 2), ("cpu", 0)])
def test_channels_are_moved_for_an_accelerator_alone(platform, moved):
    """The input, and the output of as many entries."""
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2, 12, 12, 16), (16, 1, 3, 3))]
    layer = jax.jit(partial(jaxconv.conv2d, padding=1, groups=16, data_format="channels_last"))
    text = export.export(layer, platforms=[platform])(*shapes).mlir_module()
    flat = [line for line in text.splitlines() if "optimization_barrier" in line and "tensor<4608xf32>" in line]
    assert len(flat) == moved


SHARDED = """
from jaxconv import evaluation  # its functions as they are lowered for an accelerator
from jaxconv.convolution import Convolution
from jaxconv.primitive import ACCELERATOR
from jaxconv.window import make_window
for w, stride, groups in (((32, 1, 3, 3), 1, 32), ((64, 32, 3, 3), 2, 1)):
    window = make_window((3, 3), stride, 1, 1, 2)
    c = Convolution(window, (16, 16), groups, None, jnp.float32, jnp.float32, True, platform=ACCELERATOR)
    x, g = c.shape(16, (16, 16), 32), c.shape(16, c.out_spatial, w[0])
    print(kinds(lambda x, w: evaluation._output(c, x, w, None), (x, w), (split, whole), split),
        kinds(partial(evaluation._input_gradient, c), (w, g), (whole, split), split),
        kinds(partial(evaluation._weight_gradient, c), (x, g), (split, split), whole))
"""


def test_channels_of_a_sharded_batch_are_moved_on_every_device():
    assert on_eight(SHARDED) == ["[] [] ['all-reduce']"] * 2


def test_gradients_for_every_sample_are_one_product():
    """On a CPU they are made in parts, which fit into its cache."""

    def each(x, w):
        return jax.vmap(jax.grad(lambda w, x: (jaxconv.conv(x, w, padding=1) ** 2).sum()), (None, 0))(w, x)

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((64, 32, 28, 28), (32, 32, 3, 3))]
    loops = {
        platform: export.export(jax.jit(each), platforms=[platform])(*shapes).mlir_module().count("stablehlo.while")
        for platform in ("cpu", "cuda")
    }
    assert loops["cpu"] > loops["cuda"] == 0
