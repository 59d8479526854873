"""How the public functions are registered: a hand-written VJP, one compiled program, and forward mode on request.

`jax.custom_vjp` is what reverse mode runs; it refuses forward mode. Of what JAX offers to have both, the primitives of
`jax.experimental.hijax` would do, but are called and built differently in JAX 0.10 and 0.11. So inside `forward_mode()` the same
functions are plain JAX operations instead, whose derivative is the product rule.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero
from jax.experimental.xla_metadata import set_xla_metadata

from jaxconv import primitive

_FORWARD: ContextVar[bool] = ContextVar("jaxconv_forward_mode", default=False)


@contextmanager
def forward_mode() -> Iterator[None]:
    """A context in which convolutions, `unfold` and `fold` can be differentiated forwards too.

        with jaxconv.forward_mode():
            output, tangent = jax.jvp(layer, (input,), (direction,))

    `jax.jvp`, `jax.jacfwd`, `jax.linearize` and `jax.linear_transpose` work inside, and so does reverse mode, which JAX then
    derives itself by transposing the same products. Outside, reverse mode runs the hand-written rules. Functions that
    were traced by `jax.jit` outside are traced anew inside, and the other way round.
    """
    token = _FORWARD.set(True)
    try:
        # The metadata is what `jax.jit` sees of the context: it is a part of every cache key.
        with set_xla_metadata(jaxconv="forward_mode"):
            yield
    finally:
        _FORWARD.reset(token)


def _registered(primal: Callable, forward: Callable, backward: Callable, static: int, symbolic_zeros: bool) -> Callable:
    """`primal` with its VJP rule, outside of `forward_mode`; its first `static` arguments are no arrays.

    Outside jit the work is one compiled program and not a dispatch an operation; inside jit that program vanishes.
    """
    places = tuple(range(static))
    ruled = jax.custom_vjp(primal, nondiff_argnums=places)
    ruled.defvjp(forward, backward, symbolic_zeros=symbolic_zeros)
    with_rule = jax.jit(ruled, static_argnums=places, inline=True)
    without = jax.jit(primal, static_argnums=places, inline=True)

    def function(*arguments: Any) -> Array:
        return (without if _FORWARD.get() else with_rule)(*arguments)

    function.compiled = with_rule  # type: ignore[attr-defined]
    return function


def linear(primal: Callable[..., Array], transpose: Callable[..., Array]) -> Callable[..., Array]:
    """Registers `primal(window, spatial, array)`, which is linear in the array, with `transpose` as its VJP.

    Nothing is kept for the backward pass. The rule calls the plain functions and not the registered ones, because
    `jax.hessian` differentiates a rule forwards.
    """

    def forward(window, spatial, array):
        return primal(window, spatial, array), None

    def backward(window, spatial, _, cotangent):
        return (transpose(window, spatial, cotangent),)

    return _registered(primal, forward, backward, static=2, symbolic_zeros=False)


def bilinear(
    output: Callable[..., Array],
    input_gradient: Callable[..., Array],
    weight_gradient: Callable[..., Array],
    bias_gradient: Callable[..., Array],
) -> Callable[..., Array]:
    """Registers `output(static, input, weight, bias)`, linear in input and weight each, with its three gradients.

    `input_gradient(static, weight, cotangent)`, `weight_gradient(static, input, cotangent)` and
    `bias_gradient(static, bias, cotangent)` are computed, and what they need is kept, only where somebody asks for them.
    """

    def forward(static, input, weight, bias):
        # `output` and not the registered function: jax.hessian differentiates this rule forwards.
        result = output(static, input.value, weight.value, None if bias is None else bias.value)
        for_input = _kept(weight.value, input.perturbed)
        for_weight = _kept(input.value, weight.perturbed)
        for_bias = None if bias is None else _kept(bias.value, bias.perturbed)
        return result, (for_input, for_weight, for_bias)

    def backward(static, residuals, cotangent):
        if isinstance(cotangent, SymbolicZero):
            return None, None, None
        weight, input, bias = residuals
        # None is zero to JAX: nobody asked, or the batch is empty.
        return (
            input_gradient(static, weight, cotangent) if weight.size else None,
            weight_gradient(static, input, cotangent) if input.size else None,
            bias_gradient(static, bias, cotangent) if bias is not None and bias.size else None,
        )

    function = _registered(output, forward, backward, static=1, symbolic_zeros=True)
    return primitive.with_rule(function, primitive.one_batch(0))


def _kept(residual: Array, wanted: bool) -> Array:
    """`residual`, or an empty array in its place: JAX wants residuals of one tree structure, whoever is perturbed."""
    return residual if wanted else jnp.zeros((0,), residual.dtype)
