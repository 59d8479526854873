"""Proves or refutes that the backward pass JAX runs for a function is its derivative, and that two functions are equal.

The functions' own jaxprs run on symbols (`interpreter`), so a `custom_vjp` is judged by the rule that it really has. The
truth is the derivative of the forward jaxpr's exact output, taken here. Both are exact expressions, compared entry by
entry: an equality holds for all real inputs of these shapes, away from ties of max, min, abs and other comparisons.
"""

import functools
import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
from sympy.polys.rings import PolyElement

import derivations.rules  # noqa: F401  registers the rules
from derivations.check import Counterexample
from derivations.exact import NOISE, Exact, NotReal, OutOfAtoms, Undecidable
from derivations.indices import polynomial_sum
from derivations.interpreter import evaluate_jaxpr, exact_array

Shape = Sequence[int] | jax.ShapeDtypeStruct
Entry = tuple[str, tuple[int, ...], Any, Any]  # of what, at which index, as computed, as it should be


@dataclass(frozen=True)
class Verdict:
    """What was proven of a function, or what refutes it.

    Attributes:
        outcome: "proven"; "refuted", with a `counterexample`; or "undecided", where an equality is not one of rational
            functions and could be neither shown nor disproven. Only the first is true as a `bool`.
        statement: what was to be proven, with the shapes.
        entries: how many entries were compared.
        regions: in how many regions between ties of max, min, abs and other comparisons it was proven; None where nothing
            is compared, so that there is but one.
        counterexample: the first entry that differs: argument, index, what the code computes, what is true.
        doubt: where undecided, the entry and how far numbers agreed.
    """

    outcome: Literal["proven", "refuted", "undecided"]
    statement: str
    entries: int
    regions: int | None
    counterexample: Counterexample | None = None
    doubt: str | None = None

    def __bool__(self) -> bool:
        return self.outcome == "proven"

    def __str__(self) -> str:
        if self.counterexample is not None:
            return f"refuted: {self.statement}\n  {self.counterexample}"
        if self.doubt is not None:
            return f"undecided: {self.statement}\n  {self.doubt}"
        where = "for all real inputs of these shapes where it is defined"
        if self.regions is not None:
            regions = f"{self.regions} region{'s' * (self.regions != 1)}"
            where = f"in the {regions} between ties of its comparisons that sampling found"
        return f"proven: {self.statement} ({self.entries} entries, exactly, {where})"


