"""Multiply first, then fold: the sum over taps comes last, and U is never built, or only in part.

The first `unfolded` spatial axes are unfolded and the others folded: with K1 taps on axes of the one kind and K2 on the other,
eq. 2 is a product with K1 columns per channel in and K2 rows per channel out, and a sum of its rows, shifted. That is K1 + K2
copies of an image where U has K1 K2, and a product of better shape. Eq. 4 is the product of the cotangent unfolded along the
last axes and the input unfolded along the first. Eq. 3 and fold are eq. 2 of the turned kernel; at a stride they are eq. 3 to the
letter, a product with one row for every channel and tap, which fold adds up shifted, every phase of the stride by itself, in
tiles of rows or, whole in space, of channels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import jax.numpy as jnp
from jax import Array, lax

from jaxconv import folded
from jaxconv.convolution import Convolution, traced_once
from jaxconv.copies import copies, read_apart, seen_cells, shifted
from jaxconv.counts import cells_held
from jaxconv.engines import stream
from jaxconv.joins import interleaved
from jaxconv.runs import Runs
from jaxconv.tiles import Start, Tiles, laid_out, moved, piece, tiles, tiles_of_terms, written_out
from jaxconv.window import Cells, Place, Taps, backward_taps, forward_taps

IN_TILES = True


@traced_once
def output(convolution: Convolution, input: Array, weight: Array, bias: Array | None = None) -> Array:
    """Eq. 2, the sum over channels and the first axes' taps before the sum over the others' taps."""
    window, unfolded = convolution.window, convolution.unfolded
    batch, _, channels = convolution.sizes(input)
    out_channels = weight.shape[0]
    # (g, q, c, *k) to (g, *folded k, q) and what U has: a row a folded tap and channel out.
    first, last = range(3, 3 + unfolded), range(3 + unfolded, 3 + window.rank)
    columns = (*first, 2) if convolution.channels_last else (2, *first)
    matrix = moved(convolution.by_group(weight), (0, *last, 1, *columns))
    rows = matrix.shape[1 : 2 + len(last)]
    grid = tiles(convolution.out_spatial, _bytes(convolution, batch, channels, out_channels), convolution.tile)
    taps = [forward_taps(window, axis) for axis in range(window.rank)]
    tap_axis = 2 + window.rank if convolution.channels_last else 1
    runs = Runs.of(convolution, grid)
    matrix = matrix if runs is None else jnp.flip(matrix, 1)
    matrix = matrix.reshape(*convolution.lead, math.prod(rows), -1)
    matrix = matrix if _is_matrix(convolution) else convolution.made_once(matrix)

    def cells(places):
        return [window.cells(axis, place, grid.shape[axis]) for axis, place in enumerate(places)]

    def step(places, result):
        u, seen = copies(convolution, input, range(unfolded), taps, grid.shape, cells(places))
        starts = [place.start for place in places]
        products = folded.products(convolution, matrix, rows, u)
        if runs is not None:
            sums = runs.summed(products, (convolution.groups, rows[-1], batch))
            return convolution.put(result, folded.as_image(convolution, sums, bias), 2, runs.starts(starts))
        for axis in reversed(range(unfolded, window.rank)):
            before = axis - unfolded
            at = _spatial_axis(convolution, axis, before)
            products = folded.sum_of_taps(products, tap_axis + before, at, seen[axis], grid.shape[axis])
        return convolution.put(result, folded.as_image(convolution, products, bias), convolution.first_spatial, starts)

    sizes = grid.sizes if runs is None else runs.shape(grid.sizes)
    shape = convolution.shape(batch, sizes, out_channels)
    result = convolution.room(shape, math.prod(grid.shape[len(sizes) - 1 :]), weight, input)
    inside = _inside(convolution, grid, window.cells, convolution.spatial)
    result = grid.walk(step, result, inside)
    return result.reshape(convolution.shape(batch, grid.sizes, out_channels))


def input_gradient(convolution: Convolution, weight: Array, cotangent: Array, bias: Array | None = None) -> Array:
    """Eq. 3 and fold. At a stride, input positions come in blocks of `stride`, whose phases are summed apart and interleaved."""
    window = convolution.window
    if max(window.stride) == 1:
        turned, cotangent, kernel = convolution.as_output(weight, cotangent)
        return output(turned, cotangent, turned.made_once(kernel) if _is_matrix(turned) else kernel, bias)
    batch, sizes, _ = convolution.sizes(cotangent)
    in_channels = weight.shape[1] * convolution.groups
    blocks = convolution.stride_blocks
    # Of a block: its products, and half of the copy of the cotangent, which is gone before they are added up.
    cell = batch * jnp.dtype(convolution.accumulate).itemsize
    size = cell * (in_channels * window.taps + weight.shape[0] // 2)
    room, row = convolution.tile, size * math.prod(blocks[1:])
    if convolution.spatial[0] % window.stride[0] and row <= cell * in_channels * math.prod(convolution.spatial):
        # A row of blocks at least, as of a result that is cut off at last there would be another copy.
        room = max(room, row)
    grid = tiles(blocks, size, room)
    channels = _channels_at_once(convolution, grid, weight, cotangent)
    if channels:
        return _by_channels(convolution, weight, cotangent, bias, channels)
    kernel = weight.astype(cotangent.dtype)
    if convolution.channels_last:
        # W~, as its entries are moved the least (measured: up to three times as fast for large weights).
        matrix, columns, rows = convolution.matrix_once(kernel), -2, (*window.kernel, weight.shape[1])
    else:
        matrix, columns, rows = convolution.made_once(_turned_matrix(convolution, kernel)), -1, weight.shape[1:]
    axes = range(window.rank)

    def add(lengths, places, result):
        cells = [window.backward_cells(axis, places[axis], lengths[axis]) for axis in axes]
        image, skipped = _cells_of_taps(convolution, cotangent, cells)
        products = folded.products(convolution, matrix, rows, image, columns)
        begins = [place.start * stride for place, stride in zip(places, window.stride, strict=True)]
        sums = _sum_of_phases(convolution, products, skipped, lengths, begins, result_sizes)
        return convolution.put(result, folded.as_image(convolution, sums, bias), convolution.first_spatial, begins)

    cut_axes = [axis for axis, count in enumerate(grid.counts) if count > 1]
    odd = [axis for axis in cut_axes if convolution.spatial[axis] % window.stride[axis]]
    # A last block that is cut off is a tile of its own, or, of several axes, cut off at last, from a copy of all.
    last = odd[0] if odd and len(cut_axes) == 1 else None
    result_sizes = list(convolution.spatial)
    if last is not None:
        grid = tiles((*blocks[:last], blocks[last] - 1, *blocks[last + 1 :]), size, room)
    else:
        for axis in odd:
            result_sizes[axis] = blocks[axis] * window.stride[axis]
    shape = convolution.shape(batch, tuple(result_sizes), in_channels)
    result = convolution.room(shape, grid.shape[-1] * window.stride[-1], weight, cotangent)
    inside = _inside(convolution, grid, window.backward_cells, sizes)
    result = grid.walk(partial(add, grid.shape), result, inside)
    if last is not None:
        places = [Place.known(at, at) for at in (blocks[axis] - 1 if axis == last else 0 for axis in axes)]
        result = add([1 if axis == last else blocks[axis] for axis in axes], places, result)
    return lax.slice(
        result.reshape(shape), (0,) * len(shape), convolution.shape(batch, convolution.spatial, in_channels)
    )


def _turned_matrix(convolution: Convolution, weight: Array) -> Array:
    """The weight's own matrix the other way round, (g,) c and *k, q, which the library would make of it for every tile."""
    matrix = moved(convolution.by_group(weight), (0, *range(2, 3 + convolution.window.rank), 1))
    return matrix.reshape(*convolution.lead, -1, matrix.shape[-1])


