"""Every engine, in tiles of a few bytes and in both layouts, against torch."""

import importlib
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometries import GEOMETRIES, Geometry, geometries
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import torch_results

import jaxconv
from jaxconv import depthwise
from jaxconv.convolution import Convolution
from jaxconv.engines import NAMES
from jaxconv.engines import blocks as in_blocks
from jaxconv.window import make_window

BATCHED = [g for g in GEOMETRIES if len(g.input) == g.rank + 2 and 0 not in g.input]


def integers(geometry: Geometry, seed: int = 0) -> tuple:
    """Input, weight, bias and cotangent of small integers, whose sums are exact in any order."""
    generator = np.random.default_rng(seed)
    shapes = (geometry.input, geometry.weight, geometry.weight[:1], geometry.output_shape())
    return tuple(generator.integers(-5, 6, shape).astype(np.float32) for shape in shapes)


def check(engine: str, geometry: Geometry, tile: int, last: bool, unfolded: int = 0, **more: Any) -> None:
    """The engine's three functions agree with torch to the bit."""
    module = importlib.import_module(f"jaxconv.engines.{engine}")
    options = geometry.options
    window = make_window(
        geometry.weight[2:], options.get("stride", 1), geometry.pads(), options.get("dilation", 1), geometry.rank
    )
    spatial, single = geometry.input[2:], jnp.dtype("float32")
    convolution = Convolution(
        window, spatial, geometry.groups, None, single, single, last, "auto", tile, unfolded, **more
    )

    def run(input, weight, bias, cotangent):
        x, g = (convolution.as_given(image) for image in (input, cotangent))
        output = module.output(convolution, x, weight, bias)
        by_input = module.input_gradient(convolution, weight, g)
        shifted = module.input_gradient(convolution, weight, g, jnp.ones(input.shape[1]))
        by_weight = module.weight_gradient(convolution, x, g)
        return *(convolution.channels_second(image) for image in (output, by_input, shifted)), by_weight

    arrays = integers(geometry)
    output, by_input, by_weight, _ = torch_results(geometry, arrays)  # type: ignore[arg-type]
    expected = (output, by_input, by_input + 1, by_weight)
    for mine, theirs in zip(jax.jit(run)(*arrays), expected, strict=True):
        assert mine.dtype == single
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("engine", NAMES)
@pytest.mark.parametrize("index", range(len(BATCHED)), ids=[g.name for g in BATCHED])
def test_engine_in_tiles(engine, index):
    check(engine, BATCHED[index], tile=150, last=index % 2 == 0)


@pytest.mark.parametrize(
    ("geometry", "unfolded"),
    [pytest.param(g, n, id=f"{g.name} {n}") for g in BATCHED for n in range(1, g.rank + 1)],
)
@pytest.mark.parametrize("tile", [150, 2000])
def test_fold_of_the_last_axes_in_tiles(geometry, unfolded, tile):
    """In tiles of a position or two, and of so many that a stride between them is seen."""
    # Both layouts where more than one axis is unfolded, and else in turn.
    for last in (False, True) if unfolded > 1 else (BATCHED.index(geometry) % 2 == 0,):
        check("fold", geometry, tile, last, unfolded)


@pytest.mark.parametrize(("tile", "moved"), [(1, False), (150, True), (600, True)])
@pytest.mark.parametrize("geometry", BATCHED, ids=[g.name for g in BATCHED])
def test_taps_of_a_tile_in_calls(geometry, tile, moved):
    """Of one row, of some, and of all where the image is small; with channels moved and where they are."""
    check("taps", geometry, tile, True, calls=True, channels_moved=moved)


@pytest.mark.parametrize("moved", [None, False, True])
@pytest.mark.parametrize("stride", [1, 2, (2, 1), (1, 2)])
def test_taps_of_a_large_kernel(stride, moved):
    """Taps of the first axis in a loop, those of the second written out."""
    geometry = Geometry("65 taps", (2, 4, 18, 11), (4, 1, 13, 5), {"stride": stride, "padding": (6, 2), "groups": 4})
    check("taps", geometry, 2**23, moved is not None, calls=True, channels_moved=bool(moved))


