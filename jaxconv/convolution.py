"""What is static about one convolution: all that an engine may decide on."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental.xla_metadata import set_xla_metadata

from jaxconv.arguments import image_sizes
from jaxconv.primitive import ACCELERATOR
from jaxconv.products import better_right
from jaxconv.tiles import Start, blank, cut, is_run, laid_out, moved, put
from jaxconv.window import Cells, Window


@dataclass(frozen=True)
class Convolution:
    """Geometry, groups and arithmetic of one convolution, without its arrays: static and hashable.

    `precision` is `jax.lax`'s; `result` the dtype of what an engine returns; `accumulate` the dtype that sums are carried in.
    `channels_last` tells where the channels of input and output are; `engine` is the caller's, or "auto"; `tile` how many bytes
    an engine that works in tiles may spend on one; `unfolded` how many of the first axes `fold` unfolds, or in how many blocks
    `blocks` takes a signal's kernel, or of how many cells the windows of `fourier` are; `parts` in how many parts the batch is
    taken; `bits` the 16-bit dtype of images whose entries are copied, and returned, as bits in uint16; `calls` whether what is
    better not fused with what takes it is compiled as a call; `alone` whether all of it may be one; `channels_moved` whether
    channels that are last are moved, of a tile by `taps`, or of all by `fold` for a weight gradient and on an accelerator;
    `mapped` how many of its kind `jax.vmap` runs at the same time, which share the room for tiles; `spread` whether several
    devices have it, whose samples are not to be moved; `platform` what it is compiled for, "cpu" or "accelerator", or None where
    that is not known.
    """

    window: Window
    spatial: tuple[int, ...]
    groups: int
    precision: Any
    result: Any
    accumulate: Any
    channels_last: bool = False
    engine: str = "auto"
    tile: int = 2**23
    unfolded: int = 0
    parts: int = 1
    bits: Any = None
    calls: bool = False
    alone: bool = True
    channels_moved: bool = False
    mapped: int = 1
    spread: bool = False
    platform: str | None = None

    @property
    def out_spatial(self) -> tuple[int, ...]:
        """Spatial size of the output."""
        return self.window.output_size(self.spatial)

    @property
    def stride_blocks(self) -> tuple[int, ...]:
        """Blocks of `stride` cells of the input on every axis, the last of which may have fewer."""
        return tuple(-(-size // stride) for size, stride in zip(self.spatial, self.window.stride, strict=True))

    @property
    def dot(self) -> dict[str, Any]:
        """Keywords for the matrix products of `formulas`."""
        return {"precision": self.precision, "preferred_element_type": self.accumulate}

    @property
    def first_spatial(self) -> int:
        """The array axis of the first spatial axis, of input and output."""
        return 1 if self.channels_last else 2

    def shape(self, batch: int, spatial: tuple[int, ...], channels: int) -> tuple[int, ...]:
        """The array shape of an image in this convolution's layout."""
        return (batch, *spatial, channels) if self.channels_last else (batch, channels, *spatial)

    def output_shape(self, batch: int, weight: Any) -> tuple[int, ...]:
        """The array shape of an output."""
        return self.shape(batch, self.out_spatial, weight.shape[0])

    def input_shape(self, batch: int, weight: Any) -> tuple[int, ...]:
        """The array shape of an input, and of its gradient."""
        return self.shape(batch, self.spatial, weight.shape[1] * self.groups)

    def weight_shape(self, input: Any, cotangent: Any) -> tuple[int, ...]:
        """The array shape of a weight, and of its gradient."""
        in_channels, out_channels = self.sizes(input)[2], self.sizes(cotangent)[2]
        return (out_channels, in_channels // self.groups, *self.window.kernel)

    def sizes(self, image: Array) -> tuple[int, tuple[int, ...], int]:
        """Batch, spatial size and channels of an array in this convolution's layout: the inverse of `shape`."""
        return image_sizes(image, self.channels_last)

    @property
    def channel_axis(self) -> int:
        """The array axis of the channels, of input and output."""
        return 1 + self.window.rank if self.channels_last else 1

    def channels_second(self, image: Array) -> Array:
        """An image in this convolution's layout as (N, C, *spatial)."""
        return moved(image, (0, image.ndim - 1, *range(1, image.ndim - 1))) if self.channels_last else image

    def as_given(self, image: Array) -> Array:
        """The inverse of `channels_second`."""
        return moved(image, (0, *range(2, image.ndim), 1)) if self.channels_last else image

    def finished(self, image: Array, bias: Array | None) -> Array:
        """Sums in this convolution's layout with the bias of their channels added, rounded to `result`."""
        if bias is not None:
            # An image may have its spatial axes as one run.
            shape = self.shape(1, (1,) * (image.ndim - 2), bias.size)
            image = image + bias.astype(image.dtype).reshape(shape)
        return image.astype(self.result)

    @property
    def has_half(self) -> bool:
        """Whether results are 16-bit numbers."""
        return jnp.dtype(self.result).itemsize == 2

    @property
    def on_accelerator(self) -> bool:
        """Whether this is compiled for an accelerator; False where the platform is not known."""
        return self.platform == ACCELERATOR

    @property
    def as_engines_see_it(self) -> "Convolution":
        """The same with channels first, where an accelerator moves those that are last."""
        moved = self.on_accelerator and self.channels_moved
        return replace(self, channels_last=False, channels_moved=False) if moved else self

    def for_tiles(self, image: Array, *starts: int | Array) -> Array:
        """An image that a tile is taken from, at places that begin at `starts`: as bits, where those are copied."""
        if self.bits is None:
            return image
        # Else the bits of the whole image would be written before the loop that the tiles are taken in.
        image, _ = lax.optimization_barrier((image, starts))
        return lax.bitcast_convert_type(image, jnp.uint16)

    def room(self, shape: tuple[int, ...], length: int, *like: Array) -> Array:
        """Zeros for `put` to write a result of `shape` over, from tiles of such a `length` on its last axis, which the arrays
        `like` are given for; to be reshaped at last.

        16-bit numbers are put as bits, and XLA for CPU walks over all of the result for every tile, skipping rows that are not
        in it: so what is cut along its last axis has rows that are in a tile as a whole, or not at all. Where they would be
        short, the result is bits, and copied at last.
        """
        row = shape[-1] if self.channels_last else math.gcd(length, shape[-1])
        if not self.puts_bits or row == shape[-1]:
            return blank(shape, self.result, *like)
        if row < _SHORT_ROW:
            return blank(shape, jnp.uint16, *like)
        return blank((*shape[:-1], shape[-1] // row, row), self.result, *like)

    def put(self, result: Array, tile: Array, first_axis: int, starts: Sequence[Start]) -> Array:
        """A `room` with `tile` in it from `starts` on; where the tile is all of the result, the tile. A room may have the last
        two axes of a tile as one, the first of which is then not cut."""
        if result.ndim < tile.ndim:
            tile, starts = tile.reshape(*tile.shape[:-2], -1), starts[:-1]
        if not self.puts_bits or result.size == tile.size:
            return put(result, tile, first_axis, starts)
        if result.ndim > tile.ndim:
            row, last = result.shape[-1], starts[-1]
            tile = tile.reshape(*tile.shape[:-1], -1, row)
            starts = [*starts[:-1], last // row if isinstance(last, int) else lax.div(last, row)]
        whole, part = (lax.bitcast_convert_type(image, jnp.uint16) for image in (result, tile))
        # `result` itself may be bits.
        return lax.bitcast_convert_type(put(whole, part, first_axis, starts), result.dtype)

    @property
    def puts_bits(self) -> bool:
        """Whether results are written as bits."""
        return self.bits is not None and self.has_half

    def for_copies(self, tile: Array) -> Array:
        """A tile as it is copied: in the accumulator's dtype, as the derivative of copying adds up; bits as they are."""
        return tile.astype(self.accumulate) if self.bits is None else tile

    def for_sums(self, tile: Array, dtype: Any) -> Array:
        """A tile, or copies of one, as numbers of `dtype`."""
        return (tile if self.bits is None else lax.bitcast_convert_type(tile, self.bits)).astype(dtype)

    def as_factors(self, left: Array, right: Array) -> tuple[Array, Array]:
        """The factors of a product. XLA for CPU asks its library whether it multiplies 16-bit numbers before it folds a
        transposition into a product, as it may for a single sample, and fails to run what that makes: so these are apart."""
        half = 2 in (left.dtype.itemsize, right.dtype.itemsize)
        return lax.optimization_barrier((left, right)) if half else (left, right)

    def made_once(self, factor: Array) -> Array:
        """A factor that every tile has. XLA takes no transposition out of a loop, and would make one for each; and compiles what
        makes it once, for the output and for a gradient, where both have it in one shape."""
        return lax.optimization_barrier(laid_out(factor))

    def as_call(self, function: Callable[..., Array], *arrays: Array) -> Array:
        """`function(*arrays)`, as a call that XLA does not inline if `calls` are wanted, and so does not fuse with what takes
        its result.

        XLA for CPU shares a fused loop between the cores, but gives one that ends in writing to a place in a larger array to
        one; and one that ends in a reshape finds the old index of every entry by division.
        """
        if not self.calls:
            return function(*arrays)

        def inside(*arrays: Array) -> Array:
            # What it calls itself is inlined into it.
            with set_xla_metadata(inlineable="true"):
                return function(*arrays)

        with set_xla_metadata(inlineable="false"):
            return jax.jit(inside)(*arrays)

    def as_call_at(self, function: Callable[..., Array], cells: Sequence[Cells], *arrays: Array) -> Array:
        """`function(cells, *arrays)` as a call, which is given the places that are not known."""
        starts = [start for start, _, _ in cells if not isinstance(start, int)]

        def placed(*given: Array) -> Array:
            left = iter(given[len(arrays) :])
            own = [(start if isinstance(start, int) else next(left), size, bounds) for start, size, bounds in cells]
            return function(own, *given[: len(arrays)])

        return self.as_call(placed, *arrays, *starts)

    def cut(self, image: Array, cells: Sequence[Cells], at_once: bool = False) -> Array:
        """The cells of the spatial axes of an image, zero where they are outside, as `for_tiles` has them; `at_once` in a call,
        where some are not known: then they are copied as they lie, and whatever moves them finds them in the cache."""

        def part(cells: Sequence[Cells], image: Array) -> Array:
            return cut(self.for_tiles(image, *(start for start, _, _ in cells)), self.first_spatial, cells)

        def as_run(cells: Sequence[Cells], image: Array) -> Array:
            tile = part(cells, image)
            return tile.reshape(*tile.shape[:-2], -1)

        if not at_once or all(isinstance(start, int) for start, _, _ in cells):
            return part(cells, image)
        if not is_run(image, self.first_spatial, cells):
            return self.as_call_at(part, cells, image)
        batch, _, channels = self.sizes(image)
        run = self.as_call_at(as_run, cells, image)
        return run.reshape(self.shape(batch, tuple(size for _, size, _ in cells), channels))

    def turned(self, sizes: tuple[int, ...]) -> "Convolution":
        """The convolution of stride 1 that takes a cotangent of `sizes` to the gradient of the input, with `turned_kernel`."""
        window, padding = self.window, []
        for axis, (size, wanted) in enumerate(zip(sizes, self.spatial, strict=True)):
            low = window.extent(axis) - 1 - window.padding[axis][0]
            padding.append((low, wanted + window.extent(axis) - 1 - low - size))
        return replace(
            self, window=Window(window.kernel, (1,) * window.rank, tuple(padding), window.dilation), spatial=sizes
        )

    def turned_kernel(self, weight: Array) -> Array:
        """`weight` with its taps in reverse order, and the channels of input and output exchanged in every group."""
        kernel = jnp.swapaxes(self.by_group(weight), 1, 2)
        kernel = jnp.flip(kernel, range(3, kernel.ndim))
        return kernel.reshape(-1, *kernel.shape[2:])

    def as_output(self, weight: Array, cotangent: Array) -> tuple["Convolution", Array, Array]:
        """Whose eq. 2, and of what, an input gradient without a stride is: of the cotangent, and the kernel turned around."""
        kernel = self.turned_kernel(weight).astype(cotangent.dtype)
        return self.turned(self.sizes(cotangent)[1]), cotangent, kernel

    @property
    def has_phases(self) -> bool:
        """Whether `phases` can take a stride apart: one that divides the kernel, without dilation, channels first."""
        window = self.window
        divided = not any(taps % stride for taps, stride in zip(window.kernel, window.stride, strict=True))
        return divided and max(window.stride) > 1 and max(window.dilation) == 1 and not self.channels_last

    @property
    def has_blocks(self) -> bool:
        """Whether a kernel is taken in `unfolded` blocks: a signal's, without a stride."""
        window, count = self.window, self.unfolded
        return window.rank == window.stride[0] == 1 < count <= window.taps and window.has_blocks(count)

    @property
    def has_frequencies(self) -> bool:
        """Whether `fourier` takes a signal, without a stride, in windows of `unfolded` cells: even, and more than taps."""
        window, cells = self.window, self.unfolded
        return window.rank == window.stride[0] == 1 and cells > window.taps and cells % 2 == 0

    @property
    def is_plain(self) -> bool:
        """Whether there are several taps, no stride, one group, and channels first."""
        return self.groups == max(self.window.stride) == 1 < self.window.taps and not self.channels_last

    @property
    def folds_rows(self) -> bool:
        """Whether `fold` folds the last axis alone, channels first, so that rows of an image may be one run."""
        return 0 < self.unfolded == self.window.rank - 1 and not self.channels_last

    @property
    def of_phases(self) -> "Convolution":
        """The convolution of stride 1 that `phases` makes of this one: over every stride-th cell that some window reads."""
        window, rank = self.window, self.window.rank
        kernel = tuple(taps // stride for taps, stride in zip(window.kernel, window.stride, strict=True))
        reach = [window.reach(axis, positions) for axis, positions in enumerate(self.out_spatial)]
        spatial = tuple(cells // stride for cells, stride in zip(reach, window.stride, strict=True))
        inner = Window(kernel, (1,) * rank, ((0, 0),) * rank, (1,) * rank)
        return replace(self, window=inner, spatial=spatial)

    def by_group(self, weight: Array) -> Array:
        """A weight as (g, output channels of a group, input channels of a group, *kernel)."""
        return weight.reshape(self.groups, -1, *weight.shape[1:])

    def matrix(self, weight: Array) -> Array:
        """W~ of every group, (g, q, *k and c), in the order of U's columns; (q, *k and c) of one group."""
        matrix = moved(self.by_group(weight), (0, 1, *range(3, 3 + self.window.rank), 2))
        return matrix.reshape(*self.lead, matrix.shape[1], -1)

    def matrix_once(self, weight: Array) -> Array:
        """`matrix`, which is `made_once` where a weight is not its matrix as it lies."""
        matrix = self.matrix(weight)
        return matrix if self._lies_as_matrix(weight.shape[1]) else self.made_once(matrix)

    def _lies_as_matrix(self, channels: int) -> bool:
        """Whether a weight of so many channels per group has the entries of its `matrix` in their order."""
        return 1 in (channels, self.window.taps)

    def exchanges(self, rows: int, columns: int) -> bool:
        """Whether eq. 4, of a cotangent of so many rows and a U of so many columns, is taken as U times cotangent. With channels
        last, where positions are in front, a CPU's library turns the left factor around: the one of fewer channels (measured: up
        to five times as fast). With channels first it copies the right one."""
        return columns < rows if self.channels_last else not better_right(columns, rows)

    def kept(self, product: Array) -> Array:
        """A product whose factors were exchanged, which XLA would exchange again where its axes are moved at once."""
        return lax.optimization_barrier(product)

    def weight_of(self, matrix: Array, exchanged: bool) -> Array:
        """A weight from its entries in the order of `matrix`, or, `exchanged`, (g, *k and c, q)."""
        matrix = self.kept(matrix) if exchanged else matrix
        rank, kernel = self.window.rank, self.window.kernel
        rows, columns = matrix.shape[-1 if exchanged else -2], matrix.shape[-2 if exchanged else -1]
        entries = (*kernel, columns // self.window.taps)
        if exchanged:
            weight = moved(matrix.reshape(self.groups, *entries, rows), (0, 2 + rank, 1 + rank, *range(1, 1 + rank)))
        else:
            weight = moved(matrix.reshape(self.groups, rows, *entries), (0, 1, 2 + rank, *range(2, 2 + rank)))
            if self._lies_as_matrix(entries[-1]):
                return weight.reshape(-1, *weight.shape[2:])
        return self.as_result(weight.reshape(-1, *weight.shape[2:]))

    def as_result(self, gradient: Array) -> Array:
        """A gradient of the weight whose axes were moved: as it is where it is added to that of another part of the batch."""
        return laid_out(gradient) if self.parts == 1 else gradient

    @property
    def lead(self) -> tuple[int, ...]:
        """The leading axes of a factor of `product`: the groups; none for one group, as XLA updates in place only what
        is not reshaped."""
        return (self.groups,) if self.groups > 1 else ()

    def product(self, left: Array, right: Array, left_axis: int, right_axis: int) -> Array:
        """The sum of products over one axis of each factor, group by group."""
        lead = tuple(range(len(self.lead)))
        return lax.dot_general(left, right, (((left_axis,), (right_axis,)), (lead, lead)), **self.dot)

    def times(self, length: int) -> "Convolution":
        """The same as one of so many that `jax.vmap` runs at the same time."""
        return replace(self, mapped=self.mapped * length)

    def giving(self, result: Any) -> "Convolution":
        """The same with results of another dtype."""
        return replace(self, result=result)


# Shorter rows take as long to skip as to copy (measured: of 32 cells four times as long as of 128).
_SHORT_ROW = 64


def traced_once(function: Callable[..., Array]) -> Callable[..., Array]:
    """An engine's function of a convolution and arrays, traced once for arrays of the same shapes: an input gradient without a
    stride is mostly the output of the same convolution again."""
    traced = jax.jit(function, static_argnums=0, inline=True)

    @wraps(function)
    def once(convolution: Convolution, *arrays: Array | None) -> Array:
        # JAX tells an argument that is None from one that is left out.
        return traced(convolution, *(array for array in arrays if array is not None))

    return once
