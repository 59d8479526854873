"""Padding modes against torch's modules, unshared weights and the drop-ins against jax.lax."""

import inspect
import itertools
import random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax import lax

import jaxconv


def integers(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(-5, 5, shape) * 1.0)


def assert_same(ours, theirs, *arrays):
    """Outputs and gradients, to the bit: sums of small integers."""
    mine, pull_mine = jax.vjp(ours, *arrays)
    other, pull_other = jax.vjp(theirs, *arrays)
    np.testing.assert_array_equal(mine, other, strict=True)
    cotangent = integers(*other.shape, seed=1)
    for a, b in zip(pull_mine(cotangent), pull_other(cotangent), strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize(("rank", "padding"), [(1, 2), (2, (1, 2)), (3, 1), (2, "same")])
def test_padding_modes_are_those_of_torch_modules(mode, rank, padding):
    module = {1: torch.nn.Conv1d, 2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[rank]
    layer: Any = module(4, 6, 3, padding=padding, groups=2, padding_mode=mode, dtype=torch.float64)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.from_numpy(np.array(integers(*parameter.shape, seed=2))))
    input = integers(2, 4, *(5, 4, 3)[:rank])
    tensor = torch.from_numpy(np.array(input)).requires_grad_()
    output = layer(tensor)
    cotangent = integers(*output.shape, seed=1)
    expected = torch.autograd.grad(output, [tensor, layer.weight, layer.bias], torch.from_numpy(np.array(cotangent)))
    weight, bias = (jnp.asarray(parameter.detach().numpy()) for parameter in (layer.weight, layer.bias))
    ours, pull = jax.vjp(lambda *a: jaxconv.conv(*a, padding=padding, groups=2, padding_mode=mode), input, weight, bias)
    np.testing.assert_array_equal(ours, output.detach())
    for mine, other in zip(pull(cotangent), expected, strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize(
    ("mode", "padding", "message"),
    [
        (
            "reflect",
            5,
            r"`padding` must be at most 4 on spatial axis 0 for padding_mode='reflect' and 5 cells, got \(5, 5\)",
        ),
        ("circular", ((6, 0),), r"`padding` must be at most 5 .*got \(6, 0\)"),
        ("mirror", 1, r'`padding_mode` must be "zeros", "reflect", "replicate" or "circular", got \'mirror\''),
    ],
)
def test_a_padding_that_its_mode_cannot_fill_is_refused(mode, padding, message):
    with pytest.raises(ValueError, match=message):
        jaxconv.conv1d(jnp.ones((1, 1, 5)), jnp.ones((1, 1, 2)), padding=padding, padding_mode=mode)


@pytest.mark.parametrize(
    ("stride", "padding", "dilation"), [(1, 0, 1), ((2, 3), ((1, 2), (0, 3)), 1), (1, ((0, 3), (2, 0)), (1, 2))]
)
def test_unshared_weights_are_laxs(stride, padding, dilation):
    options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
    out = jaxconv.conv2d(integers(2, 4, 6, 5), integers(3, 4, 3, 2), **options).shape[2:]

    def theirs(x, w):
        steps, gaps = (value if isinstance(value, tuple) else (value,) * 2 for value in (stride, dilation))
        pads = padding or ((0, 0),) * 2
        return lax.conv_general_dilated_local(x, w.reshape(3, 24, *out), steps, pads, (3, 2), rhs_dilation=gaps)

    weight = integers(3, 4, 3, 2, *out, seed=3)
    assert_same(lambda x, w: jaxconv.conv_local(x, w, **options), theirs, integers(2, 4, 6, 5), weight)


def test_unshared_weights_that_are_all_alike_are_a_convolution():
    input, weight, bias = integers(4, 6, 5), integers(6, 2, 3, 2, seed=2), integers(6, seed=3)
    shared = jaxconv.conv2d(input, weight, bias, groups=2)
    everywhere = jnp.broadcast_to(weight[..., None, None], (*weight.shape, *shared.shape[1:]))
    own = jnp.broadcast_to(bias[:, None, None], shared.shape)
    for one in (bias, own):
        np.testing.assert_array_equal(jaxconv.conv_local(input, everywhere, one, groups=2), shared)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_unshared_weights_take_padding_modes(mode):
    input, weight = integers(1, 2, 5, 4), integers(3, 2, 3, 2, seed=2)
    options: dict[str, Any] = {"padding": ((1, 2), (0, 1)), "padding_mode": mode}
    shared = jaxconv.conv2d(input, weight, **options)
    everywhere = jnp.broadcast_to(weight[..., None, None], (*weight.shape, *shared.shape[2:]))
    np.testing.assert_array_equal(jaxconv.conv_local(input, everywhere, **options), shared)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 4, 3, 2, 4), r"`weight` must be \(C_out, C_in/groups, \*kernel, \*out_spatial\).*got \(3, 4, 3, 2, 4\)"),
        ((3, 4, 3, 2, 4, 5), r"`weight` must end in the output's size \(4, 4\), got shape \(3, 4, 3, 2, 4, 5\)"),
        ((3, 3, 3, 2, 4, 4), r"`input` must have 3 channels"),
    ],
)
def test_a_local_weight_that_does_not_fit_is_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        jaxconv.conv_local(jnp.ones((1, 4, 6, 5)), jnp.ones(shape))


