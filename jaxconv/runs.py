"""Rows of positions as one run: how `fold` adds up the taps of the last axis where each row has as many positions as cells.

What a tap sees of a row is then that row moved by some cells, and of a whole tile the tile moved by as many, but for the ends of
rows, which see zeros. In one long run without branches XLA fills vectors; written with rows that are padded it fills none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxconv.convolution import Convolution
from jaxconv.tiles import Start, Tiles, written_out


@dataclass(frozen=True)
class Runs:
    """Tiles of a `grid` whose axes from `axis` on are one run, and by how many cells each tap of the last axis sees a row moved.

    What is added up are the blocks of one product, a block a tap, as they lie in memory: the tap that reaches furthest comes
    first, so that none reads beyond them.
    """

    grid: Tiles
    axis: int
    moves: tuple[int, ...]

    @classmethod
    def of(cls, convolution: Convolution, grid: Tiles) -> "Runs | None":
        """None where rows are no runs: with channels last; in a part of a batch, whose rows XLA would find by division; on
        several devices, as all samples are one run; and where more than the last axis is folded, or it has other cells than
        positions, or more taps than are written out."""
        window, last = convolution.window, convolution.window.rank - 1
        (low, high), taps, step = window.padding[last], window.kernel[last], window.dilation[last]
        size = convolution.spatial[last]
        if not convolution.folds_rows or convolution.parts > 1 or convolution.spread or not written_out(taps):
            return None
        if window.stride[last] > 1 or not size == grid.sizes[last] == grid.shape[last]:
            return None
        if min(low, high) < 0 or max(low, high) > size:
            return None
        axis = max((axis for axis, count in enumerate(grid.counts) if count > 1), default=0)
        return cls(grid, axis, tuple(step * tap - low for tap in range(taps)))

    def shape(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Sizes of positions with those of a run in one."""
        return (*sizes[: self.axis], math.prod(sizes[self.axis :]))

    def starts(self, starts: Sequence[Start]) -> list[Start]:
        """Where a tile begins."""
        inner = math.prod(self.grid.shape[self.axis + 1 :])
        return [*starts[: self.axis], starts[self.axis] * inner]

    def summed(self, products: Array, lead: Sequence[int]) -> Array:
        """The sum over taps of products (g, taps, channels, N, *positions), as (*lead, *positions of runs), where `lead` is
        (g, channels, N)."""
        groups, length, taps = lead[0], self.grid.sizes[-1], len(self.moves)
        flat = products.reshape(groups, -1)
        block = flat.shape[1] // taps
        run = self.shape(self.grid.shape)
        at = np.arange(run[-1]) % length
        total = None
        for tap, move in enumerate(self.moves):
            start = (taps - 1 - tap) * block + move
            part = lax.slice_in_dim(flat, start, start + block, axis=1).reshape(*lead, *run)
            inside = (at + move >= 0) & (at + move < length)
            if move:
                part = jnp.where(inside, part, jnp.zeros((), part.dtype))
            total = part if total is None else total + part
        assert total is not None
        return total
