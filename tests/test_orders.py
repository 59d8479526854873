"""In which order the factors of a product lie in memory, and which of them is in front."""

import importlib
import math

import pytest
from layers import given_to, layer

from jaxconv.engines import fold, taps


@pytest.mark.parametrize(
    ("given", "weight", "stride"),
    [((2, 6, 12, 12), (96, 6, 4, 4), 1), ((2, 6, 13, 13), (96, 6, 4, 4), 2), ((2, 8, 40), (32, 8, 4), 1)],
)
def test_where_all_axes_are_unfolded_the_weight_is_not_moved(given, weight, stride):
    """U has its rows in the weight's own order, with channels first."""
    convolution = layer(given, weight, 1, stride=stride, unfolded=len(weight) - 2)
    cotangent = (given[0], weight[0], *convolution.out_spatial)
    for function, second in ((fold.output, weight), (fold.weight_gradient, cotangent)):
        moved = given_to("transpose", function, convolution, given, second)
        assert moved
        assert math.prod(weight) not in [math.prod(shape) for (shape,) in moved]


def test_products_of_an_input_gradient_at_a_stride_are_in_the_order_of_the_weight():
    weight, cotangent = (8, 6, 3, 5), (2, 8, 6, 5)
    convolution = layer((2, 6, 13, 13), weight, 1, stride=2)
    moved = [shape for (shape,) in given_to("transpose", fold.input_gradient, convolution, weight, cotangent)]
    assert [shape for shape in moved if math.prod(shape) == math.prod(weight)] == [(8, 6 * 15)]


@pytest.mark.parametrize(
    ("engine", "weight"), [("stream", (48, 3, 3, 3)), ("fold", (48, 3, 3, 3)), ("batched", (48, 30, 1, 1))]
)
@pytest.mark.parametrize("wide", [True, False])
def test_with_channels_last_the_factor_of_fewer_columns_is_in_front(engine, weight, wide):
    """As a CPU's library turns that one around."""
    weight = weight if wide else (2, *weight[1:])
    given = (4, weight[1], 12, 12)
    convolution = layer(given, weight, weight[2] // 2, channels_last=True, unfolded=2)
    module = importlib.import_module(f"jaxconv.engines.{engine}")
    images = [convolution.shape(4, (12, 12), channels) for channels in (weight[1], weight[0])]
    products = given_to("dot_general", module.weight_gradient, convolution, *images)
    assert products
    columns = [[factor[-1] for factor in factors] for factors in products]
    assert all(left <= right for left, right in columns)
    assert {right for _, right in columns} == {48 if wide else math.prod(weight[1:])}


@pytest.mark.parametrize(
    ("weight", "left"),
    [
        ((96, 6, 4, 4), 96),  # As many.
        ((20, 6, 4, 4), 96),  # The right one is the one of few columns,
        ((90, 6, 4, 4), 90),  # and of more than 24 the one that leaves fewer of 16 unused.
        ((64, 6, 4, 4), 96),
        ((112, 6, 4, 4), 112),
    ],
)
@pytest.mark.parametrize("engine", ["fold", "batched"])
def test_with_channels_first_the_better_factor_is_on_the_right(engine, weight, left):
    given = (4, 6, 12, 12)
    convolution = layer(given, weight, 1, unfolded=2)
    cotangent = (4, weight[0], *convolution.out_spatial)
    module = importlib.import_module(f"jaxconv.engines.{engine}")
    products = given_to("dot_general", module.weight_gradient, convolution, given, cotangent)
    assert {factor[-2] for factor, _ in products} == {left}


@pytest.mark.parametrize("last", [False, True], ids=["channels_first", "channels_last"])
def test_with_channels_last_weights_of_all_groups_are_side_by_side(last):
    """XLA reads those of one tap as a vector then."""
    convolution = layer((2, 16, 12, 12), (16, 1, 3, 3), 1, 16, channels_last=last)
    image = convolution.shape(2, (12, 12), 16)
    factors = given_to("optimization_barrier", taps.output, convolution, image, (16, 1, 3, 3))
    assert ([(9 * 16,)] in factors) == last
