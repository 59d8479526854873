"""A signal in windows at all frequencies: to the bit where roots of unity are exact, and else to rounding."""

from dataclasses import replace

import choices
import jax
import jax.numpy as jnp
import memory
import numpy as np
import pytest
from choices import named
from geometries import Geometry, normal
from jax import lax
from layers import layer
from oracle import torch_results
from test_engines import check

from jaxconv import frequency_proofs
from jaxconv.convolution import Convolution
from jaxconv.engines import fourier, materialise
from jaxconv.frequencies import matrices, of_waves, products, turns
from jaxconv.window import make_window

# Of at most three taps, as windows of four cells have.
SIGNALS = [
    Geometry("padded", (2, 3, 29), (4, 3, 3), {"padding": 1}),
    Geometry("groups", (3, 4, 31), (6, 2, 3), {"padding": ((3, 0),), "groups": 2}),
    Geometry("dilated", (2, 2, 37), (3, 2, 2), {"dilation": 3, "padding": 2}),
    Geometry("dilated groups", (1, 6, 20), (4, 3, 3), {"dilation": 2, "groups": 2}),
    Geometry("one tap", (1, 2, 5), (3, 2, 1)),
    Geometry("longer than the signal", (2, 1, 1), (3, 1, 3), {"padding": 2}),
    Geometry("many windows", (3, 2, 130), (2, 2, 3), {"padding": 1}),
]


@pytest.mark.parametrize("calls", [False, True], ids=["inline", "calls"])
@pytest.mark.parametrize("last", [False, True], ids=["channels_first", "channels_last"])
@pytest.mark.parametrize("tile", [1, 600, 2**23], ids=["a window", "some", "all"])
@pytest.mark.parametrize("geometry", SIGNALS, ids=[g.name for g in SIGNALS])
def test_windows_of_four_cells(geometry, tile, last, calls):
    """Tiles of a window, or of some, have their products in as many turns as there are, or in some."""
    check("fourier", geometry, tile, last, 4, calls=calls)


@pytest.mark.parametrize("geometry", [g for g in SIGNALS if "dilation" not in g.options], ids=lambda g: g.name)
def test_phases_in_windows_of_four_cells(geometry):
    out_channels, in_channels, taps = geometry.weight
    strided = replace(
        geometry, weight=(out_channels, in_channels, 2 * taps), options=geometry.options | {"stride": 2, "padding": 6}
    )
    check("phases", strided, 2**23, False, 4)


