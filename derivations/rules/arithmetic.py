"""Entry by entry: arithmetic, elementary functions, comparisons, rounding."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import numpy as np

from derivations.interpreter import exact_array, is_symbolic, rule


def elementwise(function: Callable, *operands: np.ndarray) -> np.ndarray:
    """`function` of the entries, which may be exact elements or concrete numbers."""
    result = np.empty(np.broadcast_shapes(*(operand.shape for operand in operands)), object)
    full = [np.broadcast_to(operand, result.shape) for operand in operands]
    for at in np.ndindex(result.shape):
        result[at] = function(*(operand[at] for operand in full))
    return result


def concrete(function: Callable, *operands: np.ndarray, dtype: Any = bool) -> np.ndarray:
    """The same where the results are booleans or integers."""
    return elementwise(function, *operands).astype(dtype)


rule("add", "add_any")(lambda exact, params, x, y: x + y)
rule("sub")(lambda exact, params, x, y: x - y)
rule("mul")(lambda exact, params, x, y: x * y)
rule("neg")(lambda exact, params, x: -x)
rule("square")(lambda exact, params, x: x * x)
rule("div")(lambda exact, params, x, y: x * elementwise(exact.inverse, y))
rule("exp")(lambda exact, params, x: elementwise(exact.exp, x))
rule("exp2")(lambda exact, params, x: elementwise(lambda u: exact.exp(u * exact.log(exact.constant(2))), x))
rule("expm1")(lambda exact, params, x: elementwise(lambda u: exact.exp(u) - 1, x))
rule("log")(lambda exact, params, x: elementwise(exact.log, x))
rule("log1p")(lambda exact, params, x: elementwise(lambda u: exact.log(1 + u), x))
rule("sin")(lambda exact, params, x: elementwise(exact.sin, x))
rule("cos")(lambda exact, params, x: elementwise(exact.cos, x))
rule("tan")(lambda exact, params, x: elementwise(lambda u: exact.sin(u) * exact.inverse(exact.cos(u)), x))
rule("sqrt")(lambda exact, params, x: elementwise(exact.sqrt, x))
rule("rsqrt")(lambda exact, params, x: elementwise(lambda u: exact.inverse(exact.sqrt(u)), x))


@rule("logistic")
def _logistic(exact, params, x):
    """`e^u / (1 + e^u)`: in terms of exp, so that its identities are algebra."""
    return elementwise(lambda u: exact.exp(u) * exact.inverse(1 + exact.exp(u)), x)


@rule("tanh")
def _tanh(exact, params, x):
    """`(e^2u - 1) / (e^2u + 1)`, for the same reason."""
    return elementwise(lambda u: (exact.exp(2 * u) - 1) * exact.inverse(exact.exp(2 * u) + 1), x)


def power(exact: Any, base: Any, exponent: Fraction) -> Any:
    """`base ** exponent` for a rational: roots of two by sqrt, others by exp and log."""
    if exponent < 0:
        return exact.inverse(power(exact, base, -exponent))
    if exponent.denominator == 1:
        return base ** int(exponent)
    if exponent.denominator == 2:
        return exact.sqrt(base) ** int(2 * exponent)
    return exact.exp(exact.constant(exponent) * exact.log(base))


rule("integer_pow")(lambda exact, params, x: elementwise(lambda u: power(exact, u, Fraction(params["y"])), x))


@rule("pow")
def _pow(exact, params, x, y):
    def one(base, exponent):
        known = Fraction(int(exponent)) if isinstance(exponent, (int, np.integer)) else exact.number(exponent)
        return exact.exp(exponent * exact.log(base)) if known is None else power(exact, base, known)

    return elementwise(one, x, y)


# Comparisons: decided at the generic point, see `Exact.sign`.
def compare(exact: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The sign of `x - y`, entry by entry."""

    def sign(a, b):
        if isinstance(a, float) or isinstance(b, float):  # an infinity, or NaN
            left, right = (value if isinstance(value, float) else 0.0 for value in (a, b))
            return (left > right) - (left < right)
        return exact.sign(a - b)

    return concrete(sign, x, y, dtype=int)


rule("eq")(lambda exact, params, x, y: compare(exact, x, y) == 0)
rule("ne")(lambda exact, params, x, y: compare(exact, x, y) != 0)
rule("lt")(lambda exact, params, x, y: compare(exact, x, y) < 0)
rule("le")(lambda exact, params, x, y: compare(exact, x, y) <= 0)
rule("gt")(lambda exact, params, x, y: compare(exact, x, y) > 0)
rule("ge")(lambda exact, params, x, y: compare(exact, x, y) >= 0)


def _choose(x: np.ndarray, y: np.ndarray, first: np.ndarray) -> np.ndarray:
    return elementwise(lambda a, b, left: a if left else b, x, y, first)


rule("max")(lambda exact, params, x, y: _choose(x, y, compare(exact, x, y) >= 0))
rule("min")(lambda exact, params, x, y: _choose(x, y, compare(exact, x, y) <= 0))
rule("abs")(lambda exact, params, x: elementwise(lambda u: u if exact.sign(u) >= 0 else -u, x))
rule("sign")(lambda exact, params, x: elementwise(lambda u: exact.constant(exact.sign(u)), x))
rule("is_finite")(lambda exact, params, x: concrete(lambda u: not isinstance(u, float), x))


@rule("clamp")
def _clamp(exact, params, low, x, high):
    below, above = compare(exact, x, low) < 0, compare(exact, x, high) > 0
    return elementwise(lambda a, b, c, under, over: a if under else c if over else b, low, x, high, below, above)


@rule("select_n")
def _select_n(exact, params, which, *cases):
    return elementwise(lambda number, *values: values[int(number)], which, *cases)


def _locally_constant(exact: Any, x: np.ndarray, rounding: Callable) -> np.ndarray:
    """Rounding to an integer: away from jumps a constant, the one at the generic point."""

    def one(value):
        nearest = rounding(exact.value(value))
        # Noted, so that another region counts as one: on which side of the constant the point lies.
        exact.sign(value - exact.constant(int(nearest)))
        return exact.constant(int(nearest))

    return elementwise(one, x)


rule("floor")(lambda exact, params, x: _locally_constant(exact, x, lambda v: math.floor(v)))
rule("ceil")(lambda exact, params, x: _locally_constant(exact, x, lambda v: math.ceil(v)))
rule("round")(lambda exact, params, x: _locally_constant(exact, x, lambda v: round(v)))


# In exact arithmetic precision is no matter, and neither is where a value lives.
rule("copy", "copy_p", "optimization_barrier", "reduce_precision", "stop_gradient", "pvary")(
    lambda exact, params, *x: list(x)
)
rule("device_put", "sharding_constraint")(lambda exact, params, *x: list(x))


@rule("convert_element_type")
def _convert(exact, params, x):
    target = params["new_dtype"]
    if jnp.issubdtype(target, np.floating):
        return x if is_symbolic(x) else exact_array(exact, x.astype(np.float64))
    if jnp.issubdtype(target, np.bool_):
        return concrete(lambda u: exact.sign(u) != 0, x)

    def integer(value):
        number = exact.number(value)
        if number is None:
            raise NotImplementedError(f"cannot convert {exact.text(value)} to {target}: it depends on the inputs")
        return math.trunc(number)

    return concrete(integer, x, dtype=target)
