"""What `python -m derivations` prints and writes: right where all is right, and red where it is not."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from derivations import __main__ as command
from derivations import check, derive, page, report
from derivations.equations import EQUATION_2, EQUATION_3, EQUATION_5, Layer
from derivations.notation import latex, mathml, text


@pytest.fixture(scope="module")
def small():
    """A report of everything derived, with few checks."""
    derived = tuple(derive(claim) for claim in report.claims_to_derive(1))
    wrong = EQUATION_3.but("wrong sign", -EQUATION_3.formula)
    return report.Report(1, derived, (check(EQUATION_3), check(EQUATION_5)), (check(wrong),))


@pytest.fixture
def failing(small):
    """The same, with a claim that does not hold and a wrong one that was not refuted."""
    wrong = EQUATION_3.but("wrong sign", -EQUATION_3.formula)
    return replace(
        small,
        derivations=(derive(wrong), *small.derivations[1:]),
        checks=(check(wrong),),
        refutations=(check(EQUATION_5),),
    )


def test_one_line_of_text():
    assert text(EQUATION_3.formula) == "Σ_{q} G̃[i,q,k] W̃[q,j]"
    assert text(EQUATION_2.entry) == "Σ_{m} W̃[q,m] U[p,m,r] + B̃[0,q,0]"
    layer = Layer(2)
    assert text(layer.position(layer.l, layer.k)[0]) == "s₁ l₁ + d₁ k₁ - z₁"


def test_latex_and_mathml():
    assert latex(EQUATION_3.formula) == r"\sum_{q} \tilde{G}_{i,q,k}\,\tilde{W}_{q,j}"
    assert mathml(EQUATION_5.formula).count("<mo>∑</mo>") == 1


def test_the_terminal_shows_every_step(small):
    printed = report.to_text(small)
    for derivation in small.derivations:
        for step in derivation.steps:
            assert text(step.expression) in printed
    assert "NOT" not in printed
    assert "11 of 11 derived for every size; 2 of 2 checks hold" in printed
    assert "1 of 1 wrong claims refuted." in printed


def test_failure_is_shown_everywhere(failing):
    assert not failing
    printed = report.to_text(failing)
    assert "NOT THE CLAIM" in printed
    assert "REFUTED" in printed
    assert "NOT REFUTED" in printed
    written = page.to_html(failing)
    assert "not the claim" in written
    assert "not refuted" in written
    assert json.loads(report.to_json(failing))["holds"] is False


@pytest.mark.parametrize(("which", "status"), [("small", 0), ("failing", 1)])
def test_the_command(which, status, request, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(report, "make_report", lambda rank, progress: request.getfixturevalue(which))
    paths = {option: tmp_path / f"out.{option}" for option in ("html", "latex", "json")}
    arguments = [part for option, path in paths.items() for part in (f"--{option}", str(path))]
    assert command.main(arguments) == status
    assert "derived for every size" in capsys.readouterr().out
    assert all(path.stat().st_size > 1000 for path in paths.values())


def test_a_rank_of_zero_is_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["--rank", "0"])
    assert "--rank must be at least 1, got 0" in capsys.readouterr().err


def test_the_json_has_all_steps(small):
    content = json.loads(report.to_json(small))
    assert content["holds"] is True
    assert [d["claim"] for d in content["derivations"]][:3] == ["(3)", "(4)", "(5)"]
    assert content["derivations"][0]["steps"][-1]["text"] == text(EQUATION_3.formula)
    assert content["refutations"][0]["counterexample"]["index"] == [0, 0, 0]


class _Page(HTMLParser):
    """Notes unbalanced tags and anything that a browser would fetch or run."""

    def __init__(self):
        super().__init__()
        self.open, self.fetched, self.tags, self.text = [], [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.fetched += [value for name, value in attrs if name in ("src", "href", "srcset")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_is_whole_and_needs_nothing_from_outside(small):
    parsed = _Page()
    parsed.feed(page.to_html(small))
    assert not parsed.open
    assert not parsed.fetched
    assert "script" not in parsed.tags
    assert "url(" not in page.to_html(small)
    assert parsed.tags.count("math") > 50


def test_the_picture_counts_copies():
    """3x3 input, 2x2 kernel: corners are copied once, edges twice, the middle four times."""
    drawn = page._picture(page.PICTURES[0])
    assert re.findall(r">×(\d)<", drawn) == list("121242121")
    # Each cell is drawn once in I, once with its count, and once a copy in U.
    assert [drawn.count(f'class="cell c{cell}"') for cell in range(9)] == [2 + int(copies) for copies in "121242121"]


def test_the_picture_shows_the_zeros_of_the_padding():
    drawn = page._picture(page.PICTURES[2])
    # 3x3 taps at stride 2 over a 4x4 input padded by 1: 36 entries of U, of which 25 lie in the input.
    assert drawn.count("cell zero") == 36 - 25


def test_latex_is_balanced(small):
    written = report.to_latex(small)
    for opening in ("document", "align*"):
        assert written.count(rf"\begin{{{opening}}}") == written.count(rf"\end{{{opening}}}")
    assert written.count("{") == written.count("}")
    assert written.isascii()
