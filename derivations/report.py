"""Everything that the package finds out, and how a person or a machine reads it: terminal, LaTeX, JSON.

The page for browsers is in `page.py`.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from derivations.check import Check, check
from derivations.derive import Derivation, Step, derive
from derivations.equations import EQUATION_2, EQUATIONS, SECOND_ORDER, Claim, Layer
from derivations.index_sets import geometries, index_sets
from derivations.mutants import mutants
from derivations.notation import latex, plain, text

RANKS = (1, 2, 3)  # of the geometries that are checked


@dataclass(frozen=True)
class Report:
    """Derivations for every size, checks on small index sets, and the fate of the wrong claims."""

    rank: int
    derivations: tuple[Derivation, ...]
    checks: tuple[Check, ...]
    refutations: tuple[Check, ...]

    @property
    def geometries(self) -> int:
        """How many convolution geometries the pipelines were checked on."""
        return sum(len(geometries(rank)) for rank in RANKS)

    @property
    def index_sets(self) -> int:
        """How many sizes P, Q, R, M eqs. 3-5 were checked on."""
        return len(index_sets(0))

    def __bool__(self) -> bool:
        """Whether all that is claimed was derived and holds, and all that is wrong was refuted."""
        return all(self.derivations) and all(self.checks) and not any(self.refutations)


def claims_to_derive(rank: int) -> tuple[Claim, ...]:
    return (*EQUATIONS, *Layer(rank).claims, *SECOND_ORDER)


def claims_to_check() -> tuple[Claim, ...]:
    return (*EQUATIONS, *SECOND_ORDER, *(claim for rank in RANKS for claim in Layer(rank).claims))


def make_report(rank: int = 2, progress: Callable[[str], None] = lambda told: None) -> Report:
    """Derives, checks and refutes everything.

    Args:
        rank: number of spatial axes in which the pipelines are derived for every size.
        progress: told, now and then, what is being done.
    """
    derived = []
    for claim in claims_to_derive(rank):
        progress(f"deriving {claim.name}")
        derived.append(derive(claim))
    checked = []
    for claim in claims_to_check():
        checked.append(check(claim, progress=lambda name, claim=claim: progress(f"checking {claim.name} on {name}")))
    refuted = []
    for claim in mutants():
        progress(f"refuting {claim.name}: {claim.title}")
        refuted.append(check(claim))
    return Report(rank, tuple(derived), tuple(checked), tuple(refuted))


def to_text(report: Report) -> str:
    """For a terminal."""
    lines = [
        "From eq. 2 alone:",
        "",
        f"  {plain('Otilde')}[p,q,r] = {text(EQUATION_2.entry)}",
        "",
        "and, for a convolution, U read from I at position = stride*l + dilation*k - padding, zero outside:",
        "",
        f"  {_entry_of(Layer(report.rank).unfold)} = {text(Layer(report.rank).unfold.entry)}",
        "",
        "Sizes are symbols: what follows holds for every size. A sum runs over its whole axis.",
    ]
    for derivation in report.derivations:
        claim = derivation.claim
        lines += ["", f"{claim.name}  {claim.title}", ""]
        for left, step in left_sides(derivation, ("L", f"∂L/∂{text(claim.argument[claim.at])}")):
            lines += [f"    {left}"] if left else []
            lines += [f"      = {text(step.expression)}", f"            {step.reason}"]
        lines.append(f"    where {_assumptions(derivation)}")
        lines.append(f"    {'derived' if derivation else 'NOT THE CLAIM, which is ' + text(claim.formula)}")
    lines += [
        "",
        f"Checked entry by entry, as polynomials, on {report.index_sets} index sets and {report.geometries} geometries:",
        "",
    ]
    lines += [f"  {'holds  ' if check else 'REFUTED'}  {_summary(check)}" for check in report.checks]
    lines += ["", "Wrong claims, each of which has to fall:", ""]
    for check_ in report.refutations:
        verdict = "NOT REFUTED" if check_ else "refuted"
        lines.append(f"  {verdict}  {check_.claim.name} {check_.claim.title}")
        if check_.counterexample is not None:
            lines.append(f"           {plain(str(check_.counterexample))}")
    lines += ["", conclusion(report)]
    return "\n".join(lines)


def left_sides(derivation: Derivation, names: tuple[str, str]) -> Iterator[tuple[str, Step]]:
    """Each step with what stands left of its equals sign: `names` of loss and gradient, once each, and then nothing."""
    shown = -1
    for step in derivation.steps:
        yield (names[step.differentiated] if step.differentiated != shown else ""), step
        shown = step.differentiated


def conclusion(report: Report) -> str:
    """One line: what was found."""
    derived, held = sum(map(bool, report.derivations)), sum(map(bool, report.checks))
    fallen = sum(not check for check in report.refutations)
    return (
        f"{derived} of {len(report.derivations)} derived for every size; {held} of {len(report.checks)} checks hold on "
        f"{report.geometries} geometries; {fallen} of {len(report.refutations)} wrong claims refuted."
    )


def to_json(report: Report) -> str:
    """For machines: the same, with every step in LaTeX and in text."""

    def checked(check: Check) -> dict:
        counterexample = check.counterexample
        return {
            "claim": check.claim.name,
            "title": check.claim.title,
            "spatial_axes": check.claim.map.rank,
            "holds": bool(check),
            "index_sets": check.index_sets,
            "entries": check.entries,
            "counterexample": counterexample
            and {
                "index_set": counterexample.where,
                "gradient": counterexample.quantity,
                "index": counterexample.index,
                "claimed": counterexample.claimed,
                "true": counterexample.true,
            },
        }

    content = {
        "holds": bool(report),
        "derivations": [
            {
                "claim": derivation.claim.name,
                "title": derivation.claim.title,
                "holds": bool(derivation),
                "steps": [
                    {"reason": step.reason, "text": text(step.expression), "latex": latex(step.expression)}
                    for step in derivation.steps
                ],
                "assumptions": [text(assumption) for assumption in derivation.assumptions],
            }
            for derivation in report.derivations
        ],
        "checks": [checked(check) for check in report.checks],
        "refutations": [checked(check) for check in report.refutations],
        "geometries": [str(geometry) for rank in RANKS for geometry in geometries(rank)],
    }
    return json.dumps(content, indent=1, ensure_ascii=False)


def to_latex(report: Report) -> str:
    """A document that compiles with any LaTeX that has amsmath."""
    lines = [
        r"\documentclass{article}",
        r"\usepackage{amsmath}",
        r"\usepackage[landscape,margin=15mm]{geometry}",
        r"\allowdisplaybreaks",
        r"\begin{document}",
        r"\section*{Gradients of a convolution, derived from equation 2}",
        r"\[ " + latex(EQUATION_2.output[EQUATION_2.at]) + " = " + latex(EQUATION_2.entry) + r" \tag{2} \]",
        "Sizes are symbols, so what follows holds for every size. A sum runs over the whole axis of its index.",
    ]
    for derivation in report.derivations:
        claim = derivation.claim
        variable = latex(claim.argument[claim.at])
        lines += [rf"\subsection*{{${_latex_name(claim.name)}$: {_latex_text(claim.title)}}}", r"\begin{align*}"]
        gradient = rf"\frac{{\partial \mathcal{{L}}}}{{\partial {variable}}}"
        rows = [
            rf"{left} &= {latex(step.expression)} && \text{{{_latex_text(step.reason)}}}"
            for left, step in left_sides(derivation, (r"\mathcal{L}", gradient))
        ]
        lines += [" \\\\\n".join(rows), r"\end{align*}"]
        lines.append("where $" + ",\\; ".join(latex(a) for a in derivation.assumptions) + "$.")
    lines += [r"\end{document}", ""]
    return "\n".join(lines)


def _entry_of(map) -> str:
    return text(map.output[map.at])


def _assumptions(derivation: Derivation) -> str:
    return ", ".join(text(assumption) for assumption in derivation.assumptions)


def _summary(check: Check) -> str:
    axes = (
        f" in {check.claim.map.rank} spatial ax{'is' if check.claim.map.rank == 1 else 'es'}"
        if check.claim.map.rank
        else ""
    )
    told = f"{check.claim.name} {check.claim.title}{axes}: {check.entries} entries on {check.index_sets} index sets"
    return told if check else f"{told}; {check.counterexample}"


_LATEX = {"∂": r"\partial ", "G̃": r"\tilde{G}", "W̃": r"\tilde{W}", "γ": r"\gamma", "₁": "_1", "₂": "_2", "₃": "_3"}


def _latex_name(name: str) -> str:
    for character, command in _LATEX.items():
        name = name.replace(character, command)
    return name if name.startswith(("(", "\\")) else rf"\text{{{name}}}"


def _latex_text(words: str) -> str:
    """Prose in which single formulas like G̃[p,q,r] or x₁' = x₁ stand: those become mathematics."""
    done = []
    for word in words.replace("Õ", "O").split(" "):
        bare = word.replace("B̃", r"\tilde{B}")
        for character, command in _LATEX.items():
            bare = bare.replace(character, command)
        done.append(f"${bare}$" if bare != word or "[" in word or word.endswith("'") else word)
    return " ".join(done)
