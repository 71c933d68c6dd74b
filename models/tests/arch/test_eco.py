"""ECO and its 2D net against their equations, and what is kept of a frame."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from kinewatch_models.arch import bninception, eco  # noqa: E402
from kinewatch_models.arch.window import Shape  # noqa: E402
from kinewatch_models.error import ToolError  # noqa: E402
from kinewatch_models.stream import Floats  # noqa: E402

CLASSES = 3
MAP, FEATURES = 6, 34
"""Channels of the thin net's map, and length of its 2D feature."""
Weights = dict[str, Floats]


def _random(net: torch.nn.Module) -> Weights:
    """Random weights and statistics; returns both by name."""
    torch.manual_seed(2)
    with torch.no_grad():
        for name, value in [*net.named_parameters(), *net.named_buffers()]:
            if name.endswith("var") or name.endswith("variance"):
                value.uniform_(0.5, 2.0)
            elif name.endswith("gamma"):
                value.uniform_(0.5, 1.5)
            elif value.is_floating_point():
                value.normal_(0, 0.3)
    return {name: value.detach().numpy().astype(np.float64) for name, value in net.state_dict().items()}


def _run(module: torch.nn.Module, *inputs: Floats) -> Floats:
    with torch.no_grad():
        return module.eval()(*(torch.from_numpy(x.astype(np.float32)) for x in inputs)).numpy()


