"""What is true by definition, and what is claimed about it.

A `Map` is a definition: one entry of an output, as a SymPy expression in its arguments. Eq. 2 of *Some formulae* is one;
the convolution from I, W and B to O is another, and it stands on its own: three lines of index arithmetic,

    position = stride*l + dilation*k - padding      on each axis, zero outside,

which share nothing with the numeric package. A `Claim` is a closed form for one gradient of a map: eqs. 3, 4 and 5, the
boxed pipelines around them, and the derivatives of eqs. 3 and 4 themselves. Claims are only stated here; `derive` and
`check` decide whether they hold.

Tensors with groups have the group as an axis of its own, `channel = group * channels_per_group + c`: a view.
"""

from dataclasses import dataclass, replace

import sympy as sp

from derivations.indices import Expr, Tensor, delta, index, size, tensor, total


@dataclass(frozen=True)
class Map:
    """A function of tensors, by one entry of its output.

    Attributes:
        name: what the entry is called in print, such as `(2)`.
        output: the output tensor, and `cotangent` the gradient of the loss with respect to it.
        at: the indices of the output's entry.
        entry: that entry, in terms of `arguments`.
        rank: the number of spatial axes; 0 for the equations on U, W~, B~ and G~, which have none.
    """

    name: str
    arguments: tuple[Tensor, ...]
    output: Tensor
    cotangent: Tensor
    at: tuple[sp.Symbol, ...]
    entry: Expr
    rank: int = 0

    @property
    def ranges(self) -> tuple[tuple[sp.Symbol, Expr], ...]:
        """The output's indices with their sizes."""
        return tuple(zip(self.at, self.output.shape, strict=True))


@dataclass(frozen=True)
class Claim:
    """A closed form for the gradient of `sum cotangent * output` with respect to one entry of `argument`.

    Attributes:
        name: what it is called, such as `(3)`.
        title: what it is, in words.
        map: the function that it speaks of.
        argument: the tensor that the gradient is with respect to, at the indices `at`.
        formula: the claimed entry.
    """

    name: str
    title: str
    map: Map
    argument: Tensor
    at: tuple[Expr, ...]
    formula: Expr

    def __post_init__(self):
        if self.argument not in self.map.arguments:
            raise ValueError(f"`argument` must be one of those of {self.map.name}, got {self.argument.name}")
        if len(self.at) != len(self.argument.shape):
            raise ValueError(f"`at` must have one index for each of the {len(self.argument.shape)} axes, got {self.at}")

    def but(self, title: str, formula: Expr) -> "Claim":
        """The same claim with another formula."""
        return replace(self, title=title, formula=formula)


# The letters of *Some formulae*: p sample, q output channel, r output position, m row of U.
P, Q, R, M = map(size, "PQRM")
p, q, r, m, i, j, k = map(index, "pqrmijk")

U = tensor("U", P, M, R)
W_FLAT = tensor("Wtilde", Q, M)
B_FLAT = tensor("Btilde", 1, Q, 1)
O_FLAT = tensor("Otilde", P, Q, R)
G_FLAT = tensor("Gtilde", P, Q, R)

EQUATION_2 = Map(
    "(2)", (U, W_FLAT, B_FLAT), O_FLAT, G_FLAT, (p, q, r), total(W_FLAT[q, m] * U[p, m, r], (m, M)) + B_FLAT[0, q, 0]
)

EQUATION_3 = Claim(
    "(3)",
    "gradient with respect to the unfolded input",
    EQUATION_2,
    U,
    (i, j, k),
    total(G_FLAT[i, q, k] * W_FLAT[q, j], (q, Q)),
)
EQUATION_4 = Claim(
    "(4)",
    "gradient with respect to the flat weight",
    EQUATION_2,
    W_FLAT,
    (i, j),
    total(G_FLAT[p, i, r] * U[p, j, r], (p, P), (r, R)),
)
_zero = sp.Integer(0)
EQUATION_5 = Claim(
    "(5)",
    "gradient with respect to the bias",
    EQUATION_2,
    B_FLAT,
    (_zero, i, _zero),
    total(G_FLAT[p, i, r], (p, P), (r, R)),
)

