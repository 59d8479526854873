"""Convolutions for JAX as pure functions: unfold, multiply, and a hand-written VJP."""

from jaxconv import formulas
from jaxconv.conv import conv, conv1d, conv2d, conv3d
from jaxconv.unfold import fold, unfold

__all__ = ["conv", "conv1d", "conv2d", "conv3d", "fold", "formulas", "unfold"]
__version__ = "0.1.0"
