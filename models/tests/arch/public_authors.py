"""Stand-ins for the authors' TSM, ACTION, TEA, MSNet and TDN on ResNet-50, and TSM on MobileNetV2."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from public_nets import COLOURS, Maker, Shifted, next_less_this, seen_at, stages
from torch import Tensor, nn


class TimeConv(nn.Module):
    """A convolution over time for each channel by itself."""

    def __init__(self, channels: int, frames: int):
        super().__init__()
        self.frames = frames
        self.conv = nn.Conv1d(channels, channels, 3, padding=1, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.unflatten(0, (-1, self.frames)).permute(0, 3, 4, 2, 1)
        return self.conv(rows.flatten(0, 2)).view(rows.shape).permute(0, 4, 3, 1, 2).flatten(0, 1)


class Unit(nn.Module):
    """A bottleneck in torchvision's names, whose parts may be replaced."""

    def __init__(self, inputs: int, planes: int, stride: int, first: bool, biased: bool = False):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=biased)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=biased)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=biased)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        if first:
            skip = nn.Conv2d(inputs, 4 * planes, 1, stride, bias=biased)
            self.downsample = nn.Sequential(skip, nn.BatchNorm2d(4 * planes))

    def middle(self, x: Tensor) -> Tensor:
        return x

    def spatial(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn2(self.conv2(x)))

    def forward(self, x: Tensor) -> Tensor:
        y = self.middle(torch.relu(self.bn1(self.conv1(x))))
        y = self.bn3(self.conv3(self.spatial(y)))
        return torch.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))


