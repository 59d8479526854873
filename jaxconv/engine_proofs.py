"""What is proven of the engines themselves, whoever chooses them, and of the batch taken in parts."""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from derivations.equations import Layer
from derivations.index_sets import Geometry
from derivations.prove import prove_definition, prove_equal, prove_vjp
from jaxconv.batches import image_by_parts, mapped_by_parts, sum_by_parts
from jaxconv.convolution import Convolution
from jaxconv.engines import materialise
from jaxconv.platforms import IMAGES
from jaxconv.primitive import ACCELERATOR
from jaxconv.statements import Proof, definition_of, named, shapes_of
from jaxconv.window import Window

# Bytes of a tile, so few that every loop over tiles is run, and its last tile moved back.
_TILE = 160
_BY_CHANNELS = Geometry(1, 1, (2, 1), (4, 3), (8, 8), (2, 1), (1, 1), ((4, 3), (4, 3)))
# What one engine alone must be proven on as well, and what is static about it.
OWN: tuple[tuple[str, Geometry, dict[str, Any]], ...] = (
    # Depthwise rows so long that the gradient of the weight is taken row by row.
    ("taps", Geometry(1, 2, (1, 1), (3, 41), (2, 2), (2, 1), (1, 1), ((1, 0), (0, 0))), {"tile": 2**23}),
    # And short ones, of which some channels are moved behind at a time.
    ("taps", Geometry(2, 3, (1, 1), (4, 3), (2, 2), (2, 1), (1, 1), ((1, 0), (0, 0))), {"tile": 640}),
    # Channels last: tiles of rows, in calls and with channels moved.
    (
        "taps",
        Geometry(1, 1, (2, 1), (5, 3), (2, 2), (1, 1), (1, 1), ((1, 1), (0, 1))),
        {"tile": 40, "channels_last": True, "calls": True},
    ),
    (
        "taps",
        Geometry(1, 2, (1, 2), (5, 3), (2, 2), (2, 1), (1, 1), ((1, 0), (1, 0))),
        {"tile": 40, "channels_last": True, "channels_moved": True},
    ),
    # And of images moved as a whole, of many taps.
    (
        "taps",
        Geometry(1, 1, (1, 1), (3, 2), (13, 5), (2, 1), (1, 1), ((6, 6), (2, 2))),
        {"tile": 2**23, "channels_last": True, "channels_moved": True},
    ),
    (
        "fold",
        Geometry(1, 2, (1, 1), (3, 2), (2, 2), (1, 1), (1, 1), ((1, 0), (0, 1))),
        {"channels_last": True, "channels_moved": True},
    ),
    # On an accelerator: a sum of its own for every tap and channel, and the same with channels last.
    (
        "taps",
        Geometry(2, 2, (2, 1), (5, 3), (2, 2), (2, 1), (1, 1), ((1, 0), (0, 1))),
        {"platform": ACCELERATOR},
    ),
    (
        "taps",
        Geometry(1, 2, (1, 2), (3, 4), (2, 2), (1, 2), (1, 1), ((1, 0), (0, 1))),
        {"platform": ACCELERATOR, "channels_last": True},
    ),
    # One product of all samples.
    ("batched", Geometry(2, 1, (3, 2), (2, 3), (1, 1), (1, 1), (1, 1), ((0, 0), (0, 0))), {"channels_last": True}),
    # A stride that divides the kernel on one axis and on both, with cells that no window reads.
    ("phases", Geometry(1, 2, (1, 2), (7, 4), (4, 2), (2, 1), (1, 1), ((1, 2), (0, 1))), {}),
    ("phases", Geometry(1, 1, (2, 1), (8, 6), (4, 3), (2, 3), (1, 1), ((1, 0), (0, 1))), {}),
    # Two blocks that share a tap and two that do not, also of the phases of a stride.
    ("blocks", Geometry(1, 1, (2, 1), (6,), (5,), (1,), (1,), ((2, 1),)), {"unfolded": 2}),
    ("blocks", Geometry(2, 2, (1, 2), (7,), (4,), (1,), (2,), ((1, 2),)), {"unfolded": 2, "channels_last": True}),
    ("phases", Geometry(1, 1, (1, 2), (9,), (6,), (2,), (1,), ((1, 0),)), {"unfolded": 2}),
    # Two blocks of zeros around a signal that the products leave out, at both ends.
    ("blocks", Geometry(1, 1, (1, 1), (2,), (6,), (1,), (1,), ((4, 4),)), {"unfolded": 3, "tile": 2**23}),
    # Windows of four cells, whose roots of unity are exact: several of them, some beside each other for a dilation, in tiles,
    # whose products are taken in turns, and in one.
    ("fourier", Geometry(2, 1, (2, 1), (7,), (2,), (1,), (1,), ((1, 1),)), {"unfolded": 4}),
    ("fourier", Geometry(1, 2, (1, 2), (6,), (3,), (1,), (2,), ((2, 1),)), {"unfolded": 4, "tile": 2**23}),
    ("fourier", Geometry(1, 2, (2, 1), (6,), (2,), (1,), (1,), ((0, 1),)), {"unfolded": 4, "channels_last": True}),
    ("phases", Geometry(1, 1, (1, 1), (9,), (4,), (2,), (1,), ((1, 0),)), {"unfolded": 4}),
    # An input gradient at a stride, channel by channel, also with channels last.
    ("fold", _BY_CHANNELS, {"tile": 1600}),
    ("fold", _BY_CHANNELS, {"tile": 1600, "channels_last": True}),
    # Tiles of two positions, whose stride is seen where the axis is unfolded.
    ("fold", Geometry(1, 1, (1, 1), (9,), (2,), (2,), (1,), ((1, 0),)), {"tile": 24}),
)


