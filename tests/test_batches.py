"""A batch in parts: the sums of the whole, of whichever samples a part has, and never fewer than the devices that share it."""

import importlib
import math
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from choices import PARTS, chosen
from hypothesis import given
from hypothesis import strategies as st
from jax import export, lax
from layers import layer

import jaxconv
from jaxconv import choice
from jaxconv.batches import image_by_parts, number_of_parts, sum_by_parts
from jaxconv.budget import parts_and_tile
from jaxconv.convolution import Convolution
from jaxconv.engines import NAMES
from jaxconv.window import make_window


@pytest.mark.parametrize("last", [False, True], ids=["channels_first", "channels_last"])
@pytest.mark.parametrize("engine", NAMES)
def test_parts_are_summed_as_the_whole(engine, last):
    """To the bit, on integers: every sample at its place, and none left out or counted twice."""
    module = importlib.import_module(f"jaxconv.engines.{engine}")
    single = jnp.dtype("float32")
    window = make_window((3, 2), (2, 1), 1, 1, 2)
    whole = Convolution(window, (7, 6), 2, None, single, single, last, tile=300)
    parts = Convolution(window, (7, 6), 2, None, single, single, last, tile=300, parts=3)
    generator = np.random.default_rng(0)
    shapes = (whole.shape(12, (7, 6), 4), (6, 2, 3, 2), (6,), whole.shape(12, whole.out_spatial, 6))
    x, w, b, g = (jnp.asarray(generator.integers(-5, 6, shape), single) for shape in shapes)
    for function, by_parts, arrays in (
        (module.output, image_by_parts(module.output, 0), (x, w, b)),
        (module.input_gradient, image_by_parts(module.input_gradient, 1), (w, g)),
        (module.weight_gradient, sum_by_parts(module.weight_gradient), (x, g)),
    ):
        mine, plain = jax.jit(by_parts, static_argnums=0), jax.jit(function, static_argnums=0)
        np.testing.assert_array_equal(mine(parts, *arrays), plain(whole, *arrays))
        assert "while" in mine.lower(parts, *arrays).as_text()


@given(st.integers(1, 2000), st.integers(1, 64), st.integers(1, 512), st.sampled_from([1, 8]))
def test_the_number_of_parts(batch, least, most, devices):
    """The fewest equal parts of a size between the bounds, each with a sample of every one of so many devices."""
    count = number_of_parts(batch, least, most, devices)
    fitting = [
        parts
        for parts in range(1, batch + 1)
        if batch % parts == 0 and batch // parts % math.gcd(batch, devices) == 0 and least <= batch // parts <= most
    ]
    assert count == min(fitting, default=1)


@pytest.mark.parametrize(("platform", "loops"), [("cpu", 3), ("cuda", 0)])
def test_parts_are_for_a_cpu(platform, loops):
    """Also where one sample after the other would be little enough for one tile: elsewhere all samples are one product."""
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((80, 128, 100), (128, 128, 5), (80, 128, 100))]

    def both(x, w, g):
        output, pull = jax.vjp(lambda x, w: jaxconv.conv(x, w, padding=2), x, w)
        return output, pull(g)

    lowered = export.export(jax.jit(both), platforms=[platform])(*shapes)
    assert lowered.mlir_module().count("stablehlo.while") == loops


