"""Whether a CPU adds up what a few channels give tap by tap, in `taps`: part of the rule in `choice`."""

from jaxconv.convolution import Convolution
from jaxconv.counts import cells_moved

# At most this many channel pairs per group: too few for a matrix product to pay.
FEW_PRODUCTS = 16
# At most this many terms per cell: channels that are last are left in place.
FEW_TERMS = 16
_FEW_SUMMED = 4
_FEW_STRIDED = 32
_MANY_MADE, _MANY_IN_SIGNAL, _MANY_LAST = 32, 64, 16
_FEWEST_TAPS = 5
_LONG_ROW = 48
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
    """Whether an image of at most 32 channels, or a signal of 64, is made of at most four, of one group, without a stride, of
    five taps or more and rows of 48 cells (measured: 1.1 to 2.9 times as fast; of fewer taps or shorter rows down to 0.6). With
    channels last, at most 16 channels, of more than 16 terms, so that they are moved (measured: 1.0 to 3.4 times as fast; of 24
    and more down to 0.3). Not of 16-bit numbers, whose sums are rounded in a loop of their own."""
    window, channels = convolution.window, weight[:2] if part == "input_gradient" else weight[1::-1]
    dense = convolution.groups == convolution.mapped == max(window.stride) == 1 and not convolution.has_half
    if part == "weight_gradient" or not dense or window.taps < _FEWEST_TAPS:
        return False
    row = (convolution.spatial if part == "input_gradient" else convolution.out_spatial)[-1]
    most = _MANY_MADE if window.rank > 1 else _MANY_IN_SIGNAL
    if convolution.channels_last:
        most = _MANY_LAST if channels[0] * window.taps > FEW_TERMS else 0
    return row >= _LONG_ROW and channels[0] <= _FEW_SUMMED and channels[1] <= most


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
