"""Whole networks as their users have them: small versions of known ones, with every convolution by jaxconv or by `jax.lax`."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.nn import relu

from benchmarks.case import Case
from benchmarks.contenders import Setting, by_jaxconv, by_lax, compiled
from benchmarks.runner import Row, measured

CONTENDERS = ("jaxconv", "lax")
QUANTITIES = ("inference", "training step")


@dataclass
class Layers:
    """What networks are written in. Weights are drawn as a network asks for them, or are those `given`, in that order."""

    contender: str
    dtype: str
    channels_last: bool
    given: Sequence[Array] | None = None
    weights: list[Array] = field(default_factory=list)

    def weight(self, shape: tuple[int, ...]) -> Array:
        if self.given is not None:
            self.weights.append(self.given[len(self.weights)])
        else:
            generator = np.random.default_rng(len(self.weights))
            scale = math.sqrt(2 / math.prod(shape[1:]))
            self.weights.append(jnp.asarray(scale * generator.standard_normal(shape)).astype(self.dtype))
        return self.weights[-1]

    @property
    def channel_axis(self) -> int:
        return -1 if self.channels_last else 1

    def spatial_axes(self, x: Array) -> tuple[int, ...]:
        return tuple(range(1, x.ndim - 1) if self.channels_last else range(2, x.ndim))

    def conv(
        self,
        x: Array,
        out: int,
        taps: int,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
    ) -> Array:
        """Without padding given, as many positions as before."""
        padding = dilation * (taps - 1) // 2 if padding is None else padding
        weight = self.weight((out, x.shape[self.channel_axis] // groups, *(taps,) * (x.ndim - 2)))
        return self._applied(Case("", x.shape, weight.shape, stride, padding, dilation, groups), x, weight)

    def up(self, x: Array, out: int, taps: int, stride: int, padding: int = 0) -> Array:
        weight = self.weight((x.shape[self.channel_axis], out, *(taps,) * (x.ndim - 2)))
        return self._applied(Case("", x.shape, weight.shape, stride, padding, transposed=True), x, weight)

    def _applied(self, case: Case, x: Array, weight: Array) -> Array:
        layer = {"jaxconv": by_jaxconv, "lax": by_lax}[self.contender]
        return layer(Setting(case, "forward", self.dtype, self.channels_last), x, weight)

    def norm(self, x: Array) -> Array:
        """Batch normalisation, with the batch's own mean and variance."""
        return jax.nn.standardize(x, (0, *self.spatial_axes(x)))

    def pool(self, x: Array) -> Array:
        window = (1, *(2,) * (x.ndim - 2), 1) if self.channels_last else (1, 1, *(2,) * (x.ndim - 2))
        return lax.reduce_window(x, np.array(-np.inf, x.dtype), lax.max, window, window, "VALID")

    def head(self, x: Array) -> Array:
        """Ten classes of the mean over all positions."""
        mean = x.mean(self.spatial_axes(x))
        return mean @ self.weight((10, mean.shape[-1])).T


def resnet18(layers: Layers, x: Array) -> Array:
    x = layers.pool(relu(layers.norm(layers.conv(x, 64, 7, 2))))
    for channels, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
        y = relu(layers.norm(layers.conv(x, channels, 3, stride)))
        y = layers.norm(layers.conv(y, channels, 3))
        x = relu(y + (x if stride == 1 else layers.norm(layers.conv(x, channels, 1, 2, 0))))
    return layers.head(x)


def resnext(layers: Layers, x: Array) -> Array:
    x = layers.pool(relu(layers.norm(layers.conv(x, 64, 7, 2))))
    for channels, stride in ((128, 1), (256, 2), (512, 2)):
        y = relu(layers.norm(layers.conv(x, channels, 1)))
        y = relu(layers.norm(layers.conv(y, channels, 3, stride, groups=32)))
        y = layers.norm(layers.conv(y, 2 * channels, 1))
        x = relu(y + layers.norm(layers.conv(x, 2 * channels, 1, stride, 0)))
    return layers.head(x)


def convnext(layers: Layers, x: Array) -> Array:
    x = layers.norm(layers.conv(x, 96, 4, 4, 0))
    for channels, depth in ((96, 2), (192, 2), (384, 3), (768, 1)):
        if channels > 96:
            x = layers.conv(layers.norm(x), channels, 2, 2, 0)
        for _ in range(depth):
            y = layers.norm(layers.conv(x, channels, 7, groups=channels))
            x = x + layers.conv(jax.nn.gelu(layers.conv(y, 4 * channels, 1)), channels, 1)
    return layers.head(x)


def mobilenet(layers: Layers, x: Array) -> Array:
    x = relu(layers.norm(layers.conv(x, 16, 3, 2)))
    for channels, stride in ((24, 2), (24, 1), (32, 2), (32, 1), (64, 2), (64, 1), (96, 1), (160, 2)):
        before = x.shape[layers.channel_axis]
        y = relu(layers.norm(layers.conv(x, 6 * before, 1)))
        y = relu(layers.norm(layers.conv(y, 6 * before, 3, stride, groups=6 * before)))
        y = layers.norm(layers.conv(y, channels, 1))
        x = x + y if x.shape == y.shape else y
    return layers.head(x)


def unet(layers: Layers, x: Array, channels: int = 32, depth: int = 3) -> Array:
    def double(x: Array, channels: int) -> Array:
        for _ in range(2):
            x = relu(layers.norm(layers.conv(x, channels, 3)))
        return x

    kept = []
    for level in range(depth):
        kept.append(double(x, channels * 2**level))
        x = layers.pool(kept[-1])
    x = double(x, channels * 2**depth)
    for level in reversed(range(depth)):
        x = layers.up(x, channels * 2**level, 2, 2)
        x = double(jnp.concatenate([x, kept[level]], layers.channel_axis), channels * 2**level)
    return layers.conv(x, 4, 1)


