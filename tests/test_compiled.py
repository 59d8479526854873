"""What XLA makes of the engines: the platform, what is in loops and calls, memory, and what several devices tell each other."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import memory
import numpy as np
import pytest
from devices import on_eight
from jax import export

import jaxconv
from jaxconv.engines import NAMES, fold


@pytest.mark.parametrize(("platform", "loops"), [("cpu", True), ("cuda", False), ("tpu", False)])
def test_tiles_are_those_of_the_platform_that_is_compiled_for(platform, loops):
    """Not those of the process, which runs on a CPU: there U is cut into tiles, elsewhere this one is in one piece."""
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((8, 64, 56, 56), (64, 64, 3, 3))]
    lowered = export.export(jax.jit(lambda x, w: jaxconv.conv(x, w, padding=1)), platforms=[platform])(*shapes)
    assert ("stablehlo.while" in lowered.mlir_module()) == loops


def test_one_export_is_for_several_platforms():
    x, w = (jnp.ones(shape) for shape in ((8, 64, 56, 56), (64, 64, 3, 3)))

    def gradient(x, w):
        return jax.grad(lambda w: jaxconv.conv(x, w, padding=1).sum())(w)

    exported = export.export(jax.jit(gradient), platforms=["cpu", "cuda"])(x, w)
    np.testing.assert_array_equal(exported.call(x, w), jax.jit(gradient)(x, w))


@pytest.mark.parametrize(("platform", "calls"), [("cpu", True), ("cuda", False)])
@pytest.mark.parametrize("weight", [(8, 1, 2, 2), (8, 1, 5, 5)], ids=["few terms", "channels moved"])
def test_calls_are_for_a_cpu(platform, calls, weight):
    """With channels last. On an accelerator nothing is to be gained, and a call that must not be inlined is a risk."""
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((16, 128, 128, 8), weight)]
    function = jax.jit(partial(jaxconv.conv2d, padding=1, groups=8, data_format="channels_last"))
    assert ('inlineable = "false"' in export.export(function, platforms=[platform])(*shapes).mlir_module()) == calls
    if calls:
        assert re.search(r"call\(.*inlineable", str(function.lower(*shapes).compile().as_text()))


def inside_loops(text: str) -> dict[str, str]:
    """The computations of a compiled program that the bodies of its loops run, by name."""
    blocks = {
        match[1]: block
        for block in text.split("\n}\n")
        if (match := re.search(r"^%?([\w.-]+) \(", block.strip(), re.M))
    }
    left, found = re.findall(r"body=%([\w.-]+)", text), {}
    while left:
        name = left.pop()
        if name not in found:
            found[name] = blocks[name]
            left += re.findall(r"(?:calls|to_apply|body)=%([\w.-]+)", blocks[name])
    return found


@pytest.mark.parametrize("engine", ["fold", "stream"])
@pytest.mark.parametrize("stride", [1, 2])
def test_what_every_tile_needs_of_a_weight_is_made_once(engine, stride):
    """And not in the loop over the tiles: a weight may be larger than a tile. What runs in the loop is not called but inlined."""
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((512, 96, 9, 9), (160, 96, 3, 3))]
    layer = partial(jaxconv.conv2d, padding=1, stride=stride, engine=engine)
    g = jax.eval_shape(layer, *shapes)
    for function, arguments in ((layer, shapes), (lambda x, w, g: jax.vjp(layer, x, w)[1](g)[0], [*shapes, g])):
        inside = inside_loops(str(jax.jit(function).lower(*arguments).compile().as_text()))
        text = "\n".join(inside.values())
        assert "dot(" in text
        assert not [name for name in inside if name.startswith("closed_call")]
        moved = re.findall(r"f32\[([\d,]+)\]\S* (?:transpose|copy)\(", text)
        assert moved
        assert not [sizes for sizes in moved if np.prod(list(map(int, sizes.split(",")))) == 160 * 96 * 9]


def test_room_for_copies_is_neither_filled_nor_copied_for_every_tile():
    """What the loops of a 3x3 layer make of a tile's copies, and of images, are updates in place."""
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((8, 64, 56, 56), (64, 64, 3, 3))]
    layer = partial(jaxconv.conv2d, padding=1)
    g = jax.eval_shape(layer, *shapes)
    for part in (0, 1):
        program = jax.jit(lambda x, w, g, part=part: jax.vjp(layer, x, w)[1](g)[part]).lower(*shapes, g).compile()
        text = "\n".join(inside_loops(str(program.as_text())).values())
        rooms = [sizes for sizes in re.findall(r"f32\[([\d,]+)\]\S* call\(", text) if ",64,3,8," in f",{sizes},"]
        assert rooms
        made = re.findall(r"f32\[([\d,]+)\]\S* (?:copy|pad|broadcast)\(", text)
        assert made
        least = min(np.prod(list(map(int, sizes.split(",")))) for sizes in rooms)
        assert not [sizes for sizes in made if np.prod(list(map(int, sizes.split(",")))) >= least]


