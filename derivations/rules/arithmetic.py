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


# An infinity or NaN is a Python float among the elements. It may stand in a branch that is not taken, or in a mask, so
# the rules below carry it along as IEEE arithmetic does, with the sign that the other operand has at the generic point.
def sign_of(exact: Any, value: Any) -> float:
    """-1, 0, 1, or NaN."""
    if isinstance(value, float):
        return math.nan if math.isnan(value) else math.copysign(1, value)
    return exact.sign(value)


def added(exact: Any, a: Any, b: Any) -> Any:
    special = [value for value in (a, b) if isinstance(value, float)]
    return sum(special) if special else a + b


def multiplied(exact: Any, a: Any, b: Any) -> Any:
    if isinstance(a, float) or isinstance(b, float):
        sign = sign_of(exact, a) * sign_of(exact, b)
        return math.nan if sign == 0 or math.isnan(sign) else sign * math.inf
    return a * b


def _inverse(exact: Any, value: Any) -> Any:
    if isinstance(value, float):
        return math.nan if math.isnan(value) else exact.ring.zero
    try:
        return exact.inverse(value)
    except ZeroDivisionError:
        return math.inf


def _exp(exact: Any, value: Any) -> Any:
    if isinstance(value, float):
        return exact.ring.zero if value == -math.inf else value
    return exact.exp(value)


def _log(exact: Any, value: Any) -> Any:
    if isinstance(value, float):
        return value if value > 0 else math.nan
    if exact.vanishes(value):
        return -math.inf
    number = exact.number(value)
    return exact.log(value) if number is None or number > 0 else math.nan


def _sqrt(exact: Any, value: Any) -> Any:
    if isinstance(value, float):
        return math.nan if value < 0 else value
    return exact.sqrt(value)


def _periodic(function: Callable) -> Callable:
    """`function(exact, value)`, which has no limit at infinity."""
    return lambda exact, value: math.nan if isinstance(value, float) else function(exact, value)


def _each(function: Callable) -> Callable:
    """A rule that applies `function(exact, *entries)` to every entry."""
    return lambda exact, params, *x: elementwise(lambda *entries: function(exact, *entries), *x)


rule("add", "add_any")(_each(added))
rule("sub")(_each(lambda exact, a, b: added(exact, a, -b)))
rule("mul")(_each(multiplied))
rule("neg")(_each(lambda exact, u: -u))
rule("square")(_each(lambda exact, u: multiplied(exact, u, u)))
rule("div")(_each(lambda exact, a, b: multiplied(exact, a, _inverse(exact, b))))
rule("exp")(_each(_exp))
rule("exp2")(_each(lambda exact, u: _exp(exact, multiplied(exact, u, exact.log(exact.constant(2))))))
rule("expm1")(_each(lambda exact, u: added(exact, _exp(exact, u), exact.constant(-1))))
rule("log")(_each(_log))
rule("log1p")(_each(lambda exact, u: _log(exact, added(exact, u, exact.ring.one))))
rule("sin")(_each(_periodic(lambda exact, u: exact.sin(u))))
rule("cos")(_each(_periodic(lambda exact, u: exact.cos(u))))
rule("tan")(_each(_periodic(lambda exact, u: multiplied(exact, exact.sin(u), _inverse(exact, exact.cos(u))))))
rule("sqrt")(_each(_sqrt))
rule("rsqrt")(_each(lambda exact, u: _inverse(exact, _sqrt(exact, u))))


def _logistic(exact: Any, value: Any) -> Any:
    """`e^u / (1 + e^u)`: in terms of exp, so that its identities are algebra."""
    if value == math.inf:
        return exact.ring.one
    grown = _exp(exact, value)
    return multiplied(exact, grown, _inverse(exact, added(exact, exact.ring.one, grown)))


rule("logistic")(_each(_logistic))
rule("tanh")(_each(lambda exact, u: added(exact, 2 * _logistic(exact, 2 * u), exact.constant(-1))))


def power(exact: Any, base: Any, exponent: Fraction) -> Any:
    """`base ** exponent` for a rational: roots of two by sqrt, others by exp and log."""
    if isinstance(base, float) and exponent.denominator > 1:
        raise NotImplementedError(f"{base} to the power of {exponent}")
    if exponent < 0:
        return _inverse(exact, power(exact, base, -exponent))
    if exponent == 0:
        return exact.ring.one
    if exponent.denominator == 1:
        return base ** int(exponent)
    if exponent.denominator == 2:
        return exact.sqrt(base) ** int(2 * exponent)
    return _exp(exact, multiplied(exact, exact.constant(exponent), _log(exact, base)))


