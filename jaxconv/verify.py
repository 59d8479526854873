"""Real layers on real photographs, held against `jax.lax` and, where it is installed, torch.

Every layer runs forward and backward under jit. Its output and its three gradients must agree with `jax.lax`'s
convolution and autodiff, and with torch's, to within the rounding of the sums (`rounding.error_bound`).
"""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxconv.conv import conv
from jaxconv.rounding import error_bound, in_roundings
from jaxconv.unfold import unfold

QUANTITIES = ("output", "input gradient", "weight gradient", "bias gradient")

_REPEATS = 3
_BUDGET = 1.0  # seconds after which a contender is not called again


@dataclass(frozen=True)
class Layer:
    """One convolution of a published network, and what it is given to see."""

    name: str
    source: str
    view: Callable[[Array], Array]
    weight: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)


class Comparison(NamedTuple):
    """One layer against one contender: its errors, in unit roundoffs of the largest entry, and whether all agree."""

    errors: dict[str, float]
    agrees: bool


class Row(NamedTuple):
    """What became of one layer. `seconds` has the median time of a forward and backward pass of every contender."""

    layer: Layer
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    comparisons: dict[str, Comparison]
    seconds: dict[str, float]

    @property
    def agrees(self) -> bool:
        return all(comparison.agrees for comparison in self.comparisons.values())


def photographs() -> Array:
    """scikit-learn's two sample photographs, `(2, 3, 427, 640)`, float32, mean 0 and standard deviation 1."""
    from sklearn.datasets import load_sample_images

    pixels = np.stack(load_sample_images().images).astype(np.float32).transpose(0, 3, 1, 2)
    return jnp.asarray((pixels - pixels.mean()) / pixels.std())


def crops(photos: Array) -> Array:
    """The middle of both photographs, in the size that ImageNet networks are given: `(2, 3, 224, 224)`."""
    return photos[:, :, 101:325, 208:432]


def tiles(photos: Array) -> Array:
    """Grey 32x32 tiles, as LeNet-5 was given digits: `(520, 1, 32, 32)`."""
    grey = photos.mean(axis=1, keepdims=True)
    return jnp.moveaxis(unfold(grey, 32, stride=32), 1, 2).reshape(-1, 1, 32, 32)


def features(photos: Array) -> Array:
    """Feature maps of the crops: every pixel of an 8x8 block is a channel, `(2, 192, 28, 28)`."""
    return unfold(crops(photos), 8, stride=8).reshape(2, 192, 28, 28)


def scanlines(photos: Array) -> Array:
    """Every grey image row as a signal: `(854, 1, 640)`."""
    return photos.mean(axis=1).reshape(-1, 1, 640)


def clip(photos: Array) -> Array:
    """A film of 16 frames that pans over the first photograph, 8 pixels a frame: `(1, 3, 16, 64, 64)`."""
    frames = [photos[0, :, 100:164, 8 * frame : 8 * frame + 64] for frame in range(16)]
    return jnp.stack(frames, axis=1)[None]


LAYERS = (
    Layer("LeNet-5 C1", "LeCun 1998", tiles, (6, 1, 5, 5)),
    Layer("VGG-16 conv1_1", "Simonyan 2014", crops, (64, 3, 3, 3), {"padding": 1}),
    Layer("ResNet stem", "He 2015", crops, (64, 3, 7, 7), {"stride": 2, "padding": 3}),
    Layer("MobileNet depthwise", "Howard 2017", features, (192, 1, 3, 3), {"padding": 1, "groups": 192}),
    Layer("ResNeXt grouped", "Xie 2016", features, (192, 4, 3, 3), {"padding": 1, "groups": 48}),
    Layer("DeepLab atrous", "Chen 2016", features, (64, 192, 3, 3), {"padding": 6, "dilation": 6}),
    Layer("M5 waveform (1-D)", "Dai 2016", scanlines, (32, 1, 80), {"stride": 4}),
    Layer("C3D conv1a (3-D)", "Tran 2014", clip, (64, 3, 3, 3, 3), {"padding": 1}),
)


def run(layers: Iterable[Layer]) -> Iterator[Row]:
    """Yields a row per layer."""
    photos = photographs()
    for index, layer in enumerate(layers):
        yield compare(layer, layer.view(photos), jax.random.key(index))


