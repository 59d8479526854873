"""A product per sample: U whole, positions innermost, with the samples as the batch of one batched matrix product.

The formulas, with a copy of the weight for every sample. One product of all samples, as `materialise` asks for, wants the
channels of every image before the samples, and XLA moves them there and back; here neither output nor cotangent is moved. For
layers of many positions whose U is small; and for a single tap, whose U is the input itself. With channels last a tap of one
group is one product of all samples. The rest, and more taps than are compiled soon, are left to `stream`.
"""

import math
import operator
from functools import reduce
from itertools import product

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxconv.convolution import Convolution
from jaxconv.copies import shifted
from jaxconv.engines import stream
from jaxconv.joins import joined
from jaxconv.tiles import piece, seen_by
from jaxconv.window import Window, forward_taps

# Its copies, and the tiles of what is left to `stream`, are of bits where numbers have 16.
IN_TILES = True

_MOST_COPIES, _MOST_TAPS = 32, 100
# Loops of so few cells are unrolled by XLA's compiler, and not vectorised (seen in its output).
_SHORT_ROW = 64


def output(convolution: Convolution, input: Array, weight: Array, bias: Array | None = None) -> Array:
    """Eq. 2, sample by sample."""
    if not _accepts(convolution):
        return stream.output(convolution, input, weight, bias)
    products = _products(convolution, _unfold(convolution, input), convolution.matrix(weight))
    return convolution.finished(_image(convolution, products), bias)


def input_gradient(convolution: Convolution, weight: Array, cotangent: Array, bias: Array | None = None) -> Array:
    """Eq. 3, sample by sample, and fold."""
    if not _accepts(convolution):
        return stream.input_gradient(convolution, weight, cotangent, bias)
    matrix = jnp.swapaxes(convolution.matrix(weight), -1, -2).astype(cotangent.dtype)
    products = _products(convolution, _by_group(convolution, cotangent), matrix)
    return convolution.finished(_fold(convolution, products), bias)


def weight_gradient(convolution: Convolution, input: Array, cotangent: Array) -> Array:
    """Eq. 4; with channels first summed over the samples at last."""
    if not _accepts(convolution):
        return stream.weight_gradient(convolution, input, cotangent)
    u, g = _unfold(convolution, input.astype(cotangent.dtype)), _by_group(convolution, cotangent)
    channels = _rows_axis(convolution)
    exchanged = convolution.exchanges(g.shape[channels], u.shape[channels])
    factors = convolution.as_factors(*((u, g) if exchanged else (g, u)))
    if convolution.channels_last:
        terms = tuple(range(channels))
        blocks = lax.dot_general(*factors, ((terms, terms), ((), ())), **convolution.dot)
    else:
        # XLA would move the positions of several axes, though they lie as those of one.
        left, right = (factor.reshape(*factor.shape[: channels + 1], -1) for factor in factors)
        batch, terms = tuple(range(channels)), (channels + 1,)
        blocks = lax.dot_general(left, right, ((terms, terms), (batch, batch)), **convolution.dot).sum(axis=0)
    return convolution.weight_of(blocks, exchanged).astype(convolution.result)


def _accepts(convolution: Convolution) -> bool:
    if convolution.channels_last:
        return convolution.window.taps == 1 and convolution.groups == 1
    return has_few_taps(convolution.window)


def has_few_taps(window: Window) -> bool:
    """Whether there are at most 32 copies, one per tap of every axis, and 100 taps, which input gradients have a term for."""
    return sum(window.kernel) <= _MOST_COPIES and window.taps <= _MOST_TAPS


def _by_group(convolution: Convolution, image: Array) -> Array:
    """An image as (N, g, channels of a group, *spatial), or as it is where there is one group: a product of what has an axis of
    one group takes half as long again (measured)."""
    if convolution.groups == 1:
        return image
    return image.reshape(image.shape[0], convolution.groups, -1, *image.shape[2:])


def _image(convolution: Convolution, grouped: Array) -> Array:
    """The inverse of `_by_group`."""
    if convolution.groups == 1:
        return grouped
    return grouped.reshape(grouped.shape[0], -1, *grouped.shape[3:])


