"""Neighbouring windows of an image whose channels are last, copied as long runs of memory.

LLVM writes a loop of less than some 110 turns out, which takes it long and fills no vectors. What a tap sees of one cell is as
long as its channels, and a window as its taps and channels; so windows are copied, a whole period of them at a time.
"""

from collections.abc import Sequence

from jax import Array, lax

from jaxconv.joins import FUSED, MOST_JOINED, is_joined, joined
from jaxconv.tiles import LONG_LOOP, moved, sliced

_FEW_CHANNELS = 4


def period(length: int, kernel: int, stride: int, channels: int) -> int | None:
    """How many neighbouring windows of an axis, at least as many cells as one of them has, are a period of `windows`: a number
    that divides `length`, or one of which a whole number is at most an eighth more. None where there is no such number, or where
    runs are not faster than copies of a tap: short ones are for very few channels alone (measured), as are more copies than are
    joined at once, and than there are taps."""
    few = channels <= _FEW_CHANNELS
    if not few and kernel * channels < LONG_LOOP:
        return None
    most = MOST_JOINED if few else max(FUSED, kernel if is_joined(kernel) else 0)
    counts = range(max(2, -(-kernel // stride)), most + 1)
    divisors = (count for count in counts if count <= FUSED and length % count == 0)
    others = (count for count in counts if 8 * _in_periods(length, count) <= 9 * length)
    return next(divisors, next(others, None))


def _in_periods(length: int, count: int) -> int:
    """`length`, or as many more as make a whole number of periods."""
    return -(-length // count) * count


def cells_of_windows(length: int, stride: int, count: int) -> int:
    """Cells of the axis that `windows` are taken of."""
    return stride * (_in_periods(length, count) + count - 1)


def windows(image: Array, axis: int, length: int, kernel: int, stride: int, count: int) -> Array:
    """What every window of an axis sees of an image whose channels are behind that axis, and last: (..., length, kernel and
    channels), where a window is one run of memory.

    Every `count`-th window, a `period`, lies in a row of an image whose cells are taken `count` strides at a time. So these are
    `count` copies of long runs, whatever the kernel, of an axis that has `cells_of_windows`; windows that are beyond `length`, to
    the end of a period, are cut off.
    """
    periods = [_every(image, axis, first, length, kernel, stride, count) for first in range(count)]
    seen = joined(periods, axis + 1)
    return sliced(seen.reshape(*seen.shape[:axis], -1, seen.shape[-1]), 0, length, axis)


def has_runs_of_rows(lengths: Sequence[int], kernels: Sequence[int], channels: int) -> bool:
    """Whether `windows_of_rows` are faster than copies of every row of a window: where a row is short, but not all rows, and
    there are few `lengths` of the first axis, each of which is a copy."""
    row = kernels[1] * channels
    return row < LONG_LOOP <= kernels[0] * row and lengths[0] <= FUSED


def windows_of_rows(
    image: Array, axis: int, lengths: Sequence[int], kernels: Sequence[int], strides: Sequence[int], count: int
) -> Array:
    """`windows` of an axis and the one behind it: (..., *lengths, kernels and channels).

    First those of the second axis, with what is seen of all rows side by side; of that a window's rows are one run.
    """
    periods = [_every(image, axis + 1, first, lengths[1], kernels[1], strides[1], count) for first in range(count)]
    # Rows behind the positions, as they are copied.
    order = (*range(axis), axis + 1, axis + 2, axis, axis + 3)
    seen = joined([moved(period, order) for period in periods], axis + 1)
    height, row = seen.shape[-2:]
    seen = sliced(seen.reshape(*seen.shape[:axis], -1, height * row), 0, lengths[1], axis)
    step, length = strides[0] * row, kernels[0] * row
    runs = [sliced(seen, step * at, step * at + length, axis + 1) for at in range(lengths[0])]
    return joined([lax.expand_dims(run, [axis]) for run in runs], axis)


def _every(image: Array, axis: int, first: int, length: int, kernel: int, stride: int, count: int) -> Array:
    """Every `count`-th window of an axis from the one at `first` on: (..., periods, 1, kernel and channels)."""
    lead, whole, channels = image.shape[:axis], _in_periods(length, count), image.shape[-1]
    part = sliced(image, first * stride, stride * (first + whole), axis)
    rows = part.reshape(*lead, whole // count, 1, count * stride * channels)
    return sliced(rows, 0, kernel * channels, axis + 2)
