"""Runs a jaxpr on exact symbolic arrays.

What depends on the inputs is a NumPy array of exact elements (`exact.Exact`). What does not, constants, indices and
conditions, is computed by JAX itself, with its rounding, and becomes exact where it meets a symbol. Each primitive has
one rule for symbols, found by its name in a registry that anybody can extend; a primitive without one raises
`UnsupportedPrimitive`. Nothing is approximated and nothing is guessed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend import core

from derivations.exact import Exact

Value = np.ndarray
Rule = Callable[..., Any]

_RULES: dict[str, Rule] = {}


class UnsupportedPrimitive(NotImplementedError):
    """A jaxpr holds a primitive that no rule is registered for."""

    def __init__(self, name: str):
        super().__init__(
            f"no rule for the primitive `{name}`; add one with\n"
            f"    @derivations.rule({name!r})\n"
            f"    def _(exact, params, *operands): ...\n"
            "which gets object arrays of exact elements (or integer and boolean arrays) and returns one, or a list of them"
        )
        self.name = name


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Registers a function as the rule of the primitives called `names`, in place of what was there.

    The rule is called as `rule(exact, params, *operands)`: `exact` is the arithmetic, `params` the equation's parameters, and
    the operands are arrays. It returns the result, or a list with one result for each output of the primitive.
    """

    def register(function: Rule) -> Rule:
        for name in names:
            _RULES[name] = function
        return function

    return register


def supported() -> tuple[str, ...]:
    """The names of all primitives that have a rule."""
    return tuple(sorted(_RULES))


def evaluate_jaxpr(exact: Exact, jaxpr: Any, *arguments: Value) -> list[Value]:
    """The outputs of a closed jaxpr on exact arrays; those that depend on no symbol are what JAX computes."""
    return _evaluate(exact, jaxpr.jaxpr, jaxpr.consts, arguments)


def exact_array(exact: Exact, array: Any) -> Value:
    """A concrete array as a rule takes it: elements where it is floating point, itself where not.

    Raises:
        TypeError: for a complex or extended dtype, which has no exact counterpart here.
    """
    if is_symbolic(array):
        return array
    if jnp.issubdtype(array.dtype, np.floating):
        return exact.array(np.asarray(array, np.float64))
    if jnp.issubdtype(array.dtype, np.integer) or jnp.issubdtype(array.dtype, np.bool_):
        return np.asarray(array)
    raise TypeError(f"exact arithmetic covers floating point, integers and booleans, got {array.dtype}")


def is_symbolic(value: Value) -> bool:
    """Whether an array holds exact elements, and not concrete numbers."""
    return isinstance(value, np.ndarray) and value.dtype == object


def _evaluate(exact: Exact, jaxpr: Any, consts: Sequence[Value], arguments: Sequence[Value]) -> list[Value]:
    environment: dict[Any, Value] = {}

    def read(atom: Any) -> Value:
        is_literal = isinstance(atom, core.Literal)
        return np.asarray(atom.val, getattr(atom.aval, "dtype", None)) if is_literal else environment[atom]

    environment |= zip(jaxpr.constvars, consts, strict=True)
    environment |= zip(jaxpr.invars, arguments, strict=True)
    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        results = _apply(exact, equation, operands)
        for variable, result in zip(equation.outvars, results, strict=True):
            shape = getattr(variable.aval, "shape", ())
            if result.shape != shape:
                raise AssertionError(f"the rule of `{equation.primitive}` gave shape {result.shape}, expected {shape}")
            environment[variable] = result
    return [read(atom) for atom in jaxpr.outvars]


def _apply(exact: Exact, equation: Any, operands: list[Value]) -> list[Value]:
    name = equation.primitive.name
    if name in _CONTROL:
        results = _RULES[name](exact, equation.params, *operands)
        return results if isinstance(results, list) else [results]
    if not any(map(is_symbolic, operands)) and name not in _BY_RULE:
        result = equation.primitive.bind(*operands, **equation.params)
        return list(result) if equation.primitive.multiple_results else [result]
    if name == "bitcast_convert_type":
        return [_bitcast(exact, operands[0], equation.invars[0].aval, equation.outvars[0].aval)]
    if name not in _RULES:
        raise UnsupportedPrimitive(name)
    operands = _beside_bits(equation, operands)
    result = _RULES[name](exact, equation.params, *(exact_array(exact, operand) for operand in operands))
    results = result if isinstance(result, list) else [result]
    return [_as_array(value) for value in results]


@dataclass(frozen=True)
class Bits:
    """The bits of a floating-point element, which may be moved, and made an element of that dtype again."""

    element: Any
    dtype: Any


def _bitcast(exact: Exact, operand: Value, given: Any, wanted: Any) -> Value:
    """Elements as bits, bits as elements, or bits as bits."""
    if given.shape != wanted.shape:
        raise NotImplementedError(f"`bitcast_convert_type` from {given.dtype} to {wanted.dtype}, of another size")
    to_bits, from_bits = (not jnp.issubdtype(dtype, np.floating) for dtype in (wanted.dtype, given.dtype))

    def one(entry: Any) -> Any:
        if to_bits:
            return entry if from_bits else Bits(entry, given.dtype)
        if not from_bits:
            entry = Bits(entry, given.dtype)
        if not isinstance(entry, Bits):
            return exact.constant(float(np.asarray(entry, f"uint{8 * wanted.dtype.itemsize}").view(wanted.dtype)))
        if entry.dtype != wanted.dtype:
            raise NotImplementedError(f"bits of {entry.dtype} as a number of {wanted.dtype}")
        return entry.element

    result = np.empty(operand.shape, object)
    for at in np.ndindex(operand.shape):
        result[at] = one(operand[at])
    return result


