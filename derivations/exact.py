"""Exact arithmetic on functions of symbols: polynomials over the rationals in inputs and atoms.

An atom stands for a value that is no polynomial: `1/u`, `sqrt(u)`, `exp(m)`, `log(u)`, `sin(u)`, `cos(u)` of a polynomial u in
inputs and earlier atoms. It is one more generator of the ring, with a derivative and, where it has one, an algebraic
relation: `u * (1/u) = 1`, `sqrt(u)^2 = u`, `sin(u)^2 + cos(u)^2 = 1`, and `exp` of a sum is a product. `vanishes` uses
the relations up, so that rational functions are decided exactly; what is left beyond them is never guessed.

Comparisons are decided at one generic point. What is then found holds in the region around it in which every comparison
comes out the same: away from ties.
"""

import math
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import sympy as sp
from sympy.polys.rings import PolyElement, PolyRing

from derivations.indices import all_derivatives

_DIGITS = 60

# What is this small beside its terms is zero as far as `_DIGITS` digits can tell.
NOISE = mpmath.mpf(10) ** -40


class OutOfAtoms(Exception):
    """The ring has no generator left for another atom; evaluate again with more."""


class NotReal(ArithmeticError):
    """The generic point lies where a value is not real, as log of something negative: take another."""


class Undecidable(ArithmeticError):
    """A comparison of a value that is zero to all known digits, but not by any rule."""


@dataclass(frozen=True)
class Atom:
    """`kind` of `argument`, written as the ring's generator number `place`."""

    kind: str
    argument: PolyElement
    place: int


