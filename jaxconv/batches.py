"""Walking over a batch part by part, for many samples of few positions.

A tile of positions of every sample would be short runs of each, and read its sides over and over; a part of the batch has its
samples whole. Part i of n has the samples i, n + i, 2 n + i and so on: of a batch that is sharded over `DEVICES` devices or a
divisor of that, every device has as many samples of each part, and none is moved.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import Array, lax

from jaxconv.convolution import Convolution
from jaxconv.tiles import Start, blank, piece, put

DEVICES = 8


def number_of_parts(batch: int, least: int, most: int, devices: int = DEVICES) -> int:
    """The smallest number of equal parts of at most `most` samples, and no fewer than `least`; 1 where there is none. Of a batch
    that is spread over up to so many devices, each part has some of every one."""
    whole = batch // math.gcd(batch, devices)
    counts = (count for count in range(1, whole + 1) if whole % count == 0 and least <= batch // count <= most)
    return next(counts, 1)


def image_by_parts(function: Callable[..., Array], at: int) -> Callable[..., Array]:
    """An engine's function of a convolution and arrays, from a batch to a batch, as one that takes it in `convolution.parts`: the
    output, of the batch and a weight, where the batch is `at` 0, and the input gradient, of a weight and the batch, at 1."""

    def by_parts(convolution: Convolution, *arrays: Array) -> Array:
        if convolution.parts == 1:
            return function(convolution, *arrays)
        part_of_batch = _divided(convolution, arrays[at])

        # Rounded where it is put, as `put` wants it.
        own = convolution.giving(convolution.accumulate)

        def result(index: Start) -> Array:
            part = function(own, *arrays[:at], part_of_batch(index), *arrays[at + 1 :])
            return part.astype(convolution.result)

        samples, weight = arrays[at].shape[0] // convolution.parts, arrays[1 - at]
        shape = convolution.output_shape(samples, weight) if at == 0 else convolution.input_shape(samples, weight)
        return _gathered(result, convolution.parts, shape, convolution.result, convolution.put, arrays)

    return by_parts


def sum_by_parts(function: Callable[..., Array]) -> Callable[..., Array]:
    """An engine's weight gradient, of a convolution and batches, as one that takes these in `convolution.parts`."""

    def by_parts(convolution: Convolution, *arrays: Array) -> Array:
        if convolution.parts == 1:
            return function(convolution, *arrays)
        parts = [_divided(convolution, array) for array in arrays]

        def terms(index: Start) -> Array:
            return function(convolution, *(part(index) for part in parts))

        total = blank(convolution.weight_shape(*arrays), convolution.result, *arrays)
        return lax.fori_loop(0, convolution.parts, lambda index, total: total + terms(index), total)

    return by_parts


def mapped_by_parts(function: Callable[..., Array], one: jax.ShapeDtypeStruct, parts: int, *batches: Array) -> Array:
    """`jax.vmap` of a function of samples, whose result is like `one`, over so many parts of them one after the other."""
    if parts == 1:
        return jax.vmap(function)(*batches)
    # Flat, as XLA may give a batch of one another place in memory, and copy all of it for the loop.
    divided = [batch.reshape(-1, parts, math.prod(batch.shape[1:])) for batch in batches]

    def result(index: Start) -> Array:
        some = (piece(batch, index, 1, 1) for batch in divided)
        return jax.vmap(function)(
            *(part.reshape(-1, *batch.shape[1:]) for part, batch in zip(some, batches, strict=True))
        )

    return _gathered(result, parts, (len(divided[0]), *one.shape), one.dtype, put, batches)


def _gathered(
    result: Callable[[Start], Array],
    parts: int,
    shape: tuple[int, ...],
    dtype: Any,
    put: Callable[..., Array],
    like: Sequence[Array],
) -> Array:
    """A batch of the result of every part, each of such a shape, `put` where the part is; held without axes of one entry, for the
    sake of `moved`."""
    samples, *rest = shape
    kept = [size for size in rest if size != 1]

    def step(index: Start, room: Array) -> Array:
        return put(room, result(index).reshape(samples, 1, *kept), 1, [index])

    room = lax.fori_loop(0, parts, step, blank((samples, parts, *kept), dtype, *like))
    return room.reshape(samples * parts, *rest)


def _divided(convolution: Convolution, batch: Array) -> Callable[[Start], Array]:
    """Each part of a batch, which is held without axes of one entry, for the sake of `moved`."""
    shape = batch.shape[1:]
    divided = batch.reshape(-1, convolution.parts, *(size for size in shape if size != 1))

    def part(index: Start) -> Array:
        some = piece(convolution.for_tiles(divided, index), index, 1, 1)
        return convolution.for_sums(some.reshape(-1, *shape), batch.dtype)

    return part
