"""What `fold` multiplies: the cells of an image, and copies of them, what every tap of some axes sees.

A tile of eq. 1 on those axes alone, with positions or channels innermost, as the image has them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import jax.numpy as jnp
from jax import Array, lax

from jaxconv.convolution import Convolution
from jaxconv.joins import is_joined, stacked
from jaxconv.periods import cells_of_windows, period, windows
from jaxconv.tiles import Start, held, laid_out, moved, seen_by, written_out
from jaxconv.window import Cells, Taps


def copies(
    convolution: Convolution,
    image: Array,
    axes: Sequence[int],
    taps: Sequence[Taps],
    lengths: Sequence[int],
    cells: Sequence[Cells],
) -> tuple[Array, Sequence[Taps]]:
    """What every tap of some `axes`, of the `taps` of all, sees of the `cells` of an image: `lengths` positions of those axes, as
    (g, channels, *k, N, *spatial), which is the weight's own order, or (g, N, *spatial, *k, channels) with channels last. And all
    taps as they see it."""
    dtype, (batch, spatial, channels) = image.dtype, convolution.sizes(image)
    written = [(is_joined if axis in axes else written_out)(some.count) for axis, some in enumerate(taps)]
    last, cells = len(taps) - 1, list(cells)
    count = _period(convolution, taps[last], lengths[last], channels) if last in axes else None
    if count is not None:
        start, _, bounds = cells[last]
        cells[last], written[last] = (start, cells_of_windows(lengths[last], taps[last].stride, count), bounds), False
    cells, skipped = seen_cells(spatial, cells, written)
    taps = list(map(shifted, taps, skipped))
    if not axes:
        part = read_apart(convolution, image, cells)
        return convolution.for_sums(convolution.for_copies(part), dtype), taps
    # A call, so that all copies are one fused loop, which XLA shares between the cores, and not part of what reads them.
    copied = convolution.as_call_at(partial(_copied, convolution, axes, taps, lengths, count), cells, image)
    counts, inner = [taps[axis].count for axis in axes], channels // convolution.groups
    seen = [lengths[axis] if axis in axes else size for axis, (_, size, _) in enumerate(cells)]
    shape = (batch, *seen, *counts, inner) if convolution.channels_last else (inner, *counts, batch, *seen)
    return convolution.for_sums(copied.reshape(convolution.groups, *shape), dtype), taps


def _copied(
    convolution: Convolution,
    axes: Sequence[int],
    taps: Sequence[Taps],
    lengths: Sequence[int],
    count: int | None,
    cells: Sequence[Cells],
    image: Array,
) -> Array:
    """The copies, an axis after the other from the last to the first: K1 + K2 and not K1 K2 of them.

    With channels first the axes behind those that are copied are one with the last of these, if it has no stride: rows are then
    one long run, which XLA copies faster, and compiles in half the time.
    """
    part = read(convolution, image, cells, at_once=True)
    dtype, last, taps, lengths = part.dtype, axes[-1], list(taps), list(lengths)
    part = convolution.for_copies(part)
    first, at = (2, 2 + convolution.window.rank) if convolution.channels_last else (3, 2)
    if not convolution.channels_last and taps[last].stride == 1:
        inner = math.prod(part.shape[first + last + 1 :])
        part = part.reshape(*part.shape[: first + last], -1)
        taps[last] = replace(taps[last], at=taps[last].at * inner, shift=taps[last].shift * inner)
        lengths[last] *= inner
    if count is not None:
        part = windows(part, first + last, lengths[last], taps[last].count, taps[last].stride, count)
        axes = axes[:-1]
    # Not for what `jax.vmap` maps, nor with channels first at a stride, of which XLA then keeps more at a time.
    plain = convolution.channels_last or max(convolution.window.stride) == 1
    pairs = convolution.mapped == 1 and plain
    for made, axis in enumerate(reversed(axes)):
        spatial_axis = first + axis + (0 if convolution.channels_last else made + 1)
        part = part.astype(dtype) if axis == axes[0] else part
        part = part if is_joined(taps[axis].count) else laid_out(part)
        seen = partial(_seen_by, held(lax.expand_dims(part, [at])), taps[axis], lengths[axis], spatial_axis)
        inside = spatial_axis < part.ndim or taps[axis].are_inside(part.shape[-1], lengths[axis])
        part = stacked(seen, taps[axis].count, at, paired=pairs and inside)
    return part


def _period(convolution: Convolution, taps: Taps, length: int, channels: int) -> int | None:
    """The `period` of what neighbouring taps of the last axis see, where channels are last."""
    if not convolution.channels_last or taps.at or taps.shift != 1:
        return None
    return period(length, taps.count, taps.stride, channels // convolution.groups)


def _seen_by(whole: Callable[[], Array], taps: Taps, length: int, axis: int, tap: Start) -> Array:
    """What one tap of an axis sees of a part of an image."""
    return seen_by(whole(), taps, tap, length, axis)


def seen_cells(
    spatial: Sequence[int], cells: Sequence[Cells], written: Sequence[bool]
) -> tuple[list[Cells], list[int]]:
    """Which cells of an image of so many are to be read for taps on every axis that are `written` out, or in a loop, and how many
    cells further on than asked for they begin.

    On an axis where they are known, and the taps written out, what is outside is left to each tap.
    """
    cells, skipped = list(cells), [0] * len(cells)
    for axis, known in enumerate(written):
        _, size, (least, most) = cells[axis]
        if least == most and known:
            begin = min(max(0, least), spatial[axis] - 1)
            end = max(begin + 1, min(least + size, spatial[axis]))
            cells[axis], skipped[axis] = (begin, end - begin, (begin, begin)), begin - least
    return cells, skipped


def read(convolution: Convolution, image: Array, cells: Sequence[Cells], at_once: bool = False) -> Array:
    """The cells of an image as (g, channels, N, *spatial), or (g, N, *spatial, channels) where those are last."""
    part = convolution.cut(image, cells, at_once)
    batch, spatial, channels = convolution.sizes(part)
    inner, rank = channels // convolution.groups, len(spatial)
    if convolution.channels_last:
        part, order = part.reshape(batch, *spatial, convolution.groups, inner), (1 + rank, *range(1 + rank), 2 + rank)
    else:
        part, order = part.reshape(batch, convolution.groups, inner, *spatial), (1, 2, 0, *range(3, 3 + rank))
    # Of one position, XLA would make what has been `moved` a product of a turned factor, which it has none for of 16-bit numbers.
    return moved(part, order) if inner == 1 else jnp.transpose(part, order)


def read_apart(convolution: Convolution, image: Array, cells: Sequence[Cells]) -> Array:
    """`read`, in a call where whole samples are moved, which XLA would do on one core (measured: up to 1.3 times as fast); what
    lies as it is read would be one copy more, and so would tiles of a signal.

    The call ends in a row per channel and sample: XLA would make one run of all samples of it for a product, and where the row is
    no multiple of a vector's length, find the place of every entry by division (measured: rows of 4001 took 3.5 times as long as
    of 4000)."""
    moves = convolution.sizes(image)[0] > 1 and not convolution.channels_last
    if not (moves and all(isinstance(start, int) for start, _, _ in cells)):
        return read(convolution, image, cells, at_once=convolution.window.rank > 1)
    if convolution.spread:
        # As rows of channels and samples they could not be spread over devices.
        return convolution.as_call(lambda image: lax.optimization_barrier(read(convolution, image, cells)), image)

    def as_rows(image: Array) -> Array:
        part = read(convolution, image, cells)
        return part.reshape(math.prod(part.shape[:3]), -1)

    rows = convolution.as_call(as_rows, image)
    return rows.reshape(convolution.groups, -1, image.shape[0], *(size for _, size, _ in cells))


def shifted(taps: Taps, skipped: int) -> Taps:
    """The same taps of cells that begin so many further on."""
    return replace(taps, at=taps.at - skipped)
