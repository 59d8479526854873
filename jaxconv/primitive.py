"""What a convolution is to JAX beside its operations: one of a larger batch under `jax.vmap`, one per device on several.

Mapped operation by operation, every sample would have tiles of its own, and a product of its own or one whose axes XLA moves
about. `jax.custom_batching.custom_vmap` has a rule for a whole function, but cannot be differentiated in reverse; so here is a
primitive that only `jax.vmap` and the compiler see: any other transformation takes the function's own operations in its place.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache, partial, wraps
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer
from jax.extend import core
from jax.interpreters import ad, batching, mlir, partial_eval

Function = Callable[..., Array]
Rule = Callable[..., Array]
"""From a function, static arguments, the length of the mapped axis, which arrays have it, in front, and the arrays (None where
one is left out) to what the mapped function returns."""

CPU, ACCELERATOR = "cpu", "accelerator"

_call_p = core.Primitive("jaxconv_call")
_LAYERS = 4096


def with_rule(
    function: Function,
    rule: Rule,
    on_devices: Function | None = None,
    on_platform: Callable[[Any, str], Any] = lambda static, _: static,
) -> Function:
    """`function(static, *arrays)`, with `rule` for what `jax.vmap` makes of it.

    Compiled for several devices, whose number is known only then, it is `on_devices(devices, static, *arrays)`, if there is one;
    and for a platform, "cpu" or "accelerator", it is of `on_platform(static, platform)`, so that what the other would do need not
    be traced. Its jaxpr, which is seen before the platform is known, is that of a CPU.
    """

    @wraps(function)
    def call(static: Any, *arrays: Array | None) -> Array:
        present = [array for array in arrays if array is not None]
        if not any(isinstance(array, Tracer) for array in present):
            return function(static, *arrays)
        anywhere, on, mapped = bound(static, tuple(array is not None for array in arrays))
        bind = partial(_call_p.bind, *present, function=anywhere, on=on, rule=mapped)
        # A transformation asks for no jaxpr: one of what it replaces would be traced in vain.
        with suppress(_JaxprWanted):
            return bind(call=None)
        # No mesh and an empty one are two to JAX, which would trace the function for each.
        with jax.sharding.use_abstract_mesh(jax.sharding.get_abstract_mesh()):
            jaxpr = jax.make_jaxpr(on(CPU))(*present)
        return bind(call=jaxpr)

    # The same functions for the same layer, as JAX traces one function once for all arrays of the same shapes.
    @lru_cache(maxsize=_LAYERS)
    def bound(static: Any, given: tuple[bool, ...]) -> tuple[Function, Callable[[str], Function], Function]:
        def of(static: Any) -> Function:
            def of_those_given(*present: Array, devices: int = 1) -> Array:
                if devices > 1 and on_devices is not None:
                    return on_devices(devices, static, *_filled(given, present))
                return function(static, *_filled(given, present))

            return of_those_given

        def mapped(length: int, batched: Sequence[bool], *present: Array) -> Array:
            return rule(call, function, static, length, _filled(given, batched), _filled(given, present))

        return of(static), lru_cache(lambda platform: of(on_platform(static, platform))), mapped

    return call


def _filled(given: Sequence[bool], present: Sequence[Any]) -> list[Any]:
    """`present`, with None in the places of what is not given."""
    left = iter(present)
    return [next(left) if there else None for there in given]


def one_batch(at: int) -> Rule:
    """The rule of a function of images, the array `at`, and of what all images share: the mapped axis joins the batch."""

    def rule(call: Function, function: Function, static: Any, length: int, batched: Any, arrays: Any) -> Array:
        if [index for index, mapped in enumerate(batched) if mapped] != [at]:
            return each_by_itself(call, function, static, length, batched, arrays)
        images = arrays[at]
        arrays[at] = images.reshape(math.prod(images.shape[:2]), *images.shape[2:])
        result = call(static, *arrays)
        return result.reshape(*images.shape[:2], *result.shape[1:])

    return rule


def each_by_itself(call: Function, function: Function, static: Any, length: int, batched: Any, arrays: Any) -> Array:
    """The rule that maps operation by operation."""
    axes = [None if array is None else 0 if mapped else None for array, mapped in zip(arrays, batched, strict=True)]
    return jax.vmap(partial(function, static.times(length)), axes, axis_size=length)(*arrays)


def _batched(arrays: Sequence[Array], axes: Sequence[int | None], *, rule: Callable, **_: Any) -> tuple[Array, int]:
    (length,) = {array.shape[axis] for array, axis in zip(arrays, axes, strict=True) if axis is not None}
    arrays = [array if axis is None else jnp.moveaxis(array, axis, 0) for array, axis in zip(arrays, axes, strict=True)]
    return rule(length, [axis is not None for axis in axes], *arrays), 0


def _of(places: Sequence[int], function: Callable, arrays: Sequence[Any]) -> Callable[..., Array]:
    """`function` of the arrays at some places, all others being constants, so that no gradient of them is made."""

    def of_some(*some: Array) -> Array:
        given = list(arrays)
        for place, array in zip(places, some, strict=True):
            given[place] = array
        return function(*given)

    return of_some


def _differentiated(arrays: Sequence[Array], tangents: Sequence[Any], *, function: Callable, **_: Any) -> Any:
    places = [at for at, tangent in enumerate(tangents) if type(tangent) is not ad.Zero]
    primals, moving = [arrays[at] for at in places], [tangents[at] for at in places]
    return jax.jvp(_of(places, function, arrays), primals, moving)


def _transposed(cotangent: Any, *arrays: Any, function: Callable, **_: Any) -> list[Any]:
    places = [at for at, array in enumerate(arrays) if ad.is_undefined_primal(array)]
    shapes = [jax.ShapeDtypeStruct(arrays[at].aval.shape, arrays[at].aval.dtype) for at in places]
    pull = jax.linear_transpose(_of(places, function, arrays), *shapes)
    results: list[Any] = [None] * len(arrays)
    for at, result in zip(places, pull(ad.instantiate_zeros(cotangent)), strict=True):
        results[at] = result
    return results


def _checkpointed(saveable: Callable, unknown: Sequence[bool], there: Sequence[bool], equation: Any) -> tuple:
    """Under `jax.checkpoint`: the result is kept where the policy keeps a product that is in it, and else made again."""
    missing = [
        one for one, known in zip(equation.invars, there, strict=True) if isinstance(one, core.Var) and not known
    ]
    if any(unknown):
        return None, equation, [True], [True], missing
    if _keeps(saveable, equation):
        return equation, None, [False], [False], []
    return equation, equation, [False], [True], missing


def _keeps(saveable: Callable, equation: Any) -> bool:
    policy = saveable(equation.primitive, *(one.aval for one in equation.invars), **equation.params)
    inside = (inner for jaxpr in core.jaxprs_in_params(equation.params) for inner in jaxpr.eqns)
    return policy is True or any(_keeps(saveable, inner) for inner in inside)


def _lowered(platform: str, context: mlir.LoweringRuleContext, *arrays: Any, on: Callable, **_: Any) -> Any:
    function = on(platform)
    place = context.module_context.axis_context
    # Inside `jax.shard_map` what there is to do is one device's.
    devices = place.num_devices if isinstance(place, mlir.ShardingContext) else 1
    of_devices = partial(function, devices=devices) if devices > 1 else jax.jit(function, inline=True)
    return mlir.lower_fun(of_devices, multiple_results=False)(context, *arrays)


def _run(*arrays: Array, function: Callable, **_: Any) -> Array:
    return function(*arrays)


class _JaxprWanted(Exception):
    """An equation is to be written, before anything of it is."""


def _abstract(*arrays: Any, call: core.ClosedJaxpr | None, **_: Any) -> Any:
    if call is None:
        raise _JaxprWanted
    return call.out_avals[0]


_call_p.def_impl(_run)
_call_p.def_abstract_eval(_abstract)
mlir.register_lowering(_call_p, partial(_lowered, CPU), platform=CPU)
mlir.register_lowering(_call_p, partial(_lowered, ACCELERATOR))
batching.primitive_batchers[_call_p] = _batched
ad.primitive_jvps[_call_p] = _differentiated
ad.primitive_transposes[_call_p] = _transposed
partial_eval.partial_eval_jaxpr_custom_rules[_call_p] = _checkpointed
