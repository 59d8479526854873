"""Entries moved, copied, dropped and filled in, but never changed."""

import jax.numpy as jnp
import numpy as np

from derivations.interpreter import exact_array, rule

rule("reshape")(lambda exact, params, x: x.reshape(params["new_sizes"]))
rule("transpose")(lambda exact, params, x: x.transpose(params["permutation"]))
rule("squeeze")(lambda exact, params, x: x.reshape([s for i, s in enumerate(x.shape) if i not in params["dimensions"]]))
rule("expand_dims")(lambda exact, params, x: np.expand_dims(x, params["dimensions"]))
rule("rev")(lambda exact, params, x: np.flip(x, params["dimensions"]))
rule("concatenate")(lambda exact, params, *x: np.concatenate(x, params["dimension"]))
rule("stack")(lambda exact, params, *x: np.stack(x, params["axis"]))


@rule("broadcast_in_dim")
def _broadcast_in_dim(exact, params, x, *dynamic):
    shape = [1] * len(params["shape"])
    for axis, target in enumerate(params["broadcast_dimensions"]):
        shape[target] = x.shape[axis]
    return np.broadcast_to(x.reshape(shape), params["shape"])


@rule("slice")
def _slice(exact, params, x):
    strides = params["strides"] or (1,) * x.ndim
    return x[tuple(map(slice, params["start_indices"], params["limit_indices"], strides))]


@rule("split")
def _split(exact, params, x):
    return np.split(x, np.cumsum(params["sizes"])[:-1], params["axis"])


@rule("unstack")
def _unstack(exact, params, x):
    return list(np.moveaxis(x, params["axis"], 0))


@rule("pad")
def _pad(exact, params, x, filling):
    """Interior cells first; then a negative edge crops and a positive one fills."""
    config = params["padding_config"]
    spread = np.empty(
        [max(0, size + (size - 1) * gap) for size, (_, _, gap) in zip(x.shape, config, strict=True)], x.dtype
    )
    spread[...] = filling[()]
    spread[tuple(slice(None, None, gap + 1) for _, _, gap in config)] = x
    shape = [size + low + high for size, (low, high, _) in zip(spread.shape, config, strict=True)]
    result = np.empty(shape, x.dtype)
    result[...] = filling[()]
    kept, place = [], []
    for size, length, (low, _, _) in zip(spread.shape, shape, config, strict=True):
        first, last = max(0, -low), max(max(0, -low), min(size, length - low))
        kept.append(slice(first, last))
        place.append(slice(first + low, last + low))
    result[tuple(place)] = spread[tuple(kept)]
    return result


@rule("iota")
def _iota(exact, params, *dynamic):
    shape = params["shape"]
    along = [1] * len(shape)
    along[params["dimension"]] = shape[params["dimension"]]
    numbers = np.broadcast_to(np.arange(shape[params["dimension"]]).reshape(along), shape)
    floating = jnp.issubdtype(params["dtype"], np.floating)
    return exact_array(exact, numbers.astype(np.float64)) if floating else numbers.astype(params["dtype"])


@rule("empty", "empty2")
def _empty(exact, params, *dynamic):
    """Memory that nobody has written yet. NaN, so that reading it before it is written shows."""
    result = np.empty(params.get("shape", ()), object)
    result[...] = float("nan")
    return result
