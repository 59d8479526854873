"""What is static about one convolution: all that an engine may decide on."""

from dataclasses import dataclass
from typing import Any

from jaxconv.window import Window


@dataclass(frozen=True)
class Convolution:
    """Geometry, groups and arithmetic of one convolution, without its arrays: static and hashable.

    `precision` is `jax.lax`'s; `result` the dtype of the output; `accumulate` the dtype that sums are carried in.
    """

    window: Window
    spatial: tuple[int, ...]
    groups: int
    precision: Any
    result: Any
    accumulate: Any

    @property
    def out_spatial(self) -> tuple[int, ...]:
        """Spatial size of the output."""
        return self.window.output_size(self.spatial)

    @property
    def dot(self) -> dict[str, Any]:
        """Keywords for the matrix products of `formulas`."""
        return {"precision": self.precision, "preferred_element_type": self.accumulate}
