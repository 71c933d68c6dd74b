"""Two-stream: what the temporal net is fed, how it begins, and how logits are fused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from kinewatch_models.arch import backbone, export, resnet, two_stream  # noqa: E402
from kinewatch_models.arch.backbone import Trunk  # noqa: E402
from kinewatch_models.arch.layers import ConvNorm  # noqa: E402
from kinewatch_models.arch.tvl1 import Tvl1  # noqa: E402
from kinewatch_models.arch.two_stream import TwoStream  # noqa: E402
from kinewatch_models.arch.window import Shape, WindowNet  # noqa: E402
from kinewatch_models.capture import Frames  # noqa: E402
from kinewatch_models.stream import normalise  # noqa: E402

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
FRAMES, SIZE, CLASSES, LIMIT = 4, 32, 3, 300_000
TRUNKS = {
    "resnet-thin": resnet.resnet_thin,
    "resnet18": resnet.resnet18,
    "mobilenetv2": backbone.mobilenet_v2,
    "efficientnet-lite0": lambda: backbone.efficientnet_lite0(pretrained=False),
}
Build = Callable[[Trunk, Shape], TwoStream]
forms = pytest.mark.parametrize("build", [two_stream.build, two_stream.build_difference])


class _Known(nn.Module):
    """Stands for an optical flow: keeps the pictures that it gets, and answers with a flow that is known."""

    def __init__(self, flow: Tensor):
        super().__init__()
        self.flow = flow
        self.seen: list[Tensor] = []

    def forward(self, *pair: Tensor) -> Tensor:
        self.seen = list(pair)
        return self.flow


def _bytes(windows: int = 2) -> Frames:
    return np.random.default_rng(5).integers(0, 256, (windows, FRAMES, SIZE, SIZE, 3)).astype(np.uint8)


def _clip(frames: Frames) -> Tensor:
    return torch.from_numpy(np.stack([normalise(window, MEAN, STD) for window in frames]))


def _random(net: nn.Module) -> nn.Module:
    """Random weights and statistics."""
    torch.manual_seed(3)
    with torch.no_grad():
        for module in net.modules():
            for name, value in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
                if not isinstance(module, Tvl1):
                    value.uniform_(0.5, 1.5) if name in ("variance", "gamma") else value.normal_(0, 0.2)
    return net.eval()


def _first(net: Trunk | WindowNet) -> ConvNorm:
    return next(module for module in net.stem.modules() if isinstance(module, ConvNorm))


def test_flow_is_that_of_consecutive_grey_frames_in_bytes() -> None:
    frames = _bytes()
    flow = torch.randn(2 * (FRAMES - 1), 2, SIZE, SIZE) * 15
    net = two_stream.FlowStack(FRAMES, _Known(flow))
    found = net(_clip(frames)).numpy()
    grey = frames @ np.array([0.299, 0.587, 0.114]) - np.dot([0.299, 0.587, 0.114], MEAN)
    assert found.shape == (2, 2 * (FRAMES - 1), SIZE, SIZE)
    for window in range(2):
        for t in range(FRAMES - 1):
            pair = window * (FRAMES - 1) + t
            for moment, picture in enumerate(net.flow.seen):
                assert np.abs(picture[pair, 0].numpy() - grey[window, t + moment]).max() < 1e-3
            for component in range(2):
                pixels = np.clip(flow[pair, component].numpy(), -20, 20)
                expected = ((pixels + 20) / 40 * 255 - 127.5) / np.mean(STD)
                assert np.abs(found[window, 2 * t + component] - expected).max() < 1e-5
    assert flow.abs().max() > 20 > np.abs(found).max()


def test_differences_are_those_of_bytes_over_twice_the_deviation() -> None:
    frames = _bytes()
    found = two_stream.DifferenceStack(FRAMES)(_clip(frames)).numpy()
    assert found.shape == (2, 3 * (FRAMES - 1), SIZE, SIZE)
    for window, t, colour in np.ndindex(2, FRAMES - 1, 3):
        after, before = (frames[window, moment, :, :, colour].astype(float) for moment in (t + 1, t))
        expected = (after - before) / (2 * STD[colour])
        assert np.abs(found[window, 3 * t + colour] - expected).max() < 1e-5


def test_moving_right_is_a_positive_x() -> None:
    rows, columns = np.mgrid[:SIZE, :SIZE]
    grey = [127 + 60 * np.sin((columns - 1.5 * t) / 3) + 60 * np.cos(rows / 4) for t in range(FRAMES)]
    clip = _clip(np.stack(grey).astype(np.uint8)[None, ..., None].repeat(3, -1))
    flow = two_stream.FlowStack(FRAMES, Tvl1(levels=3))(clip)[0, :, 8:-8, 8:-8].median(-1).values.median(-1).values
    expected = torch.tensor([1.5, 0.0] * (FRAMES - 1)) * two_stream.FLOW_SCALE
    torch.testing.assert_close(flow, expected, atol=0.01, rtol=0)


@pytest.mark.parametrize("make", TRUNKS.values(), ids=TRUNKS)
def test_the_temporal_net_begins_with_the_mean_rgb_kernel(make: Callable[[], Trunk]) -> None:
    trunk = make()
    rgb = _first(trunk).weight.detach().clone()
    net = two_stream.build(trunk, Shape(CLASSES, FRAMES))
    spatial, temporal = _first(net.spatial), _first(net.temporal)
    assert torch.equal(spatial.weight, rgb)
    assert temporal.weight.shape[1] == temporal.inputs == 2 * (FRAMES - 1)
    assert temporal.live
    for channel in range(temporal.inputs):
        torch.testing.assert_close(temporal.weight[:, channel], (rgb[:, 0] + rgb[:, 1] + rgb[:, 2]) / 3)
    shared = {id(x) for x in net.spatial.parameters()} & {id(x) for x in net.temporal.parameters()}
    assert not shared


@forms
def test_logits_are_the_weighted_mean_of_the_middle_frame_and_of_motion(build: Build) -> None:
    net = _random(build(resnet.resnet_thin(4), Shape(CLASSES, FRAMES)))
    clip = _clip(_bytes())
    with torch.no_grad():
        found = net(clip).numpy()
        features = [net.spatial.features(clip[:, 2]).numpy(), net.temporal.features(net.motion(clip)).numpy()]
    heads = [one.consensus.classifier for one in (net.spatial, net.temporal)]
    for window, label in np.ndindex(2, CLASSES):
        spatial, temporal = (
            sum(w * x for w, x in zip(head.weight[label].tolist(), feature[window].tolist(), strict=True))
            + head.bias[label].item()
            for head, feature in zip(heads, features, strict=True)
        )
        assert abs(found[window, label] - (spatial + 1.5 * temporal) / 2.5) < 1e-4


@forms
def test_a_still_clip_is_judged_by_its_picture_alone(build: Build) -> None:
    net = _random(build(resnet.resnet_thin(4), Shape(CLASSES, FRAMES)))
    still, other = (_clip(one[:, :1].repeat(FRAMES, 1)) for one in (_bytes(), 255 - _bytes()))
    with torch.no_grad():
        assert float(net.motion(still).abs().max()) < 1e-4
        logits = [net(clip) - two_stream._logits(net.spatial, clip[:, 2]) / 2.5 for clip in (still, other)]
    torch.testing.assert_close(*logits, atol=1e-4, rtol=0)


def test_the_thin_graph_is_small(tmp_path: Path) -> None:
    net = export.frozen(two_stream.build(two_stream.thin(), Shape(CLASSES, 8)))
    export.graph(net, (torch.zeros(1, 8, 3, 64, 64),), ["clip"], ["logits"], tmp_path / "net.onnx")
    assert (tmp_path / "net.onnx").stat().st_size < LIMIT
