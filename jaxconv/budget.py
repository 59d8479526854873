"""How much of a batch and of an image a CPU takes at a time: what fits into its cache, and is large enough to multiply."""

import math
import sys

import jax.numpy as jnp
from jax import Array

from jaxconv.batches import DEVICES, number_of_parts
from jaxconv.convolution import Convolution
from jaxconv.counts import (
    cells_held,
    cells_in_blocks,
    channels_of,
    of_phases,
    positions_of,
    samples,
    unfolded_bytes,
    unfolded_cells,
)
from jaxconv.frequencies import numbers_of_window, windows_of

ACCELERATOR_TILE = 2**30
_CPU_TILE = 2**23
SMALL_U = 2 * _CPU_TILE
_LONG_RUN = 64
_FAIR_TILE = 3 * 2**20
_LARGE_TILE = _CPU_TILE // 2
_FOLD_TILE = 6 * 2**20
_LARGEST_TILE = 10 * 2**20
_WHOLE_IMAGE = 15 * 2**20
_WHOLE_SIGNAL = 20 * 2**20


def parts_and_tile(
    convolution: Convolution, name: str, part: str, weight: tuple[int, ...], image: Array
) -> tuple[int, int]:
    """In how many parts a CPU takes the batch, and the bytes of a tile of each.

    Parts that are one tile each, of 8 MB and no more than a ninth of a large U, where four samples at least have room in one: a
    tile of the whole batch would be short rows of every sample. Where `fold` has rows as one run, 64 positions are long enough.

    Signals, and images at a stride, of a large U are faster whole (measured: up to four times): some samples of 6 MB, or one of
    15 MB, with all that is in memory for them; so are other images where rows of all would be few (`_has_short_rows`).
    """
    if name == "phases" and convolution.has_phases and convolution.of_phases.has_frequencies:
        inner, _, split = of_phases(convolution, part, weight)
        return _parts_of_windows(inner, part, split, image.shape[0])
    if name == "fourier" and convolution.has_frequencies:
        return _parts_of_windows(convolution, part, weight, image.shape[0])
    tile = _tile(convolution, name, part, weight, image)
    if name not in ("stream", "fold", "phases", "blocks"):
        return 1, tile
    batch, size = image.shape[0], jnp.dtype(convolution.accumulate).itemsize * convolution.mapped
    u = unfolded_bytes(convolution, weight, image)
    room = _CPU_TILE if u <= SMALL_U else min(_CPU_TILE, u // 9)
    if name == "phases" and convolution.has_phases:
        name, (convolution, _, weight) = "blocks", of_phases(convolution, part, weight)
    if name == "blocks" and not convolution.has_blocks:
        name = "fold"
    position, sample = (size * cells for cells in _cells_in_place_of_u(convolution, name, part, weight))
    in_tile = tile // (batch * position) if batch * position else sys.maxsize
    runs = name in ("fold", "blocks") and convolution.folds_rows and position > 0
    if sample * batch <= tile or (runs and in_tile >= _LONG_RUN):
        return 1, tile
    if u > SMALL_U and name == "blocks":
        return _parts_of_a_signal(convolution, part, weight, image, sample, tile)
    most = room // sample
    count = number_of_parts(batch, max(4, most // 8), most, _devices(convolution))
    whole_images = _has_whole_images(convolution, name)
    short = not whole_images and count == 1 and _has_short_rows(convolution, name, in_tile)
    if u > SMALL_U and (whole_images or short):
        # With its images, which are cut out of the batch, and a copy of the weight, less than a quarter of U.
        fits = 2 * u // 9 - image.dtype.itemsize * math.prod(weight)
        whole = size * _cells_of_whole(convolution, name, part, weight, sample // size)
        most = max(min(_FOLD_TILE, fits) // whole, int(whole <= min(_WHOLE_IMAGE, fits)))
        room = max(room, most * sample)
        count = number_of_parts(batch, 1, most, _devices(convolution))
    if count == 1 and u > SMALL_U and _is_short_of_rows(convolution, part):
        return number_of_parts(batch, 1, 1, _devices(convolution)), tile
    return count, tile if count == 1 else 2 * room


def _tile(convolution: Convolution, name: str, part: str, weight: tuple[int, ...], image: Array) -> int:
    """Bytes of an engine's tile for the cache of a CPU.

    All of a U of at most 16 MB, but for volumes with channels last, and 16-bit numbers, 8 MB of which are copied fast in tiles
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
        samples(convolution, image)
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
    if whole_images and (u <= SMALL_U or fits):
        return whole
    if u <= SMALL_U:
        if image.dtype.itemsize == 2:
            return _CPU_TILE
        # One tile, with nothing to put together, but of volumes with channels last (measured: up to a quarter slower).
        volume = convolution.channels_last and window.rank > 2 and part != "weight_gradient"
        return SMALL_U if volume else sys.maxsize
    wanted = _fair_tile(convolution, name, part, u)
    copy = image.dtype.itemsize * math.prod(weight)
    if 4 * copy > u and window.rank == 1:
        # A signal's weight alone is more than the quarter, which no tile is small enough to keep then; and each tile reads all of
        # the weight, or of its gradient (measured: small ones take up to 1.6 times as long).
        return min(u // 2, _LARGEST_TILE)
    # Below, where two copies of the weight are more than the quarter, no tile is small enough to keep it.
    if name == "phases" and convolution.has_phases:
        # They are a copy of the image, which is so much of U.
        room = (u // 4 - u // convolution.of_phases.window.taps) // 2 - copy
    elif _is_copied_once(convolution, name):
        # A tile is all that it takes beside them, where others are copied once more; at a stride images are, too, but of an
        # output of all axes unfolded.
        once = max(window.stride) == 1 or (part == "output" and convolution.unfolded == window.rank)
        room = 2 * u // 9 - (1 if once else 3) * copy
    elif _is_strided_gradient(convolution, name, part):
        # Beside the sum, of a tile and what its copies along the first axis are made of.
        room = (u // 5 - copy) * window.kernel[0] // (window.kernel[0] + window.stride[0])
    else:
        share = 9
        if name == "taps":
            share = 6 if part == "weight_gradient" else 18
        elif name == "blocks" and not convolution.channels_last:
            # With less beside a tile than others have; more of it where sums are added up.
            share = 7 if part == "weight_gradient" else 5
        room = u // share - copy
    return min(wanted, max(u // 36, room) if 8 * copy <= u else u // 12)


def _parts_of_a_signal(
    convolution: Convolution, part: str, weight: tuple[int, ...], image: Array, sample: int, tile: int
) -> tuple[int, int]:
    """Of a signal in blocks, whose large U a `sample` has so many bytes in place of: in parts of whole samples, of 6 MB or of a
    single one of up to 20 MB, that are less than a quarter of U with a copy of the weight, or three where sums of parts are added
    up. Longer ones are faster in tiles of all samples, or of one where what the last block sees beyond a tile's end, and is
    multiplied for it alone, would be more than a twelfth of it."""
    window, batch = convolution.window, image.shape[0]
    devices = _devices(convolution)
    copies = 3 if part == "weight_gradient" else 1
    fits = unfolded_bytes(convolution, weight, image) // 4 - copies * image.dtype.itemsize * math.prod(weight)
    size = jnp.dtype(convolution.accumulate).itemsize * convolution.mapped
    whole = size * _cells_of_whole(convolution, "blocks", part, weight, sample // size)
    if whole <= min(fits, _WHOLE_SIGNAL):
        count = number_of_parts(batch, 1, max(1, min(_FOLD_TILE, fits) // whole), devices)
        return count, 2 * (batch // count) * sample
    (positions,) = positions_of(convolution, part)
    beyond = window.dilation[0] * window.block(convolution.unfolded)[1] * (convolution.unfolded - 1)
    if part == "weight_gradient" or tile * positions >= 12 * beyond * sample * batch:
        return 1, tile
    return number_of_parts(batch, 1, 1, devices), max(tile, min(SMALL_U, fits - (whole - sample)))


def tile_of_windows(convolution: Convolution, weight: tuple[int, ...], batch: int) -> int:
    """Bytes for windows and their outputs, and as many for the products that are taken at a time: of a large U so few that all is
    less than a quarter of U, unless the weight alone is more than that."""
    size = jnp.dtype(convolution.accumulate).itemsize
    u, copy = size * unfolded_cells(convolution, weight, batch), size * math.prod(weight)
    if u <= SMALL_U or 4 * copy > u:
        return 2 * SMALL_U
    return min(2 * SMALL_U, max(u // 36, 2 * u // 9 - 2 * copy))


def _parts_of_windows(convolution: Convolution, part: str, weight: tuple[int, ...], batch: int) -> tuple[int, int]:
    """Of a signal in windows: in parts of as many samples as half of a tile has room for, or in tiles of all if that is none."""
    tile, size = tile_of_windows(convolution, weight, batch), jnp.dtype(convolution.accumulate).itemsize
    (given, made), (positions,) = channels_of(convolution, part, weight), positions_of(convolution, part)
    windows = windows_of(convolution, positions) * numbers_of_window(convolution, given, made)
    if size * batch * convolution.groups * windows <= tile // 2:
        return 1, tile
    sample = size * convolution.groups * (windows + given * positions)
    return number_of_parts(batch, 1, tile // (2 * sample), _devices(convolution)), tile


def _is_short_of_rows(convolution: Convolution, part: str) -> bool:
    """Whether the result is a signal of 16-bit numbers with channels first, whose tiles, of all samples, may be put as no rows:
    a copy of one sample's bits is less than one of all."""
    return (
        convolution.has_half
        and convolution.window.rank == 1
        and part != "weight_gradient"
        and not convolution.channels_last
    )


def _devices(convolution: Convolution) -> int:
    """How many devices a part of the batch must have some samples of."""
    return DEVICES if convolution.spread else 1


def _cells_of_whole(convolution: Convolution, name: str, part: str, weight: tuple[int, ...], multiplied: int) -> int:
    """Entries at a time of a sample that is cut out of the batch: its input, and what is `multiplied`, of which `stream` counts
    half of a cotangent or a product; of signals and at a stride with a cotangent, moved before that."""
    given = _cells_of_input(convolution, weight)
    result = weight[0] * math.prod(convolution.out_spatial)
    if part == "output" or not _is_signal_or_strided(convolution):
        return given + multiplied + (result // 2 if name == "stream" else 0)
    return given + max(2 * result, result + multiplied)


def _cells_in_place_of_u(convolution: Convolution, name: str, part: str, weight: tuple[int, ...]) -> tuple[int, int]:
    """What an engine has in memory in place of U: entries of a position, 0 where it is products for a stride, and of a sample."""
    channels, made = channels_of(convolution, part, weight)
    if name == "stream":
        cells = channels * convolution.window.taps + made // 2
    elif name == "blocks":
        cells = cells_in_blocks(convolution.window, convolution.unfolded, channels, made)
    elif name == "fold" and (part != "input_gradient" or max(convolution.window.stride) == 1):
        cells = cells_held(convolution.window, convolution.unfolded, channels, made)
    else:
        return 0, unfolded_cells(convolution, weight, 1)
    cells *= convolution.groups
    return cells, cells * math.prod(positions_of(convolution, part))


def _cells_of_input(convolution: Convolution, weight: tuple[int, ...]) -> int:
    """Entries of a sample of the input, or of its gradient."""
    return convolution.groups * weight[1] * math.prod(convolution.spatial)


def _is_signal_or_strided(convolution: Convolution) -> bool:
    return convolution.window.rank == 1 or max(convolution.window.stride) > 1


def _has_whole_images(convolution: Convolution, name: str) -> bool:
    """Whether whole images of some samples are copied faster than some rows of all: signals, and images at a stride."""
    return _is_signal_or_strided(convolution) and name in ("fold", "stream") and not convolution.channels_last


def _has_short_rows(convolution: Convolution, name: str, in_tile: int) -> bool:
    """Whether a tile of all samples has so short rows of each, of other images, that single ones are faster: where no axis is
    unfolded, whose many products a cell leave room for few rows (measured: 1.1 to 9 times), in `stream` with channels first,
    which moves all of a tile, and where `fold` has no 32 positions of a sample `in_tile`, or 64 of a volume."""
    if convolution.window.rank == 1 or name not in ("fold", "stream"):
        return False
    if name == "fold" and convolution.unfolded == 0:
        return True
    few = in_tile < _LONG_RUN // 2 * (convolution.window.rank - 1)
    return not convolution.channels_last and (name == "stream" or few)


def _is_strided_gradient(convolution: Convolution, name: str, part: str) -> bool:
    """Whether `stream` makes the weight gradient of images at a stride, channels first."""
    images = convolution.window.rank > 1 and not convolution.channels_last
    return name == "stream" and part == "weight_gradient" and images and max(convolution.window.stride) > 1


def _is_copied_once(convolution: Convolution, name: str) -> bool:
    """Whether a tile is all that is in memory for it: of `fold` with channels first, and of signals without a stride."""
    if convolution.channels_last:
        return convolution.window.rank == max(convolution.window.stride) == 1 and name in ("fold", "blocks")
    return name == "fold"


def _fair_tile(convolution: Convolution, name: str, part: str, u: int) -> int:
    """Bytes of a tile of a large U: what stays in the cache and is large enough to multiply."""
    if name == "fold" and convolution.unfolded == 0 and part != "weight_gradient":
        # The rows that two tiles share are multiplied twice.
        return min(_CPU_TILE, u // 12)
    if name == "taps" and part == "weight_gradient":
        # Every tile is a loop's turn of some twenty short steps.
        return _LARGE_TILE
    nearly_once = name == "blocks" and not convolution.channels_last
    if nearly_once or _is_copied_once(convolution, name) or _is_strided_gradient(convolution, name, part):
        return min(_FOLD_TILE, max(u // 9, min(_LARGE_TILE, u // 6)))
    return min(_LARGE_TILE, max(u // 18, min(_FAIR_TILE, u // 12)))
