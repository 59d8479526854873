"""The array shapes that public signatures speak of, under the names of torch and of *Some formulae*.

`*spatial` stands for any number of axes, `C_group` for C_in / groups, `C_taps` for C * prod(kernel). Arguments may be
NumPy arrays, and may leave out the batch axis `N`.
"""

import numpy as np
from jax import Array
from jaxtyping import Inexact

Argument = Array | np.ndarray

Input = Inexact[Argument, "N C_in *spatial"] | Inexact[Argument, "C_in *spatial"]
Weight = Inexact[Argument, "C_out C_group *kernel"]
TransposedWeight = Inexact[Argument, "C_in C_out_group *kernel"]
LocalWeight = Inexact[Argument, "C_out C_group *kernel_and_out_spatial"]
Bias = Inexact[Argument, " C_out"]
LocalBias = Bias | Inexact[Argument, "C_out *out_spatial"]
Output = Inexact[Array, "N C_out *out_spatial"] | Inexact[Array, "C_out *out_spatial"]

Columns = Inexact[Argument, "N C_taps L"] | Inexact[Argument, "C_taps L"]
Unfolded = Inexact[Array, "N C_taps L"] | Inexact[Array, "C_taps L"]
Folded = Inexact[Array, "N C *output_size"] | Inexact[Array, "C *output_size"]

# What eqs. 2-5 act on, in their index letters: p sample, q output channel, m row of U, r output position.
U = Inexact[Array, "p m r"]
FlatWeight = Inexact[Array, "q m_group"]
FlatBias = Inexact[Array, " q"]
FlatOutput = Inexact[Array, "p q r"]