def prove_vjp(
    fun: Callable[..., Any], *shapes: Shape, argnums: int | Sequence[int] | None = None, regions: int = 24
) -> Verdict:
    """Proves or refutes that `jax.vjp` of `fun` is the derivative of `fun`, for all real inputs of the given shapes.

    Both of what `jax.vjp` gives are compared: the output, since a rule's forward pass computes its own, and the gradients;
    those of all arguments at once, and of each alone, since a rule may look at which are asked for.

    Args:
        fun: a function of arrays that gives an array or a pytree of arrays; `jax.custom_vjp` or not. What is no array
            of floating point comes in through a closure.
        shapes: the shape of each argument, a tuple of ints (then float32) or a `jax.ShapeDtypeStruct`.
        argnums: the arguments to differentiate with respect to, at once; default all, and then each alone too.
        regions: where `fun` compares its inputs, its pieces are proven one by one, at this many generic points, at least 1, of
            magnitudes up to 1e4. A piece that none of them lies in is not proven.

    Returns:
        A `Verdict`, true where proven.

    Raises:
        UnsupportedPrimitive: `fun` uses a primitive that no rule covers; the message says how to add one.
        TypeError: an argument is not floating point, or a shape is none.
        ValueError: there is nothing to differentiate, or no entry in it.
    """
    structs = [_struct(position, shape) for position, shape in enumerate(shapes)]
    choices = _choices(argnums, len(structs))
    names = _argument_names(fun, len(structs))
    forward, outputs = jax.make_jaxpr(fun, return_shape=True)(*structs)
    cotangents, tree = jax.tree.flatten(outputs)
    _require_floating("the output", cotangents)
    if not any(math.prod(structs[place].shape) for chosen in choices for place in chosen):
        raise ValueError(f"the arguments to differentiate with respect to have no entries: {_shapes(structs)}")

    def pull(chosen, arguments, flat_cotangents):
        def of_chosen(*values):
            full = list(arguments)
            for place, value in zip(chosen, values, strict=True):
                full[place] = value
            return fun(*full)

        output, pullback = jax.vjp(of_chosen, *(arguments[place] for place in chosen))
        return output, pullback(jax.tree.unflatten(tree, flat_cotangents))

    backward = [jax.make_jaxpr(functools.partial(pull, chosen))(structs, cotangents) for chosen in choices]
    labels = [*names, *([f"G{i}" for i in range(len(cotangents))] if len(cotangents) > 1 else ["G"])]

    def compare(exact: Exact) -> Iterator[Entry]:
        arrays = _generators(exact, [*structs, *cotangents])
        arguments, weights = arrays[: len(structs)], arrays[len(structs) :]
        results = [exact_array(exact, result) for result in evaluate_jaxpr(exact, forward, *arguments)]
        products = (
            weight[at] * _finite(result[at])
            for weight, result in zip(weights, results, strict=True)
            for at in np.ndindex(weight.shape)
        )
        slopes = iter(exact.gradient(polynomial_sum(exact.ring, products)))
        truth = [{at: next(slopes) for at in np.ndindex(struct.shape)} for struct in structs]
        for chosen, jaxpr in zip(choices, backward, strict=True):
            pulled = [exact_array(exact, array) for array in evaluate_jaxpr(exact, jaxpr, *arrays)]
            alone = f" (of {names[chosen[0]]} alone)" if len(chosen) < len(choices[0]) else ""
            for number, (output, result) in enumerate(zip(pulled, results, strict=False)):
                for at in np.ndindex(result.shape):
                    yield (
                        f"output{number if len(results) > 1 else ''} of the forward rule{alone}",
                        at,
                        output[at],
                        result[at],
                    )
            for place, computed in zip(chosen, pulled[len(results) :], strict=True):
                for at, true in truth[place].items():
                    yield f"∂L/∂{names[place]}{alone}", at, computed[at], true

    statement = f"the VJP of {_name(fun)} at {_shapes(structs)}"
    return _judge(statement, labels, [*structs, *cotangents], compare, regions)


def prove_equal(f: Callable[..., Any], g: Callable[..., Any], *shapes: Shape, regions: int = 24) -> Verdict:
    """Proves or refutes that two functions give the same arrays, for all real inputs of the given shapes.

    Args:
        f, g: functions of arrays that give an array or a pytree of arrays; `g` is taken for the truth.
        shapes, regions: as in `prove_vjp`.

    Raises:
        UnsupportedPrimitive: as `prove_vjp`.
        TypeError: an argument or an output is not floating point.
        ValueError: the outputs have different structures or shapes.
    """
    structs = [_struct(position, shape) for position, shape in enumerate(shapes)]
    first, shape_f = jax.make_jaxpr(f, return_shape=True)(*structs)
    second, shape_g = jax.make_jaxpr(g, return_shape=True)(*structs)
    outputs, tree_f = jax.tree.flatten(shape_f)
    others, tree_g = jax.tree.flatten(shape_g)
    _require_floating("the output", outputs)
    if tree_f != tree_g or [o.shape for o in outputs] != [o.shape for o in others]:
        raise ValueError(f"the outputs differ in shape: {shape_f} of {_name(f)}, {shape_g} of {_name(g)}")

    def compare(exact: Exact) -> Iterator[Entry]:
        arrays = _generators(exact, structs)
        computed, true = (
            [exact_array(exact, array) for array in evaluate_jaxpr(exact, jaxpr, *arrays)] for jaxpr in (first, second)
        )
        for number, (left, right) in enumerate(zip(computed, true, strict=True)):
            for at in np.ndindex(left.shape):
                yield f"output{number if len(computed) > 1 else ''}", at, left[at], right[at]

    statement = f"{_name(f)} = {_name(g)} at {_shapes(structs)}"
    return _judge(statement, _argument_names(f, len(structs)), structs, compare, regions)


