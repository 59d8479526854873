"""The rule that chooses an engine, from static shapes, dtype and layout."""

from dataclasses import replace

import jax.numpy as jnp
import pytest
from choices import named
from jax import lax
from layers import layer

from jaxconv import choice
from jaxconv.convolution import Convolution
from jaxconv.window import make_window

RULE = [
    # weight, stride, groups: output, input gradient, weight gradient of 1024 samples
    ((64, 64, 3, 3), 1, 1, ("fold 1", "fold 1", "fold 1")),
    ((256, 64, 3, 3), 1, 1, ("fold 1", "fold 0", "fold 1")),
    ((64, 3, 7, 7), 2, 1, ("stream", "fold 0", "stream")),
    ((256, 128, 3, 3), 2, 1, ("fold 2", "fold 0", "stream")),
    ((256, 128, 3, 3), (2, 1), 1, ("fold 1", "fold 0", "fold 1")),
    ((256, 128, 3, 3), (1, 2), 1, ("fold 2", "fold 0", "stream")),
    ((16, 256, 3, 3), 1, 1, ("fold 0", "stream", "fold 0")),
    ((48, 3, 3, 3), 1, 1, ("stream", "fold 0", "stream")),
    ((32, 16, 3, 3, 3), 1, 1, ("fold 2", "fold 1", "fold 2")),
    ((144, 64, 1, 3, 3), 1, 1, ("fold 2", "fold 2", "fold 2")),
    ((64, 64, 5), 1, 1, ("fold 1", "fold 1", "fold 1")),
    ((24, 1, 25), 1, 1, ("fold 1", "fold 0", "fold 1")),
    ((30, 2, 16), 1, 1, ("fold 1", "fold 0", "batched")),
    ((30, 4, 9), 1, 1, ("fold 1", "fold 0", "batched")),
    ((64, 4, 5), 1, 1, ("fold 1", "fold 0", "batched")),
    ((64, 1, 5, 5), (2, 1), 1, ("fold 2", "fold 0", "stream")),
    ((64, 3, 5, 5), (2, 1), 1, ("fold 2", "fold 0", "fold 2")),
    ((64, 3, 5, 5), (2, 2), 1, ("stream", "fold 0", "stream")),
    ((144, 1, 3, 3), 1, 144, ("taps", "taps", "taps")),
    ((144, 1, 8, 8), 1, 144, ("taps", "taps", "taps")),
    ((144, 1, 9, 9), 1, 144, ("taps", "taps", "fold 1")),
    ((144, 1, 9, 9), (1, 2), 144, ("taps", "taps", "taps")),
    ((144, 1, 5, 17), 1, 144, ("taps", "taps", "taps")),
    ((144, 1, 5, 5, 5), 1, 144, ("taps", "taps", "fold 2")),
    ((128, 4, 3, 3), 2, 32, ("taps", "taps", "stream")),
    ((128, 4, 9), 1, 32, ("taps", "taps", "taps")),
    ((256, 8, 3, 3), 1, 32, ("fold 1", "fold 1", "fold 1")),
    ((64, 256, 1, 1), 1, 1, ("fold 0", "batched", "batched")),
    ((512, 256, 1, 1), 1, 1, ("fold 0", "fold 0", "stream")),
    ((64, 256, 1, 1), 2, 1, ("fold 2", "fold 0", "fold 2")),
    ((16, 8, 4, 4, 4), 2, 1, ("phases 1", "phases 2", "phases 1")),
    ((16, 16, 8, 8), 2, 1, ("phases 1", "phases 1", "phases 1")),
    ((64, 3, 8, 8), 2, 1, ("stream", "fold 0", "stream")),
    ((64, 64, 16), 4, 1, ("phases 0", "phases 2", "phases 0")),
    ((64, 32, 2, 2), 2, 1, ("fold 2", "fold 0", "fold 2")),
    ((64, 64, 12), 4, 1, ("fold 1", "fold 0", "fold 1")),
    ((48, 16, 16), 1, 1, ("stream", "blocks 8", "stream")),
    ((96, 32, 9), 1, 1, ("stream", "fold 0", "stream")),
    ((4, 128, 25), 3, 1, ("fold 0", "stream", "fold 1")),
    ((4, 128, 24), 3, 1, ("phases 0", "taps", "phases 0")),
    ((3, 128, 5, 5), 2, 1, ("fold 0", "taps", "stream")),
    ((24, 128, 5, 5), 2, 1, ("stream", "fold 0", "stream")),
    ((64, 128, 5, 5), 2, 1, ("stream", "fold 0", "stream")),
    ((6, 128, 5, 5), 2, 1, ("fold 1", "stream", "stream")),
    ((7, 128, 5, 5), 2, 1, ("fold 1", "fold 0", "stream")),
    ((29, 128, 5, 5), 2, 1, ("stream", "fold 0", "stream")),
    ((31, 128, 5, 5), 2, 1, ("stream", "fold 0", "stream")),
    ((6, 64, 5, 5), 2, 1, ("fold 1", "fold 0", "stream")),
    ((64, 128, 4, 4), 2, 1, ("fold 2", "fold 0", "stream")),
    ((24, 128, 5, 5), 2, 2, ("stream", "fold 0", "stream")),
    ((64, 128, 3, 3, 3), 2, 1, ("stream", "fold 0", "stream")),
    ((64, 128, 8, 8), 3, 1, ("stream", "fold 0", "stream")),
    ((64, 128, 9, 9), 3, 1, ("phases 0", "phases 2", "phases 0")),
]


