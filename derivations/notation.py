"""Writes an expression the way a person does: in one line of text, in LaTeX, or as MathML.

Factors stand in the order of *Some formulae*, the cotangent first and deltas last, and a sum names its indices only:
their ranges are the sizes of the axes that they run over.
"""

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import sympy as sp

_GREEK = {"gamma": "γ", "Gamma": "Γ"}
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_TILDE = "\u0303"


def text(expression: Any) -> str:
    """One line of Unicode, such as `Σ_{q} G̃[i,q,k] W̃[q,j]`."""
    return _Text().write(sp.sympify(expression))


def latex(expression: Any) -> str:
    """LaTeX for display mathematics."""
    return _Latex().write(sp.sympify(expression))


def mathml(expression: Any) -> str:
    """A MathML `math` element, which browsers show without any script."""
    return f'<math displaystyle="true"><mrow>{_MathML().write(sp.sympify(expression))}</mrow></math>'


def plain(string: str) -> str:
    """A name or a printed polynomial with its tildes as accents: `Wtilde[0, 1]` becomes `W̃[0, 1]`."""
    return string.replace("tilde", _TILDE)


def _label(indexed: Any) -> str:
    return str(indexed.base.label)


def _place(order: Sequence[str], name: Any) -> int:
    """Where the letter of a name such as `x'_1` or `Gtilde` stands in `order`; behind it all where it does not."""
    letter = str(name).removesuffix("tilde").split("_")[0].rstrip("'")
    return order.index(letter) if letter in order else len(order)


class _Writer:
    """Walks an expression; the three notations below say what a leaf and a joint look like."""

    minus: str
    at_most: str
    less: str
    name: Callable[[str], str]
    number: Callable[[str], str]
    indexed: Callable[[str, list[str]], str]
    delta: Callable[[str, str], str]
    sum: Callable[[list[str], str], str]
    plus: Callable[[list[str]], str]
    times: Callable[[list[str]], str]
    brackets: Callable[[str], str]
    other: Callable[[Any], str]

    # SymPy's own annotations are too loose for a checker (an argument of an Expr is a Basic), hence Any.
    def write(self, expression: Any) -> str:
        if isinstance(expression, sp.Add):
            # A product with a sum, as in eq. 2, before what is added to it.
            terms = sorted(self.in_order(expression.args), key=lambda term: not term.has(sp.Sum))
            return self.plus([self.write(term) for term in terms])
        if isinstance(expression, sp.Mul):
            return self.product(expression)
        if isinstance(expression, sp.Sum):
            names = [self.write(limit[0]) for limit in self.limits_in_order(expression)]
            return self.sum(names, self.factor(expression.function))
        if isinstance(expression, sp.Indexed):
            return self.indexed(_label(expression), [self.write(at) for at in expression.indices])
        if isinstance(expression, sp.KroneckerDelta):
            free, other = sorted(expression.args, key=lambda side: len(side.free_symbols))
            return self.delta(self.write(free), self.write(other))
        if isinstance(expression, sp.And):  # 0 <= index < size
            (above,), (below,) = expression.atoms(sp.GreaterThan), expression.atoms(sp.StrictLessThan)
            chain = (self.write(above.rhs), self.at_most, self.write(below.lhs), self.less, self.write(below.rhs))
            return " ".join(chain)
        if isinstance(expression, sp.Symbol):
            return self.name(expression.name)
        if isinstance(expression, sp.Integer):
            return self.number(str(expression))
        return self.other(expression)

    def factor(self, expression: Any) -> str:
        """A factor of a product, in brackets where it is a sum of terms."""
        written = self.write(expression)
        return self.brackets(written) if isinstance(expression, sp.Add) else written

    def product(self, expression: Any) -> str:
        coefficient, rest = expression.as_coeff_Mul()
        factors = [self.factor(factor) for factor in self.in_order(sp.Mul.make_args(rest))]
        if coefficient not in (1, -1):
            factors.insert(0, self.number(str(coefficient)))
        return (self.minus if coefficient == -1 else "") + self.times(factors)

    @staticmethod
    def limits_in_order(expression: Any) -> list:
        def rank(limit):
            return (
                _place(("n", "p", "i", "gamma", "q", "o", "r", "m", "j", "l", "c", "k", "x"), limit[0]),
                str(limit[0]),
            )

        return sorted(expression.limits, key=rank)

    @staticmethod
    def in_order(parts: Any) -> list:
        """Factors or terms: numbers and positions, sums of products, then tensors, deltas and inner sums."""

        def rank(part):
            label = _label(part) if isinstance(part, sp.Indexed) else ""
            kind = (sp.Symbol, sp.Indexed, sp.KroneckerDelta, sp.Add, sp.Sum)
            place = next((i for i, one in enumerate(kind) if isinstance(part, one)), 0)
            # `stride*l + dilation*k - padding`, and G W U I as *Some formulae* has them.
            letters = "sldkz" if place == 0 else "GVWUI"
            names = [label] if label else part.free_symbols
            return (place, min((_place(letters, name) for name in names), default=len(letters)), str(part))

        return sorted(parts, key=rank)