def test_gradients_for_every_sample_are_no_call_in_the_loop_over_parts():
    """What a call gives would be copied once more into the gradients of all samples."""
    samples, weight = 256, (16, 8, 3, 3)
    shapes = [
        jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (weight, (samples, 8, 16, 16), (samples, 16, 14, 14))
    ]
    layer = jax.vmap(lambda w, x, g: jax.vjp(lambda w: jaxconv.conv2d(x, w), w)[1](g)[0], (None, 0, 0))
    text = "\n".join(inside_loops(str(jax.jit(layer).lower(*shapes).compile().as_text())).values())
    called = [list(map(int, sizes.split(","))) for sizes in re.findall(r"f32\[([\d,]+)\]\S* call\(", text)]
    assert "dynamic-update-slice(" in text
    assert not [sizes for sizes in called if np.prod(sizes[1:]) == np.prod(weight)]


LARGE = [
    ("r64", (8, 64, 56, 56), (64, 64, 3, 3), {"padding": 1}),
    ("first layer", (8, 3, 160, 160), (64, 3, 7, 7), {"stride": 2, "padding": 3}),
    ("signal", (4, 64, 4096), (64, 64, 5), {"padding": 2}),
    ("strided", (8, 48, 56, 56), (64, 48, 4, 4), {"stride": 2, "padding": 2}),
    ("depthwise", (4, 96, 56, 56), (96, 1, 3, 3), {"padding": 1, "groups": 96}),
    ("grouped", (8, 128, 56, 56), (128, 4, 3, 3), {"padding": 1, "groups": 32}),
    ("four groups", (4, 96, 27, 27), (256, 24, 5, 5), {"padding": 2, "groups": 4}),
    ("pointwise", (8, 256, 56, 56), (64, 256, 1, 1), {}),
    ("phases", (1, 8, 64, 64, 64), (16, 8, 4, 4, 4), {"stride": 2, "padding": 1}),
    ("phases of a signal", (16, 1, 16000), (64, 1, 80), {"stride": 4}),
    ("tiles that overlap", (16, 48, 28, 28), (64, 48, 3, 3), {}),
    ("three tiles", (2, 96, 60, 60), (48, 96, 3, 3), {"padding": 1}),
    ("a block that is cut off", (32, 384, 800), (96, 384, 3), {"stride": 3, "padding": 1}),
    ("many channels out", (128, 1, 6000), (192, 1, 9), {"padding": 4}),
    ("many taps of one channel", (8, 1, 3200), (80, 1, 251), {}),
    ("few channels for many", (64, 3, 64, 64), (192, 3, 3, 3), {"padding": 1}),
    ("few channels for many, of small images", (128, 4, 32, 32), (256, 4, 3, 3), {"padding": 1}),
    ("blocks", (8, 64, 4000), (64, 64, 9), {"padding": 4}),
    ("blocks of one signal at a time", (4, 64, 20000), (64, 64, 12), {"padding": 6}),
    ("blocks of phases", (16, 16, 8000), (64, 16, 16), {"stride": 2}),
    ("windows", (8, 64, 4000), (64, 64, 25), {"padding": 12}),
    ("windows of one signal at a time", (4, 64, 20000), (64, 64, 46), {"padding": 23}),
    ("windows of phases", (16, 16, 8000), (64, 16, 64), {"stride": 2}),
    ("image", (1, 16, 4096, 4096), (16, 16, 3, 3), {"padding": 1}),
]


