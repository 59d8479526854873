"""A statement that is to be proven of this library, and what one is made of."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from derivations.equations import Claim, Map
from derivations.evaluate import evaluate
from derivations.index_sets import Geometry
from derivations.indices import Tensor
from derivations.prove import Verdict, prove_vjp


@dataclass(frozen=True)
class Proof:
    """One statement: `subject` (a function, or an engine's), what is proven of it, where, and how to find out."""

    subject: str
    statement: str
    geometry: str
    verdict: Callable[[], Verdict]


def definition_of(
    source: Map | Claim, sizes: dict, result: Tensor, tensors: tuple[Tensor, ...], shape: tuple[int, ...]
):
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


def named(name: str, function: Callable) -> Callable:
    def same(*arguments):
        return function(*arguments)

    same.__name__ = name
    return same


def with_arguments(name: str, function: Callable, arguments: tuple, options: dict) -> Callable:
    return named(name, lambda *arrays: function(*arrays, *arguments, **options))


def shapes_of(geometry: Geometry) -> tuple[tuple[int, ...], ...]:
    """Of input, weight, bias and cotangent, as the numeric package takes them."""
    inputs, outputs = (geometry.groups * channels for channels in geometry.channels)
    return (
        (geometry.batch, inputs, *geometry.spatial),
        (outputs, geometry.channels[0], *geometry.kernel),
        (outputs,),
        (geometry.batch, outputs, *geometry.output_sizes()),
    )


def derivatives(
    name: str, function: Callable, shapes: tuple, geometry: Geometry | str, of_what: str = ""
) -> Iterator[Proof]:
    """The registered VJP, and the VJP of that; `of_what` tells the statements from those of the plain function."""
    output = jax.eval_shape(function, *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).shape

    def gradients(*arguments):
        return jax.vjp(function, *arguments[:-1])[1](arguments[-1])

    again = named(f"the VJP of {name}", gradients)
    yield Proof(name, f"VJP{of_what}", str(geometry), partial(prove_vjp, function, *shapes))
    yield Proof(name, f"VJP of the VJP{of_what}", str(geometry), partial(prove_vjp, again, *shapes, output))
