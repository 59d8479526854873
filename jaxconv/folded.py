"""What is made of copies that are taken for some of a kernel's taps alone: products with a row per tap of the others, which are
added up shifted, and for eq. 4 products with copies of the cotangent, one for each of those.

`fold` has these for whole axes, `blocks` for neighbouring taps of one axis and for their blocks.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxconv.convolution import Convolution
from jaxconv.tiles import Start, Tiles, blank, each, moved, piece, seen_by
from jaxconv.window import Place, Taps


def products(convolution: Convolution, matrix: Array, rows: tuple[int, ...], image: Array, columns: int = -1) -> Array:
    """The product of a matrix (g, rows, columns), or with its `columns` on another axis, and an image whose channels, and taps if
    any, these are: (g, *rows, N, *spatial), or (g, N, *spatial, *rows) with channels last."""
    groups, rank = convolution.groups, convolution.window.rank
    factor = _as_factor(convolution, image)
    if convolution.channels_last:
        product = convolution.product(factor, matrix, factor.ndim - 1, matrix.ndim + columns)
        return product.reshape(*image.shape[: 2 + rank], *rows)
    product = convolution.product(matrix, factor, matrix.ndim + columns, factor.ndim - 2)
    return product.reshape(groups, *rows, *image.shape[-1 - rank :])


def sum_of_taps(products: Array, tap_axis: int, spatial_axis: int, taps: Taps, length: int) -> Array:
    """The sum over taps of a spatial axis, `length` positions of each; the axis of taps is before it, or behind it."""

    def part(index: Start) -> Array:
        one = piece(products, taps.first + taps.step * index, 1, tap_axis)
        # The axis of taps has one entry still.
        return seen_by(one, taps, index, length, spatial_axis + (tap_axis <= spatial_axis))

    total = part(0)
    if not taps.count:
        total = jnp.zeros_like(total)
    total = each(taps.count - 1, lambda index, total: lax.add(total, part(index + 1)), total)
    return lax.squeeze(total, [tap_axis])


def as_image(convolution: Convolution, sums: Array, bias: Array | None) -> Array:
    """Sums (g, channels, N, *spatial) or (g, N, *spatial, channels) as an image in the caller's layout, rounded."""
    if convolution.channels_last:
        image = jnp.moveaxis(sums, 0, -2)
        image = image.reshape(*image.shape[:-2], -1)
    else:
        image = jnp.moveaxis(sums, 2, 0)
        image = image.reshape(image.shape[0], -1, *image.shape[3:])
    return convolution.finished(image, bias)


def gradient(
    convolution: Convolution,
    grid: Tiles,
    copied: Callable[[list[Place]], tuple[Array, Array]],
    images: Sequence[Array],
    taps_of_input: Mapping[int, int],
    taps_of_cotangent: Mapping[int, int],
    inside: Callable[[int, Place], bool] | None = None,
) -> Array:
    """Eq. 4 as (q, c of a group, *k): the sum over the tiles of a grid of products of what is `copied` there of the `images`,
    input and cotangent, each for its own axes of taps, of which are given the number and the length."""
    batch, groups = images[0].shape[0], convolution.groups
    inner, outer = (convolution.sizes(image)[2] // groups for image in images)
    lengths: dict[Any, int] = {"c": inner, "q": outer, **taps_of_input, **taps_of_cotangent}
    of_u, of_g = ["c", *taps_of_input], ["q", *taps_of_cotangent]
    if convolution.channels_last:
        of_u, of_g = [*of_u[1:], "c"], [*of_g[1:], "q"]
    columns, rows = (math.prod(lengths[name] for name in names) for names in (of_u, of_g))
    exchanged = convolution.exchanges(rows, columns) or is_square(inner, outer, taps_of_input, taps_of_cotangent)

    def step(places: list[Place], total: Array) -> Array:
        u, g = (_as_factor(convolution, copies) for copies in copied(places))
        new = grid.is_new(places)
        if new is not None:
            # In both factors, since zero times infinity is no zero.
            new = jnp.tile(new.reshape(-1), batch)
            new = new[:, None] if convolution.channels_last else new
            u, g = (jnp.where(new, factor, jnp.zeros((), factor.dtype)) for factor in (u, g))
        terms = u.ndim - (2 if convolution.channels_last else 1)
        return total + convolution.product(*((u, g) if exchanged else (g, u)), terms, terms)

    shape = (columns, rows) if exchanged else (rows, columns)
    total = grid.walk(step, blank((*convolution.lead, *shape), convolution.accumulate, *images), inside)
    total = convolution.kept(total) if exchanged else total
    names, axes = of_u + of_g if exchanged else of_g + of_u, sorted({**taps_of_input, **taps_of_cotangent})
    total = total.reshape(groups, *(lengths[name] for name in names))
    total = moved(total, (0, *(1 + names.index(name) for name in ("q", "c", *axes))))
    return total.reshape(groups * outer, inner, *(lengths[axis] for axis in axes))


def is_square(inner: int, outer: int, taps_of_input: Mapping[int, int], taps_of_cotangent: Mapping[int, int]) -> bool:
    """Whether a group has one channel in and out, and both images equally many taps: then `gradient` exchanges its factors, and
    the product is the gradient as it lies."""
    return inner == outer == 1 and math.prod(taps_of_input.values()) == math.prod(taps_of_cotangent.values())


def _as_factor(convolution: Convolution, image: Array) -> Array:
    """(g, *k, channels, N, *spatial) as (g, columns, terms), or (g, N, *spatial, *k, channels) as (g, terms, columns);
    without g where there is one group."""
    rank = convolution.window.rank
    at = 2 + rank if convolution.channels_last else image.ndim - 1 - rank
    return image.reshape(*convolution.lead, math.prod(image.shape[1:at]), math.prod(image.shape[at:]))
