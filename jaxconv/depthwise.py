"""Eq. 4 of depthwise layers, row by row: sums for every column of a row, and no copy of what a tap sees.

Each tap adds what it sees of a row, times the row of the cotangent, and the sums are added up at last. So nothing is as large as
U, and a row is one loop that fills vectors; of short rows, channels first, all samples and channels are moved behind for that.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import jax.numpy as jnp
from jax import Array, lax

from jaxconv.convolution import Convolution
from jaxconv.tiles import Start, Tiles, blank, held, laid_out, moved, piece, put, seen_by, tiles
from jaxconv.window import Place, Taps, forward_taps

# Multiply-accumulates of one fused loop.
MOST_TERMS = 64


def is_by_rows(convolution: Convolution, input: Array, cotangent: Array, at_once: bool) -> bool:
    """Whether a weight gradient is faster row by row: of one channel a group, few taps, and long rows or, channels first, short
    rows of an image that `at_once`, whole and with every tap written out, would not be."""
    window, groups, rows = convolution.window, convolution.groups, convolution.out_spatial[0]
    channels = [convolution.sizes(image)[2] for image in (input, cotangent)]
    if channels != [groups, groups] or window.taps > MOST_TERMS:
        return False
    # Sums as large as U over the first axis: only where that is a tile, or little of U.
    size, line = jnp.dtype(convolution.accumulate).itemsize, cotangent.size // rows
    few = window.taps * line * size <= convolution.tile or rows * input.dtype.itemsize >= _MANY_ROWS * size
    if window.rank == 1:
        return few and convolution.channels_last and line >= _MANY_CHANNELS
    # Samples that are spread over devices are not moved behind.
    short = window.rank == 2 and not at_once and not convolution.spread
    return few and (_has_long_rows(convolution) or short)


def weight_gradient(convolution: Convolution, input: Array, cotangent: Array) -> Array:
    """Eq. 4 where every channel is a group."""
    return (_by_rows if _has_long_rows(convolution) else _moved_by_rows)(convolution, input, cotangent)


def _has_long_rows(convolution: Convolution) -> bool:
    """Whether a row, with its channels where those are last, is a loop of vectors as it lies."""
    return convolution.channels_last or convolution.out_spatial[-1] >= _LONG_ROW


def _by_rows(convolution: Convolution, input: Array, cotangent: Array) -> Array:
    """Each tap has sums for all but the first axis, which stay in the cache. The taps of the first axis see neighbouring rows,
    and are one step."""
    window, first, accumulate = convolution.window, convolution.first_spatial, convolution.accumulate
    batch, (height, *row), channels = convolution.sizes(cotangent)
    high, *others = (forward_taps(window, axis) for axis in range(window.rank))
    indices = lax.optimization_barrier([[jnp.uint32(tap) for tap in range(size)] for size in window.kernel[1:]])
    entries = list(itertools.product(*indices))
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

        def of_row(index):
            there = at.start + index
            line = piece(convolution.for_tiles(of_cotangent(), there), there, 1, first)
            return convolution.for_sums(line, accumulate), piece(
                image(), high.at + high.stride * index, high.count, first, high.shift
            )

        def add(turn, sums):
            for line, lines in [of_row(turn * together + one) for one in range(together)]:
                sums = [
                    total + seen_by_taps(lines, first + 1, others, tap, row) * line
                    for tap, total in zip(entries, sums, strict=True)
                ]
            return sums

        return lax.fori_loop(0, length // together, add, sums)

    shape = convolution.shape(batch, (high.count, *row), channels)
    sums = rows.walk(step, [blank(shape, accumulate, input, cotangent)] * len(entries))
    axes = [axis for axis in range(len(shape)) if axis not in (first, convolution.channel_axis)]
    # (c, k of the first axis), or the other way round with channels last.
    gradient = jnp.stack([jnp.sum(one, axes) for one in sums], axis=-1)
    gradient = jnp.swapaxes(gradient, 0, 1) if convolution.channels_last else gradient
    return convolution.as_result(gradient.reshape(channels, 1, *window.kernel)).astype(convolution.result)


def _moved_by_rows(convolution: Convolution, input: Array, cotangent: Array) -> Array:
    """Some channels at a time: those of all samples are channels that are last, of one sample."""
    window = convolution.window
    batch, positions, channels = convolution.sizes(cotangent)
    cells = 2 * (math.prod(convolution.spatial) + math.prod(positions)) + window.taps * math.prod(positions[1:])
    grid = tiles_of_groups(convolution, batch * cells)
    lanes, axes = batch * grid.shape[0], range(2, 2 + window.rank)
    some = replace(convolution, channels_last=True, groups=lanes, bits=None, result=convolution.accumulate)

    def behind(part: Array) -> Array:
        part = moved(convolution.for_sums(part, convolution.accumulate), (*axes, 0, 1))
        return part.reshape(1, *part.shape[: window.rank], lanes)

    def given(image: Array, start: Start) -> Array:
        # A call, as XLA moves what it does nothing else with in blocks, which is several times as fast.
        return laid_out(
            convolution.as_call(behind, piece(convolution.for_tiles(image, start), start, grid.shape[0], 1))
        )

    def step(places: list[Place], total: Array) -> Array:
        start = places[0].start
        gradient = _by_rows(some, given(input, start), given(cotangent, start))
        return put(total, gradient.reshape(batch, -1, *gradient.shape[1:]).sum(0), 0, [start])

    total = blank((channels, 1, *window.kernel), convolution.accumulate, input, cotangent)
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


# A row of fewer cells is a loop that the compiler does not fill vectors with (measured: 28 and 32 cells slower, 40 faster).
_LONG_ROW = 40
_MANY_ROWS = 7
_ROWS_AT_ONCE = 4
# Of a signal, what is done for every position must be worth a turn of a loop (measured: 200 cells slower, 256 faster).
_MANY_CHANNELS = 256
