"""Layers that nobody chose: signals and images of drawn sizes, dense, of one to 64 MB of U."""

import random
from collections.abc import Iterator

from benchmarks.case import Case
from benchmarks.runner import unfolded_bytes

_SIZES = {1: (100, 200, 400, 800, 1500, 3000, 6000, 12000), 2: (8, 14, 16, 20, 28, 32, 48, 56, 64, 96, 128)}
_KERNELS = {1: (2, 3, 3, 5, 7, 9, 16), 2: (2, 3, 3, 3, 4, 5, 7)}
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
_CHANNELS = (1, 3, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384)
_STRIDES = (1, 1, 1, 2, 2, 3, 4)
_LEAST, _MOST = 2**20, 2**26
_LEAST_MULTIPLIED, _MOST_MULTIPLIED = 10**7, 2 * 10**9


def drawn(seed: int, count: int) -> tuple[Case, ...]:
    """So many layers, the same for the same seed."""
    layers = _layers(random.Random(seed))
    return tuple(next(layers) for _ in range(count))


def _layers(draw: random.Random) -> Iterator[Case]:
    number = 0
    while True:
        rank = draw.choice((1, 2))
        batch, size, kernel = draw.choice(_BATCHES), draw.choice(_SIZES[rank]), draw.choice(_KERNELS[rank])
        in_channels, out_channels, stride = draw.choice(_CHANNELS), draw.choice(_CHANNELS), draw.choice(_STRIDES)
        padding = draw.choice((0, kernel // 2))
        if kernel > size:
            continue
        input, weight = (batch, in_channels, *(size,) * rank), (out_channels, in_channels, *(kernel,) * rank)
        shape = f"{batch}x{in_channels}x{size} by {out_channels}, {kernel} taps at {stride}, padding {padding}"
        case = Case(f"drawn {number + 1}", input, weight, stride, padding, note=f"{rank}-D, {shape}")
        u = unfolded_bytes(case, "float32")
        if _LEAST <= u <= _MOST and _LEAST_MULTIPLIED <= u // 4 * out_channels <= _MOST_MULTIPLIED:
            number += 1
            yield case
