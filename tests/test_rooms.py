"""A room imports only from floors below it, and window.py knows no JAX."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = [
    {"window", "shapes", "rounding", "arguments", "primitive", "products"},
    {"differentiation"},
    {"unfold", "formulas", "pad", "tiles"},
    {"convolution", "joins"},
    {"periods"},
    {"copies", "runs", "counts", "folded", "depthwise", "frequencies"},
    {"engines", "batches", "platforms"},
    {"budget", "accelerator_rule", "taps_rule"},
    {"batched_rule", "fourier_rule"},
    {"choice"},
    {"evaluation"},
    {"conv"},
    {"conv_transpose", "conv_local", "lax"},
    {"statements"},
    {"engine_proofs", "frequency_proofs"},
    {"proofs", "verify", "cli", "__main__", "__init__"},
]
ROOMS = sorted((ROOT / "jaxconv").rglob("*.py"))


def floor(room: str) -> int:
    return next(level for level, rooms in enumerate(FLOORS) if room in rooms)


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", ROOMS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_room_imports_from_its_own_floor_or_above(path):
    inside = path.relative_to(ROOT / "jaxconv").parts
    room = inside[0].removesuffix(".py")
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "jaxconv" and len(parts) > 1 and parts[1] != room:
            known = any(parts[1] in rooms for rooms in FLOORS)
            below = floor(parts[1]) < floor(room) if known else room in FLOORS[-1]
            assert below or room in FLOORS[-1], f"{room} imports {name}"


def test_index_arithmetic_is_plain_python():
    assert not [
        name for name in imports(ROOT / "jaxconv/window.py") if name.split(".")[0] in ("jax", "numpy", "jaxlib")
    ]
