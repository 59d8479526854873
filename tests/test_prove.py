"""Verdicts: right rules are proven, wrong ones refuted at the right index, and what nothing decides is undecided."""

import importlib.util
import re
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxconv
from derivations import UnsupportedPrimitive, prove_definition, prove_equal, prove_vjp
from derivations.testing import assert_equal, assert_vjp
from derivations.wrong_rules import numeric_check_notices, wrong_rules

WRONG = pytest.mark.parametrize("rule", wrong_rules(), ids=lambda rule: rule.name)


@WRONG
def test_a_wrong_rule_is_refuted_at_an_entry_that_is_wrong(rule):
    verdict = prove_vjp(rule.function, *rule.shapes)
    assert verdict.outcome == "refuted"
    assert not verdict
    found = verdict.counterexample
    assert found is not None
    # In float64, on numbers: that entry of that gradient differs from JAX's own derivative of the right function.
    generator = np.random.default_rng(1)
    arrays = [jnp.asarray(generator.standard_normal(shape)) for shape in rule.shapes]
    cotangent = jnp.asarray(generator.standard_normal(rule.right(*arrays).shape))
    ours, true = (jax.vjp(f, *arrays)[1](cotangent) for f in (rule.function, rule.right))
    names = [f"∂L/∂{name}" for name in ("input", "weight", "bias")]
    place = names.index(found.quantity) if found.quantity in names else 0
    gap = np.abs(np.asarray(ours[place]) - np.asarray(true[place]))
    assert gap[found.index] > 1e-9 or rule.name.startswith("relu")
    assert not [at for at in np.ndindex(gap.shape) if at < found.index and gap[at] > 1e-9]


@WRONG
def test_the_right_function_beside_it_is_proven(rule):
    assert_vjp(rule.right, *rule.shapes)


def test_tiny_mistakes_pass_the_numeric_check():
    """That is the point of proving: these three are refuted above."""
    unnoticed = [rule.name for rule in wrong_rules() if not numeric_check_notices(rule)]
    assert unnoticed == [
        "weight gradient times 1 + 1e-6",
        "one entry off by 1e-6 of its neighbour",
        "relu with a slope of 1e-6 below zero",
    ]
    assert len(wrong_rules()) >= 15


def test_a_verdict_reads_well():
    proven = prove_vjp(lambda a, b: a * b, (2,), (2,))
    assert str(proven) == (
        "proven: the VJP of <lambda> at (2,), (2,) "
        "(14 entries, exactly, for all real inputs of these shapes where it is defined)"
    )
    refuted = prove_equal(lambda a: a + a, lambda a: a * a, (2,))
    assert "refuted: <lambda> = <lambda> at (2,)" in str(refuted)
    assert "output[0] of <lambda> = <lambda> at (2,): claimed 2*a[0], true is a[0]**2" in str(refuted)


def test_pieces_are_counted():
    verdict = prove_vjp(lambda x: jnp.maximum(x, 0), (2,))
    assert verdict
    assert verdict.regions == 4
    assert "in the 4 regions between ties of its comparisons that sampling found" in str(verdict)


def test_a_mistake_in_one_piece_only_is_found():
    @jax.custom_vjp
    def relu(x):
        return jnp.maximum(x, 0)

    relu.defvjp(
        lambda x: (relu(x), x), lambda x, g: (jnp.where((x > 0).all(), g * (x > 0), jnp.where(x[0] < 0, 0 * g, g)),)
    )
    verdict = prove_vjp(relu, (2,))
    assert verdict.outcome == "refuted"


def test_what_no_rule_decides_is_undecided():
    verdict = prove_equal(lambda x: jnp.sin(2 * x), lambda x: 2 * jnp.sin(x) * jnp.cos(x), (1,))
    assert verdict.outcome == "undecided"
    assert not verdict
    assert "undecided" in str(verdict)
    assert "no rule decides whether they are equal" in str(verdict)


def test_what_is_undecided_by_rules_may_still_be_disproven_by_a_number():
    verdict = prove_equal(lambda x: jnp.sin(2 * x), lambda x: 2 * jnp.sin(x) * jnp.cos(x) * (1 + 1e-6), (1,))
    assert verdict.outcome == "refuted"


def test_a_function_that_is_real_only_somewhere_is_proven_there():
    assert_vjp(lambda x: jnp.log(x) * jnp.sqrt(x), (2,))


def test_argnums():
    rule = next(rule for rule in wrong_rules() if rule.name == "weight transposed")
    assert prove_vjp(rule.function, *rule.shapes, argnums=(1, 2))
    assert prove_vjp(rule.function, *rule.shapes, argnums=-1)
    assert not prove_vjp(rule.function, *rule.shapes, argnums=0)
    with pytest.raises(ValueError, match="`argnums` must be among the 3 arguments"):
        prove_vjp(rule.function, *rule.shapes, argnums=3)


