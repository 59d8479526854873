"""Inside forward_mode(), everything that JAX does forwards, in reverse, and in both; outside, reverse by the rules."""

import contextlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from oracle import assert_close

import jaxconv

X, W, B = (
    jnp.asarray(np.random.default_rng(seed).standard_normal(shape))
    for seed, shape in enumerate(((2, 4, 7), (6, 2, 3), (6,)))
)


def conv(x, w, b):
    return jaxconv.conv1d(x, w, b, stride=2, padding=1, groups=2)


def conv_transpose(x, w, b):
    return jaxconv.conv_transpose1d(x, jnp.swapaxes(w, 0, 1).reshape(4, 3, 3), b, stride=2, padding=1, groups=2)


def unfolded(x, w, b):
    return jaxconv.fold(jaxconv.unfold(x, (3,), stride=2), (7,), (3,), stride=2) * w[0, 0, 0] + b[0]


def local(x, w, b):
    weight = jnp.broadcast_to(w[..., None], (6, 2, 3, 5)) * jnp.arange(5, dtype=w.dtype)
    return jaxconv.conv_local(x, weight, b, groups=2)


def layer(x, w, b):
    return jaxconv.lax.conv_general_dilated(x, w, (1,), ((0, 1),), (2,), feature_group_count=2) + b[:, None]


FUNCTIONS = pytest.mark.parametrize(
    "function", [conv, conv_transpose, unfolded, local, layer], ids=lambda f: f.__name__
)


@pytest.fixture
def forwards():
    with jaxconv.forward_mode():
        yield


def loss(function):
    return lambda *a: jnp.sum(jnp.sin(function(*a)))


@FUNCTIONS
def test_jvp_is_the_vjp_transposed(function):
    """<G, jvp(v)> = <vjp(G), v>, the left side inside and the right one outside."""
    directions = jax.tree.map(jnp.cos, (X, W, B))
    output, pull = jax.vjp(function, X, W, B)
    cotangent = jnp.sin(output)
    right = sum(jnp.vdot(g, v) for g, v in zip(pull(cotangent), directions, strict=True))
    with jaxconv.forward_mode():
        same, tangent = jax.jvp(function, (X, W, B), directions)
        again, linear = jax.linearize(function, X, W, B)
        assert_close(linear(*directions), tangent)
    assert_close(same, output)
    assert_close(again, output)
    assert_close(jnp.vdot(cotangent, tangent), jnp.asarray(right))


@FUNCTIONS
@pytest.mark.parametrize("argument", [0, 1])
def test_jacobians_and_hessians_in_every_order(forwards, function, argument):
    options = {"argnums": argument}
    assert_close(jax.jacfwd(function, **options)(X, W, B), jax.jacrev(function, **options)(X, W, B))
    orders = [
        jax.jacfwd(jax.jacrev(loss(function), **options), **options)(X, W, B),
        jax.jacrev(jax.jacfwd(loss(function), **options), **options)(X, W, B),
        jax.jacrev(jax.jacrev(loss(function), **options), **options)(X, W, B),
        jax.hessian(loss(function), **options)(X, W, B),
    ]
    for order in orders[1:]:
        assert_close(order, orders[0])


@FUNCTIONS
def test_outside_the_hand_written_rule_gives_the_same(function):
    with jaxconv.forward_mode():
        inside = jax.grad(loss(function), (0, 1, 2))(X, W, B)
        assert "custom_vjp" not in str(jax.make_jaxpr(function)(X, W, B))
    outside = jax.grad(loss(function), (0, 1, 2))(X, W, B)
    assert "custom_vjp" in str(jax.make_jaxpr(function)(X, W, B))
    assert_close(inside, outside)


def test_outside_jvp_is_refused_by_jax():
    with pytest.raises(TypeError, match="can't apply forward-mode"):
        jax.jvp(lambda x: conv(x, W, B), (X,), (X,))


def test_a_jitted_function_is_traced_anew_inside_and_outside():
    compiled = jax.jit(conv)
    before = compiled(X, W, B)
    with jaxconv.forward_mode():
        jax.jvp(lambda x: compiled(x, W, B), (X,), (X,))
    with pytest.raises(TypeError, match="can't apply forward-mode"):
        jax.jvp(lambda x: compiled(x, W, B), (X,), (X,))
    np.testing.assert_array_equal(compiled(X, W, B), before)


SUBSETS = [axes for axes in itertools.product([0, None], repeat=3) if 0 in axes]
ENSEMBLES = [(f, axes) for f in (conv, conv_transpose, local) for axes in SUBSETS] + [(unfolded, (0, None, None))]


@pytest.mark.parametrize(("function", "axes"), ENSEMBLES)
def test_vmap_of_jvp_and_of_grad(forwards, function, axes):
    """Ensembles of weights too: each member as if it were alone."""
    stacked = [a if axis is None else jnp.stack([a, 2 * a, a - 1]) for a, axis in zip((X, W, B), axes, strict=True)]

    def derivative(*a):
        return jax.jvp(function, a, a)[1], jax.grad(loss(function), (0, 1, 2))(*a)

    together = jax.vmap(derivative, axes)(*stacked)
    for member in range(3):
        alone = derivative(*(a if axis is None else a[member] for a, axis in zip(stacked, axes, strict=True)))
        assert_close(jax.tree.map(lambda leaf, member=member: leaf[member], together), alone)