@pytest.mark.parametrize("tile", [150, 2**23])
@pytest.mark.parametrize("geometry", [g for g in BATCHED if g.weight[1] == 1], ids=lambda geometry: geometry.name)
def test_fold_of_moved_channels(geometry, tile):
    """The weight gradient of images whose channels are moved, whatever is unfolded."""
    for unfolded in range(1 + geometry.rank):
        check("fold", geometry, tile, True, unfolded, channels_moved=True)


@given(geometry=geometries(), engine=st.sampled_from(NAMES), tile=st.sampled_from([1, 300, 2**23]), last=st.booleans())
@settings(max_examples=40)
def test_engine_on_drawn_geometries(geometry, engine, tile, last):
    if len(geometry.input) == geometry.rank + 2 and 0 not in geometry.input:
        check(engine, geometry, tile, last)


ROWS = [
    Geometry("padded", (2, 3, 11, 6), (4, 3, 3, 3), {"padding": 1}),
    Geometry("strided", (1, 2, 17, 5), (3, 2, 3, 2), {"stride": (2, 1), "padding": (2, 1)}),
    Geometry("dilated", (1, 4, 13, 5), (2, 2, 3, 3), {"dilation": 2, "padding": (3, 2), "groups": 2}),
    Geometry("overhanging", (1, 1, 9, 3), (2, 1, 5, 3), {"padding": (4, 2)}),
    Geometry("signal", (2, 3, 29), (4, 3, 5), {"padding": 2}),
]


@pytest.mark.parametrize(("rows", "last"), [(1, True), (3, False)])
@pytest.mark.parametrize("geometry", ROWS, ids=[g.name for g in ROWS])
def test_tiles_of_a_few_rows(geometry, rows, last):
    """Where one axis alone is cut, its first and last tile are apart from the loop."""
    unfolded = geometry.rank - 1
    batch, (out_channels, in_channels, *kernel) = geometry.input[0], geometry.weight
    # By the engine's own account of a position, times a row.
    copies = in_channels * geometry.groups * int(np.prod(kernel[:unfolded]))
    position = 4 * batch * (copies + out_channels * int(np.prod(kernel[unfolded:])))
    tile = rows * position * int(np.prod(geometry.output_shape()[3:]))
    check("fold", geometry, tile, last, unfolded)


DEPTHWISE = [
    Geometry("depthwise", (2, 3, 18, 42), (3, 1, 3, 2), {"padding": ((1, 0), (1, 1)), "groups": 3}),
    Geometry("strided", (1, 2, 34, 81), (2, 1, 3, 3), {"stride": 2, "padding": 1, "dilation": (2, 1), "groups": 2}),
    Geometry("rows past the end", (1, 2, 8, 43), (2, 1, 2, 4), {"stride": (3, 1), "groups": 2}),
    Geometry("volume", (2, 2, 3, 4, 41), (2, 1, 2, 1, 2), {"padding": (1, 0, 0), "groups": 2}),
    Geometry("short rows", (1, 2, 5, 6), (2, 1, 3, 3), {"padding": 2, "groups": 2}),
    Geometry(
        "short rows of some samples", (3, 5, 15, 9), (5, 1, 2, 3), {"stride": (2, 1), "padding": (0, 1), "groups": 5}
    ),
    Geometry("short rows, many taps", (2, 3, 9, 10), (3, 1, 4, 4), {"padding": 3, "dilation": (1, 2), "groups": 3}),
    Geometry("signal", (2, 128, 9), (128, 1, 3), {"padding": 2, "groups": 128}),
    Geometry("many channels", (4, 160, 7, 9), (160, 1, 3, 3), {"padding": (1, 0), "groups": 160}),
]