@pytest.mark.parametrize(("cells", "taps"), [(16, 3), (24, 17), (48, 13), (96, 41), (256, 100)])
@pytest.mark.parametrize("last", [False, True], ids=["channels_first", "channels_last"])
@pytest.mark.parametrize("tile", [2**12, 2**23], ids=["some", "all"])
def test_larger_windows(cells, taps, last, tile):
    """In double precision, whose rounding hides no mistake."""
    geometry = Geometry("large", (3, 4, 300), (6, 4, taps), {"padding": taps // 2})
    arrays = geometry.arrays(np.float64)
    window, double = make_window((taps,), 1, taps // 2, 1, 1), jnp.dtype("float64")
    convolution = Convolution(window, (300,), 1, None, double, double, last, tile=tile, unfolded=cells)
    assert convolution.has_frequencies
    with jax.enable_x64(True):
        input, weight, bias, cotangent = (jnp.asarray(array) for array in arrays)
        x, g = (convolution.as_given(image) for image in (input, cotangent))
        images = fourier.output(convolution, x, weight, bias), fourier.input_gradient(convolution, weight, g)
        results = (*map(convolution.channels_second, images), fourier.weight_gradient(convolution, x, g))
        for mine, theirs in zip(results, torch_results(geometry, arrays), strict=False):
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-12 * np.abs(theirs).max())


@pytest.mark.parametrize("cells", [4, 16, 24, 96, 512])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_matrices_are_a_convolution(cells, share):
    taps = max(1, int(share * cells))
    of = matrices(cells, taps)
    assert {len(matrix) for matrix in of} == {products(cells)}
    for j in {0, (cells - taps) // 2, cells - taps}:
        kernel = np.einsum("p,pi,pm->im", of.out[:, j], of.taps, of.cells)
        np.testing.assert_allclose(kernel, np.eye(taps, cells, j), atol=1e-14)


def test_a_wrong_matrix_is_refuted(monkeypatch):
    def wrong(cosine, sine, taps):
        of = of_waves(cosine, sine, taps)
        of.out[2, 0] = 0 * of.out[2, 0]
        return of

    assert frequency_proofs.verdict(8, 3)
    monkeypatch.setattr(frequency_proofs, "of_waves", wrong)
    assert not frequency_proofs.verdict(8, 3)


@pytest.mark.parametrize(("cells", "taps"), [(24, 9), (64, 25), (256, 100)])
def test_rounding_is_that_of_the_sum(cells, taps):
    """Of normally distributed numbers, against the largest output: no more than twice that of `materialise`."""
    generator = np.random.default_rng(0)
    input, weight = (normal(generator, shape, np.float32) for shape in ((4, 64, 400), (64, 64, taps)))
    own = layer(input.shape, weight.shape, tile=2**23, unfolded=cells)
    with jax.enable_x64(True):
        double = replace(own, result=jnp.dtype("float64"), accumulate=jnp.dtype("float64"))
        exact = materialise.output(double, jnp.asarray(input, jnp.float64), jnp.asarray(weight, jnp.float64))
    given = jnp.asarray(input), jnp.asarray(weight)
    errors = [np.abs(engine.output(own, *given) - exact).max() for engine in (fourier, materialise)]
    assert 0 < errors[0] < 2 * errors[1]


def test_an_infinity_spoils_its_windows_and_no_others():
    """Windows of 16 cells and 5 taps have 12 outputs, and what sees an infinity is no number."""
    own = layer((1, 2, 100), (3, 2, 5), unfolded=16)
    generator = np.random.default_rng(0)
    input, weight = (normal(generator, shape, np.float32) for shape in ((1, 2, 100), (3, 2, 5)))
    input[0, 1, 40] = np.inf
    finite = np.asarray(jnp.isfinite(fourier.output(own, jnp.asarray(input), jnp.asarray(weight))).all((0, 1)))
    # Cell 40 is in the windows whose outputs are 36 to 47, all of which begin at 36 or before.
    windows = np.arange(96) // 12
    spoilt = (12 * windows <= 40) & (12 * windows + 16 > 40)
    assert not finite[36:41].any()
    np.testing.assert_array_equal(finite, ~spoilt)


@pytest.mark.parametrize(
    ("numbers", "expected"), [(1, 1), (2**21 // 23, 1), (2**21 // 23 + 1, 2), (2**21, 23), (2**30, 23)]
)
def test_turns_have_half_of_a_tile(numbers, expected):
    """Of 23 products, of single precision in 16 MB."""
    assert turns(layer((1, 8, 400), (8, 8, 5), unfolded=16, tile=2**24), numbers) == expected


@pytest.mark.parametrize("last", [False, True], ids=["channels_first", "channels_last"])
@pytest.mark.parametrize(
    ("input", "weight"), [((64, 64, 200), (192, 64, 31)), ((16, 96, 250), (96, 96, 20)), ((8, 64, 1000), (64, 64, 41))]
)
def test_temporaries_of_short_signals_are_a_quarter_of_u_at_most(input, weight, last):
    """Whose input and output are little beside U."""
    own = layer(input, weight, weight[-1] // 2, channels_last=last, platform="cpu")
    assert any(name.startswith("fourier") for name in named(own, weight, input[0]))
    temporaries, u, _, _ = memory.of_vjp(input, weight, {"padding": weight[-1] // 2}, last, jnp.float32)
    assert u > 2**24
    assert temporaries <= u / 4


SIZES = [
    # What is counted is two thirds of what blocks would cost: by channels out, channels in, and samples that share a weight.
    ((4, 64, 400), (17, 64, 25), ("blocks 5", "fold 1", "blocks 5")),
    ((4, 64, 400), (18, 64, 25), ("blocks 5", "fourier 64", "blocks 5")),
    ((4, 64, 400), (26, 64, 25), ("blocks 5", "fourier 64", "blocks 5")),
    ((4, 64, 400), (27, 64, 25), ("fourier 64", "fourier 64", "blocks 5")),
    ((4, 64, 400), (34, 64, 25), ("fourier 64", "fourier 64", "blocks 5")),
    ((4, 64, 400), (35, 64, 25), ("fourier 64", "fourier 64", "fourier 64")),
    ((4, 17, 400), (64, 17, 25), ("fold 1", "blocks 5", "blocks 2")),
    ((4, 18, 400), (64, 18, 25), ("fourier 64", "blocks 5", "blocks 2")),
    ((4, 26, 400), (64, 26, 25), ("fourier 64", "blocks 5", "fourier 64")),
    ((4, 27, 400), (64, 27, 25), ("fourier 64", "fourier 64", "fourier 64")),
    ((11, 64, 100), (64, 64, 25), ("blocks 5", "blocks 5", "blocks 5")),
    ((12, 64, 100), (64, 64, 25), ("fourier 64", "fourier 64", "blocks 5")),
    # A U of 16 MB: of a larger one products are taken in turns, and of some samples.
    ((4, 104, 400), (64, 104, 25), ("fourier 64", "fourier 64", "fourier 64")),
    ((4, 105, 400), (64, 105, 25), ("blocks 5", "blocks 5", "blocks 5")),
    # Windows of 512 cells are the largest, twice as many as taps.
    ((2, 48, 1500), (48, 48, 256), ("fourier 384", "fourier 384", "fourier 384")),
    ((2, 48, 1500), (48, 48, 257), ("blocks 16", "blocks 16", "blocks 16")),
]


@pytest.mark.parametrize(("given", "weight", "expected"), SIZES)
def test_which_signals_are_taken_to_frequencies(given, weight, expected):
    assert named(layer(given, weight, weight[-1] // 2, platform="cpu"), weight, given[0]) == expected


@pytest.mark.parametrize(
    ("more", "taken"),
    [
        ({}, True),
        ({"precision": lax.Precision.HIGH}, True),
        ({"precision": lax.Precision.HIGHEST}, False),
        ({"precision": "highest"}, False),
        ({"precision": "default"}, True),
        ({"precision": lax.DotAlgorithmPreset.F32_F32_F32}, True),
        ({"result": jnp.dtype("bfloat16")}, False),
        ({"mapped": 2}, False),
        ({"channels_last": True}, True),
        ({"platform": "accelerator"}, False),
    ],
)
def test_what_is_not_taken_to_frequencies(more, taken):
    given, weight = (4, 64, 400), (64, 64, 25)
    names = named(replace(layer(given, weight, 12, platform="cpu"), **more), weight, 4)
    assert [name.startswith("fourier") for name in names] == [taken] * 3


def test_a_long_kernel_at_a_stride_is_phases_at_all_frequencies():
    own = layer((8, 32, 1024), (64, 32, 48), 23, stride=2, platform="cpu")
    assert named(own, (64, 32, 48), 8) == ("phases 64", "phases 64", "phases 64")
    short = layer((8, 32, 1024), (64, 32, 8), 3, stride=2, platform="cpu")
    assert "phases 16" not in named(short, (64, 32, 8), 8)


@pytest.mark.parametrize(("taps", "cells"), [(25, 64), (300, 600)])
def test_a_caller_may_ask_for_it(taps, cells):
    own = layer((4, 16, 700), (16, 16, taps), taps // 2, platform="cpu", engine="fourier")
    chosen = [convolution.unfolded for _, convolution in choices.chosen(own, (16, 16, taps), 4)]
    assert chosen == [cells] * 3


def test_two_axes_or_a_stride_have_no_frequencies():
    """Such a layer is left to `fold`."""
    for own, weight in (
        (layer((1, 4, 20, 20), (4, 4, 3, 3), platform="cpu", engine="fourier"), (4, 4, 3, 3)),
        (layer((1, 4, 20), (4, 4, 3), stride=2, platform="cpu", engine="fourier"), (4, 4, 3)),
    ):
        assert not any(convolution.has_frequencies for _, convolution in choices.chosen(own, weight, 1))
