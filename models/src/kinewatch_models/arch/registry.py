"""The table of architectures: what builds each, how the agent runs it, and what to know before choosing it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from kinewatch_models.arch import backbone, resnet, tanet, tsm, tsn
from kinewatch_models.arch.backbone import Trunk
from kinewatch_models.arch.window import Shape

BACKBONES: dict[str, Callable[[], Trunk]] = {
    "efficientnet-lite0": backbone.efficientnet_lite0,
    "mobilenetv2": lambda: backbone.mobilenet_v2(pretrained=False),
    "resnet18": resnet.resnet18,
    "resnet50": resnet.resnet50,
    "resnet-thin": resnet.resnet_thin,
}


@dataclass(frozen=True)
class Architecture:
    """One row.

    `plan` is that of the agent: ``clip`` sees each window anew, ``cached`` keeps features of frames, ``online`` keeps
    states. `snippet`: consecutive frames of a segment. `float_parts`: parts of node names that stay in float in int8;
    `int8` says why there is none, `tract` which operator it lacks; both are empty where it works.
    """

    name: str
    build: Callable[[Trunk, Shape], nn.Module]
    plan: str
    adds: str
    reference: str
    ordered: bool = True
    """Whether the order of frames matters to it."""
    snippet: int = 1
    backbones: tuple[str, ...] = tuple(BACKBONES)
    thin: Callable[[], Trunk] = resnet.resnet_thin
    """A backbone that makes it small enough to test."""
    float_parts: tuple[str, ...] = ()
    int8: str = ""
    tract: str = ""
    boxes: bool = False
    """Whether it takes ``boxes [N, R, 4]`` beside the clip."""


ARCHITECTURES = {
    one.name: one
    for one in (
        Architecture(
            "tsn", tsn.build, "cached", "mean over frames", "Wang et al. 2016, arXiv 1608.00859", ordered=False
        ),
        Architecture("tsm", tsm.build, "clip", "channels shifted in time", "Lin et al. 2019, arXiv 1811.08383"),
        Architecture(
            "tanet",
            tanet.build,
            "clip",
            "a convolution over time whose weights depend on the window",
            "Liu et al. 2021, arXiv 2005.06803",
            float_parts=("/kernel/", "/importance/"),
        ),
    )
}
