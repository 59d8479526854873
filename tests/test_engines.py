"""Every engine, in tiles of a few bytes and in both layouts, against torch; and the rule that chooses between them."""

import importlib
import re
from functools import partial

import jax
import jax.numpy as jnp
import memory
import numpy as np
import pytest
from devices import on_eight
from geometries import GEOMETRIES, Geometry, geometries
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import export
from oracle import torch_results

import jaxconv
from jaxconv import choice
from jaxconv.convolution import Convolution
from jaxconv.engines import NAMES
from jaxconv.window import make_window

BATCHED = [g for g in GEOMETRIES if len(g.input) == g.rank + 2 and 0 not in g.input]


def integers(geometry: Geometry, seed: int = 0) -> tuple:
    """Input, weight, bias and cotangent of small integers, whose sums are exact in any order."""
    generator = np.random.default_rng(seed)
    shapes = (geometry.input, geometry.weight, geometry.weight[:1], geometry.output_shape())
    return tuple(generator.integers(-5, 6, shape).astype(np.float32) for shape in shapes)


def check(engine: str, geometry: Geometry, tile: int, last: bool, unfolded: int = 0, **more: bool) -> None:
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
    Geometry("signal", (2, 128, 9), (128, 1, 3), {"padding": 2, "groups": 128}),
]


@pytest.mark.parametrize("tile", [1, 2**12, 2**23], ids=["a row", "some rows", "all rows"])
@pytest.mark.parametrize("last", [False, True], ids=["channels_first", "channels_last"])
@pytest.mark.parametrize("geometry", DEPTHWISE, ids=[g.name for g in DEPTHWISE])
def test_depthwise_weight_gradient_by_rows(geometry, last, tile):
    """Long rows with channels first, and any with channels last."""
    check("taps", geometry, tile, last)


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


RULE = [
    # weight, stride, groups: output, input gradient, weight gradient of 1024 samples
    ((64, 64, 3, 3), 1, 1, ("fold 1", "fold 1", "fold 1")),
    ((256, 64, 3, 3), 1, 1, ("stream", "fold 0", "stream")),
    ((64, 3, 7, 7), 2, 1, ("stream", "fold 0", "stream")),
    ((256, 128, 3, 3), 2, 1, ("stream", "fold 0", "stream")),
    ((256, 128, 3, 3), (2, 1), 1, ("fold 1", "fold 0", "fold 1")),
    ((256, 128, 3, 3), (1, 2), 1, ("stream", "fold 0", "stream")),
    ((16, 256, 3, 3), 1, 1, ("fold 0", "stream", "fold 0")),
    ((48, 3, 3, 3), 1, 1, ("stream", "fold 0", "stream")),
    ((32, 16, 3, 3, 3), 1, 1, ("fold 2", "fold 1", "fold 2")),
    ((144, 64, 1, 3, 3), 1, 1, ("fold 2", "fold 2", "stream")),
    ((64, 64, 5), 1, 1, ("fold 0", "fold 0", "fold 0")),
    ((24, 1, 25), 1, 1, ("fold 1", "fold 0", "fold 1")),
    ((30, 2, 16), 1, 1, ("fold 1", "fold 0", "fold 1")),
    ((30, 4, 9), 1, 1, ("stream", "fold 0", "stream")),
    ((64, 4, 5), 1, 1, ("batched", "batched", "batched")),
    ((64, 1, 5, 5), (2, 1), 1, ("fold 2", "fold 0", "stream")),
    ((64, 3, 5, 5), (2, 1), 1, ("fold 2", "fold 0", "fold 2")),
    ((64, 3, 5, 5), (2, 2), 1, ("stream", "fold 0", "stream")),
    ((144, 1, 3, 3), 1, 144, ("taps", "taps", "taps")),
    ((144, 1, 8, 8), 1, 144, ("taps", "taps", "taps")),
    ((144, 1, 9, 9), 1, 144, ("taps", "taps", "fold 1")),
    ((144, 1, 9, 9), (1, 2), 144, ("taps", "taps", "taps")),
    ((144, 1, 5, 17), 1, 144, ("taps", "taps", "taps")),
    ((144, 1, 5, 5, 5), 1, 144, ("taps", "taps", "fold 1")),
    ((128, 4, 3, 3), 2, 32, ("taps", "taps", "stream")),
    ((128, 4, 9), 1, 32, ("taps", "taps", "taps")),
    ((256, 8, 3, 3), 1, 32, ("fold 1", "fold 1", "fold 1")),
    ((64, 256, 1, 1), 1, 1, ("batched", "batched", "batched")),
    ((512, 256, 1, 1), 1, 1, ("fold 0", "fold 0", "stream")),
    ((64, 256, 1, 1), 2, 1, ("stream", "fold 0", "stream")),
    ((16, 8, 4, 4, 4), 2, 1, ("phases 0", "phases 2", "phases 0")),
    ((16, 16, 8, 8), 2, 1, ("phases 0", "phases 1", "phases 0")),
    ((64, 3, 8, 8), 2, 1, ("stream", "fold 0", "stream")),
    ((64, 64, 16), 4, 1, ("stream", "fold 0", "stream")),
    ((64, 32, 2, 2), 2, 1, ("stream", "fold 0", "stream")),
]


