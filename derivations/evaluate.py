"""Runs a SymPy entry formula on an index set of known sizes, whatever the entries are: polynomials or numbers.

A formula with sums, deltas and cases becomes one Python function by `sympy.lambdify`. Deltas become conditions of the
loops, so that a fold visits the copies of a cell and not every combination of tap and position.
"""

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cache
from typing import Any

import sympy as sp
from sympy.printing.pycode import PythonCodePrinter

from derivations.indices import Entries, Expr, positions


def evaluate(
    formula: Expr, at: tuple, shape: tuple[int, ...], sizes: Mapping[sp.Symbol, int], entries: Mapping[str, Entries]
) -> Entries:
    """`formula` at every index of an array of `shape`.

    `entries` holds each tensor's values by name and index. A formula that reads an entry which does not exist raises
    `IndexError` and says which: an index never wraps around.
    """
    function = _compiled(formula, tuple(symbol for symbol in at if symbol.is_Symbol), tuple(sizes))
    guarded = {name: _Guarded(name, values) for name, values in entries.items()}
    values = {}
    for place in positions(shape):
        free = [number for symbol, number in zip(at, place, strict=True) if symbol.is_Symbol]
        values[place] = function(guarded, *free, *sizes.values())
    return values


class _Guarded:
    """A tensor's entries, which refuses an index that is not there."""

    def __init__(self, name: str, entries: Entries):
        self.name, self.entries = name, entries

    def __getitem__(self, at: tuple[int, ...]) -> Any:
        try:
            return self.entries[at]
        except KeyError:
            raise IndexError(f"{self.name}{list(at)} does not exist") from None


class _LoopPrinter(PythonCodePrinter):
    """Python source for sums, deltas and indexed tensors."""

    def _print_Indexed(self, expr):
        at = "".join(f"{self._print(place)}, " for place in expr.indices)
        return f"_entries[{str(expr.base.label)!r}][({at})]"

    def _print_KroneckerDelta(self, expr):
        return "(1 if {} == {} else 0)".format(*map(self._print, expr.args))

    def _print_Rational(self, expr):
        return f"_fraction({expr.p}, {expr.q})"

    def _print_Float(self, expr):
        return self._print_Rational(sp.Rational(expr))  # the very number, and not a double near it

    def _print_Pow(self, expr, rational=False):
        if expr.exp == -1:
            return f"_fraction(1, {self._print(expr.base)})"
        return super()._print_Pow(expr, rational)

    def _print_Sum(self, expr):
        deltas, others = [], []
        for factor in sp.Mul.make_args(expr.function):
            (deltas if isinstance(factor, sp.KroneckerDelta) else others).append(factor)
        bound = {limit[0] for limit in expr.limits}
        if any(side.free_symbols & bound for _, low, high in expr.limits for side in (low, high)):
            raise NotImplementedError(f"a range that depends on another index: {expr}")
        # Loops that a condition needs come first, so that it is tested as early as it can be.
        needed = set().union(*(factor.free_symbols for factor in deltas)) if deltas else set()
        limits = sorted(expr.limits, key=lambda limit: limit[0] not in needed)
        clauses, seen, left = [], set(), list(deltas)
        for at, low, high in limits:
            clauses.append(f"for {self._print(at)} in range({self._print(low)}, {self._print(high)} + 1)")
            seen.add(at)
            ready = [factor for factor in left if factor.free_symbols & bound <= seen]
            clauses += ["if {} == {}".format(*map(self._print, factor.args)) for factor in ready]
            left = [factor for factor in left if factor not in ready]
        return f"_sum({self._print(sp.Mul(*others))} {' '.join(clauses)})"


@cache
def _compiled(formula: Expr, at: tuple[sp.Symbol, ...], sizes: tuple[sp.Symbol, ...]) -> Callable:
    """A function of the tensors, the free indices and the sizes."""
    # Python has no primes and no bars in its names, and sums may share theirs with a free index.
    symbols = sorted(formula.atoms(sp.Symbol) | set(at) | set(sizes), key=str)
    plain = {symbol: sp.Symbol(f"s{number}", integer=True) for number, symbol in enumerate(symbols)}
    tensors = {base.label for base in formula.atoms(sp.IndexedBase)}
    renamed = formula.xreplace({symbol: name for symbol, name in plain.items() if symbol not in tensors})
    printer = _LoopPrinter({"fully_qualified_modules": False, "allow_unknown_functions": True})
    arguments = [sp.Symbol("_entries"), *(plain[symbol] for symbol in (*at, *sizes))]
    return sp.lambdify(arguments, renamed, modules=[{"_sum": _sum, "_fraction": Fraction}, "math"], printer=printer)


def _sum(terms: Any) -> Any:
    """Like `sum`, but the first term starts it: a sum of polynomials is one, and not a number plus one."""
    result = None
    for term in terms:
        result = term if result is None else result + term
    return 0 if result is None else result
