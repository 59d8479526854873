"""Which engine sums what: one rule, from static shapes, dtype and the platform that the code is compiled for.

| what is asked for | engine | why |
| --- | --- | --- |
| depthwise weight gradient of a wide kernel (`has_wide_kernel`) | `fold` | a product of the taps of two axes |
| at most 16 pairs of channels in and out a group, and few terms to add (`is_added_up`) | `taps` | too little to multiply |
| few channels summed or made of long rows, or at a stride (`is_of_few_channels`) | `taps` | U is not written |
| a long kernel at a stride that divides it (`_takes_phases`) | `phases` | copies without gaps, and fewer |
| a long kernel of a signal, where that costs two thirds (`fourier_rule.cells_of_windows`) | `fourier` | a fifth of the products |
| a long kernel of a signal, where that saves a twenty-fifth (`_blocks_that_save`) | `blocks` | b + K / b copies for K |
| gradients with channels last, a weight as large as a small U (`_has_weight_of_u`) | `materialise` | the weight is not moved |
| windows side by side, U at most 16 MB (`_is_view`) | `materialise` | U is a view |
| gradients at a stride, a weight large beside a small U (`_is_beside_large_weight`) | `materialise` | the weight is not moved |
| input gradient at a stride of a signal of many channels out (`_is_wide_signal`) | `batched` | the cotangent is not moved |
| dense input gradient at a stride, few channels out of many (`_is_spread`) | `stream` | a small U of zeros |
| other input gradients at a stride | `fold` | one product for all phases |
| U at most 16 MB, less than a fold writes, of many positions (`is_product_a_sample`) | `batched` | no image is moved |
| a gradient for every sample, U no more than `fold` copies (`is_small_sample`) | `batched` | the cotangent is not copied |
| others at a stride, channels first, where U has at most 16 MB (`_of_small_strided`) | `fold`, mostly | U whole, in few copies |
| others, stride 1, one group, channels first, U at most 16 MB (`_of_small_plain`) | `fold`, mostly | U whole, in few copies |
| input gradient of one tap, few positions of many channels (`_has_large_weight`) | `materialise` | the weight is not moved |
| one tap, stride 1, no padding (`lies_as_u`) | `batched` | nothing is moved |
| no more is moved when only the first axes are unfolded, and the others, of stride 1, folded | `fold` | K1 + K2 for K1 K2 |
| dense weight gradient of images at a stride, channels first, 8 channels in | `stream` | a product of whole images |
| dense signals and images at a stride: few channels out (`cheapest_at_stride`) | `fold` | fewer copies |
| others of these, channels first, but for short rows (`_has_strided_rows`) | `fold`, all axes unfolded | rows are copied |
| long rows of few channels (`_has_long_rows`), channels first | `fold`, all axes unfolded | rows are copied |
| weight gradient of few channels of one group, where U has at most 16 MB | `materialise` | U is cheap |
| everything else | `stream` | U in tiles, one large product each |

That is for a CPU, whose tiles fit into its cache, and which takes many small samples in parts of one tile each
(`jaxconv/budget.py`). An accelerator has a rule of its own (`jaxconv/accelerator_rule.py`).
"""

import importlib
import math
import sys
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxconv import engines
from jaxconv.accelerator_rule import moves_channels, rule_on_accelerator
from jaxconv.batched_rule import (
    is_product_a_sample,
    is_small_sample,
    is_strided_product_a_sample,
    lies_as_u,
)
from jaxconv.budget import ACCELERATOR_TILE, SMALL_U, parts_and_tile
from jaxconv.convolution import Convolution
from jaxconv.counts import (
    cells_moved,
    cheapest_at_stride,
    cheapest_blocks,
    fewest_moved,
    folds_twice_as_much,
    of_phases,
    samples,
    unfolded_bytes,
    unfolded_cells,
)
from jaxconv.engines import materialise
from jaxconv.fourier_rule import cells_of_windows, cheapest_windows
from jaxconv.joins import FUSED
from jaxconv.taps_rule import FEW_PRODUCTS, FEW_TERMS, has_wide_kernel, is_added_up, is_of_few_channels

ENGINES = ("auto", *engines.NAMES)

