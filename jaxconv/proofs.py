"""What is proven of this library, and the geometries that it is proven on.

The shipped functions' own jaxprs, forward and backward, run on symbols (`derivations.prove`) and must equal, exactly,
definitions that share nothing with them (`derivations.equations`), their derivatives, and the derivatives of those.
"""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxconv
from derivations.equations import EQUATION_2, EQUATIONS, Layer
from derivations.index_sets import Geometry
from derivations.prove import prove_definition, prove_equal, prove_vjp
from jaxconv import engines, formulas
from jaxconv.engine_proofs import OWN, of_batches, of_engine
from jaxconv.frequency_proofs import of_frequencies
from jaxconv.statements import Proof, definition_of, derivatives, named, shapes_of, with_arguments

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
            yield from of_engine(name, geometry)
    for name, geometry, options in OWN:
        yield from of_engine(name, geometry, **options)
    yield from of_frequencies()
    yield from of_batches()
    yield from _of_padding_modes()
    yield from _of_layouts()
    yield from _of_halves()
    yield from _of_vmap()
    yield from _of_lax()


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
        definition = definition_of(source, sizes, result, tensors, shape(result))
        yield Proof(f"formulas.{name}", statement, where, partial(prove_definition, function, definition, *shapes))
        yield from derivatives(f"formulas.{name}", function, shapes, where)
    yield from derivatives("formulas.flat", formulas.flat, ((2, 2, 3, 2),), where)
    for name, shapes in (
        ("output", ((2, 4, 3), (2, 2), (2,))),
        ("unfolded_gradient", ((2, 2, 3), (2, 2))),
        ("weight_gradient", ((2, 2, 3), (2, 4, 3))),
    ):
        grouped = named(name, partial(getattr(formulas, name), groups=2))
        apart = named("the same group by group", partial(_group_by_group, name))
        yield Proof(f"formulas.{name}", "with groups, each alone", where, partial(prove_equal, grouped, apart, *shapes))
        yield Proof(f"formulas.{name}", "VJP with groups", where, partial(prove_vjp, grouped, *shapes))


def _group_by_group(name: str, *arrays: Any) -> Any:
    """One of the formulas with two groups, from the same formula without."""
    axes = {"output": (1, 0, 0), "unfolded_gradient": (1, 0), "weight_gradient": (1, 1)}[name]
    halves = [jnp.split(array, 2, axis) for array, axis in zip(arrays, axes, strict=True)]
    parts = [getattr(formulas, name)(*half) for half in zip(*halves, strict=True)]
    return jnp.concatenate(parts, axis=0 if name == "weight_gradient" else 1)


def _of_unfold_and_fold(geometry: Geometry) -> Iterator[Proof]:
    layer, sizes = Layer(geometry.rank), geometry.index_set()
    image = shapes_of(geometry)[0]
    columns = (geometry.batch, image[1] * int(np.prod(geometry.kernel)), int(np.prod(geometry.output_sizes())))
    window: dict[str, Any] = {
        "kernel_size": geometry.kernel,
        "dilation": geometry.dilation,
        "padding": geometry.padding,
        "stride": geometry.stride,
    }
    claim = layer.fold_claim
    unfold = named("unfold", lambda x: jaxconv.unfold(x, **window))
    fold = named("fold", lambda u: jaxconv.fold(u, geometry.spatial, **window))
    definition = definition_of(layer.unfold, sizes, layer.unfolded, (layer.input,), columns)
    sharing = definition_of(claim, sizes, layer.input, (layer.unfolded_cotangent,), image)
    for name, function, truth, shape in (("unfold", unfold, definition, image), ("fold", fold, sharing, columns)):
        yield Proof(name, "is its definition", str(geometry), partial(prove_definition, function, truth, shape))
        yield from derivatives(name, function, (shape,), geometry)
    unbatched = named("unfold, unbatched", lambda x: jaxconv.unfold(x, **window))
    stacked = named("unfold of one", lambda x: jaxconv.unfold(x[None], **window)[0])
    yield Proof("unfold", "unbatched", str(geometry), partial(prove_equal, unbatched, stacked, image[1:]))


