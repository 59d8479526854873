"""Runs a jaxpr on exact symbolic arrays.

A floating-point array becomes a NumPy array of exact elements (`exact.Exact`); integers and booleans stay what they are,
so control flow and indices are concrete. Each primitive has one rule, found by its name in a registry that anybody can
extend; a primitive without one raises `UnsupportedPrimitive`. Nothing is approximated and nothing is guessed.
"""

from collections.abc import Callable, Sequence
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
    """The outputs of a closed jaxpr on exact arrays."""
    consts = [exact_array(exact, const) for const in jaxpr.consts]
    return _evaluate(exact, jaxpr.jaxpr, consts, arguments)


def exact_array(exact: Exact, array: Any) -> Value:
    """A numeric array as the interpreter holds it: elements where it is floating point, itself where not.

    Raises:
        TypeError: for a complex or extended dtype, which has no exact counterpart here.
    """
    dtype = getattr(array, "dtype", np.asarray(array).dtype)
    if jnp.issubdtype(dtype, np.floating):
        return exact.array(np.asarray(array, np.float64))
    if jnp.issubdtype(dtype, np.integer) or jnp.issubdtype(dtype, np.bool_):
        return np.asarray(array)
    raise TypeError(f"exact arithmetic covers floating point, integers and booleans, got {dtype}")


def is_symbolic(value: Value) -> bool:
    """Whether an array holds exact elements, and not integers or booleans."""
    return value.dtype == object


def _evaluate(exact: Exact, jaxpr: Any, consts: Sequence[Value], arguments: Sequence[Value]) -> list[Value]:
    environment: dict[Any, Value] = {}

    def read(atom: Any) -> Value:
        return exact_array(exact, atom.val) if isinstance(atom, core.Literal) else environment[atom]

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
    outputs = [getattr(variable.aval, "dtype", None) for variable in equation.outvars]
    concrete = not any(map(is_symbolic, operands)) and not equation.primitive.call_primitive
    if concrete and name not in _CONTROL and not any(_is_floating(dtype) for dtype in outputs):
        # Indices and conditions: what JAX itself computes.
        result = equation.primitive.bind(*operands, **equation.params)
        results = result if equation.primitive.multiple_results else [result]
        return [np.asarray(array) for array in results]
    if name not in _RULES:
        raise UnsupportedPrimitive(name)
    result = _RULES[name](exact, equation.params, *operands)
    results = result if isinstance(result, list) else [result]
    return [_as_array(value) for value in results]


def _as_array(value: Any) -> Value:
    """A rule's result as an array: NumPy gives a bare element where an array of no axes is meant."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, (bool, int, np.generic)):
        return np.asarray(value)
    scalar = np.empty((), object)
    scalar[()] = value
    return scalar


def _is_floating(dtype: Any) -> bool:
    return dtype is not None and jnp.issubdtype(dtype, np.floating)


# Primitives that carry jaxprs: always by rule, whatever their operands.
_CONTROL = {"jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "checkpoint", "remat2"}
_CONTROL |= {"scan", "while", "cond", "custom_vjp_call_jaxpr", "platform_index"}


def _closed(jaxpr: Any) -> Any:
    return jaxpr if hasattr(jaxpr, "consts") else core.ClosedJaxpr(jaxpr, ())


@rule("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2")
def _call(exact, params, *operands):
    return evaluate_jaxpr(exact, _closed(params.get("jaxpr", params.get("call_jaxpr"))), *operands)


@rule("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
def _custom_call(exact, params, *operands):
    return evaluate_jaxpr(exact, _closed(params.get("call_jaxpr", params.get("fun_jaxpr"))), *operands)


@rule("cond")
def _cond(exact, params, index, *operands):
    branches = params["branches"]
    return evaluate_jaxpr(exact, branches[int(np.clip(index, 0, len(branches) - 1))], *operands)


@rule("while")
def _while(exact, params, *operands):
    split = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    cond_consts, body_consts = operands[: split[0]], operands[split[0] : split[1]]
    carry = list(operands[split[1] :])
    while evaluate_jaxpr(exact, params["cond_jaxpr"], *cond_consts, *carry)[0]:
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
        empty = [np.empty((0, *aval.shape), object if _is_floating(aval.dtype) else aval.dtype) for aval in avals]
        return [*carry, *empty]
    return [*carry, *(np.stack([_as_array(row[at]) for row in rows]) for at in range(len(rows[0])))]


@rule("platform_index")
def _platform_index(exact, params, *operands):
    """The branch that a CPU would run."""
    for index, platforms in enumerate(params["platforms"]):
        if platforms is None or "cpu" in platforms:
            return np.asarray(index, np.int32)
    raise UnsupportedPrimitive("platform_index")
