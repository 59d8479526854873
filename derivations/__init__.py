"""Derives the gradients of a convolution, proves that code computes them, and refutes what is wrong.

On paper, for every size:

- `claims()` lists what is claimed: eqs. 3-5, the pipelines down to I, W and B, and their second order.
- `derive(claim)` derives a claim from eq. 2; walk its `steps`.
- `check(claim)` compares it with brute-force derivatives on small index sets; false with a `counterexample`.
- `mutants()` are wrong claims, to see both fail. A claim of your own is one with another formula:
  `claims()[0].but("my version", formula)`.

On code, anybody's, for given shapes:

- `prove_vjp(fun, *shapes)` proves that the backward pass JAX runs for `fun` is its derivative.
- `prove_equal(f, g, *shapes)` proves that two functions are equal; `prove_definition` holds one against NumPy loops.
- `rule(name)` teaches the interpreter a primitive. `derivations.testing` has the assertions for a test suite.

Equation numbers and letters are those of *Some formulae* (M. Calafà, P. Motta, T. Rimbot, EE-559 Deep Learning, 2022).
"""

import importlib.util

if importlib.util.find_spec("sympy") is None:
    raise ModuleNotFoundError('derivations needs SymPy: pip install "jaxconv[proofs]"', name="sympy")

from derivations.check import Check, Counterexample, check
from derivations.derive import Derivation, Step, derive
from derivations.equations import Claim, Layer, Map, claims
from derivations.interpreter import UnsupportedPrimitive, rule
from derivations.mutants import mutants
from derivations.prove import Verdict, prove_definition, prove_equal, prove_vjp

__all__ = [
    "Check",
    "Claim",
    "Counterexample",
    "Derivation",
    "Layer",
    "Map",
    "Step",
    "UnsupportedPrimitive",
    "Verdict",
    "check",
    "claims",
    "derive",
    "mutants",
    "prove_definition",
    "prove_equal",
    "prove_vjp",
    "rule",
]