def _of_conv(name: str, function: Callable, geometry: Geometry) -> Iterator[Proof]:
    layer, sizes = Layer(geometry.rank), geometry.index_set()
    *shapes, output = shapes_of(geometry)
    options = {
        "stride": geometry.stride,
        "padding": geometry.padding,
        "dilation": geometry.dilation,
        "groups": geometry.groups,
    }
    tensors = (layer.input, layer.weight, layer.bias)
    conv = named(name, partial(function, **options))
    truth = definition_of(layer.convolution, sizes, layer.output, tensors, output)
    yield Proof(name, "is its definition", str(geometry), partial(prove_definition, conv, truth, *shapes))
    yield from derivatives(name, conv, tuple(shapes), geometry)
    stacked = named("conv of one", lambda x, w, b: function(x[None], w, b, **options)[0])
    yield Proof(name, "unbatched", str(geometry), partial(prove_equal, conv, stacked, shapes[0][1:], *shapes[1:]))
    without = named("conv with a bias of 0", lambda x, w: function(x, w, jnp.zeros(shapes[2], x.dtype), **options))
    yield Proof(name, "without bias", str(geometry), partial(prove_equal, conv, without, *shapes[:2]))


def _of_conv_transpose(name: str, function: Callable, geometry: Geometry) -> Iterator[Proof]:
    """The adjoint: its output is the input gradient of the convolution, whose formula is derived."""
    layer, sizes = Layer(geometry.rank), geometry.index_set()
    output, weight, _, input = shapes_of(geometry)
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
    plain = named(name, lambda x, w: function(x, w, **options))
    with_bias = named(name, lambda x, w, b: function(x, w, b, **options))
    added = named("the same plus a bias", lambda x, w, b: plain(x, w) + b.reshape(-1, *(1,) * geometry.rank))
    truth = definition_of(layer.input_claim, sizes, layer.input, (layer.cotangent, layer.weight), output)
    where = str(geometry)
    yield Proof(name, "is its definition", where, partial(prove_definition, plain, truth, input, weight))
    yield Proof(name, "with a bias", where, partial(prove_equal, with_bias, added, input, weight, bias))
    yield from derivatives(name, with_bias, (input, weight, bias), geometry)


def _of_conv_local(geometry: Geometry) -> Iterator[Proof]:
    """Against eq. 2 on the shipped `unfold`, which is proven by itself, with a weight per output position."""
    input, weight, bias, output = shapes_of(geometry)
    weight = (*weight, *output[2:])
    options = {"stride": geometry.stride, "padding": geometry.padding, "dilation": geometry.dilation}
    local = named("conv_local", partial(jaxconv.conv_local, **options, groups=geometry.groups))

    def definition(x, w, b):
        u = jaxconv.unfold(x, geometry.kernel, **options)
        columns = u.reshape(input[0], geometry.groups, -1, u.shape[2])
        rows = w.reshape(geometry.groups, weight[0] // geometry.groups, columns.shape[2], -1)
        product = (rows[None] * columns[:, :, None]).sum(3)
        return product.reshape(output) + b.reshape(-1, *(1,) * geometry.rank)

    where = str(geometry)
    yield Proof("conv_local", "is its definition", where, partial(prove_equal, local, definition, input, weight, bias))
    yield from derivatives("conv_local", local, (input, weight, bias), geometry)
    own = named("conv_local", lambda x, w, b: local(x, w, b))
    shapes = (input, weight, output[1:])
    yield Proof("conv_local", "VJP with a bias a position", where, partial(prove_vjp, own, *shapes))


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
        padded = named(f"conv2d, {mode}", partial(jaxconv.conv2d, padding=pads, stride=(2, 1), padding_mode=mode))
        picked = named(
            "of picked cells", lambda x, w, b, r=rows, c=columns: jaxconv.conv2d(x[:, :, r][..., c], w, b, (2, 1))
        )
        where = "1,2,4x3 by 2x3"
        yield Proof("conv2d", f"{mode} padding is its definition", where, partial(prove_equal, padded, picked, *shapes))
        yield from derivatives("conv2d", padded, shapes, where, f" with {mode} padding")


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
            last = named(f"{function.__name__}, channels last by {engine}", given)

            def moved(x, w, b, function=function, options=options):
                first = function(jnp.moveaxis(x, -1, 1), w, b, **options, engine="materialise")
                return jnp.moveaxis(first, 1, -1)

            where, told = f"{shapes} {options}", f"channels last by {engine}"
            is_first = partial(prove_equal, last, named("channels first", moved), *shapes)
            yield Proof(function.__name__, f"{told} is channels first", where, is_first)
            yield Proof(function.__name__, f"VJP with {told}", where, partial(prove_vjp, last, *shapes))


def _of_halves() -> Iterator[Proof]:
    """16-bit numbers, which are copied and put as bits, by every engine against float32: the same sums, before any rounding."""
    calls: tuple[tuple[Callable, tuple, dict[str, Any]], ...] = (
        (jaxconv.conv2d, ((1, 2, 3, 3), (2, 2, 2, 2), (2,)), {"padding": ((1, 0), (0, 1))}),
        (jaxconv.conv_transpose1d, ((1, 2, 3), (2, 1, 3), (2,)), {"stride": 2, "padding": 1, "groups": 2}),
    )
    for (function, shapes, options), dtype in itertools.product(calls, (jnp.bfloat16, jnp.float16)):
        structs = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]

        def single(x, w, b, function=function, options=options):
            wide = (array.astype(jnp.float32) for array in (x, w, b))
            return function(*wide, **options, engine="materialise").astype(x.dtype)

        for engine in engines.NAMES:
            half = named(f"{function.__name__} by {engine}", partial(function, **options, engine=engine))
            where, told = f"{shapes} {options}", f"{jnp.dtype(dtype).name} by {engine}"
            is_single = partial(prove_equal, half, named("float32", single), *structs)
            yield Proof(function.__name__, f"{told} is float32", where, is_single)
            yield Proof(function.__name__, f"VJP in {told}", where, partial(prove_vjp, half, *structs))


