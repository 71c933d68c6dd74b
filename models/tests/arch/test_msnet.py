"""MotionSqueeze against its equations, and what is easily turned round in it."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from values import randomised  # noqa: E402

from kinewatch_models.arch import backbone, msnet, resnet  # noqa: E402
from kinewatch_models.arch.layers import ConvNorm  # noqa: E402
from kinewatch_models.arch.msnet import MotionSqueeze, Search, correlation, displacement, unit  # noqa: E402
from kinewatch_models.arch.window import Shape  # noqa: E402
from kinewatch_models.stream import Floats  # noqa: E402

FRAMES, CHANNELS, CLIPS = 3, 8, 2


def layer(module: ConvNorm, x: Floats) -> Floats:
    """Convolution of one frame ``[C, H, W]``, padded at both ends, norm and ReLU."""
    weight, gamma, beta, mean, variance = (
        one.detach().numpy().astype(np.float64)
        for one in (module.weight, module.gamma, module.beta, module.mean, module.variance)
    )
    outputs, taps = len(weight), weight.shape[-1]
    _, rows, columns = x.shape
    padded = np.pad(x, ((0, 0), (taps // 2, taps // 2), (taps // 2, taps // 2)))
    y = np.zeros((outputs, rows, columns))
    for o in range(outputs):
        seen = padded[o : o + 1] if module.groups > 1 else padded
        for h in range(rows):
            for w in range(columns):
                y[o, h, w] = (weight[o] * seen[:, h : h + taps, w : w + taps]).sum()
        y[o] = (y[o] - mean[o]) / np.sqrt(variance[o] + 1e-5) * gamma[o] + beta[o]
    return np.maximum(y, 0)


def expected_maps(now: Floats, after: Floats) -> Floats:
    """``(u, v, confidence)`` of two frames' features ``[R, H, W]`` of unit length, position by position."""
    _, rows, columns = now.shape
    downs, rights = ([*range(-min(7, side - 1), min(7, side - 1) + 1)] for side in (rows, columns))
    moves = [(down, right) for down in downs for right in rights]
    by_length = sorted(range(len(moves)), key=lambda index: moves[index][0] ** 2 + moves[index][1] ** 2)
    maps = np.zeros((3, rows, columns))
    for h in range(rows):
        for w in range(columns):
            c = np.zeros(len(moves))
            for index, (down, right) in enumerate(moves):
                if 0 <= h + down < rows and 0 <= w + right < columns:
                    c[index] = max(0.0, float(now[:, h, w] @ after[:, h + down, w + right]))
            best = moves[max(by_length, key=lambda index: c[index] - 1e-5 * by_length.index(index))]
            far = np.array([(down - best[0]) ** 2 + (right - best[1]) ** 2 for down, right in moves])
            score = np.exp(100 * np.exp(-far / (2 * 5**2)) * c)
            weight = score / score.sum()
            maps[0, h, w] = (weight * [right for _, right in moves]).sum() / 7
            maps[1, h, w] = (weight * [down for down, _ in moves]).sum() / 7
            maps[2, h, w] = c.max()
    return maps


def expected(module: MotionSqueeze, x: Floats) -> Floats:
    """``x + motion`` of one clip ``[T, C, H, W]``."""
    reduced = [layer(module.reduce, frame) for frame in x]
    features = [r / np.sqrt((r * r).sum(0) + 1e-6) for r in reduced]
    pairs = [expected_maps(features[t], features[t + 1]) for t in range(FRAMES - 1)]
    made = []
    for frame, maps in zip(x, [*pairs, pairs[-1]], strict=True):
        motion = maps
        for one in module.motion:
            motion = layer(one, motion)
        made.append(frame + motion)
    return np.stack(made)