def _windows(x: Floats, kernel: int, stride: int, pad: int, fill: float, outside: int = 0) -> Floats:
    """``[C, *sizes]`` to ``[C, *places, *kernel]``: what a kernel sees; `outside` more is seen at the ends."""
    axes = x.ndim - 1
    padded = np.pad(x, [(0, 0)] + [(pad, pad + outside)] * axes, constant_values=fill)
    places = [(size + 2 * pad + outside - kernel) // stride + 1 for size in x.shape[1:]]
    out = np.empty((len(x), *places, *[kernel] * axes))
    for place in product(*map(range, places)):
        at = tuple(slice(stride * one, stride * one + kernel) for one in place)
        out[(slice(None), *place)] = padded[(slice(None), *at)]
    return out


def _conv(x: Floats, weight: Floats, stride: int = 1) -> Floats:
    """A convolution of any number of axes, padded by half the kernel, output by output."""
    seen = _windows(x, weight.shape[-1], stride, weight.shape[-1] // 2, 0.0)
    places = seen.shape[1 : x.ndim]
    out = np.empty((len(weight), *places))
    for channel, place in product(range(len(weight)), product(*map(range, places))):
        out[(channel, *place)] = (seen[(slice(None), *place)] * weight[channel]).sum()
    return out


def _norm(x: Floats, scale: Floats, shift: Floats, mean: Floats, variance: Floats) -> Floats:
    scale, shift, mean, variance = (one.reshape(-1, *[1] * (x.ndim - 1)) for one in (scale, shift, mean, variance))
    return (x - mean) / np.sqrt(variance + 1e-5) * scale + shift


def _layer(x: Floats, weights: Weights, name: str, stride: int = 1) -> Floats:
    """Convolution, norm, ReLU of a 2D layer."""
    statistics = (weights[f"{name}.{one}"] for one in ("gamma", "beta", "mean", "variance"))
    return np.maximum(_norm(_conv(x, weights[f"{name}.weight"], stride), *statistics), 0)


def _activation(x: Floats, weights: Weights, name: str) -> Floats:
    """Norm and ReLU of the 3D net."""
    names = ("weight", "bias", "running_mean", "running_var")
    return np.maximum(_norm(x, *(weights[f"{name}.0.{one}"] for one in names)), 0)


def _halved(x: Floats) -> Floats:
    """Maxima of 3x3 pixels every 2, without padding, rounded up."""
    return _windows(x, 3, 2, 0, -np.inf, 1).max((-2, -1))


def _unit(total: Floats, weights: Weights, name: str, stride: int) -> Floats:
    x = _activation(total, weights, f"{name}.before")
    y = _activation(_conv(x, weights[f"{name}.first.weight"], stride), weights, f"{name}.between")
    skip = total if stride == 1 else _conv(x, weights[f"{name}.down.weight"], stride)
    return _conv(y, weights[f"{name}.second.weight"]) + skip


def _volume(maps: Floats, weights: Weights, prefix: str = "") -> Floats:
    """The 3D net over maps ``[T, C, H, W]``."""
    total = _conv(maps.transpose(1, 0, 2, 3), weights[f"{prefix}layers.0.weight"])
    for layer, stride in enumerate([1, 2, 1, 2, 1], 1):
        total = _unit(total, weights, f"{prefix}layers.{layer}", stride)
    return _activation(total, weights, f"{prefix}layers.6").mean((1, 2, 3))


@pytest.mark.parametrize(("kind", "pool"), [("mean", torch.nn.AvgPool2d), ("max", torch.nn.MaxPool2d)])
def test_an_inception_unit_joins_four_branches(kind: str, pool: type[torch.nn.Module]) -> None:
    unit = bninception.Inception(4, (2, 3, 5, 2, 4, 3), pool(3, 1, 1))
    weights, x = _random(unit), np.random.default_rng(0).normal(size=(4, 5, 6))
    mean = kind == "mean"
    seen = _windows(x, 3, 1, 1, 0.0 if mean else -np.inf)
    pooled = seen.mean((-2, -1)) if mean else seen.max((-2, -1))
    two = _layer(_layer(_layer(x, weights, "two.0"), weights, "two.1"), weights, "two.2")
    three = _layer(_layer(x, weights, "three.0"), weights, "three.1")
    expected = [_layer(x, weights, "one"), three, two, _layer(pooled, weights, "pooled.1")]
    assert np.abs(_run(unit, x[None])[0] - np.concatenate(expected)).max() < 1e-4


def test_a_halving_unit_joins_three_branches() -> None:
    unit = bninception.Halving(4, (3, 5, 2, 4))
    weights, x = _random(unit), np.random.default_rng(0).normal(size=(4, 8, 6))
    three = _layer(_layer(x, weights, "join.three.0"), weights, "join.three.1", 2)
    started = _layer(_layer(x, weights, "start.0"), weights, "start.1")
    expected = [three, _layer(started, weights, "join.second", 2), _halved(x)]
    found = _run(unit, x[None])[0]
    assert found.shape == (unit.outputs, 4, 3)
    assert np.abs(found - np.concatenate(expected)).max() < 1e-4


def test_the_stem_brings_the_picture_to_an_eighth() -> None:
    stem = bninception.bninception(16).stem
    weights, x = _random(stem), np.random.default_rng(0).normal(size=(3, 16, 32))
    expected = _halved(_layer(_layer(_halved(_layer(x, weights, "0", 2)), weights, "2"), weights, "3"))
    assert expected.shape == (12, 2, 4)
    assert np.abs(_run(stem, x[None])[0] - expected).max() < 1e-4


@pytest.mark.parametrize("frames", [4, 8])
def test_the_3d_net_is_that_of_the_equations(frames: int) -> None:
    volume = eco.Volume(bninception.THIN)
    weights, maps = _random(volume), np.random.default_rng(0).normal(size=(2, frames, MAP, 4, 6))
    found = _run(volume, maps)
    assert found.shape == (2, 16)
    assert np.abs(found - [_volume(one, weights) for one in maps]).max() < 1e-4


def test_full_joins_the_mean_of_frames_and_the_volume() -> None:
    head = eco.FullHead(bninception.bninception_thin(), Shape(CLASSES, 4))
    weights, rng = _random(head), np.random.default_rng(0)
    maps, features = rng.normal(size=(2, 4, MAP, 4, 4)), rng.normal(size=(2, 4, FEATURES))
    found = _run(head, np.concatenate([maps.reshape(2, 4, -1), features], 2))
    for window in range(2):
        joined = np.concatenate([features[window].mean(0), _volume(maps[window], weights, "volume.")])
        expected = weights["classifier.weight"] @ joined + weights["classifier.bias"]
        assert np.abs(found[window] - expected).max() < 1e-4


def test_sizes_are_those_of_the_paper() -> None:
    trunk = bninception.bninception()
    assert [unit.outputs for unit in trunk.body] == [256, 320, 576, 576, 576, 608, 608, 1056, 1024, 1024]
    assert trunk.middle.start[-1].outputs == 96
    thin = bninception.bninception_thin()
    frame = np.zeros((1, 3, 224, 224))
    early = _run(thin.early, frame)
    assert early.shape[2:] == (28, 28)
    assert _run(thin.middle.start, early).shape == (1, MAP, 28, 28)
    assert _run(thin.late, _run(thin.middle, early)).shape == (1, FEATURES, 7, 7)


def test_what_full_keeps_of_a_frame_is_the_map_of_lite_and_the_2d_feature() -> None:
    trunk = bninception.bninception_thin()
    lite, full = eco.build_lite(trunk, Shape(CLASSES, 4)), eco.build_full(trunk, Shape(CLASSES, 4))
    _random(full)
    frames = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    with torch.no_grad():
        kept = full.eval().features(torch.from_numpy(frames)).numpy()
        maps = lite.eval().features(torch.from_numpy(frames)).numpy()
    assert maps.shape == (2, MAP, 8, 8)
    assert np.array_equal(kept[:, : MAP * 8 * 8].reshape(maps.shape), maps)
    feature = _run(trunk.late, _run(trunk.middle, _run(trunk.early, frames))).mean((2, 3))
    assert np.abs(kept[:, MAP * 8 * 8 :] - feature).max() < 1e-5


def test_lite_holds_nothing_of_the_rest_of_the_2d_net() -> None:
    lite, full = (
        build(bninception.bninception_thin(), Shape(CLASSES, 4)) for build in (eco.build_lite, eco.build_full)
    )
    names = [{name.split(".")[0] for name in net.state_dict()} for net in (lite, full)]
    assert names[1] - names[0] == {"join", "late"}


@pytest.mark.parametrize("build", [eco.build_lite, eco.build_full])
def test_windows_are_multiples_of_four_frames(build: object) -> None:
    assert callable(build)
    with pytest.raises(ToolError, match="multiple of 4"):
        build(bninception.bninception_thin(), Shape(CLASSES, 6))
