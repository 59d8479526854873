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
from jaxconv.tiles import Start, Tiles, blank, each, held, moved, piece, written_out
from jaxconv.window import Cells, Place, Taps

# Of a signal. Of an image, copies in a loop take a twentieth longer (measured: a 7x7 stem).
_FEW_COPIES = 6


class Copies:
    """Copies of an image for every tap of some `axes`, of the `taps` of all axes, tile by tile of a `grid`: of what a tile's
    places see of the image, its `cells`.

    With channels first the axes behind those that are copied are one with the last of these, if they are read whole and it has
    no stride: rows are then one long run, which XLA copies faster, and compiles in half the time.
    """

    def __init__(
        self,
        convolution: Convolution,
        image: Array,
        axes: Sequence[int],
        taps: Sequence[Taps],
        grid: Tiles,
        cells: Callable[[list[Place]], Sequence[Cells]],
    ) -> None:
        self._convolution, self._axes, self._taps, self._grid, self._cells = convolution, axes, taps, grid, cells
        self._image, self._behind = image, range(0)
        _, self._spatial, _ = convolution.sizes(image)
        # Mapped by `jax.vmap`, for several devices too, the image would be copied for it, and the rows of a part of a batch be
        # found by division.
        alone = convolution.mapped == convolution.parts == 1 and not convolution.spread
        if axes and alone and not convolution.channels_last and taps[axes[-1]].stride == 1:
            seen, _ = self._seen(grid.anywhere)
            behind = range(axes[-1] + 1, len(taps))
            if all(seen[axis][1:] == (self._spatial[axis], (0, 0)) for axis in behind):
                self._image, self._behind = image.reshape(*image.shape[: 2 + axes[-1]], -1), behind

    def of(self, places: list[Place], room: Array | None) -> tuple[Array, Array | None, Sequence[Taps]]:
        """What every tap sees in a tile, as (g, *k, channels, N, *spatial), or (g, N, *spatial, *k, channels) with channels last;
        the room that it is written into; and all taps as they see it."""
        convolution, dtype = self._convolution, self._image.dtype
        cells, taps = self._seen(places)
        if not self._axes:
            # Of a signal this is one copy too many (measured).
            part = read(convolution, self._image, cells, at_once=convolution.window.rank > 1)
            return convolution.for_sums(convolution.for_copies(part), dtype), None, taps
        runs, *of_runs = self._runs(cells, taps)
        made = partial(self._copied, *of_runs)
        if room is None:
            copied = made(runs, self._image)
        else:
            # A call, as XLA would copy all of it before the last copy is written.
            copied = convolution.as_call_at(made, runs, self._image, room)
            room = copied if copied.shape == room.shape else room
        shape = self._shape(self._axes, cells, taps, self._grid.shape)
        return convolution.for_sums(copied.reshape(shape), dtype), room, taps

    def room(self) -> Array | None:
        """Room for the copies of a tile, which is carried from tile to tile: XLA would fill a new one for each with zeros, and
        copy it once more. None for one tile, and with channels last, where short runs are written faster into what was filled
        just now (measured)."""
        if not self._axes or max(self._grid.counts) == 1 or self._convolution.channels_last:
            return None
        shape = self._shape(self._copied_axes, *self._runs(*self._seen(self._grid.anywhere)))
        return blank(shape, self._image.dtype if self._convolution.bits is None else jnp.uint16, self._image)

    def _shape(
        self, axes: Sequence[int], cells: Sequence[Cells], taps: Sequence[Taps], lengths: Sequence[int]
    ) -> tuple[int, ...]:
        """Of what the taps of some axes see of the cells."""
        groups, (batch, _, channels) = self._convolution.groups, self._convolution.sizes(self._image)
        counts = [taps[axis].count for axis in axes]
        spatial = [lengths[axis] if axis in self._axes else size for axis, (_, size, _) in enumerate(cells)]
        if self._convolution.channels_last:
            return (groups, batch, *spatial, *counts, channels // groups)
        return (groups, *counts, channels // groups, batch, *spatial)

    @property
    def _joined(self) -> bool:
        """Whether XLA joins the copies, on all cores: of a whole image; of a tile it would find out for every entry which copy it
        is in."""
        return self._convolution.parts == max(self._grid.counts) == 1

    def _in_a_loop(self, axis: int) -> bool:
        """Whether the taps of an axis are copied in a loop: it takes the same time, and compiles once."""
        count = self._taps[axis].count
        if self._convolution.copies_in_loops or not written_out(count):
            return True
        return not self._joined and len(self._taps) == 1 and count > _FEW_COPIES

    @property
    def _copied_axes(self) -> Sequence[int]:
        """The axes of more than one tap, or one of them: what a single tap sees is a part of what the others copy."""
        return [axis for axis in self._axes if self._taps[axis].count > 1] or self._axes[:1]

    def _seen(self, places: list[Place]) -> tuple[list[Cells], list[Taps]]:
        """The cells that are read for a tile, and all taps as they see them."""
        counts = [taps.count for taps in self._taps]
        looped = [axis for axis in self._axes if self._in_a_loop(axis)]
        cells, skipped = seen_cells(self._spatial, self._cells(places), counts, looped)
        return cells, list(map(shifted, self._taps, skipped))

    def _runs(
        self, cells: Sequence[Cells], taps: Sequence[Taps]
    ) -> tuple[Sequence[Cells], Sequence[Taps], Sequence[int]]:
        """Cells, taps, and how many positions a tap sees, on every axis of the image that is copied."""
        lengths = self._grid.shape
        if not self._behind:
            return cells, taps, lengths
        last, inner = self._axes[-1], math.prod(cells[axis][1] for axis in self._behind)
        start, size, (least, most) = cells[last]
        run = (start * inner, size * inner, (least * inner, most * inner))
        tap = replace(taps[last], at=taps[last].at * inner, shift=taps[last].shift * inner)
        return [*cells[:last], run], [*taps[:last], tap], [*lengths[:last], lengths[last] * inner]

    def _copied(
        self,
        taps: Sequence[Taps],
        lengths: Sequence[int],
        cells: Sequence[Cells],
        image: Array,
        room: Array | None = None,
    ) -> Array:
        """The copies, an axis after the other from the last to the first: K1 + K2 and not K1 K2 of them."""
        part = read(self._convolution, image, cells)
        dtype = part.dtype
        part = self._convolution.for_copies(part)
        at = 2 + self._convolution.window.rank if self._convolution.channels_last else 1
        first = 2 if self._convolution.channels_last else 3
        copied = self._copied_axes
        for axis in self._axes:
            if axis not in copied:
                part = piece(part, taps[axis].at, lengths[axis], first + axis, taps[axis].stride)
        for made, axis in enumerate(reversed(copied)):
            count, length, last = taps[axis].count, lengths[axis], axis == copied[0]
            spatial_axis = first + axis + (0 if self._convolution.channels_last else made)
            part = part.astype(dtype) if last else part
            whole = held(part)
            seen = partial(_seen_by, whole, taps[axis], length, spatial_axis)
            if self._joined and not self._in_a_loop(axis):
                part = jnp.stack([seen(tap) for tap in range(count)], at)
                continue
            shape = (*part.shape[:spatial_axis], length, *part.shape[spatial_axis + 1 :])
            shape = (*shape[:at], count, *shape[at:])
            into = room if last and room is not None and room.shape == shape else blank(shape, part.dtype, part)
            run = partial(_put_run, whole, taps[axis], length, spatial_axis)
            part = each(count, run if self._behind else partial(_put_copy, seen, at), into, self._in_a_loop(axis))
        return part


def _seen_by(whole: Callable[[], Array], taps: Taps, length: int, axis: int, tap: Start) -> Array:
    """What one tap of an axis sees of a part of an image."""
    return piece(whole(), taps.at + taps.shift * tap, length, axis, taps.stride)


def _put_copy(seen: Callable[[Start], Array], at: int, tap: Start, room: Array) -> Array:
    return lax.dynamic_update_index_in_dim(room, seen(tap), tap, at)


def _put_run(whole: Callable[[], Array], taps: Taps, length: int, axis: int, tap: Start, room: Array) -> Array:
    """What one tap sees of a part of an image, channels first, put into its place in a room. What is known to be outside, which
    is the same for every tile, stays the zeros that a room begins with: XLA would ask for every entry whether it is."""
    part, start, low, high = whole(), taps.at + taps.shift * tap, 0, 0
    if isinstance(start, int):
        low, high = max(0, -start), max(0, start + length - part.shape[axis])
    if low + high >= length:
        return room
    seen = piece(part, start + low, length - low - high, axis)
    begins: list[Start] = [0] * room.ndim
    begins[1], begins[1 + axis] = tap, low
    return lax.dynamic_update_slice(room, seen[:, None], begins)


def seen_cells(
    spatial: Sequence[int], cells: Sequence[Cells], counts: Sequence[int], looped: Sequence[int] = ()
) -> tuple[list[Cells], list[int]]:
    """Which cells of an image of so many are to be read for so many taps on every axis, those of `looped` axes in a loop, and
    how many cells further on than asked for they begin.

    On an axis where they are known, and the taps written out, what is outside is left to each tap.
    """
    cells, skipped = list(cells), [0] * len(cells)
    for axis, count in enumerate(counts):
        _, size, (least, most) = cells[axis]
        if least == most and written_out(count, axis in looped):
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


def shifted(taps: Taps, skipped: int) -> Taps:
    """The same taps of cells that begin so many further on."""
    return replace(taps, at=taps.at - skipped)
