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
    options = parser.parse_args(arguments)
    return {"verify": verify}[options.command]()


def verify() -> int:
    """`jaxconv verify`: 0 where every layer agrees, 1 where one does not, 2 where a package is missing."""
    needed = {"pillow": "PIL", "rich": "rich", "scikit-learn": "sklearn"}
    missing = [package for package, module in needed.items() if not find_spec(module)]
    if missing:
        print(f'jaxconv verify needs {" and ".join(missing)}: pip install "jaxconv[verify]"', file=sys.stderr)
        return 2
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from jaxconv.verify import LAYERS, run

    console = Console()
    start = time.perf_counter()
    rows: list[Row] = []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(LAYERS))
        results = run(LAYERS)
        for layer in LAYERS:
            progress.update(task, description=f"{len(rows) + 1}/{len(LAYERS)}  {layer.name}")
            rows.append(next(results))
    _print_rows(console, rows, time.perf_counter() - start)
    return 0 if all(row.agrees for row in rows) else 1


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
