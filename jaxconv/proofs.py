"""What is proven of this library, and the geometries that it is proven on.

The shipped functions' own jaxprs, forward and backward, run on symbols (`derivations.prove`) and must equal, exactly,
definitions that share nothing with them (`derivations.equations`), their derivatives, and the derivatives of those.
"""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxconv
from derivations.equations import EQUATION_2, EQUATIONS, Claim, Layer, Map
from derivations.evaluate import evaluate
from derivations.index_sets import Geometry
from derivations.indices import Tensor
from derivations.prove import Verdict, prove_definition, prove_equal, prove_vjp
from jaxconv import engines, formulas
from jaxconv.batches import image_by_parts, sum_by_parts
from jaxconv.convolution import Convolution
from jaxconv.engines import materialise
from jaxconv.window import Window

# Every branch of every engine: strides that skip, kernels that overhang, asymmetric padding, dilation, groups, depthwise,
# taps that see only padding, an axis of more taps than are unfolded directly, one to three axes.
GEOMETRIES = (
    Geometry(2, 1, (2, 3), (5,), (3,), (1,), (1,), ((1, 1),)),
    Geometry(1, 2, (1, 2), (6,), (2,), (3,), (2,), ((2, 0),)),
    Geometry(1, 1, (1, 2), (2,), (5,), (1,), (1,), ((2, 3),)),
    Geometry(1, 1, (1, 1), (1,), (3,), (1,), (4,), ((4, 4),)),
    Geometry(1, 1, (1, 1), (4,), (33,), (2,), (1,), ((15, 18),)),
    Geometry(1, 1, (2, 2), (4, 3), (1, 1), (1, 1), (1, 1), ((0, 0), (0, 0))),
    Geometry(2, 1, (2, 2), (3, 3), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1))),
    Geometry(1, 3, (1, 1), (4, 3), (2, 2), (1, 1), (1, 1), ((1, 0), (0, 1))),
    Geometry(1, 2, (1, 2), (5, 4), (2, 2), (2, 3), (2, 1), ((0, 1), (2, 0))),
    Geometry(1, 1, (1, 2), (6, 6), (2, 2), (4, 3), (1, 1), ((0, 0), (0, 0))),
    Geometry(1, 1, (1, 1), (2, 3, 2), (2, 2, 2), (1, 1, 1), (1, 1, 1), ((1, 0), (0, 0), (1, 1))),
    Geometry(1, 2, (1, 1), (3, 2, 4), (2, 1, 2), (2, 1, 2), (1, 1, 2), ((0, 1), (1, 0), (0, 0))),
)
# Bytes of a tile, so few that every loop over tiles is run, and its last tile moved back.
_TILE = 160
# What one engine alone must be proven on as well, with the bytes of a tile.
OWN = {
    # Depthwise rows so long that the gradient of the weight is taken row by row.
    "taps": (Geometry(1, 2, (1, 1), (3, 41), (2, 2), (2, 1), (1, 1), ((1, 0), (0, 0))), 2**23),
    # Tiles of two positions, whose stride is seen where the axis is unfolded.
    "fold": (Geometry(1, 1, (1, 1), (9,), (2,), (2,), (1,), ((1, 0),)), 24),
}


@dataclass(frozen=True)
class Proof:
    """One statement: `subject` (a function, or an engine's), what is proven of it, where, and how to find out."""

    subject: str
    statement: str
    geometry: str
    verdict: Callable[[], Verdict]


def proofs() -> Iterator[Proof]:
    """Everything that is to be proven, one statement after the other."""
    yield from _of_formulas()
    named = [[geometry for geometry in GEOMETRIES if geometry.rank == rank][1] for rank in (1, 2, 3)]
    for geometry in GEOMETRIES:
        yield from _of_unfold_and_fold(geometry)
        yield from _of_conv("conv", jaxconv.conv, geometry)
        yield from _of_conv_transpose("conv_transpose", jaxconv.conv_transpose, geometry)
        if geometry in named:
            # conv1d and its like only name the rank: once is enough.
            name = f"conv{geometry.rank}d"
            yield from _of_conv(name, getattr(jaxconv, name), geometry)
            name = f"conv_transpose{geometry.rank}d"
            yield from _of_conv_transpose(name, getattr(jaxconv, name), geometry)
        yield from _of_conv_local(geometry)
        for name in engines.NAMES:
            # What has more taps than one is the engine `stream` under the name of `pointwise`.
            if name != "pointwise" or max(geometry.kernel) == 1:
                yield from _of_engine(name, geometry)
    for name, (geometry, tile) in OWN.items():
        yield from _of_engine(name, geometry, tile)
    yield from _of_batches()
    yield from _of_padding_modes()
    yield from _of_layouts()
    yield from _of_lax()


