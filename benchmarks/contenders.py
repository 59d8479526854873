"""The same layer by jaxconv, `jax.lax`, torch, and as a bare matrix product."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

import jaxconv
from benchmarks.case import Case

NAMES = ("jaxconv", "lax", "torch", "matmul")


@dataclass(frozen=True)
class Contender:
    """`start` returns a result that may not be there yet, which `wait` waits for. XLA's program can be compiled anew, and has
    `temporaries`, in bytes."""

    start: Callable[[], Any]
    wait: Callable[[Any], Any]
    compile: Callable[[], Any] | None = None
    temporaries: int | None = None

    def call(self, times: int = 1) -> None:
        """So many calls, one behind the other, and their results."""
        self.wait([self.start() for _ in range(times)])


@dataclass(frozen=True)
class Setting:
    """What all contenders of a row share."""

    case: Case
    quantity: str
    dtype: str
    channels_last: bool
    engine: str = "auto"


def contender(name: str, setting: Setting) -> Contender | None:
    """The contender of that name, or None where it has no such thing to call."""
    return {"jaxconv": _jaxconv, "lax": _lax, "torch": _torch, "matmul": _matmul}[name](setting)


def arrays(setting: Setting) -> tuple[Array, Array, Array]:
    """Input, weight and cotangent, in the setting's layout."""
    case = setting.case
    generator = np.random.default_rng(0)
    draw = partial(_drawn, generator, setting.dtype)
    input, weight = draw(case.input), draw(case.weight)
    if setting.channels_last:
        input = jnp.moveaxis(input, 1, -1)
    shape = jax.eval_shape(partial(by_jaxconv, setting), input, weight).shape
    return input, weight, draw(shape)


