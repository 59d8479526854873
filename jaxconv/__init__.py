"""Convolutions for JAX as pure functions: unfold, multiply, and a hand-written VJP.

Equation numbers and letters are those of *Some formulae* (M. Calafà, P. Motta, T. Rimbot, EE-559 Deep Learning, 2022):
I, W, B, O are input, weight, bias and output; U is the unfolded input; a tilde marks the flat view of a tensor, in the
code also `W~`; G is the gradient of the loss with respect to O.
"""

from jaxconv import formulas
from jaxconv.conv import conv, conv1d, conv2d, conv3d
from jaxconv.unfold import fold, unfold

__all__ = ["conv", "conv1d", "conv2d", "conv3d", "fold", "formulas", "unfold"]
__version__ = "0.1.0"