def _by_channels(given: Convolution, weight: Array, cotangent: Array, bias: Array | None, count: int) -> Array:
    """The gradient of an input at a stride, so many channels at a time, whole in space: no product is made twice. Channels that
    are last are moved first."""
    convolution, cotangent = replace(given, channels_last=False), given.channels_second(cotangent)
    matrix = convolution.made_once(_turned_matrix(convolution, weight).astype(cotangent.dtype))
    window, in_channels = convolution.window, weight.shape[1]
    blocks = convolution.stride_blocks
    cells = [window.backward_cells(axis, Place.known(0, 0), size) for axis, size in enumerate(blocks)]
    image, skipped = _cells_of_taps(convolution, cotangent, cells)
    # Made once, and not `laid_out`, since one run of all samples cannot be spread over devices.
    image, grid = lax.optimization_barrier(image), Tiles((in_channels,), (count,))

    def step(places: list[Place], result: Array) -> Array:
        start = places[0].start
        some = piece(matrix, start * window.taps, count * window.taps, matrix.ndim - 2)
        products = folded.products(convolution, some, (count, *window.kernel), image)
        sums = _sum_of_phases(convolution, products, skipped, blocks, [0] * window.rank, convolution.spatial)
        own = None if bias is None else piece(bias, start, count, 0)
        return convolution.put(result, folded.as_image(convolution, sums, own), 1, [start])

    shape = (cotangent.shape[0], in_channels, *convolution.spatial)
    return given.as_given(grid.walk(step, convolution.room(shape, shape[-1], matrix, cotangent)))


