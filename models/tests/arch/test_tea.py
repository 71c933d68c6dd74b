"""TEA against its equations."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from values import by_clip, frames, randomised  # noqa: E402

from kinewatch_models.arch import resnet, tea  # noqa: E402
from kinewatch_models.arch.backbone import inverted, mobilenet_v2  # noqa: E402
from kinewatch_models.arch.layers import ConvNorm  # noqa: E402
from kinewatch_models.arch.tea import Aggregation, Motion, MotionExcitation  # noqa: E402
from kinewatch_models.arch.window import Shape  # noqa: E402
from kinewatch_models.stream import Floats  # noqa: E402

FRAMES, CHANNELS, SIDE, CLIPS = 3, 32, 5, 2
WIDTH = CHANNELS // tea.GROUPS
EPSILON = 1e-5


def clips() -> torch.Tensor:
    return frames(CLIPS * FRAMES, CHANNELS, SIDE)


def values(module: torch.nn.Module) -> dict[str, Floats]:
    return {name: one.numpy().astype(np.float64) for name, one in module.state_dict().items()}


def convolved(x: Floats, weight: Floats, stride: int = 1) -> Floats:
    """Convolution of one frame ``[C, H, W]``, padded at both ends; per channel where the weights are."""
    taps, channels = weight.shape[2], weight.shape[1]
    padded = np.pad(x, ((0, 0), (taps // 2, taps // 2), (taps // 2, taps // 2)))
    side = -(-x.shape[1] // stride)
    y = np.zeros((len(weight), side, side))
    for c in range(len(weight)):
        seen = padded if channels > 1 else padded[c : c + 1]
        for h in range(side):
            for w in range(side):
                window = seen[:, h * stride : h * stride + taps, w * stride : w * stride + taps]
                y[c, h, w] = (weight[c] * window).sum()
    return y


def normed(x: Floats, value: dict[str, Floats], name: str, epsilon: float) -> Floats:
    scale = value[f"{name}.gamma"] / np.sqrt(value[f"{name}.variance"] + epsilon)
    return (x - value[f"{name}.mean"][:, None, None]) * scale[:, None, None] + value[f"{name}.beta"][:, None, None]


def over_time(x: Floats, taps: Floats) -> Floats:
    """``y[t, c] = Σ taps[k, c] · x[t + k - 1, c]`` of one clip ``[T, C, H, W]``."""
    y = np.zeros_like(x)
    for t in range(FRAMES):
        for c in range(x.shape[1]):
            for tap, at in enumerate((t - 1, t, t + 1)):
                if 0 <= at < FRAMES:
                    y[t, c] += taps[tap, c] * x[at, c]
    return y


def excited(value: dict[str, Floats], x: Floats) -> Floats:
    """``x + x·(a - 0.5)`` of one clip."""

    def squeezed(frame: Floats) -> Floats:
        return normed(convolved(frame, value["motion.squeeze.weight"]), value, "motion.squeeze", EPSILON)

    y = np.zeros_like(x)
    for t in range(FRAMES):
        change = np.zeros(len(value["motion.transform.weight"]))
        if t < FRAMES - 1:
            after = convolved(squeezed(x[t + 1]), value["motion.transform.weight"])
            change = (after - squeezed(x[t])).mean((1, 2))
        restored = convolved(change[:, None, None], value["gate.0.weight"])
        gate = 1 / (1 + np.exp(-normed(restored, value, "gate.0", EPSILON)))
        y[t] = x[t] + x[t] * (gate - 0.5)
    return y


def aggregated(value: dict[str, Floats], y: Floats, kind: ConvNorm, first: bool) -> Floats:
    """The four groups of one clip, one after the other."""
    groups = [y[:, index * WIDTH : (index + 1) * WIDTH] for index in range(tea.GROUPS)]
    made: list[Floats] = []
    for index, group in enumerate(groups[:-1]):
        seen = over_time(group + made[-1] if made and not first else group, value[f"temporal.{index}.weight"])
        name, frames = f"spatial.{index}", []
        for frame in seen:
            z = normed(convolved(frame, value[f"{name}.weight"], kind.stride), value, name, kind.epsilon)
            frames.append(np.clip(z, 0, {"relu": np.inf, "relu6": 6}[kind.act]) if kind.act else z)
        made.append(np.stack(frames))
    last = over_time(groups[-1], value["last.weight"])
    return np.concatenate([*made, averaged(last, kind.stride) if first else last], 1)


def averaged(x: Floats, stride: int) -> Floats:
    """Means of 3x3 pixels, of which those outside count as zeros."""
    mean = np.full((x.shape[1], 1, 3, 3), 1 / 9)
    return np.stack([convolved(frame, mean, stride) for frame in x])


def dense(stride: int = 1, act: str = "relu") -> ConvNorm:
    return resnet.conv(CHANNELS, CHANNELS, 3, stride, act=act)


def per_channel() -> ConvNorm:
    spatial = inverted(5, 1, 2, CHANNELS // 2, CHANNELS // 2).spatial
    assert isinstance(spatial, ConvNorm)
    return spatial


def test_motion_excitation_is_its_equations() -> None:
    module, x = randomised(MotionExcitation(CHANNELS, FRAMES)), clips()
    with torch.no_grad():
        found = by_clip(module(x), FRAMES)
    for clip, one in zip(by_clip(x, FRAMES), found, strict=True):
        assert np.abs(excited(values(module), clip) - one).max() < 1e-4


@pytest.mark.parametrize(
    ("spatial", "first"),
    [(dense(), False), (dense(2), True), (dense(), True), (dense(act=""), False), (per_channel(), False)],
    ids=["bottleneck", "stride", "first", "basic", "per channel"],
)
def test_aggregation_is_its_equations(spatial: ConvNorm, first: bool) -> None:
    module, x = randomised(Aggregation(spatial, FRAMES, first)), clips()
    with torch.no_grad():
        found = by_clip(module(x), FRAMES)
    for clip, one in zip(by_clip(x, FRAMES), found, strict=True):
        assert np.abs(aggregated(values(module), clip, spatial, first) - one).max() < 1e-4


def test_excitation_begins_as_the_identity_and_there_is_no_motion_after_the_last_frame() -> None:
    x = clips()
    with torch.no_grad():
        torch.testing.assert_close(MotionExcitation(CHANNELS, FRAMES).eval()(x), x)
        motion = randomised(Motion(CHANNELS, FRAMES))(x).view(CLIPS, FRAMES, -1)
    assert float(motion[:, -1].abs().max()) == 0
    assert float(motion[:, :-1].abs().max()) > 0


def test_the_last_group_begins_with_half_of_the_future_and_half_of_the_past() -> None:
    module, x = Aggregation(dense(), FRAMES, False).eval(), clips()
    with torch.no_grad():
        last = module(x).view(CLIPS, FRAMES, 8, WIDTH // 2, SIDE, SIDE)[:, :, 6:]
    seen = x.view(CLIPS, FRAMES, 8, WIDTH // 2, SIDE, SIDE)[:, :, 6:]
    torch.testing.assert_close(last[:, :-1, 0], seen[:, 1:, 0])
    torch.testing.assert_close(last[:, 1:, 1], seen[:, :-1, 1])
    assert not last[:, -1, 0].any()
    assert not last[:, 0, 1].any()


def test_groups_per_channel_keep_their_weights() -> None:
    spatial, x = randomised(per_channel()), clips()
    module = Aggregation(spatial, FRAMES, False).eval()
    with torch.no_grad():
        torch.testing.assert_close(module(x)[:, :WIDTH], spatial(x)[:, :WIDTH])


def test_resnet_bottlenecks_get_the_width_of_res2net_and_others_keep_theirs() -> None:
    trunk = resnet.resnet_thin(width=64)
    tea.build(trunk, Shape(2, FRAMES))
    assert [block.hidden for block in trunk.body] == [4 * 26, 4 * 52, 4 * 104]
    assert [block.expand.outputs for block in trunk.body] == [block.hidden for block in trunk.body]
    for trunk in (resnet.resnet18(), mobilenet_v2()):
        before = [block.hidden for block in trunk.body]
        tea.build(trunk, Shape(2, FRAMES))
        assert [block.hidden for block in trunk.body] == before
