"""Programs over eight devices, which a process must ask for before it starts: so each is a process of its own."""

import subprocess
import sys

HEAD = """
import sys, re, jax, jax.numpy as jnp
from functools import partial
from jax.sharding import NamedSharding, PartitionSpec as Spec
mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
split, whole = NamedSharding(mesh, Spec("batch")), NamedSharding(mesh, Spec())
def kinds(function, shapes, shardings, out):
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    text = jax.jit(function, in_shardings=shardings, out_shardings=out).lower(*shapes).compile().as_text()
    collective = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
    return re.findall(rf"= (?:\\S+|\\([^)]*\\)) ({collective})(?:-start)?\\(", text)
"""


def on_eight(script: str, *arguments: str) -> list[str]:
    """The lines that a script prints. It has `split` and `whole`, shardings along the first axis and of nothing, and
    `kinds(function, shapes, shardings, out)`, the collectives of the compiled function."""
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "PATH": "", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", HEAD + script, *arguments]
    told = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return told.stdout.splitlines()
