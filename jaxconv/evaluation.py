"""Eqs. 2, 3 and 4, each by the engine that is chosen for it, on the platform that it is compiled for.

What `jax.vmap` makes of them is one convolution of a larger batch, or a gradient for every sample, some samples at a time; what
several devices make of eq. 4 is a sum for each, added up once.
"""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxconv.batches import DEVICES, image_by_parts, mapped_by_parts, number_of_parts, sum_by_parts
from jaxconv.budget import ACCELERATOR_TILE
from jaxconv.choice import chosen
from jaxconv.convolution import Convolution
from jaxconv.counts import unfolded_bytes
from jaxconv.platforms import on_cpu, with_channels_first
from jaxconv.primitive import ACCELERATOR, CPU, each_by_itself, one_batch, with_rule

# Bytes of images and U that are taken at a time for a gradient for every sample (measured: of twice as many, larger samples take
# more than a quarter of U; of half as many, small ones a sixth more time).
_PART = 7 * 2**19


def _spread(function: Any) -> Any:
    """A function on several devices, each of which has some samples."""

    def on_devices(devices: int, convolution: Convolution, *arrays: Array | None) -> Array:
        return function(replace(convolution, spread=True), *arrays)

    return on_devices


def _chosen_for(
    convolution: Convolution, part: str, weight: tuple[int, ...], image: Array, by_parts: Any, *given: Array | None
) -> Array:
    """`part`, by the engine that is chosen for it on the platform that this is compiled for. Where that is not known, in a
    derivative of a derivative, what is little for a CPU is done in one way on all."""
    arrays = [array for array in given if array is not None]

    def way(platform: str) -> tuple[Callable[..., Array], bool]:
        engine, own = chosen(replace(convolution, platform=platform), part, weight, image)
        function = with_channels_first(by_parts(getattr(engine, part)), part)
        little = platform == ACCELERATOR or _is_one_tile(own, arrays)
        return partial(function, own) if little else on_cpu(own, engine, function, *arrays), little

    function, little = way(convolution.platform or CPU)
    if convolution.platform or little:
        return function(*arrays)
    return lax.platform_dependent(*arrays, cpu=function, default=way(ACCELERATOR)[0])


def _is_one_tile(convolution: Convolution, arrays: Sequence[Array]) -> bool:
    """Whether nothing is left for a CPU to do in a way of its own."""
    if convolution.parts > 1 or convolution.channels_moved or convolution.alone or convolution.has_half:
        return False
    if convolution.tile == sys.maxsize:
        return True
    cells = max(array.size for array in arrays) * convolution.window.taps * math.prod(convolution.window.stride)
    return cells * jnp.dtype(convolution.accumulate).itemsize <= convolution.tile


def _output(convolution: Convolution, input: Array, weight: Array, bias: Array | None) -> Array:
    """Eq. 2, by the engine that is chosen for it."""
    return _chosen_for(convolution, "output", weight.shape, input, partial(image_by_parts, at=0), input, weight, bias)


def _input_gradient(convolution: Convolution, weight: Array, cotangent: Array, bias: Array | None = None) -> Array:
    """Eq. 3 and fold, by the engine that is chosen for it."""
    by_parts = partial(image_by_parts, at=1)
    return _chosen_for(convolution, "input_gradient", weight.shape, cotangent, by_parts, weight, cotangent, bias)


def _on_platform(convolution: Convolution, platform: str) -> Convolution:
    return replace(convolution, platform=platform)


output = with_rule(_output, one_batch(0), _spread(_output), _on_platform)
input_gradient = with_rule(_input_gradient, one_batch(1), _spread(_input_gradient), _on_platform)


def _of_each(convolution: Convolution, input: Array, cotangent: Array) -> Array:
    """Eq. 4 of every sample along the first axis: in parts of those, each with room for tiles of its own."""
    sample, of_sample = (jax.ShapeDtypeStruct(array.shape[1:], array.dtype) for array in (input, cotangent))
    gradient = jax.ShapeDtypeStruct(convolution.weight_shape(sample, of_sample), convolution.result)
    u = unfolded_bytes(convolution, gradient.shape, sample)
    images = (sample.size + of_sample.size) * jnp.dtype(convolution.accumulate).itemsize
    room = ACCELERATOR_TILE if convolution.on_accelerator else _PART
    length = input.shape[0]
    parts = number_of_parts(length, 1, max(DEVICES, room // (u + images))) if isinstance(length, int) else 1
    # A loop over parts is apart as it is; a call in it would be one copy more of what it gives.
    of_part = replace(convolution.times(length // parts), alone=convolution.alone and parts == 1)
    return mapped_by_parts(partial(_weight_gradient, of_part), gradient, parts, input, cotangent)


gradient_of_each = with_rule(_of_each, each_by_itself, on_platform=_on_platform)


def _mapped_gradient(
    call: Any, function: Any, convolution: Convolution, length: int, batched: Any, arrays: Any
) -> Array:
    """The rule of `jax.vmap` for eq. 4: a gradient for every sample where both images have one."""
    if all(batched):
        return gradient_of_each(convolution, *arrays)
    return each_by_itself(call, function, convolution, length, batched, arrays)


def _on_devices(devices: int, convolution: Convolution, input: Array, cotangent: Array) -> Array:
    """Eq. 4 with a sum for every device, which are added up once: of a batch that is spread over devices and summed in a loop,
    XLA would add up every tile's."""
    if input.shape[0] % devices:
        return _weight_gradient(convolution, input, cotangent)
    own = (array.reshape(devices, -1, *array.shape[1:]) for array in (input, cotangent))
    of_each = replace(convolution.giving(convolution.accumulate), spread=True)
    sums = jax.vmap(partial(_weight_gradient, of_each))(*own)
    return sums.sum(axis=0).astype(convolution.result)


def _weight_gradient(convolution: Convolution, input: Array, cotangent: Array) -> Array:
    """Eq. 4, by the engine that is chosen for it."""
    weight = convolution.weight_shape(input, cotangent)
    return _chosen_for(convolution, "weight_gradient", weight, input, sum_by_parts, input, cotangent)


weight_gradient = with_rule(_weight_gradient, _mapped_gradient, _on_devices, _on_platform)
