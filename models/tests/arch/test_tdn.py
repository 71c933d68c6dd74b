"""TDN against its equations: both difference modules, and where they are fused."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import values  # noqa: E402

from kinewatch_models.arch import backbone, resnet, tdn  # noqa: E402
from kinewatch_models.arch.layers import ConvNorm  # noqa: E402
from kinewatch_models.arch.tdn import LongTerm, Tdn  # noqa: E402
from kinewatch_models.arch.temporal import TemporalConv  # noqa: E402
from kinewatch_models.arch.window import Shape  # noqa: E402
from kinewatch_models.stream import Floats  # noqa: E402

FRAMES, CHANNELS, CLIPS, SNIPPET = 3, 32, 2, 5
randomised = partial(values.randomised, spread=0.3)
TRUNKS = {
    "resnet-thin": resnet.resnet_thin,
    "resnet18": resnet.resnet18,
    "mobilenetv2": backbone.mobilenet_v2,
    "efficientnet-lite0": lambda: backbone.efficientnet_lite0(pretrained=False),
}


def convolved(x: Floats, weight: Floats, stride: int = 1) -> Floats:
    """Convolution of one frame ``[C, H, W]``, padded at both ends; per channel where the weights are."""
    inputs, taps = weight.shape[1:3]
    padded = np.pad(x, ((0, 0), (taps // 2, taps // 2), (taps // 2, taps // 2)))
    rows, columns = (-(-side // stride) for side in x.shape[1:])
    y = np.zeros((len(weight), rows, columns))
    for o in range(len(weight)):
        seen = padded if inputs == len(x) else padded[o : o + 1]
        for h in range(rows):
            for w in range(columns):
                y[o, h, w] = (weight[o] * seen[:, h * stride : h * stride + taps, w * stride : w * stride + taps]).sum()
    return y


def layer(module: ConvNorm, x: Floats) -> Floats:
    """Convolution and norm of one frame ``[C, H, W]``."""
    gamma, beta, mean, variance = (
        one.detach().numpy().astype(np.float64)[:, None, None]
        for one in (module.gamma, module.beta, module.mean, module.variance)
    )
    weight = module.weight.detach().numpy().astype(np.float64)
    return (convolved(x, weight, module.stride) - mean) / np.sqrt(variance + 1e-5) * gamma + beta


def halved(x: Floats) -> Floats:
    """Means of 2 x 2; what is left over at the end is not seen."""
    channels, rows, columns = x.shape
    y = np.zeros((channels, rows // 2, columns // 2))
    for h in range(rows // 2):
        for w in range(columns // 2):
            y[:, h, w] = x[:, 2 * h : 2 * h + 2, 2 * w : 2 * w + 2].mean((1, 2))
    return y


def enlarged(x: Floats, rows: int, columns: int) -> Floats:
    """Nearest places."""
    y = np.zeros((len(x), rows, columns))
    for h in range(rows):
        for w in range(columns):
            y[:, h, w] = x[:, h * x.shape[1] // rows, w * x.shape[2] // columns]
    return y


def pooled(x: Floats) -> Floats:
    """Maxima of 3 x 3 at every second place."""
    channels, rows, columns = x.shape
    y = np.zeros((channels, -(-rows // 2), -(-columns // 2)))
    for h in range(y.shape[1]):
        for w in range(y.shape[2]):
            y[:, h, w] = x[:, max(0, 2 * h - 1) : 2 * h + 2, max(0, 2 * w - 1) : 2 * w + 2].max((1, 2))
    return y


def expected_gate(module: LongTerm, d: Floats) -> Floats:
    """``sigmoid(bn(B · m)) - 1/2`` of one frame's difference."""
    coarse = enlarged(layer(module.gate.coarse[1], halved(d)), *d.shape[1:])
    m = (d + layer(module.gate.fine, d) + coarse) / 3
    return 1 / (1 + np.exp(-layer(module.gate.widen, m))) - 0.5


def expected_long_term(module: LongTerm, x: Floats) -> Floats:
    """``x + x · (g⁺ + g⁻) / 2`` of one clip ``[T, C, H, W]``."""
    u = [layer(module.reduce, frame) for frame in x]
    smooth = [convolved(one, module.smooth.weight.detach().numpy().astype(np.float64)) for one in u]
    made = []
    for t in range(len(x)):
        onward = smooth[t + 1] - u[t] if t + 1 < len(x) else np.zeros_like(u[t])
        back = smooth[t - 1] - u[t] if t else np.zeros_like(u[t])
        made.append(x[t] + x[t] * (expected_gate(module, onward) + expected_gate(module, back)) / 2)
    return np.stack(made)


