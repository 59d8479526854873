"""A stride as phases: a convolution of stride 1 over images that have every stride-th cell in a channel of its own.

With strides that divide the kernel, tap `s a + b` of a window sees cell `a` of phase `b`: eqs. 2 to 4 are those of `C prod(s)`
channels, `prod(k) / prod(s)` taps and stride 1, whose sums `fold` takes, or of signals `blocks` or `fourier`. The phases
are one copy of the image; after it no copy reads every stride-th cell, and fewer are made, as some axes can be folded. For long
kernels at a stride. Other strides, and channels last, are left to `fold`.
"""

import math
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxconv.convolution import Convolution
from jaxconv.engines import blocks, fold, fourier

IN_TILES = True


def output(convolution: Convolution, input: Array, weight: Array, bias: Array | None = None) -> Array:
    """Eq. 2 of the phases."""
    if not convolution.has_phases:
        return fold.output(convolution, input, weight, bias)
    inner = convolution.of_phases
    return _engine(inner).output(inner, _split_image(convolution, input), _split(convolution, weight), bias)


def input_gradient(convolution: Convolution, weight: Array, cotangent: Array, bias: Array | None = None) -> Array:
    """Eq. 3 and fold of the phases, which are put together."""
    if not convolution.has_phases:
        return fold.input_gradient(convolution, weight, cotangent, bias)
    inner = convolution.of_phases.giving(convolution.accumulate)
    phases = _engine(inner).input_gradient(inner, _split(convolution, weight), cotangent)
    image = _put_together(convolution, phases)
    sides = [(0, 0, 0)] * 2
    for (low, _), cells, size in zip(convolution.window.padding, image.shape[2:], convolution.spatial, strict=True):
        sides.append((-low, size + low - cells, 0))
    return convolution.finished(lax.pad(image, jnp.zeros((), image.dtype), sides), bias)


def weight_gradient(convolution: Convolution, input: Array, cotangent: Array) -> Array:
    """Eq. 4 of the phases, which are put together."""
    if not convolution.has_phases:
        return fold.weight_gradient(convolution, input, cotangent)
    inner = convolution.of_phases
    phases = _engine(inner).weight_gradient(inner, _split_image(convolution, input), cotangent)
    return _put_together(convolution, phases)


def _engine(inner: Convolution) -> Any:
    """Which takes the sums of phases."""
    return fourier if inner.has_frequencies else blocks


def _split_image(convolution: Convolution, image: Array) -> Array:
    """The cells of an image that some window reads, in phases."""
    sides = [(0, 0, 0)] * 2
    for axis, (size, positions) in enumerate(zip(convolution.spatial, convolution.out_spatial, strict=True)):
        low, _ = convolution.window.padding[axis]
        sides.append((low, convolution.window.reach(axis, positions) - low - size, 0))
    return _split(convolution, lax.pad(image, jnp.zeros((), image.dtype), sides))


def _split(convolution: Convolution, array: Array) -> Array:
    """(n, c, *cells) as (n, c and *phases, *cells of a phase); of a weight too."""
    rank, stride = convolution.window.rank, convolution.window.stride
    pairs = [size for cells, step in zip(array.shape[2:], stride, strict=True) for size in (cells // step, step)]
    apart = array.reshape(*array.shape[:2], *pairs)
    apart = jnp.transpose(apart, (0, 1, *range(3, 3 + 2 * rank, 2), *range(2, 2 + 2 * rank, 2)))
    return apart.reshape(array.shape[0], array.shape[1] * math.prod(stride), *apart.shape[2 + rank :])


def _put_together(convolution: Convolution, array: Array) -> Array:
    """The inverse of `_split`."""
    rank, stride = convolution.window.rank, convolution.window.stride
    apart = array.reshape(array.shape[0], -1, *stride, *array.shape[2:])
    order = [at for axis in range(rank) for at in (2 + rank + axis, 2 + axis)]
    apart = jnp.transpose(apart, (0, 1, *order))
    cells = [size * step for size, step in zip(array.shape[2:], stride, strict=True)]
    return apart.reshape(*apart.shape[:2], *cells)