@pytest.mark.parametrize("last", [False, True], ids=["channels_first", "channels_last"])
@pytest.mark.parametrize(("input", "weight", "options"), [case[1:] for case in LARGE], ids=[case[0] for case in LARGE])
def test_temporaries_are_a_quarter_of_u_at_most(input, weight, options, last):
    """Of the compiled VJP; and of a large image less than 1.5 times input and output."""
    temporaries, u, given, result = memory.of_vjp(input, weight, options, last, jnp.float32)
    assert u > 2**24
    assert temporaries <= min(u / 4, 1.5 * (given + result))


STRIDED = [
    ((4, 96, 64, 64), (192, 96, 5, 5), 3, 2, (0.25, 0.3, 0.25)),
    ((2, 256, 41, 41), (64, 256, 5, 5), 2, 2, (0.25, 0.35, 0.25)),
    # Result and input gradient are larger than U, or not much smaller.
    ((8, 128, 85, 85), (384, 128, 4, 4), 4, 2, (0.25, 0.4, 0.25)),
    ((16, 384, 41, 41), (384, 384, 2, 2), 3, 1, (0.25, 0.6, 0.25)),
]


@pytest.mark.parametrize(("input", "weight", "stride", "padding", "most"), STRIDED)
def test_temporaries_of_strided_layers_of_large_weights(input, weight, stride, padding, most):
    """As many times U, of output and gradients: an input gradient whose last block is cut off, by the axis that the tiles cut,
    is not copied whole."""
    x, w = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (input, weight))
    layer = partial(jaxconv.conv2d, stride=stride, padding=padding)
    g = jax.eval_shape(layer, x, w)
    u = 4 * input[0] * np.prod(weight[1:]) * np.prod(g.shape[2:])
    assert u > 2**24
    gradients = [lambda x, w, g, part=part: jax.vjp(layer, x, w)[1](g)[part] for part in (0, 1)]
    for function, share in zip((lambda x, w, g: layer(x, w), *gradients), most, strict=True):
        memory = jax.jit(function).lower(x, w, g).compile().memory_analysis()
        assert memory is not None
        assert memory.temp_size_in_bytes <= share * u


def test_an_input_gradient_at_stride_1_is_traced_once_with_the_output(monkeypatch):
    """Of the same convolution: there is as much to trace as without it."""
    copies, x, w = fold.copies, jnp.zeros((4, 96, 40, 40)), jnp.zeros((96, 96, 3, 3))
    layer = partial(jaxconv.conv2d, padding=1, engine="fold")

    def made(function):
        calls = []
        monkeypatch.setattr(fold, "copies", lambda *given: calls.append(given) or copies(*given))
        jax.clear_caches()
        jax.jit(function).trace(x, w, x)
        return len(calls)

    without = made(lambda x, w, g: jax.vjp(lambda w: layer(x, w), w)[1](g))
    assert without > 0
    assert made(lambda x, w, g: jax.vjp(layer, x, w)[1](g)) == without
    jax.clear_caches()  # or what was traced here would be used elsewhere


def test_a_weight_that_lies_as_it_is_multiplied_is_not_copied():
    """Of a signal all of whose taps are copied, channels first, in tiles."""
    x, w = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2, 512, 300), (512, 512, 17)))
    memory = jax.jit(partial(jaxconv.conv1d, padding=8)).lower(x, w).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes <= 4 * w.size / 2