class _Text(_Writer):
    minus, at_most, less = "-", "≤", "<"

    def name(self, name):
        letter, *subscript = name.split("_")
        stem = letter.rstrip("'")
        primes = "'" * (len(letter) - len(stem))
        return f"{_GREEK.get(stem, stem)}{''.join(subscript).translate(_SUBSCRIPTS)}{primes}"

    def number(self, digits):
        return digits

    def indexed(self, label, indices):
        return f"{plain(label)}[{','.join(indices)}]"

    def delta(self, left, right):
        return f"δ({left}, {right})"

    def sum(self, names, summand):
        return f"Σ_{{{','.join(names)}}} {summand}"

    def plus(self, terms):
        return " + ".join(terms).replace("+ -", "- ")

    def times(self, factors):
        return " ".join(factors)

    def brackets(self, inside):
        return f"({inside})"

    def other(self, expression):
        return str(expression)


class _Latex(_Writer):
    minus, at_most, less = "-", r"\le", "<"

    def name(self, name):
        letter, *subscript = name.split("_")
        stem = letter.rstrip("'")
        greek = "\\" + stem if stem in _GREEK else stem
        return greek + "'" * (len(letter) - len(stem)) + (f"_{{{subscript[0]}}}" if subscript else "")

    def number(self, digits):
        return digits

    def indexed(self, label, indices):
        letter = rf"\tilde{{{label[0]}}}" if label.endswith("tilde") else label
        return f"{letter}_{{{','.join(indices)}}}"

    def delta(self, left, right):
        return rf"\delta_{{{left},\;{right}}}"

    def sum(self, names, summand):
        return rf"\sum_{{{','.join(names)}}} {summand}"

    def plus(self, terms):
        return " + ".join(terms).replace("+ -", "- ")

    def times(self, factors):
        return r"\,".join(factors)

    def brackets(self, inside):
        return rf"\Bigl({inside}\Bigr)"

    def other(self, expression):
        return str(sp.latex(expression))


class _MathML(_Writer):
    minus, at_most, less = "<mo>−</mo>", "<mo>≤</mo>", "<mo>&lt;</mo>"

    def name(self, name):
        letter, *subscript = name.split("_")
        stem = letter.rstrip("'")
        base = f"<mi>{_GREEK.get(stem, escape(stem))}</mi>"
        below = f"<mn>{subscript[0]}</mn>" if subscript else "<mrow></mrow>"
        if letter != stem:
            return f"<msubsup>{base}{below}<mo>{'′' * (len(letter) - len(stem))}</mo></msubsup>"
        return f"<msub>{base}{below}</msub>" if subscript else base

    def number(self, digits):
        return f"<mn>{digits}</mn>"

    def indexed(self, label, indices):
        letter = f"<mi>{escape(label.removesuffix('tilde'))}</mi>"
        if label.endswith("tilde"):
            letter = f'<mover accent="true">{letter}<mo>~</mo></mover>'
        return f"<msub>{letter}{self._list(indices)}</msub>"

    def delta(self, left, right):
        return f"<msub><mi>δ</mi>{self._list([left, right])}</msub>"

    def sum(self, names, summand):
        return f"<munder><mo>∑</mo>{self._list(names)}</munder>{summand}"

    def plus(self, terms):
        return "<mo>+</mo>".join(terms).replace("<mo>+</mo><mo>−</mo>", "<mo>−</mo>")

    def times(self, factors):
        return '<mspace width="0.17em"/>'.join(factors)

    def brackets(self, inside):
        return f"<mrow><mo>(</mo>{inside}<mo>)</mo></mrow>"

    def other(self, expression):
        return f"<mtext>{escape(str(expression))}</mtext>"

    @staticmethod
    def _list(parts):
        return f"<mrow>{'<mo>,</mo>'.join(parts)}</mrow>"
