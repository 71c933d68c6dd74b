"""STM against its equations."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from values import frames, randomised  # noqa: E402

from kinewatch_models.arch.backbone import inverted  # noqa: E402
from kinewatch_models.arch.layers import ConvNorm  # noqa: E402
from kinewatch_models.arch.resnet import conv as resnet_conv  # noqa: E402
from kinewatch_models.arch.stm import Motion, Stm  # noqa: E402
from kinewatch_models.stream import Floats  # noqa: E402

FRAMES, CHANNELS, SIDE, CLIPS = 3, 32, 5, 2


def clips(channels: int = CHANNELS) -> torch.Tensor:
    return frames(CLIPS * FRAMES, channels, SIDE)


def convolved(x: Floats, weight: Floats, stride: int = 1) -> Floats:
    """Convolution of one frame ``[C, H, W]``, padded at both ends; per channel where the weights are."""
    channels, taps = weight.shape[1:3]
    padded = np.pad(x, ((0, 0), (taps // 2, taps // 2), (taps // 2, taps // 2)))
    side = -(-x.shape[1] // stride)
    y = np.zeros((len(weight), side, side))
    for c in range(len(weight)):
        seen = padded if channels > 1 else padded[c : c + 1]
        for h in range(side):
            for w in range(side):
                y[c, h, w] = (weight[c] * seen[:, h * stride : h * stride + taps, w * stride : w * stride + taps]).sum()
    return y


def expected(module: Stm, x: Floats) -> Floats:
    """``act(norm(a + m))`` of one clip ``[T, C, H, W]``, frame by frame."""
    value = {name: one.numpy().astype(np.float64) for name, one in module.state_dict().items()}
    taps = value["temporal.weight"]
    made = []
    for t in range(FRAMES):
        moved = np.zeros_like(x[0])
        for c in range(len(moved)):
            for tap, at in enumerate((t - 1, t, t + 1)):
                if 0 <= at < FRAMES:
                    moved[c] += taps[tap, c] * x[at, c]
        y = convolved(moved, value["weight"], module.stride)
        if t < FRAMES - 1:
            now, after = (
                pooled(np.einsum("oi,ihw->ohw", value["motion.squeeze.weight"][:, :, 0, 0], x[at]), module.stride)
                for at in (t, t + 1)
            )
            change = convolved(after, value["motion.transform.weight"]) - now
            y += np.einsum("oi,ihw->ohw", value["restore.weight"][:, :, 0, 0], change)
        scale = value["gamma"] / np.sqrt(value["variance"] + module.epsilon)
        y = (y - value["mean"][:, None, None]) * scale[:, None, None] + value["beta"][:, None, None]
        made.append(np.clip(y, 0, {"relu": np.inf, "relu6": 6}[module.act]) if module.act else y)
    return np.stack(made)


def pooled(u: Floats, stride: int) -> Floats:
    """Means of blocks of `stride` x `stride`, those at the end smaller where it does not divide."""
    side = -(-u.shape[1] // stride)
    y = np.zeros((len(u), side, side))
    for h in range(side):
        for w in range(side):
            y[:, h, w] = u[:, h * stride : (h + 1) * stride, w * stride : (w + 1) * stride].mean((1, 2))
    return y


def bottleneck(stride: int = 1, act: str = "relu") -> ConvNorm:
    return resnet_conv(CHANNELS, CHANNELS, 3, stride, act=act)


def per_channel() -> ConvNorm:
    spatial = inverted(5, 1, 2, CHANNELS // 2, CHANNELS // 2).spatial
    assert isinstance(spatial, ConvNorm)
    return spatial


@pytest.mark.parametrize(
    "spatial",
    [bottleneck(), bottleneck(2), bottleneck(act=""), per_channel()],
    ids=["bottleneck", "stride", "basic", "per channel"],
)
def test_the_module_is_its_equations(spatial: ConvNorm) -> None:
    module, x = randomised(Stm(spatial, FRAMES)), clips()
    assert isinstance(module, Stm)
    with torch.no_grad():
        found = module(x).numpy().reshape(CLIPS, FRAMES, CHANNELS, *[-(-SIDE // spatial.stride)] * 2)
    for clip, one in zip(x.numpy().reshape(CLIPS, FRAMES, CHANNELS, SIDE, SIDE), found, strict=True):
        assert np.abs(expected(module, clip.astype(np.float64)) - one).max() < 1e-4


def test_the_norm_of_a_batch_sees_the_sum() -> None:
    module, x = randomised(Stm(bottleneck(act=""), FRAMES)).train(), clips()
    with torch.no_grad():
        y = module(x)
        means, deviations = y.mean((0, 2, 3)), y.std((0, 2, 3), unbiased=False)
    torch.testing.assert_close(means, module.beta.detach(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(deviations, module.gamma.detach().abs(), atol=1e-3, rtol=1e-3)


def test_a_fixed_copy_has_taken_in_its_norm() -> None:
    module, x = randomised(Stm(bottleneck(2), FRAMES)), clips()
    with torch.no_grad():
        before = module(x)
        module.fix()
        torch.testing.assert_close(module(x), before)


def test_it_begins_with_the_first_quarter_of_the_past_the_last_of_the_future_and_the_weights_that_were_there() -> None:
    spatial = bottleneck()
    module, x = Stm(spatial, FRAMES).eval(), clips()
    seen, moved = (x.clone().view(CLIPS, FRAMES, 4, -1, SIDE, SIDE) for _ in range(2))
    moved[:, 1:, 0], moved[:, 0, 0] = seen[:, :-1, 0], 0
    moved[:, :-1, 3], moved[:, -1, 3] = seen[:, 1:, 3], 0
    with torch.no_grad():
        module.restore.weight.zero_()
        torch.testing.assert_close(module(x), spatial.eval()(moved.view(x.shape)), atol=1e-5, rtol=1e-5)


def test_motion_of_the_last_frame_is_zero() -> None:
    module, x = randomised(Motion(CHANNELS, 2, FRAMES)), clips()
    with torch.no_grad():
        motion = module(x).view(CLIPS, FRAMES, -1)
    assert float(motion[:, -1].abs().max()) == 0
    assert float(motion[:, :-1].abs().max()) > 0
