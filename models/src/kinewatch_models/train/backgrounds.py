"""People in other rooms: what differs from the background of a fixed camera, put before another background.

A net that sees pictures learns the few rooms of its training set: falls happen here, daily life there. Before
backgrounds that all clips share, only the people are left to learn from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from kinewatch_models.capture import Frames
from kinewatch_models.catalogue import Clip

FRAMES_OF_A_MEDIAN = 24
NOISE, CERTAIN = 10.0, 26.0
"""Grey levels: a change up to the first is the camera's noise, from the second on it is somebody."""
LEAST_SHARE = 0.3
"""Of what a clip shows of somebody at most: who lies far away or end on takes less of the picture."""
SMALLEST_CROP = 0.6


@dataclass(frozen=True)
class Scene:
    """What a fixed camera sees of a place, and of somebody in it.

    `background` is ``[H, W, 3]``; `somebody` the share of the picture that differs from it where that is most.
    """

    background: Frames
    somebody: float


@lru_cache(maxsize=1024)
def scene(clip: Clip, cache: Path, size: int) -> Scene:
    """The scene of a clip: its median picture, without those who move.

    Where spans are annotated, the median in which least is kept of who is there before them or after the last begins:
    it is taken over the whole clip, over what comes before, or over as much of before as of after.
    """
    frames, times = clip.frames(cache, size)
    whole = float(times[-1])

    def among(begin: float, end: float, count: int = FRAMES_OF_A_MEDIAN) -> Frames:
        wanted = np.linspace(begin, end, count)
        return np.array(frames[np.searchsorted(times, wanted).clip(0, len(times) - 1)])

    def median(*some: Frames) -> Frames:
        return np.median(np.concatenate(some), axis=0).astype(np.uint8)

    background = median(among(0, whole))
    if clip.spans:
        first, last = clip.spans[0].start, clip.spans[-1].start
        third = FRAMES_OF_A_MEDIAN // 3
        before, after = among(0, first, third), among(last, whole, third)
        found = [background, median(before), median(before, among(first, last, third // 2), after)]
        background = max(found, key=lambda one: min(_shares(before, one).mean(), _shares(after, one).mean()))
    return Scene(background, float(_shares(among(0, whole), background).max()))


def _shares(frames: Frames, background: Frames) -> npt.NDArray[np.float32]:
    """How much of each picture is somebody, ``[T]``."""
    shares: npt.NDArray[np.float32] = _opacity(_planes(frames), _planes(background[None])).mean((1, 2, 3)).numpy()
    return shares


def elsewhere(
    frames: Frames, own: Scene, other: Scene, acting: npt.NDArray[np.bool_], rng: np.random.Generator
) -> Frames:
    """The people of `frames` ``[T, H, W, 3]`` before a random part of the background of `other` instead of `own`.

    Unchanged where too little of somebody would be left in frames that show an action (`acting`, ``[T]``): who lies
    for most of a clip is part of its median.
    """
    seen = _planes(frames)
    opacity = _opacity(seen, _planes(own.background[None]))
    shares = opacity.mean((1, 2, 3)).numpy()
    if acting.any() and (own.somebody == 0 or shares[acting].min() < LEAST_SHARE * own.somebody):
        return frames
    mixed = opacity * seen + (1 - opacity) * _part(_planes(other.background[None]), rng)
    return mixed.permute(0, 2, 3, 1).round().clamp(0, 255).byte().numpy()


def _planes(frames: Frames) -> Tensor:
    return torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2).float()


def _opacity(seen: Tensor, own: Tensor) -> Tensor:
    """``[T, 1, H, W]``: 1 on people, 0 on the background, soft between them."""
    change = F.avg_pool2d((seen - own).abs().amax(1, keepdim=True), 5, 1, 2)
    sure = ((change - NOISE) / (CERTAIN - NOISE)).clamp(0, 1)
    return F.avg_pool2d(sure, 3, 1, 1)


def _part(picture: Tensor, rng: np.random.Generator) -> Tensor:
    """A random part of ``[1, 3, H, W]`` at full size, perhaps mirrored."""
    height, width = picture.shape[2:]
    share = float(rng.uniform(SMALLEST_CROP, 1))
    high, wide = int(height * share), int(width * share)
    top, left = int(rng.integers(height - high + 1)), int(rng.integers(width - wide + 1))
    part = picture[:, :, top : top + high, left : left + wide]
    if rng.random() < 0.5:
        part = part.flip(3)
    return F.interpolate(part, (height, width), mode="bilinear", align_corners=False)


def any_clip(clips: Sequence[Clip], rng: np.random.Generator) -> Clip:
    """One of `clips`, each data set as likely as the others."""
    names = sorted({clip.dataset for clip in clips})
    name = names[int(rng.integers(len(names)))]
    some = [clip for clip in clips if clip.dataset == name]
    return some[int(rng.integers(len(some)))]
