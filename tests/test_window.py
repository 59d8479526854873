"""Index arithmetic, against counting."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxconv.window import Taps, make_window, padding_pairs, per_axis


@given(
    size=st.integers(0, 12),
    taps=st.integers(1, 5),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 4),
    low=st.integers(0, 5),
    high=st.integers(0, 5),
)
def test_output_size_counts_the_windows_that_fit(size, taps, stride, dilation, low, high):
    window = make_window((taps,), stride, ((low, high),), dilation, 1)
    starts = range(-low, size + high, stride)
    fitting = [start for start in starts if start + dilation * (taps - 1) < size + high]
    if fitting:
        assert window.output_size((size,)) == (len(fitting),)
    else:
        with pytest.raises(ValueError, match="too small for the kernel on spatial axis 0"):
            window.output_size((size,))


@given(taps=st.integers(1, 6), dilation=st.integers(1, 4), size=st.integers(1, 9))
def test_same_keeps_the_size_and_puts_the_odd_cell_high(taps, dilation, size):
    window = make_window((taps,), 1, "same", dilation, 1)
    assert window.output_size((size,)) == (size,)
    low, high = window.padding[0]
    assert high - low in (0, 1)


def test_padding_can_be_spelled():
    arguments = ((3, 5), (1, 1), (1, 2))
    assert padding_pairs(2, *arguments) == ((2, 2), (2, 2))
    assert padding_pairs([1, 2], *arguments) == ((1, 1), (2, 2))
    assert padding_pairs([(1, 2), (0, 3)], *arguments) == ((1, 2), (0, 3))
    assert padding_pairs("valid", *arguments) == ((0, 0), (0, 0))
    assert padding_pairs("same", *arguments) == ((1, 1), (4, 4))
    assert padding_pairs(np.array([[1, 2], [0, 3]]), *arguments) == ((1, 2), (0, 3))  # type: ignore[arg-type]
    assert padding_pairs(np.array([1, 2]), *arguments) == ((1, 1), (2, 2))  # type: ignore[arg-type]


def test_an_entry_for_every_axis_or_one_for_all():
    assert (
        per_axis("stride", 2, 3, 1)
        == per_axis("stride", (2,), 3, 1)
        == per_axis("stride", np.int64(2), 3, 1)
        == (2, 2, 2)
    )
    assert per_axis("stride", [1, 2, 3], 3, 1) == (1, 2, 3)


def test_a_window_is_static():
    window = make_window((3, 2), 2, 1, 1, 2)
    assert hash(window) == hash(make_window([3, 2], (2, 2), [(1, 1), (1, 1)], [1, 1], 2))
    assert (window.rank, window.taps, window.extent(0)) == (2, 6, 3)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("at", "shift"), [(0, 1), (-1, 2), (5, -2), (2, -1), (0, 3)])
def test_whether_taps_are_inside(at, shift, stride):
    for count, size, length in itertools.product((1, 3), (5, 8, 12), (1, 3)):
        cells = [at + shift * tap + stride * cell for tap in range(count) for cell in range(length)]
        expected = all(0 <= cell < size for cell in cells)
        assert Taps(count, 0, 1, at, shift, stride).are_inside(size, length) == expected
