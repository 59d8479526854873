"""For test suites: one line proves a rule, and a failure says where it is wrong.

from derivations.testing import assert_vjp

def test_my_rule():
    assert_vjp(my_function, (3, 4), (4,))
"""

from collections.abc import Callable
from typing import Any

from derivations.prove import Shape, prove_equal, prove_vjp


def assert_vjp(fun: Callable[..., Any], *shapes: Shape, **options: Any) -> None:
    """Fails with the verdict where `prove_vjp(fun, *shapes, **options)` does not prove."""
    __tracebackhide__ = True  # pytest then points at the caller's line
    verdict = prove_vjp(fun, *shapes, **options)
    assert verdict, str(verdict)


def assert_equal(f: Callable[..., Any], g: Callable[..., Any], *shapes: Shape, **options: Any) -> None:
    """Fails with the verdict where `prove_equal(f, g, *shapes, **options)` does not prove."""
    __tracebackhide__ = True
    verdict = prove_equal(f, g, *shapes, **options)
    assert verdict, str(verdict)
