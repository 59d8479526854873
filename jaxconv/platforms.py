"""How a function of an engine runs on the platform that it is compiled for, which need not be the process's own."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxconv.convolution import Convolution

_ACCELERATOR_TILE = 2**28


def by_platform(convolution: Convolution, engine: Any, function: Callable[..., Array], *given: Array | None) -> Array:
    """`function`, one of an engine's, of the convolution, used in the way of the platform that this is compiled for."""
    arrays = [array for array in given if array is not None]
    cells = max(array.size for array in arrays) * convolution.window.taps * math.prod(convolution.window.stride)
    one_tile = cells * jnp.dtype(convolution.accumulate).itemsize <= convolution.tile
    if one_tile and convolution.parts == 1 and not convolution.channels_moved and not convolution.alone:
        # The same on every platform.
        return function(convolution, *arrays)
    for_cpu = replace(convolution, calls=True)
    on_cpu, dtypes = partial(function, for_cpu), {array.dtype for array in arrays}
    if engine.IN_TILES and (convolution.has_half or any(dtype.itemsize == 2 for dtype in dtypes)):
        same = len(dtypes) == 1 and arrays[0].dtype.itemsize == 2
        on_cpu = partial(in_bits if same else _widened, function, for_cpu)
    if convolution.alone:
        on_cpu = partial(for_cpu.as_call, on_cpu)
    elsewhere = partial(function, replace(convolution, tile=_ACCELERATOR_TILE, parts=1, channels_moved=False))
    if convolution.platform:
        return (on_cpu if convolution.platform == "cpu" else elsewhere)(*arrays)
    return lax.platform_dependent(*arrays, cpu=on_cpu, default=elsewhere)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def in_bits(function: Callable[..., Array], convolution: Convolution, *arrays: Array) -> Array:
    """`function` of arrays of one 16-bit dtype, whose tiles are copied as bits: XLA for CPU takes and puts a tile of such numbers
    by converting the whole array to float32 and back, every time.

    Bits have no derivative, so where one is asked for, which is a second one of the convolution, all is done in the accumulator's
    dtype.
    """
    result = function(replace(convolution, bits=arrays[0].dtype), *arrays)
    return lax.bitcast_convert_type(result, convolution.result) if result.dtype == jnp.uint16 else result


@in_bits.defjvp
def _(function: Callable[..., Array], convolution: Convolution, arrays: Any, tangents: Any) -> tuple[Array, Array]:
    return jax.jvp(partial(_widened, function, convolution), arrays, tangents)


def _widened(function: Callable[..., Array], convolution: Convolution, *arrays: Array) -> Array:
    """`function` in the dtype of the accumulator."""
    wide = [array.astype(convolution.accumulate) for array in arrays]
    return function(convolution.giving(convolution.accumulate), *wide).astype(convolution.result)