_FEW_ROWS = 320
_SHORT_RUN = 16
_MANY_STRIDED = 15
_MANY_CHANNELS = 64
_TAPS_A_PHASE = 8
_LONG_RUN = 8
_LONG_KERNEL = 12
_LEFT = 0.96
_WIDE = 4
_FEW_OUT = 8
# Of a U of more than this, forward and each gradient are calls of their own. XLA would keep the copies that U is made of from one
# to the other: in a network it takes those of a weight gradient, which read the input alone, as soon as it has that, and keeps
# them, or in place of an output the products that are added up to it, of all layers, until they come back.
_ALONE = 2**20


def check_engine(engine: Any) -> None:
    if engine not in ENGINES:
        raise ValueError(f"`engine` must be one of {', '.join(map(repr, ENGINES))}, got {engine!r}")


def rule(convolution: Convolution, part: str, weight: tuple[int, ...], batch: int) -> tuple[str, int]:
    """An engine for `part`, which is "output", "input_gradient" or "weight_gradient", of a weight of that shape, and how many of
    the first axes `fold` unfolds, or in how many blocks a signal's kernel is taken."""
    window = convolution.window
    out_channels, in_channels = weight[0] // convolution.groups, weight[1]
    unfolded = fewest_moved(convolution, part, weight, window.rank)
    fits = unfolded_cells(convolution, weight, batch) * jnp.dtype(convolution.accumulate).itemsize <= SMALL_U
    few = in_channels * out_channels <= FEW_PRODUCTS
    if part == "weight_gradient" and in_channels * out_channels == 1 and has_wide_kernel(convolution, unfolded):
        return "fold", unfolded
    if few and is_added_up(convolution, part, weight):
        return "taps", 0
    if is_of_few_channels(convolution, part, weight):
        return "taps", 0
    strided_whole = fits and window.taps > 1 and max(window.stride) > 1 and not convolution.channels_last
    if _takes_phases(convolution, part, weight, fits):
        return "phases", _unfolded_of_phases(convolution, part, weight, batch)
    cells = cells_of_windows(convolution, part, weight, batch)
    if cells is not None:
        return "fourier", cells
    blocks = _blocks_that_save(convolution, part, weight, batch, fits)
    if blocks is not None:
        if 1 < blocks < window.taps:
            return "blocks", blocks
        unfolded = int(blocks == 1)
    if fits and not few and _has_weight_of_u(convolution, part, weight, batch):
        return "materialise", 0
    if fits and _is_view(convolution):
        return "materialise", 0
    if strided_whole and not few and _is_beside_large_weight(convolution, part, weight, batch):
        return "materialise", 0
    if part == "input_gradient" and max(window.stride) > 1:
        if strided_whole and _is_wide_signal(convolution, weight):
            return "batched", 0
        return "stream" if _is_spread(convolution, weight) else "fold", 0
    small_sample = is_small_sample(convolution, part, weight, unfolded)
    if fits and (small_sample or is_product_a_sample(convolution, part, weight, batch)):
        return "batched", 0
    if strided_whole:
        return _of_small_strided(convolution, part, weight)
    if fits and not few and convolution.mapped == 1 and convolution.is_plain and not convolution.has_half:
        return _of_small_plain(convolution, part, weight, batch, unfolded)
    if window.trivial:
        if fits and part == "input_gradient" and _has_large_weight(convolution, weight, batch):
            return "materialise", 0
        if lies_as_u(convolution, part, weight, batch, fits):
            return "batched", 0
    if _is_dense_at_stride(convolution):
        if part == "output" and unfolded == window.rank:
            unfolded = cheapest_at_stride(convolution, weight)
        many = weight[1] >= _LONG_RUN and window.taps >= 2 * math.prod(window.stride)
        if part == "weight_gradient" and unfolded == window.rank > 1 and many:
            return "stream", 0
        if unfolded < window.rank or _has_strided_rows(convolution):
            return "fold", unfolded
    moves_back = convolution.channels_last or window.taps == 1 < window.rank
    if moves_back and part == "weight_gradient" and unfolded < window.rank:
        # The cotangent's copies have short rows: they must be fewer by a sixth (measured: layers of 1x3x3 and 3x3 taps).
        written = [cells_moved(convolution, part, weight, axes) for axes in (unfolded, window.rank)]
        if 6 * written[0] <= 5 * written[1]:
            return "fold", unfolded
    elif unfolded < window.rank or blocks == 1 or _has_long_rows(convolution, part, weight):
        return "fold", unfolded
    small = few and fits and convolution.groups == 1 and part == "weight_gradient"
    return "materialise" if small else "stream", 0


