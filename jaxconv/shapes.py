"""The array shapes that public signatures speak of, under the names of the seed.

`*spatial` stands for any number of axes. Arguments may be NumPy arrays, and may leave out the batch axis `N`.
"""

import numpy as np
from jax import Array
from jaxtyping import Inexact

Argument = Array | np.ndarray

Input = Inexact[Argument, "N C_in *spatial"] | Inexact[Argument, "C_in *spatial"]
Weight = Inexact[Argument, "C_out C_in/groups *kernel"]
Bias = Inexact[Argument, " C_out"]
Output = Inexact[Array, "N C_out *out_spatial"] | Inexact[Array, "C_out *out_spatial"]

Columns = Inexact[Argument, "N C*prod(kernel) L"] | Inexact[Argument, "C*prod(kernel) L"]
Unfolded = Inexact[Array, "N C*prod(kernel) L"] | Inexact[Array, "C*prod(kernel) L"]
Folded = Inexact[Array, "N C *output_size"] | Inexact[Array, "C *output_size"]

# What eqs. 2-5 act on, in the seed's index letters: p sample, q output channel, m row of U, r output position.
U = Inexact[Array, "p m r"]
FlatWeight = Inexact[Array, "q m/groups"]
FlatBias = Inexact[Array, " q"]
FlatOutput = Inexact[Array, "p q r"]
