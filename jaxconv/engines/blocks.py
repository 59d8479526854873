"""A long kernel of a signal in blocks of neighbouring taps: U of one block, and a product for each.

The taps of a block see what those of the first one see, some positions further on. So the sum over channels and the taps of a
block is taken of the same copies for all blocks, in one product, and these are added up shifted; eq. 4 has the cotangent copied
once a block. With `b` blocks there are `b + K / b` copies and products in place of `K`, as `fold` has them for an image of two
axes. A tap that two blocks share counts half in each. For dense layers; strides are left to `fold`.
"""

import math
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxconv import folded
from jaxconv.convolution import Convolution, traced_once
from jaxconv.copies import copies
from jaxconv.counts import cells_in_blocks
from jaxconv.engines import fold
from jaxconv.tiles import moved, tiles, tiles_of_terms
from jaxconv.window import Place, Taps

IN_TILES = True


@traced_once
def output(convolution: Convolution, input: Array, weight: Array, bias: Array | None = None) -> Array:
    """Eq. 2, the sum over channels and the taps of a block before the sum over blocks."""
    if not convolution.has_blocks:
        return fold.output(convolution, input, weight, bias)
    window, last, (batch, _, channels) = convolution.window, convolution.channels_last, convolution.sizes(input)
    taps, blocks = _taps_and_blocks(convolution)
    matrix = _in_blocks(convolution, convolution.by_group(weight))
    rows, out_channels = (blocks.count, matrix.shape[1]), weight.shape[0]
    matrix = moved(matrix, (0, 3, 1, 4, 2) if last else (0, 3, 1, 2, 4))
    matrix = convolution.made_once(matrix.reshape(*convolution.lead, math.prod(rows), -1))
    grid = tiles(convolution.out_spatial, _bytes(convolution, batch, channels, out_channels), convolution.tile)
    (length,), first = grid.shape, 0
    seen = length + blocks.shift * (blocks.count - 1)
    if grid.counts == (1,):
        # What would be zeros times the weight is left to the sum.
        first, end = window.seen_by_blocks(blocks.count, *convolution.spatial)
        seen, blocks = end - first, replace(blocks, at=-first)

    def step(places: list[Place], result: Array) -> Array:
        start, _, (least, most) = window.cells(0, places[0], length)
        cells = (start + first, seen + taps.shift * (taps.count - 1), (least + first, most + first))
        u, _ = copies(convolution, input, [0], [taps], [seen], [cells])
        multiplied = folded.products(convolution, matrix, rows, u)
        sums = folded.sum_of_taps(multiplied, 3 if last else 1, 2 if last else 3, blocks, length)
        return convolution.put(
            result, folded.as_image(convolution, sums, bias), convolution.first_spatial, [places[0].start]
        )

    shape = convolution.shape(batch, grid.sizes, out_channels)
    return grid.walk(step, convolution.room(shape, length, weight, input)).reshape(shape)


def input_gradient(convolution: Convolution, weight: Array, cotangent: Array, bias: Array | None = None) -> Array:
    """Eq. 3 and fold, which without a stride is eq. 2 of the turned kernel."""
    if not convolution.has_blocks:
        return fold.input_gradient(convolution, weight, cotangent, bias)
    return output(*convolution.as_output(weight, cotangent), bias)


def weight_gradient(convolution: Convolution, input: Array, cotangent: Array) -> Array:
    """Eq. 4, with the input unfolded along the taps of a block, and the cotangent along the blocks."""
    if not convolution.has_blocks:
        return fold.weight_gradient(convolution, input, cotangent)
    (batch, _, channels), (_, _, out_channels) = convolution.sizes(input), convolution.sizes(cotangent)
    input, ((low, _),) = input.astype(cotangent.dtype), convolution.window.padding
    taps, blocks = _taps_and_blocks(convolution)
    reach = blocks.shift * (blocks.count - 1)
    back = Taps(blocks.count, 0, 1, reach, -blocks.shift, 1)
    # The terms of the sum: what the first tap of every block sees, but for zeros around the image.
    first, end = convolution.window.seen_by_blocks(blocks.count, *convolution.spatial)
    grid = tiles_of_terms((end - first,), _bytes(convolution, batch, channels, out_channels), convolution.tile)
    (length,) = grid.shape

    def copied(places: list[Place]) -> tuple[Array, Array]:
        start, least, most = (at + first for at in (places[0].start, places[0].least, places[0].most))
        ahead = (start - low, length + taps.shift * (taps.count - 1), (least - low, most - low))
        behind = (start - reach, length + reach, (least - reach, most - reach))
        u, _ = copies(convolution, input, [0], [taps], [length], [ahead])
        g, _ = copies(convolution, cotangent, [0], [back], [length], [behind])
        return u, g

    gradient = folded.gradient(convolution, grid, copied, (input, cotangent), {1: taps.count}, {0: blocks.count})
    return convolution.as_result(_as_kernel(convolution, gradient)).astype(convolution.result)


def _taps_and_blocks(convolution: Convolution) -> tuple[Taps, Taps]:
    """The taps of a block, and the blocks, as an input is read that is cut to the cells of a tile."""
    (dilation,), count = convolution.window.dilation, convolution.unfolded
    taps, step = convolution.window.block(count)
    return Taps(taps, 0, 1, 0, dilation, 1), Taps(count, 0, 1, 0, dilation * step, 1)


def _in_blocks(convolution: Convolution, weight: Array) -> Array:
    """A weight (..., k) as (..., blocks, taps), with half of what two blocks share in each."""
    (taps, step), count = convolution.window.block(convolution.unfolded), convolution.unfolded
    own = weight[..., : count * step].reshape(*weight.shape[:-1], count, step)
    if taps == step:
        return own
    behind = lax.pad(
        weight[..., step:], jnp.zeros((), weight.dtype), [(0, 0, 0)] * (weight.ndim - 1) + [(0, 2 * step - taps, 0)]
    )
    shared = behind.reshape(own.shape)[..., : taps - step]
    parts = np.ones((count, taps))
    parts[1:, : taps - step] = parts[:-1, step:] = 0.5
    return jnp.concatenate([own, shared], -1) * parts.astype(weight.dtype)


def _as_kernel(convolution: Convolution, gradient: Array) -> Array:
    """A gradient (..., blocks, taps) as (..., k), one of those that two blocks share."""
    _, step = convolution.window.block(convolution.unfolded)
    own = gradient[..., :step].reshape(*gradient.shape[:-2], -1)
    return jnp.concatenate([own, gradient[..., -1, step:]], -1)


def _bytes(convolution: Convolution, batch: int, channels: int, out_channels: int) -> int:
    """What one position of a tile needs."""
    cells = cells_in_blocks(convolution.window, convolution.unfolded, channels, out_channels)
    return batch * cells * jnp.dtype(convolution.accumulate).itemsize