SMALL = [
    # The same of one sample, whose U is small.
    ((64, 64, 3, 3), 1, 1, ("fold 1", "fold 1", "fold 1")),
    # A weight that is large beside U: half as many entries, or for its own gradient as many.
    ((256, 128, 3, 3), 2, 1, ("fold 2", "materialise", "materialise")),
    ((225, 128, 3, 3), 2, 1, ("fold 2", "materialise", "materialise")),
    ((224, 128, 3, 3), 2, 1, ("fold 2", "materialise", "fold 2")),
    ((113, 128, 3, 3), 2, 1, ("fold 2", "materialise", "fold 2")),
    ((112, 128, 3, 3), 2, 1, ("fold 2", "fold 0", "fold 2")),
    ((256, 128, 3, 3), (2, 1), 1, ("fold 2", "materialise", "fold 2")),
    ((512, 256, 1, 1), 2, 1, ("fold 2", "fold 0", "fold 2")),
    ((64, 64, 5), 3, 1, ("fold 1", "materialise", "materialise")),
    ((6, 1, 5, 5), 1, 1, ("taps", "fold 0", "fold 1")),
    ((4, 4, 3, 3), 1, 1, ("taps", "taps", "fold 1")),
    ((8, 2, 3, 3), 1, 1, ("taps", "fold 0", "fold 1")),
    ((1, 16, 3, 3), 1, 1, ("fold 0", "taps", "fold 0")),
    ((4, 4, 3, 3), 2, 1, ("fold 1", "taps", "fold 2")),
    ((16, 1, 4, 4), 2, 1, ("taps", "fold 0", "batched")),
    ((4, 4, 5), 2, 1, ("taps", "taps", "fold 1")),
    ((3, 8, 5), 2, 1, ("fold 1", "taps", "fold 1")),
    ((3, 128, 5), 2, 1, ("fold 1", "taps", "fold 1")),
    # An output of at most 8 channels of an image at a stride.
    ((8, 4, 3, 3), 2, 1, ("fold 1", "taps", "fold 2")),
    ((9, 4, 3, 3), 2, 1, ("fold 2", "fold 0", "fold 2")),
    ((8, 4, 3, 3, 3), 2, 1, ("batched", "fold 0", "fold 3")),
    ((6, 32, 5), 2, 2, ("fold 1", "fold 0", "fold 1")),
    # Three times as many rows of U as channels out.
    ((56, 19, 3, 3), 2, 1, ("fold 2", "fold 0", "fold 2")),
    ((56, 18, 3, 3), 2, 1, ("fold 2", "fold 0", "batched")),
    ((16, 1, 6, 6), 4, 1, ("fold 2", "fold 0", "batched")),
    ((16, 4, 2, 2, 2), 3, 1, ("fold 3", "fold 0", "batched")),
    ((16, 5, 2, 2, 2), 3, 1, ("fold 3", "fold 0", "batched")),
    ((6, 1, 5), 1, 1, ("taps", "fold 0", "materialise")),
    ((192, 3, 16, 16), 16, 1, ("materialise", "materialise", "materialise")),
    ((36, 8, 3, 3), 3, 1, ("fold 2", "fold 0", "batched")),
    ((64, 32, 2, 2), 2, 1, ("materialise", "materialise", "materialise")),
    ((32, 8, 16), 4, 1, ("fold 1", "materialise", "materialise")),
    ((16, 64, 16), 4, 1, ("phases 0", "phases 1", "phases 0")),
    ((16, 16, 6, 6), 2, 1, ("phases 1", "phases 1", "phases 0")),
    ((16, 16, 6, 6), 3, 1, ("fold 2", "fold 0", "fold 2")),
    ((8, 4, 3, 3), 1, 4, ("taps", "taps", "fold 1")),
    ((48, 3, 3, 3), 1, 1, ("batched", "batched", "batched")),
    ((26, 5, 3, 3), 1, 1, ("fold 1", "fold 0", "batched")),
    ((48, 3, 3, 3), 1, 2, ("stream", "fold 0", "stream")),
    ((48, 3, 3, 3), (2, 1), 1, ("fold 2", "fold 0", "batched")),
    # Few channels out: products of all taps, which are added up, count a quarter more.
    ((55, 256, 3, 3), 1, 1, ("fold 0", "fold 1", "fold 0")),
    ((56, 256, 3, 3), 1, 1, ("fold 1", "fold 1", "fold 0")),
    ((64, 1, 4, 8), 1, 1, ("batched", "batched", "batched")),
    ((64, 1, 3, 11), 1, 1, ("batched", "batched", "batched")),
]


