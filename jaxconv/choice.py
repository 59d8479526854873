"""Which engine sums what: one rule, from static shapes, dtype and the platform that the code is compiled for.

| what is asked for | engine | why |
| --- | --- | --- |
| depthwise weight gradient of a wide kernel (`_has_wide_kernel`) | `fold` | a product of the taps of two axes |
| at most 16 pairs of channels in and out a group, and few terms to add (`_is_added_up`) | `taps` | too little to multiply |
| a long kernel at a stride that divides it (`_takes_phases`) | `phases` | copies without gaps, and fewer |
| input gradient at a stride; windows side by side may be for `materialise`, below | `fold` | one product for all phases |
| U at most 16 MB and no more than the output (`_is_first_layer`) | `batched` | no image is moved |
| a gradient for every sample, U no more than `fold` copies (`_is_small_sample`) | `batched` | the cotangent is not copied |
| at a stride, channels first, U at most 16 MB and of few rows (`_is_copied_along_rows`) | `batched` | no image is moved |
| others at a stride, channels first, where U has at most 16 MB | `materialise` | U is cheap; whole, both cores copy |
| one tap, stride 1, no padding (`_lies_as_u`) | `batched` | nothing is moved |
| no more is moved when only the first axes are unfolded, and the others, of stride 1, folded | `fold` | K1 + K2 for K1 K2 |
| long rows of few channels, channels first (`_has_long_rows`) | `fold`, all axes unfolded | rows are copied, not channels |
| weight gradient of few channels of one group, where U has at most 16 MB | `materialise` | U is cheap |
| everything else | `stream` | U in tiles, one large product each |

The platform sets the size of a tile: what fits into the cache of a CPU, what fills an accelerator. On a CPU many small samples
are taken in parts of one tile each (`_parts`).
"""

import importlib
import math
import sys
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
from jax import Array, ShapeDtypeStruct

from jaxconv import engines
from jaxconv.batches import number_of_parts
from jaxconv.convolution import Convolution
from jaxconv.engines import batched

ENGINES = ("auto", *engines.NAMES)

_FEW_PRODUCTS = 16
_FEW_TERMS = 16
_FEW_SUMMED = 4
_FEW_STRIDED = 32
_STRIDED_ROWS = {1: 512, 2: 256}
_MANY_TAPS = 64
_TAPS_A_PHASE = 8
_CPU_TILE = 2**23
_SMALL_U = 2 * _CPU_TILE
_LONG_RUN = 64
_FAIR_TILE = 3 * 2**20
_LARGE_TILE = _CPU_TILE // 2
_FOLD_TILE = 6 * 2**20
# Output and gradients of a U of more than this take more than 32 MB together, with the copies that U is made of. XLA would keep
# the temporaries of all at the same time, and the allocator of Linux maps so much memory anew at every call, which takes longer
# than a small convolution.
_ALONE = 19 * 2**19


def check_engine(engine: Any) -> None:
    if engine not in ENGINES:
        raise ValueError(f"`engine` must be one of {', '.join(map(repr, ENGINES))}, got {engine!r}")