def compare(layer: Layer, input: Array, key: Array) -> Row:
    """Runs `layer` on `input`, forward and backward, with every contender in turn."""
    weight_key, bias_key, cotangent_key = jax.random.split(key, 3)
    fan_in = int(np.prod(layer.weight[1:]))
    weight = jax.random.normal(weight_key, layer.weight, input.dtype) * (2 / fan_in) ** 0.5
    bias = 0.1 * jax.random.normal(bias_key, layer.weight[:1], input.dtype)
    shape = jax.eval_shape(lambda *arrays: conv(*arrays, **layer.options), input, weight, bias).shape
    arrays = (input, weight, bias, jax.random.normal(cotangent_key, shape, input.dtype))

    lax_run = _compiled(_lax_conv(layer), arrays)
    ours = _compiled(lambda *a: conv(*a, **layer.options), arrays)
    contenders = {"jaxconv": lambda: ours(*arrays), "jax.lax": lambda: lax_run(*arrays)}
    torch_run = _torch_run(layer, arrays)
    if torch_run is not None:
        contenders["torch"] = torch_run

    results, seconds = _timed(contenders)
    # The same sums over absolute values say how large a rounding error each entry may carry.
    magnitudes = lax_run(*(jnp.abs(array) for array in arrays))
    bounds = [
        2 * error_bound(magnitude, terms, input.dtype, input.dtype)
        for magnitude, terms in zip(magnitudes, _terms(layer, shape), strict=True)
    ]
    mine = results.pop("jaxconv")
    comparisons = {name: _comparison(mine, theirs, bounds) for name, theirs in results.items()}
    return Row(layer, input.shape, shape, comparisons, seconds)


def _comparison(ours: list[np.ndarray], theirs: list[np.ndarray], bounds: list[np.ndarray]) -> Comparison:
    errors, agrees = {}, True
    for quantity, mine, other, bound in zip(QUANTITIES, ours, theirs, bounds, strict=True):
        difference = np.abs(mine.astype(np.float64) - other.astype(np.float64))
        errors[quantity] = in_roundings(difference, other, other.dtype)
        # Written so that a NaN disagrees.
        agrees = agrees and mine.shape == other.shape and bool((difference <= bound).all())
    return Comparison(errors, agrees)


def _terms(layer: Layer, output_shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Products in one entry of the output and of each gradient: the sums of eqs. 2, 3 (folded), 4 and 5."""
    out_channels, group_channels, *kernel = layer.weight
    taps = int(np.prod(kernel))
    positions = output_shape[0] * int(np.prod(output_shape[2:]))
    group_outputs = out_channels // layer.options.get("groups", 1)
    return group_channels * taps + 1, group_outputs * taps, positions, positions


def _timed(contenders: dict[str, Callable]) -> tuple[dict[str, list[np.ndarray]], dict[str, float]]:
    """What each contender gives, and its median time, the contenders called in turn."""
    results = {name: [np.asarray(array) for array in call()] for name, call in contenders.items()}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(_REPEATS):
        for name, call in contenders.items():
            if sum(times[name]) < _BUDGET:
                start = time.perf_counter()
                jax.block_until_ready(call())
                times[name].append(time.perf_counter() - start)
    return results, {name: statistics.median(taken) for name, taken in times.items()}


def _compiled(function: Callable[..., Array], arrays: tuple) -> Callable:
    """`function` and its VJP as one compiled program of its arguments and the cotangent."""

    def forward_and_backward(input, weight, bias, cotangent):
        output, pullback = jax.vjp(function, input, weight, bias)
        return output, *pullback(cotangent)

    return jax.jit(forward_and_backward).lower(*arrays).compile()


def _lax_conv(layer: Layer) -> Callable[..., Array]:
    rank = len(layer.weight) - 2
    options = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, **layer.options}

    def function(input, weight, bias):
        product = lax.conv_general_dilated(
            input,
            weight,
            window_strides=(options["stride"],) * rank,
            padding=((options["padding"],) * 2,) * rank,
            rhs_dilation=(options["dilation"],) * rank,
            feature_group_count=options["groups"],
        )
        return product + bias.reshape(-1, *(1,) * rank)

    return function


def _torch_run(layer: Layer, arrays: tuple) -> Callable | None:
    """The same with torch's autograd on the same numbers; None where torch is not installed."""
    try:
        import torch
        import torch.nn.functional as F
    except ImportError:
        return None
    function: Callable[..., Any] = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[len(layer.weight)]
    input, weight, bias, cotangent = (torch.from_numpy(np.array(array)) for array in arrays)
    leaves = [array.requires_grad_() for array in (input, weight, bias)]

    def forward_and_backward():
        output = function(*leaves, **layer.options)
        return [array.detach().numpy() for array in (output, *torch.autograd.grad(output, leaves, cotangent))]

    return forward_and_backward
