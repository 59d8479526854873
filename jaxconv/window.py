"""Index arithmetic of a sliding window, in plain integers.

A window reads, for output position `l` and kernel position (tap) `k` of one axis, the input position

    stride * l + dilation * k - low        (zero where that falls outside the input)

which is the unfolding written out. Nothing here touches an array, so every size is known
and every mistake is reported before JAX begins to trace.
"""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Padding = int | str | Sequence[int] | Sequence[Sequence[int]]
Cells = tuple[Any, int, tuple[int, int]]
"""Neighbouring cells of one axis: the first, which may be traced, how many, and the least and the most that the first can be."""


@dataclass(frozen=True)
class Place:
    """Where a tile is on one axis: its first position `start`, which is from `least` to `most`, and `begun`, the first position
    that no tile before it has. One that is known is the same number three times."""

    start: Any
    least: int
    most: int
    begun: Any

    @classmethod
    def known(cls, start: int, begun: int) -> "Place":
        """A place that is known when this is traced."""
        return cls(start, start, start, begun)

    def cells(self, positions: int) -> Cells:
        """So many positions from here on, as cells of an array that has one cell a position."""
        return self.start, positions, (self.least, self.most)


@dataclass(frozen=True)
class Window:
    """Kernel size, stride, padding `(low, high)` and dilation of every spatial axis: static and hashable."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def taps(self) -> int:
        """Number of kernel positions, all axes together."""
        return math.prod(self.kernel)

    @property
    def disjoint(self) -> bool:
        """Whether windows lie side by side, no cell in two of them and none between them."""
        return self.kernel == self.stride and max(self.dilation) == 1

    @property
    def trivial(self) -> bool:
        """Whether U has the entries of the input, and no others: of one tap, without stride and padding."""
        return self.taps == max(self.stride) == 1 and not any(map(any, self.padding))

    def block(self, count: int) -> tuple[int, int]:
        """How many neighbouring taps each of so many blocks of a signal's kernel has, and how many taps further on the next one
        begins. No block has a tap that the kernel has not, as that would multiply what no window sees, perhaps an infinity: where
        the kernel has no such number of equal parts, neighbouring blocks share some taps."""
        step = self.taps // count
        return self.taps - step * (count - 1), step

    def has_blocks(self, count: int) -> bool:
        """Whether no tap is in more than two of so many blocks."""
        taps, step = self.block(count)
        return taps <= 2 * step

    def seen_by_blocks(self, count: int, size: int) -> tuple[int, int]:
        """The first position, and the one behind the last, where the first of so many blocks of a signal's kernel sees a cell of
        an input of that size, for all positions where another block does: the others see nothing but zeros around it."""
        (low, _), (taps, step), dilation = self.padding[0], self.block(count), self.dilation[0]
        (positions,) = self.output_size((size,))
        end = positions + dilation * step * (count - 1)
        first = min(max(0, low - dilation * (taps - 1)), end - 1)
        return first, max(first + 1, min(end, size + low))

    def extent(self, axis: int) -> int:
        """Input cells from the first tap to the last, both included."""
        return self.dilation[axis] * (self.kernel[axis] - 1) + 1

    def reach(self, axis: int, positions: int) -> int:
        """Input cells from the first to the last that so many neighbouring output positions read, both included."""
        return self.stride[axis] * (positions - 1) + self.extent(axis)

    def cells(self, axis: int, place: Place, positions: int) -> Cells:
        """What so many neighbouring output positions read of an input."""
        stride, (low, _) = self.stride[axis], self.padding[axis]
        bounds = place.least * stride - low, place.most * stride - low
        return place.start * stride - low, self.reach(axis, positions), bounds

    def backward_cells(self, axis: int, place: Place, positions: int) -> Cells:
        """What so many neighbouring blocks of `stride` input positions read of a cotangent."""
        near, far = backward_reach(self, axis)
        return place.start + near, positions + far - near, (place.least + near, place.most + near)

    def output_size(self, spatial: Sequence[int], argument: str = "input") -> tuple[int, ...]:
        """Output positions on every axis of an input of `spatial` size.

        Raises:
            ValueError: where the window does not fit into the padded input, naming `argument` and the axis.
        """
        sizes = []
        for axis, size in enumerate(spatial):
            low, high = self.padding[axis]
            room = low + size + high - self.extent(axis)
            if room < 0:
                raise ValueError(
                    f"`{argument}` is too small for the kernel on spatial axis {axis}: expected at least "
                    f"{self.extent(axis)} cells (kernel size {self.kernel[axis]}, dilation {self.dilation[axis]}), "
                    f"got {low + size + high} (size {size}, padding {(low, high)})"
                )
            sizes.append(room // self.stride[axis] + 1)
        return tuple(sizes)


@dataclass(frozen=True)
class Taps:
    """Some taps of one axis, evenly spaced, and what each reads of an array: every `stride`-th position, `at` on for the first
    tap and `shift` further for every other."""

    count: int
    first: int
    step: int
    at: int
    shift: int
    stride: int

    def are_inside(self, size: int, length: int) -> bool:
        """Whether `length` positions of every tap are in an array of such a size."""
        ends = self.at, self.at + self.shift * (self.count - 1)
        return min(ends) >= 0 and max(ends) + self.stride * (length - 1) < size


def forward_taps(window: Window, axis: int) -> Taps:
    """All taps, reading an input that is cut to the cells of a tile of output positions."""
    return Taps(window.kernel[axis], 0, 1, 0, window.dilation[axis], window.stride[axis])


def backward_reach(window: Window, axis: int) -> tuple[int, int]:
    """The nearest and the farthest output position that reads an input position, for input positions taken in blocks of
    `stride`: block j is read by outputs from j + nearest to j + farthest."""
    stride, (low, _) = window.stride[axis], window.padding[axis]
    return -((window.extent(axis) - 1 - low) // stride), (stride - 1 + low) // stride


def backward_taps(window: Window, axis: int, phase: int) -> Taps:
    """The taps through which input positions `stride * j + phase` are read, reading a cotangent that is cut to the
    output positions from block + nearest on (`backward_reach`).

    Output `l` reads such a position through tap `k` where `stride * l + dilation * k - low = stride * j + phase`.
    """
    stride, dilation, (low, _) = window.stride[axis], window.dilation[axis], window.padding[axis]
    taps = [tap for tap in range(window.kernel[axis]) if (phase + low - dilation * tap) % stride == 0]
    if not taps:
        return Taps(0, 0, 1, 0, 0, 1)
    step = taps[1] - taps[0] if len(taps) > 1 else 1
    at = (phase + low - dilation * taps[0]) // stride - backward_reach(window, axis)[0]
    return Taps(len(taps), taps[0], step, at, -(dilation * step // stride), 1)


# An array axis beyond this has no index in XLA, and neither has a step to anywhere in it.
_LARGEST = 2**31 - 1


def integer(argument: str, value: Any, minimum: int) -> int:
    """`value` as a plain int that is at least `minimum`, or an error that names `argument`."""
    if isinstance(value, bool):
        raise TypeError(f"`{argument}` must be made of integers, got {value!r}")
    try:
        number = operator.index(value)
    except Exception as error:  # a traced value refuses with an error of JAX's own
        raise TypeError(f"`{argument}` must be made of integers that are known at trace time, got {value!r}") from error
    if not minimum <= number <= _LARGEST:
        bound = f"at least {minimum}" if number < minimum else f"at most {_LARGEST}"
        raise ValueError(f"`{argument}` must be {bound}, got {number}")
    return number


def is_sequence(value: Any) -> bool:
    """Whether `value` lists one entry per axis (a list, a tuple, an array of at least one axis)."""
    return not isinstance(value, (str, bytes)) and (isinstance(value, Sequence) or getattr(value, "ndim", 0) > 0)


def per_axis(argument: str, value: Any, rank: int, minimum: int) -> tuple[int, ...]:
    """One integer an axis, from one for all of them (also written as a sequence of one) or a sequence with one each."""
    if not is_sequence(value):
        return (integer(argument, value, minimum),) * rank
    entries = tuple(integer(argument, entry, minimum) for entry in value)
    if len(entries) == 1:
        return entries * rank
    if len(entries) != rank:
        raise ValueError(
            f"`{argument}` must be an integer or have one entry for each of the {rank} spatial axes, "
            f"got {len(entries)} entries: {tuple(value)}"
        )
    return entries


def padding_pairs(
    padding: Padding, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    """The cells of zeros `(low, high)` on every axis that `padding` stands for.

    `padding` is an int for all axes, one int per axis, one `(low, high)` pair per axis, `"valid"` (none), or `"same"`:
    as many as keep the size at stride 1, the odd one on the high side, as in torch.
    """
    rank = len(kernel)
    if isinstance(padding, str):
        if padding == "valid":
            return ((0, 0),) * rank
        if padding != "same":
            raise ValueError(f'`padding` as a string must be "valid" or "same", got {padding!r}')
        if any(step != 1 for step in stride):
            raise ValueError(f'`padding="same"` needs stride 1 on every axis, got stride={stride}')
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple((cells // 2, cells - cells // 2) for cells in total)
    if is_sequence(padding) and any(is_sequence(entry) for entry in padding):  # type: ignore[union-attr]
        entries = tuple(padding)  # type: ignore[arg-type]
        if len(entries) != rank or any(not is_sequence(entry) or len(entry) != 2 for entry in entries):
            raise ValueError(
                f"`padding` as pairs must be one (low, high) for each of the {rank} spatial axes, got {padding!r}"
            )
        return tuple((integer("padding", low, 0), integer("padding", high, 0)) for low, high in entries)
    return tuple((cells, cells) for cells in per_axis("padding", padding, rank, 0))


def make_window(kernel_size: Any, stride: Any, padding: Padding, dilation: Any, rank: int) -> Window:
    """A window of `rank` axes from arguments as a caller writes them.

    Raises:
        TypeError: an entry is not an integer.
        ValueError: a kernel size, stride or dilation below 1, a negative padding, a wrong number of entries.
    """
    kernel = per_axis("kernel_size", kernel_size, rank, 1)
    strides = per_axis("stride", stride, rank, 1)
    dilations = per_axis("dilation", dilation, rank, 1)
    return Window(kernel, strides, padding_pairs(padding, kernel, strides, dilations), dilations)


def agreed_rank(default: int, **arguments: Any) -> int:
    """Number of spatial axes that the sequences among `arguments` agree on; `default` where all are single ints."""
    lengths = {name: len(value) for name, value in arguments.items() if is_sequence(value)}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(f"the arguments must agree on the number of spatial axes: {told}")
    rank = next(iter(lengths.values()), default)
    if rank < 1:
        raise ValueError(f"`{next(iter(lengths))}` must have at least one entry, got none")
    return rank
