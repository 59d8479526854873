"""The tolerance is one that sums need and mistakes exceed."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv.rounding import error_bound, in_roundings, unit_roundoff


@pytest.mark.parametrize("terms", [1, 10, 1000, 100_000])
def test_the_worst_order_of_summation_stays_inside(terms):
    generator = np.random.default_rng(terms)
    a, b = generator.standard_normal((2, 50, terms)).astype(np.float32)
    exact = (a.astype(np.float64) * b).sum(axis=1)
    one_by_one = np.cumsum(a * b, axis=1, dtype=np.float32)[:, -1]
    bound = error_bound((np.abs(a) * np.abs(b).astype(np.float64)).sum(axis=1), terms, np.float32, np.float32)
    assert (np.abs(one_by_one - exact) <= bound).all()


def test_a_wrong_digit_exceeds_it():
    """One term in a thousand left out is far outside."""
    a, b = np.random.default_rng(0).standard_normal((2, 1000)).astype(np.float32)
    magnitude = float(np.abs(a * b).sum())
    assert np.median(np.abs(a * b)) > 10 * error_bound(magnitude, 1000, np.float32, np.float32)


def test_narrow_results_add_one_rounding():
    bound = float(error_bound(1.0, 1, jnp.float32, jnp.bfloat16))
    assert unit_roundoff(jnp.bfloat16) < bound < 1.001 * unit_roundoff(jnp.bfloat16)


def test_in_roundings():
    assert in_roundings(np.array([2.0**-23]), np.array([1.0, -2.0]), np.float32) == 1.0
    assert in_roundings(np.zeros(2), np.zeros(2), np.float32) == 0.0
    assert in_roundings(np.ones(2), np.zeros(2), np.float32) == np.inf
