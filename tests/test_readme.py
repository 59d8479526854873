"""What the README shows runs as it stands there."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_example(example):
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    if "patches" in names:
        assert names["patches"].shape == (8, 75, 900)
        assert names["weight_gradient"].shape == (16, 3, 5, 5)


def test_the_opening_example_has_ten_lines():
    code = [line for line in EXAMPLES[0].splitlines() if line.strip()]
    assert len(code) == 10
