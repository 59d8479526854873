"""Parts of an array, as copies side by side: what neighbouring taps see, and the phases of a stride.

How XLA for CPU copies them is most of the time that many layers take beside their products, and much of what they take to
compile.
"""

from collections.abc import Callable, Sequence

from jax import Array, lax

from jaxconv.tiles import Start, blank, put


def interleaved(phases: Sequence[Array], axis: int) -> Array:
    """One position of every phase in turn along `axis`."""
    if len(phases) == 1:
        return phases[0]
    together = joined([lax.expand_dims(phase, [axis + 1]) for phase in phases], axis + 1)
    return together.reshape(*together.shape[:axis], -1, *together.shape[axis + 2 :])


def joined(parts: Sequence[Array], axis: int, paired: bool = True) -> Array:
    """`lax.concatenate`, as one fused loop, which XLA shares between the cores: it fuses the joining of at most eight arrays, and
    would take what joins some that are joined for the joining of all. Parts are copied `in_pairs`, if `paired`."""
    size = sum(part.shape[axis] for part in parts)
    shape = (*parts[0].shape[:axis], size, *parts[0].shape[axis + 1 :])
    parts = [in_pairs(part, axis) for part in parts] if paired else parts
    while len(parts) > FUSED:
        groups = [parts[first : first + FUSED] for first in range(0, len(parts), FUSED)]
        parts = [lax.optimization_barrier(lax.concatenate(group, axis)) for group in groups]
    return lax.concatenate(parts, axis).reshape(shape)


def stacked(seen: Callable[[Start], Array], count: int, axis: int, paired: bool = True) -> Array:
    """`seen` of every index, which has one entry along an `axis`, `joined` there; of many, which would take long to compile, in a
    loop, on one core, and not in pairs, all of which XLA would copy once more."""
    if is_joined(count):
        return joined([seen(index) for index in range(count)], axis, paired)
    one = seen(0)
    room = blank((*one.shape[:axis], count, *one.shape[axis + 1 :]), one.dtype, one)
    return lax.fori_loop(0, count, lambda index, room: put(room, seen(index), axis, [index]), room)


def in_pairs(array: Array, axis: int) -> Array:
    """An array that is copied along an `axis`, its last axis, if that is another one and even, as one of pairs.

    LLVM writes the innermost loop out, a short one entry by entry and a long one many vectors at a time, which takes it up to
    five times as long; of pairs the loop around them fills vectors, and XLA forbids to write that one out. Short rows are copied
    up to twice as fast, too (measured). Not for what has zeros at the ends of a row: of pairs, LLVM asks for each whether it is
    there.
    """
    size = array.shape[-1]
    paired = axis < array.ndim - 1 and size % 2 == 0 and size >= _FEW
    return array.reshape(*array.shape[:-1], size // 2, 2) if paired else array


def is_joined(count: int) -> bool:
    """Whether `stacked` joins so many, whose indices are known then."""
    return count <= MOST_JOINED


FUSED, MOST_JOINED = 8, 24
# Shorter rows are copied as fast, and compiled, without pairs.
_FEW = 8
