"""Stand-ins for the authors' ECO, Lite and Full."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from public_nets import COLOURS, FULL
from torch import Tensor, nn

INCEPTION = {
    "3a": (64, 64, 64, 64, 96, 32),
    "3b": (64, 64, 96, 64, 96, 64),
    "3c": (0, 128, 160, 64, 96, 0),
    "4a": (224, 64, 96, 96, 128, 128),
    "4b": (192, 96, 128, 96, 128, 128),
    "4c": (160, 128, 160, 128, 160, 128),
    "4d": (96, 128, 192, 160, 192, 128),
    "4e": (0, 128, 192, 192, 256, 0),
    "5a": (352, 192, 320, 160, 224, 128),
    "5b": (352, 192, 320, 192, 224, 128),
}


class Eco(nn.Module):
    """Pictures are BGR. `full` has the rest of the 2D net."""

    def __init__(self, width: int, frames: int, full: bool):
        super().__init__()
        self.frames, self.full, self.scale = frames, full, FULL // width
        self.layer("conv1_7x7_s2", COLOURS, 64, 7)
        self.layer("conv2_3x3_reduce", self.wide(64), 64, 1)
        self.layer("conv2_3x3", self.wide(64), 192, 3)
        seen = self.wide(192)
        for name, channels in INCEPTION.items():
            if full or name <= "3c":
                seen = self.inception_layers(f"inception_{name}", seen, *channels)
        self.volume_layer("res3a_2", 96, 128, "res3a_bn")
        for name, channels, outputs in (
            ("3b", 128, 128), ("4a", 128, 256), ("4b", 256, 256), ("5a", 256, 512), ("5b", 512, 512)
        ):  # fmt: skip
            self.volume_layer(f"res{name}_1", channels, outputs, f"res{name}_1_bn")
            self.volume_layer(f"res{name}_2", outputs, outputs, f"res{name}_bn")
            if outputs > channels:
                self.volume_layer(f"res{name}_down", channels, outputs)

    def wide(self, channels: int) -> int:
        return max(channels // self.scale, 6)

    def inception_layers(
        self, unit: str, seen: int, one: int, before: int, three: int, before_two: int, two: int, behind: int
    ) -> int:
        """How many channels come out; a unit that halves the picture has no first and no last branch."""
        self.layer(f"{unit}_double_3x3_reduce", seen, before_two, 1)
        self.layer(f"{unit}_double_3x3_1", self.wide(before_two), two, 3)
        if self.full or one:
            self.layer(f"{unit}_3x3_reduce", seen, before, 1)
            self.layer(f"{unit}_3x3", self.wide(before), three, 3)
            self.layer(f"{unit}_double_3x3_2", self.wide(two), two, 3)
        if one:
            self.layer(f"{unit}_1x1", seen, one, 1)
            self.layer(f"{unit}_pool_proj", seen, behind, 1)
        ends = self.wide(one) + self.wide(behind) if one else seen
        return ends + self.wide(three) + self.wide(two)

    def layer(self, name: str, inputs: int, outputs: int, kernel: int) -> None:
        setattr(self, name, nn.Conv2d(inputs, self.wide(outputs), kernel, padding=kernel // 2))
        setattr(self, f"{name}_bn", nn.BatchNorm2d(self.wide(outputs)))

    def volume_layer(self, name: str, inputs: int, outputs: int, norm: str = "") -> None:
        setattr(self, name, nn.Conv3d(self.wide(inputs), self.wide(outputs), 3, padding=1))
        if norm:
            setattr(self, norm, nn.BatchNorm3d(self.wide(outputs)))

    def run(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        conv = getattr(self, name)
        y = F.conv2d(x, conv.weight, conv.bias, stride, conv.padding)
        return torch.relu(getattr(self, f"{name}_bn")(y))

    def inception(self, name: str, x: Tensor) -> Tensor:
        unit, halved = f"inception_{name}", INCEPTION[name][0] == 0
        stride = 2 if halved else 1
        three = self.run(f"{unit}_3x3", self.run(f"{unit}_3x3_reduce", x), stride)
        double = self.run(f"{unit}_double_3x3_1", self.run(f"{unit}_double_3x3_reduce", x))
        double = self.run(f"{unit}_double_3x3_2", double, stride)
        if halved:
            return torch.cat([three, double, F.max_pool2d(x, 3, 2, ceil_mode=True)], 1)
        pooled = F.max_pool2d(x, 3, 1, 1) if name == "5b" else F.avg_pool2d(x, 3, 1, 1)
        return torch.cat([self.run(f"{unit}_1x1", x), three, double, self.run(f"{unit}_pool_proj", pooled)], 1)

    def convolved(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        conv = getattr(self, name)
        return F.conv3d(x, conv.weight, conv.bias, stride, 1)

    def active(self, norm: str, x: Tensor) -> Tensor:
        return torch.relu(getattr(self, norm)(x))

    def volume(self, maps: Tensor) -> Tensor:
        total = self.convolved("res3a_2", maps.unflatten(0, (-1, self.frames)).transpose(1, 2))
        seen = self.active("res3a_bn", total)
        for name in ("3b", "4a", "4b", "5a", "5b"):
            halved = name.endswith("a")
            first = self.active(f"res{name}_1_bn", self.convolved(f"res{name}_1", seen, 2 if halved else 1))
            skip = self.convolved(f"res{name}_down", seen, 2) if halved else total
            total = self.convolved(f"res{name}_2", first) + skip
            seen = self.active(f"res{name}_bn", total)
        return seen.mean((2, 3, 4))

    def forward(self, frames: Tensor) -> Tensor:
        x = F.max_pool2d(self.run("conv1_7x7_s2", frames, 2), 3, 2, ceil_mode=True)
        x = self.run("conv2_3x3", self.run("conv2_3x3_reduce", x))
        x = self.inception("3b", self.inception("3a", F.max_pool2d(x, 3, 2, ceil_mode=True)))
        maps = self.run("inception_3c_double_3x3_1", self.run("inception_3c_double_3x3_reduce", x))
        if not self.full:
            return self.volume(maps)
        for name in INCEPTION:
            if name > "3b":
                x = self.inception(name, x)
        return torch.cat([x.mean((2, 3)).unflatten(0, (-1, self.frames)).mean(1), self.volume(maps)], 1)


class EcoWhole(nn.Module):
    def __init__(self, base_model: Eco, classes: int):
        super().__init__()
        self.base_model = base_model
        joined = base_model.res5b_bn.num_features
        if base_model.full:
            joined += sum(map(base_model.wide, (352, 320, 224, 128)))
        self.new_fc = nn.Linear(joined, classes)

    def forward(self, clip: Tensor) -> Tensor:
        return self.new_fc(self.base_model(clip.flatten(0, 1)))


def authors_eco_lite(width: int, frames: int, classes: int) -> nn.Module:
    return EcoWhole(Eco(width, frames, full=False), classes)


def authors_eco_full(width: int, frames: int, classes: int) -> nn.Module:
    return EcoWhole(Eco(width, frames, full=True), classes)
