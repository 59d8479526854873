"""What a convolution copies and multiplies, in cells: what the rule and the sizes of tiles go by."""

import math
from collections.abc import Callable, Iterator

from jax import Array, ShapeDtypeStruct

from jaxconv.convolution import Convolution
from jaxconv.window import Window

_ROWS_A_COPY = 64
_ADDED = 1.5
_WHOLE = 6 / 7


def unfolded_cells(convolution: Convolution, weight: tuple[int, ...], batch: int) -> int:
    """Entries of U."""
    return batch * convolution.groups * math.prod(weight[1:]) * math.prod(convolution.out_spatial)


def unfolded_bytes(convolution: Convolution, weight: tuple[int, ...], image: Array | ShapeDtypeStruct) -> int:
    """Of U in the dtype of the image, and of all that `jax.vmap` makes beside it."""
    return image.dtype.itemsize * unfolded_cells(convolution, weight, samples(convolution, image))


def samples(convolution: Convolution, image: Array | ShapeDtypeStruct) -> int:
    """Samples held in memory at once: the batch times what `jax.vmap` maps."""
    return convolution.mapped * image.shape[0]


def cells_moved(convolution: Convolution, part: str, weight: tuple[int, ...], unfolded: int) -> int:
    """Cells a position that are written: a copy per channel and unfolded tap, and a product, or for a weight gradient a copy of
    the cotangent, a folded tap and channel of the other side."""
    kernel, (given, other) = weight[2:], channels_of(convolution, part, weight)
    return given * math.prod(kernel[:unfolded]) + other * math.prod(kernel[unfolded:])


def cells_held(window: Window, unfolded: int, given: int, other: int) -> int:
    """Cells a position that `fold` has in memory at the same time, for channels of the image that is given and of what is made of
    it: copies and products, as `cells_moved` has them, of all cells of the folded axes; and at a stride half of what copies are
    made of, an axis after the other from the last one on, which is gone when there are products."""
    kernel, stride = window.kernel, window.stride
    made_of = sum(
        math.prod(kernel[axis + 1 : unfolded]) * (math.prod(stride[: axis + 1]) - 1) for axis in range(unfolded)
    )
    copies = math.prod(kernel[:unfolded]) + made_of // 2
    return (given * copies + other * math.prod(kernel[unfolded:])) * math.prod(stride[unfolded:])


def cheapest_at_stride(convolution: Convolution, weight: tuple[int, ...]) -> int:
    """How many of the first axes to unfold for an output at a stride, and to fold the others: on a folded axis there are copies
    and products of every cell, and not of every position alone, but fewer. A product of 64 rows takes as long as a copy, and to
    add products up half as long again as to write them (measured)."""
    window, (given, other) = convolution.window, channels_of(convolution, "output", weight)

    def cost(unfolded: int) -> float:
        if unfolded == window.rank:
            return _WHOLE * _cost_of_u(window, given, other)
        kernel, cells = window.kernel, math.prod(window.stride[unfolded:])
        moved = given * math.prod(kernel[:unfolded]) + _ADDED * other * math.prod(kernel[unfolded:])
        return cells * (moved + other * given * window.taps / _ROWS_A_COPY)

    return min(range(window.rank + 1), key=cost)


def folds_twice_as_much(convolution: Convolution, weight: tuple[int, ...]) -> bool:
    """Whether the products for all taps of an input gradient at a stride cost twice what its U and product do when the cotangent
    is spread with zeros, counted as in `cheapest_at_stride`."""
    window, (given, other) = convolution.window, channels_of(convolution, "input_gradient", weight)
    u = _cost_of_u(window, given, other)
    return 2 * math.prod(window.stride) * u <= _ADDED * other * window.taps


def _cost_of_u(window: Window, given: int, other: int) -> float:
    """What U, its product and what comes out cost a position, in cells that are copied."""
    return given * window.taps + other + given * other * window.taps / _ROWS_A_COPY


def channels_of(convolution: Convolution, part: str, weight: tuple[int, ...]) -> tuple[int, int]:
    """Of a group: of the image that is given, and of what is made of it, or multiplied by it."""
    in_channels, out_channels = weight[1], weight[0] // convolution.groups
    return (out_channels, in_channels) if part == "input_gradient" else (in_channels, out_channels)


def positions_of(convolution: Convolution, part: str) -> tuple[int, ...]:
    """On every axis, of what is summed up: an input gradient has those of the input."""
    return convolution.spatial if part == "input_gradient" else convolution.out_spatial


