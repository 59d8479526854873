"""What JAX does to functions, done to conv."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometries import GEOMETRIES, Geometry
from jax.ad_checkpoint import checkpoint_name
from jax.test_util import check_grads
from jaxprs import equations
from oracle import assert_close, lax_conv

import jaxconv
from jaxconv.engines import NAMES

GEOMETRY = Geometry(
    "all", (2, 4, 7, 6), (6, 2, 3, 2), {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}
)
NAMED = pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: g.name)


ENGINES = pytest.mark.parametrize("engine", NAMES)


def conv(input, weight, bias, engine="stream"):
    return jaxconv.conv(input, weight, bias, **GEOMETRY.options, engine=engine)


def reference(input, weight, bias):
    return lax_conv(GEOMETRY, input, weight, bias)


@pytest.fixture
def arrays():
    return tuple(map(jnp.asarray, GEOMETRY.arrays(np.float64)[:3]))


def primitives(jaxpr) -> list[str]:
    """The names of all primitives of a jaxpr, those inside other primitives too."""
    return [equation.primitive.name for equation in equations(jaxpr)]


def vjp_jaxpr(geometry: Geometry, engine: str):
    arrays = geometry.arrays(np.float32)

    def both(input, weight, bias, cotangent):
        output, pullback = jax.vjp(lambda *a: jaxconv.conv(*a, **geometry.options, engine=engine), input, weight, bias)
        return output, pullback(cotangent)

    return jax.make_jaxpr(both)(*arrays).jaxpr


@ENGINES
@NAMED
def test_no_convolution_primitive_and_no_gather(geometry, engine):
    names = primitives(vjp_jaxpr(geometry, engine))
    assert ("dot_general" in names) == (engine != "taps" or 0 in geometry.input)
    assert not [name for name in names if "conv_general" in name or "gather" in name or "scatter" in name]


# One of every kind. All are compared with torch to the first order elsewhere, and others like them proven to the second.
KINDS = ("kernel 1", "3x3 same", "all different", "depthwise", "taps only in padding", "many taps", "three axes")


@pytest.mark.parametrize("geometry", [g for g in GEOMETRIES if g.name in KINDS], ids=lambda g: g.name)
def test_check_grads(geometry):
    input, weight, bias = geometry.arrays(np.float64)[:3]
    compiled = jax.jit(lambda *a: jaxconv.conv(*a, **geometry.options))
    check_grads(compiled, (input, weight, bias), order=2, modes=["rev"])


@pytest.mark.parametrize("engine", ["fold", "materialise", "stream"])
@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)])
def test_a_gradient_that_nobody_asked_for_is_not_computed(arrays, wanted, engine):
    """Seen in the traced program itself, before any compiler could remove it: one product a gradient, eq. 5 none."""

    def pull(*all_arrays):
        *primals, cotangent = all_arrays
        picked = [primals[index] for index in wanted]

        def function(*chosen):
            full = list(primals)
            for index, value in zip(wanted, chosen, strict=True):
                full[index] = value
            return conv(*full, engine=engine)

        return jax.vjp(function, *picked)[1](cotangent)

    cotangent = jnp.ones_like(conv(*arrays))
    names = primitives(jax.make_jaxpr(pull)(*arrays, cotangent).jaxpr)
    forward = 1
    assert names.count("dot_general") == forward + (0 in wanted) + (1 in wanted)
    assert names.count("reduce_sum") == (2 in wanted)


def test_only_what_is_needed_is_kept_for_the_backward_pass(arrays):
    input, weight, bias = arrays
    saved = jax.tree.leaves(jax.vjp(lambda w: conv(input, w, bias), weight)[1])
    assert input.size in [leaf.size for leaf in saved]
    saved = jax.tree.leaves(jax.vjp(lambda b: conv(input, weight, b), bias)[1])
    assert all(leaf.size <= bias.size for leaf in saved)


def test_compiled_once_for_a_shape(arrays):
    traces = []

    @jax.jit
    def step(input, weight, bias):
        traces.append(1)
        return jax.grad(lambda *a: jnp.sum(conv(*a) ** 2), argnums=(0, 1, 2))(input, weight, bias)

    for _ in range(3):
        step(*arrays)
    step(*(array + 1 for array in arrays))
    assert len(traces) == 1


def test_outside_jit_a_shape_is_compiled_once_too(arrays):
    compiled, (input, *others) = jaxconv.conv.__globals__["_convolve"].compiled, arrays
    sizes = []
    for samples in (7, 7, 7, 5):
        conv(jnp.concatenate([input[:1]] * samples), *others)
        sizes.append(compiled._cache_size())
    first, *then, last = sizes
    assert then == [first, first]
    assert last > first


@pytest.mark.parametrize("in_axes", [(0, None, None), (None, 0, None), (None, None, 0), (0, 0, 0), (1, 2, None)])
def test_vmap_over_any_argument(arrays, in_axes):
    stacked = [
        array if axis is None else jnp.stack([array, 2 * array, array - 1], axis)
        for array, axis in zip(arrays, in_axes, strict=True)
    ]

    def loss(function, *a):
        return jnp.sum(jnp.sin(function(*a)))

    for transform in (lambda f: f, lambda f: jax.grad(lambda *a: loss(f, *a), argnums=(0, 1, 2))):
        ours = jax.vmap(transform(conv), in_axes)(*stacked)
        theirs = jax.vmap(transform(reference), in_axes)(*stacked)
        assert_close(ours, theirs)


def loss_of(function):
    """A smooth loss that weighs every output differently."""

    def loss(*arguments):
        output = function(*arguments)
        return jnp.sum(jnp.sin(output) * jnp.linspace(0.5, 1, output.size).reshape(output.shape))

    return loss


@pytest.mark.parametrize("argument", [0, 1, 2])
def test_hessian(arrays, argument):
    """Forward over reverse, reverse over reverse, and lax's."""
    ours = jax.hessian(loss_of(conv), argnums=argument)(*arrays)
    again = jax.jacrev(jax.grad(loss_of(conv), argnums=argument), argnums=argument)(*arrays)
    theirs = jax.hessian(loss_of(reference), argnums=argument)(*arrays)
    assert_close(ours, theirs)
    assert_close(again, theirs)


