"""Multiply first, then fold: the sum over taps comes last, and U is never built.

Eq. 3 to the letter, a tile at a time: the product of weight and cotangent has a row for every channel and tap, and fold adds
its rows shifted, all in the cache. Eq. 2 in the same order: every tap's product with the input, then a sum of shifted rows.
Eq. 4 unfolds the cotangent in place of the input. For layers whose products are smaller than U: few channels on the side that
is summed to, one spatial axis, and strides above 1 backwards, where one product serves every phase of the stride.
"""

import math

import jax.numpy as jnp
from jax import Array, lax

from jaxconv.convolution import Convolution
from jaxconv.engines import stream
from jaxconv.tiles import Start, cut, each, interleaved, piece, put, tiles, unwritten
from jaxconv.window import Taps, backward_reach, backward_taps, forward_taps


def output(convolution: Convolution, input: Array, weight: Array, bias: Array | None = None) -> Array:
    """Eq. 2, the sum over channels first and the sum over taps last."""
    window, out_channels = convolution.window, weight.shape[0]
    batch, _, _ = convolution.sizes(input)
    # (g, q, c, *k) to (g, *k, q, c): one row a tap and output channel.
    matrix = jnp.moveaxis(convolution.by_group(weight), (1, 2), (-2, -1))
    bytes_a_position = batch * out_channels * window.taps * jnp.dtype(convolution.accumulate).itemsize
    grid = tiles(
        convolution.out_spatial,
        bytes_a_position * math.prod(window.stride),
        convolution.tile,
    )

    def step(starts, _, result):
        begins, sizes, reach = window.cells(starts, grid.shape, grid.sizes)
        products = _products(convolution, matrix, cut(input, convolution.first_spatial, begins, sizes, reach))
        for axis in reversed(range(window.rank)):
            products = _sum(convolution, axis, products, forward_taps(window, axis), grid.shape[axis])
        return put(result, _image(convolution, products, bias), convolution.first_spatial, starts)

    result = unwritten(convolution.shape(batch, grid.sizes, out_channels), convolution.result, weight, input)
    return grid.walk(step, result)


def input_gradient(convolution: Convolution, weight: Array, cotangent: Array, bias: Array | None = None) -> Array:
    """Eq. 3 and fold. Input positions come in blocks of `stride`, whose phases are summed apart and interleaved."""
    window, groups, first = convolution.window, convolution.groups, convolution.first_spatial
    batch, _, _ = convolution.sizes(cotangent)
    in_channels = weight.shape[1] * groups
    # (g, q, c, *k) to (g, *k, c, q): one row a tap and input channel.
    matrix = jnp.moveaxis(convolution.by_group(weight), (2, 1), (-2, -1)).astype(cotangent.dtype)
    blocks = tuple(-(-size // stride) for size, stride in zip(convolution.spatial, window.stride, strict=True))
    bytes_a_block = batch * in_channels * window.taps * jnp.dtype(convolution.accumulate).itemsize
    grid = tiles(blocks, bytes_a_block, convolution.tile)
    reaches = [backward_reach(window, axis) for axis in range(window.rank)]

    def step(starts, _, result):
        begins = [start + near for start, (near, _) in zip(starts, reaches, strict=True)]
        sizes = [length + far - near for length, (near, far) in zip(grid.shape, reaches, strict=True)]
        bounds = [
            (near, near + size - length)
            for (near, _), size, length in zip(reaches, grid.sizes, grid.shape, strict=True)
        ]
        products = _products(convolution, matrix, cut(cotangent, first, begins, sizes, bounds))
        for axis in reversed(range(window.rank)):
            taps = [backward_taps(window, axis, phase) for phase in range(window.stride[axis])]
            phases = [_sum(convolution, axis, products, some, grid.shape[axis]) for some in taps]
            products = interleaved(phases, _spatial_axis(convolution, axis, axis))
        begins = [start * stride for start, stride in zip(starts, window.stride, strict=True)]
        return put(result, _image(convolution, products, bias), first, begins)

    whole = tuple(count * stride for count, stride in zip(blocks, window.stride, strict=True))
    # Another entry than that of `output`, which may have the same shape.
    result = unwritten(convolution.shape(batch, whole, in_channels), convolution.result, weight[-1:], cotangent)
    result = grid.walk(step, result)
    return lax.slice(result, (0,) * result.ndim, convolution.shape(batch, convolution.spatial, in_channels))


def weight_gradient(convolution: Convolution, input: Array, cotangent: Array) -> Array:
    """Eq. 4 with the cotangent unfolded by the turned kernel, where that is smaller than U; it needs stride 1."""
    if max(convolution.window.stride) > 1:
        return stream.weight_gradient(convolution, input, cotangent)
    turned = convolution.turned(convolution.sizes(cotangent)[1])
    gradient = stream.weight_gradient(turned, cotangent, input.astype(cotangent.dtype))
    return convolution.turned_kernel(gradient)


def _products(convolution: Convolution, matrix: Array, image: Array) -> Array:
    """Every tap's product with an image: (g, *k, channels, N, *spatial), or (g, N, *spatial, *k, channels) where those
    are last."""
    groups = convolution.groups
    batch, spatial, channels = convolution.sizes(image)
    rows, inner = matrix.shape[1:-1], channels // groups
    matrix = matrix.reshape(*convolution.lead, math.prod(rows), inner)
    if convolution.channels_last:
        image = jnp.moveaxis(image.reshape(batch, *spatial, groups, inner), -2, 0).reshape(*convolution.lead, -1, inner)
        product = convolution.product(image, matrix, image.ndim - 1, matrix.ndim - 1)
        return product.reshape(groups, batch, *spatial, *rows)
    image = jnp.moveaxis(image.reshape(batch, groups, inner, *spatial), 0, 2).reshape(*convolution.lead, inner, -1)
    product = convolution.product(matrix, image, matrix.ndim - 1, image.ndim - 2)
    return product.reshape(groups, *rows, batch, *spatial)


def _spatial_axis(convolution: Convolution, axis: int, taps: int) -> int:
    """Where a spatial axis is in products that still have so many axes of taps."""
    return 2 + axis if convolution.channels_last else 3 + taps + axis


def _sum(convolution: Convolution, axis: int, products: Array, taps: Taps, length: int) -> Array:
    """The sum over taps of an axis, `length` positions of each."""
    tap_axis = 2 + convolution.window.rank + axis if convolution.channels_last else 1 + axis
    spatial_axis = _spatial_axis(convolution, axis, axis)

    def part(index: Start) -> Array:
        one = lax.squeeze(piece(products, taps.first + taps.step * index, 1, tap_axis), [tap_axis])
        return piece(one, taps.at + taps.shift * index, length, spatial_axis, taps.stride)

    if not taps.count:
        return jnp.zeros_like(part(0))
    return each(taps.count - 1, lambda index, total: total + part(index + 1), part(0))


def _image(convolution: Convolution, sums: Array, bias: Array | None) -> Array:
    """Sums (g, channels, N, *spatial) or (g, N, *spatial, channels) as an image in the caller's layout, rounded."""
    if convolution.channels_last:
        image = jnp.moveaxis(sums, 0, -2)
        image = image.reshape(*image.shape[:-2], -1)
    else:
        image = jnp.moveaxis(sums, 2, 0)
        image = image.reshape(image.shape[0], -1, *image.shape[3:])
    if bias is not None:
        image = image + convolution.along_channels(bias.astype(image.dtype))
    return image.astype(convolution.result)
