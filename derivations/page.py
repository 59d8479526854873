"""The report as one HTML file: MathML and CSS, no script, no network.

The pictures show which input cell each entry of U reads. A cell and all of its copies have one colour, and pointing at
any of them marks them all: those are what fold sums.
"""

import itertools
from html import escape

from derivations.check import Check
from derivations.derive import Derivation
from derivations.equations import EQUATION_2, Layer
from derivations.index_sets import Geometry, geometries
from derivations.notation import mathml, plain
from derivations.report import RANKS, Report, conclusion, left_sides

PICTURES = (
    Geometry(1, 1, (1, 1), (3, 3), (2, 2), (1, 1), (1, 1), ((0, 0), (0, 0))),
    Geometry(1, 1, (1, 1), (4, 4), (3, 3), (1, 1), (1, 1), ((0, 0), (0, 0))),
    Geometry(1, 1, (1, 1), (4, 4), (3, 3), (2, 2), (1, 1), ((1, 1), (1, 1))),
)

_STYLE = """
:root { color-scheme: light; --ink: #1c2430; --soft: #5d6b7a; --line: #d9dfe6; --good: #1a7f4b; --bad: #b3261e; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 2.5rem 2rem 5rem; color: var(--ink); background: #fff;
       font: 1.15rem/1.55 Georgia, "Times New Roman", serif; }
h1 { font-size: 2.4rem; line-height: 1.15; margin: 0 0 .6rem; }
h2 { font-size: 1.7rem; margin: 3.2rem 0 .8rem; border-top: 3px solid var(--ink); padding-top: .8rem; }
h3 { font-size: 1.3rem; margin: 2.2rem 0 .4rem; }
p { max-width: 52rem; } .soft { color: var(--soft); }
math { font-size: 1.15em; }
.boxed { border: 2px solid var(--ink); padding: .5rem 1rem; display: inline-block; margin: .4rem 0; }
.steps { overflow-x: auto; border-left: 4px solid var(--line); padding-left: 1rem; }
.step { display: grid; grid-template-columns: 12rem max-content; gap: 0 .6rem; align-items: center; padding: .28rem 0; }
.step span { text-align: right; } .step small { grid-column: 2; color: var(--soft); font-size: .92rem; }
.step.last > div { background: #eef7f1; padding: .15rem .5rem; border-radius: .3rem; }
.good { color: var(--good); font-weight: bold; } .bad { color: var(--bad); font-weight: bold; }
table { border-collapse: collapse; width: 100%; font-size: 1rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .7rem .35rem 0; border-bottom: 1px solid var(--line); }
td.number, th.number { text-align: right; } code { font-size: .86rem; }
.picture { display: flex; flex-wrap: wrap; gap: 2.5rem; align-items: flex-start; margin: 1rem 0 2rem; }
.grid { display: grid; gap: 3px; width: max-content; } figure { margin: 0; } figcaption { color: var(--soft); font-size: 1rem; }
.cell { width: 3.1rem; height: 2.1rem; display: grid; place-items: center; border-radius: .25rem; font: .95rem/1 Georgia, serif; }
.cell.zero { background: repeating-linear-gradient(45deg, #f1f3f5 0 5px, #fff 5px 10px); color: #aab3bd; }
.cell.label { color: var(--soft); width: auto; min-width: 3.1rem; }
.geometries { columns: 3 22rem; font: .82rem/1.45 ui-monospace, monospace; list-style: none; padding: 0; }
footer { margin-top: 4rem; color: var(--soft); font-size: 1rem; }
"""


