"""A convolution as an engine is given it, and what is traced of one."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxprs import equations

from jaxconv.convolution import Convolution
from jaxconv.window import make_window

Shape = tuple[int, ...]


def layer(given: Shape, weight: Shape, padding: int = 0, groups: int = 1, stride: Any = 1, **more: Any) -> Convolution:
    """Of an input with channels first, in float32."""
    window = make_window(weight[2:], stride, padding, 1, len(weight) - 2)
    return Convolution(window, given[2:], groups, None, jnp.float32, jnp.float32, **more)


def traced(function: Callable[..., Any], convolution: Convolution, *shapes: Shape) -> list[Any]:
    """All operations."""
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return list(equations(jax.make_jaxpr(function, static_argnums=0)(convolution, *arrays).jaxpr))


def given_to(name: str, function: Callable[..., Any], convolution: Convolution, *shapes: Shape) -> list[list[Shape]]:
    """The shapes that every operation of that name is given."""
    made = traced(function, convolution, *shapes)
    return [[one.aval.shape for one in each.invars] for each in made if each.primitive.name == name]
