"""The small index sets on which claims are checked entry by entry, from the smallest up.

An index set gives every size symbol of a map a number. For a convolution the numbers come from a `Geometry`, whose output
sizes are counted, window by window, from the definition of a position.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import sympy as sp

from derivations.equations import Layer, M, Map, P, Q, R

IndexSet = dict[sp.Symbol, int]


@dataclass(frozen=True)
class Geometry:
    """A small convolution: `channels` are (per group) those of the input and of the output; `padding` is (low, high)."""

    batch: int
    groups: int
    channels: tuple[int, int]
    spatial: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]

    @property
    def rank(self) -> int:
        return len(self.spatial)

    def output_sizes(self) -> tuple[int, ...]:
        """How many windows fit on each axis: those whose first and last tap lie in the padded input."""
        sizes = []
        for x, k, s, d, (low, high) in zip(
            self.spatial, self.kernel, self.stride, self.dilation, self.padding, strict=True
        ):
            windows = itertools.takewhile(lambda l: s * l + d * (k - 1) - low < x + high, itertools.count())  # noqa: B023
            sizes.append(sum(1 for _ in windows))
        return tuple(sizes)

    def index_set(self) -> IndexSet:
        layer = Layer(self.rank)
        channels_in, channels_out = self.channels
        sizes = {layer.N: self.batch, layer.groups: self.groups, layer.C: channels_in, layer.D: channels_out}
        low = tuple(pair[0] for pair in self.padding)
        for symbols, numbers in (
            (layer.X, self.spatial),
            (layer.K, self.kernel),
            (layer.L, self.output_sizes()),
            (layer.stride, self.stride),
            (layer.dilation, self.dilation),
            (layer.padding, low),
        ):
            sizes |= dict(zip(symbols, numbers, strict=True))
        return sizes

    def __str__(self) -> str:
        def axes(entries):
            return "x".join(map(str, entries))

        padding = " ".join(f"{low},{high}" for low, high in self.padding)
        return (
            f"N{self.batch} g{self.groups} C{self.channels[0]}->{self.channels[1]} X{axes(self.spatial)} "
            f"K{axes(self.kernel)} s{axes(self.stride)} d{axes(self.dilation)} p({padding})"
        )


@cache
def geometries(rank: int) -> tuple[Geometry, ...]:
    """Geometries of `rank` spatial axes: kernels that overhang, strides that skip, padding of either side, groups."""
    found = sorted(_legal(rank), key=_cost)
    # In three dimensions there are hundreds; every third still meets each value of each argument.
    return (*found[:: 1 if rank < 3 else 3], *(geometry for geometry in _LARGER if geometry.rank == rank))


def _legal(rank: int) -> Iterator[Geometry]:
    blocks = ((1, 1, (1, 1)), (2, 1, (1, 2)), (1, 2, (2, 1)))
    lines = {
        # spatial, kernel, stride, dilation, padding of an axis
        1: list(itertools.product((1, 2, 4), (1, 2, 3), (1, 2, 3), (1, 2), ((0, 0), (1, 1), (0, 2), (2, 1)))),
        2: [(3, 2, 1, 1, (0, 0)), (2, 3, 1, 1, (1, 1)), (3, 2, 2, 1, (1, 0)), (4, 2, 3, 2, (0, 1)), (1, 1, 2, 1, (0, 2)),
            (2, 2, 1, 2, (2, 1)), (3, 3, 1, 1, (0, 1))],
        3: [(2, 2, 1, 1, (0, 0)), (1, 2, 1, 1, (1, 0)), (3, 2, 2, 1, (0, 1)), (2, 1, 1, 2, (0, 0)), (3, 2, 1, 2, (0, 0))],
    }  # fmt: skip
    for (batch, groups, channels), axes in itertools.product(
        blocks, itertools.product(lines.get(rank, lines[3][:2]), repeat=rank)
    ):
        geometry = Geometry(batch, groups, channels, *zip(*axes, strict=True))
        if all(geometry.output_sizes()):
            yield geometry


# Layers of a size that people run by hand, last because they take longest.
_LARGER = (
    Geometry(2, 1, (2, 3), (11,), (5,), (2,), (2,), ((4, 1),)),
    Geometry(1, 4, (1, 1), (12,), (3,), (1,), (1,), ((1, 1),)),
    Geometry(1, 1, (2, 2), (5, 5), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1))),
    Geometry(2, 2, (1, 2), (6, 5), (3, 2), (2, 1), (1, 2), ((2, 1), (0, 1))),
    Geometry(1, 1, (1, 1), (9, 9), (7, 7), (2, 2), (1, 1), ((3, 3), (3, 3))),
    Geometry(1, 1, (2, 1), (3, 4, 3), (2, 3, 2), (1, 2, 1), (1, 1, 2), ((1, 0), (1, 1), (0, 1))),
)


def _cost(geometry: Geometry) -> tuple:
    """Number of products in the output, which decides how long a check takes; then a fixed order."""
    cost = geometry.batch * geometry.groups * geometry.channels[0] * geometry.channels[1]
    for sizes in (geometry.spatial, geometry.kernel, geometry.output_sizes()):
        for size in sizes:
            cost *= size
    return cost, str(geometry)


@cache
def index_sets(rank: int) -> tuple[tuple[str, IndexSet], ...]:
    """Index sets with their names: of geometries, or for rank 0 of P, Q, R, M up to 3 each."""
    if rank:
        return tuple((str(geometry), geometry.index_set()) for geometry in geometries(rank))
    sizes = sorted(itertools.product((1, 2, 3), repeat=4), key=lambda numbers: (sum(numbers), numbers))
    return tuple((f"P{a} Q{b} R{c} M{d}", {P: a, Q: b, R: c, M: d}) for a, b, c, d in sizes)


def index_sets_of(map: Map) -> tuple[tuple[str, IndexSet], ...]:
    """The default index sets for claims about `map`."""
    return index_sets(map.rank)
