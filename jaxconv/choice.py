"""Which engine sums what: one rule, from static shapes, dtype and the platform that the code is compiled for.

| what is asked for | engine | why |
| --- | --- | --- |
| at most 8 channels a group on both sides, 4 for a weight gradient | `taps` | a product has too few rows to share U's cost |
| output, stride 1, half the channels out or fewer; or one spatial axis, no more channels out than in | `fold` | smaller than U |
| input gradient, likewise with in and out exchanged; or any stride above 1 | `fold` | one product for all phases |
| weight gradient, stride 1, half the channels out or fewer | `fold` | the unfolded cotangent is smaller than U |
| everything else | `stream` | U in tiles, one large product each |

The platform sets the size of a tile: what fits into the cache of a CPU, what fills an accelerator.
"""

import importlib
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxconv import engines
from jaxconv.convolution import Convolution

ENGINES = ("auto", *engines.NAMES)

_FEW_CHANNELS, _FEW_FOR_WEIGHTS = 8, 4
_CPU_TILE = 2**23
_ACCELERATOR_TILE = 2**28


def check_engine(engine: Any) -> None:
    if engine not in ENGINES:
        raise ValueError(f"`engine` must be one of {', '.join(map(repr, ENGINES))}, got {engine!r}")


def output(convolution: Convolution, input: Array, weight: Array, bias: Array | None) -> Array:
    """Eq. 2, by the engine that is chosen for it."""
    engine = chosen(convolution, "output", weight.shape, input)
    return _by_platform(_in_tiles(convolution, input, weight.shape), engine.output, input, weight, bias)


def input_gradient(convolution: Convolution, weight: Array, cotangent: Array, bias: Array | None = None) -> Array:
    """Eq. 3 and fold, by the engine that is chosen for it."""
    engine = chosen(convolution, "input_gradient", weight.shape, cotangent)
    convolution = _in_tiles(convolution, cotangent, weight.shape)
    return _by_platform(convolution, engine.input_gradient, weight, cotangent, bias)


def weight_gradient(convolution: Convolution, input: Array, cotangent: Array) -> Array:
    """Eq. 4, by the engine that is chosen for it."""
    in_channels, out_channels = convolution.sizes(input)[2], convolution.sizes(cotangent)[2]
    weight = (out_channels, in_channels // convolution.groups, *convolution.window.kernel)
    engine = chosen(convolution, "weight_gradient", weight, input)
    return _by_platform(_in_tiles(convolution, input, weight), engine.weight_gradient, input, cotangent)


def engine_name(convolution: Convolution, part: str, weight: tuple[int, ...]) -> str:
    """The rule: an engine for `part`, which is "output", "input_gradient" or "weight_gradient", of a weight of that shape."""
    out_channels, in_channels = weight[0] // convolution.groups, weight[1]
    if max(in_channels, out_channels) <= (_FEW_FOR_WEIGHTS if part == "weight_gradient" else _FEW_CHANNELS):
        return "taps"
    strided, line = max(convolution.window.stride) > 1, convolution.window.rank == 1
    if part == "input_gradient" and strided:
        return "fold"
    summed, given = (in_channels, out_channels) if part == "input_gradient" else (out_channels, in_channels)
    few = 2 * summed <= given or (line and summed <= given and part != "weight_gradient")
    return "fold" if few and not strided and convolution.window.taps > 1 else "stream"


def chosen(convolution: Convolution, part: str, weight: tuple[int, ...], image: Array) -> Any:
    """The engine that the caller named, or the rule's. An empty batch has no tiles, and is left to `materialise`."""
    name = engine_name(convolution, part, weight) if convolution.engine == "auto" else convolution.engine
    return importlib.import_module(f"jaxconv.engines.{name if image.size else 'materialise'}")


def _in_tiles(convolution: Convolution, image: Array, weight: tuple[int, ...]) -> Convolution:
    """With a size of tiles for the cache of a CPU.

    One tile of 8 MB where U is hardly larger. Else 4 MB, which stay in the cache with what is made of them; and of U so little
    that all temporaries together are less than a quarter of it.
    """
    cells = image.shape[0] * weight[1] * convolution.groups * math.prod(weight[2:]) * math.prod(convolution.out_spatial)
    u = cells * image.dtype.itemsize
    return replace(convolution, tile=_CPU_TILE if u <= 2 * _CPU_TILE else min(_CPU_TILE // 2, u // 12))


def _by_platform(convolution: Convolution, function: Callable[..., Array], *given: Array | None) -> Array:
    """`function` of the convolution with tiles for the platform that this is compiled for."""
    arrays = [array for array in given if array is not None]
    cells = max(array.size for array in arrays) * convolution.window.taps * math.prod(convolution.window.stride)
    if cells * jnp.dtype(convolution.accumulate).itemsize <= convolution.tile:
        # One tile on every platform.
        return function(convolution, *arrays)
    elsewhere = replace(convolution, tile=_ACCELERATOR_TILE)
    return lax.platform_dependent(*arrays, cpu=partial(function, convolution), default=partial(function, elsewhere))
