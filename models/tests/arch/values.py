"""Random values for modules, and clips of them, for the tests against equations."""

from __future__ import annotations

import numpy as np
import torch

from kinewatch_models.stream import Floats


def randomised(module: torch.nn.Module, spread: float = 0.5) -> torch.nn.Module:
    """Random weights and running statistics."""
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            value.uniform_(0.5, 2.0, generator=rng) if "variance" in name else value.normal_(0, spread, generator=rng)
    return module.eval()


def frames(count: int, channels: int, side: int) -> torch.Tensor:
    """Random maps ``[count, channels, side, side]``."""
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(1))


def by_clip(x: torch.Tensor, length: int) -> Floats:
    """``[N·T, …]`` as ``[N, T, …]`` in double precision."""
    return x.numpy().astype(np.float64).reshape(-1, length, *x.shape[1:])
