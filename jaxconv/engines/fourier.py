"""A signal in windows of several outputs, each taken to frequencies, where the sum over taps is one product.

Eqs. 2 and 4 in another basis: n cells, in which k taps have n - k + 1 outputs, are 3 n / 2 - 1 products for every channel in and
out, where the sums themselves have k (n - k + 1) (`jaxconv/frequencies.py`). All of it is matrix products: cells and taps to
frequencies, the sum over channels for each of these, and back; eq. 3 is eq. 2 of the turned kernel. For dense layers of long
kernels, whose time is that of the product; strides are left to `fold`.

An output is rounded as the largest one of its window is, and an infinity or NaN spoils all of a window.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxconv.convolution import Convolution
from jaxconv.engines import fold
from jaxconv.frequencies import Matrices, matrices, numbers_of_window, outputs_of, turns, windows_of
from jaxconv.tiles import Start, Tiles, blank, moved, piece, tiles
from jaxconv.window import Cells, Place

IN_TILES = False

_MANY_WINDOWS = 128


def output(convolution: Convolution, input: Array, weight: Array, bias: Array | None = None) -> Array:
    """Eq. 2, with a sum over channels for every product."""
    if not convolution.has_frequencies:
        return fold.output(convolution, input, weight, bias)
    kernel, channels = convolution.by_group(weight), 2
    if (
        not convolution.channels_last
        and input.shape[0] * windows_of(convolution, *convolution.out_spatial) >= _MANY_WINDOWS
    ):
        # The faster factor of many columns (measured: up to 1.8 times).
        kernel, channels = moved(kernel, (0, 2, 1, 3)), 1
    return _sum(convolution, _matrices(convolution), input, kernel, channels, bias)


def input_gradient(convolution: Convolution, weight: Array, cotangent: Array, bias: Array | None = None) -> Array:
    """Eq. 3 and fold, which without a stride is eq. 2 of the kernel turned around."""
    if not convolution.has_frequencies:
        return fold.input_gradient(convolution, weight, cotangent, bias)
    of = _matrices(convolution)
    turned = convolution.turned(convolution.sizes(cotangent)[1])
    return _sum(turned, of._replace(taps=of.taps[:, ::-1]), cotangent, convolution.by_group(weight), 1, bias)


def weight_gradient(convolution: Convolution, input: Array, cotangent: Array) -> Array:
    """Eq. 4, with a sum over samples and windows for every product."""
    if not convolution.has_frequencies:
        return fold.weight_gradient(convolution, input, cotangent)
    (batch, _, channels), (_, _, out_channels) = convolution.sizes(input), convolution.sizes(cotangent)
    of, last = _matrices(convolution), convolution.channels_last
    grid = _grid(convolution, batch, channels, out_channels)
    (length,), terms = grid.shape, (2, 3, 4) if last else (3, 4, 5)
    windows = windows_of(convolution, length)
    pairs = channels * out_channels // convolution.groups
    count = turns(convolution, pairs + batch * windows * (channels + out_channels))

    def step(places: list[Place], total: Array) -> Array:
        (place,), new = places, grid.is_new(places)
        seen = _cut(convolution, input, convolution.window.cells(0, place, length), windows, convolution.unfolded)
        given = _cut(convolution, cotangent, place.cells(length), windows, of.out.shape[1], new)

        def some(own: Matrices, total: Array) -> Array:
            left, right = _to_frequencies(convolution, own.out, given), _to_frequencies(convolution, own.cells, seen)
            gradient = lax.dot_general(left, right, ((terms, terms), ((0, 1), (0, 1))), **convolution.dot)
            return total + _transformed(convolution, own.taps.T, gradient, 0)

        return _by_turns(convolution, count, of, some, total)

    shape = (
        convolution.window.taps,
        convolution.groups,
        out_channels // convolution.groups,
        channels // convolution.groups,
    )
    gradient = moved(grid.walk(step, blank(shape, convolution.accumulate, input, cotangent)), (1, 2, 3, 0))
    gradient = gradient.reshape(convolution.weight_shape(input, cotangent))
    return convolution.as_result(gradient).astype(convolution.result)


def _sum(
    convolution: Convolution, of: Matrices, image: Array, kernel: Array, channels: int, bias: Array | None
) -> Array:
    """The sum over taps and channels, an axis of a kernel (g, q, c, k) or (g, c, q, k), of what the windows of an image see."""
    (batch, _, given), made = convolution.sizes(image), convolution.groups * kernel.shape[3 - channels]
    grid = _grid(convolution, batch, given, made)
    (length,), last = grid.shape, convolution.channels_last
    windows = windows_of(convolution, length)
    count = turns(convolution, kernel.size // convolution.window.taps + batch * windows * (given + made))
    axes = ((5,), (1 + channels,)) if last else ((1 + channels,), (2,))

    def of_kernel(own: Matrices) -> Array:
        return _transformed(convolution, own.taps, kernel, 3)

    whole = of_kernel(_as_arrays(convolution, of)) if count == 1 else None

    def finished(outputs: Array) -> Array:
        return convolution.finished(_as_image(convolution, outputs, length), bias)

    def step(places: list[Place], result: Array) -> Array:
        (place,) = places
        seen = _cut(convolution, image, convolution.window.cells(0, place, length), windows, convolution.unfolded)

        def some(own: Matrices, total: Array | None) -> Array:
            left, right = of_kernel(own) if whole is None else whole, _to_frequencies(convolution, own.cells, seen)
            left, right = (right, left) if last else (left, right)
            product = lax.dot_general(left, right, (axes, ((0, 1), (0, 1))), **convolution.dot)
            outputs = _transformed(convolution, own.out.T, product, 0)
            return outputs if total is None else total + outputs

        outputs = _by_turns(convolution, count, of, some)
        tile = convolution.as_call(finished, outputs)
        return convolution.put(result, tile, convolution.first_spatial, [place.start])

    shape = convolution.shape(batch, grid.sizes, made)
    return grid.walk(step, convolution.room(shape, length, kernel, image)).reshape(shape)


def _matrices(convolution: Convolution) -> Matrices:
    return matrices(convolution.unfolded, convolution.window.taps)


def _as_arrays(convolution: Convolution, of: Matrices) -> Matrices:
    return Matrices(*(jnp.asarray(matrix, convolution.accumulate) for matrix in of))


def _by_turns(
    convolution: Convolution,
    count: int,
    of: Matrices,
    some: Callable[[Matrices, Any], Array],
    total: Array | None = None,
) -> Array:
    """What `some` makes of the rows of matrices, so many parts of these in turn, and added up."""
    if count == 1:
        return some(_as_arrays(convolution, of), total)
    rows = -(-len(of.cells) // count)
    # With products of nothing at the end.
    whole = (np.pad(matrix, ((0, rows * count - len(matrix)), (0, 0))) for matrix in of)
    arrays = _as_arrays(convolution, Matrices(*whole))

    def turn(index: Start, total: Array) -> Array:
        return some(Matrices(*(piece(matrix, index * rows, rows, 0) for matrix in arrays)), total)

    return lax.fori_loop(1, count, turn, turn(0, total))  # type: ignore[arg-type]


def _transformed(convolution: Convolution, matrix: Array, array: Array, axis: int) -> Array:
    """The product of a matrix and an axis of an array, which is the first one then."""
    array = array.astype(convolution.accumulate)
    return lax.dot_general(matrix, array, (((1,), (axis,)), ((), ())), **convolution.dot)


def _to_frequencies(convolution: Convolution, matrix: Array, windows: Array) -> Array:
    """The product of a matrix and the cells of windows, which are the first axis with channels last, and else the last one."""
    return _transformed(convolution, matrix, windows, 0 if convolution.channels_last else windows.ndim - 1)


def _grid(convolution: Convolution, batch: int, given: int, made: int) -> Tiles:
    """Tiles of whole windows, which with their outputs have half of the room."""
    (dilation,), (size,), groups = convolution.window.dilation, convolution.out_spatial, convolution.groups
    step = dilation * outputs_of(convolution)
    numbers = batch * groups * numbers_of_window(convolution, given // groups, made // groups)
    window = numbers * dilation * jnp.dtype(convolution.accumulate).itemsize
    windows = tiles((-(-size // step),), window, convolution.tile // 2)
    return Tiles((size,), (min(size, windows.shape[0] * step),))


def _cut(
    convolution: Convolution, image: Array, cells: Cells, windows: int, size: int, new: Array | None = None
) -> Array:
    """So many windows of an image, of `size` cells, from the first of `cells` on: (g, channels, N, dilation, windows, size), or
    (size, g, N, windows, dilation, channels) with channels last.

    Windows of as many cells as outputs do not overlap. Tiles are of whole windows, but for one of all, behind which there are
    zeros; and so they are where cells are not `new`.
    """
    last, groups, dilation = convolution.channels_last, convolution.groups, convolution.window.dilation[0]
    batch, _, channels = convolution.sizes(image)
    outputs, side_by_side = outputs_of(convolution), windows // dilation
    blocks = side_by_side + -(-size // outputs) - 1
    start, _, bounds = cells

    def windowed(cells: list[Cells], image: Array) -> Array:
        part = convolution.cut(image, cells)
        if new is not None:
            part = jnp.where(new[:, None] if last else new, part, jnp.zeros((), part.dtype))
        if last:
            part = part.reshape(batch, blocks, outputs, dilation, groups, channels // groups)
            part, at, cell = jnp.transpose(part, (2, 4, 0, 1, 3, 5)), 3, 0
        else:
            part = part.reshape(batch, groups, channels // groups, blocks, outputs, dilation)
            part, at, cell = jnp.transpose(part, (1, 2, 0, 5, 3, 4)), 4, 5
        starts = range(blocks - side_by_side + 1)
        parts = [lax.slice_in_dim(part, first, first + side_by_side, axis=at) for first in starts]
        return lax.slice_in_dim(jnp.concatenate(parts, cell), 0, size, axis=cell)

    return convolution.as_call_at(windowed, [(start, blocks * outputs * dilation, bounds)], image)


def _as_image(convolution: Convolution, outputs: Array, length: int) -> Array:
    """Outputs of every window, from (l, g, channels, N, dilation, windows) or (l, g, N, windows, dilation, channels)."""
    if convolution.channels_last:
        image = jnp.transpose(outputs, (2, 3, 0, 4, 1, 5))
        image = image.reshape(image.shape[0], -1, image.shape[4] * image.shape[5])
    else:
        image = jnp.transpose(outputs, (3, 1, 2, 5, 0, 4))
        image = image.reshape(image.shape[0], image.shape[1] * image.shape[2], -1)
    return lax.slice_in_dim(image, 0, length, axis=convolution.first_spatial)