def _rows_axis(convolution: Convolution) -> int:
    """Where an image by group has its channels, and U its rows."""
    return convolution.channel_axis + len(convolution.lead)


def _unfold(convolution: Convolution, input: Array) -> Array:
    """U as an image by group, whose channels are the rows: *k and c. An axis after the other, the last one first: K1 + K2 copies
    to compile and not K1 K2."""
    window, channels = convolution.window, _rows_axis(convolution)
    u = _by_group(convolution, convolution.for_copies(convolution.for_tiles(input)))
    first = convolution.first_spatial + len(convolution.lead)
    for axis in reversed(range(window.rank)):
        u = _unfolded(convolution, u, axis, first, channels)
    return convolution.for_sums(u, input.dtype)


def _unfolded(convolution: Convolution, image: Array, axis: int, first: int, channels: int) -> Array:
    """What every tap of a spatial axis sees of an image by group, whose axes behind that one are those of the output.

    Without a stride positions behind are one run, and so are short rows, with what would be seen beyond their ends selected
    away: XLA fills vectors in long loops alone.
    """
    window, at, size = convolution.window, first + axis, convolution.out_spatial[axis]
    taps = shifted(forward_taps(window, axis), window.padding[axis][0])
    inside = taps.are_inside(image.shape[at], size)
    if taps.stride > 1 or convolution.channels_last:
        parts = [seen_by(image, taps, tap, size, at) for tap in range(taps.count)]
        return joined(parts, channels, paired=inside or at < image.ndim - 1)
    starts = [taps.at + taps.shift * tap for tap in range(taps.count)]
    if 0 < axis == window.rank - 1 and size == convolution.spatial[axis] <= _SHORT_ROW:
        run = image.reshape(*image.shape[:first], -1)
        positions, column = run.shape[-1], np.arange(run.shape[-1]) % size
        seen = []
        for start in starts:
            part = piece(run, start, positions, first)
            inside = (column + start >= 0) & (column + start < size)
            seen.append(jnp.where(inside, part, jnp.zeros((), part.dtype)) if start else part)
        rows = joined(seen, channels, paired=False)
        return rows.reshape(*rows.shape[:first], *image.shape[first:])
    behind = image.shape[at + 1 :]
    run, length = image.reshape(*image.shape[:at], -1), math.prod(behind)
    rows = joined([piece(run, start * length, size * length, at) for start in starts], channels, paired=inside)
    return rows.reshape(*rows.shape[:at], size, *behind)


def _fold(convolution: Convolution, rows: Array) -> Array:
    """The transpose of `_unfold`: what every tap has seen, added up where it was."""
    window = convolution.window

    def back(part: Array, tap: tuple[int, ...]) -> Array:
        image = _image(convolution, part)
        sides = [(0, 0, 0)] * image.ndim
        for axis, (size, wanted) in enumerate(zip(convolution.out_spatial, convolution.spatial, strict=True)):
            stride, start = window.stride[axis], window.dilation[axis] * tap[axis] - window.padding[axis][0]
            sides[convolution.first_spatial + axis] = (start, wanted - start - stride * (size - 1) - 1, stride - 1)
        return lax.pad(image, jnp.zeros((), image.dtype), sides)

    parts = jnp.split(rows, window.taps, _rows_axis(convolution))
    return reduce(operator.add, map(back, parts, product(*map(range, window.kernel))))


def _products(convolution: Convolution, image: Array, matrix: Array) -> Array:
    """An image by group of the products of a matrix ((g,) to, from) and every position of one."""
    channels = _rows_axis(convolution)
    if convolution.channels_last:
        return lax.dot_general(
            *convolution.as_factors(image, matrix), (((channels,), (1,)), ((), ())), **convolution.dot
        )
    # In the accumulator's dtype, as the derivative of copying adds up.
    copies = jnp.broadcast_to(matrix.astype(convolution.accumulate), (image.shape[0], *matrix.shape))
    factors, batch = convolution.as_factors(copies.astype(image.dtype), image), tuple(range(channels))
    return lax.dot_general(*factors, (((channels + 1,), (channels,)), (batch, batch)), **convolution.dot)
