"""What a compiled forward and backward pass keeps in memory, as XLA accounts for it before anything is run."""

from typing import Any

import jax
import numpy as np

import jaxconv


def of_vjp(
    input: tuple[int, ...], weight: tuple[int, ...], options: dict[str, Any], last: bool, dtype: Any
) -> tuple[int, int, int, int]:
    """Bytes of the temporaries of a layer's VJP, of U, of the input and of the output; `input` has its channels first."""
    shape = (input[0], *input[2:], input[1]) if last else input
    layout = "channels_last" if last else "channels_first"

    def layer(x, w):
        return jaxconv.conv(x, w, **options, data_format=layout)

    x, w = jax.ShapeDtypeStruct(shape, dtype), jax.ShapeDtypeStruct(weight, dtype)
    g = jax.eval_shape(layer, x, w)

    def both(x, w, g):
        output, pull = jax.vjp(layer, x, w)
        return output, pull(g)

    memory = jax.jit(both).lower(x, w, g).compile().memory_analysis()
    assert memory is not None
    size = g.dtype.itemsize
    u = size * g.size // weight[0] * input[1] * int(np.prod(weight[2:]))
    return memory.temp_size_in_bytes, u, size * x.size, size * g.size
