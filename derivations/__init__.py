"""Derives the gradients of a convolution, and refutes wrong ones.

- `claims()` lists what is claimed: eqs. 3-5, the pipelines down to I, W and B, and their second order.
- `derive(claim)` derives a claim from eq. 2 for every size; walk its `steps`.
- `check(claim)` compares it with brute-force derivatives on small index sets; false with a `counterexample`.
- `mutants()` are wrong claims, to see both fail.

A claim of your own is one of these with another formula: `claims()[0].but("my version", formula)`.
"""

from derivations.check import Check, Counterexample, check
from derivations.derive import Derivation, Step, derive
from derivations.equations import Claim, Layer, Map, claims
from derivations.mutants import mutants

__all__ = [
    "Check",
    "Claim",
    "Counterexample",
    "Derivation",
    "Layer",
    "Map",
    "Step",
    "check",
    "claims",
    "derive",
    "mutants",
]
