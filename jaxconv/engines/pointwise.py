"""One tap: U is the input, and is multiplied where it lies.

Eqs. 2 to 4 with nothing unfolded, moved or cut into tiles. With channels last that is one product of all positions. With
channels first that would move the channels of every image before the samples; a product a sample, with a copy of the weight for
each, does not, and is for images that are large beside the weight. Other kernels, and groups with channels last, are left to
`stream`.
"""

import jax.numpy as jnp
from jax import Array, lax

from jaxconv.convolution import Convolution
from jaxconv.engines import stream
from jaxconv.tiles import piece

IN_TILES = False


def output(convolution: Convolution, input: Array, weight: Array, bias: Array | None = None) -> Array:
    """Eq. 2, where U is the input."""
    if not _accepts(convolution):
        return stream.output(convolution, input, weight, bias)
    image = _multiplied(convolution, _seen(convolution, input), convolution.by_group(weight))
    return convolution.finished(image, bias)


def input_gradient(convolution: Convolution, weight: Array, cotangent: Array, bias: Array | None = None) -> Array:
    """Eq. 3; fold puts every position where it was."""
    if not _accepts(convolution):
        return stream.input_gradient(convolution, weight, cotangent, bias)
    window, (_, out_spatial, _) = convolution.window, convolution.sizes(cotangent)
    matrix = jnp.swapaxes(convolution.by_group(weight), 1, 2).astype(cotangent.dtype)
    image = _multiplied(convolution, cotangent, matrix)
    sides = [(0, 0, 0)] * image.ndim
    for axis, (size, wanted) in enumerate(zip(out_spatial, convolution.spatial, strict=True)):
        stride, (low, _) = window.stride[axis], window.padding[axis]
        covered = stride * (size - 1) + 1
        sides[convolution.first_spatial + axis] = (-low, wanted + low - covered, stride - 1)
    return convolution.finished(lax.pad(image, jnp.zeros((), image.dtype), sides), bias)


def weight_gradient(convolution: Convolution, input: Array, cotangent: Array) -> Array:
    """Eq. 4; with channels first summed over the samples at last."""
    if not _accepts(convolution):
        return stream.weight_gradient(convolution, input, cotangent)
    seen = _seen(convolution, input.astype(cotangent.dtype))
    if convolution.channels_last:
        terms = tuple(range(seen.ndim - 1))
        blocks = lax.dot_general(cotangent, seen, ((terms, terms), ((), ())), **convolution.dot)
    else:
        u, g = _flat(convolution, seen), _flat(convolution, cotangent)
        blocks = lax.dot_general(g, u, (((3,), (3,)), ((0, 1), (0, 1))), **convolution.dot).sum(axis=0)
    return blocks.reshape(-1, blocks.shape[-1], *convolution.window.kernel).astype(convolution.result)


def _accepts(convolution: Convolution) -> bool:
    return convolution.window.taps == 1 and (convolution.groups == 1 or not convolution.channels_last)


def _seen(convolution: Convolution, input: Array) -> Array:
    """U: the positions of the input that the tap sees."""
    window = convolution.window
    for axis, size in enumerate(convolution.out_spatial):
        input = piece(input, -window.padding[axis][0], size, convolution.first_spatial + axis, window.stride[axis])
    return input


def _flat(convolution: Convolution, image: Array) -> Array:
    """An image with channels first as (N, g, channels of a group, positions)."""
    batch, _, channels = convolution.sizes(image)
    return image.reshape(batch, convolution.groups, channels // convolution.groups, -1)


def _multiplied(convolution: Convolution, image: Array, matrix: Array) -> Array:
    """An image of the products of a matrix (g, to, from, *k) and every position of an image."""
    matrix = matrix.reshape(matrix.shape[:3])
    if convolution.channels_last:
        return lax.dot_general(image, matrix[0], (((image.ndim - 1,), (1,)), ((), ())), **convolution.dot)
    batch, spatial, _ = convolution.sizes(image)
    copies = jnp.broadcast_to(matrix, (batch, *matrix.shape))
    flat = lax.dot_general(copies, _flat(convolution, image), (((3,), (2,)), ((0, 1), (0, 1))), **convolution.dot)
    return flat.reshape(convolution.shape(batch, spatial, flat.shape[1] * flat.shape[2]))