@pytest.mark.parametrize("tile", [1, 2**12, 2**23], ids=["a row", "some rows", "all rows"])
@pytest.mark.parametrize("last", [False, True], ids=["channels_first", "channels_last"])
@pytest.mark.parametrize("geometry", DEPTHWISE, ids=[g.name for g in DEPTHWISE])
def test_depthwise_weight_gradient_by_rows(geometry, last, tile):
    """Long rows of all samples, and short ones sample by sample: some channels at a time, or many of them with channels last."""
    check("taps", geometry, tile, last)


@pytest.mark.parametrize(
    ("spatial", "static", "expected"),
    [
        ((7, 40), {}, True),
        ((6, 40), {}, False),  # The sums of a row are a sixth of U,
        ((6, 40), {"tile": 2**30}, True),  # which is little enough of a tile,
        ((6, 39), {"tile": 3 * 3 * 39 * 64 * 4}, True),  # and, of short rows, are those of one sample,
        ((6, 40), {"tile": 3 * 3 * 40 * 64 * 4}, False),
        ((6, 39), {"tile": 3 * 3 * 39 * 64 * 4, "channels_last": True}, True),
        ((6, 15), {"tile": 3 * 3 * 15 * 64 * 4, "channels_last": True}, False),  # where a row has 1024 of them.
        ((7, 39), {}, True),
        ((7, 39), {"spread": True}, False),  # Samples must stay where they are,
        ((7, 40), {"spread": True}, True),  # and do.
        ((7, 39), {"channels_last": True, "spread": True}, True),
        ((7, 39), {"mapped": 4}, False),  # Nine taps of a gradient for every sample are summed at once.
        ((7, 40), {"mapped": 4}, True),
        ((7, 40), {"half": True}, False),  # Sums are twice as large as numbers of 16 bits.
        ((14, 40), {"half": True}, True),
        ((7, 40), {"groups": 32}, False),
        ((7, 8, 9), {}, False),
        ((7, 8, 40), {}, True),
        ((40,), {}, False),
        ((40,), {"channels_last": True}, True),
        ((40,), {"channels_last": True, "groups": 16}, False),
    ],
)
def test_which_depthwise_weight_gradients_go_row_by_row(spatial, static, expected):
    given = {"tile": 1, "groups": 64, "half": False, "spread": False, "channels_last": False, "mapped": 1} | static
    window = make_window((3,) * len(spatial), 1, 1, 1, len(spatial))
    options = {key: given[key] for key in ("channels_last", "tile", "spread", "mapped")}
    convolution = Convolution(window, spatial, given["groups"], None, jnp.float32, jnp.float32, **options)
    channels = 64 if len(spatial) > 1 else given["groups"]
    dtype = jnp.bfloat16 if given["half"] else jnp.float32
    image: Any = jax.ShapeDtypeStruct(convolution.shape(4, spatial, channels), dtype)
    assert depthwise.is_by_rows(convolution, image, image) == expected


@pytest.mark.parametrize(
    ("batch", "height", "most", "expected"),
    [
        (8, 28, 100, (1, 28, 7)),
        (8, 28, 20, (1, 14, 7)),  # As many rows as there is room for.
        (8, 7, 100, (2, 7, 7)),  # Two turns at least,
        (9, 7, 100, (3, 7, 7)),
        (8, 7, 13, (1, 7, 1)),  # if not of two samples, for which there is no room,
        (1, 6, 100, (1, 6, 3)),  # or of which there is one, then of fewer rows.
        (8, 28, 7, (1, 7, 1)),
        (8, 13, 100, (1, 13, 1)),
        (8, 9, 0, (1, 1, 1)),
    ],
)
def test_how_many_samples_and_rows_are_copied(batch, height, most, expected):
    assert depthwise._parts(batch, height, most) == expected


