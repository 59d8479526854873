"""Runs rows of the benchmark, and writes down on what machine."""

import datetime
import math
import os
import platform
import statistics
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
import jax.numpy as jnp

import jaxconv
from benchmarks.case import Case
from benchmarks.contenders import Contender, Setting, contender
from benchmarks.timing import in_turn, ratio, timed
from jaxconv.window import make_window

Row = dict[str, Any]


def run(
    cases: Iterable[Case],
    quantities: Iterable[str],
    contenders: Iterable[str],
    *,
    dtype: str = "float32",
    channels_last: bool = False,
    engine: str = "auto",
    batch_times: int = 1,
    in_flight: int = 1,
    rounds: int = 7,
    patience: float = 2.0,
) -> Iterator[Row]:
    """A row for every case and quantity: seconds and, of XLA's programs, compile time and temporaries.

    `batch_times` as large a batch, for an accelerator. There a call returns before its result is there: of several `in_flight`
    the time is the device's, and each is timed as its share of all.
    """
    wanted = tuple(quantities)
    for case in cases:
        case = case.with_batch(batch_times)
        for quantity in case.quantities:
            if quantity not in wanted:
                continue
            setting = Setting(case, quantity, dtype, channels_last, engine)
            ready = {name: contender(name, setting) for name in contenders}
            running = {name: one for name, one in ready.items() if one is not None}
            yield {
                "case": case.name,
                "note": case.note,
                "batch": case.input[0],
                "in_flight": in_flight,
                "quantity": quantity,
                "dtype": dtype,
                "channels_last": channels_last,
                "engine": engine,
                **measured(running, rounds, patience, in_flight),
                "unfolded": unfolded_bytes(case, dtype),
            }
            jax.clear_caches()


def measured(running: Mapping[str, Contender], rounds: int, patience: float, in_flight: int = 1) -> Row:
    """What a row has of its contenders, called in turn."""
    together = in_turn({name: partial(one.call, in_flight) for name, one in running.items()}, rounds, patience)
    seconds = {name: [each / in_flight for each in taken] for name, taken in together.items()}
    ours = seconds.get("jaxconv")
    return {
        "seconds": seconds,
        "median": {name: statistics.median(taken) for name, taken in seconds.items()},
        "ratio": {name: ratio(taken, ours) for name, taken in seconds.items() if ours and name != "jaxconv"},
        "compile_seconds": _compile_seconds(running),
        "temporaries": {name: one.temporaries for name, one in running.items() if one.temporaries is not None},
    }


def _compile_seconds(running: Mapping[str, Contender]) -> dict[str, float]:
    """Medians of the time to trace, lower and compile each program anew, in turn; none where it may come from a cache on disk."""
    programs = {name: one.compile for name, one in running.items() if one.compile is not None}
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return {}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(_COMPILED):
        for name, compile in programs.items():
            jax.clear_caches()
            seconds[name].append(timed(compile))
    return {name: statistics.median(taken) for name, taken in seconds.items()}


_COMPILED = 3


def unfolded_bytes(case: Case, dtype: str) -> int:
    """What U takes, written out."""
    spatial, channels = case.input[2:], case.input[1]
    if case.transposed:
        # The convolution whose adjoint it is has its output where this has its input.
        channels = case.weight[1] * case.groups
    else:
        window = make_window(case.weight[2:], case.stride, case.padding, case.dilation, case.rank)
        spatial = window.output_size(spatial)
    cells = case.input[0] * channels * math.prod(spatial) * math.prod(case.weight[2:])
    return cells * jnp.dtype(dtype).itemsize


def machine() -> dict[str, Any]:
    """Where and with what this was measured."""
    return {
        "date": datetime.date.today().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        "versions": {
            "jaxconv": jaxconv.__version__,
            **{name: _version(name) for name in ("jax", "jaxlib", "torch", "numpy")},
        },
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