@pytest.mark.parametrize(
    ("engine", "input", "weight", "groups"),
    [("auto", (2, 32, 32, 16), (16, 1, 31, 31), 16), ("stream", (2, 24, 24, 64), (128, 64, 1, 1), 1)],
)
def test_nothing_is_copied_that_lies_as_it_is(engine, input, weight, groups):
    """As a fused loop of nothing but another view of what it is given would."""
    x, w = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (input, weight))
    options = {"padding": weight[-1] // 2, "groups": groups, "engine": engine}
    layer = partial(jaxconv.conv2d, data_format="channels_last", **options)
    text = str(jax.jit(lambda x, w: jax.vjp(layer, x, w)[1](layer(x, w))).lower(x, w).compile().as_text())
    fused = re.findall(r"^%fused_computation[^\n]*\{\n(.*?)^\}", text, re.DOTALL | re.MULTILINE)
    made = [set(re.findall(r"^  (?:ROOT )?%\S+ = \S+ ([\w-]+)\(", each, re.MULTILINE)) for each in fused]
    assert made
    assert {"parameter", "bitcast"} not in made


def test_a_moved_image_ends_in_rows():
    """Not in one run of all samples for the product: XLA would find the place of every entry in it by division."""
    x, w = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((8, 64, 1001), (2, 64, 3)))
    text = str(jax.jit(partial(jaxconv.conv1d, engine="fold")).lower(x, w).compile().as_text())
    assert re.search(r"f32\[512,1001\]\S* fusion\(", text)
    assert not re.search(r"f32\[64,8008\]\S* fusion\(", text)


def test_a_turned_kernel_is_made_once_for_all_parts():
    """Of the input gradient of a signal all of whose taps are copied, for which a kernel as it lies would need no copy."""
    x, w = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((16, 64, 4096), (64, 64, 5)))
    layer = partial(jaxconv.conv1d, padding=2)
    text = str(jax.jit(lambda x, w, g: jax.vjp(layer, x, w)[1](g)[0]).lower(x, w, x).compile().as_text())
    assert text.count(" reverse(") == 1
    assert not [name for name, body in inside_loops(text).items() if " reverse(" in body]


