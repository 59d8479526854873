"""One multiply-accumulate a tap, no matrix product at all.

With one or a few channels per group, as in depthwise layers, a product has nothing to share between rows, and its time would
be U's. Here a tile of the output is one fused loop over positions, which adds up every tap's shifted input times its weight,
so that nothing is written but the output. Eq. 4 is one reduction a tap. A tile is what lies together in memory: some of the
groups, whole in space, or where channels are last some rows of all groups. Eq. 4 of most depthwise layers goes row by row
instead, as `depthwise` has it.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import jax.numpy as jnp
from jax import Array, lax

from jaxconv import depthwise
from jaxconv.convolution import Convolution, traced_once
from jaxconv.depthwise import MOST_TERMS, seen_by_taps, tiles_of_groups
from jaxconv.joins import interleaved, stacked
from jaxconv.tiles import (
    Piece,
    Start,
    Tiles,
    blank,
    each,
    held,
    laid_out,
    moved,
    piece,
    pieces,
    place,
    put,
    squeezed,
    tiles,
    written_out,
    zeros,
)
from jaxconv.window import Cells, Place, Taps, backward_taps, forward_taps

IN_TILES = True
# Terms of one fused loop, of rows that are not short (measured, of 49 terms: rows of 14 cells take twice as long in loops of 7
# terms, rows of 16 and more three quarters to half of the time); at a stride more are faster, and of many sums that are rounded.
_MOST_OF_ROWS, _SHORT_ROW, _FEW_SUMS = 36, 16, 3 * 2**19
# Sums that an accelerator makes one by one for a weight gradient; the rule sends it no more.
MOST_APART = 64

Sums = Callable[[Convolution, Array, Array, tuple[int, ...]], Array]
"""From a convolution, an image with its zeros, a weight (g, results, channels, *k) and so many positions to an image of sums."""


@dataclass(frozen=True)
class _Way:
    """One way through a convolution: `positions`, each of which stands for `step` cells of a result of `spatial` size, and the
    `cells` that neighbouring ones read on an axis."""

    cells: Callable[[int, Place, int], Cells]
    positions: tuple[int, ...]
    step: tuple[int, ...]
    spatial: tuple[int, ...]


@traced_once
def output(convolution: Convolution, input: Array, weight: Array, bias: Array | None = None) -> Array:
    """Eq. 2, summed tap by tap."""
    window, positions = convolution.window, convolution.out_spatial
    taps = [forward_taps(window, axis) for axis in range(window.rank)]

    def sums(convolution: Convolution, image: Array, weight: Array, lengths: tuple[int, ...]) -> Array:
        return _image(convolution, _sum(convolution, image, weight, taps, lengths))

    way = _Way(window.cells, positions, (1,) * window.rank, positions)
    return _in_tiles(convolution, way, sums, input, convolution.by_group(weight), bias)


def input_gradient(convolution: Convolution, weight: Array, cotangent: Array, bias: Array | None = None) -> Array:
    """Eq. 3 and fold: every phase of the stride has taps of its own; without one it is eq. 2 of the turned kernel, which is the
    same to compile."""
    window, spatial = convolution.window, convolution.spatial
    if max(window.stride) == 1:
        return output(*convolution.as_output(weight, cotangent), bias)
    blocks = convolution.stride_blocks

    def sums(convolution: Convolution, image: Array, weight: Array, lengths: tuple[int, ...]) -> Array:
        first = 1 if convolution.channels_last else 3

        def phases(axis: int, taps: list[Taps]) -> Array:
            if axis == window.rank:
                return _sum(convolution, image, weight, taps, lengths)
            own = [phases(axis + 1, [*taps, backward_taps(window, axis, at)]) for at in range(window.stride[axis])]
            whole = interleaved(own, first + axis)
            return piece(whole, 0, spatial[axis], first + axis) if lengths[axis] == blocks[axis] else whole

        return _image(convolution, phases(0, []))

    way = _Way(window.backward_cells, blocks, window.stride, spatial)
    weight = moved(convolution.by_group(weight), (0, 2, 1, *range(3, 3 + window.rank)))
    return _in_tiles(convolution, way, sums, cotangent, weight, bias)


def weight_gradient(convolution: Convolution, input: Array, cotangent: Array) -> Array:
    """Eq. 4, one sum per tap and channel of the group."""
    window, groups = convolution.window, convolution.groups
    inner, outer = (convolution.sizes(image)[2] // groups for image in (input, cotangent))
    taps = [forward_taps(window, axis) for axis in range(window.rank)]
    terms = inner * window.taps
    if convolution.on_accelerator and terms <= MOST_APART:
        return _apart(convolution, input, cotangent)
    if depthwise.is_by_rows(convolution, input, cotangent):
        return depthwise.weight_gradient(convolution, input, cotangent)
    # Every tap that is written out has a copy of what it sees.
    copies = terms if written_out(terms) else 1
    cells = inner * math.prod(convolution.spatial) + copies * outer * math.prod(convolution.out_spatial)
    grid = tiles_of_groups(convolution, input.shape[0] * cells)

    def step(places, total):
        start = places[0].start
        seen, other = (
            convolution.for_sums(
                _channels_second(convolution, convolution.for_tiles(image, start), start, grid.shape[0]),
                convolution.accumulate,
            )
            for image in (input, cotangent)
        )
        seen = lax.pad(seen, jnp.zeros((), seen.dtype), [(0, 0, 0)] * 3 + [(*pair, 0) for pair in window.padding])
        of_input, of_cotangent = held(seen), held(other)

        def view(index):
            channel, *at = place(index, (inner, *window.kernel))
            return seen_by_taps(piece(of_input(), channel, 1, 2), 3, taps, at, convolution.out_spatial)

        def add(index, sums):
            products = view(index) * of_cotangent()
            return put(sums, jnp.sum(products, axis=(0, *range(3, products.ndim)))[None], 0, [index])

        if at_once:
            products = stacked(lambda index: view(index)[None], terms, 0) * of_cotangent()
            sums = jnp.sum(products, axis=(1, *range(4, products.ndim)))
        else:
            sums = each(terms, add, blank((terms, grid.shape[0], outer), convolution.accumulate, seen, other))
        return put(total, sums, 1, [start])

    # All of a gradient for every sample are summed at once (measured: as fast, and compiled in half the time; of one gradient
    # half as fast).
    at_once = convolution.mapped > 1 and written_out(terms)
    total = blank((terms, groups, outer), convolution.accumulate, input, cotangent)
    total = grid.walk(step, total).reshape(inner, *window.kernel, groups * outer)
    return convolution.as_result(jnp.moveaxis(total, -1, 0)).astype(convolution.result)


def _apart(convolution: Convolution, input: Array, cotangent: Array) -> Array:
    """Eq. 4 on an accelerator, which reads both images where they lie for every tap and channel: no copies, and no loop."""
    window, channels, accumulate = convolution.window, convolution.channel_axis, convolution.accumulate
    taps = [forward_taps(window, axis) for axis in range(window.rank)]
    seen, other = (
        image.reshape(*image.shape[:channels], convolution.groups, -1, *image.shape[channels + 1 :])
        for image in (input, cotangent)
    )
    inner, first = seen.shape[channels + 1], 1 if convolution.channels_last else 3
    terms = [axis for axis in range(seen.ndim) if axis not in (channels, channels + 1)]
    sides = [(0, 0, 0)] * seen.ndim
    sides[first : first + window.rank] = [(*pair, 0) for pair in window.padding]
    # Behind the reshape, so that XLA sees a slice of what is padded.
    seen = lax.pad(seen, jnp.zeros((), seen.dtype), sides)

    def total(channel: int, tap: Sequence[int]) -> Array:
        part = seen_by_taps(piece(seen, channel, 1, channels + 1), first, taps, tap, convolution.out_spatial)
        return jnp.sum(part.astype(accumulate) * other.astype(accumulate), terms)

    indices = itertools.product(range(inner), itertools.product(*map(range, window.kernel)))
    sums = jnp.stack([total(channel, tap) for channel, tap in indices], axis=-1)
    return sums.reshape(-1, inner, *window.kernel).astype(convolution.result)


def _in_tiles(
    convolution: Convolution, way: _Way, sums: Sums, image: Array, weight: Array, bias: Array | None
) -> Array:
    """`sums` of an image and a weight (g, results, channels, *k), finished, tile by tile."""
    if not convolution.channels_last:
        return _by_groups(convolution, way, sums, image, weight, bias)
    whole = image.size * jnp.dtype(convolution.accumulate).itemsize <= convolution.tile
    if whole and convolution.channels_moved and convolution.window.taps > MOST_TERMS:
        return _moved_whole(convolution, way, sums, image, weight, bias)
    return _by_rows(convolution, way, sums, image, weight, bias)


def _moved_whole(given: Convolution, way: _Way, sums: Sums, image: Array, weight: Array, bias: Array | None) -> Array:
    """All at once, with channels that are last moved first: of so many taps this takes little, and is one loop to compile for
    input and cotangent (measured: 1.4 times as fast, of few taps slower)."""
    convolution, shape = replace(given, channels_last=False), weight.shape

    def by_groups(image: Array, weight: Array, bias: Array | None = None) -> Array:
        return _by_groups(convolution, way, sums, image, weight.reshape(shape), bias)

    # The weight without axes of one entry, for the sake of `moved`.
    arrays = laid_out(given.channels_second(image)), squeezed(weight), *([] if bias is None else [bias])
    return laid_out(given.as_given(given.as_call(by_groups, *arrays)))


def _by_rows(convolution: Convolution, way: _Way, sums: Sums, image: Array, weight: Array, bias: Array | None) -> Array:
    """Some rows of all groups at a time, channels last.

    Of many terms per cell, these are added up with channels first, where a weight is one number for a whole row.
    """
    batch, spatial, channels = convolution.sizes(image)
    results = weight.shape[0] * weight.shape[1]
    inside = replace(convolution, channels_last=not convolution.channels_moved)
    if inside.channels_last:
        weight = convolution.made_once(jnp.transpose(weight, (*range(2, weight.ndim), 0, 1)))
    kernel = held(weight)
    size = jnp.dtype(convolution.accumulate).itemsize * batch
    # A position is so many cells of what is given and of the result.
    there = math.prod(way.step)
    here = math.prod(convolution.window.stride) // there
    whole = size * channels * math.prod(spatial) <= convolution.tile
    grid = Tiles(way.positions, way.positions)
    if not whole:
        grid = tiles(way.positions, size * max(channels * here, results * there // 2), convolution.tile)

    def given_cells(part: Array) -> Array:
        part = convolution.channels_second(part) if convolution.channels_moved else part
        return convolution.for_sums(part, convolution.accumulate)

    def added(part: Array) -> Array:
        return sums(inside, part, kernel(), grid.shape)

    def finished(part: Array) -> Array:
        return inside.finished(added(part), bias)

    def step(places: list[Place], result: Array) -> Array:
        cells = [way.cells(axis, place, grid.shape[axis]) for axis, place in enumerate(places)]
        part = convolution.cut(image, cells)
        if convolution.channels_moved:
            part = convolution.as_call(given_cells, part)
            tile = convolution.as_given(convolution.as_call(finished, part))
            tile = laid_out(tile) if grid.shape == way.positions else tile
        elif whole:
            tile = finished(given_cells(part))
        elif not convolution.puts_bits:
            tile = convolution.as_call(finished, given_cells(part))
        else:
            tile = inside.finished(convolution.as_call(added, given_cells(part)), bias)
        return convolution.put(
            result, tile, 1, [place.start * step for place, step in zip(places, way.step, strict=True)]
        )

    # What is cut into tiles has them whole, and may have some cells too many.
    sizes = [
        size if count == length else count * step
        for size, count, length, step in zip(way.spatial, way.positions, grid.shape, way.step, strict=True)
    ]
    result = convolution.room(convolution.shape(batch, tuple(sizes), results), results, weight, image)
    result = grid.walk(step, result)
    return lax.slice(result, (0,) * result.ndim, convolution.shape(batch, way.spatial, results))


def _by_groups(
    convolution: Convolution, way: _Way, sums: Sums, image: Array, weight: Array, bias: Array | None
) -> Array:
    """Some groups of the image whole in space at a time, channels first."""
    batch, old, _ = convolution.sizes(image)
    groups, results, channels = weight.shape[:3]
    cells = [way.cells(axis, Place.known(0, 0), size) for axis, size in enumerate(way.positions)]
    sides = [(-start, start + size - there) for (start, size, _), there in zip(cells, old, strict=True)]
    padded = tuple(size for _, size, _ in cells)
    grid = tiles_of_groups(convolution, batch * channels * math.prod(padded))
    held_weight = held(weight)

    def added(part: Array, some: Array) -> Array:
        return sums(convolution, part, some, way.positions)

    def tile(part: Array, start: Start) -> Array:
        some = piece(held_weight(), start, grid.shape[0], 0)
        # Rounded behind a call, where it is put: XLA would not skip what is not in the tile for a copy alone.
        apart = convolution.puts_bits and grid.counts != (1,)
        tile = convolution.as_call(added, part, some) if apart else added(part, some)
        own = None if bias is None else piece(bias, start * results, grid.shape[0] * results, 0)
        return convolution.finished(tile, own)

    def widened(part: Array, sides: Sequence[tuple[int, int]]) -> Array:
        part = convolution.for_sums(part, convolution.accumulate)
        return lax.pad(part, jnp.zeros((), part.dtype), [(0, 0, 0)] * 2 + [(*pair, 0) for pair in sides])

    if grid.counts == (1,):
        return tile(widened(convolution.for_tiles(image), sides), 0)

    def step(places, carry):
        result, room = carry
        start = places[0].start
        part = piece(convolution.for_tiles(image, start), start * channels, grid.shape[0] * channels, 1)
        part = widened(part, [(min(0, low), min(0, high)) for low, high in sides])
        room = put(room, part, 2, [max(0, low) for low, _ in sides])
        return convolution.put(result, tile(room, start), 1, [start * results]), room

    result = convolution.room(convolution.shape(batch, way.spatial, groups * results), way.spatial[-1], weight, image)
    # Every tile goes to the same place among the same zeros: to pad each one would write every cell with a condition.
    room = blank(convolution.shape(batch, padded, grid.shape[0] * channels), convolution.accumulate, image)
    return grid.walk(step, (result, room))[0]


def _channels_second(convolution: Convolution, image: Array, start: Start, count: int) -> Array:
    """Some groups of an image as (N, g, channels of a group, *spatial)."""
    axis = convolution.channel_axis
    width = image.shape[axis] // convolution.groups
    part = convolution.channels_second(piece(image, start * width, count * width, axis))
    return part.reshape(part.shape[0], count, width, *part.shape[2:])


def _sum(convolution: Convolution, part: Array, weight: Array, taps: Sequence[Taps], shape: Sequence[int]) -> Array:
    """The sum over taps, and channels of the group, of what they see times the weight (g, results, channels, *k), or
    (channels, *k, g, results) with channels last, where those of all groups are side by side."""
    batch, spatial, _ = convolution.sizes(part)
    last, rank = convolution.channels_last, convolution.window.rank
    groups, results = weight.shape[-2:] if last else weight.shape[:2]
    part = part.reshape(batch, *spatial, groups, -1) if last else part.reshape(batch, groups, -1, *spatial)
    # Channels in front, so that the weight of a term has the axes of a sum.
    weight = (weight if last else moved(weight, (2, 0, 1, *range(3, 3 + rank)))).astype(convolution.accumulate)
    first, channel = (1, 2 + rank) if last else (3, 2)
    inner, all_sizes = weight.shape[0], (batch, *shape, groups, results) if last else (batch, groups, results, *shape)
    counts, sizes = [inner, *(some.count for some in taps)], all_sizes
    if inner == results == 1:
        # One channel in and out of every group is no axis, for the sake of `blank`.
        part, weight = (lax.squeeze(array, [channel]) for array in (part, weight))
        first, counts, sizes = min(first, 2), counts[1:], (*sizes[:channel], *sizes[channel + 1 :])

    def cells(at: int, index: Start) -> tuple[tuple[int, Piece], tuple[int, Piece]]:
        """What one of so many `counts` takes of the image, and of the weight."""
        axis = at - len(counts) + rank
        if axis < 0:
            return (channel, (index, 1, 1)), (0, (index, 1, 1))
        some = taps[axis]
        seen = some.at + some.shift * index, shape[axis], some.stride
        return (first + axis, seen), (first + axis, (some.first + some.step * index, 1, 1))

    # As many of the last axes as make a fused loop of a fair size are written out, the others are a loop around it.
    rounded = convolution.has_half and math.prod(sizes) > _FEW_SUMS
    strided = max(some.stride for some in taps) > 1
    long = shape[-1] >= _SHORT_ROW and not (strided or rounded or convolution.on_accelerator)
    inside, most = len(counts), _MOST_OF_ROWS if long else MOST_TERMS
    while inside and math.prod(counts[inside - 1 :]) <= most:
        inside -= 1
    inside = min(inside, len(counts) - 1)

    held_part, held_weight = held(part), held(weight)

    def add(turn: Start, total: Array) -> Array:
        image, factors = held_part(), held_weight()
        around = [cells(axis, index) for axis, index in enumerate(place(turn, counts[:inside]))]
        for index in itertools.product(*map(range, counts[inside:])):
            within = [cells(axis, at) for axis, at in enumerate(index, inside)]
            seen, entry = map(dict, zip(*around, *within, strict=True))
            total = lax.add(total, lax.mul(pieces(image, seen), pieces(factors, entry)))
        return total

    turns = math.prod(counts[:inside])
    if turns == 1 or convolution.on_accelerator:
        # On an accelerator, where a turn of a loop is a program of its own, a few are written out.
        total = each(turns, add, zeros(sizes, convolution.accumulate, part, weight))
    else:
        total = lax.fori_loop(0, turns, add, blank(sizes, convolution.accumulate, part, weight))
    return total.reshape(all_sizes)


def _image(convolution: Convolution, sums: Array) -> Array:
    """Sums (N, g, channels, *spatial), or (N, *spatial, g, channels), as an image."""
    last = convolution.channels_last
    return sums.reshape(*sums.shape[:-2], -1) if last else sums.reshape(sums.shape[0], -1, *sums.shape[3:])
