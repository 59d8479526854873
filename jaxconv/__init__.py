"""Convolutions for JAX as pure functions: unfold, multiply, and a hand-written VJP.

Equation numbers and letters are those of *Some formulae* (M. Calafà, P. Motta, T. Rimbot, EE-559 Deep Learning, 2022):
I, W, B, O are input, weight, bias and output; U is the unfolded input; a tilde marks the flat view of a tensor, in the
code also `W~`; G is the gradient of the loss with respect to O.
"""

from jaxconv import formulas, lax
from jaxconv.conv import conv, conv1d, conv2d, conv3d
from jaxconv.conv_local import conv_local
from jaxconv.conv_transpose import conv_transpose, conv_transpose1d, conv_transpose2d, conv_transpose3d
from jaxconv.differentiation import forward_mode
from jaxconv.unfold import fold, unfold

__all__ = [
    "conv",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_local",
    "conv_transpose",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "fold",
    "formulas",
    "forward_mode",
    "lax",
    "unfold",
]
__version__ = "0.1.0"