LAST = [
    # Channels last, of 1024 samples and of one.
    (1024, (64, 64, 3, 3), 1, 1, ("fold 1", "fold 1", "fold 1")),
    (1024, (512, 256, 1, 1), 1, 1, ("batched", "batched", "stream")),
    (1, (512, 256, 1, 1), 1, 1, ("batched", "batched", "batched")),
    (1, (64, 16, 1, 1), 1, 4, ("fold 0", "fold 0", "stream")),
    # As many entries of a weight as of a small U: 225 positions and 900, and 23.
    (1, (225, 128, 3, 3), 2, 1, ("stream", "materialise", "materialise")),
    (1, (224, 128, 3, 3), 2, 1, ("stream", "fold 0", "stream")),
    # Windows side by side are a view, where they see all of 32 cells.
    (16, (192, 3, 3, 3), 3, 1, ("stream", "fold 0", "stream")),
    (1, (192, 3, 16, 16), 16, 1, ("materialise", "materialise", "materialise")),
    (128, (64, 32, 2, 2), 2, 1, ("materialise", "materialise", "materialise")),
    (129, (64, 32, 2, 2), 2, 1, ("stream", "fold 0", "stream")),
    (2, (256, 128, 3, 3), 2, 1, ("stream", "fold 0", "stream")),
    (1, (900, 16, 3, 3), 1, 1, ("stream", "materialise", "materialise")),
    (1, (899, 16, 3, 3), 1, 1, ("stream", "fold 0", "stream")),
    (1, (1800, 32, 3, 3), 1, 2, ("stream", "fold 0", "stream")),
    (1, (32, 1, 10), 1, 1, ("stream", "materialise", "materialise")),
    (1, (48, 3, 3, 3), 1, 1, ("stream", "fold 0", "stream")),
    (1, (144, 1, 4, 4), 1, 144, ("taps", "taps", "taps")),
    (1, (144, 1, 17), 1, 144, ("taps moved", "taps moved", "taps moved")),
    (1, (128, 2, 3, 3), 1, 64, ("taps moved", "taps moved", "fold 1")),
    (1, (144, 1, 15, 15), 1, 144, ("taps moved", "taps moved", "taps moved")),
    (1, (144, 1, 16, 16), 1, 144, ("taps moved", "taps moved", "fold 1 moved")),
    (1, (128, 2, 3, 3), 2, 64, ("taps moved", "taps", "stream")),
    (1, (16, 16, 6, 6), 2, 1, ("stream", "fold 0", "stream")),
    (1, (16, 1, 9), 1, 1, ("taps", "fold 0", "taps")),
    # A signal's gradient of the weight is copied, but where its cotangent has fewer copies by a sixth.
    (1024, (64, 64, 5), 1, 1, ("fold 0", "fold 0", "stream")),
    (1024, (48, 64, 5), 1, 1, ("fold 0", "stream", "fold 0")),
    (1024, (49, 64, 5), 1, 1, ("fold 0", "stream", "stream")),
    # Few channels out at a stride.
    (1024, (3, 128, 5, 5), 2, 1, ("fold 0", "stream", "stream")),
    (1024, (6, 128, 5, 5), 2, 1, ("fold 1", "stream", "stream")),
    (1024, (24, 128, 5, 5), 2, 1, ("stream", "fold 0", "stream")),
    (1024, (4, 128, 25), 3, 1, ("fold 0", "stream", "stream")),
    (1, (3, 128, 5), 2, 1, ("fold 0", "stream", "stream")),
]


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        ((64, 16, 9), "fold"),
        ((51, 17, 9), "stream"),
        ((50, 17, 9), "fold"),
        ((17, 1, 25), "taps"),
        ((16, 1, 25), "taps"),
    ],
)
def test_signals_of_few_channels(weight, expected):
    """Of a large U: runs of up to 16 channels are too short to copy."""
    convolution = layer((16, weight[1], 48000), weight)
    assert choice.rule(convolution, "output", weight, 16)[0] == expected


