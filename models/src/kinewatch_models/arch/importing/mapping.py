"""What an importer is made of: which tensors of a public checkpoint make a tensor of ours, and how.

Only methods of tensors are used, so that the table of importers can be read without PyTorch.

Channel order. The shift of TSM moves the first eighth of the channels one way and the second eighth the other way.
Here the first comes from the frame before; where it comes from the frame after, as in TSM's own code, the two eighths
of every map that is shifted change places (`past_first`): rows of the layers that make it, columns of those that see
it. A residual stream is one map, so all its layers take part, the skip's and the next stage's too. The net computes
the same numbers. Learnt convolutions over time hold their own direction and need nothing of the kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]
SHIFTED = 8
"""One of so many channels is shifted each way."""
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""ImageNet's, in byte units: what divides by 255 first has 0.485, 0.456, 0.406 and 0.229, 0.224, 0.225."""
SAMPLING = (
    "segments of equal length over the whole clip (of Kinetics often over 64 consecutive frames), a frame of each "
    "(in tests its middle one), in order of time"
)
COUNTERS = {"*.num_batches_tracked": "counts steps of training"}


def _as_it_is(shape: Shape) -> Shape:
    return shape


@dataclass(frozen=True)
class Change:
    """`make` takes tensors of theirs, in order, and returns ours; `shape` tells the shape of theirs from ours."""

    make: Callable[..., Tensor]
    shape: Callable[[Shape], Shape] = _as_it_is


@dataclass(frozen=True)
class Take:
    """One tensor of ours and those of theirs that it is made of."""

    ours: str
    theirs: tuple[str, ...]
    change: Change


@dataclass(frozen=True)
class Importer:
    """Checkpoints of one public code for one architecture on one backbone.

    `code`: the repository its names were read in. `rules` lists what to take for so many segments; `aliases` other
    names that modules have in some files; `unused` the tensors (patterns) that are left out on purpose, with the
    reason. `classifier` is the weight with a row a class; `segments` the default, `segments_at` a weight with so many
    columns a segment, which knows better. What the net was fed: `colours` in this order, bytes less `mean` over `std`,
    the middle `size` x `size` of a picture of a slightly larger short side, `sampling`. `note`: where our net computes
    something else.
    """

    source: str
    architecture: str
    backbone: str
    code: str
    rules: Callable[[int], list[Take]]
    classifier: str
    segments: int = 8
    segments_at: tuple[str, int] | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    unused: Mapping[str, str] = field(default_factory=lambda: COUNTERS)
    colours: str = "rgb"
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    size: int = 224
    sampling: str = SAMPLING
    note: str = ""


SAME = Change(lambda x: x)
OVER_TIME = Change(lambda x: x.squeeze(1).t(), lambda ours: (ours[1], 1, ours[0]))
"""Kernels ``[C, 1, 3]`` of a convolution over time, a channel by itself, to the rows ``[3, C]`` of `TemporalConv`."""
MOMENTS = Change(lambda x: x.movedim(2, 0).flatten(0, 2)[:, None], lambda ours: (1, 1, ours[0], *ours[2:]))
"""A kernel ``[1, 1, 3, k, k]`` over time and picture to one over the picture for each moment, ``[3, 1, k, k]``."""
POINTWISE = Change(lambda x: x.squeeze(2), lambda ours: (*ours, 1))
"""A convolution of width 1 ``[K, D, 1]`` to a linear layer ``[K, D]``."""
COLOURS = Change(lambda x: x.flip(1))
"""Kernels of the first layer, whose colours come in the opposite order here."""
LESS = Change(lambda mean, *biases: mean - sum(biases))
"""What a norm takes away, less the biases of the convolutions before it, which have none here."""


def past_first(*axes: int) -> Change:
    """The first two eighths change places along each of `axes`."""

    def make(x: Tensor) -> Tensor:
        for axis in axes:
            fold = x.shape[axis] // SHIFTED
            order = [*range(fold, 2 * fold), *range(fold), *range(2 * fold, x.shape[axis])]
            x = x.movedim(axis, 0)[order].movedim(0, axis)
        return x

    return Change(make)


def take(ours: str, theirs: str, change: Change = SAME) -> Take:
    """One tensor of one."""
    return Take(ours, (theirs,), change)


def conv_norm(
    ours: str, conv: str, norm: str, weight: Change = SAME, channels: Change = SAME, biased: bool = False
) -> list[Take]:
    """A `ConvNorm` of a convolution, with or without a bias, and the norm behind it; `channels` changes the latter."""
    mean = (f"{norm}.running_mean", f"{conv}.bias")
    return [
        take(f"{ours}.weight", f"{conv}.weight", weight),
        take(f"{ours}.gamma", f"{norm}.weight", channels),
        take(f"{ours}.beta", f"{norm}.bias", channels),
        Take(f"{ours}.mean", mean, LESS) if biased else take(f"{ours}.mean", mean[0], channels),
        take(f"{ours}.variance", f"{norm}.running_var", channels),
    ]


def norm(ours: str, theirs: str, biases: tuple[str, ...] = ()) -> list[Take]:
    """A norm of PyTorch; `biases` were added to what it sees, and are not here."""
    same = [take(f"{ours}.{name}", f"{theirs}.{name}") for name in ("weight", "bias", "running_var")]
    return [*same, Take(f"{ours}.running_mean", (f"{theirs}.running_mean", *biases), LESS)]


def linear(ours: str, theirs: str, weight: Change = SAME) -> list[Take]:
    """A linear layer."""
    return [take(f"{ours}.weight", f"{theirs}.weight", weight), take(f"{ours}.bias", f"{theirs}.bias")]