@pytest.mark.parametrize(("rows", "columns"), [(4, 6), (5, 7)], ids=["even", "odd"])
def test_the_long_term_module_is_its_equations(rows: int, columns: int) -> None:
    module = randomised(LongTerm(CHANNELS, FRAMES))
    x = torch.randn(CLIPS * FRAMES, CHANNELS, rows, columns, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = module(x).numpy().reshape(CLIPS, FRAMES, CHANNELS, rows, columns)
    for clip, one in zip(x.numpy().reshape(found.shape), found, strict=True):
        assert np.abs(expected_long_term(module, clip.astype(np.float64)) - one).max() < 1e-4


@pytest.mark.parametrize(("frames", "share"), [(8, 0.5), (3, 0.25)])
def test_the_path_of_differences_is_fused_after_the_stem_and_after_stage_1(frames: int, share: float) -> None:
    """By its equations, but for the stages themselves, which are those of every net here."""
    net = randomised(tdn.build(resnet.resnet_thin(4), Shape(3, frames, 0.0)))
    assert isinstance(net, Tdn)
    clip = torch.randn(1, frames * SNIPPET, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    seen: list[torch.Tensor] = []
    hooks = [stage.register_forward_pre_hook(lambda _, given: seen.extend(given)) for stage in net.stages[:2]]
    with torch.no_grad():
        net(clip)
        for hook in hooks:
            hook.remove()
        for t in range(frames):
            one, two, three, four, five = clip[0, t * SNIPPET : (t + 1) * SNIPPET].numpy().astype(np.float64)
            changes = np.concatenate([two - one, three - two, four - three, five - four])
            e1 = pooled(np.maximum(layer(net.difference_stem[2], halved(changes)), 0))
            picture = pooled(np.maximum(layer(net.stem[0], three), 0))
            first = (1 - share) * picture + share * enlarged(e1, 16, 16)
            assert np.abs(first - seen[0][t].numpy()).max() < 1e-4
            after = net.stages[0](torch.from_numpy(first).float()[None])[0].numpy()
            e2 = net.difference_stages(torch.from_numpy(e1).float()[None])[0].numpy()
            second = (1 - share) * after + share * enlarged(e2, 16, 16)
            assert np.abs(second - seen[1][t].numpy()).max() < 1e-4


def test_segments_that_do_not_differ_are_left_as_they_are_at_first() -> None:
    """No segment has a neighbour in a window of one: both differences are zero, and so is the gate's norm."""
    module = LongTerm(CHANNELS, 1).eval()
    x = torch.randn(2, CHANNELS, 4, 4, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(module(x), x)


def test_the_gain_is_between_a_half_and_three_halves() -> None:
    module = randomised(LongTerm(CHANNELS, FRAMES))
    x = torch.randn(FRAMES, CHANNELS, 4, 4, generator=torch.Generator().manual_seed(4)) * 100
    with torch.no_grad():
        gain = module(x) / x
    assert 0.5 - 1e-4 <= float(gain.min()) < 0.7
    assert 1.3 < float(gain.max()) <= 1.5 + 1e-4


@pytest.mark.parametrize(
    ("name", "first"), [("resnet-thin", 1), ("resnet18", 1), ("mobilenetv2", 2), ("efficientnet-lite0", 2)]
)
def test_stage_1_ends_at_a_quarter_of_the_side_and_its_copy_at_half_of_that(name: str, first: int) -> None:
    net = tdn.build(TRUNKS[name](), Shape(3, 2)).eval()
    assert isinstance(net, Tdn)
    assert net.first == first
    sides: dict[str, int] = {}
    for part, module in {"stage": net.stages[first - 1], "copy": net.difference_stages}.items():
        module.register_forward_hook(lambda _, __, made, part=part: sides.update({part: made.shape[-1]}))
    with torch.no_grad():
        net(torch.zeros(1, 2 * SNIPPET, 3, 64, 64))
    assert sides == {"stage": 16, "copy": 8}
    for index, stage in enumerate(net.stages):
        kinds = {tuple(type(one) for one in block.middle.children()) for block in stage if block.residual}
        assert kinds <= ({()} if index < first else {(LongTerm, TemporalConv)})


def test_the_copy_of_stage_1_begins_equal_and_learns_by_itself() -> None:
    net = tdn.build(backbone.mobilenet_v2(), Shape(3, 2))
    own = dict(net.stages[:2].named_parameters())
    for name, weight in net.difference_stages.named_parameters():
        torch.testing.assert_close(weight, own[name])
        assert weight.data_ptr() != own[name].data_ptr()
    norms = [one for one in net.difference_stages.modules() if isinstance(one, ConvNorm)]
    assert all(one.live for one in norms)
    assert not any(one.live for one in net.stages.modules() if isinstance(one, ConvNorm) and one.epsilon == 1e-3)


def test_the_kernel_of_the_differences_begins_as_the_stem_s_without_colour() -> None:
    net = tdn.build(resnet.resnet_thin(), Shape(3, 2))
    kernel, colours = net.difference_stem[2].weight, net.stem[0].weight
    assert kernel.shape[1] == 12
    for channel in range(12):
        torch.testing.assert_close(kernel[:, channel], colours.mean(1))
