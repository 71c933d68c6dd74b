"""Every architecture that can be compared goes through the training loop, and all of it learns that should."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from kinewatch_models import compare  # noqa: E402
from kinewatch_models.arch.registry import ARCHITECTURES  # noqa: E402
from kinewatch_models.recipe import NetSpec, TrainSpec  # noqa: E402
from kinewatch_models.train import loop  # noqa: E402
from kinewatch_models.train.net import Windows  # noqa: E402

SIZE, FRAMES, CLASSES = 32, 8, 3


@pytest.mark.parametrize("name", [name for name in compare.ALL if name in ARCHITECTURES])
def test_a_step_of_training_moves_every_part(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    row = ARCHITECTURES[name]
    window = FRAMES * row.snippet
    net = Windows(NetSpec(name, "rgb", "resnet-thin", 0, 0.0), CLASSES, window, row.thin_backbone())
    before = {key: value.clone() for key, value in net.named_parameters()}

    def batches(rng: np.random.Generator) -> Iterator[tuple[int, Tensor, Tensor]]:
        allowed = torch.nn.functional.one_hot(torch.arange(6) % CLASSES, CLASSES).bool()
        clips = torch.from_numpy(rng.standard_normal((6, window, 3, SIZE, SIZE), np.float32))
        for _ in range(3):
            yield 3, clips, allowed.unsqueeze(1).expand(-1, window, -1)

    spec = TrainSpec(0, 1, window, 6, SIZE, 1e-2, 1.0, 0.0, 0.1, average=0.5)
    loop.fit(net, batches, spec, tmp_path, lambda _: None, lambda _: None)
    still = [key for key, value in net.named_parameters() if torch.equal(value, before[key])]
    assert len(still) <= 0.1 * len(before), still
    assert (tmp_path / "weights.pt").exists()
