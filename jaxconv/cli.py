"""The command `jaxconv`."""

import argparse
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING

import jaxconv

if TYPE_CHECKING:
    from jaxconv.verify import Row


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command with `arguments` (default: the process's); returns its exit status."""
    parser = argparse.ArgumentParser(prog="jaxconv", description=jaxconv.__doc__)
    parser.add_argument("--version", action="version", version=f"jaxconv {jaxconv.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser(
        "verify",
        help="run layers of real networks on real photographs and compare with jax.lax and torch",
        description="Runs layers of real networks, forward and backward, on two photographs, and compares output and "
        "gradients with jax.lax and, where it is installed, torch. Exit status 1 if anything disagrees.",
    )
    prove_parser = commands.add_parser(
        "prove",
        help="prove, exactly, that what ships computes the convolution and its derivatives",
        description="Runs the shipped functions on symbols and proves that they are the convolution of the definition, "
        "that their backward passes are its derivatives, and the same of those; then refutes wrong backward rules, "
        "beside what a numeric gradient check says of them. Exit status 1 if anything does not come out so.",
    )
    prove_parser.add_argument("--all", action="store_true", help="list every geometry")
    options = parser.parse_args(arguments)
    try:
        return verify() if options.command == "verify" else prove(options.all)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _ready(command: str, extra: str, **packages: str) -> bool:
    """Whether the packages (import names) of an extra are there; says what is missing where not."""
    missing = [package for package, module in packages.items() if not find_spec(module)]
    if missing:
        print(f'jaxconv {command} needs {" and ".join(missing)}: pip install "jaxconv[{extra}]"', file=sys.stderr)
    return not missing


def verify() -> int:
    """`jaxconv verify`: 0 where every layer agrees, 1 where one does not, 2 where a package is missing."""
    if not _ready("verify", "verify", pillow="PIL", rich="rich", **{"scikit-learn": "sklearn"}):
        return 2
    from rich.console import Console

    from jaxconv.verify import LAYERS, run

    console = Console()
    start = time.perf_counter()
    rows: list[Row] = []
    with _progress(console) as progress:
        task = progress.add_task("", total=len(LAYERS))
        results = run(LAYERS)
        for layer in LAYERS:
            progress.update(task, description=f"{len(rows) + 1}/{len(LAYERS)}  {layer.name}")
            rows.append(next(results))
    _print_rows(console, rows, time.perf_counter() - start)
    return 0 if all(row.agrees for row in rows) else 1


def prove(every_geometry: bool = False) -> int:
    """`jaxconv prove`: 0 where all is proven and all that is wrong refuted, 1 where not, 2 where a package is missing."""
    if not _ready("prove", "proofs", rich="rich", sympy="sympy"):
        return 2
    from rich.console import Console

    from derivations.prove import prove_vjp
    from derivations.wrong_rules import numeric_check_notices, wrong_rules
    from jaxconv.proofs import proofs

    console = Console()
    start = time.perf_counter()
    with _progress(console) as progress:
        statements = list(proofs())
        task = progress.add_task("", total=len(statements))
        found = []
        for proof in statements:
            progress.update(task, description=f"{proof.subject}: {proof.statement}", advance=1)
            found.append((proof, proof.verdict()))
        refuted = []
        for rule in wrong_rules():
            progress.update(task, description=f"refuting: {rule.name}")
            refuted.append((rule, prove_vjp(rule.function, *rule.shapes), numeric_check_notices(rule)))
    _print_proofs(console, found, every_geometry)
    _print_refutations(console, refuted)
    proven = sum(map(bool, (verdict for _, verdict in found)))
    fallen = sum(verdict.outcome == "refuted" for _, verdict, _ in refuted)
    console.print(
        f"[bold]{proven} of {len(found)} statements proven[/bold], {fallen} of {len(refuted)} wrong rules refuted, "
        f"in {time.perf_counter() - start:.0f} s with jaxconv {jaxconv.__version__}, jax {version('jax')}, "
        f"sympy {version('sympy')}"
    )
    return 0 if proven == len(found) and fallen == len(refuted) else 1


def _progress(console):
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


def _print_proofs(console, found: list, every_geometry: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="proven exactly, on symbols", title_style="bold")
    for heading in ("", "what is proven", "geometries" if every_geometry else "on"):
        table.add_column(heading)
    table.add_column("entries", justify="right")
    table.add_column("")
    rows: dict = {}
    for proof, verdict in found:
        key = (proof.subject, proof.statement, proof.geometry if every_geometry else None)
        rows.setdefault(key, []).append((proof, verdict))
    for (subject, statement, geometry), members in sorted(rows.items(), key=lambda item: item[0][0]):
        failed = [f"{proof.geometry}: {verdict}" for proof, verdict in members if not verdict]
        where = geometry or (f"{len(members)} geometries" if len(members) > 1 else members[0][0].geometry)
        entries = sum(verdict.entries for _, verdict in members)
        outcome = f"[bold red]{escape(failed[0])}[/bold red]" if failed else "[green]proven[/green]"
        table.add_row(subject, statement, where, f"{entries:,}", outcome)
    console.print(table)


def _print_refutations(console, refuted: list) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="wrong backward rules, each of which has to fall", title_style="bold")
    for heading in ("mistake", "refuted at", "check_grads"):
        table.add_column(heading)
    for rule, verdict, noticed in refuted:
        at = verdict.counterexample
        where = "[bold red]NOT REFUTED[/bold red]" if at is None else escape(f"{at.quantity}{list(at.index)}")
        table.add_row(rule.name, where, "notices" if noticed else "[bold]passes it[/bold]")
    console.print(table)


def _print_rows(console, rows: "list[Row]", seconds: float) -> None:
    from rich.table import Table

    from jaxconv.verify import QUANTITIES

    contenders = list(rows[0].comparisons)
    table = Table(title="jaxconv against " + " and ".join(contenders), title_style="bold", show_lines=True)
    table.add_column("layer, input → output")
    table.add_column("", no_wrap=True)
    for heading in ("O", "∂I", "∂W", "∂B", "ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in rows:
        comparisons = row.comparisons.values()
        table.add_row(
            f"[bold]{row.layer.name}[/bold]\n{_shape(row.input_shape)}\n→ {_shape(row.output_shape)}",
            "\n".join(["jaxconv", *contenders]),
            *("\n".join(["", *(f"{c.errors[quantity]:.1f}" for c in comparisons)]) for quantity in QUANTITIES),
            "\n".join(f"{1e3 * row.seconds[name]:.0f}" for name in ("jaxconv", *contenders)),
            "\n".join(
                ["", *("[green]agrees[/green]" if c.agrees else "[bold red]DIFFERS[/bold red]" for c in comparisons)]
            ),
        )
    agreeing = sum(row.agrees for row in rows)
    console.print(table)
    console.print(
        "O, ∂I, ∂W, ∂B: the largest difference of the output and of the gradients of input, weight and bias, in units "
        "of float32 rounding (2⁻²⁴) of the largest entry. ms: one forward and backward pass, compiled, median.",
        style="dim",
    )
    if "torch" not in contenders:
        console.print("torch is not installed: compared with jax.lax only", style="dim")
    console.print(
        f"[bold]{agreeing} of {len(rows)} layers agree[/bold], in {seconds:.0f} s with jaxconv {jaxconv.__version__}, "
        f"jax {version('jax')} on {_device()}"
    )


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _device() -> str:
    import jax

    return jax.devices()[0].device_kind
