"""The benchmark times the same thing of every contender, in turn, and says what it found."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import cases, networks, report, runner
from benchmarks.case import Case
from benchmarks.contenders import Contender, Setting, contender
from benchmarks.drawn import drawn
from benchmarks.runner import unfolded_bytes
from benchmarks.timing import in_turn, ratio
from derivations import __main__ as derivations_command
from jaxconv import cli

TINY = (
    Case("layer", (2, 4, 7, 6), (6, 2, 3, 3), 2, 1, 1, 2),
    Case("dilated", (2, 4, 17), (6, 4, 3), 1, 2, 2),
    Case("transposed", (2, 4, 5, 4), (4, 6, 3, 3), 2, 1, transposed=True),
    Case("examples", (3, 4, 6, 6), (5, 4, 3, 3), padding=1, kind="per example"),
    Case("mapped", (3, 4, 6, 6), (5, 4, 3, 3), padding=1, kind="mapped"),
    Case("loop", (2, 4, 6, 6), (4, 2, 3, 3), padding=1, groups=2, kind="loop"),
)


def flat(results) -> list[np.ndarray]:
    return [np.asarray(array) for array in jax.tree.leaves(results) if array is not None]


@pytest.mark.parametrize("last", [False, True], ids=["channels_first", "channels_last"])
@pytest.mark.parametrize("case", TINY, ids=lambda case: case.name)
def test_contenders_compute_the_same(case, last):
    for quantity in case.quantities:
        setting = Setting(case, quantity, "float32", last)
        expected = flat(contender("lax", setting).start())  # type: ignore[union-attr]
        assert expected
        for name in ("jaxconv", "torch"):
            other = contender(name, setting)
            if other is None:
                assert (name, case.kind) == ("torch", "loop")
                continue
            results = flat(other.start())
            for mine, theirs in zip(results, expected, strict=True):
                # torch's images stand channels first, whatever their layout in memory.
                shown = np.moveaxis(mine, 1, -1) if last and mine.shape != theirs.shape else mine
                np.testing.assert_allclose(shown, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


def test_a_bare_product_has_the_flops_of_the_layer():
    for case in TINY[:3]:
        one, all_three = (
            contender("matmul", Setting(case, quantity, "float32", False)) for quantity in ("weight gradient", "vjp")
        )
        assert flat(one.start())[0].size == np.prod(case.weight)  # type: ignore[union-attr]
        assert len(flat(all_three.start())) == 3  # type: ignore[union-attr]


def test_contenders_take_turns_and_slow_ones_are_called_once(monkeypatch):
    called, clock = [], [0.0]
    costs = {"a": 1.0, "b": 2.0, "slow": 50.0}

    def calling(name):
        def call():
            called.append(name)
            clock[0] += costs[name]

        return call

    monkeypatch.setattr("benchmarks.timing.time.perf_counter", lambda: clock[0])
    seconds = in_turn({name: calling(name) for name in costs}, rounds=3, patience=10)
    assert seconds == {"a": [1.0] * 3, "b": [2.0] * 3, "slow": [50.0]}
    # After two calls each to begin with: an untimed and a timed one in turn, the order changing.
    assert called[6:] == ["a", "a", "b", "b", "b", "b", "a", "a", "b", "b", "a", "a"]


def test_a_contender_is_warm_for_10_ms_before_it_is_timed(monkeypatch):
    called, clock = [], [0.0]

    def call():
        called.append(clock[0])
        clock[0] += 0.003

    monkeypatch.setattr("benchmarks.timing.time.perf_counter", lambda: clock[0])
    in_turn({"quick": call}, rounds=2, patience=10)
    # Two calls to begin with; then four that pass 12 ms and the timed one, in each round.
    assert len(called) == 2 + 2 * (4 + 1)


def test_ratios():
    assert ratio([2.0, 4.0, 9.0], [1.0, 2.0, 3.0]) == (2.0, 2.0, 2.5)
    assert ratio([6.0], [1.0, 2.0, 3.0]) == (3.0, 2.5, 4.5)
    rows = [{"case": name, "quantity": "vjp", "ratio": {"lax": (value, 0, 0)}} for name, value in (("x", 2), ("y", 8))]
    assert report.means(rows) == ["vjp, lax / jaxconv: geometric mean 4.00 over 2, least 2.00 (x)"]


def test_unfolded_bytes():
    assert unfolded_bytes(TINY[0], "float32") == 4 * 2 * 4 * 9 * 4 * 3
    assert unfolded_bytes(TINY[1], "float64") == 8 * 2 * 4 * 3 * 17
    assert unfolded_bytes(TINY[2], "bfloat16") == 2 * 2 * 6 * 9 * 5 * 4


def test_the_command(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(cases.SETS, "tiny", TINY[:1])
    file, plot = tmp_path / "rows.json", tmp_path / "bars.png"
    arguments = ["run", "tiny", "--rounds", "2", "--quantities", "vjp", "--json", str(file), "--plot", str(plot)]
    assert command.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "vjp, lax / jaxconv: geometric mean" in printed
    told = json.loads(file.read_text())
    assert told["machine"]["versions"]["jax"] == jax.__version__
    (row,) = told["rows"]
    assert set(row["median"]) == {"jaxconv", "lax", "torch", "matmul"}
    assert len(row["seconds"]["jaxconv"]) == 2
    assert plot.stat().st_size > 1000
    assert command.main(["plot", str(file), "--to", str(tmp_path / "again.png")]) == 0
    capsys.readouterr()
    assert command.main(["markdown", str(file)]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0] == "| case | vjp |"
    assert table[2].startswith("| layer | ")
    with pytest.raises(SystemExit, match="no case or set is named 'r65'"):
        command.main(["run", "r65"])
    assert command.main(["list"]) == 0
    assert "#13800" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--json", "/no/such/folder/file"], "argument --json: there is no folder /no/such/folder"),
        (["growth", "--plot", "/no/such/folder/file"], "argument --plot: there is no folder /no/such/folder"),
        (["run", "--rounds", "0"], "argument --rounds: must be an integer that is at least 1, got 0"),
        (["run", "--engine", "bogus"], "argument --engine: invalid choice: 'bogus'"),
        (["markdown", "/no/such/file"], "argument files: there is no file /no/such/file"),
    ],
)
def test_mistakes_are_told_before_the_work(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(arguments)
    assert message in capsys.readouterr().err


def test_an_interrupted_command_says_so(monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run", interrupt)
    monkeypatch.setattr("derivations.report.make_report", interrupt)
    monkeypatch.setattr(cli, "verify", interrupt)
    for main, arguments in ((command.main, ["run"]), (derivations_command.main, []), (cli.main, ["verify"])):
        assert main(arguments) == 130
        assert capsys.readouterr().err.endswith("interrupted\n")


def test_compile_time_is_the_median_of_contenders_in_turn(monkeypatch):
    asked = []
    seconds = iter([3.0, 1.0, 1.0, 2.0, 2.0, 9.0])
    monkeypatch.setattr(runner, "timed", lambda call: call() or next(seconds))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    ready = {
        name: Contender(lambda: 0, lambda _: None, lambda name=name: asked.append(name)) for name in ("jaxconv", "lax")
    }
    row = runner.measured({**ready, "torch": Contender(lambda: 0, lambda _: None)}, 2, 1.0)
    assert asked == ["jaxconv", "lax"] * 3
    assert row["compile_seconds"] == {"jaxconv": 2.0, "lax": 2.0}
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "somewhere")
    assert runner.measured(ready, 2, 1.0)["compile_seconds"] == {}


def test_calls_in_flight_share_a_time(monkeypatch):
    """And wait once, for all of them; of twice as many samples."""
    started, waited = [], []
    Contender(lambda: started.append(1) or len(started), waited.append).call(3)
    assert waited == [[1, 2, 3]]
    monkeypatch.setattr(runner, "in_turn", lambda calls, *_: {name: [call() or 6.0] for name, call in calls.items()})
    (row,) = runner.run(TINY[:1], ["forward"], ["jaxconv"], batch_times=2, in_flight=3)
    assert (row["seconds"], row["batch"], row["in_flight"]) == ({"jaxconv": [2.0]}, 4, 3)
    assert row["unfolded"] == 2 * unfolded_bytes(TINY[0], "float32")


def test_growth_is_along_one_axis_at_a_time():
    for axis, points in cases.growth().items():
        values = [value for value, _ in points]
        assert values == sorted(values)
        shapes = {(case.input, case.weight) for _, case in points}
        assert len(shapes) == len(values), axis


def test_drawn_layers_are_the_same_for_the_same_seed_and_within_bounds():
    layers = drawn(3, 60)
    assert layers == drawn(3, 60) != drawn(4, 60)
    for case in layers:
        u = unfolded_bytes(case, "float32")
        assert 2**20 <= u <= 2**26
        assert 10**7 <= u // 4 * case.weight[0] <= 2 * 10**9
    assert {case.rank for case in layers} == {1, 2}
    assert {case.stride for case in layers} >= {1, 2}


@pytest.mark.parametrize(
    ("network", "last"),
    [(each, bool(number % 2)) for number, each in enumerate(networks.NETWORKS)],
    ids=[each.name for each in networks.NETWORKS],
)
def test_a_network_is_the_same_by_both_contenders(network, last):
    """Of smaller images, one sample, in float64, as rounding grows from layer to layer; in one layout and the other in turn."""
    least = {"encodec": 400, "tasnet": 400, "textcnn": 16, "dcgan": 4, "unet3d": 8}.get(network.name, 32)
    shape = (1, network.input[1], *(least,) * (len(network.input) - 2))
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), shape, "float64")
        x = jnp.moveaxis(x, 1, -1) if last else x
        drawn = networks.Layers("lax", "float64", last)
        theirs = network.function(drawn, x)
        ours = network.function(networks.Layers("jaxconv", "float64", last, drawn.weights), x)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9 * np.abs(theirs).max())


def test_networks_are_timed_and_reported(tmp_path, capsys):
    assert command.main(["networks", "textcnn", "--rounds", "2", "--json", str(tmp_path / "all.json")]) == 0
    rows = json.loads((tmp_path / "all.json").read_text())["rows"]
    assert [row["quantity"] for row in rows] == ["inference", "training step"]
    for row in rows:
        assert row["ratio"]["lax"][0] > 0
        assert row["temporaries"]["jaxconv"] > 0
        assert len(row["seconds"]["lax"]) == 2
    shown = capsys.readouterr().out
    assert "textcnn" in shown
    assert "lax MB" in shown
    assert command.main(["markdown", str(tmp_path / "all.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| network | quantity | lax | temporaries MB | lax MB | compile s | lax s |"
    assert [line.split(" | ")[:2] for line in lines[2:4]] == [
        ["| textcnn", "inference"],
        ["| textcnn", "training step"],
    ]
    with pytest.raises(SystemExit, match="no network is named 'vgg'; there are resnet18"):
        command.main(["networks", "vgg"])