def to_html(report: Report) -> str:
    """A self-contained page of everything in `report`."""
    layer = Layer(report.rank)
    unfold, convolution = layer.unfold, layer.convolution
    body = [
        "<h1>The gradients of a convolution, derived</h1>",
        f'<p class="{"good" if report else "bad"}">{escape(conclusion(report))}</p>',
        "<p>A convolution is a linear layer in disguise: unfold the input, multiply by the weight. All that is assumed is "
        "equation 2,</p>",
        f'<div class="boxed">{mathml(EQUATION_2.output[EQUATION_2.at])} = {mathml(EQUATION_2.entry)}</div>',
        "<p>and where an entry of U comes from: output position <i>l</i> reads with tap <i>k</i> the cell "
        "<i>stride · l + dilation · k − padding</i> of the input, zero outside,</p>",
        f'<div class="boxed">{mathml(unfold.output[unfold.at])} = {mathml(unfold.entry)}</div>',
        '<p class="soft">N samples, Γ groups of C input and D output channels each; on each axis X input cells, K taps, '
        "L output positions, stride s, dilation d, padding z. Every size is a symbol, so every line holds for every size. A sum "
        "runs over the whole axis of its index.</p>",
        "<h2>Equations 3, 4 and 5</h2>",
        *map(_derivation, report.derivations[:3]),
        "<h2>Weight sharing</h2>",
        "<p>Unfolding copies. An input cell and its copies in U have one colour here; <b>point at a cell</b> to see its "
        "copies, which are what fold sums. Striped cells are the zeros of the padding, read by U and fed back to nobody.</p>",
        *map(_picture, PICTURES),
        "<h2>Down to input, weight and bias</h2>",
        f"<p>The whole map from I, W and B, with {report.rank} spatial axes and groups:</p>",
        f'<div class="boxed steps">{mathml(convolution.output[convolution.at])} = {mathml(convolution.entry)}</div>',
        *map(_derivation, report.derivations[3:7]),
        "<h2>Once more: derivatives of the gradients</h2>",
        "<p>A convolution is linear in the input and in the weight, so eqs. 3 and 4 differentiate into eqs. 2, 3 and 4 again. "
        "V is the gradient of the loss with respect to what they give.</p>",
        *map(_derivation, report.derivations[7:]),
        "<h2>Checked entry by entry</h2>",
        "<p>Every entry a symbol, every derivative taken by brute force, exactly, as polynomials.</p>",
        _checks(report),
        "<h2>What is wrong is refuted</h2>",
        "<p>A checker that cannot fail proves nothing. Each of these claims has one mistake; beside it stands the smallest "
        "index set that shows it.</p>",
        _refutations(report),
        "<h2>The geometries</h2>",
        '<p class="soft">N batch, g groups, C channels in and out of a group, X input, K kernel, s stride, d dilation, '
        "p padding (low, high).</p>",
        _geometries(),
        "<footer>Written by <code>python -m derivations --html</code>. Equation numbers are those of <i>Some formulae</i>, "
        "M. Calafà, P. Motta and T. Rimbot, EE-559 Deep Learning, 2022.</footer>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>The gradients of a convolution, derived</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _derivation(derivation: Derivation) -> str:
    claim = derivation.claim
    loss = "<math><mi>L</mi></math>"
    gradient = mathml(claim.argument[claim.at]).replace("<mrow>", "<mrow><mi>∂</mi><mi>L</mi><mo>/</mo><mi>∂</mi>", 1)
    rows = [
        f'<div class="step"><span>{left} =</span><div>{mathml(step.expression)}</div><small>{escape(step.reason)}</small></div>'
        for left, step in left_sides(derivation, (loss, gradient))
    ]
    rows[-1] = rows[-1].replace('"step"', '"step last"', 1)
    assumptions = ", &nbsp;".join(mathml(assumption) for assumption in derivation.assumptions)
    verdict = '<span class="good">derived</span>' if derivation else '<span class="bad">not the claim</span>'
    return (
        f"<section><h3>{escape(claim.name)} &nbsp;{escape(claim.title)} &nbsp;{verdict}</h3>"
        f'<div class="steps">{"".join(rows)}</div><p class="soft">where {assumptions}</p></section>'
    )


def _checks(report: Report) -> str:
    rows = [
        f"<tr><td>{escape(check.claim.name)}</td><td>{escape(check.claim.title)}</td>"
        f'<td class="number">{check.claim.map.rank or "–"}</td><td class="number">{check.index_sets}</td>'
        f'<td class="number">{check.entries}</td><td>{_verdict(check)}</td></tr>'
        for check in report.checks
    ]
    head = '<tr><th>claim</th><th></th><th class="number">spatial axes</th><th class="number">index sets</th>'
    return f'<table>{head}<th class="number">entries</th><th></th></tr>{"".join(rows)}</table>'


def _verdict(check: Check) -> str:
    if check:
        return '<span class="good">holds</span>'
    return f'<span class="bad">refuted</span> {escape(plain(str(check.counterexample)))}'


def _refutations(report: Report) -> str:
    rows = []
    for check in report.refutations:
        found = check.counterexample
        if found is None:
            told = '<td class="bad" colspan="3">not refuted</td>'
        else:
            entry = f"{found.quantity}{list(found.index)}"
            told = (
                f"<td><code>{escape(found.where)}</code></td><td><code>{escape(plain(entry))}</code></td>"
                f"<td><code>{escape(plain(found.claimed))}</code><br>true: <code>{escape(plain(found.true))}</code></td>"
            )
        rows.append(f"<tr><td>{escape(check.claim.name)}</td><td>{escape(check.claim.title)}</td>{told}</tr>")
    head = "<tr><th>claim</th><th>mistake</th><th>smallest index set</th><th>entry</th><th>claimed, and true</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _geometries() -> str:
    names = [str(geometry) for rank in RANKS for geometry in geometries(rank)]
    return f'<ul class="geometries">{"".join(f"<li>{escape(name)}</li>" for name in names)}</ul>'


def _picture(geometry: Geometry) -> str:
    """An input of two axes beside its U."""
    height, width = geometry.spatial
    cells = list(itertools.product(range(height), range(width)))
    taps = list(itertools.product(*map(range, geometry.kernel)))
    places = list(itertools.product(*map(range, geometry.output_sizes())))
    name = "p" + "".join(character for character in str(geometry) if character.isalnum())

    def read(tap, place):
        position = zip(geometry.stride, place, geometry.dilation, tap, geometry.padding, strict=True)
        cell = tuple(s * l + d * k - low for s, l, d, k, (low, _) in position)
        return cell if cell in cells else None

    def drawn(cell, label):
        if cell is None:
            return '<div class="cell zero">0</div>'
        number = cells.index(cell)
        hue = round(360 * number / len(cells))
        return (
            f'<div class="cell c{number}" style="background:hsl({hue} 75% {78 if number % 2 else 86}%)">{label}</div>'
        )

    def letters(cell):
        return f"{cell[0]},{cell[1]}"

    # Two rules a cell stand in for a script: pointing at one of its copies marks them all and pales the others.
    rules = "".join(
        f"#{name}:has(.c{n}:hover) .c{n}{{outline:3px solid #1c2430;font-weight:bold;opacity:1}}"
        for n in range(len(cells))
    )
    copies = {cell: sum(read(tap, place) == cell for tap in taps for place in places) for cell in cells}
    left = "".join(drawn(cell, letters(cell)) for cell in cells)
    counts = "".join(drawn(cell, f"×{copies[cell]}") for cell in cells)
    header = '<div class="cell label">k \\ l</div>' + "".join(
        f'<div class="cell label">{letters(p)}</div>' for p in places
    )
    rows = "".join(
        f'<div class="cell label">{letters(tap)}</div>'
        + "".join(drawn(cell, letters(cell) if cell else "0") for cell in (read(tap, place) for place in places))
        for tap in taps
    )
    style = f"<style>#{name}:has([class*=' c']:hover) .cell:not(.label){{opacity:.35}}{rules}</style>"
    return (
        f'{style}<div class="picture" id="{name}">'
        f'<figure><div class="grid" style="grid-template-columns:repeat({width},max-content)">{left}</div>'
        f"<figcaption>I, {height}×{width}</figcaption><br>"
        f'<div class="grid" style="grid-template-columns:repeat({width},max-content)">{counts}</div>'
        "<figcaption>copies that fold sums</figcaption></figure>"
        f'<figure><div class="grid" style="grid-template-columns:repeat({len(places) + 1},max-content)">{header}{rows}</div>'
        f"<figcaption>U: a row per tap k, a column an output position l. Kernel {geometry.kernel[0]}×{geometry.kernel[1]}, "
        f"stride {geometry.stride[0]}, padding {geometry.padding[0][0]}</figcaption></figure></div>"
    )
