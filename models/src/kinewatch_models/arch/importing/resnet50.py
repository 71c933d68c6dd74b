"""The ResNet-50 that most importers share, under the names of torchvision or of mmcv's `ConvModule`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kinewatch_models.arch.importing.mapping import SAME, Change, Take, conv_norm, past_first

BLOCKS = (3, 4, 6, 3)


@dataclass(frozen=True)
class Names:
    """What a code calls layers: `{}` stands for the number of a stage or of a convolution, from 1.

    `inside` leads from a unit to what was wrapped in it, `wrapped` from its first convolution to the one inside.
    """

    root: str
    conv: str
    norm: str
    down: tuple[str, str]
    stage: str = "layer{}"
    inside: str = ""
    wrapped: str = ""

    def unit(self, stage: int, block: int) -> str:
        """A residual unit, both counted from 0."""
        return f"{self.root}.{self.stage.format(stage + 1)}.{block}"


TORCHVISION = Names("base_model", "conv{}", "bn{}", ("downsample.0", "downsample.1"))
MMCV = Names("backbone", "conv{}.conv", "conv{}.bn", ("downsample.conv", "downsample.bn"))


def units() -> Iterator[tuple[int, int]]:
    """Stage and place of every residual unit."""
    for stage, count in enumerate(BLOCKS):
        for block in range(count):
            yield stage, block


def trunk(names: Names, swapped: bool = False, biased: bool = False, spatial: bool = True) -> list[Take]:
    """Stem and stages; `swapped`: shifted with the frame after first; without `spatial`, no convolution of 3x3."""
    first = names.root
    outputs = _along(swapped, 0)
    made = conv_norm(
        "stem.0", f"{first}.{names.conv.format(1)}", f"{first}.{names.norm.format(1)}", outputs, outputs, biased
    )
    for stage, block in units():
        made += unit(f"stages.{stage}.{block}", names, names.unit(stage, block), block == 0, swapped, biased, spatial)
    return made


def unit(
    ours: str,
    names: Names,
    theirs: str,
    first: bool,
    swapped: bool = False,
    biased: bool = False,
    spatial: bool = True,
) -> list[Take]:
    """A residual unit; the `first` of a stage has a convolution in its skip."""
    inner = f"{theirs}{names.inside}"

    def layer(name: str, number: int, wrapped: str, *axes: int) -> list[Take]:
        conv, norm = names.conv.format(number) + wrapped, names.norm.format(number)
        channels = _along(swapped and 0 in axes, 0)
        places = f"{ours}.{name}", f"{inner}.{conv}", f"{inner}.{norm}"
        return conv_norm(*places, _along(swapped, *axes), channels, biased)

    made = layer("expand", 1, names.wrapped, 1) + layer("project", 3, "", 0)
    if spatial:
        made += layer("spatial", 2, "")
    if first:
        conv, norm = (f"{inner}.{name}" for name in names.down)
        made += conv_norm(f"{ours}.skip", conv, norm, _along(swapped, 0, 1), _along(swapped, 0), biased)
    return made


def _along(swapped: bool, *axes: int) -> Change:
    return past_first(*axes) if swapped and axes else SAME