def test_a_local_bias_that_does_not_fit_is_refused():
    with pytest.raises(
        ValueError, match=r"`bias` must have shape \(4,\), or \(4, 4, 3\) for one of its own .*got \(3,\)"
    ):
        jaxconv.conv_local(jnp.ones((1, 4, 6, 5)), jnp.ones((4, 4, 3, 3, 4, 3)), jnp.ones(3))


LAYOUTS = {
    None: ((2, 4, 6, 5), (6, 4, 3, 2)),
    ("NHWC", "HWIO", "NHWC"): ((2, 6, 5, 4), (3, 2, 4, 6)),
    ("CHWN", "IHWO", "HNWC"): ((4, 6, 5, 2), (4, 3, 2, 6)),
}
PADS = ["SAME", "SAME_LOWER", "VALID", ((1, 2), (0, 3)), ((-1, 2), (1, -2))]
CASES = [
    (layout, strides, padding, spread, dilation)
    for number, (layout, strides, padding, spread, dilation) in enumerate(
        itertools.product(LAYOUTS, [(1, 1), (2, 3)], PADS, [None, (2, 3)], [None, (1, 2)])
    )
    if not (isinstance(padding, str) and spread) and number % 5 == 0
]


@pytest.mark.parametrize(("layout", "strides", "padding", "spread", "dilation"), CASES)
def test_conv_general_dilated_is_laxs(layout, strides, padding, spread, dilation):
    options = {"lhs_dilation": spread, "rhs_dilation": dilation, "dimension_numbers": layout}
    left, right = LAYOUTS[layout]

    def run(module):
        return lambda x, w: module.conv_general_dilated(x, w, strides, padding, **options)

    assert_same(run(jaxconv.lax), run(lax), integers(*left), integers(*right, seed=2))


@pytest.mark.parametrize(
    ("shapes", "options"),
    [
        (((4, 3, 6), (6, 3, 2)), {"batch_group_count": 2}),
        (((4, 1, 6), (8, 1, 2)), {"batch_group_count": 4}),
        (((2, 4, 6), (6, 2, 2)), {"feature_group_count": 2}),
        (((2, 3, 2), (4, 3, 5)), {}),  # no window fits: an empty output
        (((0, 3, 6), (4, 3, 2)), {}),
        (((2, 0, 6), (4, 0, 2)), {}),
    ],
)
def test_groups_and_empty_arrays_are_laxs(shapes, options):
    def run(module):
        return lambda x, w: module.conv_general_dilated(x, w, (2,), "VALID", **options)

    assert_same(run(jaxconv.lax), run(lax), integers(*shapes[0]), integers(*shapes[1], seed=2))


def sample(count, *choices):
    """So many of all combinations of `choices`, the same ones every time."""
    return random.Random(0).sample(list(itertools.product(*choices)), count)


