"""TV-L1 against its equations pixel by pixel, against scikit-image, against known motion, and on both runtimes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

import runtimes  # noqa: E402

from kinewatch_models.arch import export  # noqa: E402
from kinewatch_models.arch.tvl1 import Tvl1  # noqa: E402
from kinewatch_models.stream import Floats  # noqa: E402

Doubles = NDArray[np.float64]
TAU, LAMBDA, THETA = 0.25, 0.15, 0.3
MOTIONS = {
    "1 px": (1.0, 0.0, 0.0),
    "2.5 px": (2.3, -1.1, 0.0),
    "3 px": (-2.5, 1.7, 0.0),
    "1.5 degrees": (0.0, 0.0, 1.5),
    "2 degrees and 1 px": (0.8, -0.5, 2.0),
}
motions = pytest.mark.parametrize("motion", MOTIONS.values(), ids=MOTIONS)
MARGIN = 8


def _waves(x: Doubles, y: Doubles, seed: int = 0) -> Doubles:
    """A texture from 0 to 255 that is known at every point: 40 plane waves 8 to 60 pixels long."""
    rng = np.random.default_rng(seed)
    total = np.zeros_like(x)
    for length, angle, phase in zip(rng.uniform(8, 60, 40), *rng.uniform(0, 2 * np.pi, (2, 40)), strict=True):
        total += np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / length + phase)
    return np.clip(127.5 + 16 * total, 0, 255)


def _moved(side: int, x_px: float, y_px: float, degrees: float) -> tuple[Floats, Floats, Doubles]:
    """Two pictures ``[side, side]`` of a texture that turns around the middle and shifts, and its true flow."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    flow = np.stack([c * x - s * y + x_px - x, s * x + c * y + y_px - y])
    came_from = c * (x - x_px) + s * (y - y_px), -s * (x - x_px) + c * (y - y_px)
    return _waves(x, y).astype(np.float32), _waves(*came_from).astype(np.float32), flow


def _flow(net: Tvl1, first: Floats, second: Floats) -> Floats:
    with torch.no_grad():
        found: Floats = net(*(torch.from_numpy(one)[None, None] for one in (first, second)))[0].numpy()
    return found


def _distance(one: Doubles | Floats, other: Doubles | Floats) -> Doubles:
    """End-point difference of two flows away from the border, where the texture comes and goes."""
    inner = slice(MARGIN, -MARGIN)
    return np.hypot(*(one - other))[inner, inner]


def _at(picture: Doubles, y: int, x: int) -> float:
    """A pixel of the picture continued beyond its border."""
    height, width = picture.shape
    return float(picture[min(max(y, 0), height - 1), min(max(x, 0), width - 1)])


def _between(picture: Doubles, y: float, x: float) -> float:
    """The picture at any point, bilinear, continued beyond its border."""
    height, width = picture.shape
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = int(y), int(x)
    fy, fx = y - top, x - left
    above = (1 - fx) * _at(picture, top, left) + fx * _at(picture, top, left + 1)
    below = (1 - fx) * _at(picture, top + 1, left) + fx * _at(picture, top + 1, left + 1)
    return (1 - fy) * above + fy * below


