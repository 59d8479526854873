"""Wrong `custom_vjp`s, each with one mistake that people make. A prover that does not refute every one is broken.

Each is a right function, a convolution most often, with a backward rule that is wrong in one place. Beside the prover's
verdict stands what `jax.test_util.check_grads` says at its default tolerances.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.test_util import check_grads


@dataclass(frozen=True)
class WrongRule:
    """`function` has a custom VJP that is not its derivative; `right` is the same without it."""

    name: str
    function: Callable[..., Any]
    right: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]


def numeric_check_notices(rule: WrongRule) -> bool:
    """Whether `check_grads` complains, at its default tolerances, on normally distributed inputs."""
    generator = np.random.default_rng(0)
    arrays = [generator.standard_normal(shape).astype(np.float32) for shape in rule.shapes]
    try:
        check_grads(rule.function, tuple(arrays), order=1, modes=("rev",))
    except AssertionError:
        return True
    return False


def convolution(input, weight, bias, stride=1, padding=(1, 1), dilation=1, groups=1):
    """One spatial axis: input (N, C, X), weight (O, C/groups, K), bias (O,)."""
    product = lax.conv_general_dilated(
        input, weight, (stride,), (padding,), rhs_dilation=(dilation,), feature_group_count=groups
    )
    return product + bias[:, None]


def _wrong(name: str, shapes: tuple, spoil: Callable, right: Callable | None = None) -> WrongRule:
    """`right` (a padded convolution) with the backward rule `spoil(arguments, cotangent, true gradients)`."""
    right = right or _layer

    @jax.custom_vjp
    @functools.wraps(right)
    def function(*arguments):
        return right(*arguments)

    def backward(arguments, cotangent):
        true = jax.vjp(right, *arguments)[1](cotangent)
        return tuple(spoil(arguments, cotangent, true))

    function.defvjp(lambda *arguments: (right(*arguments), arguments), backward)
    return WrongRule(name, function, right, shapes)


def _as_if(wrong: Callable, places: tuple[int, ...] = (0, 1, 2)) -> Callable:
    """Takes the gradients of another function for the arguments in `places`."""

    def spoil(arguments, cotangent, true):
        other = jax.vjp(wrong, *arguments)[1](cotangent)
        return [other[place] if place in places else gradient for place, gradient in enumerate(true)]

    return spoil


def _replacing(place: int, change: Callable) -> Callable:
    """Takes `change(true gradient, arguments, cotangent)` for one argument's gradient."""

    def spoil(arguments, cotangent, true):
        gradients = list(true)
        gradients[place] = change(true[place], arguments, cotangent)
        return gradients

    return spoil


_INPUT, _WEIGHT, _BIAS = 0, 1, 2
_LAYER = ((2, 2, 4), (2, 2, 3), (2,))


def _layer(input, weight, bias):
    return convolution(input, weight, bias)


def _strided(input, weight, bias):
    return convolution(input, weight, bias, stride=2, padding=(0, 0))


def _exchanged(input, weight, bias):
    return convolution(input, weight, bias, stride=1, dilation=2, padding=(0, 0))


def _grouped(input, weight, bias):
    return convolution(input, weight, bias, groups=2)


def _shifted(input, weight, bias):
    return convolution(input, weight, bias, padding=(0, 2))


def _transposed(input, weight, bias):
    return convolution(input, weight.transpose(1, 0, 2), bias)


def _flipped(input, weight, bias):
    return convolution(input, weight[:, :, ::-1], bias)


def _scaled(x, scale):
    return x * (1 + scale)


def _average_overlaps(gradient, arguments, cotangent):
    ones = [jnp.ones_like(array) for array in arguments]
    copies = jax.vjp(lambda input: _layer(input, *ones[1:]), ones[0])[1](jnp.ones_like(cotangent))[0]
    return gradient / (copies / arguments[1].shape[0])


def _drop_border_tap(gradient, arguments, cotangent):
    """Leaves out of the first cell's gradient what its own window's middle tap contributes."""
    missing = jnp.einsum("oc,no->nc", arguments[_WEIGHT][:, :, 1], cotangent[:, :, 0])
    return gradient.at[:, :, 0].add(-missing)


def _spread_over_skipped_rows(gradient, *_):
    return jnp.repeat(gradient[:, :, ::2], 2, axis=2)


def _leak(gradient, arguments, cotangent):
    return jnp.where(arguments[0] > 0, cotangent, 1e-6 * cotangent)


def wrong_rules() -> tuple[WrongRule, ...]:
    """The table of wrong backward rules."""
    one_group = ((1, 2, 3), (2, 1, 3), (2,))
    pair = ((3,), (3,))

    def layer(name, place, change):
        return _wrong(name, _LAYER, _replacing(place, change))

    return (
        _wrong("padding forgotten in the input gradient", _LAYER, _as_if(_shifted, (_INPUT,))),
        _wrong("padding forgotten in the weight gradient", _LAYER, _as_if(_shifted, (_WEIGHT,))),
        _wrong("stride and dilation exchanged", ((1, 2, 3), (2, 2, 2), (2,)), _as_if(_exchanged), right=_strided),
        _wrong("weight transposed", _LAYER, _as_if(_transposed, (_INPUT,))),
        _wrong("kernel flipped", _LAYER, _as_if(_flipped, (_INPUT,))),
        layer("last tap dropped", _WEIGHT, lambda g, a, c: g.at[:, :, -1].set(0)),
        layer("a tap dropped at the border", _INPUT, _drop_border_tap),
        layer("weight gradient divided by the batch", _WEIGHT, lambda g, a, c: g / 2),
        layer("bias summed over the batch only", _BIAS, lambda g, a, c: c.sum(0)[:, 0]),
        layer("bias summed over the positions only", _BIAS, lambda g, a, c: c.sum(2)[0]),
        layer("bias gradient negated", _BIAS, lambda g, a, c: -g),
        layer("overlaps averaged and not summed", _INPUT, _average_overlaps),
        layer("first window dropped", _BIAS, lambda g, a, c: c[:, :, 1:].sum((0, 2))),
        layer("weight gradient forgotten", _WEIGHT, lambda g, a, c: jnp.zeros_like(g)),
        layer("cotangent ignored", _BIAS, lambda g, a, c: jnp.full_like(g, c[:, 0].size)),
        _wrong("groups mixed up", one_group, _replacing(_WEIGHT, lambda g, a, c: g[::-1]), right=_grouped),
        _wrong(
            "rows that the stride skips are not zero",
            ((1, 1, 4), (1, 1, 1), (1,)),
            _replacing(_INPUT, _spread_over_skipped_rows),
            right=_strided,
        ),
        _wrong("a stale residual", pair, _replacing(0, lambda g, a, c: c * a[1]), right=_scaled),
        _wrong("gradients exchanged", pair, lambda arguments, cotangent, true: true[::-1], right=_scaled),
        _wrong("tanh with 1 - x^2", ((3,),), _replacing(0, lambda g, a, c: c * (1 - a[0] ** 2)), right=jnp.tanh),
        layer("weight gradient times 1 + 1e-6", _WEIGHT, lambda g, a, c: g * np.float32(1 + 1e-6)),
        layer("one entry off by 1e-6 of its neighbour", _INPUT, lambda g, a, c: g.at[1, 0, 2].add(1e-6 * g[1, 0, 1])),
        _wrong("relu with a slope of 1e-6 below zero", ((3,),), _replacing(0, _leak), right=_relu),
    )


def _relu(x):
    return jnp.maximum(x, 0)
