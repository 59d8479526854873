"""An engine that is named, and the products of those that multiply."""

import importlib

import jax
import jax.numpy as jnp
import pytest
from jaxprs import equations

import jaxconv
from jaxconv.engines import NAMES
from jaxconv.products import better_right


@pytest.mark.parametrize("engine", NAMES)
def test_a_named_engine_is_the_one_that_runs(engine, monkeypatch):
    called = []
    module = importlib.import_module(f"jaxconv.engines.{engine}")
    for part in ("output", "input_gradient", "weight_gradient"):
        plain = getattr(module, part)
        monkeypatch.setattr(module, part, lambda *a, plain=plain, part=part: (called.append(part), plain(*a))[1])
    jax.clear_caches()
    input, weight = jnp.ones((1, 3, 7)), jnp.ones((2, 3, 3))
    jax.vjp(lambda x, w: jaxconv.conv(x, w, engine=engine), input, weight)[1](jnp.ones((1, 2, 5)))
    assert {"output", "input_gradient", "weight_gradient"} <= set(called)
    called.clear()
    jax.vjp(lambda x, w: jaxconv.conv_transpose(x, w, engine=engine), input[:, :2], weight)[1](jnp.ones((1, 3, 9)))
    assert {"output", "input_gradient", "weight_gradient"} <= set(called)
    jax.clear_caches()


def test_arguments_that_name_a_choice_are_checked():
    input, weight = jnp.ones((1, 3, 7)), jnp.ones((2, 3, 3))
    for function in (jaxconv.conv, jaxconv.conv1d):
        with pytest.raises(ValueError, match=r"`engine` must be one of 'auto', .*, got 'fast'"):
            function(input, weight, engine="fast")
    with pytest.raises(ValueError, match=r'`data_format` must be "channels_first" or "channels_last", got \'NHWC\''):
        jaxconv.conv(input, weight, data_format="NHWC")
    with pytest.raises(ValueError, match=r"`input` must have 3 channels .*, got 7"):
        jaxconv.conv(input, weight, data_format="channels_last")


def test_a_product_a_sample_has_no_axis_of_one_group():
    """A product of factors with such an axis takes half as long again on a CPU."""
    input, weight = jnp.ones((2, 3, 7)), jnp.ones((5, 3, 2))

    def gradients(x, w):
        output, pull = jax.vjp(lambda x, w: jaxconv.conv(x, w, engine="batched"), x, w)
        return output, pull(output)

    made = equations(jax.make_jaxpr(gradients)(input, weight).jaxpr)
    products = [one for one in made if one.primitive.name == "dot_general"]
    assert len(products) >= 3
    assert all(factor.aval.ndim == 3 for product in products for factor in product.invars)


@pytest.mark.parametrize(
    ("columns", "others", "right"),
    [
        # The one of few columns is copied; of more than 24, that which leaves fewer of 16 columns unused.
        (9, 128, True),
        (128, 9, False),
        (24, 256, True),
        (256, 25, True),
        (32, 48, True),
        (48, 32, False),
        (216, 48, False),
        (27, 27, True),
    ],
)
def test_the_right_factor_of_a_product(columns, others, right):
    assert better_right(columns, others) == right
