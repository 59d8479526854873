"""How a function of an engine runs on the platform that it is compiled for, which need not be the process's own: in calls and
of bits on a CPU, and on an accelerator with channels first in memory."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxconv.convolution import Convolution
from jaxconv.tiles import laid_out


def on_cpu(
    convolution: Convolution, engine: Any, function: Callable[..., Array], *arrays: Array
) -> Callable[..., Array]:
    """`function`, one of an engine's, of the convolution, in the way of a CPU: in calls, and where it works in tiles of 16-bit
    numbers, of their bits."""
    convolution = replace(convolution, calls=True)
    way, dtypes = partial(function, convolution), {array.dtype for array in arrays}
    if engine.IN_TILES and (convolution.has_half or any(dtype.itemsize == 2 for dtype in dtypes)):
        same = len(dtypes) == 1 and arrays[0].dtype.itemsize == 2
        way = partial(in_bits if same else _widened, function, convolution)
    return partial(convolution.as_call, way) if convolution.alone else way


# Which of what each of an engine's functions is given are images, and not the weight.
IMAGES = {"output": (0,), "input_gradient": (1,), "weight_gradient": (0, 1)}


def with_channels_first(function: Callable[..., Array], part: str) -> Callable[..., Array]:
    """`function`, which computes `part`, as one that moves the channels of images where an accelerator does: in memory, which a
    transposition alone is not for XLA."""

    def moving(convolution: Convolution, *arrays: Array) -> Array:
        inside = convolution.as_engines_see_it
        if inside is convolution:
            return function(convolution, *arrays)
        moved = (
            laid_out(convolution.channels_second(array)) if at in IMAGES[part] else array
            for at, array in enumerate(arrays)
        )
        result = function(inside, *moved)
        return result if part == "weight_gradient" else convolution.as_given(laid_out(result))

    return moving


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