@pytest.mark.parametrize(("rows", "columns"), [(4, 5), (9, 3)], ids=["all within reach", "farther than the reach"])
def test_the_module_is_its_equations(rows: int, columns: int) -> None:
    module = randomised(MotionSqueeze(CHANNELS, FRAMES))
    x = torch.randn(CLIPS * FRAMES, CHANNELS, rows, columns, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = module(x).numpy().reshape(CLIPS, FRAMES, CHANNELS, rows, columns)
    for clip, one in zip(x.numpy().reshape(found.shape), found, strict=True):
        assert np.abs(expected(module, clip.astype(np.float64)) - one).max() < 1e-4


@pytest.mark.parametrize(("down", "right"), [(2, -3), (-7, 0), (1, 7), (0, 0)])
def test_what_moves_down_and_right_has_v_and_u_of_that(down: int, right: int) -> None:
    """A map of places unlike each other, moved: the kernel draws the mean a little, but not to another place."""
    side, features = 16, 400
    first = torch.randn(1, features, side, side, generator=torch.Generator().manual_seed(2))
    second = torch.roll(first, (down, right), (2, 3))
    search = Search.of(side, side, first.device)
    c = correlation(unit(first).flatten(2), unit(second).flatten(2), search)
    u, v, confidence = displacement(c, search).view(3, side, side)[:, 7:-7, 7:-7]
    torch.testing.assert_close(u, torch.full_like(u, right / 7), atol=1e-2, rtol=0)
    torch.testing.assert_close(v, torch.full_like(v, down / 7), atol=1e-2, rtol=0)
    torch.testing.assert_close(confidence, torch.ones_like(confidence), atol=1e-4, rtol=0)


def test_a_bare_wall_does_not_move_whatever_the_rounding() -> None:
    side = 16
    rounding = 1e-6 * torch.randn(2, 1, 8, side * side, generator=torch.Generator().manual_seed(5))
    first, second = torch.full((8, 1), 8**-0.5) + rounding
    search = Search.of(side, side, first.device)
    u, v, _ = displacement(correlation(first, second, search), search).view(3, side, side)[:, 7:-7, 7:-7]
    assert float(torch.stack([u, v]).abs().max()) < 1e-3


def test_nothing_is_found_outside_the_map() -> None:
    search = Search.of(3, 3, torch.device("cpu"))
    alike = torch.ones(1, 4, 9) / 2
    inside = correlation(alike, alike, search).view(5, 5, 3, 3)
    for down in range(-2, 3):
        for right in range(-2, 3):
            held = torch.zeros(3, 3)
            held[max(0, -down) : 3 - max(0, down), max(0, -right) : 3 - max(0, right)] = 1
            torch.testing.assert_close(inside[down + 2, right + 2], held)


def test_the_last_frame_moves_as_the_one_before() -> None:
    module = randomised(MotionSqueeze(CHANNELS, FRAMES))
    x = torch.randn(CLIPS * FRAMES, CHANNELS, 4, 4, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        motion = (module(x) - x).view(CLIPS, FRAMES, -1)
    torch.testing.assert_close(motion[:, -1], motion[:, -2], atol=1e-5, rtol=1e-5)
    assert float((motion[:, 0] - motion[:, 1]).abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("trunk", "stage"),
    [
        (resnet.resnet_thin, 1),
        (resnet.resnet18, 1),
        (backbone.mobilenet_v2, 2),
        (lambda: backbone.efficientnet_lite0(pretrained=False), 2),
    ],
    ids=["resnet-thin", "resnet18", "mobilenetv2", "efficientnet-lite0"],
)
def test_it_stands_where_the_map_has_an_eighth_of_the_side(trunk, stage: int) -> None:  # type: ignore[no-untyped-def]
    net = msnet.build(trunk(), Shape(3, 2)).eval()
    assert [isinstance(one, MotionSqueeze) for one in net.between] == [
        index == stage for index in range(len(net.between))
    ]
    sides = []
    net.between[stage].register_forward_hook(lambda _, given, __: sides.append(given[0].shape[-1]))
    with torch.no_grad():
        net(torch.zeros(1, 2, 3, 64, 64))
    assert sides == [8]


def test_every_weight_of_it_learns() -> None:
    module = MotionSqueeze(CHANNELS, FRAMES).train()
    x = torch.randn(CLIPS * FRAMES, CHANNELS, 4, 4, generator=torch.Generator().manual_seed(4))
    (module(x) * torch.randn_like(x)).sum().backward()
    assert all(weight.grad is not None and float(weight.grad.abs().max()) > 0 for weight in module.parameters())