def _of_channels_first(engine: Any, part: str, convolution: Convolution) -> Callable[..., Array]:
    """An engine's function as one of images with channels first, and to one."""

    def function(*arrays: Array) -> Array:
        moved = (convolution.as_given(array) if at in IMAGES[part] else array for at, array in enumerate(arrays))
        result = getattr(engine, part)(convolution, *moved)
        return result if part == "weight_gradient" else convolution.channels_second(result)

    return function


def of_engine(name: str, geometry: Geometry, **options: Any) -> Iterator[Proof]:
    """The engine's three functions themselves, whoever chooses them, and `fold` with every number of axes unfolded."""
    engine = importlib.import_module(f"jaxconv.engines.{name}")
    layer, sizes = Layer(geometry.rank), geometry.index_set()
    window = Window(geometry.kernel, geometry.stride, geometry.padding, geometry.dilation)
    options = {"tile": _TILE} | options
    convolution = Convolution(
        window, geometry.spatial, geometry.groups, None, jnp.dtype("float32"), jnp.float32, **options
    )
    input, weight, bias, output = shapes_of(geometry)
    tensors = (layer.input, layer.weight, layer.bias)
    table = (
        ("output", layer.convolution, layer.output, tensors, (input, weight, bias), output),
        ("input_gradient", layer.input_claim, layer.input, (layer.weight, layer.cotangent), (weight, output), input),
        ("weight_gradient", layer.weight_claim, layer.weight, (layer.input, layer.cotangent), (input, output), weight),
    )
    layout = "".join(f", {key}".replace("_", " ") for key, value in options.items() if value is True)
    layout += ", on an accelerator" if convolution.on_accelerator else ""
    for unfolded in range(1 + geometry.rank) if name == "fold" else [convolution.unfolded]:
        inner = replace(convolution.of_phases if name == "phases" else convolution, unfolded=unfolded)
        of = "axes unfolded" if name == "fold" else "cells a window" if inner.has_frequencies else "blocks"
        told = layout + (f", {unfolded} {of}" if unfolded else "")
        strides = {"output": (), "input_gradient": geometry.stride, "weight_gradient": geometry.stride[unfolded:]}
        for part, source, result, tensors, shapes, shape in table:
            if name == "fold" and unfolded and max((1, *strides[part])) > 1:
                # Then it is the same whatever is to be unfolded.
                continue
            function = _of_channels_first(engine, part, replace(convolution, unfolded=unfolded))
            function = named(f"{name}.{part}", function)
            truth, where = definition_of(source, sizes, result, tensors, shape), str(geometry)
            what = part.replace("_", " ")
            definition = partial(prove_definition, function, truth, *shapes)
            yield Proof(f"engine {name}", f"{what} is its definition{told}", where, definition)
            yield Proof(f"engine {name}", f"VJP of {what}{told}", where, partial(prove_vjp, function, *shapes))


def of_batches() -> Iterator[Proof]:
    """A batch in parts against the whole of it, of the readable engine."""
    window = Window((2,), (1,), ((1, 0),), (1,))
    whole = Convolution(window, (3,), 1, None, jnp.dtype("float32"), jnp.float32)
    input, weight, output = (6, 1, 3), (2, 1, 2), (6, 2, 3)
    by_parts = {
        "output": (image_by_parts(materialise.output, 0), (input, weight, output[1:2])),
        "input_gradient": (image_by_parts(materialise.input_gradient, 1), (weight, output)),
        "weight_gradient": (sum_by_parts(materialise.weight_gradient), (input, output)),
    }
    where = "6 samples in 3 parts"
    for part, (function, shapes) in by_parts.items():
        parted = named(f"{part} by parts", partial(function, replace(whole, parts=3)))
        plain = named(part, partial(getattr(materialise, part), whole))
        what = part.replace("_", " ")
        yield Proof("batch in parts", f"{what} is that of all", where, partial(prove_equal, parted, plain, *shapes))
        yield Proof("batch in parts", f"VJP of {what}", where, partial(prove_vjp, parted, *shapes))

    def of_each(x, g):
        return jnp.stack([materialise.weight_gradient(whole, x[at], g[at]) for at in range(6)])

    gradient = jax.ShapeDtypeStruct(weight, jnp.float32)
    mapped = partial(mapped_by_parts, partial(materialise.weight_gradient, whole), gradient, 3)
    gradients = named("weight gradients by parts", mapped)
    shapes = ((6, 1, 1, 3), (6, 1, 2, 3))
    same = partial(prove_equal, gradients, named("one by one", of_each), *shapes)
    yield Proof("batch in parts", "weight gradient of every sample", where, same)