@pytest.mark.parametrize(
    ("batch", "weight", "stride", "groups", "expected", "last"),
    [(1024, *row, False) for row in RULE] + [(1, *row, False) for row in SMALL] + [(*row, True) for row in LAST],
)
def test_the_rule(batch, weight, stride, groups, expected, last):
    input = (batch, groups * weight[1], *(32,) * len(weight[2:]))
    assert named(layer(input, weight, 0, groups, stride, channels_last=last), weight, batch) == expected


@pytest.mark.parametrize(
    ("input", "weight", "stride", "expected"),
    [
        # A product per sample: of fewer rows than a fold writes, and from 500 positions on, or 1500 of more rows than channels
        # out; or of few rows.
        ((4, 192, 1500), (384, 192, 3), 1, ("batched", "batched", "fold 1")),
        ((4, 192, 1499), (384, 192, 3), 1, ("fold 1", "fold 0", "fold 1")),
        ((4, 128, 500), (384, 128, 3), 1, ("batched", "batched", "fold 1")),
        ((4, 128, 499), (384, 128, 3), 1, ("fold 1", "fold 0", "fold 1")),
        ((4, 128, 500), (383, 128, 3), 1, ("fold 1", "fold 0", "fold 1")),
        ((4, 128, 500), (32, 128, 3), 1, ("fold 0", "fold 1", "fold 0")),
        ((8, 8, 38, 40), (64, 8, 3, 3), 1, ("batched", "batched", "batched")),
        ((8, 8, 37, 40), (64, 8, 3, 3), 1, ("fold 2", "fold 0", "batched")),
        ((8, 6, 25, 20), (54, 6, 3, 3), 1, ("batched", "batched", "batched")),
        ((8, 6, 25, 19), (54, 6, 3, 3), 1, ("fold 2", "fold 0", "batched")),
        # But for products on one core of 56 rows or more: 98304 entries of the largest factor, and 6.6 million multiply-adds.
        ((8, 8, 25, 20), (72, 8, 3, 3), 1, ("fold 2", "fold 0", "batched")),
        ((16, 21, 1489), (66, 21, 3), 1, ("fold 1", "fold 0", "batched")),
        ((16, 21, 1490), (66, 21, 3), 1, ("batched", "batched", "batched")),
        ((16, 64, 1024), (65, 64, 3), 2, ("fold 1", "fold 0", "batched")),
        ((16, 64, 1028), (65, 64, 3), 2, ("batched", "fold 0", "batched")),
        # The blocks of a weight gradient, of fewer than three times as many rows as channels out.
        ((16, 64, 512), (65, 64, 3), 1, ("fold 1", "fold 1", "batched")),
        ((16, 64, 512), (64, 64, 3), 1, ("fold 1", "fold 1", "fold 0")),
        ((16, 64, 1028), (64, 64, 3), 2, ("batched", "fold 0", "fold 1")),
        # A signal of a quarter as many rows as channels out.
        ((16, 1, 4000), (40, 1, 10), 5, ("batched", "batched", "batched")),
        ((16, 1, 4000), (39, 1, 10), 5, ("batched", "fold 0", "batched")),
        ((16, 1, 64, 64), (64, 1, 4, 4), 3, ("fold 2", "fold 0", "batched")),
        ((32, 4, 12, 12), (72, 4, 3, 3), 1, ("batched", "batched", "batched")),
        ((32, 4, 12, 12), (71, 4, 3, 3), 1, ("fold 2", "fold 0", "batched")),
        ((32, 4, 12, 11), (72, 4, 3, 3), 1, ("fold 2", "fold 0", "batched")),
        # The blocks of an image's weight gradient: 16384 entries.
        ((16, 16, 12, 12), (113, 16, 3, 3), 1, ("fold 1", "fold 0", "batched")),
        ((16, 16, 12, 12), (114, 16, 3, 3), 1, ("fold 1", "fold 0", "fold 1")),
        ((2, 16, 20, 19), (127, 16, 3, 3), 1, ("fold 2", "fold 0", "fold 2")),
        # A weight that is large beside U.
        ((4, 512, 7, 7), (512, 512, 3, 3), 1, ("fold 1", "materialise", "materialise")),
        ((2, 256, 20, 20), (512, 256, 3, 3), 1, ("fold 1", "materialise", "fold 1")),
        ((4, 64, 16, 16), (512, 64, 5, 5), 1, ("fold 1", "fold 1", "fold 1")),
        ((1, 64, 208), (92, 64, 16), 1, ("blocks 2", "blocks 4", "blocks 4")),
        ((1, 64, 208), (110, 64, 16), 1, ("blocks 2", "materialise", "blocks 4")),
        ((1, 64, 208), (200, 64, 16), 1, ("fold 1", "materialise", "fold 1")),
        ((1, 64, 208), (201, 64, 16), 1, ("fold 1", "materialise", "materialise")),
        ((4, 3, 56, 32), (128, 3, 9, 9), 1, ("batched", "batched", "fold 2")),
        ((4, 16, 12, 33), (256, 16, 3, 3), 1, ("fold 2", "fold 0", "fold 2")),
        # At a stride, from 1500 positions on, or 500 of 192 rows at least or half the channels out at most.
        ((2, 3, 83, 83), (64, 3, 7, 7), 2, ("batched", "fold 0", "batched")),
        ((2, 3, 81, 81), (64, 3, 7, 7), 2, ("fold 2", "fold 0", "batched")),
        ((8, 22, 47, 47), (128, 22, 3, 3), 2, ("batched", "fold 0", "batched")),
        ((8, 21, 47, 47), (128, 21, 3, 3), 2, ("fold 2", "fold 0", "batched")),
        ((8, 3, 47, 47), (54, 3, 3, 3), 2, ("batched", "fold 0", "batched")),
        ((8, 3, 47, 47), (53, 3, 3, 3), 2, ("fold 2", "fold 0", "batched")),
        # Few rows of a long kernel at a stride.
        ((16, 4, 3000), (128, 4, 8), 2, ("phases 1", "phases 0", "batched")),
        ((4, 5, 3000), (64, 5, 32), 2, ("phases 1", "phases 8", "batched")),
        ((4, 6, 3000), (64, 6, 32), 2, ("phases 1", "phases 8", "phases 2")),
        ((4, 10, 3000), (107, 10, 32), 2, ("phases 1", "phases 8", "batched")),
        ((4, 11, 3000), (118, 11, 32), 2, ("phases 1", "phases 8", "phases 2")),
    ],
)
def test_the_rule_for_a_small_u(input, weight, stride, expected):
    """Every threshold from both sides."""
    padding = 0 if stride > 1 else 1 if max(weight[2:]) == 3 else 4
    assert named(layer(input, weight, padding, stride=stride), weight, input[0]) == expected


