"""One multiply-accumulate a tap, no matrix product at all.

With one or a few channels a group, as in depthwise layers, a product has nothing to share between rows, and its time would
be U's. Here a tile of the output is one fused loop over positions, which adds up every tap's shifted input times its weight,
so that nothing is written but the output. Eq. 4 is one reduction a tap. Tiles are some of the groups, or all, and whole in space.
Eq. 4 of depthwise layers with long rows goes row by row instead, and keeps sums for every column.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import Array, lax

from jaxconv.convolution import Convolution
from jaxconv.tiles import Start, Tiles, blank, cut, each, interleaved, piece, place, put, tiles, unwritten, written_out
from jaxconv.window import Place, Taps, backward_reach, backward_taps, forward_taps

IN_TILES = True


def output(convolution: Convolution, input: Array, weight: Array, bias: Array | None = None) -> Array:
    """Eq. 2, summed tap by tap."""
    window = convolution.window
    weight = convolution.by_group(weight)
    taps = [forward_taps(window, axis) for axis in range(window.rank)]

    def sums(image, weight):
        return _sum(convolution, image, weight, taps, convolution.out_spatial)

    return _by_groups(convolution, sums, input, weight, window.padding, convolution.out_spatial, bias)


def input_gradient(convolution: Convolution, weight: Array, cotangent: Array, bias: Array | None = None) -> Array:
    """Eq. 3 and fold: every phase of the stride has taps of its own."""
    window, first = convolution.window, 1 if convolution.channels_last else 3
    weight = jnp.swapaxes(convolution.by_group(weight), 1, 2)
    blocks = tuple(-(-size // stride) for size, stride in zip(convolution.spatial, window.stride, strict=True))
    sides = []
    for axis, (count, size) in enumerate(zip(blocks, convolution.out_spatial, strict=True)):
        near, far = backward_reach(window, axis)
        sides.append((-near, count + far - size))

    def sums(image, weight):
        def phases(axis: int, taps: list[Taps]) -> Array:
            if axis == window.rank:
                return _sum(convolution, image, weight, taps, blocks)
            own = [phases(axis + 1, [*taps, backward_taps(window, axis, at)]) for at in range(window.stride[axis])]
            return piece(interleaved(own, first + axis), 0, convolution.spatial[axis], first + axis)

        return phases(0, [])

    return _by_groups(convolution, sums, cotangent, weight, sides, convolution.spatial, bias)


def weight_gradient(convolution: Convolution, input: Array, cotangent: Array) -> Array:
    """Eq. 4, one sum a tap and channel of the group."""
    window, groups = convolution.window, convolution.groups
    inner, outer = (convolution.sizes(image)[2] // groups for image in (input, cotangent))
    taps = [forward_taps(window, axis) for axis in range(window.rank)]
    terms = inner * window.taps
    depthwise = inner == outer == 1 and window.rank > 1 and terms <= _TERMS
    if depthwise and (convolution.channels_last or convolution.out_spatial[-1] >= _LONG_ROW):
        # Sums as large as U over the first axis: only where that is a tile, or little of U.
        row = terms * cotangent.size // convolution.out_spatial[0] * jnp.dtype(convolution.accumulate).itemsize
        if row <= convolution.tile or convolution.out_spatial[0] >= _MANY_ROWS:
            return _depthwise_weight_gradient(convolution, input, cotangent)

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

        def add(index, sums):
            channel, *at = place(index, (inner, *window.kernel))
            products = _seen(piece(seen, channel, 1, 2), 3, taps, at, convolution.out_spatial) * other
            return lax.dynamic_update_index_in_dim(
                sums, jnp.sum(products, axis=(0, *range(3, products.ndim))), index, 0
            )

        sums = each(terms, add, blank((terms, grid.shape[0], outer), convolution.accumulate, seen, other))
        return put(total, sums, 1, [start])

    # Every tap that is written out has a copy of what it sees.
    copies = terms if written_out(terms) else 1
    cells = inner * math.prod(convolution.spatial) + copies * outer * math.prod(convolution.out_spatial)
    grid = _grid(convolution, input.shape[0] * cells)
    total = blank((terms, groups, outer), convolution.accumulate, input, cotangent)
    total = grid.walk(step, total).reshape(inner, *window.kernel, groups * outer)
    return jnp.moveaxis(total, -1, 0).astype(convolution.result)


def _depthwise_weight_gradient(convolution: Convolution, input: Array, cotangent: Array) -> Array:
    """Eq. 4 where every channel is a group, row by row: each tap has sums for all but the first axis, which stay in the cache,
    and adds what it sees of a row, times the row of the cotangent. They are summed at last."""
    window, first, accumulate = convolution.window, convolution.first_spatial, convolution.accumulate
    batch, (height, *row), channels = convolution.sizes(cotangent)
    high, *others = (forward_taps(window, axis) for axis in range(window.rank))
    entries = list(itertools.product(*map(range, window.kernel)))
    # Rows are copied among zeros, some at a time: as many as divide all, so that none comes twice.
    cells = batch * channels * math.prod(row) * jnp.dtype(accumulate).itemsize
    rows = Tiles((height,), (_divisor(height, convolution.tile // (2 * cells)),))
    whole = [window.cells(axis, Place.known(0, 0), size) for axis, size in enumerate(row, 1)]

    def step(places, sums):
        (at,), (length,) = places, rows.shape
        image, other = (convolution.for_tiles(image, at.start) for image in (input, cotangent))
        image = convolution.for_sums(cut(image, first, [window.cells(0, at, length), *whole]), accumulate)
        other = convolution.for_sums(piece(other, at.start, length, first), accumulate)

        def add(index, sums):
            line = piece(other, index, 1, first)
            lines = [piece(image, high.at + high.shift * n + high.stride * index, 1, first) for n in range(high.count)]
            return [
                total + _seen(lines[n], first + 1, others, tap, row) * line
                for (n, *tap), total in zip(entries, sums, strict=True)
            ]

        return lax.fori_loop(0, length, add, sums)

    shape = convolution.shape(batch, (1, *row), channels)
    sums = rows.walk(step, [blank(shape, accumulate, input, cotangent)] * len(entries))
    axes = [axis for axis in range(len(shape)) if axis != convolution.channel_axis]
    gradient = jnp.stack([jnp.sum(one, axes) for one in sums], axis=1)
    return gradient.reshape(channels, 1, *window.kernel).astype(convolution.result)


def _divisor(size: int, most: int) -> int:
    """The largest divisor of `size` that is `most` at most, or 1."""
    return next(length for length in range(max(1, min(size, most)), 0, -1) if size % length == 0)


def _grid(convolution: Convolution, cells: int) -> Tiles:
    """Tiles along the groups, which do not see each other, of images whole; `cells` is what a group needs."""
    return tiles((convolution.groups,), cells * jnp.dtype(convolution.accumulate).itemsize, convolution.tile)


def _by_groups(
    convolution: Convolution,
    sums: Callable[[Array, Array], Array],
    image: Array,
    weight: Array,
    sides: Sequence[tuple[int, int]],
    spatial: tuple[int, ...],
    bias: Array | None,
) -> Array:
    """`sums` of an image, with so many cells of zeros, or less, at its sides, and a weight (g, results, channels, *k), some
    groups at a time, as an image."""
    batch, old, _ = convolution.sizes(image)
    groups, results, channels = weight.shape[:3]
    padded = tuple(size + low + high for size, (low, high) in zip(old, sides, strict=True))
    grid = _grid(convolution, batch * channels * math.prod(padded))
    axis = convolution.channel_axis

    def tile(part: Array, start: Start) -> Array:
        tile = _image(convolution, sums(part, piece(weight, start, grid.shape[0], 0)))
        own = None if bias is None else piece(bias, start * results, grid.shape[0] * results, 0)
        return convolution.finished(tile, own)

    def widened(part: Array, sides: Sequence[tuple[int, int]]) -> Array:
        zeros = [(0, 0, 0)] * part.ndim
        zeros[convolution.first_spatial : convolution.first_spatial + len(sides)] = [(*pair, 0) for pair in sides]
        part = convolution.for_sums(part, convolution.accumulate)
        return lax.pad(part, jnp.zeros((), part.dtype), zeros)

    if grid.counts == (1,):
        return tile(widened(convolution.for_tiles(image), sides), 0)

    def step(places, carry):
        result, room = carry
        start = places[0].start
        part = piece(convolution.for_tiles(image, start), start * channels, grid.shape[0] * channels, axis)
        part = widened(part, [(min(0, low), min(0, high)) for low, high in sides])
        room = put(room, part, convolution.first_spatial, [max(0, low) for low, _ in sides])
        return put(result, tile(room, start), axis, [start * results]), room

    result = unwritten(convolution.shape(batch, spatial, groups * results), convolution.stored, weight, image)
    # Every tile goes to the same place among the same zeros: to pad each one would write every cell with a condition.
    room = blank(convolution.shape(batch, padded, grid.shape[0] * channels), convolution.accumulate, image)
    return grid.walk(step, (result, room))[0]


def _channels_second(convolution: Convolution, image: Array, start: Start, count: int) -> Array:
    """Some groups of an image as (N, g, channels of a group, *spatial)."""
    axis = convolution.channel_axis
    width = image.shape[axis] // convolution.groups
    part = convolution.channels_second(piece(image, start * width, count * width, axis))
    return part.reshape(part.shape[0], count, width, *part.shape[2:])


def _seen(part: Array, first: int, taps: Sequence[Taps], at: Sequence[Start], shape: Sequence[int]) -> Array:
    """What one tap sees: `shape` positions, of the axes from `first` on."""
    for axis, (some, index, length) in enumerate(zip(taps, at, shape, strict=True), first):
        part = piece(part, some.at + some.shift * index, length, axis, some.stride)
    return part


def _sum(convolution: Convolution, part: Array, weight: Array, taps: Sequence[Taps], shape: Sequence[int]) -> Array:
    """The sum over taps, and channels of the group, of what they see times the weight (g, results, channels, *k)."""
    groups, rank = weight.shape[0], convolution.window.rank
    batch, spatial, _ = convolution.sizes(part)
    last = convolution.channels_last
    part = part.reshape(batch, *spatial, groups, -1) if last else part.reshape(batch, groups, -1, *spatial)
    weight = weight.astype(convolution.accumulate)
    counts = [weight.shape[2], *(some.count for some in taps)]

    first = 1 if last else 3

    def narrowed(image: Array, factor: Array, axis: int, index: Start) -> tuple[Array, Array]:
        """What one channel, on axis 0, or one tap of another axis sees, and its weight."""
        if axis == 0:
            return piece(image, index, 1, 2 + rank if last else 2), piece(factor, index, 1, 2)
        some = taps[axis - 1]
        image = _seen(image, first + axis - 1, [some], [index], [shape[axis - 1]])
        return image, piece(factor, some.first + some.step * index, 1, 2 + axis)

    def added(total: Array, image: Array, factor: Array, axis: int) -> Array:
        """`total` and the terms of every index of the axes from this one on."""
        if axis == len(counts):
            return total + image * factor.reshape(*weight.shape[:2], *(() if last else (1,) * rank))
        for index in range(counts[axis]):
            total = added(total, *narrowed(image, factor, axis, index), axis + 1)
        return total

    # As many of the last axes as make a fused loop of a fair size are written out, the others are a loop around it.
    inside = len(counts)
    while inside and math.prod(counts[inside - 1 :]) <= _TERMS:
        inside -= 1
    inside = min(inside, len(counts) - 1)

    def add(index: Start, total: Array) -> Array:
        image, factor = part, weight
        for axis, at in enumerate(place(index, counts[:inside])):
            image, factor = narrowed(image, factor, axis, at)
        return added(total, image, factor, inside)

    sizes = (batch, *shape, *weight.shape[:2]) if last else (batch, *weight.shape[:2], *shape)
    return each(math.prod(counts[:inside]), add, blank(sizes, convolution.accumulate, part, weight))


_TERMS = 64
# A row of fewer cells is a loop that the compiler does not fill vectors with (measured: 28 and 32 cells slower, 40 faster).
_LONG_ROW = 40
_MANY_ROWS = 16


def _image(convolution: Convolution, sums: Array) -> Array:
    """Sums (N, g, channels, *spatial), or (N, *spatial, g, channels), as an image."""
    last = convolution.channels_last
    return sums.reshape(*sums.shape[:-2], -1) if last else sums.reshape(sums.shape[0], -1, *sums.shape[3:])