def _of_small_plain(
    convolution: Convolution, part: str, weight: tuple[int, ...], batch: int, unfolded: int
) -> tuple[str, int]:
    """For U of at most 16 MB: `materialise` for a gradient where the weight is large beside it, as that is not moved then; else
    `fold`, whose copies of a whole image both cores make."""
    rank = convolution.window.rank
    if _is_beside_large_weight(convolution, part, weight, batch) and (
        part != "input_gradient" or rank == 1 or unfolded > 0
    ):
        return "materialise", 0
    return "fold", unfolded


def _of_small_strided(convolution: Convolution, part: str, weight: tuple[int, ...]) -> tuple[str, int]:
    """For U of at most 16 MB at a stride, with positions innermost: in a product per sample where these are many, or in `fold`,
    all of whose axes are unfolded (measured on drawn layers: `materialise` takes up to six times as long), or the first one to
    make an image of at most 8 channels (1.1 to 1.9 times as fast); but for 16-bit numbers and a gradient for every sample."""
    window = convolution.window
    plain = convolution.mapped == 1 and not convolution.has_half
    if plain and part == "output" and window.rank == 2 and weight[0] // convolution.groups <= _FEW_OUT:
        return "fold", 1
    if is_strided_product_a_sample(convolution, part, weight):
        return "batched", 0
    return ("fold", window.rank) if plain else ("materialise", 0)


def _is_view(convolution: Convolution) -> bool:
    """Whether U is the image in another order: of windows side by side that see all of it (measured: where cells are left over,
    copies of the others take up to 2.6 times as long as by `fold`)."""
    window, spatial = convolution.window, convolution.spatial
    padded = [size + sum(pair) for size, pair in zip(spatial, window.padding, strict=True)]
    seen = [size * stride for size, stride in zip(convolution.out_spatial, window.stride, strict=True)]
    return window.taps > 1 and window.disjoint and padded == seen


def _takes_phases(convolution: Convolution, part: str, weight: tuple[int, ...], fits: bool) -> bool:
    """Whether a stride is taken apart: where a quarter less is moved than U has, and of long rows of few channels, which are
    copied without gaps then; of eight taps per phase, so that phases are an eighth of U, or four of a signal (measured: of four
    taps per phase images are slower, and take more memory than they may). Not for the weight gradient of a signal whose small U
    has few rows."""
    window, phases = convolution.window, math.prod(convolution.window.stride)
    few_rows = fits and window.rank == 1 and part == "weight_gradient" and math.prod(weight[1:]) <= _FEW_ROWS
    if few_rows and is_strided_product_a_sample(convolution, part, weight):
        return False
    least = _TAPS_A_PHASE // 2 if window.rank == 1 else _TAPS_A_PHASE
    if not convolution.has_phases or window.taps < least * phases:
        return False
    inner, _, split = of_phases(convolution, part, weight)
    moved = weight[1] * phases + cells_moved(inner, part, split, fewest_moved(inner, part, split, window.rank))
    long_rows = window.rank == 1 and _has_long_rows(convolution, part, weight)
    return long_rows or 4 * moved <= 3 * math.prod(weight[1:])


def _blocks_that_save(
    convolution: Convolution, part: str, weight: tuple[int, ...], batch: int, fits: bool
) -> int | None:
    """In how many blocks a signal's kernel is taken, 1 for a copy of every tap and as many as taps for none, where a twenty-fifth
    less is moved and multiplied then than `fold` would (measured on drawn layers: up to 2.8 times as fast); or else None. Not of
    up to eight taps with channels last, whose windows are runs as they are, nor of fewer than 12 for a weight gradient, and not
    for a gradient where the weight is large beside a small U, or for one of every sample."""
    window = convolution.window
    if window.rank > 1 or max(window.stride) > 1 or window.taps == 1 or convolution.mapped > 1:
        return None
    least = _LONG_KERNEL if part == "weight_gradient" else FUSED + 1
    few = convolution.channels_last and window.taps < least
    if few or (fits and _is_beside_large_weight(convolution, part, weight, batch)):
        return None
    return _blocks_of(convolution, part, weight)


