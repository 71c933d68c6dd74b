"""Stand-ins for the nets whose checkpoints can be imported: the names and shapes of the public code, and its maths.

Written apart from the nets of the package, frame by frame where time is concerned. Widths may be thin; those of the
public nets are `FULL`. `net(clip)` takes what the public net was fed and gives logits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

FULL, BLOCKS = 64, (3, 4, 6, 3)
COLOURS = 3


def randomised(net: nn.Module, seed: int = 0) -> nn.Module:
    """The net in evaluation, every weight and statistic of it random."""
    torch.manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, 0, 0.1)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.num_batches_tracked.fill_(7)
    for module in net.modules():
        if hasattr(module, "action_shift"):
            module.net.weight.data.div_(4.5)  # by so much the gates of ACTION enlarge what the convolution sees
    return net.eval()


def seen_at(x: Tensor, frames: int, ahead: int) -> Tensor:
    """``y[t] = x[t + ahead]``, zero beyond the clip."""
    clips = x.unflatten(0, (-1, frames))
    made = torch.zeros_like(clips)
    for t in range(frames):
        if 0 <= t + ahead < frames:
            made[:, t] = clips[:, t + ahead]
    return made.flatten(0, 1)


def next_less_this(u: Tensor, transformed: Tensor, frames: int) -> Tensor:
    """``d[t] = transformed[t+1] - u[t]``, zero for the last frame."""
    clips, seen = u.unflatten(0, (-1, frames)), transformed.unflatten(0, (-1, frames))
    made = torch.zeros_like(clips)
    for t in range(frames - 1):
        made[:, t] = seen[:, t + 1] - clips[:, t]
    return made.flatten(0, 1)


class Shifted(nn.Module):
    """TSM around a convolution; `after_first`: whether the first eighth is of the frame after."""

    def __init__(self, net: nn.Module, frames: int, after_first: bool = True):
        super().__init__()
        self.net, self.frames, self.ahead = net, frames, 1 if after_first else -1

    def forward(self, x: Tensor) -> Tensor:
        fold = x.shape[1] // 8
        first, second = seen_at(x, self.frames, self.ahead), seen_at(x, self.frames, -self.ahead)
        return self.net(torch.cat([first[:, :fold], second[:, fold : 2 * fold], x[:, 2 * fold :]], 1))


Maker = Callable[[int, int, int, bool], nn.Module]


def stages(make: Maker, width: int) -> list[nn.Sequential]:
    """Units of a ResNet-50; four times as many channels come out as are inside."""
    made, inputs = [], width
    for stage, count in enumerate(BLOCKS):
        units = []
        for block in range(count):
            units.append(make(inputs, width << stage, 2 if stage and not block else 1, block == 0))
            inputs = 4 * width << stage
        made.append(nn.Sequential(*units))
    return made
