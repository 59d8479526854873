"""The rules of first-order primitives, one each; importing this package registers them all."""

from derivations.rules import arithmetic, indexing, linear, shapes

__all__ = ["arithmetic", "indexing", "linear", "shapes"]