def _of_vmap() -> Iterator[Proof]:
    """`jax.vmap`, which has rules of its own here, against a batch, and against one sample after the other."""
    calls: tuple[tuple[Callable, tuple, dict[str, Any]], ...] = (
        (jaxconv.conv2d, ((3, 2, 3, 2), (2, 2, 2, 2), (2,)), {"stride": (2, 1), "padding": ((1, 0), (0, 1))}),
        (jaxconv.conv_transpose1d, ((3, 4, 2), (4, 1, 3), (2,)), {"stride": 2, "padding": 1, "groups": 2}),
    )
    for function, shapes, options in calls:
        layer = partial(function, **options)
        name, where = function.__name__, f"{shapes} {options}"
        mapped = named(f"vmap of {name}", jax.vmap(layer, (0, None, None)))
        whole = named(f"{name} of a batch", layer)
        yield Proof("vmap", f"{name} of every sample", where, partial(prove_equal, mapped, whole, *shapes))
        yield Proof("vmap", f"VJP of {name} of every sample", where, partial(prove_vjp, mapped, *shapes))
        output = jax.eval_shape(layer, *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).shape

        def gradients(x, w, b, g, layer=layer):
            return jax.vjp(layer, x, w, b)[1](g)

        def one_by_one(x, w, b, g, gradients=gradients):
            rows = [gradients(x[at], w, b, g[at]) for at in range(x.shape[0])]
            return tuple(map(jnp.stack, zip(*rows, strict=True)))

        each = named(f"vmap of the VJP of {name}", jax.vmap(gradients, (0, None, None, 0)))
        alone = named("sample by sample", one_by_one)
        told = f"the gradients of {name} for every sample"
        yield Proof("vmap", told, where, partial(prove_equal, each, alone, *shapes, output))


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
        ours = with_arguments(f"jaxconv.lax.{name}", getattr(jaxconv.lax, name), arguments, options)
        theirs = with_arguments(f"jax.lax.{name}", getattr(jax.lax, name), arguments, options)
        where = f"{shapes} {arguments} {options}"
        yield Proof(f"lax.{name}", "is jax.lax's", where, partial(prove_equal, ours, theirs, *shapes))
        yield from derivatives(f"lax.{name}", ours, shapes, where)
