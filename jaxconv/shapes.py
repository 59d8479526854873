"""The array shapes that public signatures speak of, under the names of the seed.

`*spatial` stands for any number of axes. An unbatched array is the same without its leading `N`.
"""

from jax import Array
from jaxtyping import Inexact

Input = Inexact[Array, "N C_in *spatial"] | Inexact[Array, "C_in *spatial"]
Weight = Inexact[Array, "C_out C_in/groups *kernel"]
Bias = Inexact[Array, " C_out"]
Output = Inexact[Array, "N C_out *out_spatial"] | Inexact[Array, "C_out *out_spatial"]

Unfolded = Inexact[Array, "N C_in*prod(kernel) L"] | Inexact[Array, "C_in*prod(kernel) L"]

# What eqs. 2-5 act on, in the seed's index letters: p sample, q output channel, m row of U, r output position.
U = Inexact[Array, "p m r"]
FlatWeight = Inexact[Array, "q m/groups"]
FlatOutput = Inexact[Array, "p q r"]
