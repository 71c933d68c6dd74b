"""ACTION-Net against its equations."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from values import by_clip, frames, randomised  # noqa: E402

from kinewatch_models.arch import action  # noqa: E402
from kinewatch_models.arch.action import Action  # noqa: E402
from kinewatch_models.arch.backbone import efficientnet_lite0  # noqa: E402
from kinewatch_models.arch.window import Shape, WindowNet  # noqa: E402
from kinewatch_models.stream import Floats  # noqa: E402

FRAMES, CHANNELS, SIDE, CLIPS = 3, 32, 5, 2
MOMENTS = range(-1, 2)


def clips() -> torch.Tensor:
    return frames(CLIPS * FRAMES, CHANNELS, SIDE)


def sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


def over_time(x: Floats, taps: Floats) -> Floats:
    """``y[t, c] = Σ taps[k, c] · x[t + k - 1, c]`` of one clip ``[T, C, H, W]``."""
    y = np.zeros_like(x)
    for t in range(FRAMES):
        for c in range(x.shape[1]):
            for k in MOMENTS:
                if 0 <= t + k < FRAMES:
                    y[t, c] += taps[k + 1, c] * x[t + k, c]
    return y


def pixel_gates(x: Floats, weight: Floats) -> Floats:
    """STE: a convolution ``[3, 1, 3, 3]`` over time and picture of the mean over channels."""
    mean, y = x.mean(1), np.zeros((FRAMES, SIDE, SIDE))
    for t in range(FRAMES):
        for h in range(SIDE):
            for w in range(SIDE):
                for k in MOMENTS:
                    for i in MOMENTS:
                        for j in MOMENTS:
                            if 0 <= t + k < FRAMES and 0 <= h + i < SIDE and 0 <= w + j < SIDE:
                                y[t, h, w] += weight[k + 1, 0, i + 1, j + 1] * mean[t + k, h + i, w + j]
    return sigmoid(y)


def channel_gates(x: Floats, value: dict[str, Floats]) -> Floats:
    """CE."""
    squeezed = x.mean((2, 3)) @ value["channels.squeeze.weight"][:, :, 0, 0].T
    y = np.zeros_like(squeezed)
    for t in range(FRAMES):
        for k in MOMENTS:
            if 0 <= t + k < FRAMES:
                y[t] += value["channels.conv.weight"][:, :, k + 1] @ squeezed[t + k]
    return sigmoid(np.maximum(y, 0) @ value["channels.restore.weight"][:, :, 0, 0].T)


def motion_gates(x: Floats, value: dict[str, Floats]) -> Floats:
    """ME."""
    name = "motion.motion.squeeze"
    scale = value[f"{name}.gamma"] / np.sqrt(value[f"{name}.variance"] + 1e-5)
    u = np.einsum("oi,tihw->tohw", value[f"{name}.weight"][:, :, 0, 0], x) - value[f"{name}.mean"][:, None, None]
    u = u * scale[:, None, None] + value[f"{name}.beta"][:, None, None]
    padded, weight = np.pad(u, ((0, 0), (0, 0), (1, 1), (1, 1))), value["motion.motion.transform.weight"]
    change = np.zeros((FRAMES, u.shape[1]))
    for t in range(FRAMES - 1):
        for c in range(u.shape[1]):
            for h in range(SIDE):
                for w in range(SIDE):
                    seen = (weight[c, 0] * padded[t + 1, c, h : h + 3, w : w + 3]).sum()
                    change[t, c] += (seen - u[t, c, h, w]) / SIDE**2
    return sigmoid(change @ value["motion.restore.weight"][:, :, 0, 0].T)


def expected(module: Action, x: Floats) -> Floats:
    """The sum of the three of one clip ``[T, C, H, W]``."""
    value = {name: one.numpy().astype(np.float64) for name, one in module.state_dict().items()}
    moved = over_time(x, value["temporal.weight"])
    pixels = moved * pixel_gates(moved, value["pixels.conv.weight"])[:, None] + moved
    channels = moved * channel_gates(moved, value)[..., None, None] + moved
    motion = moved * motion_gates(moved, value)[..., None, None] + moved
    return pixels + channels + motion


def test_the_module_is_its_equations() -> None:
    module, x = randomised(Action(CHANNELS, FRAMES)), clips()
    assert isinstance(module, Action)
    with torch.no_grad():
        found = by_clip(module(x), FRAMES)
    for clip, one in zip(by_clip(x, FRAMES), found, strict=True):
        assert np.abs(expected(module, clip) - one).max() < 1e-4


def closed(module: Action) -> None:
    """Make all gates a half."""
    for name, value in module.named_parameters():
        if not name.startswith("temporal"):
            value.data.zero_()


def test_it_begins_with_a_shift_of_an_eighth_each_way() -> None:
    module, x = Action(CHANNELS, FRAMES).eval(), clips()
    closed(module)
    seen, moved = (x.clone().view(CLIPS, FRAMES, 8, -1, SIDE, SIDE) for _ in range(2))
    moved[:, 1:, 0], moved[:, 0, 0] = seen[:, :-1, 0], 0
    moved[:, :-1, 1], moved[:, -1, 1] = seen[:, 1:, 1], 0
    with torch.no_grad():
        torch.testing.assert_close(module(x), 4.5 * moved.view(x.shape))


def test_norms_with_the_statistics_they_came_with_see_what_they_saw() -> None:
    torch.manual_seed(0)
    trunk = efficientnet_lite0(pretrained=False)
    before = WindowNet(trunk, Shape(2, FRAMES)).eval()
    frames = torch.randn(FRAMES, 3, 32, 32)
    with torch.no_grad():
        plain = before.features(frames)
        net = action.build(trunk, Shape(2, FRAMES)).eval()
        for module in net.modules():
            if isinstance(module, Action):
                closed(module)
                module.temporal.weight.copy_(
                    torch.tensor([0.0, 1.0, 0.0])[:, None].expand(3, module.temporal.weight.shape[1])
                )
        torch.testing.assert_close(net.features(frames), plain, atol=1e-4, rtol=1e-4)