@pytest.mark.parametrize(
    ("input", "weight", "stride", "expected"),
    [
        ((854, 1, 640), (32, 1, 80), 4, (14, 14, 14)),
        ((128, 64, 14, 14), (64, 64, 3, 3), 1, (8, 16, 8)),
        # Of large images four have no room in a tile; eight devices have eight samples; and this fits into one tile.
        ((128, 64, 56, 56), (64, 64, 3, 3), 1, (1, 1, 1)),
        ((8, 64, 14, 14), (64, 64, 3, 3), 1, (1, 1, 1)),
        ((24, 16, 8, 8), (16, 16, 3, 3), 1, (1, 1, 1)),
        # Signals, and images at a stride, of more than 16 MB are taken whole: some of 6 MB, or one of 15 MB, with what is cut out
        # of the batch, and less than two ninths of U.
        ((32, 32, 40, 40), (32, 32, 7, 7), 2, (16, 16, 16)),
        ((8, 32, 112, 112), (32, 32, 5, 5), 2, (8, 8, 8)),
        ((16, 64, 4096), (64, 64, 5), 1, (16, 16, 16)),
        ((8, 3, 224, 224), (64, 3, 7, 7), 2, (8, 8, 1)),
        ((8, 3, 224, 224), (128, 3, 7, 7), 2, (1, 1, 1)),
        ((8, 32, 56, 56), (256, 32, 3, 3), 2, (1, 1, 1)),
        ((8, 64, 96, 96), (64, 64, 5, 5), 2, (1, 1, 1)),
        ((2, 64, 32000), (64, 64, 5), 1, (1, 1, 1)),
        # A small U is whole.
        ((128, 16, 200), (128, 16, 3), 1, (1, 1, 1)),
        # Windows of a signal: some samples that, with what their products are, have less than a quarter of U; or all, in tiles.
        ((16, 64, 1280), (64, 64, 16), 1, (4, 4, 4)),
        ((64, 64, 200), (192, 64, 31), 1, (4, 8, 4)),
        ((4, 64, 20000), (64, 64, 46), 1, (1, 1, 1)),
        # Other images in single samples, or some of 6 MB: where no axis is unfolded, in `stream`, and where a tile would
        # have fewer than 32 positions of each, or 64 of a volume.
        ((32, 16, 42, 42), (256, 16, 3, 3), 1, (16, 16, 16)),
        ((64, 3, 66, 66), (192, 3, 3, 3), 1, (64, 64, 64)),
        ((8, 128, 64, 64), (32, 128, 3, 3), 1, (1, 1, 8)),
        ((64, 32, 24, 24), (192, 32, 3, 3), 1, (16, 16, 16)),
        ((40, 32, 24, 24), (192, 32, 3, 3), 1, (1, 10, 1)),
        ((128, 4, 12, 12, 12), (96, 4, 3, 3, 3), 1, (16, 32, 16)),
        # What has no tiles has no parts.
        ((512, 96, 14, 14), (96, 1, 3, 3), 1, (1, 1, 1)),
    ],
)
def test_the_rule_takes_many_small_samples_in_parts(input, weight, stride, expected):
    convolution = layer(input, weight, 0, input[1] // weight[1], stride)
    assert tuple(own.parts for _, own in chosen(convolution, weight, input[0])) == expected


@pytest.mark.parametrize(
    ("input", "weight", "stride", "expected"),
    [
        # Blocks of a signal: whole, of 6 MB or a single one of 20 MB, less than a quarter of U with copies of the weight.
        ((16, 64, 1280), (64, 64, 16), 1, (8, 16, 16)),
        ((4, 128, 4097), (128, 128, 11), 1, (4, 4, 1)),
        ((4, 128, 4098), (128, 128, 11), 1, (4, 1, 1)),
        ((4, 128, 4561), (128, 128, 11), 1, (1, 1, 1)),
        # A longer one in tiles of all, or of one where more than a twelfth would be beyond the end.
        ((4, 64, 20000), (64, 64, 45), 1, (1, 1, 1)),
        ((4, 64, 20000), (64, 64, 46), 1, (4, 4, 1)),
    ],
)
def test_the_rule_takes_blocks_of_signals_in_parts(input, weight, stride, expected):
    """As windows are not taken to frequencies where the highest precision is asked for."""
    convolution = replace(layer(input, weight, stride=stride), precision=lax.Precision.HIGHEST)
    assert tuple(own.parts for _, own in chosen(convolution, weight, input[0])) == expected


@pytest.mark.parametrize(
    ("input", "weight", "stride", "parts"),
    [
        # Products of all taps: of a large U in single samples, or some of 6 MB; a small one is whole.
        ((128, 4, 34, 34), (256, 4, 3, 3), 1, 64),
        ((32, 64, 58, 58), (64, 64, 3, 3), 3, 16),
        ((128, 16, 30, 30), (64, 16, 4, 4), 3, 1),
    ],
)
def test_channels_last_products_of_all_taps_are_taken_in_parts(input, weight, stride, parts):
    convolution = layer(input, weight, 0, stride=stride, channels_last=True)
    _, (_, own), _ = chosen(convolution, weight, input[0])
    assert (own.unfolded, own.parts) == (0, parts)


@pytest.mark.parametrize(("spread", "parts"), [(False, 14), (True, 61)])
def test_parts_of_a_batch_on_several_devices_have_some_of_each(spread, parts):
    window = make_window((80,), 4, 0, 1, 1)
    convolution = Convolution(window, (640,), 1, None, jnp.float32, jnp.dtype("float32"), spread=spread)
    image = jax.ShapeDtypeStruct((854, 1, 640), jnp.float32)
    assert choice.chosen(convolution, "output", (32, 1, 80), image)[1].parts == parts  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("input", "weight", "stride", "padding", "part", "megabytes"),
    [
        # Two ninths of U, here 6.25 and 6.57 MB, less one copy of 2.81 MB, and at a stride three of 1.41 MB.
        ((2, 256, 40, 40), (320, 256, 3, 3), 1, 1, "input_gradient", 3.44),
        ((2, 256, 81, 81), (160, 256, 3, 3), 2, 1, "input_gradient", 2.35),
        # Of 17.7 MB of U: an output two ninths less a copy of the weight, of 1.76 MB, and its gradient a fifth less its sum, five
        # eighths of that for a tile and three for what its copies are made of.
        ((4, 96, 64, 64), (192, 96, 5, 5), 3, 2, "output", 2.18),
        ((4, 96, 64, 64), (192, 96, 5, 5), 3, 2, "input_gradient", 0.49),
        ((4, 96, 64, 64), (192, 96, 5, 5), 3, 2, "weight_gradient", 1.12),
        # Blocks of a signal: a fifth of 23.5 MB less the weight's 2 MB, and a seventh where they are added up.
        ((1, 256, 1500), (128, 256, 16), 1, 8, "output", 2.69),
        ((1, 256, 1500), (128, 256, 16), 1, 8, "weight_gradient", 1.35),
    ],
)
def test_a_tile_leaves_room_for_copies_of_the_weight(input, weight, stride, padding, part, megabytes):
    image = jax.ShapeDtypeStruct(input, jnp.float32)
    convolution = layer(input, weight, padding, stride=stride)
    _, own = choice.chosen(convolution, part, weight, image)  # type: ignore[arg-type]
    assert own.tile / 2**20 == pytest.approx(megabytes, rel=0.02)


@pytest.mark.parametrize(
    ("kernel", "last", "dtype", "megabytes"),
    [
        ((3, 3), False, "float32", (math.inf, math.inf, math.inf)),
        ((3, 3), True, "float32", (math.inf, math.inf, math.inf)),
        ((3, 3, 3), False, "float32", (math.inf, math.inf, math.inf)),
        ((3, 3, 3), True, "float32", (16, 16, math.inf)),
        ((3, 3), False, "bfloat16", (8, 8, 8)),
    ],
)
def test_a_small_u_is_one_tile(kernel, last, dtype, megabytes):
    """But for volumes with channels last, and 16-bit numbers."""
    input, weight = (2, 8, *(16,) * len(kernel)), (16, 8, *kernel)
    image = jax.ShapeDtypeStruct(input, dtype)
    convolution = layer(input, weight, channels_last=last)
    tiles = [parts_and_tile(convolution, "fold", part, weight, image)[1] for part in PARTS]  # type: ignore[arg-type]
    assert tiles == [sys.maxsize if size == math.inf else size * 2**20 for size in megabytes]
