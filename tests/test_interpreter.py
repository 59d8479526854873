"""The interpreter against JAX itself: each rule, on symbols, has the value that JAX computes at the same point."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from jax import lax

import jaxconv
from derivations import interpreter
from derivations.exact import Exact
from derivations.interpreter import UnsupportedPrimitive, evaluate_jaxpr, exact_array, rule, supported

M = np.arange(6.0).reshape(2, 3)
DIMENSIONS = lax.ConvDimensionNumbers((0, 2, 1), (2, 1, 0), (1, 0, 2))

CASES = {
    "add": (lambda x, y: x + y, (2, 3), (2, 3)),
    "sub, neg": (lambda x, y: -(x - y), (2, 3), (2, 3)),
    "mul, broadcast": (lambda x, y: x * y[:, None], (2, 3), (2,)),
    "div": (lambda x, y: x / (y * y + 1), (3,), (3,)),
    "square": (lax.square, (3,)),
    "integer_pow": (lambda x: x**3 + x**-2, (3,)),
    "pow by a constant": (lambda x: jnp.power(jnp.exp(x), 2.5) + jnp.power(jnp.exp(x), -0.3), (2,)),
    "pow": (lambda x, y: lax.pow(jnp.exp(x), y), (2,), (2,)),
    "pow by an integer": (lambda x: lax.pow(x, jnp.array([2, 3])), (2,)),
    "exp, log": (lambda x: jnp.log(jnp.exp(x) + 1), (3,)),
    "exp2": (jnp.exp2, (2,)),
    "expm1, log1p": (lambda x: jnp.log1p(jnp.expm1(x) ** 2), (2,)),
    "sin, cos, tan": (lambda x: jnp.sin(x) * jnp.cos(x) + jnp.tan(x), (3,)),
    "tanh, logistic": (lambda x: jnp.tanh(x) + jax.nn.sigmoid(x), (3,)),
    "sqrt, rsqrt": (lambda x: jnp.sqrt(x * x + 2) * lax.rsqrt(x * x + 3), (3,)),
    "max, min, abs, sign": (
        lambda x, y: jnp.maximum(x, y) + jnp.minimum(x, 2 * y) * jnp.abs(x) + jnp.sign(y),
        (4,),
        (4,),
    ),
    "clamp": (lambda x: jnp.clip(x, -0.25, 0.25), (6,)),
    "comparisons, select_n": (
        lambda x, y: jnp.where(x > y, x, 2 * y) + jnp.where((x < 0) | (y <= 0), x, 3.0) + jnp.where(x >= y, 1.0, 2.0),
        (5,),
        (5,),
    ),
    "equalities": (lambda x: jnp.where(x == x, x, 7.0) + jnp.where(x != 2 * x, x, 5.0), (2,)),
    "an infinity": (lambda x: jnp.max(x, initial=-jnp.inf) + jnp.where(jnp.isfinite(x), x, 0.0), (3,)),
    "floor, ceil, round": (lambda x: jnp.floor(3 * x) + 10 * jnp.ceil(x) + 100 * jnp.round(5 * x), (5,)),
    "reshape, transpose, rev": (lambda x: x.reshape(3, 4).T[::-1], (2, 6)),
    "squeeze, expand_dims": (lambda x: lax.expand_dims(x[:, 0], (1, 2)), (3, 2)),
    "slice, concatenate": (lambda x: jnp.concatenate([x[1:5:2], x[:1]]), (6,)),
    "stack, unstack": (lambda x: jnp.stack(jnp.unstack(x)[::-1], axis=1), (3, 2)),
    "split": (lambda x: jnp.split(x, [1, 4])[1], (6,)),
    "pad": (lambda x: lax.pad(x, 2.0, ((1, 2, 1), (-1, 1, 0))), (3, 4)),
    "pad, all cropped": (lambda x: lax.pad(x, 2.0, ((-5, 9, 1),)), (3,)),
    "pad, cropped behind": (lambda x: lax.pad(x, 2.0, ((4, -5, 0),)), (3,)),
    "iota": (lambda x: x + jnp.arange(3.0) + lax.broadcasted_iota(jnp.int32, (2, 3), 0), (2, 3)),
    "convert": (lambda x: (x > 0).astype(jnp.float32) + x.astype(jnp.float32).astype(bool), (3,)),
    "convert a constant": (lambda x: x * jnp.asarray(lax.optimization_barrier(jnp.float32(2.5)) + 1, jnp.int32), (2,)),
    "reduce_sum, reduce_prod": (lambda x: x.sum(0) + x.prod(1).sum(), (2, 3)),
    "reduce_max, reduce_min": (lambda x: x.max(1) + x.min(0)[:2], (2, 3)),
    "argmax, argmin": (lambda x: x * jnp.argmax(x, 1)[:, None] + jnp.argmin(x, 0), (3, 3)),
    "an empty sum": (lambda x: x[:0].sum() + x[:0].prod() + x, (2,)),
    "cumsum, cumprod": (lambda x: lax.cumsum(x, 1) + lax.cumprod(x, 0, reverse=True), (2, 3)),
    "cummax, cummin": (lambda x: lax.cummax(x) + 2 * lax.cummin(x, reverse=True), (4,)),
    "dot_general": (lambda x, y: jnp.einsum("bij,bkj->bik", x, y), (2, 2, 3), (2, 2, 3)),
    "dot_general over two axes": (lambda x, y: jnp.einsum("ijk,jki->i", x, y), (2, 3, 2), (3, 2, 2)),
    "conv": (lambda x, w: lax.conv_general_dilated(x, w, (2, 1), ((1, 0), (2, 1))), (1, 2, 4, 3), (2, 2, 3, 2)),
    "conv, dilated": (
        lambda x, w: lax.conv_general_dilated(x, w, (2,), ((2, 1),), lhs_dilation=(3,), rhs_dilation=(2,)),
        (1, 1, 4),
        (2, 1, 2),
    ),
    "conv, feature groups": (
        lambda x, w: lax.conv_general_dilated(x, w, (1,), "SAME", feature_group_count=2),
        (2, 4, 3),
        (4, 2, 2),
    ),
    "conv, batch groups": (
        lambda x, w: lax.conv_general_dilated(x, w, (1,), "VALID", batch_group_count=2),
        (4, 2, 3),
        (4, 2, 2),
    ),
    "conv, cropped": (lambda x, w: lax.conv_general_dilated(x, w, (1,), ((-1, -1),)), (1, 1, 6), (1, 1, 2)),
    "conv, other layouts": (
        lambda x, w: lax.conv_general_dilated(x, w, (1,), ((1, 1),), dimension_numbers=DIMENSIONS),
        (2, 4, 3),
        (2, 3, 5),
    ),
    "reduce_window": (
        lambda x: (
            lax.reduce_window(x, 0.0, lax.add, (2, 2), (1, 2), "SAME")
            + lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (1, 2), "SAME")
        ),
        (3, 4),
    ),
    "reduce_window_min": (lambda x: lax.reduce_window(x, jnp.inf, lax.min, (2, 3), (1, 2), "SAME"), (3, 4)),
    "pooling backwards": (
        lambda x, g: jax.vjp(lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (1, 2), "SAME"), x)[1](g)[0],
        (3, 4),
        (3, 2),
    ),
    "least pooling backwards": (
        lambda x, g: jax.vjp(lambda x: lax.reduce_window(x, jnp.inf, lax.min, (2,), (2,), "VALID"), x)[1](g)[0],
        (5,),
        (2,),
    ),
    "gather": (lambda x: x[jnp.array([2, 0, 2])] + x[0], (3, 2)),
    "gather by pairs": (lambda x: x[jnp.array([0, 1]), jnp.array([2, 1])], (2, 3)),
    "gather with batches": (lambda x: jnp.take_along_axis(x, jnp.array([[2, 0], [1, 1]]), 1), (2, 3)),
    "scatter-add": (lambda x, y: x.at[jnp.array([0, 2, 0])].add(y), (3, 2), (3, 2)),
    "scatter": (lambda x, y: x.at[1:3].set(y), (4,), (2,)),
    "scatter, others": (lambda x: x.at[jnp.array([1, 5])].multiply(3.0).at[0].subtract(2.0), (3,)),
    "dynamic_slice": (lambda x: lax.dynamic_slice(x, (1, 7), (2, 2)), (4, 3)),
    "dynamic_update_slice": (lambda x, y: lax.dynamic_update_slice(x, y, (2,)), (4,), (3,)),
    "sort": (lambda x: jnp.sort(x), (2, 4)),
    "jit, checkpoint": (lambda x: jax.checkpoint(jax.jit(jnp.sin))(x), (2,)),
    "custom_jvp": (lambda x: jax.nn.relu(x), (4,)),
    "custom_vjp": (lambda x: _custom(x), (2,)),
    "custom_vmap": (lambda x: _mapped(x), (2,)),
    "a convolution, which has rules for vmap": (lambda x, w: jaxconv.conv1d(x, w, padding=1), (1, 2, 3), (2, 2, 3)),
    "scan": (lambda x: lax.scan(lambda c, y: (c * y + 1, c - y), x[0], x, reverse=True)[1], (4,)),
    "scan of nothing": (lambda x: lax.scan(lambda c, y: (c * y, c), x[0], x[:0])[0], (3,)),
    "scan by index": (lambda x: lax.scan(lambda c, i: (c + x[i] * i, None), 0.0, jnp.arange(3))[0], (3,)),
    "while": (lambda x: lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * x), (0, x))[1], (2,)),
    "while on a comparison": (lambda x: lax.while_loop(lambda c: c < 3, lambda c: c + 1.25, x[0]), (1,)),
    "fori_loop": (lambda x: lax.fori_loop(0, 3, lambda i, c: c + x[i] * i, x[0]), (3,)),
    "cond": (lambda x: lax.cond(x[0] > x[1], lambda a: a * 2, lambda a: a**2, x), (2,)),
    "switch": (lambda x: lax.switch(9, [lambda a: a, lambda a: 2 * a], x), (2,)),
    "platform": (lambda x: lax.platform_dependent(x, cpu=lambda a: a * 2, default=lambda a: a), (2,)),
    "barrier, stop_gradient": (lambda x: lax.optimization_barrier(x) + lax.stop_gradient(x), (2,)),
    "derivative of a scan": (jax.grad(lambda x: lax.scan(lambda c, y: (jnp.sin(c) * y, c), x[0], x)[0]), (3,)),
    "derivative of max pooling": (jax.grad(lambda x: jnp.sum(jnp.max(x, axis=1) ** 2)), (2, 3)),
}


@jax.custom_vjp
def _custom(x):
    return x * 2


_custom.defvjp(lambda x: (_custom(x), None), lambda _, g: (g,))


@jax.custom_batching.custom_vmap
def _mapped(x):
    return x * 3


_mapped.def_vmap(lambda size, batched, x: (x * 3, True))


def trace(case):
    function, *shapes = CASES[case]
    return jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(shape, np.float64) for shape in shapes))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", [0, 1])
def test_symbols_have_the_value_that_jax_computes(case, seed):
    function, *shapes = CASES[case]
    sizes = [int(np.prod(shape)) for shape in shapes]
    exact = Exact([f"x{number}" for number in range(sum(sizes))], room=64, seed=seed)
    arrays, numbers, at = [], [], 0
    for shape, size in zip(shapes, sizes, strict=True):
        symbols = np.empty(size, object)
        symbols[:] = exact.inputs[at : at + size]
        arrays.append(symbols.reshape(shape))
        numbers.append(np.array([float(exact.value(symbol)) for symbol in symbols]).reshape(shape))
        at += size
    symbolic = exact_array(exact, evaluate_jaxpr(exact, trace(case), *arrays)[0])
    expected = np.asarray(function(*map(jnp.asarray, numbers)))
    assert symbolic.shape == expected.shape
    values = [complex(exact.value(entry)) for entry in symbolic.ravel()]
    np.testing.assert_allclose(values, expected.ravel(), rtol=1e-6, atol=1e-9)


def names_in(jaxpr):
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    yield from names_in(getattr(inner, "jaxpr", inner))


# Names that a primitive has in other versions of JAX, or that only appear on several devices or deep inside of others.
ELSEWHERE = {
    "pjit", "closed_call", "core_call", "remat2", "custom_vjp_call_jaxpr", "scatter_add", "copy", "copy_p", "pvary",
    "stop_gradient", "device_put", "sharding_constraint", "reduce_precision", "empty", "empty2",
    "scatter_sub", "scatter_mul", "expand_dims", "checkpoint",
}  # fmt: skip


def test_every_rule_is_tried():
    tried = {name for case in CASES for name in names_in(trace(case).jaxpr)}
    assert set(supported()) - tried - ELSEWHERE == set()


def test_an_unknown_primitive_is_named_and_can_be_taught():
    function = jax.make_jaxpr(lambda x: lax.erf(x))(jax.ShapeDtypeStruct((2,), np.float64))
    exact = Exact(["a", "b"])
    symbols = np.array(exact.inputs, object)
    with pytest.raises(UnsupportedPrimitive, match=r"no rule for the primitive `erf`; add one with") as caught:
        evaluate_jaxpr(exact, function, symbols)
    assert caught.value.name == "erf"
    rules = interpreter._RULES
    try:
        rule("erf")(lambda exact, params, x: x * x)
        (result,) = evaluate_jaxpr(exact, function, symbols)
        assert list(result) == [symbol**2 for symbol in exact.inputs]
    finally:
        del rules["erf"]


def test_a_rule_of_the_wrong_shape_is_caught():
    function = jax.make_jaxpr(lambda x: lax.erf(x))(jax.ShapeDtypeStruct((2,), np.float64))
    exact = Exact(["a", "b"])
    try:
        rule("erf")(lambda exact, params, x: x[:1])
        with pytest.raises(AssertionError, match=r"the rule of `erf` gave shape \(1,\), expected \(2,\)"):
            evaluate_jaxpr(exact, function, np.array(exact.inputs, object))
    finally:
        del interpreter._RULES["erf"]


def test_complex_numbers_are_refused():
    with pytest.raises(TypeError, match="covers floating point, integers and booleans, got complex"):
        exact_array(Exact([]), np.ones(2, complex))


def test_floats_become_the_rationals_that_they_are():
    exact = Exact([])
    assert exact.number(exact.constant(0.1)) == (0.1).as_integer_ratio()[0] / mpmath.mpf((0.1).as_integer_ratio()[1])
    assert exact.number(exact.constant(np.float32(0.1))) != exact.number(exact.constant(0.1))


def symbols():
    exact = Exact(["x", "y"], room=40)
    return exact, *exact.inputs


def test_relations_of_atoms_are_used():
    exact, x, y = symbols()
    assert exact.vanishes(exact.inverse(x) * x - 1)
    assert exact.vanishes(exact.inverse(x + y) * (x**2 - y**2) - (x - y))
    assert exact.vanishes(exact.inverse(exact.inverse(x + 1)) - x - 1)
    assert exact.vanishes(exact.sqrt(x + y) ** 2 - x - y)
    assert exact.vanishes(exact.inverse(exact.sqrt(x)) * x - exact.sqrt(x))
    assert exact.vanishes(exact.exp(x + 2 * y) - exact.exp(x) * exact.exp(y) ** 2)
    assert exact.vanishes(exact.exp(x - y) * exact.exp(y) - exact.exp(x))
    assert exact.vanishes(exact.exp(exact.log(x + 1)) - x - 1)
    assert exact.vanishes(exact.sin(x) ** 2 + exact.cos(x) ** 2 - 1)


def test_what_is_not_zero_does_not_vanish():
    exact, x, y = symbols()
    for value in (
        x,
        x - y,
        exact.inverse(x) - exact.inverse(y),
        exact.sqrt(x) - x,
        exact.exp(x) - 1 - x,
        exact.sin(x) - x,
    ):
        assert not exact.vanishes(value)


def test_rational_functions_are_told_from_others():
    exact, x, y = symbols()
    assert exact.is_rational(exact.inverse(x + exact.inverse(y)) * x)
    assert not exact.is_rational(exact.inverse(x + exact.exp(y)))


def test_derivatives_of_atoms():
    """Against central differences of the values, at 60 digits."""
    exact, x, y = symbols()
    value = (
        exact.exp(x * y) * exact.inverse(x + 3)
        + exact.sqrt(x + y + 2) * exact.log(x + 2)
        + exact.sin(x) * exact.cos(y * y)
    )
    slopes = exact.gradient(value)
    for place in (0, 1):

        def at(shift, place=place):
            moved = Exact(["x", "y"], room=40)
            moved._point = [*exact._point]
            moved._values = {place: exact._value_at(place) + shift}
            a, b = moved.inputs
            return moved.value(
                moved.exp(a * b) * moved.inverse(a + 3)
                + moved.sqrt(a + b + 2) * moved.log(a + 2)
                + moved.sin(a) * moved.cos(b * b)
            )

        with mpmath.workdps(60):
            step = mpmath.mpf(10) ** -15
            numeric = (at(step) - at(-step)) / (2 * step)
            assert abs(numeric - exact.value(slopes[place])) < mpmath.mpf(10) ** -25


def test_division_by_zero_is_refused():
    exact, x, _ = symbols()
    with pytest.raises(ZeroDivisionError, match="division by zero, exactly"):
        exact.inverse(x - x)
