"""A signal in windows of several outputs, each taken to frequencies, where the sum over taps is one product.

Eqs. 2 and 4 in another basis: n cells, in which k taps have n - k + 1 outputs, are 3 n / 2 - 1 products for every channel in and
out, where the sums themselves have k (n - k + 1) (`jaxconv/frequencies.py`). All of it is matrix products: cells and taps to
frequencies, the sum over channels for each of these, and back; eq. 3 is eq. 2 of the turned kernel. For dense layers of long
kernels, whose time is that of the product; strides are left to `fold`.

An output is rounded as the largest one of its window is, and an infinity or NaN spoils all of a window.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax

from jaxconv.convolution import Convolution, traced_once
from jaxconv.engines import fold
from jaxconv.frequencies import matrices, products
from jaxconv.tiles import Start, Tiles, blank, piece, tiles
from jaxconv.window import Cells, Place

IN_TILES = False


@traced_once
def output(convolution: Convolution, input: Array, weight: Array, bias: Array | None = None) -> Array:
    """Eq. 2, with a sum over channels for every frequency."""
    if not convolution.has_frequencies:
        return fold.output(convolution, input, weight, bias)
    (batch, _, channels), out_channels = convolution.sizes(input), weight.shape[0]
    out, of_taps, of_cells = _matrices(convolution)
    rows = _rows(convolution, weight.shape)
    grid = _grid(convolution, batch * (channels + rows))
    last = convolution.channels_last
    (length,) = grid.shape

    def to_frequencies(some: Array) -> Array:
        return _transformed(convolution, of_taps, convolution.by_group(some), 3)

    whole = to_frequencies(weight) if rows == out_channels else None

    def step(places: list[Place], result: Array) -> Array:
        cells = convolution.window.cells(0, places[0], length)
        seen = _to_frequencies(convolution, of_cells, input, cells, length)

        def of_rows(index: Start, result: Array) -> Array:
            factor = to_frequencies(piece(weight, index * rows, rows, 0)) if whole is None else whole
            # Over the channels, for every product and group.
            if last:
                product = lax.dot_general(seen, factor, (((5,), (3,)), ((0, 1), (0, 1))), **convolution.dot)
            else:
                product = lax.dot_general(factor, seen, (((3,), (2,)), ((0, 1), (0, 1))), **convolution.dot)
            some = None if bias is None else piece(bias, index * rows, rows, 0)

            def finished(image: Array) -> Array:
                return convolution.finished(_as_image(convolution, image, length), some)

            tile = convolution.as_call(finished, _transformed(convolution, out, product, 0))
            starts = [places[0].start, index * rows] if last else [index * rows, places[0].start]
            return convolution.put(result, tile, 1, starts)

        return _each(out_channels // rows, of_rows, result)

    shape = convolution.shape(batch, grid.sizes, out_channels)
    return grid.walk(step, convolution.room(shape, length, weight, input)).reshape(shape)


def input_gradient(convolution: Convolution, weight: Array, cotangent: Array, bias: Array | None = None) -> Array:
    """Eq. 3 and fold, which without a stride is eq. 2 of the turned kernel."""
    if not convolution.has_frequencies:
        return fold.input_gradient(convolution, weight, cotangent, bias)
    return output(*convolution.as_output(weight, cotangent), bias)


def weight_gradient(convolution: Convolution, input: Array, cotangent: Array) -> Array:
    """Eq. 4, with a sum over samples and windows for every frequency."""
    if not convolution.has_frequencies:
        return fold.weight_gradient(convolution, input, cotangent)
    (batch, _, channels), (_, _, out_channels) = convolution.sizes(input), convolution.sizes(cotangent)
    groups, dtype = convolution.groups, convolution.accumulate
    out, of_taps, of_cells = _matrices(convolution)
    rows = _rows(convolution, (out_channels, channels // groups))
    grid = _grid(convolution, batch * (channels + rows))
    (length,), last = grid.shape, convolution.channels_last
    terms = (2, 3, 4) if last else (3, 4, 5)

    def of_rows(index: Start, some: Array) -> Array:
        def step(places: list[Place], total: Array) -> Array:
            (place,), new = places, grid.is_new(places)
            seen = _to_frequencies(convolution, of_cells, input, convolution.window.cells(0, place, length), length)
            given = _to_frequencies(convolution, out.T, some, place.cells(length), length, new)
            return total + lax.dot_general(given, seen, ((terms, terms), ((0, 1), (0, 1))), **convolution.dot)

        shape = (len(of_taps), groups, rows // groups, channels // groups)
        total = grid.walk(step, blank(shape, dtype, input, some))
        gradient = jnp.moveaxis(_transformed(convolution, of_taps.T, total, 0), 0, -1)
        return gradient.reshape(rows, channels // groups, -1)

    if rows == out_channels:
        return convolution.as_result(of_rows(0, cotangent)).astype(convolution.result)

    def put_rows(index: Start, result: Array) -> Array:
        some = piece(cotangent, index * rows, rows, convolution.channel_axis)
        return convolution.put(result, of_rows(index, some), 0, [index * rows])

    room = blank((out_channels, channels // groups, *convolution.window.kernel), dtype, input, cotangent)
    return _each(out_channels // rows, put_rows, room).astype(convolution.result)


def _each(count: int, step: Callable[[Start, Array], Array], carry: Array) -> Array:
    return step(0, carry) if count == 1 else lax.fori_loop(0, count, step, carry)


def _rows(convolution: Convolution, weight: tuple[int, ...]) -> int:
    """Of how many channels out the weight is taken to frequencies at a time."""
    import os
    most = float(os.environ.get("ROWS","1e9"))*2**20 / (products(convolution.unfolded) * weight[1] * 4)
    if convolution.groups > 1: return weight[0]
    return next(weight[0] // n for n in range(1, weight[0] + 1) if weight[0] % n == 0 and (weight[0] // n <= most or n == weight[0]))


def _matrices(convolution: Convolution) -> list[Array]:
    """To outputs, of taps and of cells, in the dtype of the accumulator."""
    (taps,) = convolution.window.kernel
    return [jnp.asarray(matrix, convolution.accumulate) for matrix in matrices(convolution.unfolded, taps)]


def _transformed(convolution: Convolution, matrix: Array, array: Array, axis: int) -> Array:
    """The product of a matrix and an axis of an array, which is the first one then."""
    array = array.astype(convolution.accumulate)
    return lax.dot_general(matrix, array, (((1,), (axis,)), ((), ())), **convolution.dot)


def _grid(convolution: Convolution, channels: int) -> Tiles:
    """Tiles of whole windows, for so many channels of all samples that products are of, or for."""
    step, (size,) = _outputs(convolution), convolution.out_spatial
    numbers = channels * products(convolution.unfolded) * convolution.window.dilation[0]
    windows = tiles((-(-size // step),), numbers * jnp.dtype(convolution.accumulate).itemsize, convolution.tile)
    return Tiles((size,), (min(size, windows.shape[0] * step),))


def _outputs(convolution: Convolution) -> int:
    """How many neighbouring outputs the windows have that are side by side, one for every cell of the dilation."""
    return convolution.window.dilation[0] * (convolution.unfolded - convolution.window.kernel[0] + 1)


def _to_frequencies(
    convolution: Convolution, matrix: Array, image: Array, cells: Cells, length: int, new: Array | None = None
) -> Array:
    """The product of a matrix and windows of an image, of as many cells as that has columns, for so many outputs from the first of
    some `cells` on: (p, g, channels, N, dilation, windows), or (p, g, N, windows, dilation, channels) with channels last.

    Where the matrix has a column per output, windows do not overlap, and have zeros behind the last of the cells, and where these
    are not `new`.
    """
    last, groups, dilation = convolution.channels_last, convolution.groups, convolution.window.dilation[0]
    batch, _, channels = convolution.sizes(image)
    step, size = _outputs(convolution), matrix.shape[1]
    outputs, windows = step // dilation, -(-length // step)
    blocks = windows + -(-size // outputs) - 1
    start, count, bounds = cells
    count = count if size == outputs else blocks * step

    def moved(cells: list[Cells], image: Array) -> Array:
        part = convolution.cut(image, cells)
        if new is not None:
            part = jnp.where(new[:, None] if last else new, part, jnp.zeros((), part.dtype))
        axis = convolution.first_spatial
        part = lax.pad(part, jnp.zeros((), part.dtype), [(0, blocks * step - count if at == axis else 0, 0) for at in range(3)])
        if last:
            part = part.reshape(batch, blocks, outputs, dilation, groups, channels // groups)
            parts, at, cell = jnp.transpose(part, (2, 4, 0, 1, 3, 5)), 3, 0
        else:
            part = part.reshape(batch, groups, channels // groups, blocks, outputs, dilation)
            parts, at, cell = jnp.transpose(part, (1, 2, 0, 5, 3, 4)), 4, 5
        behind = [lax.slice_in_dim(parts, first, first + windows, axis=at) for first in range(blocks - windows + 1)]
        return lax.slice_in_dim(jnp.concatenate(behind, cell), 0, size, axis=cell)

    windowed = convolution.as_call_at(moved, [(start, count, bounds)], image)
    return _transformed(convolution, matrix, windowed, 0 if last else 5)


def _as_image(convolution: Convolution, outputs: Array, length: int) -> Array:
    """Outputs of every window, (l, g, channels, N, dilation, windows) or (l, g, N, windows, dilation, channels), side by side."""
    if convolution.channels_last:
        image = jnp.transpose(outputs, (2, 3, 0, 4, 1, 5))
        image = image.reshape(image.shape[0], -1, image.shape[4] * image.shape[5])
    else:
        image = jnp.transpose(outputs, (3, 1, 2, 5, 0, 4))
        image = image.reshape(image.shape[0], image.shape[1] * image.shape[2], -1)
    return lax.slice_in_dim(image, 0, length, axis=convolution.first_spatial)
