"""Entries picked and placed by concrete indices: gather, scatter, dynamic slices, sorting."""

from collections.abc import Iterator

import numpy as np

from derivations.interpreter import UnsupportedPrimitive, rule
from derivations.rules.arithmetic import added, compare, multiplied


def _start(x: np.ndarray, sizes: tuple, indices: tuple) -> list[int]:
    """Where a dynamic slice begins: JAX moves it to fit."""
    return [min(max(int(at), 0), n - size) for at, size, n in zip(indices, sizes, x.shape, strict=True)]


@rule("dynamic_slice")
def _dynamic_slice(exact, params, x, *indices):
    sizes = params["slice_sizes"]
    return x[tuple(slice(at, at + size) for at, size in zip(_start(x, sizes, indices), sizes, strict=True))]


@rule("dynamic_update_slice")
def _dynamic_update_slice(exact, params, x, update, *indices):
    start = _start(x, update.shape, indices)
    result = x.copy()
    result[tuple(slice(at, at + size) for at, size in zip(start, update.shape, strict=True))] = update
    return result


def _positions(
    operand: tuple, sizes: tuple, fixed: tuple, mapped: tuple, batching: tuple, indices: np.ndarray, index_batching: tuple,
    clip: bool,
) -> Iterator[tuple[tuple, tuple, tuple | None]]:  # fmt: skip
    """Every (batch index, window index, operand index or None where it is outside) of a gather or scatter.

    `sizes` are those of the window on every axis of the operand; `fixed` axes are collapsed; `mapped` says which operand axis
    each index component moves along; `batching` axes follow those of the indices, `index_batching`.
    """
    free = [axis for axis in range(len(operand)) if axis not in (*fixed, *batching)]
    batch_axes = list(range(indices.ndim - 1))
    for batch in np.ndindex(*indices.shape[:-1]):
        start = [0] * len(operand)
        for component, axis in enumerate(mapped):
            start[axis] = int(indices[(*batch, component)])
        for axis, index_axis in zip(batching, index_batching, strict=True):
            start[axis] = batch[batch_axes.index(index_axis)]
        fits = all(0 <= at <= n - size for at, n, size in zip(start, operand, sizes, strict=True))
        if clip:
            start = [min(max(at, 0), n - size) for at, n, size in zip(start, operand, sizes, strict=True)]
            fits = True
        for offset in np.ndindex(*(sizes[axis] for axis in free)):
            at = list(start)
            for axis, step in zip(free, offset, strict=True):
                at[axis] += step
            yield batch, offset, tuple(at) if fits else None


def _merged(batch: tuple, offset: tuple, offset_axes: tuple) -> tuple:
    """An output index with `offset` at `offset_axes` and `batch` at the others."""
    inside, outside = iter(offset), iter(batch)
    return tuple(next(inside) if axis in offset_axes else next(outside) for axis in range(len(batch) + len(offset)))


@rule("gather")
def _gather(exact, params, x, indices):
    numbers, sizes, mode = params["dimension_numbers"], params["slice_sizes"], str(params["mode"])
    offset_axes = numbers.offset_dims
    windows = [
        s for axis, s in enumerate(sizes) if axis not in (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    ]
    inside, outside = iter(windows), iter(indices.shape[:-1])
    shape = [
        next(inside) if axis in offset_axes else next(outside) for axis in range(indices.ndim - 1 + len(offset_axes))
    ]
    result = np.empty(shape, x.dtype)
    result[...] = _filling(exact, params)
    for batch, offset, at in _positions(
        x.shape, sizes, numbers.collapsed_slice_dims, numbers.start_index_map,
        numbers.operand_batching_dims, indices, numbers.start_indices_batching_dims, "CLIP" in mode or "IN_BOUNDS" in mode,
    ):  # fmt: skip
        if at is not None:
            result[_merged(batch, offset, offset_axes)] = x[at]
    return result


def _filling(exact, params):
    """What a gather puts where an index is outside: NaN for floating point, unless told otherwise."""
    value = params.get("fill_value")
    return float("nan") if value is None else exact.constant(value)


def _scatter(combine):
    def run(exact, params, x, indices, updates):
        if combine is _put and params["update_jaxpr"] is not None:
            raise UnsupportedPrimitive("scatter with a function to apply")
        numbers = params["dimension_numbers"]
        fixed, batching = numbers.inserted_window_dims, numbers.operand_batching_dims
        window_axes = [axis for axis in range(x.ndim) if axis not in (*fixed, *batching)]
        sizes = [1] * x.ndim
        for axis, update_axis in zip(window_axes, numbers.update_window_dims, strict=True):
            sizes[axis] = updates.shape[update_axis]
        result = x.copy()
        for batch, offset, at in _positions(
            x.shape, tuple(sizes), fixed, numbers.scatter_dims_to_operand_dims, batching,
            indices, numbers.scatter_indices_batching_dims, "CLIP" in str(params["mode"]),
        ):  # fmt: skip
            if at is not None:
                result[at] = combine(exact, result[at], updates[_merged(batch, offset, numbers.update_window_dims)])
        return result

    return run


def _put(exact, old, new):
    return new


rule("scatter")(_scatter(_put))
rule("scatter-add", "scatter_add")(_scatter(added))
rule("scatter-sub", "scatter_sub")(_scatter(lambda exact, old, new: added(exact, old, -new)))
rule("scatter-mul", "scatter_mul")(_scatter(multiplied))


@rule("sort")
def _sort(exact, params, *operands):
    """By the first key, whose order at the generic point decides."""
    if params["num_keys"] != 1:
        raise NotImplementedError("a sort by more than one key")
    axis = params["dimension"]
    moved = [np.moveaxis(operand, axis, -1) for operand in operands]
    results = [np.empty(operand.shape, operand.dtype) for operand in moved]
    for at in np.ndindex(moved[0].shape[:-1]):
        order: list[int] = []
        keys = moved[0][at]
        for place in range(len(keys)):
            smaller = [compare(exact, keys[k : k + 1], keys[place : place + 1])[0] <= 0 for k in order]
            order.insert(sum(smaller), place)
        for result, operand in zip(results, moved, strict=True):
            result[at] = operand[at][order]
    return [np.moveaxis(result, -1, axis) for result in results]
