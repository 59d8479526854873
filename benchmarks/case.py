"""What is timed: one layer."""

from dataclasses import dataclass, replace

QUANTITIES = ("forward", "input gradient", "weight gradient", "vjp")


@dataclass(frozen=True)
class Case:
    """One layer: shapes with channels first, and torch's options.

    `kind` is "layer"; "mapped", the layer of one sample under `jax.vmap`, with the weight shared; "per example", a gradient of
    the weight for every sample by `vmap(grad)`; or "loop", the layer applied ten times in `jax.lax.scan`.
    """

    name: str
    input: tuple[int, ...]
    weight: tuple[int, ...]
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    transposed: bool = False
    kind: str = "layer"
    note: str = ""

    @property
    def rank(self) -> int:
        return len(self.weight) - 2

    @property
    def quantities(self) -> tuple[str, ...]:
        return {"per example": ("vjp",), "loop": ("forward", "vjp")}.get(self.kind, QUANTITIES)

    def with_batch(self, times: int) -> "Case":
        """The same with so many times as many samples."""
        return replace(self, input=(times * self.input[0], *self.input[1:]))