# The parameter grids of JAX's own tests of these functions (tests/lax_test.py), of which JAX too runs a sample.
GENERAL = sample(
    16,
    [(1, 1), (2, 1), (1, 2)],  # groups of the batch, and of features
    [0, 10],
    *[[2, 3]] * 3,
    [("NCHW", "OIHW", "NCHW"), ("NHWC", "HWIO", "NHWC"), ("NCHW", "HWIO", "NHWC")],
    [(1, 1), (2, 1)],
    [((1, 2), (2, 0)), ((10, 8), (7, 13))],
    *[[(1, 1), (1, 2), (1, 4)]] * 2,
)


@pytest.mark.parametrize("case", GENERAL, ids=range(len(GENERAL)))
def test_jaxs_own_cases_of_conv_general_dilated(case):
    (batches, features), width, b, i, j, layout, strides, padding, spread, dilation = case
    left = integers(b * batches, i * features, 9, width).transpose(["NCHW".index(axis) for axis in layout[0]])
    right = integers(j * features * batches, i, 4, 5, seed=2).transpose(["OIHW".index(axis) for axis in layout[1]])

    def run(module):
        return lambda x, w: module.conv_general_dilated(
            x, w, strides, padding, spread, dilation, layout, features, batches
        )

    assert_same(run(jaxconv.lax), run(lax), left, right)


TRANSPOSED = sample(
    6, [2, 3], [2, 3], [2, 3], [3, 4, 5], [(1, 1), (1, 2), (2, 1), (2, 2), (3, 3)], ["VALID", "SAME"], [None, (2, 2)]
)


@pytest.mark.parametrize("case", TRANSPOSED, ids=range(len(TRANSPOSED)))
def test_jaxs_own_cases_of_conv_transpose(case):
    b, i, j, k, strides, padding, dilation = case

    def run(module):
        return lambda x, w: module.conv_transpose(x, w, strides, padding, dilation, transpose_kernel=True)

    assert_same(run(jaxconv.lax), run(lax), integers(b, 9, 10, i), integers(k, k, j, i, seed=2))


def test_no_spatial_axis_is_a_product():
    def run(module):
        return lambda x, w: module.conv_general_dilated(x, w, (), "VALID", dimension_numbers=("NC", "IO", "NC"))

    assert_same(run(jaxconv.lax), run(lax), integers(10, 5), integers(5, 7, seed=2))


@pytest.mark.parametrize(
    ("strides", "padding", "dilation", "transpose_kernel", "consistent"),
    [
        ((1, 1), "SAME", None, False, False),
        ((2, 3), "SAME", (1, 2), True, False),
        ((4, 1), "SAME", None, False, False),
        ((1, 2), "VALID", None, True, False),
        ((4, 3), "VALID", (1, 2), False, True),
        ((2, 3), ((1, 2), (0, 3)), None, False, False),
        ((2, 1), ((1, 2), (0, 1)), (2, 1), True, True),
    ],
)
def test_conv_transpose_is_laxs(strides, padding, dilation, transpose_kernel, consistent):
    weight = integers(3, 2, 6, 4, seed=2) if transpose_kernel else integers(3, 2, 4, 6, seed=2)

    def run(module):
        return lambda x, w: module.conv_transpose(
            x, w, strides, padding, dilation, None, transpose_kernel, use_consistent_padding=consistent
        )

    assert_same(run(jaxconv.lax), run(lax), integers(2, 6, 5, 4), weight)


@pytest.mark.parametrize("layout", [None, ("NHWC", "HWIO", "NHWC"), ("NHWC", "OIHW", "NCHW")])
@pytest.mark.parametrize(
    ("strides", "padding", "spread", "dilation"),
    [((1, 1), "SAME", None, None), ((2, 3), ((1, 2), (0, 3)), (2, 1), (1, 2)), ((1, 2), "VALID", None, (2, 1))],
)
def test_patches_are_laxs(layout, strides, padding, spread, dilation):
    def run(module):
        return lambda x: module.conv_general_dilated_patches(
            x, (3, 2), strides, padding, spread, dilation, dimension_numbers=layout
        )

    assert_same(run(jaxconv.lax), run(lax), integers(*((2, 4, 6, 5) if layout is None else (2, 6, 5, 4))))


