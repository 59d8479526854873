"""Where the two packages meet: derived formulas, on numbers, against the compiled VJP and torch's autograd."""

from typing import Any

import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import jaxconv
from derivations.equations import EQUATIONS, Layer
from derivations.evaluate import evaluate
from derivations.index_sets import Geometry, geometries, index_sets
from jaxconv import formulas
from jaxconv.rounding import error_bound

CHOSEN = [
    *geometries(1)[::70],
    *geometries(2)[::20],
    *geometries(3)[::20],
    *(g for r in (1, 2, 3) for g in geometries(r)[-1:]),
]


def entries(array: np.ndarray) -> dict:
    return dict(np.ndenumerate(array))


def as_array(values: dict, shape: tuple[int, ...]) -> np.ndarray:
    result = np.zeros(shape)
    for at, value in values.items():
        result[at] = value
    return result


def derived(geometry: Geometry, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Output and gradients by the formulas of `derivations`, with groups as an axis of their own."""
    layer, sizes = Layer(geometry.rank), geometry.index_set()
    tensors = {name: entries(array) for name, array in arrays.items()}
    convolution = layer.convolution
    shape = convolution.output.shape_on(sizes)
    results = {"O": as_array(evaluate(convolution.entry, convolution.at, shape, sizes, tensors), shape)}
    for claim in (layer.input_claim, layer.weight_claim, layer.bias_claim):
        shape = claim.argument.shape_on(sizes)
        results[claim.argument.name] = as_array(evaluate(claim.formula, claim.at, shape, sizes, tensors), shape)
    return results


@pytest.mark.parametrize("geometry", CHOSEN, ids=str)
def test_derived_gradients_are_what_jaxconv_and_torch_compute(geometry):
    generator = np.random.default_rng(0)
    layer, sizes = Layer(geometry.rank), geometry.index_set()
    tensors = (layer.input, layer.weight, layer.bias, layer.cotangent)
    arrays = {tensor.name: generator.standard_normal(tensor.shape_on(sizes)) for tensor in tensors}
    truth = derived(geometry, arrays)
    bounds = derived(geometry, {name: np.abs(array) for name, array in arrays.items()})
    terms = (
        max(sizes[layer.C], sizes[layer.D], sizes[layer.N])
        * int(np.prod(geometry.kernel))
        * int(np.prod(geometry.output_sizes()))
    )

    groups = geometry.groups
    merged = {
        "I": arrays["I"].reshape(geometry.batch, -1, *geometry.spatial),
        "W": arrays["W"].reshape(-1, geometry.channels[0], *geometry.kernel),
        "B": arrays["B"].reshape(-1),
    }
    cotangent = arrays["G"].reshape(geometry.batch, -1, *geometry.output_sizes())

    def ours(input, weight, bias):
        return jaxconv.conv(input, weight, bias, geometry.stride, geometry.padding, geometry.dilation, groups)

    output, pullback = jax.vjp(jax.jit(ours), *merged.values())
    flat = [cells for pair in reversed(geometry.padding) for cells in pair]
    leaves = [torch.from_numpy(array).requires_grad_() for array in merged.values()]
    function: Any = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[geometry.rank]
    torch_output = function(F.pad(leaves[0], flat), *leaves[1:], geometry.stride, 0, geometry.dilation, groups)
    torch_gradients = torch.autograd.grad(torch_output, leaves, torch.from_numpy(cotangent))

    theirs = (torch_output.detach().numpy(), *(gradient.numpy() for gradient in torch_gradients))
    for name, mine, other in zip(("O", "I", "W", "B"), (output, *pullback(cotangent)), theirs, strict=True):
        bound = 2 * error_bound(bounds[name], terms + 1, np.float64, np.float64)
        for got in (np.asarray(mine), other):
            assert (np.abs(got.reshape(truth[name].shape) - truth[name]) <= bound).all(), name


@pytest.mark.parametrize("claim", EQUATIONS, ids=lambda c: c.name)
def test_the_formulas_are_the_equations(claim):
    """Eqs. 3-5 as derived and as shipped, on integers, so exactly."""
    _, sizes = index_sets(0)[-1]
    generator = np.random.default_rng(1)
    tensors = (*claim.map.arguments, claim.map.cotangent)
    arrays = {tensor.name: generator.integers(-9, 9, tensor.shape_on(sizes)).astype(float) for tensor in tensors}
    shape = claim.argument.shape_on(sizes)
    expected = as_array(
        evaluate(claim.formula, claim.at, shape, sizes, {name: entries(array) for name, array in arrays.items()}), shape
    )
    U, W, G = arrays["U"], arrays["Wtilde"], arrays["Gtilde"]
    shipped = {
        "(3)": lambda: formulas.unfolded_gradient(G, W),
        "(4)": lambda: formulas.weight_gradient(G, U),
        "(5)": lambda: formulas.bias_gradient(G).reshape(1, -1, 1),
    }[claim.name]()
    np.testing.assert_array_equal(shipped, expected)
