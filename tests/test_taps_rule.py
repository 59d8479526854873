"""The rule's lines on few channels, which are added up tap by tap: every threshold from both sides."""

from dataclasses import replace

import jax.numpy as jnp
import pytest
from layers import layer

from jaxconv import choice
from jaxconv.convolution import Convolution
from jaxconv.window import make_window


@pytest.mark.parametrize(
    ("made", "summed", "kernel", "row", "options", "added_up"),
    [
        # Images of up to nine taps: 256 pairs of channels.
        (64, 4, (3, 3), 32, {}, True),
        (65, 4, (3, 3), 48, {}, False),
        (32, 5, (3, 3), 48, {}, False),
        (64, 4, (3, 3), 31, {}, False),
        (32, 4, (2, 2), 48, {}, False),
        (32, 4, (1, 5), 32, {}, True),
        # Of more taps: 32 channels.
        (32, 4, (2, 5), 48, {}, True),
        (33, 4, (2, 5), 48, {}, False),
        (32, 4, (2, 5), 47, {}, False),
        # Signals: 256 pairs, 64 channels that are made, and eight of them or twelve taps.
        (64, 1, (5,), 48, {}, True),
        (65, 1, (5,), 48, {}, False),
        (64, 4, (5,), 48, {}, True),
        (52, 5, (5,), 48, {}, False),
        (32, 8, (5,), 48, {}, True),
        (33, 8, (5,), 48, {}, False),
        (7, 32, (11,), 48, {}, False),
        (7, 8, (11,), 48, {}, False),
        (7, 8, (12,), 48, {}, True),
        (7, 4, (5,), 48, {}, True),
        (64, 4, (5,), 47, {}, False),
        (64, 4, (4,), 48, {}, False),
        (32, 1, (3, 3, 3), 48, {}, True),
        (16, 2, (3, 3), 48, {"channels_last": True}, True),
        (17, 2, (3, 3), 48, {"channels_last": True}, False),
        (16, 2, (2, 4), 48, {"channels_last": True}, False),
        (32, 4, (3, 3), 48, {"result": jnp.bfloat16}, False),
        (32, 4, (3, 3), 48, {"mapped": 2}, False),
    ],
)
def test_few_channels_are_added_up(made, summed, kernel, row, options, added_up):
    """To an output of those that come in, and to an input gradient of those that came out."""
    for part, weight in (("output", (made, summed, *kernel)), ("input_gradient", (summed, made, *kernel))):
        spatial = (48,) * (len(kernel) - 1) + (row,)
        window = make_window(kernel, 1, [taps // 2 for taps in kernel], 1, len(kernel))
        result = jnp.dtype(options.get("result", jnp.float32))
        more = {name: value for name, value in options.items() if name != "result"}
        convolution = Convolution(window, spatial, 1, None, result, jnp.float32, **more)
        assert (choice.rule(convolution, part, weight, 1)[0] == "taps") == added_up


@pytest.mark.parametrize(("taps", "added_up"), [(9, False), (10, True)])
def test_a_cotangent_that_is_large_beside_u_is_not_added_up(taps, added_up):
    """It is whole in memory: of as many channels out as in a tenth of U."""
    weight = (16, 16, taps)
    convolution = layer((2, 16, 200), weight, taps // 2)
    assert choice.rule(convolution, "output", weight, 2)[0] == "taps"
    assert (choice.rule(convolution, "input_gradient", weight, 2)[0] == "taps") == added_up


@pytest.mark.parametrize(
    ("weight", "size", "stride", "options", "added_up"),
    [
        ((8, 3, 3, 3), 32, 2, {}, True),
        ((9, 3, 3, 3), 32, 2, {}, False),
        ((8, 2, 3, 3), 32, 2, {}, False),
        ((8, 3, 3, 3), 31, 2, {}, False),
        ((4, 5, 3, 3), 32, (1, 4), {}, True),
        ((4, 5, 3, 3), 32, (1, 5), {}, False),
        # 32 terms a cell.
        ((8, 3, 4, 4), 32, 2, {}, True),
        ((8, 3, 4, 5), 32, 2, {}, False),
        ((8, 3, 20), 16, 5, {}, True),
        ((8, 3, 21), 16, 5, {}, False),
        ((3, 8, 3, 3, 3), 32, 2, {}, False),
        ((8, 3, 3, 3), 32, 2, {"channels_last": True}, False),
        ((8, 3, 3, 3), 32, 2, {"result": jnp.dtype("bfloat16")}, False),
        ((8, 3, 3, 3), 32, 2, {"mapped": 2}, False),
    ],
)
def test_few_channels_out_of_a_layer_at_a_stride_are_added_up(weight, size, stride, options, added_up):
    """To the gradient of an input of three channels or more."""
    input = (2, weight[1], *(size,) * len(weight[2:]))
    padding = weight[2] // 2
    given = layer(input, weight, padding, stride=stride, channels_last=options.get("channels_last", False))
    convolution = replace(given, **options)
    assert (choice.rule(convolution, "input_gradient", weight, 2)[0] == "taps") == added_up


@pytest.mark.parametrize(("dtype", "expected"), [("bfloat16", "taps"), ("float32", "fold"), ("float64", "fold")])
def test_a_wide_kernel_is_multiplied_in_other_than_16_bits(dtype, expected):
    window = make_window((9, 9), 1, 4, 1, 2)
    convolution = Convolution(window, (32, 32), 8, None, jnp.dtype(dtype), jnp.promote_types(dtype, "float32"))
    assert choice.rule(convolution, "weight_gradient", (8, 1, 9, 9), 4)[0] == expected
