"""Whether a CPU takes a signal to frequencies, in `fourier`, and in windows of how many cells: part of the rule in `choice`."""

import math
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
from jax import lax

from jaxconv.budget import tile_of_windows
from jaxconv.convolution import Convolution
from jaxconv.counts import channels_of, cost_of_blocks, positions_of
from jaxconv.frequencies import numbers_of_window, outputs_of, products, turns, windows_of

# Cells of a window: powers of two and half as many again. To take more to frequencies is much to multiply, and to compile.
_CELLS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
# A product in a batch of small ones takes longer than one in a large one: so many take as long as a copy.
_ROWS_A_COPY, _BATCHED_ROWS_A_COPY = 64, 40
# All of it takes a third longer than what is counted (measured).
_LEFT = 0.65


def cells_of_windows(convolution: Convolution, part: str, weight: tuple[int, ...], batch: int) -> int | None:
    """Of how many cells windows cost least, where that is a third less than what `blocks` would cost, or else None. Not of 16-bit
    numbers, nor for a gradient for every sample, nor where the highest precision is asked for, as every output of a window is
    rounded as its largest one is."""
    window = convolution.window
    if window.rank > 1 or max(window.stride) > 1 or window.taps == 1 or 2 * window.taps > _CELLS[-1]:
        return None
    if convolution.mapped > 1 or convolution.has_half or _is_highest(convolution.precision):
        return None
    cost, cells = _cheapest(convolution, part, weight, batch)
    return cells if cost <= _LEFT * cost_of_blocks(convolution, part, weight) else None


def cheapest_windows(convolution: Convolution, part: str, weight: tuple[int, ...], batch: int) -> int:
    """Of how many cells windows cost least, of a signal without a stride; of a very long kernel twice as many as taps."""
    if convolution.window.rank > 1 or max(convolution.window.stride) > 1:
        return 0
    if 2 * convolution.window.taps > _CELLS[-1]:
        return 2 * convolution.window.taps
    return _cheapest(convolution, part, weight, batch)[1]


def _is_highest(precision: Any) -> bool:
    """Whether a precision, which may be a name or the algorithm of a product, is the highest."""
    try:
        return lax.Precision(precision) == lax.Precision.HIGHEST
    except ValueError:
        return False


def _cheapest(convolution: Convolution, part: str, weight: tuple[int, ...], batch: int) -> tuple[float, int]:
    tile = tile_of_windows(convolution, weight, batch)
    ways = (replace(convolution, unfolded=cells, tile=tile) for cells in _CELLS if cells > convolution.window.taps)
    return min((_cost(way, part, weight, batch), way.unfolded) for way in ways)


def _cost(convolution: Convolution, part: str, weight: tuple[int, ...], batch: int) -> float:
    """Of a sample in windows of `unfolded` cells, in cells that are copied."""
    cells, (given, made) = convolution.unfolded, channels_of(convolution, part, weight)
    (positions,), count, outputs = positions_of(convolution, part), products(cells), outputs_of(convolution)
    windows = windows_of(convolution, positions)
    pairs, groups, size = given * made, convolution.groups, jnp.dtype(convolution.accumulate).itemsize
    numbers = size * groups * numbers_of_window(convolution, given, made)
    tiles = math.ceil(2 * batch * windows * numbers / convolution.tile)
    times = turns(convolution, groups * (pairs + batch * windows * (given + made) // tiles))
    copied = (
        (cells + count) * given + (outputs + count) * made + (times - 1) * (cells * given / 3 + 1.5 * outputs * made)
    )
    transformed = count * (cells * given + outputs * made) / _ROWS_A_COPY
    multiplied = count * pairs / _BATCHED_ROWS_A_COPY
    # Taken to frequencies, for every tile again if in several turns, and read for every tile.
    to_frequencies = (tiles if times > 1 else 1) * (0.25 + convolution.window.taps / _ROWS_A_COPY)
    return windows * (copied + transformed + multiplied) + count * pairs * (to_frequencies + 0.75 * tiles) / batch
