"""The formulas to the letter: write U out in full, then multiply.

The readable engine, and what every other way of summing is held against. It pays for U: `taps` times the
input in memory, forward and backward.
"""

import math

from jax import Array

from jaxconv import formulas
from jaxconv.convolution import Convolution
from jaxconv.unfold import fold_columns, unfold_columns

IN_TILES = False


def output(convolution: Convolution, input: Array, weight: Array, bias: Array | None = None) -> Array:
    """Eq. 1 and 2: unfold, multiply by W~, add B~, view."""
    u = unfold_columns(convolution.window, convolution.channels_second(input))
    bias = None if bias is None else bias.astype(convolution.accumulate)
    u, matrix = convolution.as_factors(u, _flat(weight))
    flat = formulas.output(u, matrix, bias, convolution.groups, **convolution.dot)
    image = flat.reshape(*flat.shape[:2], *convolution.out_spatial)
    return convolution.as_given(image.astype(convolution.result))


def input_gradient(convolution: Convolution, weight: Array, cotangent: Array, bias: Array | None = None) -> Array:
    """The first pipeline: view, eq. 3, fold."""
    flat = formulas.flat(convolution.channels_second(cotangent))
    flat, matrix = convolution.as_factors(flat, _flat(weight).astype(flat.dtype))
    u_gradient = formulas.unfolded_gradient(flat, matrix, convolution.groups, **convolution.dot)
    image = convolution.as_given(fold_columns(convolution.window, convolution.spatial, u_gradient))
    return convolution.finished(image, bias)


def weight_gradient(convolution: Convolution, input: Array, cotangent: Array) -> Array:
    """The second pipeline: view, eq. 4, view."""
    input, cotangent = convolution.channels_second(input), convolution.channels_second(cotangent)
    u = unfold_columns(convolution.window, input)
    flat, u = convolution.as_factors(formulas.flat(cotangent), u.astype(cotangent.dtype))
    flat = formulas.weight_gradient(flat, u, convolution.groups, **convolution.dot)
    group_channels = input.shape[1] // convolution.groups
    return flat.reshape(flat.shape[0], group_channels, *convolution.window.kernel).astype(convolution.result)


def _flat(weight: Array) -> Array:
    """W~, the view `(out_channels, -1)`."""
    return weight.reshape(weight.shape[0], math.prod(weight.shape[1:]))
