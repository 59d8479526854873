"""`python -m derivations`: derives, checks, refutes, and prints it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0 where everything holds and every wrong claim fell, 1 where not."""
    parser = argparse.ArgumentParser(
        prog="python -m derivations",
        description="Derives the gradients of a convolution (eqs. 3 to 5 and the pipelines down to input, weight and "
        "bias) from eq. 2 alone, for every size; checks them entry by entry on small index sets; and refutes wrong ones.",
    )
    parser.add_argument("--rank", type=int, default=2, metavar="N", help="spatial axes of the derivation (default: 2)")
    parser.add_argument("--html", type=_file, metavar="FILE", help="write a page that needs no network")
    parser.add_argument("--latex", type=_file, metavar="FILE", help="write a LaTeX document")
    parser.add_argument("--json", type=_file, metavar="FILE", help="write everything for a machine")
    options = parser.parse_args(arguments)
    if options.rank < 1:
        parser.error(f"--rank must be at least 1, got {options.rank}")

    from rich.console import Console

    from derivations import page, report

    try:
        with Console(stderr=True).status("deriving") as status:
            found = report.make_report(options.rank, progress=status.update)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(report.to_text(found))
    for path, write in ((options.html, page.to_html), (options.latex, report.to_latex), (options.json, report.to_json)):
        if path is not None:
            path.write_text(write(found), encoding="utf-8")
            print(f"wrote {path}")
    return 0 if found else 1


def _file(name: str) -> Path:
    """A file that can be written, as far as can be told before all the work."""
    path = Path(name)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    return path


if __name__ == "__main__":
    sys.exit(main())
