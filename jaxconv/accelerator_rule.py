"""Which engine sums what on an accelerator, where copies cost most and the cache holds none of them.

| what is asked for | engine | why |
| --- | --- | --- |
| at most 16 pairs of channels in and out of several groups; for eq. 4, of at most 64 terms | `taps` | no copies |
| other depthwise weight gradients | `fold` | a product of the taps of two axes |
| one tap, stride 1, no padding, one group | `batched` | nothing is copied |
| weight gradient at a stride of at most four channels in or out | `batched` | positions are innermost |
| other dense images at a stride | `fold`, all axes unfolded | positions are innermost in U |
| others at a stride, of at most four channels: U at most 1 GB | `materialise` | U is written and read once |
| other signals | `stream` | U in tiles |
| everything else | `fold`, but for the last axis unfolded | less than U is written |
"""

from jaxconv.convolution import Convolution
from jaxconv.counts import fewest_moved
from jaxconv.engines import batched, taps

_FEW_PRODUCTS = 16
_FEW_SUMMED = 4


def rule_on_accelerator(convolution: Convolution, part: str, weight: tuple[int, ...], fits: bool) -> tuple[str, int]:
    """An engine for `part` of a weight of that shape, and how many of the first axes `fold` unfolds; `fits` tells whether U is no
    more than a tile there."""
    window, pairs = convolution.window, weight[0] * weight[1] // convolution.groups
    if convolution.groups > 1 and pairs <= _FEW_PRODUCTS:
        if part != "weight_gradient" or weight[1] * window.taps <= taps.MOST_APART:
            return "taps", 0
        if pairs == 1:
            return "fold", fewest_moved(convolution, part, weight, window.rank)
    if window.trivial and convolution.groups == 1:
        return "batched", 0
    strided, few = max(window.stride) > 1, _has_few_channels(convolution, weight)
    if strided and few and part == "weight_gradient" and batched.has_few_taps(window):
        return "batched", 0
    if _is_strided_image(convolution, weight):
        return "fold", window.rank
    if fits and (strided or few):
        return "materialise", 0
    return ("stream", 0) if window.rank == 1 else ("fold", window.rank - 1)


def _has_few_channels(convolution: Convolution, weight: tuple[int, ...]) -> bool:
    return convolution.groups == 1 and min(weight[:2]) <= _FEW_SUMMED


def _is_strided_image(convolution: Convolution, weight: tuple[int, ...]) -> bool:
    """Whether a dense layer of images is at a stride, and has neither few channels nor a single tap."""
    window, dense = convolution.window, convolution.groups == 1 and not _has_few_channels(convolution, weight)
    return dense and window.rank > 1 and window.taps > 1 and max(window.stride) > 1


def moves_channels(convolution: Convolution, part: str, weight: tuple[int, ...]) -> bool:
    """Whether an accelerator moves the channels of images that have them last, and of the result, as XLA's loops share what
    neighbouring positions read, and not neighbouring channels: of depthwise layers of several axes (measured: up to 3.4 times as
    fast), and at a stride (up to twice; signals of depthwise layers and groups of four channels take as long either way), but
    for output and input gradient of dense images (measured: half as long again)."""
    window = convolution.window
    if convolution.groups > 1:
        return weight[0] * weight[1] == convolution.groups and window.rank > 1
    if _is_strided_image(convolution, weight) and part != "weight_gradient":
        return False
    return window.taps > 1 and max(window.stride) > 1
