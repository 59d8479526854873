"""Whether a CPU multiplies an image sample by sample, in `batched`: part of the rule in `choice`."""

import math

from jaxconv.budget import SMALL_U
from jaxconv.convolution import Convolution
from jaxconv.counts import cells_moved
from jaxconv.engines.batched import has_few_taps
from jaxconv.taps_rule import FEW_PRODUCTS

_MANY_POSITIONS = 500
_MORE_POSITIONS = 1500
_FEW_POSITIONS = 16
_SMALL_BLOCK = 2**14
_MANY_ROWS = 192
_MANY_ROWS_A_CHANNEL = 3
# Entries of a factor or of a product, and multiply-adds, that XLA gives to one core: larger products it cuts into columns.
_ONE_CORE = 3 * 2**15
_FEW_TERMS_TO_ADD = 6_600_000
_MANY_TERMS = 56
_COPIED_WEIGHT = 8
_FEW_ROWS_OUT = 40
_MAPPED_ANEW = 2**25


def is_product_a_sample(convolution: Convolution, part: str, weight: tuple[int, ...], batch: int) -> bool:
    """Whether a small U is faster multiplied sample by sample, no image being moved: where it has fewer rows than a fold would
    write, and there are many positions, or of an image at least four times, and channels out twice, as many as rows; or where
    the blocks of a weight gradient are small, of an image of at most 16384 entries (measured: of more up to half as long again).
    But for products on one core of 56 terms or more (measured on drawn layers: up to twice as long as to move an image).

    Of 16-bit numbers, whose products are in float32 before they are rounded, where they have 16 MB at most, and the output no
    fewer channels than U has rows.
    """
    rows, positions, rank = math.prod(weight[1:]), math.prod(convolution.out_spatial), convolution.window.rank
    if not convolution.is_plain or not has_few_taps(convolution.window):
        return False
    products = 4 * batch * weight[0] * positions
    if convolution.has_half and (rows > weight[0] or products > SMALL_U):
        return False
    folding = cells_moved(convolution, "output", weight, rank - 1)
    if part == "weight_gradient":
        few = weight[0] * weight[1] <= FEW_PRODUCTS
        fewer = rows < folding if rank > 1 else 2 * rows <= 3 * folding
        small = rank == 1 or math.prod(weight) <= _SMALL_BLOCK
        return (
            fewer
            and small
            and not few
            and _has_small_blocks(convolution, weight)
            and not _has_many_rows(convolution, weight)
        )
    if rows >= _MANY_TERMS and _is_for_one_core(weight[0], rows, positions):
        return False
    few_rows = rank > 1 and 4 * rows <= positions and 2 * rows <= weight[0]
    many = _MANY_POSITIONS if rows <= weight[0] else _MORE_POSITIONS
    return rows < folding and (few_rows or positions >= many)


def is_strided_product_a_sample(convolution: Convolution, part: str, weight: tuple[int, ...]) -> bool:
    """Whether a small U at a stride, channels first, is multiplied sample by sample: where there are many positions, twice as
    many as channels out, or the blocks of a weight gradient are small; but for products on one core of 56 terms or more."""
    window, rows, positions = convolution.window, math.prod(weight[1:]), math.prod(convolution.out_spatial)
    if not has_few_taps(window):
        return False
    if part == "weight_gradient":
        plain = convolution.mapped == 1 and not convolution.has_half
        return _has_small_blocks(convolution, weight) and not (plain and _has_many_rows(convolution, weight))
    channels = weight[0] // convolution.groups
    if rows >= _MANY_TERMS and _is_for_one_core(channels, rows, positions):
        return False
    many = positions >= (_MANY_POSITIONS if rows >= _MANY_ROWS or 2 * rows <= channels else _MORE_POSITIONS)
    return many and 2 * channels <= positions


def is_small_sample(convolution: Convolution, part: str, weight: tuple[int, ...], unfolded: int) -> bool:
    """Whether `jax.vmap` asks for the weight gradient of every sample, and U, the only factor that is copied then, has no more
    rows than `fold` would copy; of several axes, stride 1 and channels first (measured: of signals and strided layers slower)."""
    window = convolution.window
    each = part == "weight_gradient" and convolution.mapped > 1 and not convolution.channels_last
    plain = window.rank > 1 and max(window.stride) == 1 and window.taps > 1 and has_few_taps(window)
    return each and plain and math.prod(weight[1:]) <= cells_moved(convolution, part, weight, unfolded)


def lies_as_u(convolution: Convolution, part: str, weight: tuple[int, ...], batch: int, fits: bool) -> bool:
    """Whether an image is to be multiplied as it is: with channels last of one group, but for the weight gradient of more than 16
    MB, for which XLA would move all positions; with channels first where there are twice as many positions as channels in
    or out, or, for a weight gradient, four times as many as both, or small blocks.

    But for products of 56 terms or more that are on one core, or of 16-bit numbers that have more than 16 MB before they are
    rounded; for a copy of the weight for every sample that is more than an eighth of a large image; and for more than 32 MB that
    are multiplied, all of which XLA copies, for fewer channels, but more than 40 (measured: up to 2.5 times as long as to move
    the image).
    """
    if convolution.channels_last:
        return convolution.groups == 1 and (part != "weight_gradient" or fits)
    channels, positions = (weight[0] // convolution.groups, weight[1]), math.prod(convolution.spatial)
    if part == "weight_gradient":
        return 4 * max(channels) <= positions or _has_small_blocks(convolution, weight)
    if batch == 1:
        return True
    height, terms = channels if part == "output" else channels[::-1]
    wide = convolution.has_half and 4 * batch * convolution.groups * height * positions > SMALL_U
    if terms >= _MANY_TERMS and (wide or _is_for_one_core(*channels, positions)):
        return False
    if 4 * batch * convolution.groups * terms * positions > _MAPPED_ANEW and _FEW_ROWS_OUT < height < terms:
        return False
    copied = _COPIED_WEIGHT * math.prod(channels) <= positions * sum(channels)
    return 2 * min(channels) <= positions if fits else copied


def _has_many_rows(convolution: Convolution, weight: tuple[int, ...]) -> bool:
    """Whether U has three times as many rows as there are channels out: for one product of all samples a cotangent, which is
    little then, is copied beside it (measured: 1.1 to 1.5 times as fast as blocks of every sample, which are added up)."""
    return math.prod(weight[1:]) >= _MANY_ROWS_A_CHANNEL * weight[0] // convolution.groups


def _is_for_one_core(channels: int, rows: int, positions: int) -> bool:
    """Whether XLA makes the products of all samples on one core, as each is so small: of so many channels out, rows of U, and
    positions."""
    large = max(channels, rows) * positions > _ONE_CORE
    return not large and channels * rows * positions <= _FEW_TERMS_TO_ADD


def _has_small_blocks(convolution: Convolution, weight: tuple[int, ...]) -> bool:
    """Whether the weight gradients of every sample, which are added up, are small, or small beside the positions (measured: of 36
    thousand entries, and 700 positions, slower by a third)."""
    positions, block = math.prod(convolution.out_spatial), math.prod(weight) // convolution.groups
    return positions >= _FEW_POSITIONS and block <= max(_SMALL_BLOCK, 48 * positions)
