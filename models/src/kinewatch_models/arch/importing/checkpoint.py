"""Reading a checkpoint: tensors by name, without running anything that lies in the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from kinewatch_models.error import ToolError

PARALLEL = "module."
"""What `DataParallel` puts before every name."""


class CheckpointError(ToolError):
    """The file cannot be imported; the message names it and what is wrong."""


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict, bare or in ``state_dict``, without the prefix of `DataParallel`."""
    made = _loaded(path)
    table = made.get("state_dict", made) if isinstance(made, Mapping) else {}
    tensors = {name: value for name, value in dict(table).items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path} holds no state dict: tensors by name, or a table with one as `state_dict`")
    if all(name.startswith(PARALLEL) for name in tensors):
        return {name.removeprefix(PARALLEL): value for name, value in tensors.items()}
    return tensors


def _loaded(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # foreign bytes fail in many ways
        if "Unsupported global" in str(error):
            raise CheckpointError(
                f"{path} holds more than tensors, which may run code: where you trust it, save its state dict alone "
                f"and import that: torch.save(torch.load(PATH, weights_only=False)['state_dict'], OTHER)"
            ) from None
        raise CheckpointError(f"{path} is not a PyTorch checkpoint") from None