@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("second", [0, 1, 2])
def test_mixed_second_derivatives(arrays, first, second):
    def mixed(function):
        inner = jax.grad(loss_of(function), argnums=first)
        return jax.grad(lambda *a: jnp.sum(jnp.cos(inner(*a))), argnums=second)(*arrays)

    assert_close(mixed(conv), mixed(reference))


def transposed(input, weight, bias):
    return jaxconv.conv_transpose(input, weight[:4], jnp.tile(bias[:2], 2), (2, 1), groups=2, engine="stream")


def local(input, weight, bias):
    spread = weight[..., None, None] * jnp.arange(1.0, 21).reshape(5, 4) / 20
    return jaxconv.conv_local(input, spread, bias, dilation=(1, 2), groups=2)


def there_and_back(input, weight, bias):
    columns = jaxconv.unfold(input, (3, 2), dilation=(1, 2), stride=(2, 1))
    folded = jaxconv.fold(jnp.sin(columns), (7, 6), (3, 2), dilation=(1, 2), stride=(2, 1))
    return folded * weight[0, 0, 0, 0] + bias[0]


def drop_in(input, weight, bias):
    options = {"lhs_dilation": (2, 1), "rhs_dilation": (1, 2), "feature_group_count": 2}
    return jaxconv.lax.conv_general_dilated(input, weight, (2, 1), ((-1, 2), (1, 0)), **options) + bias[:, None, None]


def named(function):
    """`function` with its result named, for the policies that keep what has a name."""
    return lambda *a: checkpoint_name(function(*a), "kept")


POLICIES = {
    "default": None,
    **{
        name: getattr(jax.checkpoint_policies, name)
        for name in (
            "everything_saveable",
            "nothing_saveable",
            "dots_saveable",
            "dots_with_no_batch_dims_saveable",
        )
    },
    "save_only_these_names": jax.checkpoint_policies.save_only_these_names("kept"),
    "save_anything_except_these_names": jax.checkpoint_policies.save_anything_except_these_names("kept"),
}