def rule(convolution: Convolution, part: str, weight: tuple[int, ...], batch: int) -> tuple[str, int]:
    """An engine for `part`, which is "output", "input_gradient" or "weight_gradient", of a weight of that shape, and how many of
    the first axes `fold` unfolds."""
    window = convolution.window
    out_channels, in_channels = weight[0] // convolution.groups, weight[1]
    unfolded, all_axes = _unfolded(convolution, part, weight, window.rank), window.rank
    fits = _unfolded_cells(convolution, weight, batch) * jnp.dtype(convolution.accumulate).itemsize <= _SMALL_U
    few = in_channels * out_channels <= _FEW_PRODUCTS
    if part == "weight_gradient" and in_channels * out_channels == 1 and _has_wide_kernel(convolution, unfolded):
        return "fold", unfolded
    if few and _is_added_up(convolution, part, weight):
        return "taps", 0
    if _takes_phases(convolution, part, weight, fits):
        return "phases", _unfolded(*_of_phases(convolution, part, weight), window.rank)
    strided_whole = fits and window.taps > 1 and max(window.stride) > 1 and not convolution.channels_last
    if part == "input_gradient" and max(window.stride) > 1 and not (strided_whole and window.disjoint):
        return "fold", 0
    if fits and (_is_first_layer(convolution, weight, batch) or _is_small_sample(convolution, part, weight, unfolded)):
        return "batched", 0
    if strided_whole:
        return "batched" if _is_copied_along_rows(convolution, weight) else "materialise", 0
    plain = window.taps == max(window.stride) == 1 and not any(map(any, window.padding))
    if plain and _lies_as_u(convolution, part, weight, fits):
        return "batched", 0
    if part == "weight_gradient" and window.rank > 1 and unfolded < all_axes:
        # The cotangent's copies have short rows: they must be fewer by a sixth (measured: layers of 1x3x3 and 3x3 taps).
        fewer = 6 * _moved(convolution, part, weight, unfolded) <= 5 * _moved(convolution, part, weight, all_axes)
        if fewer:
            return "fold", unfolded
    elif unfolded < all_axes or _has_long_rows(convolution, part, weight):
        return "fold", unfolded
    small = few and fits and convolution.groups == 1 and part == "weight_gradient"
    return "materialise" if small else "stream", 0


def _is_added_up(convolution: Convolution, part: str, weight: tuple[int, ...]) -> bool:
    """Whether so few products are better added up tap by tap: of several groups, but for a weight gradient of several axes that
    is not depthwise; of one group, where at most four channels are summed (measured: of 16 channels 5 to 10 times slower), at a
    stride 32 terms and in an image's output alone (49 terms twice slower); and of one channel, last, of a signal."""
    window, groups = convolution.window, convolution.groups
    if groups > 1:
        return part != "weight_gradient" or window.rank == 1 or weight[0] * weight[1] == groups
    strided = max(window.stride) > 1
    if part == "output":
        return weight[1] <= _FEW_SUMMED and not (strided and weight[1] * window.taps > _FEW_STRIDED)
    if part == "input_gradient":
        return weight[0] <= _FEW_SUMMED and not (strided and window.rank > 1)
    return convolution.channels_last and window.rank == weight[1] == 1


def _has_wide_kernel(convolution: Convolution, unfolded: int) -> bool:
    """Whether there are more than 64 taps, and at least four a copy when some axes are unfolded and others folded, or eight with
    channels last, which are moved (measured: of 9x9 and 5x5x5 taps a product is faster, of 8x8 and 3x33 slower; there of 21x21
    and 13x13).

    At a stride most of the product would be for nothing, and of 16-bit numbers one in such a shape is slow.
    """
    window = convolution.window
    copies = _moved(convolution, "weight_gradient", (convolution.groups, 1, *window.kernel), unfolded)
    many = window.taps > _MANY_TAPS and window.taps >= (8 if convolution.channels_last else 4) * copies
    return many and max(window.stride) == 1 and jnp.dtype(convolution.result).itemsize > 2


def _is_first_layer(convolution: Convolution, weight: tuple[int, ...], batch: int) -> bool:
    """Whether U is no more than the output, as that of a first layer mostly is; and, of 16-bit numbers, whose products are in
    float32 before they are rounded, whether all of them have at most 16 MB, too."""
    window = convolution.window
    few = math.prod(weight[1:]) <= weight[0] and 1 < window.taps <= batched.MOST_TAPS
    products = 4 * batch * weight[0] * math.prod(convolution.out_spatial)
    fits = jnp.dtype(convolution.result).itemsize > 2 or products <= _SMALL_U
    return few and fits and convolution.groups == max(window.stride) == 1 and not convolution.channels_last


