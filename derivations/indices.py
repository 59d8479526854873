"""Index sets and symbolic tensors.

For every size: sizes are positive integer symbols, indices are integer symbols, tensors are SymPy `IndexedBase`s.
On a small index set: sizes are numbers, and every entry of a tensor is a generator of one polynomial ring over the
rationals, so that sums, products and derivatives are exact.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy.polys.rings import PolyElement, PolyRing

# SymPy's annotations are too loose for a type checker (a product of Exprs is a Basic), so it is not asked about them.
if TYPE_CHECKING:
    Expr = Any
else:
    Expr = sp.Expr


def size(name: str) -> sp.Symbol:
    """A symbolic size: any positive integer."""
    return sp.Symbol(name, integer=True, positive=True)


def index(name: str) -> sp.Symbol:
    """A symbolic index: any integer; its range is the size of the axis that it runs over."""
    return sp.Symbol(name, integer=True)


@dataclass(frozen=True)
class Tensor:
    """A tensor of symbolic shape: `shape` has a size, or the number 1, for every axis."""

    base: Any
    shape: tuple[Expr, ...]

    def __getitem__(self, at: tuple) -> Expr:
        return self.base[tuple(at)]

    @property
    def name(self) -> str:
        return str(self.base.label)

    def shape_on(self, sizes: Mapping[sp.Symbol, int]) -> tuple[int, ...]:
        """The shape as numbers."""
        return tuple(int(axis.subs(dict(sizes))) for axis in self.shape)


def tensor(name: str, *shape: Any) -> Tensor:
    return Tensor(sp.IndexedBase(name), tuple(map(sp.sympify, shape)))


def total(summand: Expr, *ranges: tuple[sp.Symbol, Expr]) -> Expr:
    """The sum of `summand` over every index of `ranges`, each from 0 to its size less one."""
    return sum_between(summand, *((at, 0, extent - 1) for at, extent in ranges))


def sum_between(summand: Expr, *limits: tuple) -> Expr:
    """The sum of `summand` over every `(index, first, last)` of `limits`; `summand` itself where there are none."""
    return sp.Sum(summand, *limits) if limits else summand


def delta(left: Any, right: Any) -> Expr:
    """Kronecker's delta: 1 where the two are equal, 0 elsewhere."""
    return sp.KroneckerDelta(left, right)


Entries = dict[tuple[int, ...], Any]


def positions(shape: Iterable[int]) -> Iterable[tuple[int, ...]]:
    """Every index of an array of `shape`, in row-major order."""
    return itertools.product(*map(range, shape))


def polynomial_entries(
    tensors: Iterable[Tensor], sizes: Mapping[sp.Symbol, int]
) -> tuple[PolyRing, dict[str, Entries]]:
    """A ring with a generator for every entry of `tensors`, and those generators by tensor and index."""
    shapes = {tensor.name: tensor.shape_on(sizes) for tensor in tensors}
    names = [f"{name}{list(at)}" for name, shape in shapes.items() for at in positions(shape)]
    ring = PolyRing([sp.Symbol(name) for name in names], sp.QQ, sp.lex)
    generators = iter(ring.gens)
    return ring, {name: {at: next(generators) for at in positions(shape)} for name, shape in shapes.items()}


def polynomial_sum(ring: PolyRing, terms: Iterable[PolyElement]) -> PolyElement:
    """The sum of many polynomials, without a copy for every addition."""
    collected: dict = {}
    for term in terms:
        for monomial, coefficient in term.items():
            collected[monomial] = collected.get(monomial, 0) + coefficient
    return ring.from_dict({monomial: coefficient for monomial, coefficient in collected.items() if coefficient})


def all_derivatives(polynomial: PolyElement) -> dict[PolyElement, PolyElement]:
    """The derivative by every generator that occurs, in one pass over the terms."""
    ring = polynomial.ring
    derivatives: dict[int, dict] = {}
    for monomial, coefficient in polynomial.items():
        for place, exponent in enumerate(monomial):
            if exponent:
                lower = (*monomial[:place], exponent - 1, *monomial[place + 1 :])
                terms = derivatives.setdefault(place, {})
                terms[lower] = terms.get(lower, 0) + coefficient * exponent
    return {ring.gens[place]: ring.from_dict(terms) for place, terms in derivatives.items()}