def _definition(source: Map | Claim, sizes: dict, result: Tensor, tensors: tuple[Tensor, ...], shape: tuple[int, ...]):
    """A SymPy entry of `result` as a function of arrays, in the order of `tensors`, to an array of `shape`."""
    formula = source.entry if isinstance(source, Map) else source.formula

    def definition(*arrays: np.ndarray) -> np.ndarray:
        views = [array.reshape(tensor.shape_on(sizes)) for array, tensor in zip(arrays, tensors, strict=True)]
        entries = {tensor.name: dict(np.ndenumerate(view)) for tensor, view in zip(tensors, views, strict=True)}
        values = evaluate(formula, source.at, result.shape_on(sizes), sizes, entries)
        array = np.empty(result.shape_on(sizes), object)
        for at, value in values.items():
            array[at] = value
        return array.reshape(shape)

    return definition


def _named(name: str, function: Callable) -> Callable:
    def named(*arguments):
        return function(*arguments)

    named.__name__ = name
    return named


def _with_arguments(name: str, function: Callable, arguments: tuple, options: dict) -> Callable:
    return _named(name, lambda *arrays: function(*arrays, *arguments, **options))


def _of_formulas() -> Iterator[Proof]:
    sizes = dict(zip(EQUATION_2.output.shape, (2, 2, 3), strict=True))
    sizes |= {EQUATION_2.arguments[0].shape[1]: 4}
    u, weight, bias = EQUATION_2.arguments
    cotangent = EQUATION_2.cotangent
    where = "P2 Q2 R3 M4"
    flat = (2,)

    def shape(tensor):
        return flat if tensor is bias else tensor.shape_on(sizes)

    table = {
        "output": (EQUATION_2, EQUATION_2.output, (u, weight, bias), "is eq. 2"),
        "unfolded_gradient": (EQUATIONS[0], u, (cotangent, weight), "is eq. 3"),
        "weight_gradient": (EQUATIONS[1], weight, (cotangent, u), "is eq. 4"),
        "bias_gradient": (EQUATIONS[2], bias, (cotangent,), "is eq. 5"),
    }
    for name, (source, result, tensors, statement) in table.items():
        function = getattr(formulas, name)
        shapes = tuple(map(shape, tensors))
        definition = _definition(source, sizes, result, tensors, shape(result))
        yield Proof(f"formulas.{name}", statement, where, partial(prove_definition, function, definition, *shapes))
        yield from _derivatives(f"formulas.{name}", function, shapes, where)
    yield from _derivatives("formulas.flat", formulas.flat, ((2, 2, 3, 2),), where)
    for name, shapes in (
        ("output", ((2, 4, 3), (2, 2), (2,))),
        ("unfolded_gradient", ((2, 2, 3), (2, 2))),
        ("weight_gradient", ((2, 2, 3), (2, 4, 3))),
    ):
        grouped = _named(name, partial(getattr(formulas, name), groups=2))
        apart = _named("the same group by group", partial(_group_by_group, name))
        yield Proof(f"formulas.{name}", "with groups, each alone", where, partial(prove_equal, grouped, apart, *shapes))
        yield Proof(f"formulas.{name}", "VJP with groups", where, partial(prove_vjp, grouped, *shapes))


def _group_by_group(name: str, *arrays: Any) -> Any:
    """One of the formulas with two groups, from the same formula without."""
    axes = {"output": (1, 0, 0), "unfolded_gradient": (1, 0), "weight_gradient": (1, 1)}[name]
    halves = [jnp.split(array, 2, axis) for array, axis in zip(arrays, axes, strict=True)]
    parts = [getattr(formulas, name)(*half) for half in zip(*halves, strict=True)]
    return jnp.concatenate(parts, axis=0 if name == "weight_gradient" else 1)


def _shapes(geometry: Geometry) -> tuple[tuple[int, ...], ...]:
    """Of input, weight, bias and cotangent, as the numeric package takes them."""
    inputs, outputs = (geometry.groups * channels for channels in geometry.channels)
    return (
        (geometry.batch, inputs, *geometry.spatial),
        (outputs, geometry.channels[0], *geometry.kernel),
        (outputs,),
        (geometry.batch, outputs, *geometry.output_sizes()),
    )