SMALL = [
    # The same of one sample, whose U is small.
    ((64, 64, 3, 3), 1, 1, ("fold 1", "fold 1", "fold 1")),
    ((256, 128, 3, 3), 2, 1, ("materialise", "fold 0", "materialise")),
    ((256, 128, 3, 3), (2, 1), 1, ("materialise", "fold 0", "materialise")),
    ((512, 256, 1, 1), 2, 1, ("stream", "fold 0", "stream")),
    ((64, 64, 5), 3, 1, ("materialise", "fold 0", "materialise")),
    ((6, 1, 5, 5), 1, 1, ("taps", "fold 0", "materialise")),
    ((4, 4, 3, 3), 1, 1, ("taps", "taps", "fold 1")),
    ((8, 2, 3, 3), 1, 1, ("taps", "fold 0", "materialise")),
    ((1, 16, 3, 3), 1, 1, ("fold 0", "taps", "fold 0")),
    ((4, 4, 3, 3), 2, 1, ("materialise", "fold 0", "materialise")),
    ((16, 1, 4, 4), 2, 1, ("taps", "fold 0", "materialise")),
    ((4, 4, 5), 2, 1, ("taps", "taps", "materialise")),
    ((6, 1, 5), 1, 1, ("taps", "batched", "batched")),
    ((192, 3, 16, 16), 16, 1, ("materialise", "materialise", "materialise")),
    ((64, 32, 2, 2), 2, 1, ("materialise", "materialise", "materialise")),
    ((32, 8, 16), 4, 1, ("materialise", "fold 0", "materialise")),
    ((16, 64, 16), 4, 1, ("phases 0", "phases 1", "phases 0")),
    ((16, 16, 6, 6), 2, 1, ("phases 0", "phases 2", "phases 0")),
    ((16, 16, 6, 6), 3, 1, ("materialise", "fold 0", "materialise")),
    ((8, 4, 3, 3), 1, 4, ("taps", "taps", "fold 1")),
    ((48, 3, 3, 3), 1, 1, ("batched", "batched", "batched")),
    ((26, 3, 3, 3), 1, 1, ("stream", "fold 0", "stream")),
    ((48, 3, 3, 3), 1, 2, ("stream", "fold 0", "stream")),
    ((48, 3, 3, 3), (2, 1), 1, ("materialise", "fold 0", "materialise")),
    ((64, 1, 4, 8), 1, 1, ("batched", "batched", "batched")),
    ((64, 1, 3, 11), 1, 1, ("stream", "fold 0", "stream")),
]


LAST = [
    # Channels last, of 1024 samples and of one.
    (1024, (64, 64, 3, 3), 1, 1, ("fold 1", "fold 1", "fold 1")),
    (1024, (512, 256, 1, 1), 1, 1, ("batched", "batched", "stream")),
    (1, (512, 256, 1, 1), 1, 1, ("batched", "batched", "batched")),
    (1, (64, 16, 1, 1), 1, 4, ("fold 0", "fold 0", "stream")),
    (1, (256, 128, 3, 3), 2, 1, ("stream", "fold 0", "stream")),
    (1, (32, 1, 10), 1, 1, ("stream", "fold 0", "stream")),
    (1, (48, 3, 3, 3), 1, 1, ("stream", "fold 0", "stream")),
    (1, (144, 1, 4, 4), 1, 144, ("taps", "taps", "taps")),
    (1, (144, 1, 17), 1, 144, ("taps moved", "taps moved", "taps moved")),
    (1, (128, 2, 3, 3), 1, 64, ("taps moved", "taps moved", "fold 1")),
    (1, (144, 1, 15, 15), 1, 144, ("taps moved", "taps moved", "taps moved")),
    (1, (144, 1, 16, 16), 1, 144, ("taps moved", "taps moved", "fold 1")),
    (1, (128, 2, 3, 3), 2, 64, ("taps moved", "taps", "stream")),
    (1, (16, 16, 6, 6), 2, 1, ("stream", "fold 0", "stream")),
    (1, (16, 1, 9), 1, 1, ("taps", "fold 0", "taps")),
]