class ResNet(nn.Module):
    """``conv1``, ``bn1``, ``layer1`` to ``layer4``; features of frames ``[M, 3, H, W]``."""

    def __init__(self, make: Maker, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(COLOURS, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        for number, stage in enumerate(stages(make, width), 1):
            setattr(self, f"layer{number}", stage)

    def after(self, stage: int, x: Tensor) -> Tensor:
        return x

    def forward(self, frames: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(self.bn1(self.conv1(frames))), 3, 2, 1)
        for number in range(1, 5):
            x = self.after(number, getattr(self, f"layer{number}")(x))
        return x.mean((2, 3))


class Authors(nn.Module):
    """``base_model`` and ``new_fc``; the mean of the frames' logits."""

    def __init__(self, base_model: nn.Module, frames: int, last: nn.Module, snippet: int = 1):
        super().__init__()
        self.base_model, self.new_fc = base_model, last
        self.frames, self.snippet = frames, snippet

    def forward(self, clip: Tensor) -> Tensor:
        features = self.base_model(clip.reshape(-1, COLOURS * self.snippet, *clip.shape[3:]))
        return self.new_fc(features).unflatten(0, (-1, self.frames)).mean(1)


def authors_tsm(width: int, frames: int, classes: int) -> nn.Module:
    def make(*shape: int) -> nn.Module:
        unit = Unit(*shape)
        unit.conv1 = Shifted(unit.conv1, frames)
        return unit

    return Authors(ResNet(make, width), frames, nn.Linear(32 * width, classes))


class ActionModule(nn.Module):
    def __init__(self, net: nn.Conv2d, frames: int):
        super().__init__()
        channels, narrow = net.in_channels, net.in_channels // 16
        self.net, self.frames = net, frames
        self.action_shift = nn.Conv1d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.action_p1_conv1 = nn.Conv3d(1, 1, 3, padding=1, bias=False)
        self.action_p2_squeeze = nn.Conv2d(channels, narrow, 1, bias=False)
        self.action_p2_conv1 = nn.Conv1d(narrow, narrow, 3, padding=1, bias=False)
        self.action_p2_expand = nn.Conv2d(narrow, channels, 1, bias=False)
        self.action_p3_squeeze = nn.Conv2d(channels, narrow, 1, bias=False)
        self.action_p3_bn1 = nn.BatchNorm2d(narrow)
        self.action_p3_conv1 = nn.Conv2d(narrow, narrow, 3, padding=1, groups=narrow, bias=False)
        self.action_p3_expand = nn.Conv2d(narrow, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        taps = self.action_shift.weight[:, 0].t()[:, :, None, None]
        x = sum(taps[tap] * seen_at(x, self.frames, tap - 1) for tap in range(3))
        volume = x.mean(1).unflatten(0, (-1, self.frames))[:, None]
        pixels = self.action_p1_conv1(volume)[:, 0].flatten(0, 1)[:, None]
        squeezed = self.action_p2_squeeze(x.mean((2, 3), keepdim=True))[..., 0, 0]
        over_time = self.action_p2_conv1(squeezed.unflatten(0, (-1, self.frames)).transpose(1, 2))
        over_time = torch.relu(over_time).transpose(1, 2).flatten(0, 1)[..., None, None]
        u = self.action_p3_bn1(self.action_p3_squeeze(x))
        motion = next_less_this(u, self.action_p3_conv1(u), self.frames).mean((2, 3), keepdim=True)
        gates = pixels, self.action_p2_expand(over_time), self.action_p3_expand(motion)
        return self.net(sum(x * torch.sigmoid(gate) + x for gate in gates))


def authors_action(width: int, frames: int, classes: int) -> nn.Module:
    def make(*shape: int) -> nn.Module:
        unit = Unit(*shape)
        unit.conv1 = ActionModule(unit.conv1, frames)
        return unit

    return Authors(ResNet(make, width), frames, nn.Linear(32 * width, classes))


class MotionExcitation(nn.Module):
    def __init__(self, channels: int, frames: int):
        super().__init__()
        narrow = channels // 16
        self.frames = frames
        self.conv1, self.bn1 = nn.Conv2d(channels, narrow, 1, bias=False), nn.BatchNorm2d(narrow)
        self.conv2 = nn.Conv2d(narrow, narrow, 3, padding=1, groups=narrow, bias=False)
        self.conv3, self.bn3 = nn.Conv2d(narrow, channels, 1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        u = self.bn1(self.conv1(x))
        d = next_less_this(u, self.conv2(u), self.frames).mean((2, 3), keepdim=True)
        return x + x * (torch.sigmoid(self.bn3(self.conv3(d))) - 0.5)


class TeaUnit(Unit):
    def __init__(self, inputs: int, planes: int, stride: int, first: bool, frames: int):
        super().__init__(inputs, planes, stride, first)
        width = math.floor(planes * (26 / 64))
        del self.conv2, self.bn2
        self.conv1, self.bn1 = nn.Conv2d(inputs, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.conv3 = nn.Conv2d(4 * width, 4 * planes, 1, bias=False)
        self.me = MotionExcitation(4 * width, frames)
        self.convs = nn.ModuleList([nn.Conv2d(width, width, 3, stride, 1, bias=False) for _ in range(3)])
        self.bns = nn.ModuleList([nn.BatchNorm2d(width) for _ in range(3)])
        self.shifts = nn.ModuleList([TimeConv(width, frames) for _ in range(4)])
        self.first, self.stride = first, stride

    def middle(self, x: Tensor) -> Tensor:
        return self.me(x)

    def spatial(self, x: Tensor) -> Tensor:
        made = []
        for group, part in enumerate(x.chunk(4, 1)):
            if group == 3:
                last = self.shifts[3](part)
                made.append(F.avg_pool2d(last, 3, self.stride, 1) if self.first else last)
            else:
                entry = part if self.first or not group else part + made[-1]
                made.append(torch.relu(self.bns[group](self.convs[group](self.shifts[group](entry)))))
        return torch.cat(made, 1)


def authors_tea(width: int, frames: int, classes: int) -> nn.Module:
    return Authors(ResNet(lambda *shape: TeaUnit(*shape, frames), width), frames, nn.Linear(32 * width, classes))


class Search(nn.Module):
    """``chnl_reduction`` and ``flow_refinement`` of MotionSqueeze, behind the second stage."""

    RADIUS = 7

    @staticmethod
    def displacement(first: Tensor, second: Tensor) -> Tensor:
        """``[M, 3, H, W]``: along the width, along the height, confidence."""
        radius = Search.RADIUS
        first, second = (x / torch.sqrt((x * x).sum(1, keepdim=True) + 1e-6) for x in (first, second))
        rows, columns = first.shape[2:]
        padded = F.pad(second, (radius,) * 4)
        moves = range(-radius, radius + 1)
        found = [
            (first * padded[:, :, radius + y : radius + y + rows, radius + x : radius + x + columns]).sum(1)
            for y in moves
            for x in moves
        ]
        c = torch.relu(torch.stack(found, 1))
        down, right = (axis.flatten() for axis in torch.meshgrid(*[torch.tensor(moves)] * 2, indexing="ij"))
        down, right = down.float(), right.float()
        best = c.argmax(1)
        far = (down[:, None, None] - down[best][:, None]) ** 2 + (right[:, None, None] - right[best][:, None]) ** 2
        weight = torch.softmax(100 * torch.exp(-far / 50) * c, 1)
        flow = [(weight * axis[:, None, None]).sum(1) / radius for axis in (right, down)]
        return torch.stack([*flow, c.amax(1)], 1)


class MsResNet(ResNet):
    def __init__(self, make: Maker, width: int, frames: int):
        super().__init__(make, width)
        self.frames, channels = frames, 8 * width
        self.bn2 = nn.BatchNorm2d(2 * width)
        reduced = min(64, channels)
        self.chnl_reduction = nn.Sequential(
            nn.Conv2d(channels, reduced, 1, bias=False), nn.BatchNorm2d(reduced), nn.ReLU()
        )
        self.flow_refinement = nn.Module()
        inputs = 3
        for number, (kernel, outputs) in enumerate(((7, 16), (3, 32), (3, 64), (3, channels)), 1):
            layer = nn.Sequential(
                nn.Conv2d(inputs, inputs, kernel, padding=kernel // 2, groups=inputs, bias=False),
                nn.BatchNorm2d(inputs),
                nn.ReLU(),
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            )
            setattr(self.flow_refinement, f"conv{number}", layer)
            inputs = outputs

    def after(self, stage: int, x: Tensor) -> Tensor:
        if stage != 2:
            return x
        clips = self.chnl_reduction(x).unflatten(0, (-1, self.frames))
        maps = [Search.displacement(clips[:, t], clips[:, t + 1]) for t in range(self.frames - 1)]
        motion = torch.stack([*maps, maps[-1]], 1).flatten(0, 1)
        for number in range(1, 5):
            motion = getattr(self.flow_refinement, f"conv{number}")(motion)
        return x + motion


class ShiftedUnit(Unit):
    """MotionSqueeze's: the shift is in the unit, of the frame before first."""

    def __init__(self, inputs: int, planes: int, stride: int, first: bool, frames: int):
        super().__init__(inputs, planes, stride, first)
        self.shift = Shifted(nn.Identity(), frames, after_first=False)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(self.shift(x))))
        y = self.bn3(self.conv3(self.spatial(y)))
        return torch.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))


class Pointwise(nn.Conv1d):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features[..., None])[..., 0]


def authors_msnet(width: int, frames: int, classes: int) -> nn.Module:
    base = MsResNet(lambda *shape: ShiftedUnit(*shape, frames), width, frames)
    return Authors(base, frames, Pointwise(32 * width, classes, 1))


class LongTerm(nn.Module):
    def __init__(self, channels: int, frames: int):
        super().__init__()
        narrow, self.frames = channels // 16, frames
        self.conv1, self.bn1 = nn.Conv2d(channels, narrow, 1, bias=False), nn.BatchNorm2d(narrow)
        self.conv2 = nn.Conv2d(narrow, narrow, 3, padding=1, groups=narrow, bias=False)
        self.conv3, self.bn3 = nn.Conv2d(narrow, channels, 1, bias=False), nn.BatchNorm2d(channels)
        self.conv3_smallscale2 = nn.Conv2d(narrow, narrow, 3, padding=1, bias=False)
        self.bn3_smallscale2 = nn.BatchNorm2d(narrow)
        self.conv3_smallscale4 = nn.Conv2d(narrow, narrow, 3, padding=1, bias=False)
        self.bn3_smallscale4 = nn.BatchNorm2d(narrow)

    def gate(self, d: Tensor) -> Tensor:
        coarse = self.bn3_smallscale2(self.conv3_smallscale2(F.avg_pool2d(d, 2)))
        fine = self.bn3_smallscale4(self.conv3_smallscale4(d))
        return torch.sigmoid(self.bn3(self.conv3((d + F.interpolate(coarse, d.shape[2:]) + fine) / 3))) - 0.5

    def forward(self, x: Tensor) -> Tensor:
        u = self.bn1(self.conv1(x))
        clips, seen = (one.unflatten(0, (-1, self.frames)) for one in (u, self.conv2(u)))
        onward, back = torch.zeros_like(clips), torch.zeros_like(clips)
        for t in range(self.frames - 1):
            onward[:, t] = seen[:, t + 1] - clips[:, t]
            back[:, t + 1] = seen[:, t] - clips[:, t + 1]
        return x + x * (self.gate(onward.flatten(0, 1)) + self.gate(back.flatten(0, 1))) / 2


class TdnUnit(Unit):
    def __init__(self, inputs: int, planes: int, stride: int, first: bool, frames: int):
        super().__init__(inputs, planes, stride, first, biased=True)
        self.mse, self.shift = LongTerm(planes, frames), TimeConv(planes, frames)

    def middle(self, x: Tensor) -> Tensor:
        return self.shift(self.mse(x))


class TdnNet(nn.Module):
    def __init__(self, width: int, frames: int):
        super().__init__()
        self.share = 0.5 if frames == 8 else 0.25

        def make(inputs: int, planes: int, stride: int, first: bool) -> nn.Module:
            if planes == width:
                return Unit(inputs, planes, stride, first, biased=True)
            return TdnUnit(inputs, planes, stride, first, frames)

        self.conv1, self.bn1 = nn.Conv2d(COLOURS, width, 7, 2, 3), nn.BatchNorm2d(width)
        self.conv1_temp = nn.Conv2d(COLOURS, width, 7, 2, 3)
        self.conv1_5 = nn.Sequential(nn.Conv2d(12, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.resnext_layer1 = stages(make, width)[0]
        for number, stage in enumerate(stages(make, width), 1):
            setattr(self, f"layer{number}_bak", stage)

    def fused(self, x: Tensor, difference: Tensor) -> Tensor:
        return (1 - self.share) * x + self.share * F.interpolate(difference, x.shape[2:])

    def forward(self, snippets: Tensor) -> Tensor:
        images = snippets.chunk(5, 1)
        changes = torch.cat([images[at + 1] - images[at] for at in range(4)], 1)
        first = F.max_pool2d(self.conv1_5(F.avg_pool2d(changes, 2)), 3, 2, 1)
        x = F.max_pool2d(torch.relu(self.bn1(self.conv1(images[2]))), 3, 2, 1)
        x = self.fused(self.layer1_bak(self.fused(x, first)), self.resnext_layer1(first))
        return self.layer4_bak(self.layer3_bak(self.layer2_bak(x))).mean((2, 3))


def authors_tdn(width: int, frames: int, classes: int) -> nn.Module:
    return Authors(TdnNet(width, frames), frames, nn.Linear(32 * width, classes), snippet=5)


class Inverted(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, frames: int):
        super().__init__()
        hidden, self.summed = inputs * expansion, stride == 1 and inputs == outputs
        layers: list[nn.Module] = []
        if expansion > 1:
            entry: nn.Module = nn.Conv2d(inputs, hidden, 1, bias=False)
            layers += [Shifted(entry, frames) if self.summed else entry, nn.BatchNorm2d(hidden), nn.ReLU6()]
        layers += [nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False)]
        layers += [nn.BatchNorm2d(hidden), nn.ReLU6(), nn.Conv2d(hidden, outputs, 1, bias=False)]
        self.conv = nn.Sequential(*layers, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.summed else self.conv(x)


class MobileNetV2(nn.Module):
    def __init__(self, frames: int):
        super().__init__()
        layers: list[nn.Module] = [nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6())]
        inputs = 32
        for expansion, outputs, count, stride in (
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ):
            for block in range(count):
                layers.append(Inverted(inputs, outputs, 1 if block else stride, expansion, frames))
                inputs = outputs
        layers.append(nn.Sequential(nn.Conv2d(320, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6()))
        self.features = nn.Sequential(*layers)

    def forward(self, frames: Tensor) -> Tensor:
        return self.features(frames).mean((2, 3))


def authors_tsm_mobilenet(_: int, frames: int, classes: int) -> nn.Module:
    return Authors(MobileNetV2(frames), frames, nn.Linear(1280, classes))