def _blocks_of(convolution: Convolution, part: str, weight: tuple[int, ...]) -> int | None:
    count, left = cheapest_blocks(convolution, part, weight)
    return count if left <= _LEFT else None


def _unfolded_of_phases(convolution: Convolution, part: str, weight: tuple[int, ...], batch: int) -> int:
    """How many of the first axes are unfolded of what `phases` makes, or in how many blocks a signal is taken, or in windows of
    how many cells."""
    inner = of_phases(convolution, part, weight)
    cells = cells_of_windows(*inner, batch)
    if cells is not None:
        return cells
    blocks = _blocks_of(*inner) if convolution.window.rank == 1 else None
    if blocks is not None and 1 < blocks < inner[0].window.taps:
        return blocks
    return fewest_moved(*inner, convolution.window.rank)


def _is_beside_large_weight(convolution: Convolution, part: str, weight: tuple[int, ...], batch: int) -> bool:
    """Whether what a gradient moves of a weight is large beside U."""
    moved = {"output": 0, "input_gradient": 2, "weight_gradient": 1}[part] * math.prod(weight)
    return moved >= unfolded_cells(convolution, weight, batch)


def _has_weight_of_u(convolution: Convolution, part: str, weight: tuple[int, ...], batch: int) -> bool:
    """Whether, with channels last, the weight has as many entries as U, for a gradient (measured on drawn layers: 1.1 to 9 times
    as fast, as the weight is not moved; less often where it is smaller)."""
    if part == "output" or convolution.window.taps == 1 or not convolution.groups == convolution.mapped == 1:
        return False
    single = convolution.channels_last and not convolution.has_half
    return single and math.prod(weight) >= unfolded_cells(convolution, weight, batch)


def _has_large_weight(convolution: Convolution, weight: tuple[int, ...], batch: int) -> bool:
    """Whether a weight of one tap and one group has half as many entries as the cotangent, channels first (measured on drawn
    layers: one product that is moved takes a quarter to nine tenths of the time of others, which move the weight)."""
    dense = convolution.groups == convolution.mapped == 1 and not convolution.channels_last
    return dense and 2 * weight[1] >= batch * math.prod(convolution.out_spatial)


def _is_dense_at_stride(convolution: Convolution) -> bool:
    """Whether a signal or an image of one group, not of 16-bit numbers, is convolved at a stride."""
    dense = convolution.groups == 1 and not convolution.has_half
    return dense and convolution.window.rank <= 2 and max(convolution.window.stride) > 1


def _is_spread(convolution: Convolution, weight: tuple[int, ...]) -> bool:
    """Whether the input gradient of such a layer is taken of the cotangent spread with zeros, though it multiplies zeros mostly:
    where few channels come out of 64 or more (measured on drawn layers: up to five times as fast; of 16 and 32 channels
    slower)."""
    many = weight[1] >= _MANY_CHANNELS and _is_dense_at_stride(convolution)
    return many and folds_twice_as_much(convolution, weight)


def _is_wide_signal(convolution: Convolution, weight: tuple[int, ...]) -> bool:
    """Whether a signal has four times as many channels out as U has rows: `batched` does not move them (measured: an input
    gradient at a stride takes a third to nine tenths of the time; of images none of that)."""
    return convolution.window.rank == 1 and _WIDE * math.prod(weight[1:]) <= weight[0] // convolution.groups


def _has_strided_rows(convolution: Convolution) -> bool:
    """Whether all that the taps of such a layer see is to be copied along its rows: channels first, of an image of 15 rows at
    least (measured on drawn layers: up to three times as fast; of fewer rows up to a fifth slower)."""
    if convolution.channels_last:
        return False
    return convolution.window.rank == 1 or convolution.out_spatial[0] >= _MANY_STRIDED


