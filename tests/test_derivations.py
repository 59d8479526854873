"""Derivations for every size: each step an equality, each end the published closed form, each mistake noticed."""

from dataclasses import replace

import pytest
import sympy as sp

from derivations import check, claims, derive, mutants
from derivations.check import brute_force
from derivations.derive import same_sum
from derivations.equations import EQUATION_2, EQUATION_3, EQUATION_4, EQUATION_5, Layer, M, P, Q, R
from derivations.evaluate import evaluate
from derivations.index_sets import Geometry, geometries, index_sets_of
from derivations.indices import tensor

ALL = [claim for rank in (1, 2, 3) for claim in claims(rank)]
NAMES = [f"{claim.name} in {claim.map.rank}" for claim in ALL]


@pytest.mark.parametrize("claim", ALL, ids=NAMES)
def test_every_claim_is_derived(claim):
    derivation = derive(claim)
    assert derivation
    assert len(derivation.steps) >= 4
    assert same_sum(derivation.result, claim.formula)


@pytest.mark.parametrize("claim", ALL, ids=NAMES)
def test_every_step_equals_the_one_before(claim):
    """On numbers for the sizes: from the differentiated line on, all lines have the same entries as brute force."""
    _, sizes = index_sets_of(claim.map)[-1 if claim.map.rank == 0 else 20]
    _, tensors, gradients = brute_force(claim.map, tuple(sizes.items()))
    shape = claim.argument.shape_on(sizes)
    truth = gradients[claim.argument.name]
    for step in derive(claim).steps[2:]:
        values = evaluate(step.expression, claim.at, shape, sizes, tensors)
        assert all(truth[at] - values[at] == 0 for at in truth), step


@pytest.mark.parametrize("claim", mutants(), ids=lambda c: f"{c.name} {c.title}")
def test_no_mutant_is_derived(claim):
    assert not derive(claim)


def test_the_deltas_are_shown_and_each_is_contracted():
    steps = derive(EQUATION_3).steps
    deltas = [len(step.expression.atoms(sp.KroneckerDelta)) for step in steps]
    assert deltas == [0, 0, 3, 3, 2, 1, 0]
    assert steps[-1].expression == EQUATION_3.formula


def test_contraction_states_its_range():
    i, j, k = EQUATION_3.at
    expected = {sp.And(index >= 0, index < size) for index, size in ((i, P), (j, M), (k, R))}
    assert set(derive(EQUATION_3).assumptions) == expected


def test_a_range_that_is_not_the_axis_is_not_contracted():
    """A sum that starts at 1 might miss the index that the delta picks, so the delta has to stay."""
    short = EQUATION_2.entry.replace(
        lambda e: isinstance(e, sp.Sum), lambda e: sp.Sum(e.function, (e.limits[0][0], 1, M - 1))
    )
    shortened = replace(EQUATION_3, map=replace(EQUATION_2, entry=short))
    derivation = derive(shortened)
    assert not derivation
    assert derivation.result.atoms(sp.KroneckerDelta)


def test_the_claims_are_the_published_ones():
    """Eqs. 3-5 written out once more, from the page."""
    p, q, r, i, j, k = sp.symbols("p q r i j k", integer=True)
    U, W, G = (tensor(name) for name in ("U", "Wtilde", "Gtilde"))
    assert EQUATION_3.formula == sp.Sum(G[i, q, k] * W[q, j], (q, 0, Q - 1))
    assert EQUATION_4.formula == sp.Sum(G[p, i, r] * U[p, j, r], (p, 0, P - 1), (r, 0, R - 1))
    assert EQUATION_5.formula == sp.Sum(G[p, i, r], (p, 0, P - 1), (r, 0, R - 1))


@pytest.mark.parametrize("claim", ALL, ids=NAMES)
def test_every_claim_holds_entry_by_entry(claim):
    result = check(claim)
    assert result, result
    assert result.index_sets == len(index_sets_of(claim.map))


@pytest.mark.parametrize("claim", mutants(), ids=lambda c: f"{c.name} {c.title}")
def test_every_mutant_is_refuted_where_it_is_wrong(claim):
    """And the counterexample is real: there, the true claim gives what is called true, and the mutant what is claimed."""
    result = check(claim)
    assert not result
    found = result.counterexample
    assert found is not None
    sizes = dict(index_sets_of(claim.map))[found.where]
    _, tensors, gradients = brute_force(claim.map, tuple(sizes.items()))
    assert str(gradients[claim.argument.name][found.index]) == found.true
    if not found.claimed.startswith("nothing"):
        wrong = evaluate(claim.formula, claim.at, claim.argument.shape_on(sizes), sizes, tensors)[found.index]
        assert str(wrong) == found.claimed != found.true


def test_the_first_counterexample_is_the_smallest():
    """Everything smaller agrees: on a smaller index set this mutant is not wrong."""
    missing_sum = next(c for c in mutants() if c.name == "(5)" and c.title == "sum over the positions missing")
    result = check(missing_sum)
    assert result.counterexample is not None
    assert result.counterexample.where == "P1 Q1 R2 M1"


def test_there_are_at_least_twenty_mutants_and_no_two_alike():
    formulas = {(claim.name, claim.formula) for claim in mutants()}
    assert len(formulas) == len(mutants()) >= 20


def test_the_geometries_reach_every_kind():
    found = [geometry for rank in (1, 2, 3) for geometry in geometries(rank)]
    assert len(found) >= 500
    assert {geometry.rank for geometry in found} == {1, 2, 3}
    assert any(low != high for geometry in found for low, high in geometry.padding)
    assert any(k > x for geometry in found for k, x in zip(geometry.kernel, geometry.spatial, strict=True))
    assert any(s > d * k for g in found for s, d, k in zip(g.stride, g.dilation, g.kernel, strict=True))
    assert any(d > 1 for geometry in found for d in geometry.dilation)
    assert any(geometry.groups > 1 for geometry in found)


def test_output_sizes_are_counted():
    geometry = Geometry(1, 1, (1, 1), (7, 5), (3, 2), (2, 3), (1, 2), ((1, 0), (0, 2)))
    assert geometry.output_sizes() == (3, 2)


def test_an_index_never_wraps_around():
    i, j = EQUATION_4.at
    entry = EQUATION_2.output.base[sp.Integer(0), -1 - i, sp.Integer(0)]
    with pytest.raises(IndexError, match=r"Otilde\[0, -1, 0\] does not exist"):
        evaluate(entry, (i, j), (1, 1), {Q: 1}, {"Otilde": {(0, 0, 0): 5}})


def test_a_claim_about_another_tensor_is_refused():
    with pytest.raises(ValueError, match="`argument` must be one of those of"):
        type(EQUATION_3)("x", "", EQUATION_2, Layer(1).input, (), EQUATION_3.formula)
    with pytest.raises(ValueError, match="one index for each of the 3 axes"):
        type(EQUATION_3)("x", "", EQUATION_2, EQUATION_2.arguments[0], (), EQUATION_3.formula)
    with pytest.raises(ValueError, match="`rank` must be at least 1, got 0"):
        claims(0)
