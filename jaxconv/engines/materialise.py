"""The seed to the letter: write U out in full, then multiply.

Reads like `some-formulae.md`, and is what every other way of summing is held against. It pays for U: `taps` times the
input in memory, forward and backward.
"""

import math

from jax import Array

from jaxconv import formulas
from jaxconv.convolution import Convolution
from jaxconv.unfold import fold_columns, unfold_columns


def output(conv: Convolution, input: Array, weight: Array, bias: Array | None) -> Array:
    """Eq. 1 and 2: unfold, multiply by W~, add B~, view."""
    u = unfold_columns(conv.window, input)
    flat = formulas.output(u, _flat(weight), bias, conv.groups, **conv.dot)
    return flat.astype(conv.result).reshape(*flat.shape[:2], *conv.out_spatial)


def input_gradient(conv: Convolution, weight: Array, cotangent: Array) -> Array:
    """The seed's first boxed pipeline: view, eq. 3, fold."""
    u_gradient = formulas.unfolded_gradient(formulas.flat(cotangent), _flat(weight), conv.groups, **conv.dot)
    return fold_columns(conv.window, conv.spatial, u_gradient).astype(weight.dtype)


def weight_gradient(conv: Convolution, input: Array, cotangent: Array) -> Array:
    """The seed's second boxed pipeline: view, eq. 4, view."""
    u = unfold_columns(conv.window, input)
    flat = formulas.weight_gradient(formulas.flat(cotangent), u, conv.groups, **conv.dot)
    group_channels = input.shape[1] // conv.groups
    return flat.reshape(flat.shape[0], group_channels, *conv.window.kernel).astype(input.dtype)


def _flat(weight: Array) -> Array:
    """W~, the view `(out_channels, -1)`."""
    return weight.reshape(weight.shape[0], math.prod(weight.shape[1:]))