# Eqs. 3 and 4 as maps of their own, for the second order. V is the gradient with respect to their output.
_V_OF_U = tensor("V", P, M, R)
_V_OF_W = tensor("V", Q, M)
GRADIENT_OF_U = Map("(3)", (G_FLAT, W_FLAT), tensor("dU", P, M, R), _V_OF_U, (i, j, k), EQUATION_3.formula)
GRADIENT_OF_W = Map("(4)", (G_FLAT, U), tensor("dW", Q, M), _V_OF_W, (i, j), EQUATION_4.formula)

SECOND_ORDER = (
    Claim(
        "∂(3)/∂G̃",
        "eq. 3 by the cotangent is eq. 2 with V for U and no bias",
        GRADIENT_OF_U,
        G_FLAT,
        (p, q, r),
        total(W_FLAT[q, m] * _V_OF_U[p, m, r], (m, M)),
    ),
    Claim(
        "∂(3)/∂W̃",
        "eq. 3 by the flat weight is eq. 4 with V for U",
        GRADIENT_OF_U,
        W_FLAT,
        (q, m),
        total(G_FLAT[p, q, r] * _V_OF_U[p, m, r], (p, P), (r, R)),
    ),
    Claim(
        "∂(4)/∂G̃",
        "eq. 4 by the cotangent is eq. 2 with V for W̃ and no bias",
        GRADIENT_OF_W,
        G_FLAT,
        (p, q, r),
        total(_V_OF_W[q, m] * U[p, m, r], (m, M)),
    ),
    Claim(
        "∂(4)/∂U",
        "eq. 4 by the unfolded input is eq. 3 with V for W̃",
        GRADIENT_OF_W,
        U,
        (p, m, r),
        total(G_FLAT[p, q, r] * _V_OF_W[q, m], (q, Q)),
    ),
)

EQUATIONS = (EQUATION_3, EQUATION_4, EQUATION_5)


