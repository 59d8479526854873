"""Wrong claims, each with one mistake that people make. A checker that does not refute every one of them is broken.

Each mutant is a true claim with its formula changed in one place, so that it can be derived, checked and printed like it.
"""

from typing import Any

import sympy as sp

from derivations import equations as eq
from derivations.equations import Claim, Layer, p, q, r
from derivations.indices import Expr, delta, sum_between, total


def mutants() -> tuple[Claim, ...]:
    """The table of wrong claims; `title` says what is wrong."""
    return (
        *_of_equation_3(),
        *_of_equation_4(),
        *_of_equation_5(),
        *_of_fold(),
        *_of_input(),
        *_of_weight(),
        *_of_bias(),
    )


def _of_equation_3() -> tuple[Claim, ...]:
    claim, (i, j, k) = eq.EQUATION_3, eq.EQUATION_3.at
    G, W = eq.G_FLAT, eq.W_FLAT
    return (
        claim.but("weight transposed", total(G[i, q, k] * W[j, q], (q, eq.Q))),
        claim.but("cotangent transposed", total(G[k, q, i] * W[q, j], (q, eq.Q))),
        claim.but("sum over q missing", G[i, 0, k] * W[0, j]),
        claim.but("wrong sign", -claim.formula),
        claim.but("sum over q starts at 1", sum_between(G[i, q, k] * W[q, j], (q, 1, eq.Q - 1))),
        claim.but("divided by the batch", claim.formula / eq.P),
        claim.but("summed over the positions too", total(G[i, q, r] * W[q, j], (q, eq.Q), (r, eq.R))),
    )


def _of_equation_4() -> tuple[Claim, ...]:
    claim, (i, j) = eq.EQUATION_4, eq.EQUATION_4.at
    G, U = eq.G_FLAT, eq.U
    return (
        claim.but("U transposed", total(G[p, i, r] * U[p, r, j], (p, eq.P), (r, eq.R))),
        claim.but("i and j exchanged", total(G[p, j, r] * U[p, i, r], (p, eq.P), (r, eq.R))),
        claim.but("sum over the batch missing", total(G[0, i, r] * U[0, j, r], (r, eq.R))),
        claim.but("sum over the positions missing", total(G[p, i, 0] * U[p, j, 0], (p, eq.P))),
        claim.but("mean over the batch", claim.formula / eq.P),
        claim.but("last position forgotten", sum_between(G[p, i, r] * U[p, j, r], (p, 0, eq.P - 1), (r, 0, eq.R - 2))),
    )


def _of_equation_5() -> tuple[Claim, ...]:
    claim, i = eq.EQUATION_5, eq.EQUATION_5.at[1]
    G = eq.G_FLAT
    return (
        claim.but("sum over the batch missing", total(G[0, i, r], (r, eq.R))),
        claim.but("sum over the positions missing", total(G[p, i, 0], (p, eq.P))),
        claim.but("summed over the channels too", total(G[p, q, r], (p, eq.P), (q, eq.Q), (r, eq.R))),
        claim.but("mean over the positions", claim.formula / eq.R),
    )


def _copies(layer: Layer, value: Expr, reads: Expr | None = None) -> Expr:
    """`value` summed over the copies of input cell x, as fold does; `reads` says which those are."""
    which = layer.reads(layer.x, layer.l, layer.k) if reads is None else reads
    ranges = (*zip(layer.k, layer.K, strict=True), *zip(layer.l, layer.L, strict=True))
    return total(which * value, *ranges)


def _of_fold() -> tuple[Claim, ...]:
    layer = Layer(1)
    claim = layer.fold_claim
    V = layer.unfolded_cotangent[(layer.n, layer.g, layer.c, *layer.k, *layer.l)]
    copies = _copies(layer, sp.Integer(1))
    (k,), (x,), (K,), (L,) = layer.k, layer.x, layer.K, layer.L
    (l,), (s,), (d,), (z,) = layer.l, layer.stride, layer.dilation, layer.padding
    return (
        claim.but("averages the copies", claim.formula / sp.Max(1, copies)),
        claim.but("counts overlaps twice", claim.formula * sp.Max(1, copies)),
        claim.but(
            "drops the last tap", sum_between(layer.reads(layer.x, layer.l, layer.k) * V, (k, 0, K - 2), (l, 0, L - 1))
        ),
        claim.but("pads on the wrong side", _copies(layer, V, delta(x, s * l + d * k + z))),
    )


def _of_input() -> tuple[Claim, ...]:
    layer, plane = Layer(1), Layer(2)
    claim, flat = layer.input_claim, plane.input_claim
    (k,), (x,), (l,), (s,), (d,), (z,) = layer.k, layer.x, layer.l, layer.stride, layer.dilation, layer.padding

    def gradient(reads=None, tap: Any = k, group: Any = layer.g, at=layer):
        taps = at.k if at is plane else (tap,)
        value = at.cotangent[(at.n, group, at.o, *at.l)] * at.weight[(group, at.o, at.c, *taps)]
        return _copies(at, total(value, (at.o, at.D)), reads)

    swapped = zip(plane.x, plane.position(plane.l, plane.k)[::-1], strict=True)
    return (
        claim.but("padding ignored", gradient(delta(x, s * l + d * k))),
        claim.but("stride off by one", gradient(delta(x, (s + 1) * l + d * k - z))),
        claim.but("stride ignored", gradient(delta(x, l + d * k - z))),
        claim.but("dilation ignored", gradient(delta(x, s * l + k - z))),
        claim.but("stride and dilation exchanged", gradient(delta(x, d * l + s * k - z))),
        claim.but("kernel flipped", gradient(tap=layer.K[0] - 1 - k)),
        claim.but("first group's weight for all", gradient(group=sp.Integer(0))),
        flat.but("spatial axes exchanged", gradient(sp.Mul(*(delta(a, b) for a, b in swapped)), at=plane)),
    )


def _of_weight() -> tuple[Claim, ...]:
    layer = Layer(1)
    claim = layer.weight_claim
    (k,), (x,), (X,), (l,), (L,) = layer.k, layer.x, layer.X, layer.l, layer.L
    (s,), (d,), (z,), (K,) = layer.stride, layer.dilation, layer.padding, layer.K

    def gradient(cell, first=0):
        read = sum_between(layer.input[layer.n, layer.g, layer.c, x] * delta(x, cell), (x, 0, X - 1))
        value = layer.cotangent[layer.n, layer.g, layer.o, l] * read
        return sum_between(value, (layer.n, 0, layer.N - 1), (l, first, L - 1))

    return (
        claim.but("padding ignored", gradient(s * l + d * k)),
        claim.but("stride and dilation exchanged", gradient(d * l + s * k - z)),
        claim.but("kernel flipped", gradient(s * l + d * (K - 1 - k) - z)),
        claim.but("first window dropped", gradient(s * l + d * k - z, first=1)),
        claim.but("scaled by the batch", layer.N * claim.formula),
    )


def _of_bias() -> tuple[Claim, ...]:
    layer = Layer(1)
    claim = layer.bias_claim
    (l,), (L,) = layer.l, layer.L
    return (
        claim.but("batch forgotten", total(layer.cotangent[0, layer.g, layer.o, l], (l, L))),
        claim.but("first group for all", claim.formula.subs(layer.g, 0)),
        claim.but("scaled by 1 + 1e-6", claim.formula * (1 + sp.Rational(1, 10**6))),
    )