def _drawn(generator: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> Array:
    return jnp.asarray(generator.standard_normal(shape, dtype=np.float32)).astype(dtype)


def by_jaxconv(setting: Setting, input: Array, weight: Array) -> Array:
    """The setting's layer."""
    case = setting.case
    options: dict[str, Any] = {"stride": case.stride, "padding": case.padding, "dilation": case.dilation}
    options |= {"groups": case.groups, "engine": setting.engine}
    options["data_format"] = "channels_last" if setting.channels_last else "channels_first"
    return (jaxconv.conv_transpose if case.transposed else jaxconv.conv)(input, weight, **options)


def by_lax(setting: Setting, input: Array, weight: Array) -> Array:
    """The same by `jax.lax`."""
    case, spatial = setting.case, "HWD"[: setting.case.rank]
    layout = f"N{spatial}C" if setting.channels_last else f"NC{spatial}"
    numbers = (layout, f"OI{spatial}", layout)
    strides, dilation = (case.stride,) * case.rank, (case.dilation,) * case.rank
    if case.transposed:
        ends = [case.dilation * (k - 1) - case.padding for k in case.weight[2:]]
        pads = [(end, end) for end in ends]
        return lax.conv_transpose(
            input, weight, strides, pads, dilation, dimension_numbers=numbers, transpose_kernel=True
        )
    return lax.conv_general_dilated(
        input,
        weight,
        strides,
        [(case.padding, case.padding)] * case.rank,
        rhs_dilation=dilation,
        dimension_numbers=numbers,
        feature_group_count=case.groups,
    )


def _asked(layer: Callable, kind: str, quantity: str) -> Callable:
    """What is run, of (input, weight, cotangent)."""
    if kind == "mapped":
        return _asked(lambda x, w: jax.vmap(lambda sample: layer(sample[None], w)[0])(x), "layer", quantity)
    if kind == "per example":

        def loss(weight, sample, cotangent):
            return jnp.vdot(layer(sample[None], weight)[0], cotangent)

        return lambda x, w, g: jax.vmap(jax.grad(loss), (None, 0, 0))(w, x, g)
    if kind == "loop":

        def looped(x, w):
            return lax.scan(lambda x, _: (layer(x, w), None), x, None, length=10)[0]

        return {"forward": lambda x, w, g: looped(x, w), "vjp": lambda x, w, g: jax.vjp(looped, x, w)[1](g)}[quantity]

    def whole(x, w, g):
        output, pull = jax.vjp(layer, x, w)
        return output, *pull(g)

    return {
        "forward": lambda x, w, g: layer(x, w),
        "input gradient": lambda x, w, g: jax.vjp(lambda x: layer(x, w), x)[1](g)[0],
        "weight gradient": lambda x, w, g: jax.vjp(lambda w: layer(x, w), w)[1](g)[0],
        "vjp": whole,
    }[quantity]


def compiled(function: Callable, *operands: Any) -> Contender:
    """A contender whose call is a program of XLA's, of these operands."""

    def compile() -> jax.stages.Compiled:
        return jax.jit(function).lower(*operands).compile()

    program = compile()
    memory = program.memory_analysis()
    temporaries = None if memory is None else memory.temp_size_in_bytes
    return Contender(lambda: program(*operands), jax.block_until_ready, compile, temporaries)


def _by_xla(layer: Callable, setting: Setting) -> Contender:
    function = _asked(partial(layer, setting), setting.case.kind, setting.quantity)
    return compiled(function, *arrays(setting))


_jaxconv = partial(_by_xla, by_jaxconv)
_lax = partial(_by_xla, by_lax)


def _matmul(setting: Setting) -> Contender | None:
    """The products of eqs. 2-4 alone, of matrices that are there already."""
    case = setting.case
    if case.kind in ("per example", "loop"):
        return None
    input, weight, cotangent = arrays(setting)
    # Of a transposed layer the cotangent is what is unfolded.
    flat = input if case.transposed else cotangent
    channels = weight.shape[0]
    rows, columns = flat.size // channels, math.prod(weight.shape[1:])
    draw = partial(_drawn, np.random.default_rng(1), setting.dtype)
    lead = (case.groups,) if case.groups > 1 else ()
    u, g = draw((*lead, rows, columns)), draw((*lead, rows, channels // case.groups))
    w = draw((*lead, columns, channels // case.groups))
    products = {
        "forward": lambda u, w, g: u @ w,
        "input gradient": lambda u, w, g: g @ jnp.swapaxes(w, -1, -2),
        "weight gradient": lambda u, w, g: jnp.swapaxes(u, -1, -2) @ g,
    }
    if case.transposed:
        products["forward"], products["input gradient"] = products["input gradient"], products["forward"]
    if setting.quantity == "vjp":
        return compiled(lambda *operands: [product(*operands) for product in products.values()], u, w, g)
    return compiled(products[setting.quantity], u, w, g)


def _torch(setting: Setting) -> Contender | None:
    """torch's kernels, called as autograd calls them: only what is asked for."""
    try:
        import torch
    except ImportError:
        return None
    case = setting.case
    if case.kind == "loop":
        return None
    device = "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"
    input, weight, cotangent = (
        torch.from_numpy(np.array(array.astype("float32") if setting.dtype == "bfloat16" else array))
        .to(getattr(torch, setting.dtype))
        .to(device)
        for array in arrays(setting)
    )
    if setting.channels_last:
        input, cotangent = input.movedim(-1, 1), cotangent.movedim(-1, 1)
    rank = case.rank
    geometry = ([case.stride] * rank, [case.padding] * rank, [case.dilation] * rank, case.transposed, [0] * rank)

    def forward(x, w):
        return torch.ops.aten.convolution(x, w, None, *geometry, case.groups)

    def backward(*wanted: bool):
        mask = [*wanted, False]
        return torch.ops.aten.convolution_backward(cotangent, input, weight, None, *geometry, case.groups, mask)

    if case.kind == "per example":

        def loss(w, sample, g):
            return (forward(sample[None], w)[0] * g).sum()

        per_example = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))
        asked = lambda: per_example(weight, input, cotangent)  # noqa: E731
    else:
        asked = {
            "forward": lambda: forward(input, weight),
            "input gradient": lambda: backward(True, False),
            "weight gradient": lambda: backward(False, True),
            "vjp": lambda: (forward(input, weight), backward(True, True)),
        }[setting.quantity]

    def start():
        with torch.enable_grad() if case.kind == "per example" else torch.no_grad():
            return asked()

    return Contender(start, lambda results: torch.cuda.synchronize() if device == "cuda" else results)
