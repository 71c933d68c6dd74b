"""TEINet against its equations."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from values import by_clip, frames, randomised  # noqa: E402

from kinewatch_models.arch.teinet import MotionGate, Tei  # noqa: E402
from kinewatch_models.stream import Floats  # noqa: E402

FRAMES, CHANNELS, SIDE, CLIPS = 4, 32, 5, 2


def clips() -> torch.Tensor:
    return frames(CLIPS * FRAMES, CHANNELS, SIDE)


def expected(module: Tei, x: Floats) -> Floats:
    """MEM, then TIM, of one clip ``[T, C, H, W]``."""
    value = {name: one.numpy().astype(np.float64) for name, one in module.state_dict().items()}

    def part(name: str, seen: Floats) -> Floats:
        return value[f"gate.{name}.weight"][:, :, 0, 0] @ seen + value[f"gate.{name}.bias"]

    enhanced, means = x.copy(), np.zeros((FRAMES, CHANNELS))
    for t in range(FRAMES):
        for c in range(CHANNELS):
            means[t, c] = x[t, c].sum() / SIDE**2
    for t in range(FRAMES - 1):
        change = np.maximum(part("after", means[t + 1]) - part("now", means[t]), 0)
        gate = 1 / (1 + np.exp(-part("restore", change)))
        for c in range(CHANNELS):
            enhanced[t, c] = gate[c] * x[t, c]
    y = np.zeros_like(x)
    for t in range(FRAMES):
        for c in range(CHANNELS):
            for tap, at in enumerate((t - 1, t, t + 1)):
                if 0 <= at < FRAMES:
                    y[t, c] += value["temporal.weight"][tap, c] * enhanced[at, c]
    return y


def test_the_module_is_its_equations() -> None:
    module, x = randomised(Tei(CHANNELS, FRAMES)), clips()
    assert isinstance(module, Tei)
    with torch.no_grad():
        found = by_clip(module(x), FRAMES)
    for clip, one in zip(by_clip(x, FRAMES), found, strict=True):
        assert np.abs(expected(module, clip) - one).max() < 1e-4


def test_the_last_frame_of_every_clip_passes_as_it_is() -> None:
    with torch.no_grad():
        gates = randomised(MotionGate(CHANNELS, FRAMES))(clips()).view(CLIPS, FRAMES, CHANNELS)
    assert bool((gates[:, -1] == 1).all())
    assert bool((gates[:, :-1] < 1).all())


def test_gates_see_the_next_frame_alone() -> None:
    gate, x = randomised(MotionGate(CHANNELS, FRAMES)), clips()
    other = x.clone().view(CLIPS, FRAMES, -1)
    other[:, 2] += 1
    with torch.no_grad():
        moved = (gate(other.view(x.shape)) - gate(x)).view(CLIPS, FRAMES, -1).abs().amax((0, 2))
    assert [bool(one > 1e-4) for one in moved] == [False, True, True, False]


def test_it_begins_with_a_shift_of_an_eighth_each_way() -> None:
    module, x = Tei(CHANNELS, FRAMES).eval(), clips()
    with torch.no_grad():
        enhanced = (x * module.gate(x)).view(CLIPS, FRAMES, 8, -1, SIDE, SIDE)
        y = module(x).view(enhanced.shape)
    torch.testing.assert_close(y[:, 1:, 0], enhanced[:, :-1, 0])
    torch.testing.assert_close(y[:, :-1, 1], enhanced[:, 1:, 1])
    torch.testing.assert_close(y[:, :, 2:], enhanced[:, :, 2:])
    assert not y[:, 0, 0].any()
    assert not y[:, -1, 1].any()