def _has_long_rows(convolution: Convolution, part: str, weight: tuple[int, ...]) -> bool:
    """Whether U is faster copied with positions innermost, where `stream` has the channels: whether a row of positions is eight
    times as long as its channels, times the stride, as what is not neighbouring is read one by one.

    Of a signal at stride 1 every gradient of the input, but neither output nor weight gradient of three times as many channels
    out as in, where those are more than 16 (measured: of fewer, `stream` takes up to twice as long), or very few. Of several
    axes only strided ones, and for a weight gradient a product of 64 columns at least (measured: first layers).
    """
    window = convolution.window
    channels, columns = weight[1], math.prod(weight[1:])
    row = convolution.out_spatial[-1]
    if convolution.channels_last:
        return False
    if window.rank == 1 and convolution.is_plain:
        if part == "input_gradient":
            return True
        many = channels > _SHORT_RUN or weight[0] * channels <= FEW_PRODUCTS
        if weight[0] >= 3 * channels and many:
            return False
    if part == "input_gradient":
        channels, row = weight[0] // convolution.groups, convolution.spatial[-1]
    if window.rank > 1 and (max(window.stride) == 1 or (part == "weight_gradient" and columns < 64)):
        return False
    return 8 * channels * window.stride[-1] <= row


def chosen(convolution: Convolution, part: str, weight: tuple[int, ...], image: Array) -> tuple[Any, Convolution]:
    """The engine that the caller named, or the rule's, and how it is used on the platform, or a CPU where that is not known. An
    empty batch has no tiles, and is left to `materialise`, as is one whose size `jax.export` leaves open."""
    u = unfolded_bytes(convolution, weight, image)
    if not isinstance(u, int):
        return materialise, replace(convolution, alone=False, tile=sys.maxsize)
    if convolution.engine != "auto":
        name, unfolded = convolution.engine, fewest_moved(convolution, part, weight, convolution.window.rank - 1)
        if name == "phases" and convolution.has_phases:
            unfolded = _unfolded_of_phases(convolution, part, weight, samples(convolution, image))
        if name == "fourier":
            unfolded = cheapest_windows(convolution, part, weight, samples(convolution, image))
        if name == "blocks" and convolution.window.rank == max(convolution.window.stride) == 1:
            unfolded = min(max(2, cheapest_blocks(convolution, part, weight)[0]), convolution.window.taps)
    elif convolution.on_accelerator:
        channels_moved = convolution.channels_last and moves_channels(convolution, part, weight)
        convolution = replace(convolution, channels_moved=channels_moved)
        name, unfolded = rule_on_accelerator(convolution.as_engines_see_it, part, weight, u <= ACCELERATOR_TILE)
    else:
        name, unfolded = rule(convolution, part, weight, samples(convolution, image))
    engine = importlib.import_module(f"jaxconv.engines.{name if image.size else 'materialise'}")
    convolution = replace(convolution, unfolded=unfolded)
    if convolution.on_accelerator:
        return engine, replace(convolution, tile=ACCELERATOR_TILE // convolution.mapped)
    channels_moved = convolution.channels_last and _moves_channels(convolution, name, part, weight)
    convolution = replace(convolution, channels_moved=channels_moved, alone=convolution.alone and u > _ALONE)
    parts, tile = parts_and_tile(convolution, name, part, weight, image)
    return engine, replace(convolution, parts=parts, tile=tile // convolution.mapped)


def _moves_channels(convolution: Convolution, name: str, part: str, weight: tuple[int, ...]) -> bool:
    """Whether channels that are last are moved: by `fold` for the weight gradient of a depthwise layer, whose images are little
    beside the copies of its many taps, which are runs then (measured: up to 1.8 times as fast); and by `taps` where a cell of an
    image is a sum of more than 16 terms, so that a weight is one number for a whole row (measured: 9 terms slower, 18 faster)."""
    if name == "fold" and part == "weight_gradient":
        return weight[0] == convolution.groups and weight[1] == 1
    if name != "taps":
        return False
    if part == "input_gradient":
        return (
            weight[0] * convolution.window.taps > FEW_TERMS * math.prod(convolution.window.stride) * convolution.groups
        )
    return weight[1] * convolution.window.taps > FEW_TERMS
