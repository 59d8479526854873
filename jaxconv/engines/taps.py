"""One multiply-accumulate a tap, no matrix product at all.

With one or a few channels a group, as in depthwise layers, a product has nothing to share between rows, and its time would
be U's. Here a tile of the output is one fused loop over positions, which adds up every tap's shifted input times its weight,
so that nothing is written but the output. Eq. 4 is one reduction a tap.
"""

import itertools
import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array, lax

from jaxconv.convolution import Convolution
from jaxconv.tiles import Start, blank, cut, each, interleaved, put, tiles, unwritten
from jaxconv.window import Taps, backward_reach, backward_taps, forward_taps


def output(convolution: Convolution, input: Array, weight: Array, bias: Array | None) -> Array:
    """Eq. 2, summed tap by tap."""
    window, groups, first = convolution.window, convolution.groups, convolution.first_spatial
    batch, _, channels = convolution.sizes(input)
    weight = weight.reshape(groups, -1, *weight.shape[1:])
    out_channels = groups * weight.shape[1]
    bytes_a_position = batch * max(channels, out_channels) * jnp.dtype(convolution.accumulate).itemsize
    grid = tiles(
        convolution.out_spatial,
        bytes_a_position * math.prod(window.stride),
        convolution.tile,
    )
    taps = [forward_taps(window, axis) for axis in range(window.rank)]

    def step(starts, _, result):
        begins, sizes, bounds = window.cells(starts, grid.shape, grid.sizes)
        part = cut(input, first, begins, sizes, bounds).astype(convolution.accumulate)
        tile = _image(convolution, _sum(convolution, part, weight, taps, grid.shape), bias)
        return put(result, tile, first, starts)

    result = unwritten(convolution.shape(batch, grid.sizes, out_channels), convolution.result, weight, input)
    return grid.walk(step, result)


