"""Every mistake is refused at trace time by name, with the value got and the value expected."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxconv
from jaxconv import formulas

INPUT = jax.ShapeDtypeStruct((2, 4, 8, 8), jnp.float32)
WEIGHT = jax.ShapeDtypeStruct((6, 4, 3, 3), jnp.float32)
BIAS = jax.ShapeDtypeStruct((6,), jnp.float32)


def shaped(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


CONV = [
    # call arguments, keywords, kind of error, what it says
    ((shaped(2, 4, 8), WEIGHT), {}, ValueError, r"`input` must have 4 channels .*got 2"),  # read as unbatched
    ((shaped(1, 2, 4, 8, 8), WEIGHT), {}, ValueError, r"`input` must have 4 axes, .*got shape \(1, 2, 4, 8, 8\)"),
    ((shaped(4, 8), WEIGHT), {}, ValueError, r"`input` must have 4 axes, or 3 without the batch, got shape \(4, 8\)"),
    (
        (INPUT, shaped(6, 4)),
        {},
        ValueError,
        r"`weight` must have two axes of channels and at least one .*got shape \(6, 4\)",
    ),
    ((INPUT, shaped(6, 3, 3, 3)), {}, ValueError, r"`input` must have 3 channels .*got 4"),
    ((INPUT, shaped(6, 2, 3, 3)), {"groups": 4}, ValueError, r"`groups` must divide the 6 output .*got groups=4"),
    ((shaped(2, 5, 8, 8), WEIGHT), {"groups": 2}, ValueError, r"`groups` must divide the 5 channels .*got groups=2"),
    ((INPUT, WEIGHT), {"groups": 0}, ValueError, r"`groups` must be at least 1, got 0"),
    ((INPUT, WEIGHT, shaped(5)), {}, ValueError, r"`bias` must have shape \(6,\).*got \(5,\)"),
    ((INPUT, WEIGHT, shaped(6, 1)), {}, ValueError, r"`bias` must have shape \(6,\).*got \(6, 1\)"),
    ((INPUT, shaped(6, 4, 9, 3)), {}, ValueError, r"`input` is too small .* axis 0: expected at least 9 .*got 8"),
    ((INPUT, WEIGHT), {"dilation": (1, 4)}, ValueError, r"axis 1: expected at least 9 cells .*dilation 4.*got 8"),
    ((INPUT, WEIGHT), {"padding": -1}, ValueError, r"`padding` must be at least 0, got -1"),
    ((INPUT, WEIGHT), {"padding": ((0, -2), (0, 0))}, ValueError, r"`padding` must be at least 0, got -2"),
    ((INPUT, WEIGHT), {"padding": ((1, 1),)}, ValueError, r"`padding` as pairs .* 2 spatial axes, got \(\(1, 1\),\)"),
    ((INPUT, WEIGHT), {"padding": ((1, 1), 1)}, ValueError, r"`padding` as pairs"),
    ((INPUT, WEIGHT), {"padding": (1, 1, 1)}, ValueError, r"`padding` must be .*2 spatial axes, got 3 entries"),
    ((INPUT, WEIGHT), {"padding": "SAME"}, ValueError, r"\"valid\" or \"same\", got 'SAME'"),
    ((INPUT, WEIGHT), {"padding": "same", "stride": 2}, ValueError, r"needs stride 1 .*got stride=\(2, 2\)"),
    ((INPUT, WEIGHT), {"padding": None}, TypeError, r"`padding` must be made of integers.*None"),
    ((INPUT, WEIGHT), {"stride": 0}, ValueError, r"`stride` must be at least 1, got 0"),
    ((INPUT, WEIGHT), {"stride": (1, 0)}, ValueError, r"`stride` must be at least 1, got 0"),
    ((INPUT, WEIGHT), {"stride": 1.0}, TypeError, r"`stride` must be made of integers .*got 1.0"),
    ((INPUT, WEIGHT), {"stride": True}, TypeError, r"`stride` must be made of integers, got True"),
    ((INPUT, WEIGHT), {"stride": (1, 1, 1)}, ValueError, r"`stride` must be .*2 spatial axes, got 3 entries"),
    ((INPUT, WEIGHT), {"dilation": 0}, ValueError, r"`dilation` must be at least 1, got 0"),
    ((shaped(2, 4, 0, 8), WEIGHT), {"padding": 2}, ValueError, r"`input` may be empty only in its batch axis"),
    ((INPUT, shaped(6, 4, 0, 3)), {}, ValueError, r"`weight` must have no empty axis, got shape \(6, 4, 0, 3\)"),
    ((INPUT, shaped(6, 4, 3, 3, dtype=jnp.bfloat16)), {}, TypeError, r"`weight` must have .*float32, got bfloat16"),
    ((INPUT, WEIGHT, shaped(6, dtype=jnp.float16)), {}, TypeError, r"`bias` must have .*float32, got float16"),
    (
        (shaped(2, 4, 8, 8, dtype=jnp.int32), WEIGHT),
        {},
        TypeError,
        r"`input` must have a dtype among float64, .*got int32",
    ),
    ((INPUT, shaped(6, 4, 3, 3, dtype=bool)), {}, TypeError, r"`weight` must have a dtype among .*got bool"),
    ((INPUT, WEIGHT), {"preferred_element_type": jnp.int32}, TypeError, r"`preferred_element_type` .*got int32"),
    ((INPUT, WEIGHT), {"preferred_element_type": jnp.bfloat16}, TypeError, r"one of float32, float64 .*got bfloat16"),
    ((INPUT, WEIGHT), {"stride": 2**31}, ValueError, r"`stride` must be at most 2147483647, got 2147483648"),
    ((INPUT, WEIGHT), {"precision": ["highest"]}, TypeError, r"`precision` must be one of .*got \['highest'\]"),
    ((INPUT, WEIGHT), {"precision": "bogus"}, ValueError, r"`precision` must be one of .*got 'bogus'"),
    ((INPUT, WEIGHT), {"padding_mode": ["reflect"]}, ValueError, r"`padding_mode` must be .*got \['reflect'\]"),
    ((INPUT, WEIGHT), {"preferred_element_type": "nonsense"}, TypeError, r"must be a dtype, got 'nonsense'"),
]


@pytest.mark.parametrize(("arrays", "options", "kind", "message"), CONV)
def test_conv_refuses(arrays, options, kind, message):
    with pytest.raises(kind, match=message):
        jax.eval_shape(lambda *a: jaxconv.conv(*a, **options), *arrays)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_named_ranks_refuse_another_rank(rank):
    weight = jnp.ones((1, 1, *(1,) * (rank + 1)))
    with pytest.raises(ValueError, match=rf"`weight` of conv{rank}d must have {rank + 2} axes.*got shape"):
        getattr(jaxconv, f"conv{rank}d")(jnp.ones((1, 1, *(1,) * (rank + 1))), weight)


UNFOLD = [
    ((shaped(2, 3, 5, 5, 5),), {"kernel_size": 3}, ValueError, r"4 axes, or 3 .*got shape .*kernel_size=\(3, 3, 3\)"),
    (
        (shaped(2, 3, 5, 5),),
        {"kernel_size": (3, 3), "padding": (1,)},
        ValueError,
        r"agree .*kernel_size has 2, padding has 1",
    ),
    ((shaped(2, 3, 5, 5),), {"kernel_size": ()}, ValueError, r"`kernel_size` must have at least one entry"),
    ((shaped(2, 3, 5, 5),), {"kernel_size": 0}, ValueError, r"`kernel_size` must be at least 1, got 0"),
    ((shaped(2, 3, 5, 5),), {"kernel_size": 6}, ValueError, r"too small .*expected at least 6 cells.*got 5"),
    ((shaped(2, 0, 5, 5),), {"kernel_size": 3}, ValueError, r"empty only in its batch axis, got shape \(2, 0, 5, 5\)"),
    (
        (shaped(2, 3, 5, 5, dtype=jnp.int8),),
        {"kernel_size": 3},
        TypeError,
        r"`input` must have a dtype among .*got int8",
    ),
]

FOLD = [
    ((shaped(2, 27, 8),), {"output_size": 5, "kernel_size": 3}, ValueError, r"one column a window, 9 = .*got 8"),
    ((shaped(2, 26, 9),), {"output_size": 5, "kernel_size": 3}, ValueError, r"multiple of .* = 9 rows .*got 26"),
    ((shaped(2, 3, 9, 9),), {"output_size": 5, "kernel_size": 3}, ValueError, r"3 axes, or 2 without the batch"),
    ((shaped(2, 27, 9),), {"output_size": 2, "kernel_size": 3}, ValueError, r"`output_size` is too small"),
    (
        (shaped(2, 27, 9),),
        {"output_size": (5,), "kernel_size": (3, 3)},
        ValueError,
        r"output_size has 1, kernel_size has 2",
    ),
    ((shaped(2, 27, 9),), {"output_size": 0, "kernel_size": 3}, ValueError, r"`output_size` must be at least 1, got 0"),
    ((shaped(2, 27, 9, dtype=jnp.uint8),), {"output_size": 5, "kernel_size": 3}, TypeError, r"got uint8"),
]


@pytest.mark.parametrize(("arrays", "options", "kind", "message"), UNFOLD)
def test_unfold_refuses(arrays, options, kind, message):
    with pytest.raises(kind, match=message):
        jax.eval_shape(lambda *a: jaxconv.unfold(*a, **options), *arrays)


@pytest.mark.parametrize(("arrays", "options", "kind", "message"), FOLD)
def test_fold_refuses(arrays, options, kind, message):
    with pytest.raises(kind, match=message):
        jax.eval_shape(lambda *a: jaxconv.fold(*a, **options), *arrays)


def test_a_list_is_no_array():
    with pytest.raises(TypeError, match=r"`input` must be a JAX or NumPy array, got list"):
        jaxconv.conv1d([[[1.0, 2.0]]], np.ones((1, 1, 1)))  # type: ignore[arg-type]


def test_a_traced_stride_is_refused():
    with pytest.raises(TypeError, match=r"`stride` must be made of integers that are known at trace time"):
        jax.jit(lambda s: jaxconv.conv1d(jnp.ones((1, 1, 5)), jnp.ones((1, 1, 2)), stride=s))(2)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "int4", "object", "<U3", "longdouble"])
def test_a_dtype_that_sums_cannot_be_carried_in_is_refused(dtype):
    array = jnp.ones((1, 2, 5), dtype) if dtype in ("float8_e4m3fn", "int4") else np.ones((1, 2, 5)).astype(dtype)
    for call in (lambda: jaxconv.unfold(array, (3,)), lambda: jaxconv.conv1d(array, array[:, :, :2])):
        with pytest.raises(TypeError, match=r"must have a dtype among float64, .*got"):
            call()


FORMULAS = [
    (formulas.output, ((2, 8, 5), (6, 8), (1,)), 1, r"`bias` must have one entry for each of the 6 rows .*got \(1,\)"),
    (formulas.output, ((2, 8, 5), (6, 7)), 1, r"`u` must have 7 rows .*got 8"),
    (formulas.output, ((2, 8, 5), (6, 4)), 3, r"`groups` must divide the 8 channels of `u`, got groups=3"),
    (formulas.output, ((8, 5), (6, 8)), 1, r"`u` must have 3 axes, got shape \(8, 5\)"),
    (formulas.unfolded_gradient, ((2, 6, 5), (5, 8)), 1, r"`cotangent` must have 5 channels.*got 6"),
    (formulas.output, ((2, 8, 5), (6, 8)), 0, r"`groups` must be at least 1, got 0"),
    (formulas.unfolded_gradient, ((2, 6, 5), (3, 8)), 2, r"`groups` must divide the 3 rows of `weight`"),
    (formulas.weight_gradient, ((2, 6, 5), (1, 8, 5)), 1, r"`u` and `cotangent` must agree in axes 0 and 2"),
]


def test_a_formula_refuses_what_is_no_array_of_its_axes():
    with pytest.raises(ValueError, match=r"`cotangent` must have 3 axes, got shape \(2, 3, 4, 4\)"):
        formulas.bias_gradient(jnp.ones((2, 3, 4, 4)))
    with pytest.raises(TypeError, match=r"`u` must be an array, got list: \[1\]"):
        formulas.output([1], [2])  # type: ignore[arg-type]


def test_channels_on_the_other_side_are_told_from_others():
    weight, last = jnp.ones((4, 3, 2, 2)), jnp.ones((2, 8, 9, 3))
    told = r"must have 3 channels .*got 8, on axis 1 of .*\(2, 8, 9, 3\); `data_format=\"channels_last\"` has them"
    with pytest.raises(ValueError, match=told):
        jaxconv.conv2d(last, weight)
    with pytest.raises(ValueError, match=r"must have 3 channels .*got 5, on axis 1 of .*\(2, 5, 8, 9\)$"):
        jaxconv.conv2d(jnp.ones((2, 5, 8, 9)), weight)


def test_64_bits_that_jax_does_not_have_are_warned_of():
    with jax.enable_x64(False), pytest.warns(UserWarning, match="float64.*not available"):
        assert (
            jaxconv.conv1d(jnp.ones((1, 1, 5)), jnp.ones((1, 1, 2)), preferred_element_type=jnp.float64).dtype
            == "float32"
        )


@pytest.mark.parametrize(("function", "shapes", "groups", "message"), FORMULAS)
def test_a_formula_refuses_operands_that_do_not_fit(function, shapes, groups, message):
    with pytest.raises(ValueError, match=message):
        function(*map(jnp.ones, shapes), groups=groups)
