"""Padding with something else than zeros, as torch's `nn.Conv1d`, `nn.Conv2d` and `nn.Conv3d` have it."""

from dataclasses import replace

import jax.numpy as jnp
from jax import Array

from jaxconv.window import Window

# What jax.numpy.pad calls torch's modes, and how many cells more than the size of an axis each can fill.
_MODES = {"reflect": ("reflect", -1), "replicate": ("edge", None), "circular": ("wrap", 0)}


def pad_for_mode(input: Array, window: Window, mode: str, first_axis: int) -> tuple[Array, Window]:
    """`input`, whose spatial axes are from `first_axis` on, padded as `window` says, and the window without that padding;
    both as they are for zeros.

    The gradient of a padded cell is that of all the cells it was copied to, summed by JAX in the input's dtype.

    Raises:
        ValueError: an unknown mode, or more cells on one side than the input has to fill them with.
    """
    if mode == "zeros":
        return input, window
    if not isinstance(mode, str) or mode not in _MODES:
        raise ValueError(f'`padding_mode` must be "zeros", "reflect", "replicate" or "circular", got {mode!r}')
    name, beyond = _MODES[mode]
    for axis, (size, sides) in enumerate(zip(input.shape[first_axis:], window.padding, strict=False)):
        if beyond is not None and max(sides) > size + beyond:
            raise ValueError(
                f"`padding` must be at most {size + beyond} on spatial axis {axis} for padding_mode={mode!r} and "
                f"{size} cells, got {sides}"
            )
    sides = [(0, 0)] * input.ndim
    sides[first_axis : first_axis + window.rank] = window.padding
    padded = jnp.pad(input, sides, mode=name)
    return padded, replace(window, padding=((0, 0),) * window.rank)
