"""Whether a CPU adds up what a few channels give tap by tap, in `taps`: part of the rule in `choice`."""

import math

from jaxconv.convolution import Convolution
from jaxconv.counts import cells_moved, channels_of, positions_of

# At most this many channel pairs per group: too few for a matrix product to pay.
FEW_PRODUCTS = 16
# At most this many terms per cell: channels that are last are left in place.
FEW_TERMS = 16
_FEW_SUMMED = 4
_FEW_STRIDED = 32
_MANY_MADE, _MANY_IN_SIGNAL, _MANY_LAST = 32, 64, 16
_FEW_MADE, _FEWEST_MADE, _FEW_PAIRS = 8, 3, 256
_FEWEST_TAPS, _FEW_TAPS = 5, 9
_LONG_ROW, _FAIR_ROW = 48, 32
_FEW_PHASES = 4
_LONG_KERNEL = 12
_MANY_TAPS = 64


def is_added_up(convolution: Convolution, part: str, weight: tuple[int, ...]) -> bool:
    """Whether so few products are better added up tap by tap: of several groups, but for a weight gradient of several axes that
    is not depthwise; of one group, where at most four channels are summed (measured: of 6 or 32 channels up to half as long
    again), at a stride 32 terms and in an image's output alone (49 terms twice slower); and of one channel, last, of a signal."""
    window, groups = convolution.window, convolution.groups
    if groups > 1:
        return part != "weight_gradient" or window.rank == 1 or weight[0] * weight[1] == groups
    strided = max(window.stride) > 1
    if part == "output":
        return weight[1] <= _FEW_SUMMED and not (strided and weight[1] * window.taps > _FEW_STRIDED)
    if part == "input_gradient":
        return weight[0] <= _FEW_SUMMED and not (strided and window.rank > 1)
    return convolution.channels_last and window.rank == weight[1] == 1


def is_of_few_channels(convolution: Convolution, part: str, weight: tuple[int, ...]) -> bool:
    """Whether so few channels of one group are summed, or made, that they are added up: not of 16-bit numbers, whose sums are
    rounded in a loop of their own."""
    dense = convolution.groups == convolution.mapped == 1 and not convolution.has_half
    if part == "weight_gradient" or not dense:
        return False
    if max(convolution.window.stride) > 1:
        return part == "input_gradient" and _is_of_few_at_stride(convolution, weight)
    (summed, made), row = channels_of(convolution, part, weight), positions_of(convolution, part)[-1]
    if convolution.channels_last:
        return summed * convolution.window.taps > FEW_TERMS and _is_of_few_summed(
            convolution, summed, made, row, _MANY_LAST
        )
    if convolution.window.rank == 1:
        # The cotangent, which is whole in memory, is little beside U.
        little = part == "output" or summed <= _FEW_SUMMED or 10 * summed <= made * convolution.window.taps
        return little and _is_of_few_in_signal(convolution, summed, made, row)
    few = summed <= _FEW_SUMMED and summed * made <= _FEW_PAIRS and row >= _FAIR_ROW
    if few and _FEWEST_TAPS <= convolution.window.taps <= _FEW_TAPS:
        # Of an image of 3x3 taps also shorter rows, and more channels (measured: 1.0 to 2.7 times as fast).
        return True
    return _is_of_few_summed(convolution, summed, made, row, _MANY_MADE)


def _is_of_few_summed(convolution: Convolution, summed: int, made: int, row: int, most: int) -> bool:
    """Whether an image of at most so many channels is made of four or fewer, of five taps or more and rows of 48 cells
    (measured: 1.1 to 2.9 times as fast; of fewer taps or shorter rows down to 0.6). With channels last of more than 16 terms, so
    that they are moved (measured: 1.0 to 3.4 times as fast; of 24 channels and more down to 0.3)."""
    return convolution.window.taps >= _FEWEST_TAPS and row >= _LONG_ROW and summed <= _FEW_SUMMED and made <= most


def _is_of_few_in_signal(convolution: Convolution, summed: int, made: int, row: int) -> bool:
    """Whether a signal has at most 256 pairs of channels, 64 of those made, of five taps or more and 48 positions; and eight of
    those made, or twelve taps, if more than four are summed (measured: 1.0 to 2.3 times as fast; of 512 pairs down to 0.5)."""
    taps = convolution.window.taps
    many = made >= _FEW_MADE or taps >= _LONG_KERNEL or summed <= _FEW_SUMMED
    few = summed * made <= _FEW_PAIRS and made <= _MANY_IN_SIGNAL
    return few and many and taps >= _FEWEST_TAPS and row >= _LONG_ROW


def _is_of_few_at_stride(convolution: Convolution, weight: tuple[int, ...]) -> bool:
    """Whether the input gradient of a signal or an image at a stride, channels first, is made of at most eight channels out, and
    of 32 terms a cell: three channels in or more, and of an image at a stride of two rows of 32 cells at least (measured: 1.1 to
    3.9 times as fast; of volumes, larger strides of images, or shorter rows, down to 0.2)."""
    window, phases = convolution.window, math.prod(convolution.window.stride)
    if convolution.channels_last or window.rank > 2 or weight[0] > _FEW_MADE or weight[1] < _FEWEST_MADE:
        return False
    long = window.rank == 1 or (phases <= _FEW_PHASES and convolution.spatial[-1] >= _FAIR_ROW)
    return long and weight[0] * window.taps <= _FEW_STRIDED * phases


def has_wide_kernel(convolution: Convolution, unfolded: int) -> bool:
    """Whether there are more than 64 taps, and at least four a copy when some axes are unfolded and others folded, or eight with
    channels last, which are moved (measured: of 9x9 and 5x5x5 taps a product is faster, of 8x8 and 3x33 slower; there of 21x21
    and 13x13).

    At a stride most of the product would be for nothing, and of 16-bit numbers one in such a shape is slow.
    """
    window = convolution.window
    copies = cells_moved(convolution, "weight_gradient", (convolution.groups, 1, *window.kernel), unfolded)
    many = window.taps > _MANY_TAPS and window.taps >= (8 if convolution.channels_last else 4) * copies
    return many and max(window.stride) == 1 and not convolution.has_half