@dataclass(frozen=True)
class Layer:
    """A convolution of `rank` spatial axes, from I, W and B, with all of its sizes as symbols.

    N samples, Γ groups of C input and D output channels each; on axis a: input size X, kernel K, output size L, stride s,
    dilation d, padding (low side) z.
    """

    rank: int

    N = size("N")
    groups = size("Gamma")
    C = size("C")
    D = size("D")
    n, g, c, o = map(index, ("n", "gamma", "c", "o"))

    def _sizes(self, letter: str) -> tuple[sp.Symbol, ...]:
        return tuple(size(f"{letter}_{axis + 1}") for axis in range(self.rank))

    def _indices(self, letter: str) -> tuple[sp.Symbol, ...]:
        return tuple(index(f"{letter}_{axis + 1}") for axis in range(self.rank))

    @property
    def X(self):
        return self._sizes("X")

    @property
    def K(self):
        return self._sizes("K")

    @property
    def L(self):
        return self._sizes("L")

    @property
    def stride(self):
        return self._sizes("s")

    @property
    def dilation(self):
        return self._sizes("d")

    @property
    def padding(self):
        return tuple(sp.Symbol(f"z_{axis + 1}", integer=True, nonnegative=True) for axis in range(self.rank))

    @property
    def x(self):
        return self._indices("x")

    @property
    def k(self):
        return self._indices("k")

    @property
    def l(self):
        return self._indices("l")

    def position(self, l: tuple, k: tuple) -> tuple[Expr, ...]:
        """The input cell that output position l reads with tap k: the definition of a convolution."""
        zipped = zip(self.stride, l, self.dilation, k, self.padding, strict=True)
        return tuple(s * at + d * tap - z for s, at, d, tap, z in zipped)

    def reads(self, x: tuple, l: tuple, k: tuple) -> Expr:
        """1 where output position l reads input cell x with tap k, else 0: a delta in an affine index an axis."""
        return sp.Mul(*(delta(cell, at) for cell, at in zip(x, self.position(l, k), strict=True)))

    def ranges(self, indices: tuple, sizes: tuple) -> tuple:
        return tuple(zip(indices, sizes, strict=True))

    @property
    def input(self) -> Tensor:
        return tensor("I", self.N, self.groups, self.C, *self.X)

    @property
    def weight(self) -> Tensor:
        return tensor("W", self.groups, self.D, self.C, *self.K)

    @property
    def bias(self) -> Tensor:
        return tensor("B", self.groups, self.D)

    @property
    def output(self) -> Tensor:
        return tensor("O", self.N, self.groups, self.D, *self.L)

    @property
    def cotangent(self) -> Tensor:
        return tensor("G", self.N, self.groups, self.D, *self.L)

    @property
    def unfolded(self) -> Tensor:
        """U with its rows seen as group, channel and tap, and its columns as output positions."""
        return tensor("U", self.N, self.groups, self.C, *self.K, *self.L)

    @property
    def unfolded_cotangent(self) -> Tensor:
        return tensor("V", self.N, self.groups, self.C, *self.K, *self.L)

    def unfolded_entry(self, n, g, c, k: tuple, l: tuple) -> Expr:
        """U from I. A cell outside the input is reached by no x of the sum, so it counts as zero."""
        cells = self.input[(n, g, c, *self.x)] * self.reads(self.x, l, k)
        return total(cells, *self.ranges(self.x, self.X))

    @property
    def unfold(self) -> Map:
        """I to U."""
        at = (self.n, self.g, self.c, *self.k, *self.l)
        entry = self.unfolded_entry(self.n, self.g, self.c, self.k, self.l)
        return Map("unfold", (self.input,), self.unfolded, self.unfolded_cotangent, at, entry, self.rank)

    @property
    def convolution(self) -> Map:
        """I, W and B to O: the unfolding inside eq. 2."""
        at = (self.n, self.g, self.o, *self.l)
        product = self.weight[(self.g, self.o, self.c, *self.k)] * self.unfolded_entry(
            self.n, self.g, self.c, self.k, self.l
        )
        entry = total(product, (self.c, self.C), *self.ranges(self.k, self.K)) + self.bias[self.g, self.o]
        arguments = (self.input, self.weight, self.bias)
        return Map("convolution", arguments, self.output, self.cotangent, at, entry, self.rank)

    @property
    def fold_claim(self) -> Claim:
        """Fold is weight sharing: the gradient of a cell sums those of all of its copies in U."""
        copies = (
            self.reads(self.x, self.l, self.k) * self.unfolded_cotangent[(self.n, self.g, self.c, *self.k, *self.l)]
        )
        formula = total(copies, *self.ranges(self.k, self.K), *self.ranges(self.l, self.L))
        at = (self.n, self.g, self.c, *self.x)
        return Claim("fold", "weight sharing, the transpose of unfold", self.unfold, self.input, at, formula)

    @property
    def input_claim(self) -> Claim:
        """The first boxed pipeline: view, eq. 3, fold."""
        product = self.cotangent[(self.n, self.g, self.o, *self.l)] * self.weight[(self.g, self.o, self.c, *self.k)]
        equation_3 = total(product, (self.o, self.D))
        formula = total(
            self.reads(self.x, self.l, self.k) * equation_3, *self.ranges(self.k, self.K), *self.ranges(self.l, self.L)
        )
        at = (self.n, self.g, self.c, *self.x)
        return Claim("∂L/∂I", "view, eq. 3, fold", self.convolution, self.input, at, formula)

    @property
    def weight_claim(self) -> Claim:
        """The second boxed pipeline: view, eq. 4, view."""
        unfolded = self.unfolded_entry(self.n, self.g, self.c, self.k, self.l)
        product = self.cotangent[(self.n, self.g, self.o, *self.l)] * unfolded
        formula = total(product, (self.n, self.N), *self.ranges(self.l, self.L))
        at = (self.g, self.o, self.c, *self.k)
        return Claim("∂L/∂W", "view, eq. 4, view", self.convolution, self.weight, at, formula)

    @property
    def bias_claim(self) -> Claim:
        """The third boxed pipeline: view, eq. 5."""
        formula = total(
            self.cotangent[(self.n, self.g, self.o, *self.l)], (self.n, self.N), *self.ranges(self.l, self.L)
        )
        return Claim("∂L/∂B", "view, eq. 5", self.convolution, self.bias, (self.g, self.o), formula)

    @property
    def claims(self) -> tuple[Claim, ...]:
        return self.fold_claim, self.input_claim, self.weight_claim, self.bias_claim


def claims(rank: int = 2) -> tuple[Claim, ...]:
    """Everything that is claimed: eqs. 3-5, their second order, and the pipelines for `rank` spatial axes."""
    if rank < 1:
        raise ValueError(f"`rank` must be at least 1, got {rank}")
    return (*EQUATIONS, *SECOND_ORDER, *Layer(rank).claims)
