"""What ships is proven, all of it, and `jaxconv prove` says so; a planted bug is not."""

import importlib
import inspect
import itertools
import types
from collections import Counter
from pathlib import Path

import jax
import pytest

import jaxconv
from derivations.prove import prove_equal
from jaxconv import cli, engine_proofs, engines, formulas, proofs
from jaxconv.statements import Proof

STATEMENTS = list(proofs.proofs())
SUBJECTS = sorted({proof.subject for proof in STATEMENTS})


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_statement_is_proven(subject):
    for proof in STATEMENTS:
        if proof.subject == subject:
            verdict = proof.verdict()
            assert verdict, f"{proof.statement} on {proof.geometry}: {verdict}"
            assert verdict.entries > 0


def test_every_public_function_has_its_proofs():
    public = [name for name in jaxconv.__all__ if inspect.isfunction(getattr(jaxconv, name))]
    equations = [
        f"formulas.{name}"
        for name, value in vars(formulas).items()
        if isinstance(value, types.FunctionType) and value.__module__ == formulas.__name__ and not name.startswith("_")
    ]
    drop_ins = [f"lax.{name}" for name in ("conv_general_dilated", "conv_general_dilated_patches", "conv_transpose")]
    assert {*public, *equations, *drop_ins} - {"forward_mode"} <= set(SUBJECTS)
    for name in set(public) - {"forward_mode"}:
        told = {proof.statement for proof in STATEMENTS if proof.subject == name}
        assert {"is its definition", "VJP", "VJP of the VJP"} <= told


def test_every_engine_has_its_proofs():
    """An engine is a file in jaxconv/engines, so a new one is looked for and proven like the others."""
    files = [path.stem for path in (Path(jaxconv.__file__).parent / "engines").glob("*.py") if path.stem != "__init__"]
    assert sorted(files) == list(engines.NAMES)
    for name in files:
        told = Counter(proof.statement for proof in STATEMENTS if proof.subject == f"engine {name}")
        own = [(geometry, options) for engine, geometry, options in engine_proofs.OWN if engine == name]
        elsewhere = {"channels_last", "platform", "unfolded"}
        geometries = [*proofs.GEOMETRIES, *(geometry for geometry, options in own if not elsewhere & options.keys())]
        parts = ("output", "input gradient", "weight gradient")
        plain = [f"{part} is its definition" for part in parts] + [f"VJP of {part}" for part in parts]
        assert [told.pop(statement) for statement in plain] == [len(geometries)] * 6
        if name == "batched":
            assert [told.pop(f"{statement}, channels last") for statement in plain] == [1] * 6
        if name == "taps":
            for way, count in (("calls", 1), ("channels moved", 2)):
                assert [told.pop(f"{statement}, channels last, {way}") for statement in plain] == [count] * 6
            for way in ("on an accelerator", "channels last, on an accelerator"):
                assert [told.pop(f"{statement}, {way}") for statement in plain] == [1] * 6
        ways = {
            "blocks": {"2 blocks": 1, "3 blocks": 1, "channels last, 2 blocks": 1},
            "phases": {"2 blocks": 1, "4 cells a window": 1},
            "fourier": {"4 cells a window": 2, "channels last, 4 cells a window": 1},
        }
        for way, count in ways.get(name, {}).items():
            assert [told.pop(f"{statement}, {way}") for statement in plain] == [count] * 6
        last = [(geometry, "channels_moved" in options) for geometry, options in own if "channels_last" in options]
        if name == "fold":
            for layout in (", channels last", ", channels last, channels moved"):
                assert [told.pop(f"{statement}{layout}") for statement in plain] == [1] * 6
            of_layout = {
                "": geometries,
                ", channels last": [geometry for geometry, moved in last if not moved],
                ", channels last, channels moved": [geometry for geometry, moved in last if moved],
            }
            # With one axis unfolded on all, with two on those of two axes and more, with three on those of three.
            for unfolded, layout in itertools.product((1, 2, 3), of_layout):
                ranked = [geometry for geometry in of_layout[layout] if geometry.rank >= unfolded]
                # A gradient that is the same whatever is unfolded is proven once, with none.
                for part, same in (
                    ("output", lambda g: False),
                    ("input gradient", lambda g: max(g.stride) > 1),
                    ("weight gradient", lambda g, n=unfolded: max((1, *g.stride[n:])) > 1),
                ):
                    count = len([g for g in ranked if not same(g)])
                    for statement in (f"{part} is its definition", f"VJP of {part}"):
                        assert told.pop(f"{statement}{layout}, {unfolded} axes unfolded", 0) == count
                        assert count > 0 or layout
        assert not told


@pytest.mark.parametrize("part", ["output", "input_gradient", "weight_gradient"])
@pytest.mark.parametrize("name", engines.NAMES)
def test_a_bug_planted_in_an_engine_is_found(monkeypatch, name, part):
    engine = importlib.import_module(f"jaxconv.engines.{name}")
    right = getattr(engine, part)

    def wrong(convolution, *arrays):
        return right(convolution, *arrays).at[..., -1].multiply(1 + 2**-20)

    monkeypatch.setattr(engine, part, wrong)
    jax.clear_caches()  # or a jitted function would run the engine that it was traced with
    # A depthwise one is where `conv` uses taps.
    geometry = proofs.GEOMETRIES[7 if name == "taps" else 0]
    statements = [proof for proof in engine_proofs.of_engine(name, geometry) if "definition" in proof.statement]
    if name == "taps":
        for user in ("conv", "conv2d"):
            statements += proofs._of_conv(user, getattr(jaxconv, user), geometry)
    users = {proof.subject for proof in statements}
    failing = {proof.subject for proof in statements if "of the VJP" not in proof.statement and not proof.verdict()}
    jax.clear_caches()
    assert failing == users


def test_the_command(monkeypatch, capsys):
    few = [next(proof for proof in STATEMENTS if proof.subject == subject) for subject in SUBJECTS]
    monkeypatch.setattr(proofs, "proofs", lambda: iter(few))
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["prove"]) == 0
    printed = capsys.readouterr().out
    assert f"{len(few)} of {len(few)} statements proven" in printed
    assert "23 of 23 wrong rules refuted" in printed
    assert all(subject in printed for subject in SUBJECTS)


def test_the_command_fails_where_something_is_not_proven(monkeypatch, capsys):
    wrong = Proof("conv9d", "is what it is not", "nowhere", lambda: prove_equal(lambda x: x, lambda x: 2 * x, (1,)))
    monkeypatch.setattr(proofs, "proofs", lambda: iter([STATEMENTS[0], wrong]))
    assert cli.main(["prove", "--all"]) == 1
    printed = capsys.readouterr().out
    assert "1 of 2 statements proven" in printed
    assert "refuted" in printed


def test_a_missing_package_is_named(monkeypatch, capsys):
    monkeypatch.setattr(cli, "find_spec", lambda module: None if module == "sympy" else module)
    assert cli.main(["prove"]) == 2
    assert 'needs sympy: pip install "jaxconv[proofs]"' in capsys.readouterr().err
