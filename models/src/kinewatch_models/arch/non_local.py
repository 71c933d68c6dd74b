"""Non-local blocks (Wang et al. 2018, arXiv 1711.07971): every place of a clip sees every other.

With x of C channels at P places in time and picture, and x' of P' places, the maxima of x over 1x2x2:

- ``theta = Wt x + bt``, ``phi = Wp x' + bp`` and ``g = Wg x' + bg``, kernels 1x1x1, C to C/2;
- ``a[p, q] = softmax over q of (theta[p] · phi[q]) (C/2)^-0.5``, ``y[p] = Σ_q a[p, q] g[q]``;
- ``z = x + norm(Wz y)``, Wz of size 1x1x1, back to C. The norm begins with zero gains: the block as identity.

They stand behind the second and fourth units of the second stage and behind the second, fourth and sixth of the third
(the authors' five blocks for 50 layers): every other unit, where there are fewer. The scale is that of the authors'
code; weights of nets that lack it do not fit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kinewatch_models.arch.i3d import Conv3dNorm, I3d, Unit

POOL = 2
STAGES = slice(1, 3)


def insert(trunk: I3d) -> None:
    """A block behind every other unit of the middle stages."""
    for stage in trunk.stages[STAGES]:
        for unit in list(stage.children())[1::2]:
            assert isinstance(unit, Unit)
            unit.after = NonLocal(unit.outputs)


class NonLocal(nn.Module):
    """Maps ``[N, C, T, H, W]`` in and out."""

    def __init__(self, channels: int):
        super().__init__()
        self.embedded = channels // 2
        self.pool = nn.MaxPool3d((1, POOL, POOL))
        self.theta, self.phi, self.g = (_embedding(channels, self.embedded) for _ in range(3))
        self.restore = Conv3dNorm(self.embedded, channels, (1, 1, 1), act="")
        nn.init.zeros_(self.restore.gamma)

    def forward(self, x: Tensor) -> Tensor:
        """The sum of the map and what its places saw."""
        seen = self.pool(x)
        query, key, value = (self._flat(y) for y in (self.theta(x), self.phi(seen), self.g(seen)))
        attention = torch.softmax((query * self.embedded**-0.5).transpose(1, 2) @ key, 2)
        mixed = value @ attention.transpose(1, 2)
        restored: Tensor = self.restore(mixed.reshape(-1, self.embedded, *map(int, x.shape[2:])))
        return x + restored

    def _flat(self, x: Tensor) -> Tensor:
        return x.reshape(-1, self.embedded, math.prod(map(int, x.shape[2:])))


def _embedding(channels: int, outputs: int) -> nn.Conv3d:
    conv = nn.Conv3d(channels, outputs, 1)
    assert conv.bias is not None
    nn.init.normal_(conv.weight, 0, 0.01)
    nn.init.zeros_(conv.bias)
    return conv
