"""The layer that every net here is made of, and what it needs to be exported as one operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOMENTUM = 0.1
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu6": lambda x: F.hardtanh(x, 0.0, 6.0),
    "relu": F.relu,
    "": lambda x: x,
}


class ConvNorm(nn.Module):
    """Convolution, batch-norm and an activation; in evaluation the norm is folded into the convolution.

    Batch-norm statistics stay as they are loaded (clips of one batch are far too alike to re-estimate those of
    ImageNet) unless `live`, for layers that begin untrained. Padding is that of TensorFlow ("same": more at the end
    where it does not divide) unless `even`, which pads both ends by half the kernel, as PyTorch's nets do.
    """

    mean: Tensor
    variance: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        act: str = "relu6",
        *,
        live: bool = False,
        even: bool = False,
        epsilon: float = 1e-3,
    ):
        super().__init__()
        self.kernel, self.stride, self.groups, self.act = kernel, stride, groups, act
        self.inputs, self.outputs = inputs, outputs
        self.live, self.even, self.epsilon = live, even, epsilon
        self.weight = nn.Parameter(torch.empty(outputs, inputs // groups, kernel, kernel))
        self.gamma = nn.Parameter(torch.ones(outputs))
        self.beta = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("mean", torch.zeros(outputs))
        self.register_buffer("variance", torch.ones(outputs))
        nn.init.kaiming_normal_(self.weight)
        self.fixed: tuple[Tensor, Tensor] | None = None

    def fix(self) -> None:
        """Stop training this layer: keep the folded convolution, which exports as one operator."""
        weight, bias = self.folded()
        self.fixed = (weight.detach(), bias.detach())

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the equivalent plain convolution."""
        if self.fixed is not None:
            return self.fixed
        scale = self.gamma / torch.sqrt(self.variance + self.epsilon)
        return self.weight * scale[:, None, None, None], self.beta - self.mean * scale

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` in and out; output side is the input side over the stride, rounded up."""
        if self.live and self.training:
            y = self._convolved(x, self.weight, None)
            y = F.batch_norm(y, self.mean, self.variance, self.gamma, self.beta, True, MOMENTUM, self.epsilon)
        else:
            y = self._convolved(x, *self.folded())
        return ACTIVATIONS[self.act](y)

    def _convolved(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.even:
            return F.conv2d(x, weight, bias, self.stride, self.kernel // 2, 1, self.groups)
        left, right = _same(int(x.shape[-1]), self.kernel, self.stride)
        top, bottom = _same(int(x.shape[-2]), self.kernel, self.stride)
        if (left, top) == (right, bottom):
            return F.conv2d(x, weight, bias, self.stride, (top, left), 1, self.groups)
        if torch.onnx.is_in_onnx_export():
            pads = (left, right, top, bottom)
            padded: Tensor = _UnevenConv.apply(x, weight, bias, self.stride, pads, self.groups)
            return padded
        return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, self.stride, 0, 1, self.groups)


class _UnevenConv(torch.autograd.Function):
    """A convolution padded more at one end, exported as one operator: a pad of its own costs a pass over the map and,
    in int8, a change to float and back."""

    @staticmethod
    def forward(  # type: ignore[override]
        context: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int, pads: tuple[int, ...], groups: int
    ) -> Tensor:
        return F.conv2d(F.pad(x, pads), weight, bias, stride, 0, 1, groups)

    @staticmethod
    def symbolic(graph: Any, x: Any, weight: Any, bias: Any, stride: int, pads: tuple[int, ...], groups: int) -> Any:
        left, right, top, bottom = pads
        ends = [top, left, bottom, right]
        return graph.op("Conv", x, weight, bias, strides_i=[stride, stride], pads_i=ends, group_i=groups)


def _same(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's padding before and after a side, so that the output is the side over the stride, rounded up."""
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2
