"""The command `jaxconv verify`: agreement is seen, and disagreement too."""

import subprocess
import sys
from functools import partial

import jax
import numpy as np
import pytest

from jaxconv import cli, verify

SMALL = verify.Layer(
    "small", "nobody", lambda photos: photos[:, :, :12, :10], (4, 3, 3, 3), {"padding": 1, "stride": 2}
)


def test_the_photographs_are_photographs():
    photos = verify.photographs()
    assert photos.shape == (2, 3, 427, 640)
    assert photos.dtype == np.float32
    assert abs(float(photos.mean())) < 1e-3
    # Neighbouring pixels of a photograph resemble each other; noise has no such correlation.
    assert float((photos[..., 1:] * photos[..., :-1]).mean()) > 0.9


def test_every_layer_can_be_applied_to_its_view():
    photos = verify.photographs()
    for layer in verify.LAYERS:
        view = jax.eval_shape(layer.view, photos)
        weight = jax.ShapeDtypeStruct(layer.weight, np.float32)
        output = jax.eval_shape(partial(verify.conv, **layer.options), view, weight)
        assert output.shape[:2] == (view.shape[0], layer.weight[0])


def test_a_right_layer_agrees_with_both():
    row = next(verify.run((SMALL,)))
    assert row.agrees
    assert set(row.comparisons) == {"jax.lax", "torch"}
    assert set(row.seconds) == {"jaxconv", "jax.lax", "torch"}
    assert all(0 <= error < 50 for c in row.comparisons.values() for error in c.errors.values())


def wrong_output(*a, **o):
    return 1.0001 * RIGHT(*a, **o)


def wrong_gradient(input, weight, bias, **o):
    """A bias that the gradient does not see."""
    return RIGHT(input, weight, jax.lax.stop_gradient(bias), **o)


def not_a_number(*a, **o):
    return RIGHT(*a, **o) * np.nan


RIGHT = verify.conv


@pytest.mark.parametrize("wrong", [wrong_output, wrong_gradient, not_a_number])
def test_a_wrong_layer_is_caught_and_sets_the_exit_status(monkeypatch, capsys, wrong):
    monkeypatch.setattr(verify, "conv", wrong)
    monkeypatch.setattr(verify, "LAYERS", (SMALL,))
    assert cli.main(["verify"]) == 1
    printed = capsys.readouterr().out
    assert "DIFFERS" in printed
    assert "0 of 1 layers agree" in printed


def test_the_table_of_a_right_layer(monkeypatch, capsys):
    monkeypatch.setattr(verify, "LAYERS", (SMALL,))
    assert cli.main(["verify"]) == 0
    printed = capsys.readouterr().out
    assert "small" in printed
    assert "1 of 1 layers agree" in printed


def test_without_torch_lax_alone_is_compared_and_the_command_says_so(monkeypatch, capsys):
    monkeypatch.setattr(verify, "_torch_run", lambda layer, arrays: None)
    assert set(next(verify.run((SMALL,))).comparisons) == {"jax.lax"}
    monkeypatch.setattr(verify, "LAYERS", (SMALL,))
    assert cli.main(["verify"]) == 0
    assert "torch is not installed: compared with jax.lax only" in capsys.readouterr().out


def test_a_missing_package_is_named(monkeypatch, capsys):
    monkeypatch.setattr(cli, "find_spec", lambda module: None if module == "sklearn" else module)
    assert cli.main(["verify"]) == 2
    assert 'needs scikit-learn: pip install "jaxconv[verify]"' in capsys.readouterr().err


def test_python_m_jaxconv_is_the_command():
    told = subprocess.run([sys.executable, "-m", "jaxconv", "--version"], capture_output=True, text=True, check=True)
    assert told.stdout.startswith("jaxconv ")