@pytest.mark.parametrize("function", [conv, transposed, local, there_and_back, drop_in], ids=lambda f: f.__name__)
def test_checkpoint(arrays, function):
    """Whatever a policy keeps, the gradient is that without, and what is not kept is computed again."""
    loss = loss_of(named(function))

    def gradient(policy):
        return jax.grad(jax.checkpoint(loss, policy=policy), argnums=(0, 1, 2))

    plain = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*arrays)
    for policy in POLICIES.values():
        assert_close(jax.jit(gradient(policy))(*arrays), plain)
    products = {
        name: primitives(jax.make_jaxpr(gradient(policy))(*arrays).jaxpr).count("dot_general")
        for name, policy in POLICIES.items()
    }
    assert products["everything_saveable"] <= products["dots_saveable"] <= products["nothing_saveable"]
    if function in (conv, transposed, local):
        assert products["dots_saveable"] < products["nothing_saveable"]


def test_scan_forward_and_backward():
    weights = jnp.asarray(np.random.default_rng(0).standard_normal((3, 4, 4, 3)))
    input = jnp.asarray(np.random.default_rng(1).standard_normal((2, 4, 8)))

    def scanned(input, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(jaxconv.conv1d(x, w, padding=1)), None), input, weights)[0]

    def unrolled(input, weights):
        for weight in weights:
            input = jnp.tanh(jaxconv.conv1d(input, weight, padding=1))
        return input

    for argument in (0, 1):
        got, expected = (jax.grad(lambda *a: jnp.sum(f(*a)), argument)(input, weights) for f in (scanned, unrolled))  # noqa: B023
        assert_close(got, expected)


def test_under_jit_as_outside_of_it(arrays):
    gradient = jax.grad(loss_of(conv), argnums=(0, 1, 2))
    assert_close(gradient(*arrays), jax.jit(gradient)(*arrays))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_second_derivatives_carry_their_sums_in_float32(dtype):
    """A sum of 29 ones and one 256: exact in bfloat16 only if it is rounded once, at the end."""
    weight = jnp.ones((1, 1, 30), dtype)
    direction = weight.at[0, 0, 29].set(256)
    input = jnp.ones((1, 1, 90), dtype)
    inner = jax.grad(lambda x, w: jnp.sum(jaxconv.conv(x, w)), argnums=1)
    by_input = jax.grad(lambda x: jnp.vdot(inner(x, weight), direction))(input)
    assert float(by_input[0, 0, 40]) == float(jnp.asarray(285, dtype))
    image = jax.grad(lambda x: jnp.vdot(inner(x, weight.reshape(1, 1, 5, 6)), direction.reshape(1, 1, 5, 6)))
    assert float(image(jnp.ones((1, 1, 15, 15), dtype))[0, 0, 7, 7]) == float(jnp.asarray(285, dtype))
    columns = jnp.ones((1, 30, 35), dtype)
    folded = jaxconv.fold(columns.at[0, 29].set(256), (64,), (30,))
    fold = jax.vjp(lambda u: jaxconv.fold(u, (64,), (30,)), columns)[1]
    again = jax.grad(lambda t: jnp.vdot(fold(t)[0], columns.at[0, 29].set(256)))(jnp.ones((1, 1, 64), dtype))
    np.testing.assert_array_equal(again, folded)


def test_inside_shard_map_a_shared_weight_gets_the_sum_over_devices():
    from jax.sharding import PartitionSpec as Spec

    mesh = jax.make_mesh((1,), ("device",), axis_types=(jax.sharding.AxisType.Auto,))
    weight, input = jnp.ones((2, 3, 3)), jnp.arange(96.0).reshape(4, 3, 8)

    def total(input, weight):
        return jax.lax.psum(jnp.sum(jaxconv.conv1d(input, weight) ** 2), "device")

    mapped = jax.shard_map(total, mesh=mesh, in_specs=(Spec("device"), Spec()), out_specs=Spec())
    alone = jax.grad(lambda w: jnp.sum(jaxconv.conv1d(input, w) ** 2))(weight)
    np.testing.assert_array_equal(jax.grad(mapped, 1)(input, weight), alone)


def test_strict_dtype_promotion():
    with jax.numpy_dtype_promotion("strict"):
        narrow = jnp.ones((1, 1, 5), jnp.bfloat16)
        wide = {"preferred_element_type": jnp.float32}
        jax.grad(lambda x: jnp.sum(jaxconv.conv1d(x, narrow[:, :, :3], narrow[0, 0, :1], **wide)))(narrow)
