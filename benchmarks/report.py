"""What a person sees of the benchmark: a table, geometric means, and plots."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

Row = dict[str, Any]
COLOURS = {"jaxconv": "#1b6ca8", "lax": "#d1495b", "torch": "#edae49", "matmul": "#8a8a8a"}


def table(rows: Sequence[Row]) -> Table:
    """One line per case and quantity: ratios with their quartiles; above 1, jaxconv is faster."""
    told = Table(title="time of the other / time of jaxconv: median [quartiles]", title_justify="left")
    others = [name for name in ("lax", "torch", "matmul") if any(name in row["ratio"] for row in rows)]
    for heading in ("case", "quantity", "jaxconv ms", *others, "temporaries / U", "compile s", "lax s"):
        told.add_column(heading, justify="left" if heading in ("case", "quantity") else "right")
    for row in rows:
        cells = [row["case"], row["quantity"], f"{1e3 * row['median'].get('jaxconv', math.nan):.1f}"]
        for name in others:
            cells.append(_told(row["ratio"].get(name)))
        temporaries = row["temporaries"].get("jaxconv")
        cells.append("" if temporaries is None else f"{temporaries / row['unfolded']:.2f}")
        cells += [_seconds(row["compile_seconds"].get(name)) for name in ("jaxconv", "lax")]
        told.add_row(*cells)
    return told


NETWORK_HEADINGS = ("network", "quantity", "jaxconv ms", "lax", "temporaries MB", "lax MB", "compile s", "lax s")


def networks(rows: Sequence[Row]) -> Table:
    """One line per network and quantity: the ratio, and temporaries and compile time of both."""
    told = Table(title="time of jax.lax / time of jaxconv: median [quartiles]", title_justify="left")
    for heading in NETWORK_HEADINGS:
        told.add_column(heading, justify="left" if heading in NETWORK_HEADINGS[:2] else "right")
    for row in rows:
        told.add_row(*_of_network(row))
    return told


def _of_network(row: Row) -> list[str]:
    memory = [f"{row['temporaries'].get(name, math.nan) / 1e6:.0f}" for name in ("jaxconv", "lax")]
    compiling = [_seconds(row["compile_seconds"].get(name)) for name in ("jaxconv", "lax")]
    ours = f"{1e3 * row['median']['jaxconv']:.1f}"
    return [row["case"], row["quantity"], ours, _told(row["ratio"]["lax"]), *memory, *compiling]


def networks_markdown(rows: Sequence[Row]) -> str:
    """The same for a document, without absolute times."""
    lines = [[*cells[:2], *cells[3:]] for cells in (NETWORK_HEADINGS, *map(_of_network, rows))]
    lines.insert(1, ["---", "---", *["---:"] * 5])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _told(ratio: Sequence[float] | None) -> str:
    if ratio is None:
        return ""
    median, low, high = ratio
    return f"{median:.2f} [{low:.2f}, {high:.2f}]"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def markdown(rows: Sequence[Row]) -> str:
    """The ratios as a table for a document: a line per case, lax / torch for each quantity."""
    quantities = list(dict.fromkeys(row["quantity"] for row in rows))
    lines = [f"| case | {' | '.join(quantities)} |", "| --- |" + " ---: |" * len(quantities)]
    for case in dict.fromkeys(row["case"] for row in rows):
        found = {row["quantity"]: row["ratio"] for row in rows if row["case"] == case}
        cells = []
        for quantity in quantities:
            ratios = found.get(quantity, {})
            cells.append(" / ".join(f"{ratios[name][0]:.2g}" for name in ("lax", "torch") if name in ratios))
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return "\n".join(lines)


def means(rows: Iterable[Row]) -> list[str]:
    """The geometric mean of the ratios, and the smallest one, for each quantity and contender."""
    found: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for row in rows:
        for name, ratio in row["ratio"].items():
            found.setdefault((row["quantity"], name), []).append((ratio[0], row["case"]))
    lines = []
    for (quantity, name), pairs in found.items():
        mean = math.exp(sum(math.log(value) for value, _ in pairs) / len(pairs))
        least, case = min(pairs)
        lines.append(
            f"{quantity}, {name} / jaxconv: geometric mean {mean:.2f} over {len(pairs)}, least {least:.2f} ({case})"
        )
    return lines


def _pyplot() -> Any:
    """matplotlib, which only plots need, drawing to files."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def bars(rows: Sequence[Row], path: Path, quantity: str = "vjp") -> None:
    """The ratio of every case, as bars on a logarithmic scale around 1."""
    plt = _pyplot()
    chosen = [row for row in rows if row["quantity"] == quantity]
    names = [name for name in ("lax", "torch") if any(name in row["ratio"] for row in chosen)]
    figure, axes = plt.subplots(figsize=(max(6, 0.5 * len(chosen) + 1.5), 3.6))
    width = 0.8 / len(names)
    for index, name in enumerate(names):
        places, heights, below, above = [], [], [], []
        for place, row in enumerate(chosen):
            if name in row["ratio"]:
                median, low, high = row["ratio"][name]
                places.append(place + (index - (len(names) - 1) / 2) * width)
                heights.append(median)
                below.append(median - low)
                above.append(high - median)
        axes.bar(
            places,
            [height - 1 for height in heights],
            width,
            bottom=1,
            color=COLOURS[name],
            label=f"{name} / jaxconv",
            yerr=[below, above],
            error_kw={"linewidth": 0.8, "ecolor": "#444444"},
        )
    axes.set_yscale("log")
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(range(len(chosen)), [row["case"] for row in chosen], rotation=45, ha="right")
    axes.set_ylabel("time ratio (above 1: jaxconv is faster)")
    axes.set_title(f"forward and backward ({quantity})" if quantity == "vjp" else quantity, loc="left")
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(names))
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def lines(series: dict[str, list[tuple[int, Row]]], path: Path) -> None:
    """Time against one size at a time, a panel each."""
    plt = _pyplot()
    figure, panels = plt.subplots(1, len(series), figsize=(3.1 * len(series), 3.1), squeeze=False)
    for axes, (name, points) in zip(panels[0], series.items(), strict=True):
        for who in ("jaxconv", "lax", "torch", "matmul"):
            drawn = [(value, 1e3 * row["median"][who]) for value, row in points if who in row["median"]]
            if drawn:
                axes.plot(*zip(*drawn, strict=True), marker="o", markersize=3, color=COLOURS[who], label=who)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks([value for value, _ in points], [str(value) for value, _ in points])
        axes.set_xlabel(name)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("ms, forward and backward")
    panels[0][-1].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