@pytest.mark.parametrize(
    ("input", "weight", "stride", "expected"),
    [
        # Few channels out, in signals of a large U too.
        ((16, 64, 3000), (8, 64, 8), 1, ("fold 0", "fold 1", "fold 0")),
        ((16, 64, 3000), (8, 64, 9), 1, ("fold 0", "fold 1", "fold 0")),
        # All that an image's taps see is copied where that is no more than a sixth dearer than to fold an axis.
        ((32, 16, 56, 56), (14, 16, 7, 7), 2, ("fold 2", "fold 0", "stream")),
        ((32, 16, 56, 56), (13, 16, 7, 7), 2, ("fold 1", "fold 0", "stream")),
        # A weight gradient at a stride, of eight channels in and twice as many taps as cells per position.
        ((64, 8, 112, 112), (16, 8, 3, 3), 2, ("fold 2", "fold 0", "stream")),
        ((64, 7, 112, 112), (16, 7, 3, 3), 2, ("fold 2", "fold 0", "fold 2")),
        ((64, 8, 112, 112), (16, 8, 3, 3), (2, 3), ("fold 2", "fold 0", "fold 2")),
    ],
)
def test_the_rule_for_a_large_u(input, weight, stride, expected):
    assert named(layer(input, weight, stride=stride), weight, input[0]) == expected


