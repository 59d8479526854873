"""What must not be proven, and what must: pairs and rules made to deceive the prover, each of which once did or could."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sympy as sp
from jax import lax

from derivations import UnsupportedPrimitive, check, derive, prove_equal, prove_vjp
from derivations.equations import EQUATION_4, Claim, M, Map, P, R, p, r
from derivations.indices import tensor, total


def with_rule(function, backward, forward=None):
    ruled = jax.custom_vjp(function)
    ruled.defvjp(forward or (lambda *a: (function(*a), a)), lambda saved, g: backward(saved, g))
    return ruled


def _needs_all(x, w):
    return x * w


needs_all = jax.custom_vjp(_needs_all)
needs_all.defvjp(
    lambda x, w: (x.value * w.value, (x.value, w.value, jnp.float32(x.perturbed and w.perturbed))),
    lambda saved, g: (g * saved[1] * saved[2], g * saved[0] * saved[2]),
    symbolic_zeros=True,
)

WRONG_RULES = {
    "the forward rule computes something else": (
        with_rule(lambda x: x**2, lambda s, g: (2 * s[0] * g,), lambda x: (x**3, (x,))),
        [(3,)],
    ),
    "only right when all arguments are perturbed": (needs_all, [(2,), (2,)]),
    "a clip far from zero": (with_rule(lambda x: x, lambda s, g: (jnp.clip(g, -10.0, 10.0),)), [(3,)]),
    "clipped to 6 above, and the rule forgets it": (
        with_rule(lambda x: jnp.clip(x, 0, 6), lambda s, g: (jnp.where(s[0] > 0, g, 0),)),
        [(3,)],
    ),
    "a Huber loss without its tails": (
        with_rule(lambda x: jnp.where(abs(x) < 5, x * x / 2, 5 * (abs(x) - 2.5)), lambda s, g: (g * s[0],)),
        [(3,)],
    ),
    "a root of what is zero, of which everything would follow": (
        with_rule(lambda x: jnp.sqrt(x / x - 1), lambda s, g: (7 * g,)),
        [(1,)],
    ),
    "sqrt(x^2) taken for x": (with_rule(lambda x: jnp.sqrt(x * x), lambda s, g: (g,)), [(1,)]),
    "a key in int32 that wraps": (
        with_rule(lambda x: lax.sort_key_val(jnp.array([2**31 - 1, -5], jnp.int32), x)[1], lambda s, g: (g,)),
        [(2,)],
    ),
}


@pytest.mark.parametrize("name", WRONG_RULES)
def test_a_wrong_rule_is_refuted(name):
    function, shapes = WRONG_RULES[name]
    assert prove_vjp(function, *shapes).outcome == "refuted"


FIRST = np.array([True, False])
SEVEN_TENTHS = jnp.float32(0.7)

UNEQUAL = {
    "relu6 and relu": (jax.nn.relu6, jax.nn.relu, [(4,)]),
    "cut off at 20": (lambda x: jnp.where(x > 20, 0.0, jnp.exp(x)), jnp.exp, [(2,)]),
    "an index rounded in float32": (
        lambda x: x[jnp.floor(jnp.arange(11) * SEVEN_TENTHS).astype(jnp.int32)],
        lambda x: x[np.floor(np.arange(11) * np.float64(np.float32(0.7))).astype(int)],
        [(8,)],
    ),
    "a constant that float32 cannot hold": (
        lambda x: x * jnp.full((2,), 16777217.0, jnp.float32) - x * 16777216.0,
        lambda x: x,
        [(2,)],
    ),
    "clamp with its bounds exchanged": (
        lax.clamp,
        lambda a, x, b: jnp.where(x < a, a, jnp.where(x > b, b, x)),
        [(), (), ()],
    ),
    "2.5 rounded to even": (lambda x: x * lax.round(jnp.float32(2.5)), lambda x: 2 * x, [()]),
    "sine and cosine of an infinity": (
        lambda x: jnp.sin(jnp.where(FIRST, x, jnp.inf)) ** 2 + jnp.cos(jnp.where(FIRST, x, jnp.inf)) ** 2,
        lambda x: jnp.ones(2),
        [(2,)],
    ),
    "a root of -inf": (
        lambda x: jnp.sqrt(jnp.where(FIRST, x, -jnp.inf)),
        lambda x: jnp.where(FIRST, jnp.sqrt(x), -jnp.inf),
        [(2,)],
    ),
    "NaN taken for a number": (lambda x: jnp.maximum(x, jnp.nan), lambda x: x, [(2,)]),
    "isnan": (
        lambda x: jnp.where(jnp.isnan(jnp.take(x, jnp.array([0, 7]), mode="fill")), 0.0, 1.0),
        lambda x: jnp.ones(2),
        [(3,)],
    ),
}


@pytest.mark.parametrize("name", UNEQUAL)
def test_unequal_functions_are_refuted(name):
    f, g, shapes = UNEQUAL[name]
    assert prove_equal(f, g, *shapes).outcome == "refuted"


EQUAL = {
    "a mask of -inf": (
        lambda x: jax.nn.softmax(jnp.where(jnp.array([True, False, True]), x, -jnp.inf)),
        lambda x: jnp.zeros(3).at[jnp.array([0, 2])].set(jax.nn.softmax(x[jnp.array([0, 2])])),
        [(3,)],
    ),
    "a sigmoid of a mask": (
        lambda x: jax.nn.sigmoid(jnp.where(FIRST, x, -jnp.inf)),
        lambda x: jnp.where(FIRST, jax.nn.sigmoid(x), 0.0),
        [(2,)],
    ),
    "tanh of a mask": (
        lambda x: jnp.tanh(jnp.where(FIRST, x, -jnp.inf)),
        lambda x: jnp.where(FIRST, jnp.tanh(x), -1.0),
        [(2,)],
    ),
    "an infinity in a product": (lambda x: jnp.exp(x).at[1].set(jnp.inf).prod(), lambda x: jnp.inf, [(2,)]),
    "an infinity in a sum": (
        lambda x: jnp.cumsum(jnp.where(FIRST, x, jnp.inf)),
        lambda x: x.at[1].add(jnp.inf),
        [(2,)],
    ),
    "a branch that divides by zero, not taken": (
        lambda x: jnp.where(x > 0, 1 / jax.nn.relu(x), 0.0),
        lambda x: jnp.where(x > 0, 1 / x, 0.0),
        [(2,)],
    ),
    "clamp": (lax.clamp, lambda a, x, b: jnp.minimum(jnp.maximum(x, a), b), [(), (), ()]),
    "an inner product": (lambda a, b: a @ b, lambda a, b: (a * b).sum(), [(3,), (3,)]),
    "cosine similarity": (
        lambda a, b: a @ b / (jnp.linalg.norm(a) * jnp.linalg.norm(b)),
        lambda a, b: (a * b).sum() / jnp.sqrt((a * a).sum()) / jnp.sqrt((b * b).sum()),
        [(2,), (2,)],
    ),
    "roots where both are real": (
        lambda x, y: jax.nn.relu(jnp.sqrt(x) * jnp.sqrt(y)),
        lambda x, y: jnp.sqrt(x) * jnp.sqrt(y),
        [(), ()],
    ),
    "a sigmoid of a fraction": (lambda x: jax.nn.sigmoid(1.702 * x), lambda x: 1 - jax.nn.sigmoid(-1.702 * x), [(2,)]),
    "dropout with its key inside": (
        lambda x: jnp.where(jax.random.bernoulli(jax.random.key(0), 0.5, (4,)), x, 0.0),
        lambda x: x * jax.random.bernoulli(jax.random.key(0), 0.5, (4,)),
        [(4,)],
    ),
    "sorted by unsigned keys": (
        lambda x: lax.sort_key_val(jnp.array([3, 1, 2], jnp.uint32), x)[1],
        lambda x: x[jnp.array([1, 2, 0])],
        [(3,)],
    ),
    "NaN is NaN": (lambda x: jnp.take(x, jnp.array([0, 7]), mode="fill"), lambda x: jnp.array([x[0], jnp.nan]), [(3,)]),
    "to the power of zero": (lambda x: (x * jnp.array([0.0, 1.0])) ** 0, lambda x: jnp.ones(2), [(2,)]),
}


@pytest.mark.parametrize("name", EQUAL)
def test_equal_functions_are_proven(name):
    f, g, shapes = EQUAL[name]
    verdict = prove_equal(f, g, *shapes)
    assert verdict, verdict


def test_a_function_applied_by_a_scatter_is_not_taken_for_a_value():
    with pytest.raises(UnsupportedPrimitive, match="scatter with a function to apply"):
        prove_equal(lambda x: x.at[0].apply(jnp.sin), lambda x: x.at[0].set(0.0), (3,))


def test_noise_does_not_decide_a_branch():
    """log(exp(x)) - x is zero, but by no rule: its sign would be that of a rounding error."""
    verdict = prove_equal(lambda x: jnp.where(jnp.log(jnp.exp(x)) != x, x, 2 * x), lambda x: x, (1,))
    assert verdict.outcome == "undecided"
    assert "no rule decides the sign of" in str(verdict)


def as_bits(x):
    return lax.bitcast_convert_type(x, jnp.uint16)


def as_numbers(bits, dtype=jnp.bfloat16):
    return lax.bitcast_convert_type(bits, dtype)


ONE = jnp.array([0x3F80], jnp.uint16)  # in bfloat16


def test_bits_that_are_moved_are_those_of_the_numbers():
    half = jax.ShapeDtypeStruct((2,), jnp.bfloat16)

    def with_one(x):
        return as_numbers(jnp.concatenate([as_bits(x)[::-1], ONE]))

    assert prove_equal(with_one, lambda x: jnp.concatenate([x[::-1], jnp.ones(1, x.dtype)]), half)
    assert not prove_equal(with_one, lambda x: jnp.concatenate([x[::-1], jnp.zeros(1, x.dtype)]), half)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: as_numbers(as_bits(x) + ONE), "`add` of the bits"),
        (lambda x: as_numbers(jnp.maximum(as_bits(x), ONE)), "`max` of the bits"),
        (lambda x: as_bits(x).astype(x.dtype), "`convert_element_type` of the bits"),
        (lambda x: as_numbers(as_bits(x) ^ jnp.uint16(0x8000)), "xor"),
        (lambda x: as_numbers(as_bits(x), jnp.float16).astype(x.dtype), "bits of bfloat16 as a number of float16"),
        (lambda x: as_numbers(lax.bitcast_convert_type(x, jnp.uint8)[:, 0].astype(jnp.uint16)), "of another size"),
    ],
)
def test_more_with_bits_than_to_move_them_is_refused(function, message):
    half = jax.ShapeDtypeStruct((2,), jnp.bfloat16)
    with pytest.raises(NotImplementedError, match=message):
        prove_equal(function, function, half)


@pytest.mark.parametrize("times", [1, 7])
def test_an_inverse_of_what_no_rule_tells_from_zero_is_undecided(times):
    """sqrt(x^2) - x is zero where x is positive: times that, every difference would vanish."""

    def zero(x):
        return jnp.sqrt(x * x) - x

    verdict = prove_equal(lambda x: times * zero(x) / zero(x), lambda x: jnp.ones(1), (1,))
    assert verdict.outcome == "undecided"
    assert "no rule decides whether there is an inverse of" in str(verdict)


def test_nothing_is_no_proof():
    with pytest.raises(ValueError, match="have no entries"):
        prove_vjp(lambda x: x * 2, (0, 3))
    with pytest.raises(ValueError, match="`argnums` must be among"):
        prove_vjp(lambda x: x * 2, (3,), argnums=())
    with pytest.raises(ValueError, match="nothing to compare"):
        prove_equal(lambda x: x[:0], lambda x: x[:0] * 2, (3,))
    with pytest.raises(ValueError, match="`index_sets` must hold"):
        check(EQUATION_4, [])


@pytest.mark.parametrize("shape", [3, {"a": (2,)}, (2.0,), jnp.ones(2)])
def test_a_shape_that_is_none_is_named(shape):
    with pytest.raises(TypeError, match=r"shape 0 must be a tuple of ints or a jax\.ShapeDtypeStruct"):
        prove_vjp(lambda x: x, shape)


def test_a_function_that_is_real_nowhere_is_undecided():
    verdict = prove_equal(lambda x: jnp.sqrt(-1 - x * x) ** 2, lambda x: -1 - x * x + jnp.sin(x) - jnp.sin(x), (1,))
    assert verdict.outcome != "refuted"
    assert not prove_equal(lambda x: jnp.abs(jnp.log(-1 - x * x)), lambda x: x, (1,))


def test_two_sums_with_one_name_for_their_index_are_not_one():
    """`(sum_m A[p,m]) (sum_m B[p,m])` is no `sum_m A[p,m] B[p,m]`."""
    A, B = (tensor(name, P, M) for name in "AB")
    G, C = (tensor(name, P) for name in "GC")
    m = sp.Symbol("m", integer=True)
    entry = C[(p,)] * total(A[p, m], (m, M)) * total(B[p, m], (m, M))
    source = Map("two sums", (A, B, C), tensor("O", P), G, (p,), entry)
    i = sp.Symbol("i", integer=True)
    right = Claim("right", "", source, C, (i,), G[(i,)] * total(A[i, m], (m, M)) * total(B[i, m], (m, M)))
    wrong = right.but("wrong", total(G[(i,)] * A[i, m] * B[i, m], (m, M)))
    assert derive(right)
    assert not derive(wrong)


def test_a_stray_index_is_not_caught_by_a_sum():
    i, j = EQUATION_4.at
    other = sp.Symbol("p2", integer=True)
    U, _, _ = EQUATION_4.map.arguments
    stray = total(EQUATION_4.map.cotangent[p, i, r] * U[p, j, r], (other, P), (r, R))
    assert not derive(EQUATION_4.but("stray", stray))


def test_a_coefficient_of_many_digits_is_not_rounded():
    almost = EQUATION_4.formula * (sp.Float(1, 40) + sp.Float("1e-20", 40))
    assert not check(EQUATION_4.but("almost one", almost))


def test_a_range_that_depends_on_another_index_is_refused():
    i, j = EQUATION_4.at
    U, _, _ = EQUATION_4.map.arguments
    triangle = sp.Sum(EQUATION_4.map.cotangent[p, i, r] * U[p, j, r], (r, 0, p), (p, 0, P - 1))
    with pytest.raises(NotImplementedError, match="a range that depends on another index"):
        check(EQUATION_4.but("triangle", triangle))
