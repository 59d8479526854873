"""Eq. 4 of depthwise layers, row by row: sums for every column of a row, and no copy of what a tap sees.

Each tap adds what it sees of a row, times the row of the cotangent, and the sums are added up at last. So nothing is as large as
U, and a row is one loop that fills vectors: a long one of all samples, and short ones of one sample after the other, whose sums
stay in the cache. With channels first those of a sample are moved behind for that, as it is copied.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import jax.numpy as jnp
from jax import Array, lax

from jaxconv.convolution import Convolution
from jaxconv.tiles import (
    Start,
    Tiles,
    blank,
    cut,
    held,
    moved,
    piece,
    place,
    put,
    seen_by,
    tiles,
    written_out,
)
from jaxconv.window import Place, Taps, forward_taps

# Multiply-accumulates of one fused loop.
MOST_TERMS = 64

Held = Callable[[], Array]
"""What `held` has made of an array."""

Given = Callable[[Array, Start, int], tuple[Array, Start]]
"""From an image, the first one of some samples, and how many, to an array that has them, and the place of the first one there."""


def is_by_rows(convolution: Convolution, input: Array, cotangent: Array) -> bool:
    """Whether a weight gradient is faster row by row: of one channel per group, few taps, and long rows or, channels first, short
    rows of an image."""
    window, groups, rows = convolution.window, convolution.groups, convolution.out_spatial[0]
    channels = [convolution.sizes(image)[2] for image in (input, cotangent)]
    if channels != [groups, groups] or window.taps > MOST_TERMS:
        return False
    # Sums as large as U over the first axis: only where that is a tile, or little of U.
    samples = cotangent.shape[0] if _is_by_samples(convolution) else 1
    size, line = jnp.dtype(convolution.accumulate).itemsize, cotangent.size // (samples * rows)
    few = window.taps * line * size <= convolution.tile or rows * input.dtype.itemsize >= _MANY_ROWS * size
    if window.rank == 1:
        return few and convolution.channels_last and line >= _MANY_CHANNELS
    if convolution.channels_last or not _is_by_samples(convolution):
        return few
    # Samples that are spread over devices are not moved, and few taps of a gradient for every sample are summed at once.
    at_once = convolution.mapped > 1 and written_out(window.taps)
    return few and window.rank == 2 and not convolution.spread and not at_once


def weight_gradient(convolution: Convolution, input: Array, cotangent: Array) -> Array:
    """Eq. 4 where every channel is a group."""
    if not _is_by_samples(convolution):
        return _by_rows(convolution, input, cotangent)
    return (_by_samples if convolution.channels_last else _moved_by_samples)(convolution, input, cotangent)


def _is_by_samples(convolution: Convolution) -> bool:
    """Whether rows are short: with channels first no loop of vectors as they lie, and with channels last worth a turn of a loop
    all the same, for some rows of one sample."""
    row = convolution.out_spatial[1:]
    if not row or row[-1] >= _LONG_ROW:
        return False
    many = convolution.groups * math.prod(row) >= _MANY_CELLS
    return not convolution.channels_last or (many and not convolution.spread)


def _as_it_lies(image: Array, first: Start, samples: int) -> tuple[Array, Start]:
    return image, first


class _Sums:
    """Sums of every tap, for all but the first axis of so many samples. The taps of the first axis see neighbouring rows, and are
    one step; where those of the others begin is not for XLA to see, which would compile a loop for each."""

    def __init__(self, convolution: Convolution, samples: int):
        window, self.convolution, self.row = convolution.window, convolution, convolution.out_spatial[1:]
        self.high, *self.others = (forward_taps(window, axis) for axis in range(window.rank))
        begins = [[jnp.int32(taps.at + taps.shift * tap) for tap in range(taps.count)] for taps in self.others]
        self.entries = list(itertools.product(*lax.optimization_barrier(begins)))
        self.shape = convolution.shape(samples, (self.high.count, *self.row), convolution.groups)

    def blank(self, *like: Array) -> list[Array]:
        return [blank(self.shape, self.convolution.accumulate, *like)] * len(self.entries)

    def plus(
        self, sums: list[Array], image: Held, seen: Start, cotangent: Held, there: Start, rows: int
    ) -> list[Array]:
        """With so many rows of the cotangent from `there` on, the first of which sees the cells of the image from `seen` on."""
        convolution = self.convolution
        for _ in range(rows):
            line = piece(convolution.for_tiles(cotangent(), there), there, 1, convolution.first_spatial)
            sums = self._plus_row(sums, image(), seen, convolution.for_sums(line, convolution.accumulate))
            there, seen = there + 1, seen + self.high.stride
        return sums

    def _plus_row(self, sums: list[Array], image: Array, begin: Start, line: Array) -> list[Array]:
        high, first = self.high, self.convolution.first_spatial
        lines = piece(image, begin, high.count, first, high.shift)

        def seen(begins: Sequence[Start]) -> Array:
            part = lines
            for axis, (at, length, taps) in enumerate(zip(begins, self.row, self.others, strict=True), first + 1):
                part = piece(part, at, length, axis, taps.stride)
            return part

        line = jnp.broadcast_to(line, self.shape)
        # In this order XLA fuses the sum of every tap alike, and compiles one for all; in others the last one is another.
        return [lax.add(lax.mul(line, seen(begins)), total) for begins, total in zip(self.entries, sums, strict=True)]

    def gradient(self, sums: list[Array]) -> Array:
        convolution = self.convolution
        kept = (convolution.first_spatial, convolution.channel_axis)
        axes = [axis for axis in range(len(self.shape)) if axis not in kept]
        # (c, k of the first axis), or the other way round with channels last.
        gradient = jnp.stack([jnp.sum(one, axes) for one in sums], axis=-1)
        gradient = jnp.swapaxes(gradient, 0, 1) if convolution.channels_last else gradient
        gradient = gradient.reshape(convolution.groups, 1, *convolution.window.kernel)
        return convolution.as_result(gradient).astype(convolution.result)


def _by_rows(convolution: Convolution, input: Array, cotangent: Array) -> Array:
    """Some rows of all samples a turn."""
    window, accumulate = convolution.window, convolution.accumulate
    batch, (height, *row), channels = convolution.sizes(cotangent)
    of_taps = _Sums(convolution, batch)
    # Rows are copied among zeros, a third of a tile at a time: as many as divide all, so that none comes twice.
    cells = batch * channels * window.stride[0] * math.prod(convolution.spatial[1:]) * jnp.dtype(accumulate).itemsize
    rows = Tiles((height,), (_divisor(height, convolution.tile // (3 * cells)),))
    of_cotangent = held(cotangent)
    whole = [window.cells(axis, Place.known(0, 0), size) for axis, size in enumerate(row, 1)]

    def step(places, sums):
        (at,), (length,) = places, rows.shape
        cells = [window.cells(0, at, length), *whole]
        image = held(convolution.for_sums(convolution.cut(input, cells), accumulate))
        # Sums are read and written once for some rows. A loop of one turn is none to XLA, which copies what a tap sees then.
        together = _divisor(length, min(_ROWS_AT_ONCE, length // 2))

        def add(turn, sums):
            index, high = turn * together, of_taps.high
            there, seen = at.start + index, high.at + high.stride * index
            return of_taps.plus(sums, image, seen, of_cotangent, there, together)

        return lax.fori_loop(0, length // together, add, sums)

    return of_taps.gradient(rows.walk(step, of_taps.blank(input, cotangent)))


def _by_samples(convolution: Convolution, input: Array, cotangent: Array, given: Given = _as_it_lies) -> Array:
    """Some rows of one sample a turn, with channels last: so sums are those of one sample, and stay in the cache. `given` some
    samples of an image, whatever its layout."""
    window, accumulate = convolution.window, convolution.accumulate
    batch, channels, (height, *row) = input.shape[0], convolution.groups, convolution.out_spatial
    of_taps = _Sums(convolution, 1)
    cells = channels * window.stride[0] * math.prod(convolution.spatial[1:]) * jnp.dtype(accumulate).itemsize
    samples, rows, together = _parts(batch, height, convolution.tile // (3 * cells))
    whole = [window.cells(axis, Place.known(0, 0), size) for axis, size in enumerate(row, 1)]

    def side_by_side(part: Array) -> Array:
        """Samples as one, whose rows lie one behind the other."""
        return part.reshape(1, -1, *part.shape[2:])

    def step(places, sums):
        part, at = places
        own, begin = given(input, part.start, samples)
        own = piece(convolution.for_tiles(own, begin, at.start), begin, samples, 0)
        own = cut(own, 1, [window.cells(0, at, rows), *whole])
        of_image = held(side_by_side(convolution.for_sums(own, accumulate)))
        other, begin = given(cotangent, part.start, samples)
        of_cotangent = held(side_by_side(other))

        def add(turn, sums):
            sample, turn = place(turn, (samples, rows // together))
            index, high = turn * together, of_taps.high
            there = (begin + sample) * height + at.start + index
            seen = sample * own.shape[1] + high.at + high.stride * index
            return of_taps.plus(sums, of_image, seen, of_cotangent, there, together)

        return lax.fori_loop(0, samples * rows // together, add, sums)

    grid = Tiles((batch, height), (samples, rows))
    return of_taps.gradient(grid.walk(step, of_taps.blank(input, cotangent)))


def _parts(batch: int, height: int, most: int) -> tuple[int, int, int]:
    """How many samples are copied among zeros at a time, how many rows of each, where there is room for `most`, and of how many a
    turn adds up the products: as many as divide all, so that none comes twice. A loop of one turn is none to XLA, which copies
    what a tap sees then: so of few rows two samples or more, or fewer rows a turn."""
    rows = _divisor(height, most)
    together = _divisor(rows, _ROWS_OF_A_SAMPLE)
    several = next((count for count in range(2, batch + 1) if batch % count == 0 and count * rows <= most), 0)
    if together < rows or (rows == height and several):
        return (1 if together < rows else several), rows, together
    return 1, rows, _divisor(rows, rows // 2)


def _moved_by_samples(convolution: Convolution, input: Array, cotangent: Array) -> Array:
    """Some channels at a time, which are moved behind sample by sample."""
    window, positions = convolution.window, convolution.out_spatial
    # Of two samples, before and among zeros, and of the sums.
    cells = 4 * (math.prod(convolution.spatial) + math.prod(positions)) + window.taps * math.prod(positions[1:])
    grid = tiles_of_groups(convolution, cells)
    inside = replace(convolution, channels_last=True, groups=grid.shape[0], bits=None, result=convolution.accumulate)

    def behind(part: Array) -> Array:
        axes = range(2, 2 + window.rank)
        return moved(convolution.for_sums(part, convolution.accumulate), (0, *axes, 1))

    def step(places: list[Place], total: Array) -> Array:
        start = places[0].start

        def given(image: Array, first: Start, samples: int) -> tuple[Array, Start]:
            part = piece(convolution.for_tiles(image, start, first), first, samples, 0)
            return behind(piece(part, start, grid.shape[0], 1)), 0

        return put(total, _by_samples(inside, input, cotangent, given), 0, [start])

    total = blank((convolution.groups, 1, *window.kernel), convolution.accumulate, input, cotangent)
    return grid.walk(step, total).astype(convolution.result)


def tiles_of_groups(convolution: Convolution, cells: int) -> Tiles:
    """Tiles along the groups, which do not see each other, of images whole; `cells` is what a group needs."""
    return tiles((convolution.groups,), cells * jnp.dtype(convolution.accumulate).itemsize, convolution.tile)


def _divisor(size: int, most: int) -> int:
    """The largest divisor of `size` that is `most` at most, or 1."""
    return next(length for length in range(max(1, min(size, most)), 0, -1) if size % length == 0)


def seen_by_taps(part: Array, first: int, taps: Sequence[Taps], at: Sequence[Start], shape: Sequence[int]) -> Array:
    """What one tap sees: `shape` positions, of the axes from `first` on."""
    for axis, (some, index, length) in enumerate(zip(taps, at, shape, strict=True), first):
        part = seen_by(part, some, index, length, axis)
    return part


# A row of fewer cells is a loop that the compiler does not fill vectors with (measured: 28 and 32 cells slower, 40 faster). With
# channels last some rows of one sample are faster up to there, and of all samples from 56 cells on.
_LONG_ROW = 40
# Of a row and its channels, where those are last (measured: 900 cells slower by samples, 1600 faster).
_MANY_CELLS = 1024
_MANY_ROWS = 7
_ROWS_AT_ONCE = 4
_ROWS_OF_A_SAMPLE = 7
# Of a signal, what is done for every position must be worth a turn of a loop (measured: 200 cells slower, 256 faster).
_MANY_CHANNELS = 256