@pytest.mark.parametrize(
    ("input", "weight", "stride", "expected"),
    [
        # Blocks: where they save a twenty-fifth, also of the phases of a stride.
        ((16, 48, 3000), (70, 48, 9), 1, ("blocks 3", "blocks 3", "blocks 3")),
        ((16, 48, 3000), (71, 48, 9), 1, ("fold 1", "blocks 3", "blocks 3")),
        ((16, 48, 3000), (116, 48, 9), 1, ("fold 1", "blocks 3", "blocks 3")),
        ((16, 48, 3000), (117, 48, 9), 1, ("fold 1", "blocks 3", "fold 1")),
        ((16, 48, 3000), (31, 48, 9), 1, ("blocks 3", "fold 1", "blocks 3")),
        ((8, 32, 6000), (174, 32, 32), 2, ("phases 1", "phases 4", "phases 2")),
        ((8, 32, 6000), (175, 32, 32), 2, ("phases 1", "phases 4", "phases 2")),
        # What the products beyond the ends cost counts.
        ((64, 48, 200), (48, 48, 96), 1, ("fold 1", "blocks 12", "blocks 8")),
        ((64, 48, 900), (48, 48, 96), 1, ("blocks 8", "blocks 8", "blocks 8")),
    ],
)
def test_the_rule_for_blocks_of_a_large_u(input, weight, stride, expected):
    """As windows are not taken to frequencies where the highest precision is asked for."""
    precise = replace(layer(input, weight, stride=stride), precision=lax.Precision.HIGHEST)
    assert named(precise, weight, input[0]) == expected