# The shapes, kernels, strides, pads and layouts of JAX's tests of patches (tests/lax_test.py), first those that overlap.
SEQUENCES = ("NHC", "OIH", "NHC")
PATCHES = [
    ((1, 1), (), (), "SAME", None, None),
    ((1, 5, 1), (2,), (2,), "VALID", None, SEQUENCES),
    ((1, 5, 1), (3,), (1,), "SAME", None, SEQUENCES),
    ((1, 5, 1), (3,), (1,), "SAME", (2,), SEQUENCES),
    ((1, 2, 3, 1), (2, 2), (1, 1), "SAME", None, ("NHWC", "OIHW", "NHWC")),
    ((2, 5), (), (), [], None, ("NC", "OI", "CN")),
    ((2, 3, 4), (2,), (2,), [(0, 2)], None, ("CNH", "OHI", "HNC")),
    ((3, 1, 4, 5), (1, 3), (1, 3), [(3, 1), (2, 2)], None, ("NCHW", "OIHW", "NCHW")),
    ((3, 2, 5, 6), (4, 3), (4, 3), [(5, 2), (2, 4)], None, None),
    ((1, 2, 3, 4), (1, 1), (1, 1), [(0, 0), (0, 0)], None, ("NCWH", "OHWI", "CNHW")),
    ((1, 2, 3, 4), (3, 2), (1, 1), [(0, 0), (0, 0)], None, ("CWHN", "HOWI", "NCHW")),
    ((2, 3, 4, 5, 6), (2, 1, 3), (2, 1, 3), [(1, 2), (5, 3), (3, 5)], None, ("NHWDC", "HDIWO", "DCWNH")),
]


@pytest.mark.parametrize(("shape", "kernel", "strides", "padding", "dilation", "layout"), PATCHES)
def test_jaxs_own_cases_of_patches(shape, kernel, strides, padding, dilation, layout):
    def run(module):
        return lambda x: module.conv_general_dilated_patches(
            x, kernel, strides, padding, None, dilation, dimension_numbers=layout
        )

    assert_same(run(jaxconv.lax), run(lax), integers(*shape))


def test_the_signatures_are_laxs():
    for name in ("conv_general_dilated", "conv_general_dilated_patches", "conv_transpose"):
        ours, theirs = (inspect.signature(getattr(module, name)).parameters for module in (jaxconv.lax, lax))
        assert list(ours) == list(theirs)
        assert [p.default for p in ours.values()] == [p.default for p in theirs.values()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "SOME"}, r'`padding` as a string must be "SAME", "SAME_LOWER" or "VALID", got \'SOME\''),
        ({"padding": "SAME", "lhs_dilation": (2,)}, r"`padding` must be made of pairs where `lhs_dilation` is not 1"),
        ({"padding": ((1, 1), (1, 1))}, r"`padding` must be one \(low, high\) for each of the 1 spatial axes"),
        ({"feature_group_count": 0}, r"`feature_group_count` must be at least 1, got 0"),
        ({"feature_group_count": 2, "batch_group_count": 2}, r"only one of .* may exceed 1, got 2 and 2"),
        ({"batch_group_count": 3}, r"`batch_group_count` must divide the batch 2 and the output features 4, got 3"),
        ({"window_strides": (1, 1, 1)}, r"`window_strides` must be .*1 spatial axes, got 3 entries"),
        ({"out_sharding": "somewhere"}, r"`out_sharding` must be None"),
        ({"feature_group_count": 2}, r"`lhs` must have 8 features on axis 1, rhs\.shape\[1\] = 4 times .* = 2, got 4"),
        ({"feature_group_count": 3}, r"`feature_group_count` must divide .*rhs\.shape\[0\] = 4, got 3"),
    ],
)
def test_what_the_drop_in_refuses(options, message):
    arguments: dict[str, Any] = {"window_strides": (1,), "padding": "VALID", **options}
    with pytest.raises(ValueError, match=message):
        jaxconv.lax.conv_general_dilated(jnp.ones((2, 4, 6)), jnp.ones((4, 4, 2)), **arguments)
