"""A long kernel of a signal in blocks of neighbouring taps: U of one block, and a product for each.

The taps of a block see what those of the first one see, some positions further on. So the sum over channels and the taps of a
block is taken of the same copies for all blocks, in one product, and these are added up shifted; eq. 4 has the cotangent copied
once a block. With `a` taps in a block there are `a + K / a` copies and products in place of `K`, as `fold` has them for an image
of two axes. For dense layers; strides are left to `fold`.
"""

import jax.numpy as jnp
from jax import Array, lax

from jaxconv import folded
from jaxconv.convolution import Convolution, traced_once
from jaxconv.copies import copies
from jaxconv.counts import cells_in_blocks, number_of_blocks
from jaxconv.engines import fold
from jaxconv.tiles import blank, moved, put, tiles, tiles_of_terms
from jaxconv.window import Place, Taps

IN_TILES = True


@traced_once
def output(convolution: Convolution, input: Array, weight: Array, bias: Array | None = None) -> Array:
    """Eq. 2, the sum over channels and the taps of a block before the sum over blocks."""
    if not convolution.has_blocks:
        return fold.output(convolution, input, weight, bias)
    window, last, (batch, _, channels) = convolution.window, convolution.channels_last, convolution.sizes(input)
    taps, blocks = _taps_and_blocks(convolution)
    # Of the last block some taps may be none.
    taken = taps.count * blocks.count
    weight = lax.pad(weight, jnp.zeros((), weight.dtype), [(0, 0, 0), (0, 0, 0), (0, taken - window.taps, 0)])
    matrix = convolution.by_group(weight).reshape(convolution.groups, -1, weight.shape[1], blocks.count, taps.count)
    rows, out_channels = (blocks.count, matrix.shape[1]), weight.shape[0]
    matrix = moved(matrix, (0, 3, 1, 4, 2) if last else (0, 3, 1, 2, 4))
    matrix = convolution.made_once(matrix.reshape(*convolution.lead, blocks.count * rows[1], -1))
    grid = tiles(convolution.out_spatial, _bytes(convolution, batch, channels, out_channels), convolution.tile)
    (length,) = grid.shape
    seen = length + blocks.shift * (blocks.count - 1)

    def step(places: list[Place], result: Array) -> Array:
        start, _, bounds = window.cells(0, places[0], length)
        cells = (start, seen + taps.shift * (taps.count - 1), bounds)
        u, _ = copies(convolution, input, [0], [taps], [seen], [cells])
        multiplied = folded.products(convolution, matrix, rows, u)
        sums = folded.sum_of_taps(multiplied, 3 if last else 1, 2 if last else 3, blocks, length)
        return put(result, folded.as_image(convolution, sums, bias), convolution.first_spatial, [places[0].start])

    shape = convolution.shape(batch, grid.sizes, out_channels)
    return grid.walk(step, blank(shape, convolution.stored, weight, input))


def input_gradient(convolution: Convolution, weight: Array, cotangent: Array, bias: Array | None = None) -> Array:
    """Eq. 3 and fold, which without a stride is eq. 2 of the turned kernel."""
    if not convolution.has_blocks:
        return fold.input_gradient(convolution, weight, cotangent, bias)
    return output(*convolution.as_output(weight, cotangent), bias)


def weight_gradient(convolution: Convolution, input: Array, cotangent: Array) -> Array:
    """Eq. 4, with the input unfolded along the taps of a block, and the cotangent along the blocks."""
    if not convolution.has_blocks:
        return fold.weight_gradient(convolution, input, cotangent)
    (batch, _, channels), (_, (positions,), out_channels) = convolution.sizes(input), convolution.sizes(cotangent)
    input, ((low, _),) = input.astype(cotangent.dtype), convolution.window.padding
    taps, blocks = _taps_and_blocks(convolution)
    reach = blocks.shift * (blocks.count - 1)
    back = Taps(blocks.count, 0, 1, reach, -blocks.shift, 1)
    # The terms of the sum: what the first tap of every block sees.
    grid = tiles_of_terms((positions + reach,), _bytes(convolution, batch, channels, out_channels), convolution.tile)
    (length,) = grid.shape

    def copied(places: list[Place]) -> tuple[Array, Array]:
        start, _, (least, most) = places[0].cells(length)
        ahead = (start - low, length + taps.shift * (taps.count - 1), (least - low, most - low))
        behind = (start - reach, length + reach, (least - reach, most - reach))
        u, _ = copies(convolution, input, [0], [taps], [length], [ahead])
        g, _ = copies(convolution, cotangent, [0], [back], [length], [behind])
        return u, g

    gradient = folded.gradient(convolution, grid, copied, (input, cotangent), {1: taps.count}, {0: blocks.count})
    gradient = gradient.reshape(*gradient.shape[:2], -1)[:, :, : convolution.window.taps]
    return convolution.as_result(gradient).astype(convolution.result)


def _taps_and_blocks(convolution: Convolution) -> tuple[Taps, Taps]:
    """The taps of a block, and the blocks, as an input is read that is cut to the cells of a tile."""
    (dilation,), count = convolution.window.dilation, convolution.unfolded
    return Taps(count, 0, 1, 0, dilation, 1), Taps(
        number_of_blocks(convolution.window, count), 0, 1, 0, dilation * count, 1
    )


def _bytes(convolution: Convolution, batch: int, channels: int, out_channels: int) -> int:
    """What one position of a tile needs."""
    cells = cells_in_blocks(convolution.window, convolution.unfolded, channels, out_channels)
    return batch * cells * jnp.dtype(convolution.accumulate).itemsize
