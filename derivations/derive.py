"""Derives a gradient from a map's definition: differentiate, then contract the Kronecker deltas, one at a time.

Sizes stay symbols, so a derivation holds for every size. Each step is an expression equal to the one before it, under
the assumptions that the derivation lists: contracting `sum_p f(p) delta(p, i)` to `f(i)` needs i in the range of p.
"""

import itertools
from dataclasses import dataclass

import sympy as sp

from derivations.equations import Claim
from derivations.indices import Expr, sum_between, total
from derivations.notation import text


@dataclass(frozen=True)
class Step:
    """One line of a derivation: what was done, and the expression that it led to.

    The first lines are of the loss; once `differentiated`, they are of its gradient.
    """

    reason: str
    expression: Expr
    differentiated: bool = True


@dataclass(frozen=True)
class Derivation:
    """The steps from the loss to a closed form, and whether that is the claimed one.

    `assumptions` are the in-range conditions under which the steps are equalities; they hold wherever the free indices
    of the claim are indices of its argument.
    """

    claim: Claim
    steps: tuple[Step, ...]
    assumptions: tuple[sp.Basic, ...]
    holds: bool

    @property
    def result(self) -> Expr:
        return self.steps[-1].expression

    def __bool__(self) -> bool:
        return self.holds


def derive(claim: Claim) -> Derivation:
    """Derives the gradient that `claim` speaks of from its map alone, and compares the end with the claim.

    The claim's formula is read only in the comparison.
    """
    source, symbols = claim.map, dict(zip(claim.map.at, _fresh(claim), strict=True))
    ranges = tuple((symbols[at], extent) for at, extent in source.ranges)
    cotangent = source.cotangent[tuple(at for at, _ in ranges)]
    output = source.output[tuple(at for at, _ in ranges)]
    entry = _rename_bound(source.entry.subs(symbols, simultaneous=True), claim)
    variable = claim.argument[claim.at]

    loss = total(cotangent * entry, *ranges)
    steps = [
        Step("the loss, as far as the gradient is concerned", total(cotangent * output, *ranges), differentiated=False),
        Step(f"with {source.name}", loss, differentiated=False),
    ]
    current = sp.diff(loss, variable)
    steps.append(Step(f"by {text(variable)}: a product of deltas", current))
    merged = merge_sums(current)
    if merged != current:
        steps.append(Step("one sum", merged))
    assumptions: list[sp.Basic] = []
    extents = dict(zip(claim.at, claim.argument.shape, strict=True))
    while (contraction := _contract(merged, extents)) is not None:
        at, value, merged = contraction
        steps.append(Step(f"the delta leaves {text(at)} = {text(value)}", merged))
        assumptions.append(sp.And(sp.Ge(value, 0), sp.Lt(value, extents[value])))
    holds = same_sum(merged, claim.formula)
    if holds and claim.formula != merged:
        steps.append(Step(f"which is the claim: {claim.title}", claim.formula))
    return Derivation(claim, tuple(steps), tuple(dict.fromkeys(assumptions)), holds)


def merge_sums(expression: Expr) -> Expr:
    """Products and nests of sums as one sum over one product; sums of sums term by term."""
    return sp.Add(*(_merged(term) for term in sp.Add.make_args(expression)))


def same_sum(left: Expr, right: Expr) -> bool:
    """Whether two sums are the same up to the names and the order of their summation indices."""
    left_summand, left_limits = _parts(left)
    right_summand, right_limits = _parts(right)
    if len(left_limits) != len(right_limits):
        return False
    # Both sides get new names that nothing else has, so that no free index is caught by a summation.
    names = [sp.Dummy(integer=True) for _ in left_limits]
    left_named = left_summand.xreplace({limit[0]: name for limit, name in zip(left_limits, names, strict=True)})
    candidates = [[i for i, (_, *other) in enumerate(right_limits) if other == bounds] for _, *bounds in left_limits]
    for choice in itertools.product(*candidates):
        if len(set(choice)) == len(choice):
            renamed = right_summand.xreplace({right_limits[i][0]: names[place] for place, i in enumerate(choice)})
            if sp.expand(left_named - renamed) == 0:
                return True
    return False


def _fresh(claim: Claim) -> list[sp.Symbol]:
    """Names for the indices of the map's output that no index of the claim has: primed where they must be."""
    taken = set(claim.at)
    return [_primed(at) if at in taken else at for at in claim.map.at]


def _primed(at: sp.Symbol) -> sp.Symbol:
    letter, *axis = at.name.split("_")
    return sp.Symbol("_".join([f"{letter}'", *axis]), **at._assumptions_orig)


def _rename_bound(expression: Expr, claim: Claim) -> Expr:
    """The same sums with primed summation indices wherever their names are those of the claim's free indices."""
    clashing = [at for at in claim.at if at in expression.atoms(sp.Symbol) - expression.free_symbols]
    names = {at: _primed(at) for at in clashing}
    return expression.replace(
        lambda e: isinstance(e, sp.Sum) and any(limit[0] in names for limit in e.limits),
        lambda e: e.func(e.function.xreplace(names), *((names.get(at, at), *bounds) for at, *bounds in e.limits)),
    )


def _merged(term: Expr) -> Expr:
    summand, limits = _parts(term)
    return sum_between(summand, *limits)


def _parts(term: Expr) -> tuple[Expr, list[tuple]]:
    """A term as the product inside all of its sums, and the limits of those, no two of which share an index."""
    limits: list[tuple] = []
    factors = []
    for factor in sp.Mul.make_args(term):
        if isinstance(factor, sp.Sum):
            summand, inner = _parts(factor.function)
            own = [tuple(limit) for limit in factor.limits] + inner
            taken = {limit[0] for limit in limits} | term.free_symbols
            apart = {at: sp.Dummy(str(at), integer=True) for at, *_ in own if at in taken}
            factors.append(summand.xreplace(apart))
            limits += [(apart.get(at, at), *bounds) for at, *bounds in own]
        else:
            factors.append(factor)
    return sp.Mul(*factors), limits


def _contract(expression: Expr, extents: dict) -> tuple[Expr, Expr, Expr] | None:
    """Removes one delta between a summation index and a free index of known range, with the sum that it ends."""
    summand, limits = _parts(expression)
    bound = {at: (at, low, high) for at, low, high in limits}
    for factor in sp.Mul.make_args(summand):
        if isinstance(factor, sp.KroneckerDelta):
            for at, value in (factor.args, factor.args[::-1]):
                # The free index must run over the very axis that is summed, or the sum might miss it.
                if at in bound and value in extents and bound[at][1:] == (0, extents[value] - 1):
                    rest = (summand / factor).subs(at, value)
                    return at, value, sum_between(rest, *(limit for limit in limits if limit[0] != at))
    return None