rule("integer_pow")(lambda exact, params, x: elementwise(lambda u: power(exact, u, Fraction(params["y"])), x))


@rule("pow")
def _pow(exact, params, x, y):
    def one(base, exponent):
        known = Fraction(int(exponent)) if isinstance(exponent, (int, np.integer)) else exact.number(exponent)
        return (
            _exp(exact, multiplied(exact, exponent, _log(exact, base))) if known is None else power(exact, base, known)
        )

    return elementwise(one, x, y)


UNORDERED = 2


# Comparisons: decided at the generic point, see `Exact.sign`.
def compare(exact: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The sign of `x - y`, entry by entry; `UNORDERED` where one of them is NaN."""

    def sign(a: Any, b: Any) -> int:
        known: list[Any] = [value if isinstance(value, (float, int, np.generic)) else None for value in (a, b)]
        if any(value is not None and value != value for value in known):
            return UNORDERED
        if None not in known:
            return int(a > b) - int(a < b)
        if any(value is not None for value in known):  # an infinity and something finite
            left, right = (0.0 if value is None else value for value in known)
            return (left > right) - (left < right)
        return exact.sign(a - b)

    return concrete(sign, x, y, dtype=int)


rule("eq")(lambda exact, params, x, y: compare(exact, x, y) == 0)
rule("ne")(lambda exact, params, x, y: compare(exact, x, y) != 0)
rule("lt")(lambda exact, params, x, y: compare(exact, x, y) == -1)
rule("gt")(lambda exact, params, x, y: compare(exact, x, y) == 1)
rule("le")(lambda exact, params, x, y: np.isin(compare(exact, x, y), (-1, 0)))
rule("ge")(lambda exact, params, x, y: np.isin(compare(exact, x, y), (0, 1)))


def extreme(exact: Any, x: np.ndarray, y: np.ndarray, sign: int) -> np.ndarray:
    """The larger (sign 1) or smaller (-1) of two entries; NaN where one of them is."""

    def one(a, b, order):
        return math.nan if order == UNORDERED else a if order * sign >= 0 else b

    return elementwise(one, x, y, compare(exact, x, y))


rule("max")(lambda exact, params, x, y: extreme(exact, x, y, 1))
rule("min")(lambda exact, params, x, y: extreme(exact, x, y, -1))
rule("clamp")(lambda exact, params, low, x, high: extreme(exact, extreme(exact, x, low, 1), high, -1))
rule("abs")(_each(lambda exact, u: u if sign_of(exact, u) >= 0 else -u))
rule("sign")(_each(lambda exact, u: exact.constant(sign_of(exact, u))))
rule("is_finite")(lambda exact, params, x: concrete(lambda u: not isinstance(u, float), x))


@rule("select_n")
def _select_n(exact, params, which, *cases):
    return elementwise(lambda number, *values: values[int(number)], which, *cases)


def _locally_constant(exact: Any, x: np.ndarray, rounding: Callable) -> np.ndarray:
    """Rounding to an integer: away from jumps a constant, the one at the generic point, which names the piece."""

    def one(value):
        if isinstance(value, float):
            return value
        number = exact.number(value)
        nearest = int(rounding(exact.value(value) if number is None else number))
        if number is None:
            exact.decisions.append(nearest)
        return exact.constant(nearest)

    return elementwise(one, x)


def _round(exact, params, x):
    def away_from_zero(value):
        half_up = math.floor(2 * abs(value) + 1) // 2
        return half_up if value > 0 else -half_up

    to_even = int(params["rounding_method"]) == 1
    return _locally_constant(exact, x, round if to_even else away_from_zero)


rule("floor")(lambda exact, params, x: _locally_constant(exact, x, math.floor))
rule("ceil")(lambda exact, params, x: _locally_constant(exact, x, math.ceil))
rule("round")(_round)


# In exact arithmetic precision is no matter, and neither is where a value lives.
rule("copy", "optimization_barrier", "reduce_precision", "stop_gradient", "pvary")(lambda exact, params, *x: list(x))
rule("device_put", "sharding_constraint")(lambda exact, params, *x: list(x))


@rule("convert_element_type")
def _convert(exact, params, x):
    target = params["new_dtype"]
    if jnp.issubdtype(target, np.floating):
        return x if is_symbolic(x) else exact_array(exact, x.astype(np.float64))
    if jnp.issubdtype(target, np.bool_):
        return concrete(lambda u: sign_of(exact, u) != 0, x)

    def integer(value):
        number = None if isinstance(value, float) else exact.number(value)
        if number is None:
            raise NotImplementedError(f"cannot convert {exact.text(value)} to {target}: it depends on the inputs")
        return math.trunc(number)

    return elementwise(integer, x).astype(np.int64).astype(target)
