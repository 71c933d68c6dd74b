"""Only the order of frames tells squares that go left from those that go right: temporal nets learn it, TSN cannot."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nets import ARCHITECTURES  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from kinewatch_models.arch.registry import Architecture  # noqa: E402
from kinewatch_models.arch.window import Shape  # noqa: E402

SIZE, FRAMES, SIDE = 32, 8, 8
STEPS, BATCH, RATE = 120, 16, 5e-3


def squares(count: int, frames: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Bright and dark squares that go left or right through the middle: both ways show the same pictures."""
    right = rng.integers(0, 2, count)
    clips = rng.normal(0, 0.05, (count, frames, 3, SIZE, SIZE)).astype(np.float32)
    for index in range(count):
        top, middle, way = rng.integers(2, SIZE - SIDE - 2), rng.uniform(11, 13), rng.uniform(10, 18)
        shade = rng.choice([-2.0, 2.0])
        for step in range(frames):
            aside = way * (step / (frames - 1) - 0.5) * (1 if right[index] else -1)
            left = int(np.clip(round(middle + aside), 0, SIZE - SIDE))
            clips[index, step, :, top : top + SIDE, left : left + SIDE] += shade
    return torch.from_numpy(clips), torch.from_numpy(right)


def accuracy(one: Architecture) -> float:
    """On clips that were not trained on."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rng, frames = np.random.default_rng(0), FRAMES * one.snippet
    net = one.build(one.thin_backbone(), Shape(2, FRAMES, 0.0))
    whole = torch.tensor([[[0.0, 0.0, 1.0, 1.0]] * 2])

    def logits(clips: Tensor) -> Tensor:
        return net(clips, whole.expand(len(clips), -1, -1)) if one.boxes else net(clips)

    optimiser = torch.optim.AdamW(net.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS)
    for _ in range(STEPS):
        clips, right = squares(BATCH, frames, rng)
        loss = nn.functional.cross_entropy(logits(clips), right)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()
        schedule.step()
    net.eval()
    clips, right = squares(200, frames, np.random.default_rng(1))
    with torch.no_grad():
        return float((logits(clips).argmax(1) == right).float().mean())


@pytest.mark.parametrize("one", ARCHITECTURES, ids=lambda one: one.name)
def test_the_direction_of_motion_is_learnt_by_temporal_nets_alone(one: Architecture) -> None:
    found = accuracy(one)
    assert found > 0.9 if one.ordered else found < 0.65, found