def fewest_moved(convolution: Convolution, part: str, weight: tuple[int, ...], most: int) -> int:
    """How many of the first axes to unfold, `most` of them at most, and to fold the others: what moves the least memory.

    An axis with a stride is not folded, as most products would be for nothing. The rows of an image with channels first are one
    run where the last axis alone is folded, so that a row per tap of all axes counts twice where it is of U, and a quarter more
    where it is of products (measured).
    """
    window, (given, other) = convolution.window, channels_of(convolution, part, weight)
    if part == "input_gradient" and max(window.stride) > 1:
        return 0
    least = max((axis + 1 for axis, stride in enumerate(window.stride) if stride > 1), default=0)
    rows = min(window.rank, window.taps) > 1 and not convolution.channels_last
    sizes = [_positions_and_cells(convolution, part, axis) for axis in range(window.rank)]

    def moved_in_all(unfolded: int) -> int:
        moved = cells_moved(convolution, part, weight, unfolded)
        if rows and unfolded == window.rank:
            moved += given * window.taps
        if rows and unfolded == 0 and part != "weight_gradient":
            moved += other * window.taps // 4
        # Of a signal what its sides take is not counted: it was measured without.
        seen = (
            cells if axis >= unfolded and window.rank > 1 else positions
            for axis, (positions, cells) in enumerate(sizes)
        )
        return moved * math.prod(seen)

    return min(range(min(least, most), most + 1), key=moved_in_all)


def _positions_and_cells(convolution: Convolution, part: str, axis: int) -> tuple[int, int]:
    """Of one axis: how many positions are summed up, and how many cells of the other image they see; at stride 1 the gradient of
    the input is a convolution of the cotangent."""
    window, size, positions = convolution.window, convolution.spatial[axis], convolution.out_spatial[axis]
    if part == "input_gradient":
        return size, min(size + window.extent(axis) - 1, positions)
    return positions, min(window.reach(axis, positions), size)


def of_phases(convolution: Convolution, part: str, weight: tuple[int, ...]) -> tuple[Convolution, str, tuple[int, ...]]:
    """What `phases` makes of a convolution and the shape of its weight."""
    inner = convolution.of_phases
    return inner, part, (weight[0], weight[1] * math.prod(convolution.window.stride), *inner.window.kernel)


def cells_in_blocks(window: Window, count: int, given: int, other: int) -> int:
    """Cells a position that `blocks` has in memory at the same time, for so many blocks, channels of the image that is given and
    of what is made of it: copies, and products or copies of the cotangent."""
    return given * window.block(count)[0] + other * count


def cheapest_blocks(convolution: Convolution, part: str, weight: tuple[int, ...]) -> tuple[int, float]:
    """In how many blocks the least of a signal's kernel is moved and multiplied, and how much of what `fold` would have, whose
    axis is unfolded or not, whichever moves less."""
    cost = _cost_of_blocks(convolution, part, weight)
    count = min(_counts_of_blocks(convolution.window), key=cost)
    of_fold = 1 if fewest_moved(convolution, part, weight, 1) else convolution.window.taps
    return count, cost(count) / cost(of_fold)


def cost_of_blocks(convolution: Convolution, part: str, weight: tuple[int, ...]) -> float:
    """What a sample costs, in cells that are copied, in as many blocks of a signal's kernel as are cheapest."""
    return min(map(_cost_of_blocks(convolution, part, weight), _counts_of_blocks(convolution.window)))


def _counts_of_blocks(window: Window) -> Iterator[int]:
    return filter(window.has_blocks, range(1, window.taps + 1))


def _cost_of_blocks(convolution: Convolution, part: str, weight: tuple[int, ...]) -> Callable[[int], float]:
    """The same, of so many blocks, counted as in `cheapest_at_stride`."""
    window, (given, other) = convolution.window, channels_of(convolution, part, weight)
    seen_by = convolution if part != "input_gradient" else convolution.turned(convolution.out_spatial)
    added = 1 if part == "weight_gradient" else _ADDED

    def cost(count: int) -> float:
        taps, _ = window.block(count)
        written = other if count == 1 else added * other * count
        first, end = seen_by.window.seen_by_blocks(count, *seen_by.spatial)
        return (end - first) * (given * taps + written + given * other * taps * count / _ROWS_A_COPY)

    return cost
