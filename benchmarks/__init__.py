"""How fast jaxconv is, beside `jax.lax`, torch and the bare matrix product: `python -m benchmarks`."""
