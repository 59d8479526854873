"""Contenders in turn, in one process: ratios of neighbours in time, and their spread."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Ratio(NamedTuple):
    """How many times longer another contender takes: the median over the rounds, and the quartiles."""

    median: float
    low: float
    high: float


def in_turn(calls: Mapping[str, Callable[[], Any]], rounds: int, patience: float) -> dict[str, list[float]]:
    """Seconds of every call of every contender.

    Before each timed call of a contender it is called without being timed, once and until 10 ms have passed, which leaves the
    caches, and the threads that some libraries keep spinning for a while, as it would find them if it were alone. Who goes
    first, and who follows whom, changes every round. A contender that needs more than `patience` seconds for a call is not
    called again, and that call stands.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    slow = set()
    for name, call in calls.items():
        call()
        taken = timed(call)
        if taken > patience:
            seconds[name].append(taken)
            slow.add(name)
    order = [name for name in calls if name not in slow]
    for number in range(rounds):
        turn = number // 2 % max(1, len(order))
        for name in (order[turn:] + order[:turn])[:: -1 if number % 2 else 1]:
            begun = time.perf_counter()
            while time.perf_counter() - begun < _WARM:
                calls[name]()
            seconds[name].append(timed(calls[name]))
    return seconds


_WARM = 0.01


def timed(call: Callable[[], Any]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def ratio(theirs: list[float], ours: list[float]) -> Ratio:
    """Theirs over ours, round by round; of a contender with a single call, over each of ours."""
    theirs = theirs * len(ours) if len(theirs) == 1 else theirs
    quotients = sorted(other / mine for other, mine in zip(theirs, ours, strict=False))
    if len(quotients) < 2:
        return Ratio(quotients[0], quotients[0], quotients[0])
    low, median, high = statistics.quantiles(quotients, n=4, method="inclusive")
    return Ratio(median, low, high)