def _is_copied_along_rows(convolution: Convolution, weight: tuple[int, ...]) -> bool:
    """Whether a small U at a stride is faster copied with positions innermost, and multiplied by a copy of the weight for every
    sample: where these are a quarter of U at most, and of so few rows that what is copied every few cells is still in the cache
    (measured: 1.2 to 3 times as fast, and slower of more rows). Windows side by side are a view as they are."""
    window, rows = convolution.window, math.prod(weight[1:])
    few = rows <= _STRIDED_ROWS.get(window.rank, 32) and window.taps <= batched.MOST_TAPS
    return few and not window.disjoint and 4 * weight[0] <= convolution.groups * math.prod(convolution.out_spatial)


def _of_phases(
    convolution: Convolution, part: str, weight: tuple[int, ...]
) -> tuple[Convolution, str, tuple[int, ...]]:
    """What `phases` makes of a convolution and the shape of its weight."""
    inner = convolution.of_phases
    return inner, part, (weight[0], weight[1] * math.prod(convolution.window.stride), *inner.window.kernel)


def _takes_phases(convolution: Convolution, part: str, weight: tuple[int, ...], fits: bool) -> bool:
    """Whether a stride is taken apart: where a quarter less is moved than U has, and of long rows of few channels, which are
    copied without gaps then; of eight taps a phase, so that phases are an eighth of U, or four of a signal whose U is small
    (measured: of four taps a phase images are slower)."""
    window = convolution.window
    phases = math.prod(window.stride)
    least = _TAPS_A_PHASE // 2 if fits and window.rank == 1 else _TAPS_A_PHASE
    if not convolution.has_phases or window.taps < least * phases:
        return False
    inner, _, split = _of_phases(convolution, part, weight)
    moved = weight[1] * phases + _moved(inner, part, split, _unfolded(inner, part, split, window.rank))
    long_rows = window.rank == 1 and _has_long_rows(convolution, part, weight)
    return long_rows or 4 * moved <= 3 * math.prod(weight[1:])


def _is_small_sample(convolution: Convolution, part: str, weight: tuple[int, ...], unfolded: int) -> bool:
    """Whether `jax.vmap` asks for the weight gradient of every sample, and U, the only factor that is copied then, has no more
    rows than `fold` would copy; of several axes, stride 1 and channels first (measured: of signals and strided layers slower)."""
    window = convolution.window
    each = part == "weight_gradient" and convolution.mapped > 1 and not convolution.channels_last
    plain = window.rank > 1 and max(window.stride) == 1 and 1 < window.taps <= batched.MOST_TAPS
    return each and plain and math.prod(weight[1:]) <= _moved(convolution, part, weight, unfolded)


