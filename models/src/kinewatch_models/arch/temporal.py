"""What temporal modules are made of: frames moved in time, and sums of them.

Frames come flattened, ``[N·T, C, H, W]`` with `frames` = T known in advance. Everything is written with slices, joins
and sums: no runtime lacks these, and a convolution over time becomes three multiplications instead of two transposes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def earlier(x: Tensor, frames: int) -> Tensor:
    """``y[t] = x[t-1]``, zero for the first frame."""
    clips = x.view(-1, frames, *x.shape[1:])
    return torch.cat([clips[:, :1] * 0.0, clips[:, :-1]], 1).flatten(0, 1)


def later(x: Tensor, frames: int) -> Tensor:
    """``y[t] = x[t+1]``, zero for the last frame."""
    clips = x.view(-1, frames, *x.shape[1:])
    return torch.cat([clips[:, 1:], clips[:, :1] * 0.0], 1).flatten(0, 1)


def to_next(u: Tensor, frames: int, transform: Callable[[Tensor], Tensor]) -> Tensor:
    """``d[t] = transform(u)[t+1] - u[t]``, zero for the last frame: how the next frame differs."""
    clips, seen = (x.view(-1, frames, *x.shape[1:]) for x in (u, transform(u)))
    return torch.cat([seen[:, 1:] - clips[:, :-1], clips[:, :1] * 0.0], 1).flatten(0, 1)


def to_previous(u: Tensor, frames: int, transform: Callable[[Tensor], Tensor]) -> Tensor:
    """``d[t] = transform(u)[t-1] - u[t]``, zero for the first frame."""
    clips, seen = (x.view(-1, frames, *x.shape[1:]) for x in (u, transform(u)))
    return torch.cat([clips[:, :1] * 0.0, seen[:, :-1] - clips[:, 1:]], 1).flatten(0, 1)


class TemporalConv(nn.Module):
    """A convolution over time of width 3 for each channel by itself: ``y[t] = a·x[t-1] + b·x[t] + c·x[t+1]``.

    `weight` is ``[3, C]``; rows in the order of the frames. The first `past` channels begin as those of the frame
    before, the next `future` as those of the frame after, the others as they are.
    """

    def __init__(self, channels: int, frames: int, past: int = 0, future: int = 0):
        super().__init__()
        self.frames = frames
        weight = torch.zeros(3, channels)
        weight[0, :past] = 1.0
        weight[2, past : past + future] = 1.0
        weight[1, past + future :] = 1.0
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        """``[N·T, C, H, W]`` in and out."""
        before, now, after = self.weight[:, None, :, None, None].unbind(0)
        return before * earlier(x, self.frames) + now * x + after * later(x, self.frames)
