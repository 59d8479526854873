"""`python -m benchmarks`: times layers and networks, prints a table, writes JSON, draws plots."""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import networks, report
from benchmarks.case import QUANTITIES, Case
from benchmarks.cases import SETS, growth
from benchmarks.contenders import NAMES
from benchmarks.runner import Row, machine, run
from jaxconv.choice import ENGINES

DTYPES = ("float32", "bfloat16", "float64")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    table = commands.add_parser("run", help="time cases")
    table.add_argument("cases", nargs="*", default=["study"], help=f"names of cases, or of sets: {', '.join(SETS)}")
    table.add_argument("--quantities", nargs="+", choices=QUANTITIES, default=QUANTITIES)
    lines = commands.add_parser("growth", help="time one layer as it grows in batch, channels, image and kernel")
    for command in (table, lines):
        command.add_argument("--contenders", nargs="+", choices=NAMES, default=NAMES)
        command.add_argument("--dtype", choices=DTYPES, default="float32")
        command.add_argument("--channels-last", action="store_true", help="the layout of input and output")
        command.add_argument("--engine", choices=ENGINES, default="auto", help="jaxconv's engine")
        command.add_argument("--batch-times", type=_count, default=1, help="so many times as many samples, for a GPU")
        command.add_argument("--in-flight", type=_count, default=1, help="calls that a time is a share of, for a GPU")
        command.add_argument("--rounds", type=_count, default=7, help="timed calls of every contender")
        command.add_argument("--patience", type=float, default=2.0, help="seconds; a slower contender is called once")
        command.add_argument("--json", type=_file, help="where to write all numbers")
    table.add_argument("--plot", type=_file, help="where to draw the bars")
    lines.add_argument("--plot", type=_file, help="where to draw the lines")
    whole = commands.add_parser("networks", help="time whole networks beside `jax.lax`")
    whole.add_argument("names", nargs="*", help=f"all, or of {', '.join(each.name for each in networks.NETWORKS)}")
    whole.add_argument("--dtype", choices=DTYPES[:2], default="float32")
    whole.add_argument("--channels-last", action="store_true", help="the layout of all images")
    whole.add_argument("--rounds", type=_count, default=7, help="timed calls of each")
    whole.add_argument("--json", type=_file, help="where to write all numbers")
    drawn = commands.add_parser("plot", help="draw bars from files that `run --json` wrote")
    drawn.add_argument("files", nargs="+", type=_written)
    drawn.add_argument("--quantity", choices=QUANTITIES, default="vjp")
    drawn.add_argument("--to", type=_file, required=True)
    told = commands.add_parser(
        "markdown", help="a table for a document from files that `run --json` or `networks --json` wrote"
    )
    told.add_argument("files", nargs="+", type=_written)
    commands.add_parser("list", help="the cases")
    options = parser.parse_args(arguments)
    command = {
        "run": _run,
        "growth": _growth,
        "networks": _networks,
        "plot": _plot,
        "markdown": _markdown,
        "list": _list,
    }[options.command]
    try:
        return command(options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _file(name: str) -> Path:
    """A file that can be written, as far as can be told before all the work."""
    path = Path(name)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    return path


def _written(name: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {path}")
    return path


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer that is at least 1, got {text}")
    return int(text)


def _run(options: argparse.Namespace) -> int:
    cases = _named(options.cases)
    total = sum(quantity in options.quantities for case in cases for quantity in case.quantities)
    rows = _rows(options, cases, options.quantities, total)
    _tell(options, report.table(rows), rows)
    if options.plot:
        report.bars(rows, options.plot)
    return 0


def _growth(options: argparse.Namespace) -> int:
    series: dict[str, Any] = {}
    for axis, points in growth().items():
        rows = _rows(options, [case for _, case in points], ("vjp",), len(points))
        series[axis] = [(value, row) for (value, _), row in zip(points, rows, strict=True)]
        _console().print(axis, report.table(rows))
    _write(options, {"growth": series})
    if options.plot:
        report.lines(series, options.plot)
    return 0


def _networks(options: argparse.Namespace) -> int:
    known = {each.name: each for each in networks.NETWORKS}
    unknown = [name for name in options.names if name not in known]
    if unknown:
        raise SystemExit(f"no network is named {unknown[0]!r}; there are {', '.join(known)}")
    wanted = [known[name] for name in options.names or known]
    timed = networks.run(wanted, dtype=options.dtype, channels_last=options.channels_last, rounds=options.rounds)
    rows = _followed(timed, len(wanted) * len(networks.QUANTITIES))
    _tell(options, report.networks(rows), rows)
    return 0


def _tell(options: argparse.Namespace, table: Table, rows: list[Row]) -> None:
    """Shows a table and the means, and writes all rows where that is asked for."""
    console = _console()
    console.print(table)
    for line in report.means(rows):
        console.print(line)
    _write(options, {"rows": rows})


def _console() -> Console:
    """Wide enough for the table where nobody is at a terminal."""
    return Console(width=None if sys.stdout.isatty() else 160)


def _plot(options: argparse.Namespace) -> int:
    report.bars(_read(options.files), options.to, options.quantity)
    return 0


def _markdown(options: argparse.Namespace) -> int:
    rows = _read(options.files)
    told = [f"* {line}" for line in report.means(rows) if "matmul" not in line]
    table = report.markdown(rows) if "unfolded" in rows[0] else report.networks_markdown(rows)
    print(table, "", *told, sep="\n")
    return 0


def _read(files: Iterable[Path]) -> list[dict]:
    return [row for file in files for row in json.loads(file.read_text())["rows"]]


def _list(_: argparse.Namespace) -> int:
    for name, cases in SETS.items():
        for case in cases:
            print(f"{name:12} {case.name:10} {case.input!s:22} {case.weight!s:20} {case.note}")
    return 0


def _named(names: Iterable[str]) -> list[Case]:
    found = []
    for name in names:
        matching = SETS.get(name) or tuple(case for cases in SETS.values() for case in cases if case.name == name)
        if not matching:
            raise SystemExit(f"no case or set is named {name!r}; `python -m benchmarks list` lists them")
        found += matching
    return found


def _rows(options: argparse.Namespace, cases: list[Case], quantities: Sequence[str], total: int) -> list[Row]:
    if options.dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    timed = run(
        cases,
        quantities,
        options.contenders,
        dtype=options.dtype,
        channels_last=options.channels_last,
        engine=options.engine,
        batch_times=options.batch_times,
        in_flight=options.in_flight,
        rounds=options.rounds,
        patience=options.patience,
    )
    return _followed(timed, total)


def _followed(timed: Iterable[Row], total: int) -> list[Row]:
    """The rows, with a bar that shows how many there are of the total."""
    rows = []
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("timing", total=total)
        for row in timed:
            rows.append(row)
            progress.update(task, advance=1, description=f"{row['case']}, {row['quantity']}")
    return rows


def _write(options: argparse.Namespace, result: dict[str, Any]) -> None:
    if options.json:
        told = {"command": "python -m benchmarks " + " ".join(sys.argv[1:]), "machine": machine(), **result}
        options.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
