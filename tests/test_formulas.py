"""Eqs. 2 to 5, each against its sum written as loops in its own letters."""

import itertools

import numpy as np
import pytest

from jaxconv import formulas

P, Q, R, M = 2, 6, 5, 8  # sizes of p, q, r and m


@pytest.fixture(params=[1, 2], ids=["one group", "two groups"])
def groups(request):
    return request.param


@pytest.fixture
def arrays(groups):
    """U, W~, B and G~ of small integers, on which sums are exact."""
    generator = np.random.default_rng(0)
    shapes = ((P, M, R), (Q, M // groups), (Q,), (P, Q, R))
    return [generator.integers(-9, 9, shape).astype(np.float64) for shape in shapes]


def rows_of(q, groups):
    """The rows of U that output channel q sees, with their column of W~."""
    width = M // groups
    first = q // (Q // groups) * width
    return [(first + column, column) for column in range(width)]


def test_equation_2(arrays, groups):
    u, weight, bias, _ = arrays
    expected = np.zeros((P, Q, R))
    for p, q, r in itertools.product(range(P), range(Q), range(R)):
        expected[p, q, r] = sum(weight[q, column] * u[p, m, r] for m, column in rows_of(q, groups)) + bias[q]
    np.testing.assert_array_equal(formulas.output(u, weight, bias, groups), expected)
    np.testing.assert_array_equal(formulas.output(u, weight, None, groups), expected - bias[:, None])


def test_equation_3(arrays, groups):
    _, weight, _, cotangent = arrays
    expected = np.zeros((P, M, R))
    for i, q, k in itertools.product(range(P), range(Q), range(R)):
        for j, column in rows_of(q, groups):
            expected[i, j, k] += cotangent[i, q, k] * weight[q, column]
    np.testing.assert_array_equal(formulas.unfolded_gradient(cotangent, weight, groups), expected)


def test_equation_4(arrays, groups):
    u, weight, _, cotangent = arrays
    expected = np.zeros(weight.shape)
    for p, i, r in itertools.product(range(P), range(Q), range(R)):
        for j, column in rows_of(i, groups):
            expected[i, column] += cotangent[p, i, r] * u[p, j, r]
    np.testing.assert_array_equal(formulas.weight_gradient(cotangent, u, groups), expected)


def test_equation_5(arrays):
    cotangent = arrays[3]
    np.testing.assert_array_equal(formulas.bias_gradient(cotangent), [cotangent[:, i].sum() for i in range(Q)])