def _blurred(picture: Doubles, sigma: float, offsets: list[float], stride: int) -> Doubles:
    """Gaussian-weighted mean of pixels at `offsets` from the middle of a coarser pixel."""
    height, width = picture.shape
    weights = np.array([[np.exp(-(b * b + a * a) / (2 * sigma * sigma)) for a in offsets] for b in offsets])
    middle = (stride - 1) / 2
    found = np.zeros((height // stride, width // stride))
    for y, x in np.ndindex(found.shape):
        for j, b in enumerate(offsets):
            for i, a in enumerate(offsets):
                found[y, x] += weights[j, i] * _at(picture, int(stride * y + middle + b), int(stride * x + middle + a))
    return found / weights.sum()


def _enlarged(flow: Doubles, height: int, width: int) -> Doubles:
    _, low, narrow = flow.shape
    found = np.zeros((2, height, width))
    for k, y, x in np.ndindex(found.shape):
        found[k, y, x] = 2 * _between(flow[k], (y + 0.5) * low / height - 0.5, (x + 0.5) * narrow / width - 0.5)
    return found


def _data_step(residual: float, gradient: Doubles) -> Doubles:
    """The thresholding of the article, case by case."""
    square, bound = float(gradient @ gradient), LAMBDA * THETA
    if residual < -bound * square:
        return bound * gradient
    if residual > bound * square:
        return -bound * gradient
    return -residual / square * gradient if square > 0 else np.zeros(2)


def _one_level(first: Doubles, second: Doubles, flow: Doubles, warps: int, iterations: int) -> Doubles:
    height, width = first.shape
    pixels = list(np.ndindex(first.shape))
    slopes = np.zeros((2, height, width))
    for y, x in pixels:
        slopes[0, y, x] = (_at(second, y, x + 1) - _at(second, y, x - 1)) / 2
        slopes[1, y, x] = (_at(second, y + 1, x) - _at(second, y - 1, x)) / 2
    u, p = flow.copy(), np.zeros((2, 2, height, width))
    for _ in range(warps):
        start, g, seen = u.copy(), np.zeros_like(u), np.zeros_like(first)
        for y, x in pixels:
            there = y + u[1, y, x], x + u[0, y, x]
            seen[y, x] = _between(second, *there)
            g[:, y, x] = [_between(slope, *there) for slope in slopes]
        for _ in range(iterations):
            after = np.zeros_like(u)
            for y, x in pixels:
                residual = seen[y, x] + g[:, y, x] @ (u[:, y, x] - start[:, y, x]) - first[y, x]
                after[:, y, x] = u[:, y, x] + _data_step(residual, g[:, y, x])
                for k in range(2):
                    along_x = (p[k, 0, y, x] if x < width - 1 else 0) - (p[k, 0, y, x - 1] if x > 0 else 0)
                    along_y = (p[k, 1, y, x] if y < height - 1 else 0) - (p[k, 1, y - 1, x] if y > 0 else 0)
                    after[k, y, x] += THETA * (along_x + along_y)
            u = after
            for (y, x), k in ((at, k) for at in pixels for k in range(2)):
                along_x = u[k, y, x + 1] - u[k, y, x] if x < width - 1 else 0.0
                along_y = u[k, y + 1, x] - u[k, y, x] if y < height - 1 else 0.0
                by = 1 + TAU / THETA * np.hypot(along_x, along_y)
                p[k, 0, y, x] = (p[k, 0, y, x] + TAU / THETA * along_x) / by
                p[k, 1, y, x] = (p[k, 1, y, x] + TAU / THETA * along_y) / by
    return u


@pytest.mark.parametrize("shape", [(16, 20), (17, 14)], ids=str)
def test_it_is_the_algorithm_of_the_article(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(4)
    pair = [_blurred(rng.uniform(0, 255, shape), 1.0, [-2, -1, 0, 1, 2], 1).astype(np.float32) for _ in range(2)]
    levels = [[_blurred(one.astype(np.float64), 0.8, [-2, -1, 0, 1, 2], 1) for one in pair]]
    for _ in range(2):
        halves = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]
        levels.append([_blurred(one, 0.6 * np.sqrt(3), halves, 2) for one in levels[-1]])
    expected = np.zeros((2, *levels[-1][0].shape))
    for first, second in reversed(levels):
        if expected.shape[1:] != first.shape:
            expected = _enlarged(expected, *first.shape)
        expected = _one_level(first, second, expected, 2, 3)
    found = _flow(Tvl1(levels=3, warps=2, iterations=3), *pair)
    assert np.abs(expected).max() > 1.0
    assert np.abs(found - expected).max() < 1e-4


def test_a_still_picture_does_not_move() -> None:
    first, _, _ = _moved(64, 0, 0, 0)
    for picture in (first, np.full_like(first, 90.0)):
        assert np.abs(_flow(Tvl1(), picture, picture)).max() < 1e-4


@motions
def test_it_finds_known_motion(motion: tuple[float, float, float]) -> None:
    first, second, flow = _moved(144, *motion)
    assert np.median(_distance(_flow(Tvl1(), first, second), flow)) <= 0.1


@motions
def test_it_agrees_with_scikit_image(motion: tuple[float, float, float]) -> None:
    registration = pytest.importorskip("skimage.registration")
    first, second, _ = _moved(144, *motion)
    # its pictures go from 0 to 1, and rows come first
    y, x = registration.optical_flow_tvl1(first / 255, second / 255, attachment=LAMBDA * 255, tightness=THETA)
    distance = _distance(_flow(Tvl1(), first, second), np.stack([x, y]))
    print(f"end-point difference: median {np.median(distance):.3f}, 95 % {np.quantile(distance, 0.95):.3f} px")
    assert np.median(distance) <= 0.3


def test_runtimes_find_the_same_flow(tmp_path: Path) -> None:
    pairs = [_moved(48, *motion) for motion in ((2.0, 1.0, 0.0), (-1.0, 0.5, 2.0))]
    given = [np.stack([pair[at] for pair in pairs])[:, None] for at in range(2)]
    net, example = Tvl1(), tuple(torch.from_numpy(one) for one in given)
    path = tmp_path / "flow.onnx"
    export.graph(net, example, ["first", "second"], ["flow"], path)
    with torch.no_grad():
        expected = net(*example).numpy()
    for run in (runtimes.ort(path), runtimes.on_tract(path)):
        assert np.abs(run(*given) - expected).max() < 1e-3