SIGNALS = [
    Geometry("equal blocks", (2, 3, 29), (4, 3, 6), {"padding": 2}),
    Geometry("shared taps", (1, 4, 23), (6, 2, 7), {"padding": ((4, 1),), "groups": 2}),
    Geometry("dilated", (3, 2, 40), (2, 2, 7), {"dilation": 3, "padding": 5}),
    Geometry("longer than the signal", (2, 1, 4), (3, 1, 13), {"padding": 9}),
    Geometry("at a stride", (2, 2, 41), (3, 2, 12), {"stride": 2, "padding": 1}),
]


@pytest.mark.parametrize("tile", [1, 600, 2**23], ids=["a position", "some", "all"])
@pytest.mark.parametrize("last", [False, True], ids=["channels_first", "channels_last"])
@pytest.mark.parametrize("blocks", [2, 3])
@pytest.mark.parametrize("geometry", SIGNALS, ids=[g.name for g in SIGNALS])
def test_blocks_of_a_signal(geometry, blocks, last, tile):
    """Of a signal at a stride, with channels first, those of its phases."""
    stride = geometry.options.get("stride", 1)
    check("blocks" if stride == 1 else "phases", geometry, tile, last and stride == 1, blocks)


@pytest.mark.parametrize("taps", range(1, 40))
def test_every_tap_is_in_one_block_or_in_two(taps):
    window = make_window((taps,), 1, 0, 1, 1)
    for count in filter(window.has_blocks, range(1, taps + 1)):
        length, step = window.block(count)
        held = Counter(start * step + tap for start in range(count) for tap in range(length))
        assert held.keys() == set(range(taps))
        assert set(held.values()) <= {1, 2}
        assert length == step or taps % count


@pytest.mark.parametrize("last", [False, True], ids=["channels_first", "channels_last"])
@pytest.mark.parametrize("blocks", [2, 3, 4])
def test_an_infinity_is_not_multiplied_by_a_tap_that_is_none(blocks, last):
    """Of 13 taps in blocks no position sees another cell than its window does."""
    window, single = make_window((13,), 1, 0, 1, 1), jnp.dtype("float32")
    assert window.has_blocks(blocks)
    convolution = Convolution(window, (40,), 1, None, single, single, last, unfolded=blocks)
    generator = np.random.default_rng(0)
    input, weight = generator.normal(size=(1, 2, 40)).astype(single), generator.normal(size=(3, 2, 13)).astype(single)
    input[0, 1, 20] = np.inf
    output = convolution.channels_second(
        in_blocks.output(convolution, convolution.as_given(jnp.asarray(input)), weight)
    )
    seen = np.arange(28)
    np.testing.assert_array_equal(np.isfinite(output).all((0, 1)), (seen + 12 < 20) | (seen > 20))
    assert not np.isnan(output).any()


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("place", [0, 3], ids=["input", "cotangent"])
@pytest.mark.parametrize(("engine", "tile"), [("stream", 2 * 4 * 2 * 4), ("fold", 2 * 4 * 5 * 4)])
@pytest.mark.parametrize("rows", [5, 11], ids=["few tiles", "many"])
def test_an_infinity_in_two_tiles_is_summed_once(engine, tile, last, place, rows):
    """The last tile of an odd number of rows in pairs starts one row back: what it has a second time must not count, not even as
    NaN."""
    geometry = Geometry("infinity", (1, 2, rows, 4), (3, 2, 1, 1))
    module = importlib.import_module(f"jaxconv.engines.{engine}")
    single = jnp.dtype("float32")
    window = make_window((1, 1), 1, 0, 1, 2)
    convolution = Convolution(window, (rows, 4), 1, None, single, single, last, tile=tile)
    arrays = tuple(np.abs(array) + 1 for array in integers(geometry))
    arrays[place][0, 0, rows - 2, 1] = np.inf
    expected = torch_results(geometry, arrays)[2]  # type: ignore[arg-type]
    assert np.isinf(expected).any()
    assert not np.isnan(expected).any()
    images = (convolution.as_given(jnp.asarray(image)) for image in (arrays[0], arrays[3]))
    np.testing.assert_array_equal(module.weight_gradient(convolution, *images), expected)