def dcgan(layers: Layers, x: Array) -> Array:
    """The generator, and the discriminator of what it makes."""
    for channels in (256, 128, 64):
        x = relu(layers.norm(layers.up(x, channels, 4, 2, 1)))
    x = jnp.tanh(layers.up(x, 3, 4, 2, 1))
    for channels in (64, 128, 256):
        x = jax.nn.leaky_relu(layers.norm(layers.conv(x, channels, 4, 2, 1)))
    return layers.conv(x, 1, 4, padding=0)


def wavenet(layers: Layers, x: Array) -> Array:
    x, skipped = layers.conv(x, 64, 1), jnp.zeros(())
    for level in range(8):
        gate, value = jnp.split(layers.conv(x, 128, 3, dilation=2**level), 2, layers.channel_axis)
        y = jnp.tanh(value) * jax.nn.sigmoid(gate)
        skipped = skipped + layers.conv(y, 64, 1)
        x = x + layers.conv(y, 64, 1)
    return layers.conv(relu(skipped), 64, 1)


def tcn(layers: Layers, x: Array) -> Array:
    x = layers.conv(x, 64, 1)
    for level in range(6):
        y = relu(layers.conv(x, 64, 3, dilation=2**level))
        x = x + relu(layers.conv(y, 64, 3, dilation=2**level))
    return layers.head(x)


def tasnet(layers: Layers, x: Array) -> Array:
    x = layers.conv(x, 128, 16, 8, 0)
    y = x
    for level in range(6):
        z = relu(layers.conv(y, 256, 1))
        z = relu(layers.conv(z, 256, 3, dilation=2**level, groups=256))
        y = y + layers.conv(z, 128, 1)
    return layers.up(jax.nn.sigmoid(y) * x, 1, 16, 8)


def encodec(layers: Layers, x: Array) -> Array:
    def residual(x: Array) -> Array:
        channels = x.shape[layers.channel_axis]
        y = layers.conv(jax.nn.elu(x), channels // 2, 3)
        return x + layers.conv(jax.nn.elu(y), channels, 1)

    x = layers.conv(x, 16, 7)
    for channels, stride in ((32, 2), (64, 4), (128, 5)):
        x = layers.conv(jax.nn.elu(residual(x)), channels, 2 * stride, stride, stride // 2)
    for channels, stride in ((64, 5), (32, 4), (16, 2)):
        x = residual(layers.up(jax.nn.elu(x), channels, 2 * stride, stride, stride // 2))
    return layers.conv(jax.nn.elu(x), 1, 7)


def textcnn(layers: Layers, x: Array) -> Array:
    """The largest of each feature over all places in the text."""
    axis = 1 if layers.channels_last else 2
    found = [relu(layers.conv(x, 100, taps, padding=0)).max(axis) for taps in (3, 4, 5)]
    return jnp.concatenate(found, -1) @ layers.weight((2, 300)).T


@dataclass(frozen=True)
class Network:
    """One network, and its input with channels first."""

    name: str
    function: Callable[[Layers, Array], Array]
    input: tuple[int, ...]


NETWORKS = (
    Network("resnet18", resnet18, (8, 3, 112, 112)),
    Network("resnext", resnext, (4, 3, 112, 112)),
    Network("convnext", convnext, (4, 3, 128, 128)),
    Network("mobilenet", mobilenet, (8, 3, 128, 128)),
    Network("unet", unet, (2, 3, 128, 128)),
    Network("unet3d", partial(unet, channels=16, depth=2), (1, 1, 32, 64, 64)),
    Network("dcgan", dcgan, (16, 100, 4, 4)),
    Network("wavenet", wavenet, (2, 1, 8000)),
    Network("tcn", tcn, (16, 32, 512)),
    Network("tasnet", tasnet, (2, 1, 16000)),
    Network("encodec", encodec, (2, 1, 16000)),
    Network("textcnn", textcnn, (64, 128, 64)),
)


def run(
    networks: Iterable[Network],
    *,
    dtype: str = "float32",
    channels_last: bool = False,
    rounds: int = 7,
    patience: float = 2.0,
) -> Iterator[Row]:
    """A row for every network and quantity. A training step is the mean square of what the network gives, and its gradient with
    respect to all weights."""
    for network in networks:
        x = jnp.asarray(np.random.default_rng(0).standard_normal(network.input)).astype(dtype)
        x = jnp.moveaxis(x, 1, -1) if channels_last else x
        drawn = Layers("lax", dtype, channels_last)
        network.function(drawn, x)
        for quantity in QUANTITIES:
            ready = {}
            for contender in CONTENDERS:
                inference = partial(_inference, network, contender, dtype, channels_last)
                function = inference if quantity == "inference" else jax.value_and_grad(partial(_loss, inference))
                ready[contender] = compiled(function, drawn.weights, x)
            yield {
                "case": network.name,
                "batch": network.input[0],
                "quantity": quantity,
                "dtype": dtype,
                "channels_last": channels_last,
                **measured(ready, rounds, patience),
            }
            jax.clear_caches()


def _inference(
    network: Network, contender: str, dtype: str, channels_last: bool, weights: Sequence[Array], x: Array
) -> Array:
    return network.function(Layers(contender, dtype, channels_last, weights), x)


def _loss(inference: Callable[[Sequence[Array], Array], Array], weights: Sequence[Array], x: Array) -> Array:
    return jnp.square(inference(weights, x).astype(jnp.float32)).mean()