def _of_unfold_and_fold(geometry: Geometry) -> Iterator[Proof]:
    layer, sizes = Layer(geometry.rank), geometry.index_set()
    image = _shapes(geometry)[0]
    columns = (geometry.batch, image[1] * int(np.prod(geometry.kernel)), int(np.prod(geometry.output_sizes())))
    window: dict[str, Any] = {
        "kernel_size": geometry.kernel,
        "dilation": geometry.dilation,
        "padding": geometry.padding,
        "stride": geometry.stride,
    }
    claim = layer.fold_claim
    unfold = _named("unfold", lambda x: jaxconv.unfold(x, **window))
    fold = _named("fold", lambda u: jaxconv.fold(u, geometry.spatial, **window))
    definition = _definition(layer.unfold, sizes, layer.unfolded, (layer.input,), columns)
    sharing = _definition(claim, sizes, layer.input, (layer.unfolded_cotangent,), image)
    for name, function, truth, shape in (("unfold", unfold, definition, image), ("fold", fold, sharing, columns)):
        yield Proof(name, "is its definition", str(geometry), partial(prove_definition, function, truth, shape))
        yield from _derivatives(name, function, (shape,), geometry)
    unbatched = _named("unfold, unbatched", lambda x: jaxconv.unfold(x, **window))
    stacked = _named("unfold of one", lambda x: jaxconv.unfold(x[None], **window)[0])
    yield Proof("unfold", "unbatched", str(geometry), partial(prove_equal, unbatched, stacked, image[1:]))


def _of_conv(name: str, function: Callable, geometry: Geometry) -> Iterator[Proof]:
    layer, sizes = Layer(geometry.rank), geometry.index_set()
    *shapes, output = _shapes(geometry)
    options = {
        "stride": geometry.stride,
        "padding": geometry.padding,
        "dilation": geometry.dilation,
        "groups": geometry.groups,
    }
    tensors = (layer.input, layer.weight, layer.bias)
    conv = _named(name, partial(function, **options))
    truth = _definition(layer.convolution, sizes, layer.output, tensors, output)
    yield Proof(name, "is its definition", str(geometry), partial(prove_definition, conv, truth, *shapes))
    yield from _derivatives(name, conv, tuple(shapes), geometry)
    stacked = _named("conv of one", lambda x, w, b: function(x[None], w, b, **options)[0])
    yield Proof(name, "unbatched", str(geometry), partial(prove_equal, conv, stacked, shapes[0][1:], *shapes[1:]))
    without = _named("conv with a bias of 0", lambda x, w: function(x, w, jnp.zeros(shapes[2], x.dtype), **options))
    yield Proof(name, "without bias", str(geometry), partial(prove_equal, conv, without, *shapes[:2]))


def _of_conv_transpose(name: str, function: Callable, geometry: Geometry) -> Iterator[Proof]:
    """The adjoint: its output is the input gradient of the convolution, whose formula is derived."""
    layer, sizes = Layer(geometry.rank), geometry.index_set()
    output, weight, _, input = _shapes(geometry)
    bias = (output[1],)
    # The rows of the convolution's input that no window reaches are output_padding here.
    reached = [
        (l - 1) * s + d * (k - 1) + 1 - low - high
        for l, s, d, k, (low, high) in zip(
            input[2:], geometry.stride, geometry.dilation, geometry.kernel, geometry.padding, strict=True
        )
    ]
    options = {
        "stride": geometry.stride,
        "padding": geometry.padding,
        "output_padding": tuple(size - reach for size, reach in zip(geometry.spatial, reached, strict=True)),
        "groups": geometry.groups,
        "dilation": geometry.dilation,
    }
    plain = _named(name, lambda x, w: function(x, w, **options))
    with_bias = _named(name, lambda x, w, b: function(x, w, b, **options))
    added = _named("the same plus a bias", lambda x, w, b: plain(x, w) + b.reshape(-1, *(1,) * geometry.rank))
    truth = _definition(layer.input_claim, sizes, layer.input, (layer.cotangent, layer.weight), output)
    where = str(geometry)
    yield Proof(name, "is its definition", where, partial(prove_definition, plain, truth, input, weight))
    yield Proof(name, "with a bias", where, partial(prove_equal, with_bias, added, input, weight, bias))
    yield from _derivatives(name, with_bias, (input, weight, bias), geometry)


