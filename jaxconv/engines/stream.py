"""U in tiles of a few megabytes, each multiplied while it is still in the cache.

The sums of eqs. 2 and 4 over the same terms, but U is never whole: a tile of output positions is unfolded, channels innermost,
because there a tap is one run of memory, and multiplied at once. Eq. 4 adds up the products of all tiles. Eq. 3 and fold are
eq. 2 again, of the cotangent and the kernel turned around. For dense layers, whose time is that of the product.
"""

import math
from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from jax import Array, lax

from jaxconv.convolution import Convolution, traced_once
from jaxconv.copies import seen_cells, shifted
from jaxconv.joins import is_joined, stacked
from jaxconv.periods import cells_of_windows, has_runs_of_rows, period, windows, windows_of_rows
from jaxconv.tiles import Tiles, blank, seen_by, tiles, tiles_of_terms
from jaxconv.window import Cells, Place, forward_taps

IN_TILES = True


@traced_once
def output(convolution: Convolution, input: Array, weight: Array, bias: Array | None = None) -> Array:
    """Eq. 2, a tile of U at a time."""
    batch, _, _ = convolution.sizes(input)
    groups, out_channels = convolution.groups, weight.shape[0]
    matrix = convolution.matrix_once(weight)
    grid = tiles(convolution.out_spatial, _bytes(convolution, input, out_channels), convolution.tile)
    # A product with the rows of U in front is the faster one, but must be transposed where channels are first: not worth it
    # where the product is large beside U.
    rows_first = convolution.channels_last or matrix.shape[-1] > 3 * matrix.shape[-2]

    def step(places, result):
        u = _unfold_tile(convolution, grid, input, places)
        if rows_first:
            product = convolution.product(u, matrix, u.ndim - 1, u.ndim - 1)
            product = product.reshape(groups, batch, *grid.shape, out_channels // groups)
            tile = jnp.moveaxis(product, 0, -2).reshape(batch, *grid.shape, out_channels)
            tile = tile if convolution.channels_last else jnp.moveaxis(tile, -1, 1)
        else:
            product = convolution.product(matrix, u, u.ndim - 1, u.ndim - 1)
            product = product.reshape(out_channels, batch, *grid.shape)
            tile = jnp.swapaxes(product, 0, 1)
        tile = convolution.finished(tile, bias)
        return convolution.put(result, tile, convolution.first_spatial, [place.start for place in places])

    shape = convolution.shape(batch, grid.sizes, out_channels)
    room = shape
    if (
        convolution.channels_last
        and groups == 1 < convolution.window.rank
        and bias is None
        and grid.shape[-1] == grid.sizes[-1]
    ):
        # A product is put as it lies, a row with its channels as one run; a bias would find its channel by division.
        room = (*shape[:-2], shape[-2] * shape[-1])
    return grid.walk(step, convolution.room(room, grid.shape[-1], weight, input)).reshape(shape)


def input_gradient(convolution: Convolution, weight: Array, cotangent: Array, bias: Array | None = None) -> Array:
    """Eq. 3 and fold, as the output of the turned kernel on the cotangent, spread by the stride."""
    window, first = convolution.window, convolution.first_spatial
    if max(window.stride) > 1:
        spread = [(0, 0, 0)] * cotangent.ndim
        spread[first : first + window.rank] = [(0, 0, stride - 1) for stride in window.stride]
        cotangent = lax.pad(cotangent, jnp.zeros((), cotangent.dtype), spread)
    return output(*convolution.as_output(weight, cotangent), bias)


def weight_gradient(convolution: Convolution, input: Array, cotangent: Array) -> Array:
    """Eq. 4, summed over tiles of U."""
    groups = convolution.groups
    batch, _, in_channels = convolution.sizes(input)
    out_channels = convolution.sizes(cotangent)[2]
    input = input.astype(cotangent.dtype)
    # A tile of the cotangent is copied, and moved.
    position = max(_bytes(convolution, input, out_channels), batch * out_channels * input.dtype.itemsize)
    grid = tiles_of_terms(convolution.out_spatial, position, convolution.tile)
    rows, columns = out_channels // groups, in_channels // groups * convolution.window.taps
    # With channels first only U has its positions in front.
    exchanged = convolution.channels_last and convolution.exchanges(rows, columns)

    def step(places, total):
        u = _unfold_tile(convolution, grid, input, places)
        same = [place.cells(length) for place, length in zip(places, grid.shape, strict=True)]
        tile = convolution.cut(cotangent, same, at_once=True)
        tile = convolution.for_sums(tile, cotangent.dtype)
        new = grid.is_new(places)
        if new is not None:
            # In both factors, since zero times infinity is no zero.
            u = jnp.where(jnp.tile(new.reshape(-1), batch)[:, None], u, jnp.zeros((), u.dtype))
            tile = jnp.where(new[..., None] if convolution.channels_last else new, tile, jnp.zeros((), tile.dtype))
        if convolution.channels_last:
            tile = _to_rows(convolution, tile).reshape(*u.shape[:-1], rows)
            return total + convolution.product(*((u, tile) if exchanged else (tile, u)), u.ndim - 2, u.ndim - 2)
        # (g, q, rows): no entry is moved further than its image.
        tile = jnp.moveaxis(tile.reshape(tile.shape[0], groups, -1, *grid.shape), 0, 2)
        tile = tile.reshape(*convolution.lead, rows, u.shape[-2])
        return total + convolution.product(tile, u, u.ndim - 1, u.ndim - 2)

    shape = (columns, rows) if exchanged else (rows, columns)
    total = grid.walk(step, blank((*convolution.lead, *shape), convolution.accumulate, input, cotangent))
    return convolution.weight_of(total, exchanged).astype(convolution.result)


def _bytes(convolution: Convolution, input: Array, out_channels: int) -> int:
    """Of a position: its part of U, and half of its part of the output."""
    batch, _, channels = convolution.sizes(input)
    return batch * (channels * convolution.window.taps + out_channels // 2) * input.dtype.itemsize


def _to_rows(convolution: Convolution, image: Array) -> Array:
    """An image in the caller's layout as (g, N, *spatial, channels of a group)."""
    image = image if convolution.channels_last else jnp.moveaxis(image, 1, -1)
    return jnp.moveaxis(image.reshape(*image.shape[:-1], convolution.groups, -1), -2, 0)


def _unfold_tile(convolution: Convolution, grid: Tiles, input: Array, places: list[Place]) -> Array:
    """The rows of U for one tile of output positions: (g,) N and positions, taps and channels."""
    window, groups, dtype = convolution.window, convolution.groups, input.dtype
    batch, spatial, channels = convolution.sizes(input)
    cells = [window.cells(axis, place, grid.shape[axis]) for axis, place in enumerate(places)]
    # Zeros around a signal that is one tile are left to each tap (measured: a tenth less time, and less to compile; of images no
    # gain, and a twentieth more time at a stride).
    written = [window.rank == 1 and is_joined(count) for count in window.kernel]
    last, length = window.rank - 1, grid.shape[-1]
    kernel, stride = window.kernel[last], window.stride[last]
    # With channels first a tile would have to be moved before it is copied, which takes as long as this saves.
    runs = convolution.channels_last and window.dilation[last] == 1 < kernel
    count = period(length, kernel, stride, channels // groups) if runs else None
    of_rows = window.rank == 2 and window.dilation[0] == 1
    of_rows = of_rows and has_runs_of_rows(grid.shape, window.kernel, channels // groups)
    if count is not None:
        # As many cells as a whole number of periods has.
        start, _, bounds = cells[last]
        cells[last], written[last] = (start, cells_of_windows(length, stride, count), bounds), False
    cells, skipped = seen_cells(spatial, cells, written)

    def unfolded(cells: Sequence[Cells], image: Array) -> Array:
        part = convolution.cut(image, cells, at_once=True)
        copied = part.dtype
        rows = _to_rows(convolution, convolution.for_copies(part))
        # One axis after the other: K1 + K2 copies and not K1 * K2.
        axes: Sequence[int] = range(window.rank)
        if count is not None and of_rows:
            rows, axes = windows_of_rows(rows, 2, grid.shape, window.kernel, window.stride, count), []
        elif count is not None:
            rows, axes = windows(rows, 2 + last, length, kernel, stride, count), axes[:-1]
        for axis in reversed(axes):
            taken = lax.expand_dims(rows, [2 + window.rank])
            taps = shifted(forward_taps(window, axis), skipped[axis])
            seen = partial(seen_by, taken, taps, length=grid.shape[axis], axis=2 + axis)
            rows = stacked(seen, taps.count, 2 + window.rank)
        return rows.astype(copied)

    shape = (*convolution.lead, batch * math.prod(grid.shape), channels // groups * window.taps)
    rows = convolution.as_call_at(unfolded, cells, input)
    return convolution.for_sums(rows.reshape(shape), dtype)