def _channels_at_once(convolution: Convolution, grid: Tiles, weight: Array, cotangent: Array) -> int:
    """How many channels of an input gradient at a stride are made at a time, whole in space; 0 where that leaves too few rows to
    multiply beside a copy of the cotangent, and, with channels last, of the result, and tiles of rows are made, two of which
    multiply what both see; of a signal with channels last, which is little."""
    signal = convolution.channels_last and convolution.window.rank == 1
    if grid.counts[0] == 1 or convolution.groups > 1 or signal:
        return 0
    taps, size = convolution.window.taps, jnp.dtype(convolution.accumulate).itemsize
    in_channels, positions = weight.shape[1], cotangent.size // weight.shape[0]
    room = 2 * convolution.tile - size * cotangent.size
    if convolution.channels_last:
        room += 3 * convolution.tile // 2 - size * cotangent.shape[0] * in_channels * math.prod(convolution.spatial)
    most = min(convolution.tile, room) // (size * taps * positions)
    return -(-in_channels // -(-in_channels // most)) if taps * most >= _FEWEST_ROWS else 0


def _cells_of_taps(convolution: Convolution, cotangent: Array, cells: Sequence[Cells]) -> tuple[Array, list[int]]:
    """The cells of a cotangent as numbers to multiply, and how many cells further on than asked for they begin."""
    written = [written_out(max(some.count for some in own)) for own in _phases(convolution)]
    cells, skipped = seen_cells(convolution.sizes(cotangent)[1], cells, written)
    image = read_apart(convolution, cotangent, cells)
    return convolution.for_sums(image, cotangent.dtype), skipped


def _phases(convolution: Convolution) -> list[list[Taps]]:
    """On every axis, the taps of every phase of the stride."""
    window = convolution.window
    return [[backward_taps(window, axis, at) for at in range(window.stride[axis])] for axis in range(window.rank)]


def _sum_of_phases(
    convolution: Convolution,
    products: Array,
    skipped: Sequence[int],
    lengths: Sequence[int],
    begins: Sequence[Start],
    sizes: Sequence[int],
) -> Array:
    """Products with an axis of taps for every spatial one, added up: `lengths` blocks of the stride from `begins` on, of a result
    of such sizes."""
    rank = convolution.window.rank
    tap_axis = 2 + rank if convolution.channels_last else 2
    phases = _phases(convolution)
    for axis in reversed(range(rank)):
        taps = [shifted(some, skipped[axis]) for some in phases[axis]]
        at, begin = _spatial_axis(convolution, axis, axis), begins[axis]
        sums = [folded.sum_of_taps(products, tap_axis + axis, at, some, lengths[axis]) for some in taps]
        products = interleaved(sums, at)
        if isinstance(begin, int):
            # The last block may have fewer positions.
            products = lax.slice_in_dim(products, 0, min(products.shape[at], sizes[axis] - begin), axis=at)
    return products


def weight_gradient(convolution: Convolution, input: Array, cotangent: Array) -> Array:
    """Eq. 4, with the cotangent unfolded in place of the input on the folded axes, which must have stride 1."""
    window, unfolded = convolution.window, convolution.unfolded
    if max((1, *window.stride[unfolded:])) > 1:
        return stream.weight_gradient(convolution, input, cotangent)
    if convolution.channels_moved:
        input, cotangent = (laid_out(convolution.channels_second(image)) for image in (input, cotangent))
        convolution = replace(convolution, channels_last=False)
    batch, spatial, in_channels = convolution.sizes(input)
    _, out_spatial, out_channels = convolution.sizes(cotangent)
    input = input.astype(cotangent.dtype)
    # The terms of the sum: output positions on the unfolded axes, input positions on the folded ones.
    sizes = (*out_spatial[:unfolded], *spatial[unfolded:])
    grid = tiles_of_terms(sizes, _bytes(convolution, batch, in_channels, out_channels), convolution.tile)
    axes = range(window.rank)

    def ahead(places):
        seen = [window.cells(axis, places[axis], grid.shape[axis]) for axis in axes[:unfolded]]
        return seen + [places[axis].cells(grid.shape[axis]) for axis in axes[unfolded:]]

    def back(places):
        seen = [window.backward_cells(axis, places[axis], grid.shape[axis]) for axis in axes[unfolded:]]
        return [places[axis].cells(grid.shape[axis]) for axis in axes[:unfolded]] + seen

    taps = [forward_taps(window, axis) for axis in axes], [backward_taps(window, axis, 0) for axis in axes]

    def copied(places: list[Place]) -> tuple[Array, Array]:
        u, _ = copies(convolution, input, axes[:unfolded], taps[0], grid.shape, ahead(places))
        g, _ = copies(convolution, cotangent, axes[unfolded:], taps[1], grid.shape, back(places))
        return u, g

    def seen(axis: int, place: Place, length: int) -> Cells:
        return (window.cells if axis < unfolded else window.backward_cells)(axis, place, length)

    inside = _inside(convolution, grid, seen, (*spatial[:unfolded], *out_spatial[unfolded:]))
    ours, others = ({axis: window.kernel[axis] for axis in some} for some in (axes[:unfolded], axes[unfolded:]))
    gradient = folded.gradient(convolution, grid, copied, (input, cotangent), ours, others, inside)
    inner, outer = in_channels // convolution.groups, out_channels // convolution.groups
    if folded.is_square(inner, outer, ours, others):
        return gradient.astype(convolution.result)
    return convolution.as_result(gradient).astype(convolution.result)


def _is_matrix(convolution: Convolution) -> bool:
    """Whether a weight is the matrix as it lies: with channels first, and all axes unfolded."""
    return convolution.unfolded == convolution.window.rank and not convolution.channels_last


# A product of fewer rows takes as long as one of so many (as `counts` has it).
_FEWEST_ROWS = 64
# A second step, of three axes or with channels last, takes longer to compile than the tenth of time that it saves is worth.
_APART = 2


def _inside(
    convolution: Convolution, grid: Tiles, cells: Callable[[int, Place, int], Cells], sizes: tuple[int, ...]
) -> Callable[[int, Place], bool] | None:
    """Whether a tile at a place of an axis sees cells of an image of such sizes alone; None where that does not matter."""

    def inside(axis: int, place: Place) -> bool:
        _, size, (least, most) = cells(axis, place, grid.shape[axis])
        return least >= 0 and most + size <= sizes[axis]

    return None if convolution.channels_last or len(sizes) > _APART else inside


def _bytes(convolution: Convolution, batch: int, channels: int, out_channels: int) -> int:
    """What one position of a tile needs."""
    cells = cells_held(convolution.window, convolution.unfolded, channels, out_channels)
    return batch * cells * jnp.dtype(convolution.accumulate).itemsize


def _spatial_axis(convolution: Convolution, axis: int, taps: int) -> int:
    """Where a spatial axis is in products that have so many axes of taps still."""
    return 2 + axis if convolution.channels_last else 3 + taps + axis
