"""Thin nets of every architecture, for the tests."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from kinewatch_models.arch import registry
from kinewatch_models.arch.registry import Architecture
from kinewatch_models.arch.window import Shape

SIZE, FRAMES, CLASSES = 64, 8, 3
MEAN, STD = 118.0, 58.0
VIDEOS = Path(__file__).parents[3] / "tests/data"
ARCHITECTURES = list(registry.ARCHITECTURES.values())


def thin(one: Architecture, frames: int = FRAMES, classes: int = CLASSES, seed: int = 0) -> nn.Module:
    """The net over a thin ResNet (or its own thin backbone), with weights that make every part count."""
    torch.manual_seed(seed)
    net = one.build(one.thin_backbone(), Shape(classes, frames, 0.0)).eval()
    with torch.no_grad():
        for name, value in net.named_parameters():
            if "classifier.weight" in name:
                value.normal_(0, 0.5)
            elif name.endswith(("gamma", "beta")):
                value.uniform_(0.5, 1.2) if name.endswith("gamma") else value.normal_(0, 0.1)
    return net


def real(one: Architecture, frames: int = FRAMES) -> list[tuple[Tensor, ...]]:
    """The first frames of each video of the repository, as `inputs`."""
    made = []
    for path in sorted(VIDEOS.glob("*.mp4"))[:4]:
        video, taken = cv2.VideoCapture(str(path)), []
        while len(taken) < frames * one.snippet and (read := video.read())[0]:
            taken.append(cv2.resize(read[1], (SIZE, SIZE))[..., ::-1])
        taken += taken[-1:] * (frames * one.snippet - len(taken))
        clip = torch.from_numpy(np.stack(taken)).permute(0, 3, 1, 2).float().sub(MEAN).div(STD).unsqueeze(0)
        made.append((clip, *inputs(one, 1)[1:]))
    return made


def inputs(one: Architecture, batch: int = 2, frames: int = FRAMES, seed: int = 1) -> tuple[Tensor, ...]:
    """A clip, and boxes where the net wants them."""
    rng = torch.Generator().manual_seed(seed)
    clip = torch.randn(batch, frames * one.snippet, 3, SIZE, SIZE, generator=rng)
    if not one.boxes:
        return (clip,)
    corner = torch.rand(batch, 4, 2, generator=rng) * 0.5
    return clip, torch.cat([corner, corner + 0.3], 2)