def prove_definition(
    fun: Callable[..., Any], definition: Callable[..., np.ndarray], *shapes: Shape, regions: int = 24
) -> Verdict:
    """Proves or refutes that `fun` gives what a definition says, for all real inputs of the given shapes.

    Args:
        fun: a function of arrays that gives one array.
        definition: a function of NumPy arrays, written with loops and `+`, `-` and `*` alone. It is called with arrays of
            symbols and gives an array of the shape of `fun`'s.
        shapes, regions: as in `prove_vjp`.
    """
    structs = [_struct(position, shape) for position, shape in enumerate(shapes)]
    jaxpr, output = jax.make_jaxpr(fun, return_shape=True)(*structs)
    _require_floating("the output", [output])

    def compare(exact: Exact) -> Iterator[Entry]:
        arrays = _generators(exact, structs)
        computed = exact_array(exact, evaluate_jaxpr(exact, jaxpr, *arrays)[0])
        true = np.asarray(definition(*arrays), object)
        if true.shape != computed.shape:
            raise ValueError(f"the definition gives shape {true.shape}, {_name(fun)} gives {computed.shape}")
        for at in np.ndindex(computed.shape):
            yield "output", at, computed[at], exact.ring(true[at])

    statement = f"{_name(fun)} is its definition at {_shapes(structs)}"
    return _judge(statement, _argument_names(fun, len(structs)), structs, compare, regions)


def _judge(
    statement: str,
    labels: Sequence[str],
    structs: Sequence[Any],
    compare: Callable[[Exact], Iterator[Entry]],
    regions: int,
) -> Verdict:
    """Runs `compare` at generic points, with as much room for atoms as it takes."""
    if isinstance(regions, bool) or not isinstance(regions, int) or regions < 1:
        raise ValueError(f"`regions` must be an int that is at least 1, got {regions!r}")
    names = [
        f"{label}{list(at)}" for label, struct in zip(labels, structs, strict=True) for at in np.ndindex(struct.shape)
    ]
    room, seen, entries, seed, doubt, reason = 0, set(), 0, 0, None, "no point was tried"
    while seed < regions:
        exact = Exact(names, room, seed)
        try:
            found, found_doubt, compared = _compare_entries(exact, compare(exact), statement)
        except OutOfAtoms:
            room = max(32, 4 * room)
            continue
        except NotReal as error:
            seed, reason = seed + 1, f"no point was found at which every value is real: {error}"
            continue
        except Undecidable as error:
            return Verdict("undecided", statement, entries, None, doubt=f"no rule decides {error}")
        if found is not None:
            return Verdict("refuted", statement, compared, None, found)
        if not compared:
            raise ValueError(f"there is nothing to compare: {statement} has no entries")
        doubt = doubt or found_doubt
        if tuple(exact.decisions) not in seen:
            seen.add(tuple(exact.decisions))
            entries += compared
        if not exact.decisions and not doubt:
            break
        seed += 1
    doubt = doubt or (None if seen else reason)
    pieces = None if seen == {()} else len(seen)
    return Verdict("undecided" if doubt else "proven", statement, entries, pieces, doubt=doubt)


def _compare_entries(
    exact: Exact, entries: Iterator[Entry], where: str
) -> tuple[Counterexample | None, str | None, int]:
    """The first entry that differs, or the first that nothing decides, and how many were compared."""
    doubt, compared = None, 0
    for argument, at, computed, true in entries:
        compared += 1
        if not isinstance(computed, PolyElement) or not isinstance(true, PolyElement):
            if computed != true and not (computed != computed and true != true):  # NaN on both sides is the same
                return Counterexample(argument, at, where, str(computed), str(true), _point(exact)), None, compared
            continue
        difference = computed - true
        if exact.vanishes(difference):
            continue
        gap, scale = (None, None) if exact.is_rational(difference) else exact.value_and_scale(difference)
        if gap is None or abs(gap) > NOISE * scale:
            shown = _shown(exact, computed), _shown(exact, true)
            return Counterexample(argument, at, where, *shown, _point(exact)), None, compared
        doubt = doubt or (
            f"{argument}{list(at)}: {_shown(exact, computed)} and {_shown(exact, true)} agree to 40 digits at a generic "
            "point, but no rule decides whether they are equal"
        )
    return None, doubt, compared