@pytest.mark.parametrize(
    ("batch", "weight", "stride", "groups", "expected", "last"),
    [(1024, *row, False) for row in RULE] + [(1, *row, False) for row in SMALL] + [(*row, True) for row in LAST],
)
def test_the_rule(batch, weight, stride, groups, expected, last):
    window = make_window(weight[2:], stride, 0, 1, len(weight) - 2)
    convolution = Convolution(window, (32,) * window.rank, groups, None, jnp.float32, jnp.float32, last)
    image = jnp.zeros((batch, 1))  # of which its batch alone is looked at
    told = []
    for part in ("output", "input_gradient", "weight_gradient"):
        module, chosen = choice.chosen(convolution, part, weight, image)
        name = module.__name__.rpartition(".")[2]
        name += f" {chosen.unfolded}" if name in ("fold", "phases") else ""
        told.append(f"{name} moved" if chosen.channels_moved else name)
    assert tuple(told) == expected


@pytest.mark.parametrize(("dtype", "expected"), [("bfloat16", "taps"), ("float32", "fold"), ("float64", "fold")])
def test_a_wide_kernel_is_multiplied_in_other_than_16_bits(dtype, expected):
    window = make_window((9, 9), 1, 4, 1, 2)
    convolution = Convolution(window, (32, 32), 8, None, jnp.dtype(dtype), jnp.promote_types(dtype, "float32"))
    assert choice.rule(convolution, "weight_gradient", (8, 1, 9, 9), 4)[0] == expected


@pytest.mark.parametrize(("dtype", "batch", "expected"), [("float32", 128, "batched"), ("bfloat16", 128, "stream")])
def test_products_of_16_bit_numbers_are_in_one_piece_only_where_they_are_small(dtype, batch, expected):
    """They are in float32 before they are rounded: here 32 MB, of a U of 14 MB in float32."""
    window = make_window((3, 3), 1, 1, 1, 2)
    convolution = Convolution(window, (32, 32), 1, None, jnp.dtype(dtype), jnp.float32)
    assert choice.rule(convolution, "output", (64, 3, 3, 3), batch)[0] == expected
    assert choice.rule(convolution, "output", (64, 3, 3, 3), batch // 2)[0] == "batched"


@pytest.mark.parametrize("engine", NAMES)
def test_a_named_engine_is_the_one_that_runs(engine, monkeypatch):
    called = []
    module = importlib.import_module(f"jaxconv.engines.{engine}")
    for part in ("output", "input_gradient", "weight_gradient"):
        plain = getattr(module, part)
        monkeypatch.setattr(module, part, lambda *a, plain=plain, part=part: (called.append(part), plain(*a))[1])
    jax.clear_caches()
    input, weight = jnp.ones((1, 3, 7)), jnp.ones((2, 3, 3))
    jax.vjp(lambda x, w: jaxconv.conv(x, w, engine=engine), input, weight)[1](jnp.ones((1, 2, 5)))
    assert {"output", "input_gradient", "weight_gradient"} <= set(called)
    called.clear()
    jax.vjp(lambda x, w: jaxconv.conv_transpose(x, w, engine=engine), input[:, :2], weight)[1](jnp.ones((1, 3, 9)))
    assert {"output", "input_gradient", "weight_gradient"} <= set(called)
    jax.clear_caches()


def test_arguments_that_name_a_choice_are_checked():
    input, weight = jnp.ones((1, 3, 7)), jnp.ones((2, 3, 3))
    for function in (jaxconv.conv, jaxconv.conv1d):
        with pytest.raises(ValueError, match=r"`engine` must be one of 'auto', .*, got 'fast'"):
            function(input, weight, engine="fast")
    with pytest.raises(ValueError, match=r'`data_format` must be "channels_first" or "channels_last", got \'NHWC\''):
        jaxconv.conv(input, weight, data_format="NHWC")
    with pytest.raises(ValueError, match=r"`input` must have 3 channels .*, got 7"):
        jaxconv.conv(input, weight, data_format="channels_last")


@pytest.mark.parametrize(("platform", "loops"), [("cpu", True), ("cuda", False), ("tpu", False)])
def test_tiles_are_those_of_the_platform_that_is_compiled_for(platform, loops):
    """Not those of the process, which runs on a CPU: there U is cut into tiles, elsewhere this one is in one piece."""
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((8, 64, 56, 56), (64, 64, 3, 3))]
    lowered = export.export(jax.jit(lambda x, w: jaxconv.conv(x, w, padding=1)), platforms=[platform])(*shapes)
    assert ("stablehlo.while" in lowered.mlir_module()) == loops


@pytest.mark.parametrize(("platform", "calls"), [("cpu", True), ("cuda", False)])
@pytest.mark.parametrize("weight", [(8, 1, 2, 2), (8, 1, 5, 5)], ids=["few terms", "channels moved"])
def test_calls_are_for_a_cpu(platform, calls, weight):
    """With channels last. On an accelerator nothing is to be gained, and a call that must not be inlined is a risk."""
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((16, 128, 128, 8), weight)]
    function = jax.jit(partial(jaxconv.conv2d, padding=1, groups=8, data_format="channels_last"))
    assert ('inlineable = "false"' in export.export(function, platforms=[platform])(*shapes).mlir_module()) == calls
    if calls:
        assert re.search(r"call\(.*inlineable", str(function.lower(*shapes).compile().as_text()))


