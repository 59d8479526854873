"""Walking over the positions of an image in tiles that fit into the cache, with zeros outside of the image.

Every tile has all samples; `batches` is where those are taken in parts.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxconv.arguments import varying_alike
from jaxconv.window import Cells, Place, Taps

Start = int | Array
Piece = tuple[Start, int, int]
"""Where a piece of an axis starts, its length, and its stride."""


@dataclass(frozen=True)
class Tiles:
    """Tiles of `shape` positions that cover `sizes` positions, the last one of an axis moved back to end with it."""

    sizes: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Tiles on every axis."""
        return tuple(-(-size // length) for size, length in zip(self.sizes, self.shape, strict=True))

    def walk(
        self,
        step: Callable[[list[Place], Any], Any],
        carry: Any,
        inside: Callable[[int, Place], bool] | None = None,
    ) -> Any:
        """`carry = step(places, carry)` for every tile in turn, in one loop that is compiled once.

        `inside` tells, of an axis and a place on it, whether a tile there sees nothing but the image. Where one axis alone is
        cut, and zeros around the image concern its first and last tile alone, these have a loop of their own.
        """
        counts, whole = self.counts, [Place.known(0, 0)] * len(self.sizes)
        cut_axes = [axis for axis, count in enumerate(counts) if count > 1]
        if not cut_axes:
            return step(whole, carry)
        axis, length, last = cut_axes[0], self.shape[cut_axes[0]], counts[cut_axes[0]] - 1
        # A loop of one turn is none to XLA, which would copy its tile before the other loop, and keep both.
        if len(cut_axes) > 1 or inside is None or last == 2 or not self._ends_differ(axis, inside):
            return lax.fori_loop(0, math.prod(counts), lambda index, carry: step(self._places(index), carry), carry)

        def at(place: Place) -> list[Place]:
            return [place if other == axis else same for other, same in enumerate(whole)]

        def inner(index: Start, carry: Any) -> Any:
            start = index * length
            return step(at(Place(start, length, (last - 1) * length, start)), carry)

        end = self.sizes[axis] - length

        def outer(index: Start, carry: Any) -> Any:
            start = index * end
            return step(at(Place(start, 0, end, index * last * length if end % length else start)), carry)

        carry = lax.fori_loop(0, 2, outer, carry)
        return lax.fori_loop(1, last, inner, carry) if last > 1 else carry

    def _places(self, index: Start) -> list[Place]:
        """Of the tile at `index` in row-major order."""
        places = []
        for turn, count, length, size in zip(
            place(index, self.counts), self.counts, self.shape, self.sizes, strict=True
        ):
            begun = turn * length
            moved = lax.min(begun, size - length) if size % length else begun
            places.append(Place(moved, 0, size - length, begun) if count > 1 else Place.known(0, 0))
        return places

    def _ends_differ(self, axis: int, inside: Callable[[int, Place], bool]) -> bool:
        """Whether zeros around the image, or another tile's positions, concern the first and last tile of an axis alone."""
        length, end = self.shape[axis], self.sizes[axis] - self.shape[axis]
        alike = end % length == 0 and inside(axis, self.anywhere[axis])
        return not alike and inside(axis, Place(0, length, (self.counts[axis] - 2) * length, 0))

    @property
    def anywhere(self) -> list[Place]:
        """A tile that may be anywhere on the axes that are cut."""
        ends = [size - length for size, length in zip(self.sizes, self.shape, strict=True)]
        return [Place(0, 0, end, 0) for end in ends]

    def is_new(self, places: Sequence[Place]) -> Array | None:
        """Which positions of a tile no tile before it has, `shape` of them; None where all are new throughout."""
        new = None
        for axis, at in enumerate(places):
            if at.start is not at.begun and not (isinstance(at.begun, int) and at.start == at.begun):
                position = lax.broadcasted_iota(jnp.int32, self.shape, axis) + at.start
                new = position >= at.begun if new is None else new & (position >= at.begun)
        return new


def tiles(sizes: tuple[int, ...], bytes_a_position: int, budget: int) -> Tiles:
    """Tiles of at most `budget` bytes, or of one position: whole in the last axes, cut in the first ones.

    An axis is cut into equal parts where some number of positions, no less than half of what there is room for, divides it.
    """
    room, shape = max(1, budget // max(1, bytes_a_position)), []
    for size in reversed(sizes):
        most = -(-size // -(-size // min(size, room)))
        shape.append(next((length for length in range(most, most // 2, -1) if size % length == 0), most))
        room = max(1, room // shape[-1])
    return Tiles(sizes, tuple(reversed(shape)))


def tiles_of_terms(sizes: tuple[int, ...], bytes_a_position: int, budget: int) -> Tiles:
    """As `tiles`, of positions that are summed over: where the last tile of an image overlaps another, what is new in it is
    selected, in copies of both factors, so that all are half as large. Those of signals take less than they may as they are."""
    grid = tiles(sizes, bytes_a_position, budget)
    overlap = any(size % length for size, length in zip(sizes, grid.shape, strict=True))
    return tiles(sizes, 2 * bytes_a_position, budget) if overlap and len(sizes) > 1 else grid


def place(index: Start, sizes: Sequence[int]) -> list[Start]:
    """The index on every axis of what is at `index` in row-major order."""
    at: list[Start] = [0] * len(sizes)
    long = [axis for axis, size in enumerate(sizes) if size > 1]
    # The first one has no remainder: every number that is computed by itself is one more thing to compile.
    for axis in reversed(long[1:]):
        size = sizes[axis]
        at[axis] = index % size if isinstance(index, int) else lax.rem(index, size)
        index = index // size if isinstance(index, int) else lax.div(index, size)
    if long:
        at[long[0]] = index
    return at


def cut(image: Array, first_axis: int, cells: Sequence[Cells]) -> Array:
    """The cells of the spatial axes of `image`, zero where they are outside.

    The axes behind the last one that is cut are one run with it, where that makes longer loops (`is_run`).
    """
    left = _those_cut(image, first_axis, cells)
    if not left:
        return image
    axis = first_axis + len(left) - 1
    behind, (start, size, (least, most)) = image.shape[axis + 1 :], left[-1]
    inner, reach = math.prod(behind), max(image.shape[axis], most + size) - min(0, least)
    # An index has 32 bits.
    if not is_run(image, first_axis, cells) or reach * inner >= 2**31:
        return _cut(image, first_axis, left)
    run = (start * inner, size * inner, (least * inner, most * inner))
    part = _cut(image.reshape(*image.shape[:axis], -1), first_axis, [*left[:-1], run])
    return part.reshape(*part.shape[:-1], size, *behind)


def is_run(image: Array, first_axis: int, cells: Sequence[Cells]) -> bool:
    """Whether the last axis of an image that is cut is short, and all of it is taken. LLVM writes a loop of less than some 110
    turns out, a cell at a time, which takes it long and fills no vectors; what is taken as a whole lies as one run."""
    left = _those_cut(image, first_axis, cells)
    return 0 < len(left) < image.ndim - first_axis and image.shape[-1] < LONG_LOOP


def _those_cut(image: Array, first_axis: int, cells: Sequence[Cells]) -> list[Cells]:
    """The cells of the axes up to the last one of which not all are taken."""
    left = list(cells)
    while left and left[-1][1:] == (image.shape[first_axis + len(left) - 1], (0, 0)):
        left.pop()
    return left


def _cut(image: Array, first_axis: int, cells: Sequence[Cells]) -> Array:
    """`cut`, axis by axis."""
    begins: list[Start] = [0] * image.ndim
    into: list[Start] = [0] * image.ndim
    lengths, around = list(image.shape), [(0, 0, 0)] * image.ndim
    room, taken = list(image.shape), [0] * image.ndim
    for axis, (start, size, (least, most)) in enumerate(cells, first_axis):
        whole = image.shape[axis]
        if least == most:
            # Only what is there: XLA would pad the whole of it before it takes some.
            begin, end = min(max(0, least), whole), max(0, min(least + size, whole))
            image = sliced(image, begin, max(begin, end), axis)
            lengths[axis] = image.shape[axis]
            low = min(size, begin - least)
            around[axis] = (low, size - low - lengths[axis], 0)
            room[axis] = size
            continue
        # What there is of the tile goes to its place among zeros, whose number must be known beforehand.
        lengths[axis] = min(size, whole)
        before, behind = max(0, -least), max(0, most + size - whole)
        begins[axis] = lax.clamp(0, start, whole - lengths[axis]) if before or behind else start
        into[axis] = begins[axis] - start + behind if before or behind else 0
        room[axis] = max(before + behind + lengths[axis], behind + size)
        taken[axis] = behind
    part = image
    if lengths != list(image.shape):
        part = _some(image, begins, lengths)
    if any(sides != (0, 0, 0) for sides in around):
        part = lax.pad(part, jnp.zeros((), image.dtype), around)
    if any(not isinstance(place, int) for place in into):
        part = _with(zeros(tuple(room), image.dtype, image), part, into)
    ends = [begin + length for begin, length in zip(taken, room, strict=True)]
    for axis, (_, size, _) in enumerate(cells, first_axis):
        ends[axis] = taken[axis] + size
    return part if ends == list(part.shape) and not any(taken) else lax.slice(part, taken, ends)


def sliced(array: Array, start: int, end: int, axis: int, stride: int = 1) -> Array:
    """`lax.slice_in_dim`; an array of which all is taken as it is, as every operation takes its time to be compiled."""
    whole = (start, end, stride) == (0, array.shape[axis], 1)
    return array if whole else lax.slice_in_dim(array, start, end, stride, axis)


def piece(array: Array, start: Start, length: int, axis: int, stride: int = 1) -> Array:
    """`length` positions of one axis, `stride` apart, from `start` on; a start that is known may be outside, where zeros are."""
    cells = stride * (length - 1) + 1
    if not isinstance(start, int):
        return pieces(array, {axis: (start, length, stride)})
    low, high = -start, start + cells - array.shape[axis]
    if low <= 0 and high <= 0:
        return sliced(array, start, start + cells, axis, stride)
    # What is cut off is negative.
    sides = [(0, 0, 0)] * array.ndim
    sides[axis] = (low, high, 0)
    return sliced(lax.pad(array, jnp.zeros((), array.dtype), sides), 0, cells, axis, stride)


def pieces(array: Array, cells: Mapping[int, Piece]) -> Array:
    """`piece` of several axes at once, all of it inside of the array: one operation, which is fused with what takes it, where to
    take some of what is taken would be a loop of its own if a start is traced."""
    begins: list[Start] = [0] * array.ndim
    steps, lengths = [1] * array.ndim, list(array.shape)
    for axis, (start, length, stride) in cells.items():
        begins[axis], lengths[axis], steps[axis] = start, stride * (length - 1) + 1, stride
    known = [start for start in begins if isinstance(start, int)]
    if len(known) == array.ndim:
        return lax.slice(array, known, [start + length for start, length in zip(known, lengths, strict=True)], steps)
    array = _some(array, begins, lengths)
    return array if max(steps) == 1 else lax.slice(array, [0] * array.ndim, lengths, steps)


def seen_by(array: Array, taps: Taps, tap: Start, length: int, axis: int) -> Array:
    """What one of some taps of an axis sees: `length` positions."""
    return piece(array, taps.at + taps.shift * tap, length, axis, taps.stride)


def put(image: Array, tile: Array, first_axis: int, starts: Sequence[Start]) -> Array:
    """`image` with `tile` in it from `starts` on; where the tile is all of the image, the tile."""
    if image.shape == tile.shape:
        return tile
    begins: list[Start] = [0] * image.ndim
    begins[first_axis : first_axis + len(starts)] = starts
    return _with(image, tile, begins)


def _some(array: Array, begins: Sequence[Start], lengths: Sequence[int]) -> Array:
    """`lax.dynamic_slice`, of what is inside of the array."""
    return lax.dynamic_slice(array, _indices(begins), lengths, allow_negative_indices=False)


def _with(array: Array, part: Array, begins: Sequence[Start]) -> Array:
    """`lax.dynamic_update_slice`, of what is inside of the array."""
    return lax.dynamic_update_slice(array, part, _indices(begins), allow_negative_indices=False)


def _indices(starts: Sequence[Start]) -> list[Any]:
    """Starts as JAX takes them without converting those that are known, a third of the time that it takes to trace a slice."""
    dtype = next((start.dtype for start in starts if not isinstance(start, int)), np.int32)
    return [np.asarray(start, dtype) if isinstance(start, int) else start for start in starts]


def zeros(shape: Sequence[int], dtype: Any, *like: Array) -> Array:
    """Zeros, which inside `jax.shard_map` vary over the mesh axes that the arrays `like` vary over."""
    return varying_alike(jnp.zeros(shape, dtype), *like)[0]  # type: ignore[return-value]


def blank(shape: Sequence[int], dtype: Any, *like: Array) -> Array:
    """`zeros` for a loop to begin with: of short rows as one run for every entry of the first axis, or one of all where these are
    short, too, which is up to three times as fast (measured), and compiles in a third of the time, as for `cut`. But those with
    axes of one entry as they are, for the sake of `moved`."""
    if shape[-1] >= LONG_LOOP or 1 in shape[1:]:
        return zeros(shape, dtype, *like)
    runs = (shape[0], math.prod(shape[1:]))
    runs = runs if runs[1] >= LONG_LOOP else (math.prod(shape),)
    return lax.optimization_barrier(zeros(runs, dtype, *like)).reshape(shape)


def moved(array: Array, order: Sequence[int]) -> Array:
    """`lax.transpose`, of as few axes as can be: none of one entry, as XLA has an order in memory for those, too, and copies all
    where that is another one; and those that stay side by side as one, which compiles in a third of the time."""
    kept = [axis for axis in order if array.shape[axis] != 1]
    among = sorted(kept)
    runs: list[list[int]] = []
    for axis in map(among.index, kept):
        if runs and axis == runs[-1][-1] + 1:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    begun = sorted(runs)
    merged = array.reshape([math.prod(array.shape[among[axis]] for axis in run) for run in begun])
    turned = lax.transpose(merged, [begun.index(run) for run in runs])
    return turned.reshape([array.shape[axis] for axis in order])


def laid_out(array: Array) -> Array:
    """An array whose axes were `moved`, in their order in memory: at the end of a call XLA copies them into another order first,
    and into this one where its result is taken."""
    return lax.optimization_barrier(array.reshape(-1)).reshape(array.shape)


def held(array: Array) -> Callable[[], Array]:
    """An array for a loop to hold, without axes of one entry, for the sake of `moved`; called in the loop, the function
    that is returned restores them."""
    kept = squeezed(array)
    return lambda: kept.reshape(array.shape)


def squeezed(array: Array) -> Array:
    """An array without its axes of one entry."""
    return lax.squeeze(array, [axis for axis, size in enumerate(array.shape) if size == 1])


def each(count: int, step: Callable[[Start, Any], Any], carry: Any) -> Any:
    """`carry = step(index, carry)` for every index; written out where they are few, which runs faster, and else in a loop, which
    compiles faster (measured: 49 taps written out take 2 s)."""
    if not written_out(count):
        return lax.fori_loop(0, count, step, carry)
    for index in range(count):
        carry = step(index, carry)
    return carry


def written_out(count: int) -> bool:
    """Whether `each` writes so many steps out, whose indices are known then."""
    return count <= _WRITTEN_OUT


_WRITTEN_OUT = 12
# LLVM writes a loop of fewer turns out.
LONG_LOOP = 112
