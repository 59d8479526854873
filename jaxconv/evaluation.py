"""Eqs. 2, 3 and 4, each by the engine that is chosen for it, on the platform that it is compiled for.

What `jax.vmap` makes of them is one convolution of a larger batch, or a gradient for every sample, some samples at a time; what
several devices make of eq. 4 is a sum for each, added up once.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxconv.batches import DEVICES, image_by_parts, mapped_by_parts, number_of_parts, sum_by_parts
from jaxconv.choice import chosen
from jaxconv.convolution import Convolution
from jaxconv.counts import unfolded_bytes
from jaxconv.platforms import by_platform
from jaxconv.primitive import each_by_itself, one_batch, with_rule

# Bytes of images and U that are taken at a time for a gradient for every sample (measured: of twice as many, larger samples take
# more than a quarter of U; of half as many, small ones a sixth more time).
_PART = 7 * 2**19


def _spread(function: Any) -> Any:
    """A function on several devices, each of which has some samples."""

    def on_devices(devices: int, convolution: Convolution, *arrays: Array | None) -> Array:
        return function(replace(convolution, spread=True), *arrays)

    return on_devices


def _output(convolution: Convolution, input: Array, weight: Array, bias: Array | None) -> Array:
    """Eq. 2, by the engine that is chosen for it."""
    engine, convolution = chosen(convolution, "output", weight.shape, input)
    return by_platform(convolution, engine, image_by_parts(engine.output, 0), input, weight, bias)


def _input_gradient(convolution: Convolution, weight: Array, cotangent: Array, bias: Array | None = None) -> Array:
    """Eq. 3 and fold, by the engine that is chosen for it."""
    engine, convolution = chosen(convolution, "input_gradient", weight.shape, cotangent)
    return by_platform(convolution, engine, image_by_parts(engine.input_gradient, 1), weight, cotangent, bias)


def _on_platform(convolution: Convolution, platform: str) -> Convolution:
    return replace(convolution, platform=platform)


output = with_rule(_output, one_batch(0), _spread(_output), _on_platform)
input_gradient = with_rule(_input_gradient, one_batch(1), _spread(_input_gradient), _on_platform)


def _gradient_of_each(
    call: Any, function: Any, convolution: Convolution, length: int, batched: Any, arrays: Any
) -> Array:
    """The rule of `jax.vmap` for eq. 4, a gradient for every sample: in parts of those, each with room for tiles of its own."""
    if not all(batched):
        return each_by_itself(call, function, convolution, length, batched, arrays)
    input, cotangent = (jax.ShapeDtypeStruct(array.shape[1:], array.dtype) for array in arrays)
    u = unfolded_bytes(convolution, _weight_shape(convolution, input, cotangent), input)
    images = (input.size + cotangent.size) * jnp.dtype(convolution.accumulate).itemsize
    parts = number_of_parts(length, 1, max(DEVICES, _PART // (u + images)))
    return mapped_by_parts(partial(function, convolution.times(length // parts)), parts, *arrays)


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
    engine, convolution = chosen(convolution, "weight_gradient", _weight_shape(convolution, input, cotangent), input)
    return by_platform(convolution, engine, sum_by_parts(engine.weight_gradient), input, cotangent)


def _weight_shape(convolution: Convolution, input: Any, cotangent: Any) -> tuple[int, ...]:
    in_channels, out_channels = convolution.sizes(input)[2], convolution.sizes(cotangent)[2]
    return (out_channels, in_channels // convolution.groups, *convolution.window.kernel)


weight_gradient = with_rule(_weight_gradient, _gradient_of_each, _on_devices, _on_platform)