def _of_conv_local(geometry: Geometry) -> Iterator[Proof]:
    """Against eq. 2 on the shipped `unfold`, which is proven by itself, with a weight an output position."""
    input, weight, bias, output = _shapes(geometry)
    weight = (*weight, *output[2:])
    options = {"stride": geometry.stride, "padding": geometry.padding, "dilation": geometry.dilation}
    local = _named("conv_local", partial(jaxconv.conv_local, **options, groups=geometry.groups))

    def definition(x, w, b):
        u = jaxconv.unfold(x, geometry.kernel, **options)
        columns = u.reshape(input[0], geometry.groups, -1, u.shape[2])
        rows = w.reshape(geometry.groups, weight[0] // geometry.groups, columns.shape[2], -1)
        product = (rows[None] * columns[:, :, None]).sum(3)
        return product.reshape(output) + b.reshape(-1, *(1,) * geometry.rank)

    where = str(geometry)
    yield Proof("conv_local", "is its definition", where, partial(prove_equal, local, definition, input, weight, bias))
    yield from _derivatives("conv_local", local, (input, weight, bias), geometry)
    own = _named("conv_local", lambda x, w, b: local(x, w, b))
    shapes = (input, weight, output[1:])
    yield Proof("conv_local", "VJP with a bias a position", where, partial(prove_vjp, own, *shapes))


def _of_batches() -> Iterator[Proof]:
    """A batch in parts against the whole of it, of the readable engine."""
    window = Window((2,), (1,), ((1, 0),), (1,))
    whole = Convolution(window, (3,), 1, None, jnp.dtype("float32"), jnp.float32)
    input, weight, output = (6, 1, 3), (2, 1, 2), (6, 2, 3)
    by_parts = {
        "output": (image_by_parts(materialise.output, 0), (input, weight, output[1:2])),
        "input_gradient": (image_by_parts(materialise.input_gradient, 1), (weight, output)),
        "weight_gradient": (sum_by_parts(materialise.weight_gradient), (input, output)),
    }
    for part, (function, shapes) in by_parts.items():
        parted = _named(f"{part} by parts", partial(function, replace(whole, parts=3)))
        plain = _named(part, partial(getattr(materialise, part), whole))
        what = part.replace("_", " ")
        where = "6 samples in 3 parts"
        yield Proof("batch in parts", f"{what} is that of all", where, partial(prove_equal, parted, plain, *shapes))
        yield Proof("batch in parts", f"VJP of {what}", where, partial(prove_vjp, parted, *shapes))


def _of_padding_modes() -> Iterator[Proof]:
    """Against the same convolution of an input in which every padded cell is picked by its index."""
    cells = {
        "reflect": lambda at, size: abs(at) if at < size else 2 * (size - 1) - at,
        "replicate": lambda at, size: min(max(at, 0), size - 1),
        "circular": lambda at, size: at % size,
    }
    shapes, pads = ((1, 2, 4, 3), (2, 2, 2, 3), (2,)), ((1, 2), (2, 1))
    for mode, cell in cells.items():
        rows, columns = (
            np.array([cell(at, size) for at in range(-low, size + high)])
            for size, (low, high) in zip(shapes[0][2:], pads, strict=True)
        )
        padded = _named(f"conv2d, {mode}", partial(jaxconv.conv2d, padding=pads, stride=(2, 1), padding_mode=mode))
        picked = _named(
            "of picked cells", lambda x, w, b, r=rows, c=columns: jaxconv.conv2d(x[:, :, r][..., c], w, b, (2, 1))
        )
        where = "1,2,4x3 by 2x3"
        yield Proof("conv2d", f"{mode} padding is its definition", where, partial(prove_equal, padded, picked, *shapes))
        yield from _derivatives("conv2d", padded, shapes, where, f" with {mode} padding")


def _of_layouts() -> Iterator[Proof]:
    """Channels last, by every engine, against channels first by the readable one."""
    calls: tuple[tuple[Callable, tuple, dict[str, Any]], ...] = (
        (jaxconv.conv2d, ((1, 3, 3, 2), (2, 2, 2, 2), (2,)), {"stride": (2, 1), "padding": ((1, 0), (0, 1))}),
        (
            jaxconv.conv2d,
            ((1, 3, 3, 2), (2, 1, 2, 2), (2,)),
            {"dilation": (1, 2), "padding": ((1, 1), (0, 1)), "groups": 2},
        ),
        (jaxconv.conv_transpose1d, ((1, 3, 2), (2, 1, 3), (2,)), {"stride": 2, "padding": 1, "groups": 2}),
    )
    for function, shapes, options in calls:
        for engine in engines.NAMES:
            given = partial(function, **options, data_format="channels_last", engine=engine)
            last = _named(f"{function.__name__}, channels last by {engine}", given)

            def moved(x, w, b, function=function, options=options):
                first = function(jnp.moveaxis(x, -1, 1), w, b, **options, engine="materialise")
                return jnp.moveaxis(first, 1, -1)

            where, told = f"{shapes} {options}", f"channels last by {engine}"
            is_first = partial(prove_equal, last, _named("channels first", moved), *shapes)
            yield Proof(function.__name__, f"{told} is channels first", where, is_first)
            yield Proof(function.__name__, f"VJP with {told}", where, partial(prove_vjp, last, *shapes))


def _of_lax() -> Iterator[Proof]:
    """The drop-ins against what they stand in for, over layouts, dilations and groups."""
    last = ("NHWC", "HWIO", "NHWC")
    dilated = {"lhs_dilation": (2, 1), "rhs_dilation": (1, 2), "dimension_numbers": last}
    cases = (
        ("conv_general_dilated", ((1, 3, 4, 2), (2, 2, 2, 2)), ((2, 1), ((-1, 2), (1, 1))), dilated),
        ("conv_general_dilated", ((2, 4, 3), (4, 2, 2)), ((1,), "SAME"), {"feature_group_count": 2}),
        ("conv_general_dilated", ((4, 2, 3), (4, 2, 2)), ((2,), "VALID"), {"batch_group_count": 2}),
        ("conv_general_dilated_patches", ((1, 2, 4, 3),), ((2, 2), (2, 1), ((1, 0), (0, 1))), {}),
        ("conv_transpose", ((1, 3, 2, 2), (3, 2, 2, 2)), ((2, 1), "SAME"), {}),
        ("conv_transpose", ((1, 3, 2), (3, 2, 2)), ((2,), "VALID"), {"transpose_kernel": True}),
    )
    for name, shapes, arguments, options in cases:
        ours = _with_arguments(f"jaxconv.lax.{name}", getattr(jaxconv.lax, name), arguments, options)
        theirs = _with_arguments(f"jax.lax.{name}", getattr(jax.lax, name), arguments, options)
        where = f"{shapes} {arguments} {options}"
        yield Proof(f"lax.{name}", "is jax.lax's", where, partial(prove_equal, ours, theirs, *shapes))
        yield from _derivatives(f"lax.{name}", ours, shapes, where)


def _derivatives(
    name: str, function: Callable, shapes: tuple, geometry: Geometry | str, of_what: str = ""
) -> Iterator[Proof]:
    """The registered VJP, and the VJP of that; `of_what` tells the statements from those of the plain function."""
    output = jax.eval_shape(function, *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).shape

    def gradients(*arguments):
        return jax.vjp(function, *arguments[:-1])[1](arguments[-1])

    again = _named(f"the VJP of {name}", gradients)
    yield Proof(name, f"VJP{of_what}", str(geometry), partial(prove_vjp, function, *shapes))
    yield Proof(name, f"VJP of the VJP{of_what}", str(geometry), partial(prove_vjp, again, *shapes, output))


def _of_engine(name: str, geometry: Geometry, tile: int = _TILE) -> Iterator[Proof]:
    """The engine's three functions themselves, whoever chooses them, and `fold` with every number of axes unfolded."""
    engine = importlib.import_module(f"jaxconv.engines.{name}")
    layer, sizes = Layer(geometry.rank), geometry.index_set()
    window = Window(geometry.kernel, geometry.stride, geometry.padding, geometry.dilation)
    convolution = Convolution(
        window, geometry.spatial, geometry.groups, None, jnp.dtype("float32"), jnp.float32, tile=tile
    )
    input, weight, bias, output = _shapes(geometry)
    tensors = (layer.input, layer.weight, layer.bias)
    table = (
        ("output", layer.convolution, layer.output, tensors, (input, weight, bias), output),
        ("input_gradient", layer.input_claim, layer.input, (layer.weight, layer.cotangent), (weight, output), input),
        ("weight_gradient", layer.weight_claim, layer.weight, (layer.input, layer.cotangent), (input, output), weight),
    )
    for unfolded in range(1 + geometry.rank if name == "fold" else 1):
        told = f", {unfolded} axes unfolded" if unfolded else ""
        strides = {"output": (), "input_gradient": geometry.stride, "weight_gradient": geometry.stride[unfolded:]}
        for part, source, result, tensors, shapes, shape in table:
            if unfolded and max((1, *strides[part])) > 1:
                # Then it is the same whatever is to be unfolded.
                continue
            function = _named(f"{name}.{part}", partial(getattr(engine, part), replace(convolution, unfolded=unfolded)))
            truth, where = _definition(source, sizes, result, tensors, shape), str(geometry)
            what = part.replace("_", " ")
            definition = partial(prove_definition, function, truth, *shapes)
            yield Proof(f"engine {name}", f"{what} is its definition{told}", where, definition)
            yield Proof(f"engine {name}", f"VJP of {what}{told}", where, partial(prove_vjp, function, *shapes))