def test_pytrees_and_closures():
    table = jnp.array([2, 0, 1])
    assert_vjp(lambda x, y: {"a": x[table] * y, "b": (y**2,)}, (3,), (3,))
    assert_equal(lambda x: (x[table], x), lambda x: (jnp.stack([x[2], x[0], x[1]]), x), (3,))


def test_what_has_no_derivative_here_is_refused():
    integers = jax.ShapeDtypeStruct((2,), jnp.int32)
    with pytest.raises(TypeError, match="argument 0 must be floating point, got int32"):
        prove_vjp(lambda x: x * 1.0, integers)
    with pytest.raises(TypeError, match="the output must be floating point, got int"):
        prove_vjp(lambda x: jnp.argsort(x), (2,))
    with pytest.raises(ValueError, match="the outputs differ in shape"):
        prove_equal(lambda x: x, lambda x: x[:1], (2,))
    with pytest.raises(UnsupportedPrimitive, match="erf"):
        prove_vjp(jax.lax.erf, (2,))


def test_the_assertion_fails_with_the_verdict():
    with pytest.raises(AssertionError, match=r"refuted: the VJP of .*\n.*claimed G\[0\], true is 2\*G\[0\]"):
        assert_vjp(_half_slope, (1,))
    with pytest.raises(AssertionError, match="refuted"):
        assert_equal(jnp.sin, jnp.cos, (1,))


@jax.custom_vjp
def _half_slope(x):
    return 2 * x


_half_slope.defvjp(lambda x: (2 * x, None), lambda _, g: (g,))


def test_a_numpy_definition():
    def definition(x, y):
        return np.array([[a * b for b in y] for a in x], object)

    assert prove_definition(jnp.outer, definition, (2,), (3,))
    assert not prove_definition(lambda x, y: jnp.outer(y, x).T * 1.5, definition, (2,), (3,))


def test_ours_is_laxs():
    def ours(x, w):
        return jaxconv.conv2d(x, w, stride=(2, 1), padding=((1, 0), (0, 2)), dilation=(1, 2), groups=2)

    def theirs(x, w):
        return jax.lax.conv_general_dilated(x, w, (2, 1), ((1, 0), (0, 2)), rhs_dilation=(1, 2), feature_group_count=2)

    shapes = ((1, 4, 5, 4), (2, 2, 3, 2))
    assert_equal(ours, theirs, *shapes)
    assert_vjp(theirs, *shapes)


EXAMPLE = Path(__file__).parent.parent / "examples" / "prove_your_own_rule.py"
SPEC = importlib.util.spec_from_file_location("prove_your_own_rule", EXAMPLE)
assert SPEC is not None and SPEC.loader is not None  # noqa: PT018
EXAMPLES = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(EXAMPLES)

OUTCOMES = {
    "softmax cross-entropy": "proven",
    "the same, for labels that sum to 1": "refuted",
    "straight-through estimator": "refuted",
    "gradient clip": "refuted",
    "layer norm": "proven",
    "attention head": "proven",
    "nearest upsampling": "proven",
}


@pytest.mark.parametrize("name", EXAMPLES.EXAMPLES)
def test_rules_as_people_write_them(name):
    function, shapes = EXAMPLES.EXAMPLES[name]
    assert prove_vjp(function, *shapes).outcome == OUTCOMES[name]


def test_the_straight_through_estimator_is_told_as_what_it_is():
    found = prove_vjp(EXAMPLES.straight_through_round, (3,)).counterexample
    assert found is not None
    assert (found.claimed, found.true) == ("G[0]", "0")


def test_where_a_piece_is_wrong_is_told():
    """The point is in the piece: between -1/2, where the rule compares, and 0."""

    @jax.custom_vjp
    def leaky(x):
        return jnp.where(x > 0, x, 0.1 * x)

    leaky.defvjp(lambda x: (leaky(x), x), lambda x, g: (jnp.where(x > -0.5, g, 0.1 * g),))
    found = prove_vjp(leaky, (1,)).counterexample
    assert found is not None
    told = re.fullmatch(r"x\[0\] = (-0\.\d+), G\[0\] = -?\d.*", found.point)
    assert told
    assert -0.5 < float(told[1]) < 0
    assert str(found).endswith(f"around {found.point}")


def test_arguments_of_a_proof_are_named():
    with pytest.raises(TypeError, match="`argnums` must be an int or a sequence of them, got 'x'"):
        prove_vjp(jnp.sin, (1,), argnums="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`regions` must be an int that is at least 1, got 0"):
        prove_vjp(jnp.sin, (1,), regions=0)


def test_the_example_runs(capsys):
    EXAMPLES.main()
    assert capsys.readouterr().out.count("proven") == 5


def test_a_partial_has_a_name_and_arguments():
    verdict = prove_vjp(partial(jaxconv.conv1d, padding=1), (1, 1, 3), (1, 1, 2))
    assert verdict
    assert "the VJP of conv1d" in str(verdict)