LARGE = [
    ("r64", (8, 64, 56, 56), (64, 64, 3, 3), {"padding": 1}),
    ("first layer", (8, 3, 160, 160), (64, 3, 7, 7), {"stride": 2, "padding": 3}),
    ("signal", (4, 64, 4096), (64, 64, 5), {"padding": 2}),
    ("depthwise", (4, 96, 56, 56), (96, 1, 3, 3), {"padding": 1, "groups": 96}),
    ("grouped", (8, 128, 56, 56), (128, 4, 3, 3), {"padding": 1, "groups": 32}),
    ("four groups", (4, 96, 27, 27), (256, 24, 5, 5), {"padding": 2, "groups": 4}),
    ("pointwise", (8, 256, 56, 56), (64, 256, 1, 1), {}),
    ("phases", (1, 8, 64, 64, 64), (16, 8, 4, 4, 4), {"stride": 2, "padding": 1}),
    ("phases of a signal", (16, 1, 16000), (64, 1, 80), {"stride": 4}),
    ("image", (1, 16, 4096, 4096), (16, 16, 3, 3), {"padding": 1}),
]


@pytest.mark.parametrize("last", [False, True], ids=["channels_first", "channels_last"])
@pytest.mark.parametrize(("input", "weight", "options"), [case[1:] for case in LARGE], ids=[case[0] for case in LARGE])
def test_temporaries_are_a_quarter_of_u_at_most(input, weight, options, last):
    """Of the compiled VJP; and of a large image less than 1.5 times input and output."""
    temporaries, u, given, result = memory.of_vjp(input, weight, options, last, jnp.float32)
    assert u > 2**24
    assert temporaries <= min(u / 4, 1.5 * (given + result))


@pytest.mark.parametrize("weight", [(64, 1, 5), (64, 64, 5)], ids=["taps", "fold"])
def test_output_and_gradient_of_one_shape_are_not_copied_from_one_array(weight):
    """Which XLA would do if both were filled with the same before their first tile."""
    options = {"padding": 2, "groups": 64 // weight[1]}
    temporaries, _, _, result = memory.of_vjp((16, 64, 8192), weight, options, False, jnp.float32)
    assert temporaries < result / 2


def test_output_and_gradients_of_a_small_u_share_their_memory():
    """Each takes U in a tile or two; all at the same time they would have more than 32 MB, which is mapped anew at every call."""
    temporaries, u, _, _ = memory.of_vjp((8, 16, 56, 56), (40, 16, 3, 3), {"padding": 1}, False, jnp.float32)
    assert u < 2**24
    assert temporaries < 2**25


SHARDED = """
import importlib
from jaxconv.batches import image_by_parts, sum_by_parts
from jaxconv.convolution import Convolution
from jaxconv.window import make_window
window = make_window((3, 3), 1, 1, 1, 2)
for told in sys.argv[1:]:
    name, *ways = told.split(", ")
    name, _, groups = name.partition(" by ")
    groups, last = int(groups or 1), "channels last" in ways
    x = g = (16, 12, 40, 8) if last else (16, 8, 12, 40)
    w = (8, 8 // groups, 3, 3)
    for tile, parts in ((2**23, 1), (2**12, 1), (2**12, 2)):
        engine = importlib.import_module(f"jaxconv.engines.{name}")
        c = Convolution(window, (12, 40), groups, None, jnp.float32, jnp.float32, last, tile=tile, unfolded=1,
            parts=parts, calls="calls" in ways, channels_moved="channels moved" in ways)
        print(told, tile, parts,
            kinds(partial(image_by_parts(engine.output, 0), c), (x, w), (split, whole), split),
            kinds(partial(image_by_parts(engine.input_gradient, 1), c), (w, g), (whole, split), split),
            kinds(partial(sum_by_parts(engine.weight_gradient), c), (x, g), (split, split), whole))
"""


WAYS = (
    "taps by 8",
    "stream, calls",
    "fold, calls",
    "taps by 8, channels last, calls",
    "taps by 8, channels last, calls, channels moved",
)


def test_a_sharded_batch_stays_where_it_is():
    """On 8 devices: no collective in the output and the input gradient, and one all-reduce in the weight gradient."""
    tiles = (f"{2**23} 1", f"{2**12} 1", f"{2**12} 2")
    expected = [f"{name} {tile} [] [] ['all-reduce']" for name in (*NAMES, *WAYS) for tile in tiles]
    assert on_eight(SHARDED, *NAMES, *WAYS) == expected
