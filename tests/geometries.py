"""The convolutions that tests run on: a named list that reaches every branch, and a hypothesis strategy."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st


@dataclass(frozen=True)
class Geometry:
    """Shapes and arguments of one call of `conv`."""

    name: str
    input: tuple[int, ...]
    weight: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        return len(self.weight) - 2

    @property
    def groups(self) -> int:
        return self.options.get("groups", 1)

    def pads(self) -> tuple[tuple[int, int], ...]:
        """`padding` as one (low, high) pair per axis, worked out here and not by jaxconv."""
        padding = self.options.get("padding", 0)
        kernel = self.weight[2:]
        if padding == "valid":
            return ((0, 0),) * self.rank
        if padding == "same":
            total = [d * (k - 1) for k, d in zip(kernel, self.per_axis("dilation"), strict=True)]
            return tuple((cells // 2, (cells + 1) // 2) for cells in total)
        entries = (padding,) * self.rank if isinstance(padding, int) else padding
        return tuple((entry, entry) if isinstance(entry, int) else tuple(entry) for entry in entries)

    def per_axis(self, argument: str) -> tuple[int, ...]:
        value = self.options.get(argument, 1)
        return (value,) * self.rank if isinstance(value, int) else tuple(value)

    def output_shape(self) -> tuple[int, ...]:
        batch = self.input[: len(self.input) - self.rank - 1]
        sizes = []
        for axis, size in enumerate(self.input[-self.rank :]):
            low, high = self.pads()[axis]
            last = low + size + high - self.per_axis("dilation")[axis] * (self.weight[2 + axis] - 1) - 1
            sizes.append(len(range(0, last + 1, self.per_axis("stride")[axis])))
        return (*batch, self.weight[0], *sizes)

    def terms(self) -> tuple[int, int, int, int]:
        """Products in one entry of the output and of the gradients of input, weight and bias."""
        taps = int(np.prod(self.weight[2:]))
        shape = self.output_shape()
        batch = shape[0] if len(self.input) == self.rank + 2 else 1
        positions = batch * int(np.prod(shape[-self.rank :]))
        return self.weight[1] * taps + 1, self.weight[0] // self.groups * taps, positions, positions

    def arrays(self, dtype: Any, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Input, weight, bias and cotangent, normally distributed."""
        generator = np.random.default_rng(seed)
        shapes = (self.input, self.weight, self.weight[:1], self.output_shape())
        return tuple(normal(generator, shape, dtype) for shape in shapes)  # type: ignore[return-value]


def normal(generator: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    values = generator.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        values = values + 1j * generator.standard_normal(shape)
    return values.astype(dtype)


GEOMETRIES = (
    Geometry("kernel 1", (2, 3, 5, 4), (4, 3, 1, 1)),
    Geometry("3x3 same", (2, 3, 6, 5), (4, 3, 3, 3), {"padding": "same"}),
    Geometry("even kernel same", (1, 2, 5, 6), (2, 2, 4, 2), {"padding": "same", "dilation": (1, 3)}),
    Geometry("valid by name", (1, 2, 5, 6), (2, 2, 3, 2), {"padding": "valid"}),
    Geometry("asymmetric padding", (2, 2, 5, 6), (3, 2, 3, 2), {"padding": ((0, 2), (3, 1))}),
    Geometry(
        "all different",
        (2, 4, 9, 8),
        (6, 2, 3, 2),
        {"stride": (2, 3), "padding": (2, 1), "dilation": (1, 2), "groups": 2},
    ),
    Geometry("depthwise", (2, 4, 6, 6), (4, 1, 3, 3), {"padding": 1, "groups": 4}),
    Geometry("depthwise, two filters each", (1, 3, 5, 5), (6, 1, 3, 3), {"groups": 3}),
    Geometry("kernel wider than input", (1, 2, 3, 2), (2, 2, 5, 4), {"padding": 2}),
    Geometry("taps only in padding", (1, 1, 1, 2), (2, 1, 3, 3), {"padding": 4, "dilation": 4}),
    Geometry("stride skips rows", (2, 2, 8, 9), (3, 2, 2, 2), {"stride": (4, 3)}),
    Geometry("stride past the end", (1, 2, 5, 5), (2, 2, 2, 2), {"stride": 7}),
    Geometry("unbatched", (3, 6, 5), (4, 3, 3, 3), {"padding": 1}),
    Geometry("empty batch", (0, 3, 6, 5), (4, 3, 3, 3), {"padding": 1}),
    Geometry("one axis", (2, 3, 11), (4, 3, 4), {"stride": 2, "padding": 3}),
    Geometry("one axis, unbatched, grouped", (4, 11), (2, 2, 3), {"groups": 2, "dilation": 2}),
    Geometry("many taps", (1, 2, 50), (3, 2, 40), {"padding": 5, "stride": 2, "dilation": 1}),
    Geometry(
        "three axes",
        (1, 2, 4, 5, 3),
        (3, 2, 2, 3, 2),
        {"stride": (1, 2, 1), "padding": (1, 0, 2), "dilation": (2, 1, 1)},
    ),
    Geometry("three axes, unbatched", (2, 4, 3, 3), (2, 2, 2, 2, 2), {"padding": 1}),
)


@st.composite
def geometries(draw, rank: int | None = None) -> Geometry:
    """Any legal call of `conv` with small sizes."""
    rank = rank or draw(st.integers(1, 3))
    top = {1: 9, 2: 6, 3: 4}[rank]
    axis_values = {"stride": [], "dilation": [], "padding": []}
    kernel, spatial = [], []
    for _ in range(rank):
        taps, stride, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
        low, high = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        kernel.append(taps)
        least = max(1, dilation * (taps - 1) + 1 - low - high)
        spatial.append(draw(st.integers(least, max(top, least))))
        for name, value in (("stride", stride), ("dilation", dilation), ("padding", (low, high))):
            axis_values[name].append(value)
    groups, inputs, outputs = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    batch = draw(st.sampled_from([(), (0,), (1,), (2,)]))
    options = {name: tuple(values) for name, values in axis_values.items()} | {"groups": groups}
    return Geometry("drawn", (*batch, groups * inputs, *spatial), (groups * outputs, inputs, *kernel), options)
