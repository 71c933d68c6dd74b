"""The table of architectures: what builds each, how the agent runs it, and what to know before choosing it.

Needs no PyTorch until something is built.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from kinewatch_models.arch.window import Shape

PICTURES = {
    "efficientnet-lite0": "backbone:efficientnet_lite0",
    "mobilenetv2": "backbone:mobilenet_v2",
    "resnet18": "resnet:resnet18",
    "resnet50": "resnet:resnet50",
    "resnet-small": "resnet:resnet_small",
    "resnet-thin": "resnet:resnet_thin",
}
"""2D backbones that any architecture may be put on: what makes each, as ``module:function`` of this package."""
BACKBONES = {
    **PICTURES,
    "bninception": "bninception:bninception",
    "bninception-small": "bninception:bninception_small",
    "i3d-resnet50": "i3d:i3d_resnet50",
}
SMALL = ("resnet-small", "bninception-small")
"""Those that small sets of clips train from nothing, in minutes."""
PRETRAINED = ("efficientnet-lite0",)
"""Those that come with ImageNet weights."""


@dataclass(frozen=True)
class Published:
    """A figure of the literature, in words, and where it was read. Only what was read there, nothing remembered."""

    figure: str
    source: str
    url: str


@dataclass(frozen=True)
class Architecture:
    """One row.

    `builder` and `thin` (a backbone that makes it small enough to test) are named as ``module:function``. `plan` is
    that of the agent: ``clip`` sees each window anew, ``cached`` keeps features of frames, ``online`` keeps states.
    `ordered`: whether the order of frames matters to it. `snippet`: consecutive frames of a segment. `boxes`: whether
    it takes ``boxes [N, R, 4]`` beside the clip. `float_parts`: parts of node names that stay in float in int8; `int8`
    says why there is none, `tract` which operator it lacks; both are empty where it works. `published`: figures of its
    authors, or of those who trained it anew.
    """

    name: str
    builder: str
    plan: str
    adds: str
    reference: str
    ordered: bool = True
    snippet: int = 1
    backbones: tuple[str, ...] = tuple(PICTURES)
    thin: str = PICTURES["resnet-thin"]
    float_parts: tuple[str, ...] = ()
    int8: str = ""
    tract: str = ""
    boxes: bool = False
    published: tuple[Published, ...] = ()

    def build(self, trunk: Any, shape: Shape) -> nn.Module:
        """The net over a backbone, which it takes over."""
        net: nn.Module = _function(self.builder)(trunk, shape)
        return net

    def thin_backbone(self) -> Any:
        """A new thin backbone, untrained."""
        return _function(self.thin)()


TSM_README = ("README of TSM", "https://github.com/mit-han-lab/temporal-shift-module")
MMACTION2 = "https://github.com/open-mmlab/mmaction2/blob"
COMPARED = ("a later paper's table", "https://github.com/ty-97/SDA")

ONLINE = Architecture(
    "tsm-online",
    "",
    "online",
    "channels shifted from the frame before, which are kept as states",
    "Lin et al. 2019, arXiv 1811.08383",
    published=(
        Published(
            "13 ms a frame on a Jetson Nano, 35 ms on a Galaxy Note8", "abstract", "https://arxiv.org/abs/1811.08383"
        ),
    ),
)
"""Online TSM, which judges frames: it has no builder here, `train.net` makes it. All others judge windows."""

ARCHITECTURES = {
    one.name: one
    for one in (
        Architecture(
            "tsn",
            "tsn:build",
            "cached",
            "mean over frames",
            "Wang et al. 2016, arXiv 1608.00859",
            ordered=False,
            published=(
                Published("Kinetics-400 68.8 (8 frames)", *TSM_README),
                Published("Something V1 19.7 (8 frames)", *COMPARED),
            ),
        ),
        Architecture(
            "tsm",
            "tsm:build",
            "clip",
            "channels shifted in time",
            "Lin et al. 2019, arXiv 1811.08383",
            published=(Published("Something V1 45.6, Kinetics-400 71.2 (8 frames)", *TSM_README),),
        ),
        Architecture(
            "tanet",
            "tanet:build",
            "clip",
            "a convolution over time whose weights depend on the window",
            "Liu et al. 2021, arXiv 2005.06803",
            float_parts=("/kernel/", "/importance/"),
            published=(
                Published(
                    "Something V1 47.3, Kinetics-400 76.3 (8 frames; the latter sampled densely)",
                    "mmaction2",
                    f"{MMACTION2}/40cb52e57ffbaca4cbdad3de3de47f43aace65ab/configs/recognition/tanet/README.md",
                ),
            ),
        ),
        Architecture(
            "stm",
            "stm:build",
            "clip",
            "space-time and motion features beside each other, in place of a convolution",
            "Jiang et al. 2019, arXiv 1908.02486",
            float_parts=("/motion/",),
            published=(
                Published(
                    "Something V1 50.7, Jester 96.7 (16 frames)",
                    "Papers with Code",
                    "https://paperswithcode.com/paper/stm-spatiotemporal-and-motion-encoding-for",
                ),
            ),
        ),
        Architecture(
            "tea",
            "tea:build",
            "clip",
            "channels that move excited, and groups of channels that see ever more time",
            "Li et al. 2020, arXiv 2004.01398",
            float_parts=("/motion/", "/gate/"),
            published=(Published("Something V1 51.7 (8 frames, 30 views)", *COMPARED),),
        ),
        Architecture(
            "action",
            "action:build",
            "clip",
            "gates of pixels, channels and motion",
            "Wang et al. 2021, arXiv 2103.07372",
            float_parts=("/pixels/", "/channels/", "/motion/"),
        ),
        Architecture(
            "teinet",
            "teinet:build",
            "clip",
            "channels that change enhanced, then mixed in time",
            "Liu et al. 2020, arXiv 1911.09435",
            float_parts=("/gate/",),
            published=(Published("Something V1 47.4 (8 frames)", *COMPARED),),
        ),
        Architecture(
            "msnet",
            "msnet:build",
            "clip",
            "where each place of a frame went in the next, as features",
            "Kwon et al. 2020, arXiv 2007.09933",
            float_parts=("/between.",),
            published=(
                Published(
                    "Something V1 52.1, Kinetics-400 76.4 (16 frames)",
                    "a copy of Papers with Code",
                    "https://paperswithcode2.com/paper/156071",
                ),
            ),
        ),
        Architecture(
            "tdn",
            "tdn:build",
            "clip",
            "differences of neighbouring frames and of segments",
            "Wang et al. 2021, arXiv 2012.10071",
            snippet=5,
            float_parts=("/difference_stem/difference_stem.0/", "/gate/"),
            published=(
                Published(
                    "Something V1 52.3 (8 segments), Kinetics-400 76.6 (8 segments, 30 views)",
                    "README of TDN",
                    "https://github.com/MCG-NJU/TDN",
                ),
            ),
        ),
        Architecture(
            "two-stream",
            "two_stream:build",
            "clip",
            "a second net that sees the optical flow of the window (TV-L1, inside the graph)",
            "Simonyan and Zisserman 2014, arXiv 1406.2199",
            thin="two_stream:thin",
            float_parts=("/motion/",),
            published=(
                Published(
                    "UCF101 88.0 (mean of its three splits)",
                    "a copy of Papers with Code",
                    "https://beta.hyper.ai/en/papers/1406.2199",
                ),
            ),
        ),
        Architecture(
            "two-stream-difference",
            "two_stream:build_difference",
            "clip",
            "a second net that sees the differences of the window's frames",
            "Wang et al. 2016, arXiv 1608.00859",
            thin="two_stream:thin",
            float_parts=("/motion/",),
        ),
        Architecture(
            "trn",
            "trn:build",
            "cached",
            "a relation over all frames",
            "Zhou et al. 2018, arXiv 1711.08496",
            thin="trn:thin",
        ),
        Architecture(
            "trn-multiscale",
            "trn:build_multiscale",
            "cached",
            "relations over 2, 3, ... and all frames",
            "Zhou et al. 2018, arXiv 1711.08496",
            thin="trn:thin",
            published=(
                Published(
                    "Something V1 31.6 (8 frames)",
                    "mmaction2",
                    f"{MMACTION2}/2b7a99d2ee518fedca3e070e4fdafa405f9906bd/configs/recognition/trn/README.md",
                ),
            ),
        ),
        Architecture(
            "eco-lite",
            "eco:build_lite",
            "cached",
            "a 3D net over the maps of all frames",
            "Zolfaghari et al. 2018, arXiv 1804.09066",
            backbones=("bninception", "bninception-small"),
            thin="bninception:bninception_thin",
            published=(
                Published(
                    "Something V1 46.4 (several Lite nets together)",
                    "Papers with Code",
                    "https://paperswithcode.com/paper/eco-efficient-convolutional-network-for",
                ),
            ),
        ),
        Architecture(
            "eco-full",
            "eco:build_full",
            "cached",
            "a 3D net over the maps of all frames, and the rest of the 2D net",
            "Zolfaghari et al. 2018, arXiv 1804.09066",
            backbones=("bninception", "bninception-small"),
            thin="bninception:bninception_thin",
        ),
        Architecture(
            "nl-i3d-gcn",
            "region_graph:build",
            "clip",
            "non-local blocks in a 3D net, and a graph of regions over time",
            "Wang and Gupta 2018, arXiv 1806.01810",
            backbones=("i3d-resnet50",),
            thin="i3d:i3d_thin",
            float_parts=("/after/", "/regions/", "/graph/"),
            int8="ONNX Runtime runs its 3D convolutions slower in int8 than in float",
            boxes=True,
            published=(
                Published(
                    "Something V1 46.1, Charades 39.7 mAP",
                    "a copy of Papers with Code",
                    "https://paperswithcode2.com/paper/1430",
                ),
            ),
        ),
    )
}


def backbone(name: str, *arguments: Any) -> Any:
    """A new backbone."""
    return _function(BACKBONES[name])(*arguments)


def _function(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f"kinewatch_models.arch.{module}"), name)
