"""Backward rules as people write them, proven or refuted: `python examples/prove_your_own_rule.py`."""

import jax
import jax.numpy as jnp

from derivations import prove_equal, prove_vjp


# Softmax cross-entropy with the rule everybody writes: probabilities minus labels.
@jax.custom_vjp
def cross_entropy(logits, labels):
    return -jnp.sum(labels * jax.nn.log_softmax(logits), axis=-1)


def _cross_entropy_forward(logits, labels):
    return cross_entropy(logits, labels), (logits, labels)


def _cross_entropy_backward(residuals, cotangent):
    logits, labels = residuals
    total = labels.sum(-1, keepdims=True)
    by_logits = (jax.nn.softmax(logits) * total - labels) * cotangent[..., None]
    return by_logits, -jax.nn.log_softmax(logits) * cotangent[..., None]


cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)


# The same, but with labels taken to sum to 1. They need not, and then it is wrong.
@jax.custom_vjp
def cross_entropy_of_distributions(logits, labels):
    return cross_entropy(logits, labels)


cross_entropy_of_distributions.defvjp(
    lambda logits, labels: (cross_entropy(logits, labels), (logits, labels)),
    lambda residuals, g: ((jax.nn.softmax(residuals[0]) - residuals[1]) * g[..., None], jnp.zeros_like(residuals[1])),
)


# A straight-through estimator: rounds, and says on purpose that its derivative is 1.
@jax.custom_vjp
def straight_through_round(x):
    return jnp.round(x)


straight_through_round.defvjp(lambda x: (jnp.round(x), None), lambda _, cotangent: (cotangent,))


# The identity that clips its gradient: deliberately not the derivative either, where the clip bites.
@jax.custom_vjp
def clip_gradient(x):
    return x


clip_gradient.defvjp(lambda x: (x, None), lambda _, cotangent: (jnp.clip(cotangent, -1.0, 1.0),))


# Layer norm over the last axis, with the gradient worked out by hand.
@jax.custom_vjp
def layer_norm(x, scale):
    return _normalised(x)[0] * scale


def _normalised(x):
    centred = x - x.mean(-1, keepdims=True)
    inverse = jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return centred * inverse, inverse


def _layer_norm_forward(x, scale):
    normalised, inverse = _normalised(x)
    return normalised * scale, (normalised, inverse, scale)


def _layer_norm_backward(residuals, cotangent):
    normalised, inverse, scale = residuals
    by_normalised = cotangent * scale
    mean = by_normalised.mean(-1, keepdims=True)
    along = (by_normalised * normalised).mean(-1, keepdims=True)
    by_x = inverse * (by_normalised - mean - normalised * along)
    return by_x, (cotangent * normalised).sum(tuple(range(cotangent.ndim - 1)))


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


# An attention head that keeps its probabilities.
@jax.custom_vjp
def attention(query, key, value):
    return _probabilities(query, key) @ value


def _probabilities(query, key):
    return jax.nn.softmax(query @ key.T * 0.5)


def _attention_forward(query, key, value):
    probabilities = _probabilities(query, key)
    return probabilities @ value, (query, key, value, probabilities)


def _attention_backward(residuals, cotangent):
    query, key, value, probabilities = residuals
    by_probabilities = cotangent @ value.T
    along = (by_probabilities * probabilities).sum(-1, keepdims=True)
    by_scores = probabilities * (by_probabilities - along) * 0.5
    return by_scores @ key, by_scores.T @ query, probabilities.T @ cotangent


attention.defvjp(_attention_forward, _attention_backward)


# The nearest-neighbour upsampling of a Noise2Noise network: every pixel four times, so its gradient sums four.
@jax.custom_vjp
def upsample_nearest(image):
    return jnp.repeat(jnp.repeat(image, 2, axis=-2), 2, axis=-1)


def _upsample_backward(_, cotangent):
    *batch, height, width = cotangent.shape
    return (cotangent.reshape(*batch, height // 2, 2, width // 2, 2).sum((-3, -1)),)


upsample_nearest.defvjp(lambda image: (upsample_nearest(image), None), _upsample_backward)


EXAMPLES = {
    "softmax cross-entropy": (cross_entropy, [(2, 3), (2, 3)]),
    "the same, for labels that sum to 1": (cross_entropy_of_distributions, [(2, 3), (2, 3)]),
    "straight-through estimator": (straight_through_round, [(3,)]),
    "gradient clip": (clip_gradient, [(2,)]),
    "layer norm": (layer_norm, [(2, 3), (3,)]),
    "attention head": (attention, [(2, 2), (2, 2), (2, 2)]),
    "nearest upsampling": (upsample_nearest, [(1, 2, 2, 3)]),
}


def main() -> None:
    for name, (function, shapes) in EXAMPLES.items():
        print(f"{name}\n  {prove_vjp(function, *shapes)}\n")
    resized = prove_equal(upsample_nearest, lambda x: jax.image.resize(x, (1, 2, 4, 6), "nearest"), (1, 2, 2, 3))
    print(f"nearest upsampling is jax.image's\n  {resized}")


if __name__ == "__main__":
    main()
