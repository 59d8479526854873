"""One tap: U is the input, and every sample is multiplied where it lies.

Eqs. 2 to 4 with nothing unfolded, moved or cut into tiles. One product over all samples would first move the channels of every
image before the samples; a product a sample, with a copy of the weight for each, has not to. For kernels of one tap on images
that are large beside the weight, channels first. Other kernels, and channels last, where nothing is in the way, are left to
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
    flat = _multiplied(convolution, _seen(convolution, input), convolution.by_group(weight))
    flat = flat.reshape(convolution.shape(flat.shape[0], convolution.out_spatial, weight.shape[0]))
    return convolution.finished(flat, bias)


def input_gradient(convolution: Convolution, weight: Array, cotangent: Array, bias: Array | None = None) -> Array:
    """Eq. 3; fold puts every position where it was."""
    if not _accepts(convolution):
        return stream.input_gradient(convolution, weight, cotangent, bias)
    window = convolution.window
    batch, out_spatial, _ = convolution.sizes(cotangent)
    matrix = jnp.swapaxes(convolution.by_group(weight), 1, 2).astype(cotangent.dtype)
    flat = _multiplied(convolution, _flat(convolution, cotangent), matrix)
    image = flat.reshape(convolution.shape(batch, out_spatial, weight.shape[1] * convolution.groups))
    sides = [(0, 0, 0)] * image.ndim
    for axis, (size, wanted) in enumerate(zip(out_spatial, convolution.spatial, strict=True)):
        stride, (low, _) = window.stride[axis], window.padding[axis]
        covered = stride * (size - 1) + 1
        sides[convolution.first_spatial + axis] = (-low, wanted + low - covered, stride - 1)
    return convolution.finished(lax.pad(image, jnp.zeros((), image.dtype), sides), bias)


def weight_gradient(convolution: Convolution, input: Array, cotangent: Array) -> Array:
    """Eq. 4, summed over the samples at last."""
    if not _accepts(convolution):
        return stream.weight_gradient(convolution, input, cotangent)
    u, g = _seen(convolution, input.astype(cotangent.dtype)), _flat(convolution, cotangent)
    blocks = lax.dot_general(g, u, (((3,), (3,)), ((0, 1), (0, 1))), **convolution.dot).sum(axis=0)
    return blocks.reshape(-1, *blocks.shape[2:], *convolution.window.kernel).astype(convolution.result)


def _accepts(convolution: Convolution) -> bool:
    return convolution.window.taps == 1 and not convolution.channels_last


def _seen(convolution: Convolution, input: Array) -> Array:
    """U: the positions of the input that the tap sees, as `_flat` has them."""
    window = convolution.window
    for axis, size in enumerate(convolution.out_spatial):
        input = piece(input, -window.padding[axis][0], size, convolution.first_spatial + axis, window.stride[axis])
    return _flat(convolution, input)


def _flat(convolution: Convolution, image: Array) -> Array:
    """An image as (N, g, channels of a group, positions)."""
    batch, _, channels = convolution.sizes(image)
    return image.reshape(batch, convolution.groups, channels // convolution.groups, -1)


def _multiplied(convolution: Convolution, image: Array, matrix: Array) -> Array:
    """The product of a matrix (g, to, from) and every sample of an image, in the layout of `_flat`."""
    copies = jnp.broadcast_to(matrix, (image.shape[0], *matrix.shape))
    return lax.dot_general(copies, image, (((3,), (2,)), ((0, 1), (0, 1))), **convolution.dot)