def _lies_as_u(convolution: Convolution, part: str, weight: tuple[int, ...], fits: bool) -> bool:
    """Whether an image is to be multiplied as it is: with channels last of one group, but for the weight gradient of more than 16
    MB, for which XLA would move all positions; with channels first where it has four times as many positions as channels."""
    if convolution.channels_last:
        return convolution.groups == 1 and (part != "weight_gradient" or fits)
    return 4 * max(weight[0] // convolution.groups, weight[1]) <= math.prod(convolution.spatial)


def _unfolded_cells(convolution: Convolution, weight: tuple[int, ...], batch: int) -> int:
    """Entries of U."""
    return batch * convolution.groups * math.prod(weight[1:]) * math.prod(convolution.out_spatial)


def unfolded_bytes(convolution: Convolution, weight: tuple[int, ...], image: Array | ShapeDtypeStruct) -> int:
    """Of U in the dtype of the image, and of all that `jax.vmap` makes beside it."""
    return image.dtype.itemsize * _unfolded_cells(convolution, weight, _samples(convolution, image))


def _samples(convolution: Convolution, image: Array | ShapeDtypeStruct) -> int:
    """In memory at the same time."""
    return convolution.mapped * image.shape[0]


def _has_long_rows(convolution: Convolution, part: str, weight: tuple[int, ...]) -> bool:
    """Whether U is faster copied with positions innermost, where `stream` has the channels: whether a row of positions is eight
    times as long as its channels, times the stride, as what is not neighbouring is read one by one.

    Of several axes only strided ones, and for a weight gradient a product of 64 columns at least (measured: first layers).
    """
    window = convolution.window
    channels, columns = weight[1], math.prod(weight[1:])
    row = convolution.out_spatial[-1]
    if part == "input_gradient":
        channels, row = weight[0] // convolution.groups, convolution.spatial[-1]
    if window.rank > 1 and (max(window.stride) == 1 or (part == "weight_gradient" and columns < 64)):
        return False
    return not convolution.channels_last and 8 * channels * window.stride[-1] <= row


def _moved(convolution: Convolution, part: str, weight: tuple[int, ...], unfolded: int) -> int:
    """Cells a position that are written: a copy a channel and unfolded tap, and a product, or for a weight gradient a copy of
    the cotangent, a folded tap and channel of the other side."""
    kernel, (out_channels, in_channels) = weight[2:], (weight[0] // convolution.groups, weight[1])
    given, other = (out_channels, in_channels) if part == "input_gradient" else (in_channels, out_channels)
    return given * math.prod(kernel[:unfolded]) + other * math.prod(kernel[unfolded:])


def _unfolded(convolution: Convolution, part: str, weight: tuple[int, ...], most: int) -> int:
    """How many of the first axes to unfold, `most` of them at most, and to fold the others: what moves the least memory.

    An axis with a stride is not folded, as most products would be for nothing.
    """
    stride = convolution.window.stride
    if part == "input_gradient" and max(stride) > 1:
        return 0
    least = max((axis + 1 for axis in range(len(stride)) if stride[axis] > 1), default=0)
    return min(range(min(least, most), most + 1), key=lambda unfolded: _moved(convolution, part, weight, unfolded))


def chosen(convolution: Convolution, part: str, weight: tuple[int, ...], image: Array) -> tuple[Any, Convolution]:
    """The engine that the caller named, or the rule's, and how it is used on a CPU. An empty batch has no tiles, and is left
    to `materialise`."""
    if convolution.engine == "auto":
        name, unfolded = rule(convolution, part, weight, _samples(convolution, image))
    else:
        name, unfolded = convolution.engine, _unfolded(convolution, part, weight, convolution.window.rank - 1)
        if name == "phases" and convolution.has_phases:
            unfolded = _unfolded(*_of_phases(convolution, part, weight), convolution.window.rank)
    engine = importlib.import_module(f"jaxconv.engines.{name if image.size else 'materialise'}")
    moved = name == "taps" and convolution.channels_last and _has_many_terms(convolution, part, weight)
    alone = unfolded_bytes(convolution, weight, image) > _ALONE
    convolution = replace(convolution, unfolded=unfolded, channels_moved=moved, alone=alone)
    parts, tile = _parts(convolution, name, part, weight, image)
    return engine, replace(convolution, parts=parts, tile=tile // convolution.mapped)


def _has_many_terms(convolution: Convolution, part: str, weight: tuple[int, ...]) -> bool:
    """Whether a cell of an image is a sum of more than 16 terms. Then `taps` moves the channels of a tile first, so that a weight
    is one number for a whole row (measured: 9 terms slower, 18 faster)."""
    if part == "input_gradient":
        return (
            weight[0] * convolution.window.taps > _FEW_TERMS * math.prod(convolution.window.stride) * convolution.groups
        )
    return weight[1] * convolution.window.taps > _FEW_TERMS


def _tile(convolution: Convolution, name: str, part: str, weight: tuple[int, ...], image: Array) -> int:
    """Bytes of an engine's tile for the cache of a CPU.

    16 MB where U is no larger: often one tile, with nothing to put together; 8 MB of 16-bit numbers, copied fast in tiles
    alone. Else what `_fair_tile` says, and of U so little that all temporaries of forward and backward together, copies of the
    weight among them, are less than a quarter of it. `taps`, which reads its image in one pass, takes it whole, with its sides,
    where that leaves room, about an eighth of U, or a tenth where another engine makes the gradient of the weight; a single tap
    needs no tiles.
    """
    window = convolution.window
    if name == "batched" and window.taps == 1:
        return sys.maxsize
    u = unfolded_bytes(convolution, weight, image)
    sides = (max(sum(pair), window.extent(axis) - 1) for axis, pair in enumerate(window.padding))
    cells = (
        _samples(convolution, image)
        * weight[1]
        * convolution.groups
        * math.prod(size + side for size, side in zip(convolution.spatial, sides, strict=True))
    )
    whole = cells * jnp.dtype(convolution.accumulate).itemsize
    # Beside it there is the other one of forward and backward, and what the weight gradient takes: for `taps`, sums of a row.
    depthwise = weight[1] * weight[0] == convolution.groups or window.rank == 1
    beside = u // convolution.out_spatial[0] if window.rank > 1 and part == "input_gradient" else 0
    fits = 2 * whole + beside <= u // 4 if depthwise else 10 * whole <= u
    whole_images = name == "taps" and part != "weight_gradient" and not convolution.channels_moved
    if whole_images and (u <= _SMALL_U or fits):
        return whole
    if u <= _SMALL_U:
        return _SMALL_U if image.dtype.itemsize > 2 else _CPU_TILE
    wanted = _fair_tile(convolution, name, part, u)
    # Where two copies of the weight are more than the quarter, no tile is small enough to keep it.
    copy = image.dtype.itemsize * math.prod(weight)
    if name == "phases" and convolution.has_phases:
        # They are a copy of the image, which is so much of U.
        room = (u // 4 - u // convolution.of_phases.window.taps) // 2 - copy
    elif name == "fold" and not convolution.channels_last:
        # A tile is all that it takes beside them, where others are copied once more.
        room = 2 * u // 9 - 3 * copy
    else:
        room = u // (18 if name == "taps" else 9) - copy
    return min(wanted, max(u // 36, room) if 8 * copy <= u else u // 12)


def _fair_tile(convolution: Convolution, name: str, part: str, u: int) -> int:
    """Bytes of a tile of a large U: what stays in the cache and is large enough to multiply."""
    if name == "fold" and convolution.unfolded == 0 and part != "weight_gradient":
        # The rows that two tiles share are multiplied twice.
        return min(_CPU_TILE, u // 12)
    if name == "fold" and not convolution.channels_last:
        return min(_FOLD_TILE, max(u // 9, min(_LARGE_TILE, u // 6)))
    return min(_LARGE_TILE, max(u // 18, min(_FAIR_TILE, u // 12)))


def _parts(convolution: Convolution, name: str, part: str, weight: tuple[int, ...], image: Array) -> tuple[int, int]:
    """In how many parts a CPU takes the batch, and the bytes of a tile of each.

    Parts that are one tile each, of 8 MB and no more than a twelfth of a large U, where four samples at least have room in one: a
    tile of the whole batch would be short rows of every sample. Where `fold` has rows as one run, 64 positions are long enough.
    """
    tile = _tile(convolution, name, part, weight, image)
    if name not in ("stream", "fold", "phases"):
        return 1, tile
    batch, size = image.shape[0], jnp.dtype(convolution.accumulate).itemsize * convolution.mapped
    sample = size * _unfolded_cells(convolution, weight, 1)
    u = unfolded_bytes(convolution, weight, image)
    room = _CPU_TILE if u <= _SMALL_U else min(_CPU_TILE, u // 12)
    if name == "phases" and convolution.has_phases:
        name, (convolution, _, weight) = "fold", _of_phases(convolution, part, weight)
    if name == "fold" and not (part == "input_gradient" and max(convolution.window.stride) > 1):
        # What it writes instead of U.
        positions = convolution.spatial if part == "input_gradient" else convolution.out_spatial
        moved = convolution.groups * _moved(convolution, part, weight, convolution.unfolded)
        sample = size * moved * math.prod(positions)
        if convolution.folds_rows and tile >= _LONG_RUN * batch * size * moved:
            return 1, tile
    elif name == "stream":
        sample += size * weight[0] * math.prod(convolution.out_spatial) // 2
    if sample * batch <= tile:
        return 1, tile
    most = room // sample
    count = number_of_parts(batch, max(4, most // 8), most)
    return count, tile if count == 1 else 2 * room
