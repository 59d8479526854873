"""What the README shows runs as it stands there, in the precision that a reader has."""

import re
from pathlib import Path

import jax
import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def run(example: str) -> dict:
    names: dict = {}
    with jax.enable_x64(False):
        exec(compile(example, "README.md", "exec"), names)
    return names


@pytest.mark.parametrize("example", EXAMPLES[1:], ids=range(1, len(EXAMPLES)))
def test_example(example):
    run(example)


def test_the_opening_example():
    code = [line for line in EXAMPLES[0].splitlines() if line.strip()]
    assert len(code) == 10
    names = run(EXAMPLES[0])
    assert names["patches"].shape == (8, 75, 900)
    assert names["weight_gradient"].shape == (16, 3, 5, 5)
    assert names["weight_gradient"].dtype == "float32"