def _shown(exact: Exact, value: PolyElement) -> str:
    """`value` in full where that can be read, else its beginning and what it comes to at the generic point."""
    text = exact.text(value)
    return (
        text if len(text) <= 160 else f"{text[:120]}… (about {mpmath.nstr(exact.value(value), 9)} at a generic point)"
    )


def _point(exact: Exact) -> str:
    """The generic point where its comparisons decided something, its first few inputs."""
    if not exact.decisions:
        return ""
    values = zip(exact.names, exact.inputs, strict=True)
    told = [f"{name} = {mpmath.nstr(exact.value(value), 4)}" for name, value in itertools.islice(values, _FEW_INPUTS)]
    return ", ".join(told) + (", …" if len(exact.names) > _FEW_INPUTS else "")


_FEW_INPUTS = 6


def _finite(value: Any) -> PolyElement:
    if not isinstance(value, PolyElement):
        raise NotReal(f"the function gives {value}, which has no derivative")
    return value


def _generators(exact: Exact, structs: Sequence[Any]) -> list[np.ndarray]:
    """The inputs of `exact` as arrays of these shapes, in order."""
    inputs = iter(exact.inputs)
    arrays = []
    for struct in structs:
        array = np.empty(struct.shape, object)
        for at in np.ndindex(struct.shape):
            array[at] = next(inputs)
        arrays.append(array)
    return arrays


def _struct(position: int, shape: Shape) -> jax.ShapeDtypeStruct:
    if isinstance(shape, jax.ShapeDtypeStruct):
        struct = shape
    elif isinstance(shape, Sequence) and all(isinstance(size, int) for size in shape):
        struct = jax.ShapeDtypeStruct(tuple(shape), jnp.float32)
    else:
        raise TypeError(f"shape {position} must be a tuple of ints or a jax.ShapeDtypeStruct, got {shape!r}")
    _require_floating(f"argument {position}", [struct])
    return struct


def _require_floating(what: str, structs: Sequence[Any]) -> None:
    for struct in structs:
        if not jnp.issubdtype(struct.dtype, jnp.floating):
            raise TypeError(f"{what} must be floating point, got {struct.dtype}; close over what is not")


def _choices(argnums: int | Sequence[int] | None, count: int) -> list[list[int]]:
    """Which arguments to differentiate by, one choice after the other."""
    if argnums is None:
        together = list(range(count))
        return [together, *([place] for place in together)] if count > 1 else [together]
    places = [argnums] if isinstance(argnums, int) else list(argnums)
    if not all(isinstance(place, int) for place in places):
        raise TypeError(f"`argnums` must be an int or a sequence of them, got {argnums!r}")
    if not places or any(not -count <= place < count for place in places):
        raise ValueError(f"`argnums` must be among the {count} arguments that have a shape, got {argnums}")
    return [[place % count for place in places]]


def _argument_names(fun: Callable, count: int) -> list[str]:
    """What `fun` calls its arguments, as far as it says so."""
    try:
        parameters = list(inspect.signature(fun).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    told = [parameter.name for parameter in parameters if parameter.kind in plain][:count]
    names = told + [f"x{place}" for place in range(len(told), count)]
    return [f"{name}_" if name == "G" else name for name in names]  # G is the cotangent


def _name(fun: Callable) -> str:
    fun = fun.func if isinstance(fun, functools.partial) else fun
    return getattr(fun, "__name__", None) or type(fun).__name__


def _shapes(structs: Sequence[Any]) -> str:
    return ", ".join(str(struct.shape) for struct in structs)