@pytest.mark.parametrize(
    ("input", "weight", "expected"),
    [
        # Twice as many positions as channels in or out, whichever are fewer, or one sample.
        ((16, 640, 12, 12), (72, 640, 1, 1), ("batched", "batched", "stream")),
        ((16, 640, 12, 12), (73, 640, 1, 1), ("fold 0", "fold 0", "stream")),
        ((1, 640, 12, 12), (640, 640, 1, 1), ("batched", "materialise", "stream")),
        # Half as many channels in as the cotangent has positions.
        ((8, 320, 8, 10), (512, 320, 1, 1), ("fold 0", "materialise", "stream")),
        ((8, 319, 8, 10), (512, 319, 1, 1), ("fold 0", "fold 0", "stream")),
        # The blocks of a weight gradient: 16384 entries, or 48 times the positions.
        ((8, 128, 16, 16), (128, 128, 1, 1), ("fold 0", "fold 0", "batched")),
        ((8, 128, 16, 16), (129, 128, 1, 1), ("fold 0", "fold 0", "stream")),
        ((8, 192, 20, 20), (100, 192, 1, 1), ("batched", "batched", "batched")),
        ((8, 192, 20, 20), (101, 192, 1, 1), ("batched", "batched", "stream")),
        # Products on one core, of 56 channels that are summed, but of one sample.
        ((8, 56, 24, 24), (55, 56, 1, 1), ("fold 0", "batched", "batched")),
        ((8, 55, 24, 24), (56, 55, 1, 1), ("batched", "fold 0", "batched")),
        ((1, 64, 24, 24), (64, 64, 1, 1), ("batched", "batched", "batched")),
        ((8, 96, 32, 32), (56, 96, 1, 1), ("fold 0", "fold 0", "batched")),
        ((8, 96, 25, 41), (56, 96, 1, 1), ("batched", "batched", "batched")),
        # Copies of the weight of an eighth of a large image.
        ((72, 128, 16, 32), (128, 128, 1, 1), ("batched", "batched", "batched")),
        ((72, 128, 16, 31), (128, 128, 1, 1), ("fold 0", "fold 0", "batched")),
        # More than 32 MB for fewer channels, but more than 40.
        ((128, 128, 28, 28), (127, 128, 1, 1), ("fold 0", "batched", "batched")),
        ((128, 128, 28, 28), (128, 128, 1, 1), ("batched", "batched", "batched")),
        ((80, 128, 28, 28), (64, 128, 1, 1), ("batched", "batched", "batched")),
        ((128, 128, 28, 28), (40, 128, 1, 1), ("batched", "batched", "batched")),
    ],
)
def test_the_rule_for_one_tap(input, weight, expected):
    """Every threshold from both sides."""
    assert named(layer(input, weight), weight, input[0]) == expected


@pytest.mark.parametrize(
    ("taps", "mapped", "last", "expected"),
    [
        (8, 1, True, ("fold 0", "fold 0", "stream")),
        (9, 1, True, ("blocks 3", "blocks 3", "stream")),
        (11, 1, True, ("blocks 2", "blocks 2", "stream")),
        (12, 1, True, ("blocks 3", "blocks 3", "blocks 3")),
        (11, 1, False, ("blocks 2", "blocks 2", "blocks 2")),
        (11, 2, False, ("fold 0", "fold 0", "fold 0")),
    ],
)
def test_blocks_are_of_a_signal_that_has_no_runs_as_it_is(taps, mapped, last, expected):
    """Of at least 9 taps with channels last, 12 for the gradient of the weight, and not of a gradient for every sample."""
    convolution = replace(layer((16, 64, 3000), (64, 64, taps), channels_last=last), mapped=mapped)
    assert named(convolution, (64, 64, taps), 16) == expected


@pytest.mark.parametrize(("dtype", "batch", "expected"), [("float32", 64, "batched"), ("bfloat16", 64, "stream")])
def test_products_of_16_bit_numbers_are_in_one_piece_only_where_they_are_small(dtype, batch, expected):
    """They are in float32 before they are rounded: here 32 MB, of a U of 7 MB in float32."""
    window = make_window((3, 3), 1, 1, 1, 2)
    convolution = Convolution(window, (32, 32), 1, None, jnp.dtype(dtype), jnp.float32)
    assert choice.rule(convolution, "output", (128, 3, 3, 3), batch)[0] == expected
    assert choice.rule(convolution, "output", (128, 3, 3, 3), batch // 2)[0] == "batched"


@pytest.mark.parametrize(("dtype", "expected"), [("float32", "batched"), ("bfloat16", "fold")])
def test_products_of_one_tap_and_16_bits_are_in_one_piece_only_where_they_are_small(dtype, expected):
    """16 MB in float32, of 56 channels that are summed."""
    window = make_window((1, 1), 1, 0, 1, 2)
    convolution = Convolution(window, (32, 32), 1, None, jnp.dtype(dtype), jnp.float32)
    assert choice.rule(convolution, "output", (128, 56, 1, 1), 33)[0] == expected
    assert choice.rule(convolution, "output", (128, 56, 1, 1), 32)[0] == "batched"
    assert choice.rule(convolution, "output", (128, 55, 1, 1), 33)[0] == "batched"
