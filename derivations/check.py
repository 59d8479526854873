"""Checks a claim by brute force: every entry a symbol, every derivative taken, exactly.

On each index set the map is written out as polynomials, the loss `sum G * output` is differentiated by every entry of
the argument, and the claimed formula is evaluated beside it. Arithmetic is exact, so a difference is a disproof.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import sympy as sp

from derivations.equations import Claim, Map
from derivations.evaluate import evaluate
from derivations.index_sets import IndexSet, index_sets_of
from derivations.indices import Entries, all_derivatives, polynomial_entries, polynomial_sum


@dataclass(frozen=True)
class Counterexample:
    """Where something fails: in which quantity at which index, on which index set or for which shapes, and by what; of code that
    compares its inputs, at which `point`."""

    quantity: str
    index: tuple[int, ...]
    where: str
    claimed: str
    true: str
    point: str = ""

    def __str__(self) -> str:
        told = f"{self.quantity}{list(self.index)} of {self.where}: claimed {self.claimed}, true is {self.true}"
        return f"{told}, around {self.point}" if self.point else told


@dataclass(frozen=True)
class Check:
    """What came of a check: `bool` of it is whether the claim held on all of `index_sets` (so many)."""

    claim: Claim
    index_sets: int
    entries: int
    counterexample: Counterexample | None

    def __bool__(self) -> bool:
        return self.counterexample is None

    def __str__(self) -> str:
        if self:
            return f"{self.claim.name} holds: {self.entries} entries on {self.index_sets} index sets"
        return f"{self.claim.name} ({self.claim.title}) is refuted: {self.counterexample}"


def check(
    claim: Claim,
    index_sets: Iterable[tuple[str, IndexSet]] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Check:
    """Compares `claim` with brute-force derivatives, from the smallest index set up, and stops at the first difference.

    Args:
        claim: the formula to check.
        index_sets: names and sizes; by default those of `derivations.index_sets` for the claim's map.
        progress: called with the name of each index set before it is checked.
    """
    done = entries = 0
    for name, sizes in index_sets_of(claim.map) if index_sets is None else index_sets:
        if progress is not None:
            progress(name)
        _, tensors, gradients = brute_force(claim.map, tuple(sizes.items()))
        truth = gradients[claim.argument.name]
        counterexample = _first_difference(claim, name, sizes, tensors, truth)
        done, entries = done + 1, entries + len(truth)
        if counterexample is not None:
            return Check(claim, done, entries, counterexample)
    if not entries:
        raise ValueError("`index_sets` must hold an index set with entries to check, got none")
    return Check(claim, done, entries, None)


@lru_cache(maxsize=2048)
def brute_force(
    map: Map, sizes: tuple[tuple[sp.Symbol, int], ...]
) -> tuple[Entries, dict[str, Entries], dict[str, Entries]]:
    """The output, the symbols of arguments and cotangent, and the gradient of the loss by every argument, written out."""
    numbers = dict(sizes)
    ring, tensors = polynomial_entries((*map.arguments, map.cotangent), numbers)
    output = evaluate(map.entry, map.at, map.output.shape_on(numbers), numbers, tensors)
    cotangent = tensors[map.cotangent.name]
    loss = polynomial_sum(ring, (ring(value) * cotangent[at] for at, value in output.items()))
    derivatives = all_derivatives(loss)
    gradients = {
        argument.name: {at: derivatives.get(entry, ring.zero) for at, entry in tensors[argument.name].items()}
        for argument in map.arguments
    }
    return output, tensors, gradients


def _first_difference(
    claim: Claim, name: str, sizes: IndexSet, tensors: Mapping[str, Entries], truth: Entries
) -> Counterexample | None:
    shape, gradient = claim.argument.shape_on(sizes), f"∂L/∂{claim.argument.name}"
    try:
        claimed = evaluate(claim.formula, claim.at, shape, sizes, tensors)
    except (IndexError, ZeroDivisionError) as error:
        at, true = next(iter(truth.items()))
        return Counterexample(gradient, at, name, f"nothing ({error})", str(true))
    for at, true in truth.items():
        if true - claimed[at] != 0:
            return Counterexample(gradient, at, name, str(claimed[at]), str(true))
    return None