class Exact:
    """A ring with one generator per input, room for atoms, and a generic point.

    Args:
        names: of the inputs.
        room: how many atoms the ring has room for.
        seed: of the generic point.
    """

    def __init__(self, names: Sequence[str], room: int = 0, seed: int = 0):
        symbols = [*map(sp.Symbol, names), *(sp.Symbol(f"_atom{number}") for number in range(room))]
        self.ring = PolyRing(symbols, sp.QQ, sp.lex)
        self.inputs: list[Any] = list(self.ring.gens[: len(names)])
        self.names = list(names)
        self.atoms: dict[tuple[str, PolyElement], Atom] = {}
        self.decisions: list[bool] = []
        self._free = iter(range(len(names), len(names) + room))
        self._atom_at: dict[int, Atom] = {}
        self._point = _point(len(names), seed)
        self._values: dict[int, Any] = {}

    # Values

    def constant(self, number: Any) -> Any:
        """A number as an element, exactly; infinities and NaN stay what they are."""
        if isinstance(number, PolyElement):
            return number
        if not isinstance(number, Fraction):
            number = number.item() if isinstance(number, np.generic) else number
            if not math.isfinite(number):
                return number
        fraction = Fraction(number)
        return self.ring.ground_new(sp.QQ(fraction.numerator, fraction.denominator))

    def array(self, values: Any) -> np.ndarray:
        """An array of numbers as an array of elements."""
        source = np.asarray(values)
        result = np.empty(source.shape, object)
        if result.size and not source.any():
            result[...] = self.ring.zero
            return result
        known: dict = {}
        for at in np.ndindex(source.shape):
            number = source[at]
            key = float(number) if source.dtype != object else None
            if key is None or key not in known:
                known[key] = self.constant(number)
            result[at] = known[key]
        return result

    def number(self, value: Any) -> Fraction | None:
        """The rational that `value` is, or None where it depends on an input or atom."""
        if isinstance(value, PolyElement) and value.is_ground:
            coefficient = value.coeff(1)
            return Fraction(int(coefficient.numerator), int(coefficient.denominator))
        return None

    def sum_of_products(self, pairs: Iterable[tuple[PolyElement, PolyElement]]) -> PolyElement:
        """`sum a*b`, collected term by term instead of one polynomial after another."""
        collected: dict = {}
        for left, right in pairs:
            if left and right:
                for m, a in left.items():
                    for n, b in right.items():
                        monomial = tuple(map(int.__add__, m, n))
                        collected[monomial] = collected.get(monomial, 0) + a * b
        return self.ring.from_dict({monomial: c for monomial, c in collected.items() if c})

    # Functions that are not polynomial

    def inverse(self, value: PolyElement) -> PolyElement:
        """`1/value`, with constants and common powers taken out first, so that equal inverses look equal.

        Raises:
            ZeroDivisionError: `value` is zero, by the relations of its atoms at the latest.
            Undecidable: it is zero at the generic point, but by no rule: of an inverse of zero everything would follow.
        """
        if self.vanishes(value):
            raise ZeroDivisionError("division by zero, exactly")
        if self._seems_zero(value):
            raise Undecidable(f"whether there is an inverse of {self.text(value):.200}")
        scale, powers, rest = self._without_content(value)
        result = self.ring.ground_new(1 / scale)
        for place, power in powers:
            atom = self._atom_at.get(place)
            if atom is not None and atom.kind == "inverse":
                one = atom.argument
            elif atom is not None and atom.kind == "sqrt":
                one = self.ring.gens[place] * self.inverse(atom.argument)
            else:
                one = self._atom("inverse", self.ring.gens[place])
            result *= one**power
        return result if rest == 1 else result * self._atom("inverse", rest)

    def sqrt(self, value: PolyElement) -> Any:
        number = self.number(value)
        if number is not None and number < 0:
            return math.nan
        if number is not None:
            root = Fraction(sp.integer_nthroot(number.numerator, 2)[0], sp.integer_nthroot(number.denominator, 2)[0])
            if root * root == number:
                return self.constant(root)
        return self.ring.zero if self.vanishes(value) else self._atom("sqrt", value)

    def exp(self, value: PolyElement) -> PolyElement:
        """A product over the terms of `value`: exp of a sum is the product of exps, and exp of a log its argument."""
        result = self.ring.one
        for monomial, coefficient in value.items():
            term = self.ring.from_dict({monomial: sp.QQ(1)})
            times = Fraction(int(coefficient.numerator), int(coefficient.denominator))
            if times.denominator != 1 or not any(monomial):
                one = self._atom("exp", term * abs(coefficient))
                result *= one if times > 0 else self.inverse(one)
                continue
            places = [place for place, exponent in enumerate(monomial) if exponent]
            atom = self._atom_at.get(places[0]) if len(places) == 1 and monomial[places[0]] == 1 else None
            one = atom.argument if atom is not None and atom.kind == "log" else self._atom("exp", term)
            result *= (one if times > 0 else self.inverse(one)) ** abs(int(times))
        return result

    def log(self, value: PolyElement) -> PolyElement:
        return self.ring.zero if value == 1 else self._atom("log", value)

    def sin(self, value: PolyElement) -> PolyElement:
        return self._atom("sin", value) if value else self.ring.zero

    def cos(self, value: PolyElement) -> PolyElement:
        return self._atom("cos", value) if value else self.ring.one

    # Comparisons

    def sign(self, value: Any) -> int:
        """-1, 0 or 1 of `value` at the generic point; 0 only where it is zero everywhere, by the rules of atoms."""
        if self.number(value) is None and not self.vanishes(value):
            known, scale = self.value_and_scale(value)
            if abs(known) <= scale * NOISE:
                raise Undecidable(f"the sign of {self.text(value):.200}")
            self.decisions.append(known > 0)
            return 1 if known > 0 else -1
        number = self.number(value)
        return 0 if not number else (1 if number > 0 else -1)

    def value(self, value: PolyElement) -> Any:
        """`value` at the generic point, to `_DIGITS` digits of its largest term.

        Raises:
            NotReal: where something in it is not real there.
        """
        return self.value_and_scale(value)[0]

    def value_and_scale(self, value: PolyElement) -> tuple[Any, Any]:
        """The same, and the sum of the absolute values of its terms, which says how many digits are left."""
        with mpmath.workdps(_DIGITS):
            total, scale = mpmath.mpf(0), mpmath.mpf(0)
            for monomial, coefficient in value.items():
                term = mpmath.mpf(int(coefficient.numerator)) / int(coefficient.denominator)
                for place, exponent in enumerate(monomial):
                    if exponent:
                        term = term * self._value_at(place) ** exponent
                total, scale = total + term, scale + abs(term)
            return total, scale

    def vanishes(self, value: PolyElement) -> bool:
        """Whether `value` is zero by the relations of its atoms. False may also mean that they do not decide it."""
        for place in sorted(self._atom_at, reverse=True):
            atom = self._atom_at[place]
            if not value or all(monomial[place] == 0 for monomial in value):
                continue
            if atom.kind == "inverse":
                degree = max(monomial[place] for monomial in value)
                value = self._replace(value, place, lambda power, a=atom, d=degree: a.argument ** (d - power))
            elif atom.kind == "sqrt":
                gen = self.ring.gens[place]
                value = self._replace(
                    value, place, lambda power, a=atom, g=gen: a.argument ** (power // 2) * g ** (power % 2)
                )
            elif atom.kind == "sin":
                gen, cos = self.ring.gens[place], self.cos(atom.argument)
                value = self._replace(
                    value, place, lambda power, g=gen, c=cos: (1 - c**2) ** (power // 2) * g ** (power % 2)
                )
        return not value

    def _seems_zero(self, value: PolyElement) -> bool:
        """Whether `value` is zero to all known digits at the generic point, where it is real."""
        if self.is_rational(value):
            return False
        try:
            known, scale = self.value_and_scale(value)
        except NotReal:
            return False
        return abs(known) <= scale * NOISE

    def is_rational(self, value: PolyElement) -> bool:
        """Whether `value` is a rational function of the inputs, for which `vanishes` decides."""
        pending, seen = [value], set()
        while pending:
            for monomial in pending.pop():
                for place, exponent in enumerate(monomial):
                    if exponent and place in self._atom_at and place not in seen:
                        if self._atom_at[place].kind != "inverse":
                            return False
                        seen.add(place)
                        pending.append(self._atom_at[place].argument)
        return True

    # Derivatives

    def gradient(self, value: PolyElement) -> list[Any]:
        """The derivative of `value` by every input, atoms included by the chain rule."""
        slopes = all_derivatives(value)
        done: set[int] = set()
        while pending := [place for place in self._atom_at if place not in done and self.ring.gens[place] in slopes]:
            # The latest first: an atom's argument holds earlier atoms only, and its derivative no later pending one.
            place = max(pending)
            done.add(place)
            atom, outer = self._atom_at[place], slopes[self.ring.gens[place]]
            inner = self._slope(atom)
            for generator, slope in all_derivatives(atom.argument).items():
                slopes[generator] = slopes.get(generator, self.ring.zero) + outer * inner * slope
        return [slopes.get(generator, self.ring.zero) for generator in self.inputs]

    def _slope(self, atom: Atom) -> PolyElement:
        """The derivative of an atom by its argument."""
        itself = self.ring.gens[atom.place]
        match atom.kind:
            case "inverse":
                return -(itself**2)
            case "sqrt":
                return self.inverse(2 * itself)
            case "exp":
                return itself
            case "log":
                return self.inverse(atom.argument)
            case "sin":
                return self.cos(atom.argument)
            case _:
                return -self.sin(atom.argument)

    # Print

    def text(self, value: Any) -> str:
        """`value` with its atoms written out."""
        if not isinstance(value, PolyElement):
            return str(value)
        written = str(value)
        for place in sorted(self._atom_at, reverse=True):
            atom, name = self._atom_at[place], f"_atom{place - len(self.names)}"
            if name in written:
                argument = self.text(atom.argument)
                spelled = f"(1/({argument}))" if atom.kind == "inverse" else f"{atom.kind}({argument})"
                written = spelled.join(re.split(rf"{name}(?!\d)", written))
        return written

    # Inside

    def _atom(self, kind: str, argument: PolyElement) -> PolyElement:
        known = self.atoms.get((kind, argument))
        if known is None:
            place = next(self._free, None)
            if place is None:
                raise OutOfAtoms
            known = Atom(kind, argument, place)
            self.atoms[kind, argument] = self._atom_at[place] = known
        return self.ring.gens[known.place]

    def _without_content(self, value: PolyElement) -> tuple[Any, list[tuple[int, int]], PolyElement]:
        """`value` as leading coefficient, common powers of generators, and what remains."""
        monomials = list(value)
        common = tuple(map(min, *monomials)) if len(monomials) > 1 else monomials[0]
        scale = value.LC
        rest = self.ring.from_dict(
            {tuple(a - b for a, b in zip(m, common, strict=True)): c / scale for m, c in value.items()}
        )
        return scale, [(place, power) for place, power in enumerate(common) if power], rest

    def _replace(self, value: PolyElement, place: int, by: Any) -> PolyElement:
        """`value` with the power of one generator, `power`, replaced by `by(power)` in every term."""
        parts: dict[int, dict] = {}
        for monomial, coefficient in value.items():
            without = (*monomial[:place], 0, *monomial[place + 1 :])
            parts.setdefault(monomial[place], {})[without] = coefficient
        result = self.ring.zero
        for power, part in parts.items():
            result += self.ring.from_dict(part) * by(power)
        return result

    def _value_at(self, place: int) -> Any:
        if place not in self._values:
            if place < len(self._point):
                number = self._point[place]
                self._values[place] = mpmath.mpf(number.numerator) / number.denominator
            else:
                atom = self._atom_at[place]
                inside = self.value(atom.argument)
                if atom.kind in ("sqrt", "log") and inside < 0:
                    raise NotReal(f"{atom.kind} of {inside}")
                self._values[place] = 1 / inside if atom.kind == "inverse" else getattr(mpmath, atom.kind)(inside)
        return self._values[place]


def _point(size: int, seed: int) -> list[Fraction]:
    """Rationals in general position: with a prime for a denominator, so that nothing meets by chance.

    The first point has coordinates between 0 and 2, for functions that are real there only, the second between -2 and 2. The
    others have magnitudes from 1e-2 to 1e4, to reach the pieces of functions that are cut off far from 0.
    """
    generator = random.Random(seed)
    point = []
    for _ in range(size):
        magnitude = generator.uniform(0.01, 2) if seed < 2 else 10 ** generator.uniform(-2, 4)
        sign = 1 if seed == 0 else generator.choice((-1, 1))
        point.append(Fraction(sign * (int(magnitude * 1_000_003) * 2 + 1), 2_000_006))
    return point