def _beside_bits(equation: Any, operands: list[Value]) -> list[Value]:
    """The operands. Where some hold `Bits`, in arrays whose dtype is one of integers, others of that dtype become arrays that can
    hold both.

    Raises:
        NotImplementedError: the primitive does more with bits than to move them.
    """
    dtypes = [atom.aval.dtype for atom in equation.invars]
    bits = {
        dtype
        for dtype, operand in zip(dtypes, operands, strict=True)
        if is_symbolic(operand) and jnp.issubdtype(dtype, np.integer)
    }
    name = equation.primitive.name
    if bits and name not in _MOVES:
        raise NotImplementedError(f"`{name}` of the bits of floating-point numbers that depend on the inputs")
    return [
        np.asarray(operand).astype(object) if dtype in bits else operand
        for dtype, operand in zip(dtypes, operands, strict=True)
    ]


# Primitives that put entries in other places, and do nothing else with them.
_MOVES = frozenset(
    [
        "broadcast_in_dim",
        "concatenate",
        "copy",
        "copy_p",
        "dynamic_slice",
        "dynamic_update_slice",
        "expand_dims",
        "gather",
        "optimization_barrier",
        "pad",
        "reshape",
        "rev",
        "scatter",
        "select_n",
        "slice",
        "split",
        "squeeze",
        "stack",
        "transpose",
        "unstack",
    ]
)


def _as_array(value: Any) -> Value:
    """A rule's result as an array: NumPy gives a bare element where an array of no axes is meant."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, (bool, int, np.generic)):
        return np.asarray(value)
    scalar = np.empty((), object)
    scalar[()] = value
    return scalar


# Primitives that carry jaxprs, or cannot be run one by one: always by rule, whatever their operands.
_CONTROL = {"jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "remat2", "checkpoint"}
_CONTROL |= {"scan", "while", "cond", "custom_vmap_call", "jaxconv_call"}
_BY_RULE = {"platform_index", "empty", "empty2"}


def _closed(jaxpr: Any) -> Any:
    return jaxpr if hasattr(jaxpr, "consts") else core.ClosedJaxpr(jaxpr, ())


@rule("jit", "pjit", "closed_call", "remat2", "checkpoint")
def _call(exact, params, *operands):
    return evaluate_jaxpr(exact, _closed(params.get("jaxpr", params.get("call_jaxpr"))), *operands)


@rule("custom_jvp_call", "custom_vjp_call")
def _custom_call(exact, params, *operands):
    return evaluate_jaxpr(exact, _closed(params["call_jaxpr"]), *operands)


@rule("custom_vmap_call", "jaxconv_call")
def _mapped_call(exact, params, *operands):
    """A function with a rule of its own for `jax.vmap`, which has been used up where there was one to use."""
    return evaluate_jaxpr(exact, params["call"], *operands)


@rule("cond")
def _cond(exact, params, index, *operands):
    branches = params["branches"]
    return evaluate_jaxpr(exact, branches[int(np.clip(index, 0, len(branches) - 1))], *operands)


@rule("while")
def _while(exact, params, *operands):
    split = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    cond_consts, body_consts = operands[: split[0]], operands[split[0] : split[1]]
    carry = list(operands[split[1] :])
    while bool(evaluate_jaxpr(exact, params["cond_jaxpr"], *cond_consts, *carry)[0]):
        carry = evaluate_jaxpr(exact, params["body_jaxpr"], *body_consts, *carry)
    return carry


@rule("scan")
def _scan(exact, params, *operands):
    consts = operands[: params["num_consts"]]
    carry = list(operands[params["num_consts"] : params["num_consts"] + params["num_carry"]])
    stacked = operands[params["num_consts"] + params["num_carry"] :]
    steps = range(params["length"])
    rows = []
    for step in reversed(steps) if params["reverse"] else steps:
        results = evaluate_jaxpr(exact, params["jaxpr"], *consts, *carry, *(array[step, ...] for array in stacked))
        carry, row = results[: len(carry)], results[len(carry) :]
        rows.append(row)
    if params["reverse"]:
        rows.reverse()
    if not rows:
        avals = params["jaxpr"].out_avals[len(carry) :]
        return [*carry, *(np.empty((0, *aval.shape), aval.dtype) for aval in avals)]
    return [*carry, *(_stacked(exact, [row[at] for row in rows]) for at in range(len(rows[0])))]


def _stacked(exact: Exact, rows: list[Value]) -> Value:
    if any(map(is_symbolic, rows)):
        return np.stack([exact_array(exact, row) for row in rows])
    return np.stack([np.asarray(row) for row in rows])


@rule("platform_index")
def _platform_index(exact, params, *operands):
    """The branch that a CPU would run: a proof is one of what runs there."""
    for index, platforms in enumerate(params["platforms"]):
        if platforms is None or "cpu" in platforms:
            return np.asarray(index, np.int32)
    raise UnsupportedPrimitive("platform_index")