def input_gradient(convolution: Convolution, weight: Array, cotangent: Array, bias: Array | None = None) -> Array:
    """Eq. 3 and fold: every phase of the stride has taps of its own."""
    window, groups, first = convolution.window, convolution.groups, convolution.first_spatial
    batch, _, out_channels = convolution.sizes(cotangent)
    weight = jnp.swapaxes(weight.reshape(groups, -1, *weight.shape[1:]), 1, 2)
    in_channels = groups * weight.shape[1]
    blocks = tuple(-(-size // stride) for size, stride in zip(convolution.spatial, window.stride, strict=True))
    bytes_a_block = batch * max(in_channels * math.prod(window.stride), out_channels)
    grid = tiles(
        blocks,
        bytes_a_block * jnp.dtype(convolution.accumulate).itemsize,
        convolution.tile,
    )
    reaches = [backward_reach(window, axis) for axis in range(window.rank)]

    def step(starts, _, result):
        begins = [start + near for start, (near, _) in zip(starts, reaches, strict=True)]
        sizes = [length + far - near for length, (near, far) in zip(grid.shape, reaches, strict=True)]
        bounds = [
            (near, near + size - length)
            for (near, _), size, length in zip(reaches, grid.sizes, grid.shape, strict=True)
        ]
        part = cut(cotangent, first, begins, sizes, bounds).astype(convolution.accumulate)

        def phases(axis: int, taps: list[Taps]) -> Array:
            if axis == window.rank:
                return _sum(convolution, part, weight, taps, grid.shape)
            own = [phases(axis + 1, [*taps, backward_taps(window, axis, at)]) for at in range(window.stride[axis])]
            return interleaved(own, axis + (1 if convolution.channels_last else 3))

        begins = [start * stride for start, stride in zip(starts, window.stride, strict=True)]
        return put(result, _image(convolution, phases(0, []), bias), first, begins)

    whole = tuple(count * stride for count, stride in zip(blocks, window.stride, strict=True))
    result = unwritten(convolution.shape(batch, whole, in_channels), convolution.result, weight[::-1], cotangent)
    result = grid.walk(step, result)
    return lax.slice(result, (0,) * result.ndim, convolution.shape(batch, convolution.spatial, in_channels))


def weight_gradient(convolution: Convolution, input: Array, cotangent: Array) -> Array:
    """Eq. 4, one sum a tap and channel of the group."""
    window, groups, first = convolution.window, convolution.groups, convolution.first_spatial
    batch, _, channels = convolution.sizes(input)
    out_channels = convolution.sizes(cotangent)[2]
    inner = channels // groups
    # Every tap that is written out has its own copy of what it sees.
    bytes_a_position = batch * max(channels, out_channels) * jnp.dtype(convolution.accumulate).itemsize * 8
    grid = tiles(
        convolution.out_spatial,
        bytes_a_position * math.prod(window.stride),
        convolution.tile,
    )
    taps = [forward_taps(window, axis) for axis in range(window.rank)]

    def step(starts, begun, total):
        begins, sizes, bounds = window.cells(starts, grid.shape, grid.sizes)
        part = _first(convolution, cut(input, first, begins, sizes, bounds)).astype(convolution.accumulate)
        ends = [(0, size - length) for size, length in zip(grid.sizes, grid.shape, strict=True)]
        tile = grid.only_new(cut(cotangent, first, starts, grid.shape, ends), starts, begun, first)
        tile = _first(convolution, tile).astype(convolution.accumulate)

        def add(index, total):
            channel, *at = _place(index, (inner, *window.kernel))
            seen = _seen(part, 2, channel, 3, taps, at, grid.shape)
            sums = jnp.sum(seen * tile, axis=(0, *range(3, tile.ndim)))
            return lax.dynamic_update_index_in_dim(total, total[index] + sums, index, 0)

        return each(inner * window.taps, add, total)

    total = blank((inner * window.taps, groups, out_channels // groups), convolution.accumulate, input, cotangent)
    total = grid.walk(step, total).reshape(inner, *window.kernel, out_channels)
    return jnp.moveaxis(total, -1, 0).astype(convolution.result)


def _place(index: Start, sizes: Sequence[int]) -> list[Start]:
    """The index on every axis of what is at `index` in row-major order."""
    at = []
    for size in reversed(sizes):
        at.append(index % size if isinstance(index, int) else lax.rem(index, size))
        index = index // size if isinstance(index, int) else lax.div(index, size)
    return at[::-1]


def _seen(
    part: Array,
    channel_axis: int,
    channel: Start,
    first: int,
    taps: Sequence[Taps],
    at: Sequence[Start],
    shape: Sequence[int],
) -> Array:
    """What one tap sees of one channel of every group: `shape` positions, and a channel axis of one."""
    part = lax.dynamic_slice_in_dim(part, channel, 1, channel_axis)
    for axis, (some, index, length) in enumerate(zip(taps, at, shape, strict=True), first):
        part = lax.dynamic_slice_in_dim(part, some.at + some.shift * index, some.stride * (length - 1) + 1, axis)
        part = lax.slice_in_dim(part, 0, None, some.stride, axis)
    return part


def _sum(convolution: Convolution, part: Array, weight: Array, taps: Sequence[Taps], shape: Sequence[int]) -> Array:
    """The sum over taps, and channels of the group, of what they see times the weight (g, results, channels, *k)."""
    groups, rank = convolution.groups, convolution.window.rank
    batch, spatial, _ = convolution.sizes(part)
    last = convolution.channels_last
    part = part.reshape(batch, *spatial, groups, -1) if last else part.reshape(batch, groups, -1, *spatial)
    weight = weight.astype(convolution.accumulate)
    counts = [weight.shape[2], *(some.count for some in taps)]

    def term(place: Sequence[Start]) -> Array:
        channel, *at = place
        seen = _seen(part, 2 + rank if last else 2, channel, 1 if last else 3, taps, at, shape)
        entries = [channel, *(some.first + some.step * index for some, index in zip(taps, at, strict=True))]
        factor = lax.dynamic_slice(weight, (0, 0, *entries), (*weight.shape[:2], *(1,) * len(entries)))
        factor = factor.reshape(*weight.shape[:2], *(() if last else (1,) * rank))
        return seen * factor

    # As many of the last axes as make a fused loop of a fair size are written out, the others are a loop around it.
    inside = len(counts)
    while inside and math.prod(counts[inside - 1 :]) <= _TERMS:
        inside -= 1
    inside = min(inside, len(counts) - 1)
    written = list(itertools.product(*map(range, counts[inside:])))

    def add(index, total):
        outside = _place(index, counts[:inside])
        for place in written:
            total = total + term([*outside, *place])
        return total

    sizes = (batch, *shape, *weight.shape[:2]) if last else (batch, *weight.shape[:2], *shape)
    return each(math.prod(counts[:inside]), add, blank(sizes, convolution.accumulate, part, weight))


_TERMS = 64


def _first(convolution: Convolution, image: Array) -> Array:
    """An image as (N, g, channels of a group, *spatial)."""
    image = jnp.moveaxis(image, -1, 1) if convolution.channels_last else image
    return image.reshape(image.shape[0], convolution.groups, -1, *image.shape[2:])


def _image(convolution: Convolution, sums: Array, bias: Array | None) -> Array:
    """Sums (N, g, channels, *spatial), or (N, *spatial, g, channels), as an image, rounded."""
    last = convolution.channels_last
    image = sums.reshape(*sums.shape[:-2], -1) if last else sums.reshape(sums.shape[0], -1, *sums.shape[3:])
    if bias is not None:
        image = image + convolution.along_channels(bias.astype(image.dtype))
    return image.astype(convolution.result)
