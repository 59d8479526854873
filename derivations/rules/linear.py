"""Sums and products over axes: reductions, cumulative ones, products of tensors, convolutions."""

import functools
import itertools
import math
from collections.abc import Callable

import numpy as np

from derivations.interpreter import is_symbolic, rule
from derivations.rules.arithmetic import added, elementwise, extreme, multiplied


def _reduced(function: Callable, x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """`function` of the list of entries along `axes`, for every index of the others."""
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    shape = [x.shape[axis] for axis in kept]
    moved = x.transpose(*kept, *axes).reshape(*shape, math.prod(x.shape[axis] for axis in axes))
    result = np.empty(moved.shape[:-1], x.dtype)
    for at in np.ndindex(result.shape):
        result[at] = function(moved[at])
    return result


def _total(exact, entries):
    special = [entry for entry in entries if isinstance(entry, float)]  # infinities and NaN
    return sum(special) if special else exact.sum_of_products((entry, exact.ring.one) for entry in entries)


def _extreme(exact, entries, sign):
    rows = [np.array([entry], object) for entry in entries]
    return functools.reduce(lambda a, b: extreme(exact, a, b, sign), rows)[0]


rule("reduce_sum")(lambda exact, params, x: _reduced(lambda e: _total(exact, e), x, params["axes"]))
rule("reduce_prod")(
    lambda exact, params, x: _reduced(
        lambda entries: functools.reduce(lambda a, b: multiplied(exact, a, b), entries, exact.ring.one),
        x,
        params["axes"],
    )
)
rule("reduce_max")(lambda exact, params, x: _reduced(lambda e: _extreme(exact, e, 1), x, params["axes"]))
rule("reduce_min")(lambda exact, params, x: _reduced(lambda e: _extreme(exact, e, -1), x, params["axes"]))


def _place_of_extreme(exact, entries, sign):
    best = _extreme(exact, entries, sign)
    return next(place for place, entry in enumerate(entries) if entry is best)


def _arg(sign: int) -> Callable:
    """The place of the extreme at the generic point, which is the same in the whole region around it."""

    def run(exact, params, x):
        places = _reduced(lambda entries: _place_of_extreme(exact, entries, sign), x, params["axes"])
        return places.astype(params["index_dtype"])

    return run


rule("argmax")(_arg(1))
rule("argmin")(_arg(-1))


def _cumulative(step: Callable) -> Callable:
    def run(exact, params, x):
        moved = np.moveaxis(x, params["axis"], 0)
        moved = moved[::-1] if params["reverse"] else moved
        rows = list(itertools.accumulate((moved[i, ...] for i in range(len(moved))), lambda a, b: step(exact, a, b)))
        result = np.stack(rows) if rows else moved
        return np.moveaxis(result[::-1] if params["reverse"] else result, 0, params["axis"])

    return run


def _entries(function: Callable) -> Callable:
    """`function(exact, ...)` of two rows, entry by entry."""
    return lambda exact, x, y: elementwise(lambda a, b: function(exact, a, b), x, y)


rule("cumsum")(_cumulative(_entries(added)))
rule("cumprod")(_cumulative(_entries(multiplied)))
rule("cummax")(_cumulative(lambda exact, x, y: extreme(exact, x, y, 1)))
rule("cummin")(_cumulative(lambda exact, x, y: extreme(exact, x, y, -1)))


@rule("dot_general")
def _dot_general(exact, params, x, y):
    """`out[batch, rows, columns] = sum_k x[batch, rows, k] y[batch, columns, k]`."""
    (contract, batch) = params["dimension_numbers"]
    left, rows = _matrices(x, contract[0], batch[0])
    right, columns = _matrices(y, contract[1], batch[1])
    shape = [x.shape[axis] for axis in batch[0]]
    result = np.empty((left.shape[0], left.shape[1], right.shape[1]), object)
    for b, i, j in np.ndindex(result.shape):
        result[b, i, j] = _sum_of_products(exact, list(zip(left[b, i], right[b, j], strict=True)))
    return result.reshape((*shape, *rows, *columns))


def _sum_of_products(exact, pairs):
    if any(isinstance(entry, float) for pair in pairs for entry in pair):
        raise NotImplementedError("an infinity or NaN in a product of tensors")
    return exact.sum_of_products(pairs)


def _matrices(x: np.ndarray, contract: tuple, batch: tuple) -> tuple[np.ndarray, list[int]]:
    """`x` as (batch, free, contracted), and the sizes of its free axes."""
    free = [axis for axis in range(x.ndim) if axis not in (*contract, *batch)]
    sizes = [math.prod(x.shape[axis] for axis in axes) for axes in (batch, free, contract)]
    return x.transpose(*batch, *free, *contract).reshape(sizes), [x.shape[axis] for axis in free]


@rule("conv_general_dilated")
def _conv(exact, params, x, y):
    """The definition: input position `stride*l + rhs_dilation*k - low`, on the input spread by lhs_dilation."""
    numbers = params["dimension_numbers"]
    x, y = x.transpose(numbers.lhs_spec), y.transpose(numbers.rhs_spec)  # (N, C, *spatial), (O, C/groups, *kernel)
    groups, batches = params["feature_group_count"], params["batch_group_count"]
    axes = list(
        zip(
            x.shape[2:],
            y.shape[2:],
            params["window_strides"],
            params["padding"],
            params["lhs_dilation"] or (1,) * (x.ndim - 2),
            params["rhs_dilation"] or (1,) * (x.ndim - 2),
            strict=True,
        )
    )
    out, reads = [], []
    for size, taps, stride, (low, high), spread, dilation in axes:
        room = low + max(0, (size - 1) * spread + 1) + high - (dilation * (taps - 1) + 1)
        out.append(max(0, room // stride + 1))
        # For each output position, the (tap, cell) pairs that fall on a cell of the input.
        reads.append(
            [
                [
                    (tap, cell // spread)
                    for tap in range(taps)
                    if (cell := stride * at + dilation * tap - low) % spread == 0 and 0 <= cell // spread < size
                ]
                for at in range(out[-1])
            ]
        )
    samples, outputs = x.shape[0] // batches, y.shape[0]
    result = np.empty((samples, outputs, *out), object)
    for n, o, *place in np.ndindex(result.shape):
        group = o // (outputs // groups)
        sample = o // (outputs // batches) * samples + n
        pairs = []
        for choice in itertools.product(*(reads[axis][at] for axis, at in enumerate(place))):
            tap, cell = zip(*choice, strict=True) if choice else ((), ())
            for c in range(y.shape[1]):
                pairs.append((x[(sample, group * y.shape[1] + c, *cell)], y[(o, c, *tap)]))
        result[(n, o, *place)] = _sum_of_products(exact, pairs)
    return result.transpose(np.argsort(numbers.out_spec))


@rule("reduce_window_sum")
def _reduce_window_sum(exact, params, x):
    return _windows(lambda entries: _total(exact, entries), params, x, exact.ring.zero)


@rule("reduce_window_max")
def _reduce_window_max(exact, params, x):
    return _windows(lambda entries: _extreme(exact, entries, 1), params, x, -np.inf)


@rule("reduce_window_min")
def _reduce_window_min(exact, params, x):
    return _windows(lambda entries: _extreme(exact, entries, -1), params, x, np.inf)


def _windows(function: Callable, params: dict, x: np.ndarray, outside: object) -> np.ndarray:
    assert is_symbolic(x)
    dilation, spread = params["window_dilation"], params["base_dilation"]
    axes = list(
        zip(
            x.shape,
            params["window_dimensions"],
            params["window_strides"],
            params["padding"],
            dilation,
            spread,
            strict=True,
        )
    )
    if any(gap != 1 for *_, gap in axes):
        raise NotImplementedError("a window over a dilated base")
    shape = [max(0, (low + n + high - d * (k - 1) - 1) // s + 1) for n, k, s, (low, high), d, _ in axes]
    result = np.empty(shape, object)
    for place in np.ndindex(result.shape):
        entries = [x[cell] if cell is not None else outside for cell in _cells(place, [axis[:5] for axis in axes])]
        row = np.empty(len(entries), object)
        row[:] = entries
        result[place] = function(row)
    return result


def _cells(place: tuple[int, ...], axes: list) -> list[tuple[int, ...] | None]:
    """What the window at `place` sees, None outside, with size, taps, stride, padding and dilation of every axis."""
    seen = itertools.product(
        *([s * at + d * tap - low for tap in range(k)] for at, (_, k, s, (low, _), d) in zip(place, axes, strict=True))
    )
    return [cell if all(0 <= c < axis[0] for c, axis in zip(cell, axes, strict=True)) else None for cell in seen]


@rule("select_and_scatter_add")
def _select_and_scatter_add(exact, params, source, x):
    """Adds each entry of `source` to the extreme that its window sees: the derivative of `reduce_window_max` and `_min`."""
    sign = {"ge": 1, "le": -1}.get(str(params["select_prim"]))
    if sign is None:
        raise NotImplementedError(f"a selection by `{params['select_prim']}`")
    dilation = (1,) * x.ndim
    axes = list(
        zip(x.shape, params["window_dimensions"], params["window_strides"], params["padding"], dilation, strict=True)
    )
    result = np.empty(x.shape, object)
    result[...] = exact.ring.zero
    for place in np.ndindex(source.shape):
        inside = [cell for cell in _cells(place, axes) if cell is not None]
        if inside:
            best = inside[_place_of_extreme(exact, [x[cell] for cell in inside], sign)]
            result[best] = added(exact, result[best], source[place])
    return result