# Small ones: a Hessian with respect to every argument has a row an entry of all three.
SMALL = tuple(
    jnp.asarray(np.random.default_rng(seed).standard_normal(shape))
    for seed, shape in enumerate(((1, 2, 3), (2, 1, 2), (2,)))
)


def small_conv(x, w, b):
    return jaxconv.conv1d(x, w, b, padding=1, stride=2, groups=2)


def small_conv_transpose(x, w, b):
    return jaxconv.conv_transpose1d(x, w, b, stride=2, groups=2)


def small_local(x, w, b):
    return jaxconv.conv_local(x, w[..., None] * jnp.asarray([0.5, 2.0]), b, groups=2)


ALL = (0, 1, 2)
DERIVATIVES = {
    "jacfwd": lambda f: jax.jacfwd(f, ALL),
    "linearize": lambda f: lambda *a: jax.linearize(f, *a)[1](*jax.tree.map(jnp.cos, a)),
    "jacrev of jacrev": lambda f: jax.jacrev(jax.jacrev(loss(f), ALL), ALL),
    "hessian": lambda f: jax.hessian(loss(f), ALL),
}


@pytest.mark.parametrize("name", DERIVATIVES)
@pytest.mark.parametrize("function", [small_conv, small_conv_transpose, small_local], ids=lambda f: f.__name__)
def test_vmap_of_every_derivative(function, name):
    """Over every subset of the arguments, with respect to all of them: each member as if it were alone.

    Reverse of reverse needs no forward_mode(), and runs by the rules.
    """
    with contextlib.nullcontext() if name == "jacrev of jacrev" else jaxconv.forward_mode():
        derivative = DERIVATIVES[name](function)
        alone = jax.jit(derivative)
        for axes in SUBSETS:
            members = [[a if axis is None else a * n - n for a, axis in zip(SMALL, axes, strict=True)] for n in (1, 2)]
            stacked = [
                a if axis is None else jnp.stack(each)
                for a, axis, each in zip(SMALL, axes, zip(*members, strict=True), strict=True)
            ]
            together = jax.jit(jax.vmap(derivative, axes))(*stacked)
            assert_close(together, jax.tree.map(lambda *each: jnp.stack(each), *(alone(*m) for m in members)))


@FUNCTIONS
def test_scan_checkpoint_and_jit_of_jvp(forwards, function):
    def twice(x):
        return jax.lax.scan(
            lambda c, _: (c + jnp.sum(jax.checkpoint(function)(x * c, W, B)), None), 1.0, None, length=2
        )[0]

    plain = jnp.vdot(jax.grad(twice)(X), X)
    assert_close(jax.jit(lambda x: jax.jvp(twice, (x,), (x,))[1])(X), plain)


@FUNCTIONS
def test_shapes_lowering_and_export(function):
    shape = jax.eval_shape(function, X, W, B)
    compiled = jax.jit(function).lower(X, W, B).compile()
    output = compiled(X, W, B)
    assert (output.shape, output.dtype) == (shape.shape, shape.dtype)
    gradient = jax.jit(jax.grad(loss(function), (0, 1, 2)))
    blob = export.export(gradient)(X, W, B).serialize()
    assert_close(export.deserialize(blob).call(X, W, B), gradient(X, W, B))
    kept = export.export(jax.jit(function))(X, W, B).serialize(vjp_order=1)
    pulled = jax.grad(lambda x: jnp.sum(jnp.sin(export.deserialize(kept).call(x, W, B))))(X)
    assert_close(pulled, gradient(X, W, B)[0])
    for platform in ("cuda", "tpu"):
        assert export.export(gradient, platforms=[platform])(X, W, B).platforms == (platform,)


@FUNCTIONS
def test_donated_buffers(function):
    step = jax.jit(lambda x, w, b: (x + 1, function(x, w, b)), donate_argnums=0)
    expected = function(X, W, B)
    assert_close(step(X + 0, W, B)[1], expected)


@FUNCTIONS
def test_arrays_beyond_the_reach_of_an_int32_have_shapes(function):
    """2^32 entries, by shape and by lowering alone."""
    large = jax.ShapeDtypeStruct((2**28, 4, 7), jnp.float32)
    weight, bias = jax.ShapeDtypeStruct(W.shape, jnp.float32), jax.ShapeDtypeStruct(B.shape, jnp.float32)
    narrow = jax.eval_shape(function, jax.ShapeDtypeStruct((2, 4, 7), jnp.float32), weight, bias)
    assert jax.eval_shape(function, large, weight, bias).shape == (2**28, *narrow.shape[1:])
    jax.jit(jax.grad(lambda x, w, b: jnp.sum(function(x, w, b)), (0, 1, 2))).lower(large, weight, bias)


def test_an_integer_argument_beside_gets_its_float0():
    def picked(x, which):
        return jnp.sum(conv(x, W, B)[:, which])

    gradient = jax.grad(picked, argnums=(0, 1), allow_int=True)(X, jnp.asarray([0, 2]))
    assert gradient[1].dtype == jax.dtypes.float0


def test_symbolic_zeros_of_outputs_that_nobody_uses():
    def pair(x):
        return conv(x, W, B), jnp.sum(x)

    assert_close(jax.grad(lambda x: pair(x)[1])(X), jnp.ones_like(X))