@pytest.mark.parametrize("weight", [(64, 1, 5), (64, 64, 5)], ids=["taps", "fold"])
def test_output_and_gradient_of_one_shape_are_not_copied_from_one_array(weight):
    """Which XLA would do if both were filled with the same before their first tile."""
    options = {"padding": 2, "groups": 64 // weight[1]}
    temporaries, _, _, result = memory.of_vjp((16, 64, 8192), weight, options, False, jnp.float32)
    assert temporaries < result / 2


@pytest.mark.parametrize(
    ("input", "weight"), [((8, 16, 56, 56), (40, 16, 3, 3)), ((8, 96, 400), (96, 96, 9))], ids=["two tiles", "one tile"]
)
def test_output_and_gradients_of_a_small_u_share_their_memory(input, weight):
    """Each takes U in a tile or two; all at the same time they would have more than 32 MB, which is mapped anew at every call."""
    options = {"padding": weight[-1] // 2}
    temporaries, u, _, _ = memory.of_vjp(input, weight, options, False, jnp.float32)
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
            parts=parts, calls="calls" in ways, channels_moved="channels moved" in ways, spread=True)
        print(told, tile, parts,
            kinds(partial(image_by_parts(engine.output, 0), c), (x, w), (split, whole), split),
            kinds(partial(image_by_parts(engine.input_gradient, 1), c), (w, g), (whole, split), split),
            kinds(partial(sum_by_parts(engine.weight_gradient), c), (x, g), (split, split), whole))
# Windows of a signal, whose products are taken in turns, of all samples or of some.
from jaxconv.engines import fourier
for last in (False, True):
    for tile, parts in ((2**23, 1), (2**15, 1), (2**15, 2)):
        c = Convolution(make_window((5,), 1, 2, 1, 1), (96,), 1, None, jnp.float32, jnp.float32, last, tile=tile, unfolded=16,
            parts=parts, calls=True, spread=True)
        x, w = c.shape(16, (96,), 8), (8, 8, 5)
        print("windows", kinds(partial(image_by_parts(fourier.output, 0), c), (x, w), (split, whole), split),
            kinds(partial(image_by_parts(fourier.input_gradient, 1), c), (w, x), (whole, split), split),
            kinds(partial(sum_by_parts(fourier.weight_gradient), c), (x, x), (split, split), whole))
# An input gradient at a stride, some channels at a time.
from jaxconv.engines import fold
for last in (False, True):
    c = Convolution(make_window((7, 7), 2, 3, 1, 2), (32, 32), 1, None, jnp.float32, jnp.float32, last, tile=2**21, spread=True)
    w, g = (16, 8, 7, 7), (16, 16, 16, 16)
    print("channels", kinds(partial(fold.input_gradient, c), (w, g), (whole, split), split))
# Whole samples, which fold moves in a call.
for stride in (1, 2):
    strided = make_window((3, 3), stride, 1, 1, 2)
    c = Convolution(strided, (12, 40), 1, None, jnp.float32, jnp.float32, parts=2, calls=True, spread=True)
    x, w, g = (32, 8, 12, 40), (8, 8, 3, 3), (32, 8, 12 // stride, 40 // stride)
    print("samples", kinds(partial(image_by_parts(fold.output, 0), c), (x, w), (split, whole), split),
        kinds(partial(image_by_parts(fold.input_gradient, 1), c), (w, g), (whole, split), split))
# A depthwise weight gradient of short rows, which is not taken sample by sample.
from jaxconv.engines import taps
for tile, last in ((2**16, False), (2**19, False), (2**16, True), (2**19, True)):
    c = Convolution(window, (12, 28), 64, None, jnp.float32, jnp.float32, last, calls=True, tile=tile, spread=True)
    x = c.shape(16, (12, 28), 64)
    print("short rows", kinds(partial(taps.weight_gradient, c), (x, x), (split, split), whole))
"""


WAYS = (
    "taps by 8",
    "stream, calls",
    "fold, calls",
    "taps by 8, channels last, calls",
    "taps by 8, channels last, calls, channels moved",
    "fold by 8, channels last, calls, channels moved",
)


def test_a_sharded_batch_stays_where_it_is():
    """On 8 devices: no collective in the output and the input gradient, and one all-reduce in the weight gradient."""
    tiles = (f"{2**23} 1", f"{2**12} 1", f"{2**12} 2")
    expected = [f"{name} {tile} [] [] ['all-reduce']" for name in (*NAMES, *WAYS) for tile in tiles]
    expected += ["windows [] [] ['all-reduce']"] * 6
    expected += ["channels []"] * 2 + ["samples [] []"] * 2 + ["short rows ['all-reduce']"] * 4
    assert on_eight(SHARDED, *NAMES, *WAYS) == expected


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_a_network_keeps_no_u_of_its_layers(layout):
    """From forward to backward, which XLA would do: a layer more keeps its output, before and after the activation, and not U
    too, which is three times as much."""

    def temporaries(layers: int) -> int:
        def loss(weights, x):
            for weight in weights:
                x = jax.nn.relu(jaxconv.conv1d(x, weight, padding=1, data_format=layout))
            return (x**2).mean()

        x = jax.ShapeDtypeStruct((16, 64, 512) if layout == "channels_first" else (16, 512, 64), jnp.float32)
        weights = [jax.ShapeDtypeStruct((64, 64, 3), jnp.float32)] * layers
        analysis = jax.jit(jax.grad(loss)).lower(weights, x).compile().memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    output = 4 * 16 * 64 * 512
    assert temporaries(8) - temporaries(4) < 4 * 2.5 * output