@pytest.mark.parametrize("groups", [1, 2])
def test_channels_last_is_a_transpose_of_channels_first(groups):
    geometry = Geometry("layout", (2, 4, 6, 5), (6, 4 // groups, 3, 2), {"stride": (2, 1), "groups": groups})
    input, weight, bias, cotangent = map(jnp.asarray, integers(geometry))
    local = jnp.asarray(np.random.default_rng(1).integers(-5, 6, (*weight.shape, *cotangent.shape[2:])), jnp.float32)
    options = {"stride": (2, 1), "groups": groups}
    u = jaxconv.unfold(input, (3, 2), stride=(2, 1))
    pairs = (
        (lambda x, **o: jaxconv.conv(x, weight, bias, padding=1, **options, **o), input),
        (lambda x, **o: jaxconv.conv2d(x[0], weight, padding_mode="circular", padding=1, **options, **o), input),
        (lambda x, **o: jaxconv.conv_transpose(x, weight, None, **options, **o), cotangent),
        (lambda x, **o: jaxconv.conv_transpose2d(x[0], weight, None, **options, **o), cotangent),
        (lambda x, **o: jaxconv.conv_local(x, local, bias, **options, **o), input),
    )
    for function, image in pairs:
        first = function(image)
        moved = function(jnp.moveaxis(image, 1, -1), data_format="channels_last")
        np.testing.assert_array_equal(jnp.moveaxis(moved, -1, -3), first)
    unfolded = jaxconv.unfold(jnp.moveaxis(input, 1, -1), (3, 2), stride=(2, 1), data_format="channels_last")
    np.testing.assert_array_equal(unfolded, u)
    folded = jaxconv.fold(u, (6, 5), (3, 2), stride=(2, 1), data_format="channels_last")
    np.testing.assert_array_equal(jnp.moveaxis(folded, -1, 1), jaxconv.fold(u, (6, 5), (3, 2), stride=(2, 1)))


def test_gradients_with_channels_last():
    geometry = Geometry("layout", (2, 12, 6, 5), (10, 12, 3, 2), {"padding": 1})
    arrays = integers(geometry)
    output, by_input, by_weight, by_bias = torch_results(geometry, arrays)  # type: ignore[arg-type]
    input, weight, bias, cotangent = map(jnp.asarray, arrays)
    ours, pull = jax.vjp(
        lambda *a: jaxconv.conv(*a, padding=1, data_format="channels_last"), jnp.moveaxis(input, 1, -1), weight, bias
    )
    gradients = pull(jnp.moveaxis(cotangent, 1, -1))
    np.testing.assert_array_equal(jnp.moveaxis(ours, -1, 1), output)
    np.testing.assert_array_equal(jnp.moveaxis(gradients[0], -1, 1), by_input)
    np.testing.assert_array_equal(gradients[1], by_weight)
    np.testing.assert_array_equal(gradients[2], by_bias)


@pytest.mark.parametrize(
    ("weight", "options"),
    [
        ((6, 3, 7, 7), {"padding": 3}),
        ((6, 2, 9, 5), {"stride": 2, "groups": 2}),
        ((4, 2, 2, 5, 4), {"padding": 1, "dilation": 2, "groups": 2}),
        ((3, 4, 10, 10), {}),
        ((3, 4, 11, 10), {}),
        ((3, 4, 17, 16), {}),
    ],
)
def test_many_taps_in_a_product_a_sample(weight, options):
    """Copied axis after axis, up to 100 taps and 32 copies."""
    groups = options.get("groups", 1)
    input = (2, weight[1] * groups, *(size + 9 for size in weight[2:]))
    check("batched", Geometry("many taps", input, weight, options), tile=150, last=False)
