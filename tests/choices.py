"""What the rule chooses for a layer, part by part."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxconv import choice
from jaxconv.convolution import Convolution

PARTS = ("output", "input_gradient", "weight_gradient")


def chosen(convolution: Convolution, weight: tuple[int, ...], batch: int) -> list[tuple[Any, Convolution]]:
    """An engine for each part, and how it is used."""
    image: Any = jax.ShapeDtypeStruct((batch, 1), jnp.float32)  # of which its batch alone is looked at
    return [choice.chosen(convolution, part, weight, image) for part in PARTS]


def named(convolution: Convolution, weight: tuple[int, ...], batch: int) -> tuple[str, ...]:
    """The name of each, with how many axes it unfolds and whether it moves channels."""
    told = []
    for module, own in chosen(convolution, weight, batch):
        name = module.__name__.rpartition(".")[2]
        name += f" {own.unfolded}" if name in ("fold", "phases", "blocks", "fourier") else ""
        told.append(f"{name} moved" if own.channels_moved else name)
    return tuple(told)
