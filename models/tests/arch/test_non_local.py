"""I3D and its non-local blocks against their equations, and where the blocks stand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from kinewatch_models.arch import i3d, non_local  # noqa: E402
from kinewatch_models.arch.export import frozen  # noqa: E402
from kinewatch_models.arch.i3d import Conv3dNorm, I3d, Unit  # noqa: E402
from kinewatch_models.arch.non_local import NonLocal  # noqa: E402
from kinewatch_models.stream import Floats  # noqa: E402

CHANNELS, STEPS, HEIGHT, WIDTH = 6, 3, 5, 4
Weights = dict[str, Floats]


def random_weights(module: torch.nn.Module, scale: float = 0.3) -> Weights:
    """Random weights and running statistics, which are returned by name."""
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if name.endswith(("variance", "gamma")):
                value.uniform_(0.5, 2.0, generator=rng)
            else:
                value.normal_(0, scale, generator=rng)
    return {name: value.numpy().astype(np.float64) for name, value in module.eval().state_dict().items()}


def run(module: torch.nn.Module, *inputs: Floats) -> Floats:
    with torch.no_grad():
        return module.eval()(*(torch.from_numpy(x.astype(np.float32)) for x in inputs)).numpy()


def maps(*shape: int) -> Floats:
    return np.random.default_rng(1).normal(size=shape)


def part(weights: Weights, name: str) -> Weights:
    return {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}


def windows(x: Floats, kernel: tuple[int, ...], stride: int, pad: tuple[int, ...], fill: float) -> Floats:
    """``[C, T, H, W]`` to what a kernel sees at each place, ``[C, T', H', W', *kernel]``; time has no stride."""
    padded = np.pad(x, [(0, 0), *((one, one) for one in pad)], constant_values=fill)
    strides = (1, stride, stride)
    counts = [(padded.shape[axis + 1] - kernel[axis]) // strides[axis] + 1 for axis in range(3)]
    seen = np.empty((len(x), *counts, *kernel))
    for place in product(*map(range, counts)):
        begins = [at * step for at, step in zip(place, strides, strict=True)]
        cut = tuple(slice(begin, begin + side) for begin, side in zip(begins, kernel, strict=True))
        seen[(slice(None), *place)] = padded[(slice(None), *cut)]
    return seen


def layer(x: Floats, weights: Weights, stride: int = 1, act: bool = True) -> Floats:
    """Convolution, norm and ReLU of ``[C, T, H, W]``."""
    kernel = weights["weight"].shape[2:]
    seen = windows(x, kernel, stride, tuple(side // 2 for side in kernel), 0.0)
    y = np.empty((len(weights["weight"]), *seen.shape[1:4]))
    for place in product(*map(range, seen.shape[1:4])):
        for channel, taps in enumerate(weights["weight"]):
            y[(channel, *place)] = (taps * seen[(slice(None), *place)]).sum()
    for channel in range(len(y)):
        deviation = np.sqrt(weights["variance"][channel] + 1e-5)
        y[channel] = (y[channel] - weights["mean"][channel]) / deviation * weights["gamma"][channel]
        y[channel] += weights["beta"][channel]
    return np.maximum(y, 0) if act else y


def unit(x: Floats, weights: Weights, stride: int) -> Floats:
    y = layer(layer(x, part(weights, "expand")), part(weights, "spatial"), stride)
    y = layer(y, part(weights, "project"), act=False)
    skip = part(weights, "skip")
    return np.maximum(y + (layer(x, skip, stride, act=False) if skip else x), 0)


def attended(x: Floats, weights: Weights) -> Floats:
    """The non-local block of ``[C, T, H, W]``, place by place."""
    half = len(x) // 2
    _, steps, height, width = x.shape
    pooled = np.stack(
        [
            x[:, t, h : h + 2, w : w + 2].max((1, 2))
            for t, h, w in product(range(steps), range(0, height - 1, 2), range(0, width - 1, 2))
        ]
    )

    def embedded(name: str, one: Floats) -> Floats:
        return weights[f"{name}.weight"][:, :, 0, 0, 0] @ one + weights[f"{name}.bias"]

    keys = [embedded("phi", one) for one in pooled]
    values = [embedded("g", one) for one in pooled]
    y = np.empty((half, *x.shape[1:]))
    for t, h, w in product(*map(range, x.shape[1:])):
        scores = np.array([embedded("theta", x[:, t, h, w]) @ key / np.sqrt(half) for key in keys])
        shares = np.exp(scores - scores.max())
        total = sum(share * value for share, value in zip(shares, values, strict=True))
        y[:, t, h, w] = total / shares.sum()
    return x + layer(y, part(weights, "restore"), act=False)


def trunk_map(clip: Floats, weights: Weights, blocks: tuple[int, ...]) -> Floats:
    """The last map of one clip ``[T, 3, H, W]``, with non-local blocks behind every other unit of the middle stages."""
    x = layer(clip.transpose(1, 0, 2, 3), part(weights, "stem.0"), 2)
    x = windows(x, (1, 3, 3), 2, (0, 1, 1), -np.inf).max((4, 5, 6))
    for stage, count in enumerate(blocks):
        if stage == 1:
            x = np.maximum(x[:, ::2], x[:, 1::2])
        for index in range(count):
            name = f"stages.{stage}.{index}"
            x = unit(x, part(weights, name), 2 if stage in (1, 2) and not index else 1)
            if stage in (1, 2) and index % 2:
                x = attended(x, part(weights, f"{name}.after"))
    return x


@pytest.mark.parametrize(("kernel", "stride"), [((5, 7, 7), 2), ((3, 1, 1), 1), ((1, 3, 3), 2), ((1, 1, 1), 2)])
def test_a_layer_is_its_equations(kernel: tuple[int, int, int], stride: int) -> None:
    module, x = Conv3dNorm(CHANNELS, 4, kernel, stride), maps(2, CHANNELS, STEPS, HEIGHT, WIDTH)
    weights, found = random_weights(module), run(module, x)
    assert np.abs(found - np.stack([layer(one, weights, stride) for one in x])).max() < 1e-4
    assert np.abs(run(frozen(module), x) - found).max() < 1e-5


def test_a_layer_in_training_takes_the_statistics_of_its_batch_and_keeps_them() -> None:
    module, x = Conv3dNorm(CHANNELS, 4, (3, 1, 1), act=""), torch.randn(2, CHANNELS, STEPS, HEIGHT, WIDTH)
    with torch.no_grad():
        y = module.train()(x)
    torch.testing.assert_close(y.mean((0, 2, 3, 4)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std((0, 2, 3, 4), unbiased=False), torch.ones(4), atol=1e-3, rtol=0)
    assert float(module.mean.abs().max()) > 0


@pytest.mark.parametrize(("inputs", "stride", "taps"), [(CHANNELS, 2, 3), (8, 1, 1)])
def test_a_unit_is_its_equations(inputs: int, stride: int, taps: int) -> None:
    module, x = Unit(inputs, 2, stride, taps), maps(2, inputs, STEPS, HEIGHT, WIDTH)
    weights, found = random_weights(module), run(module, x)
    assert np.abs(found - np.stack([unit(one, weights, stride) for one in x])).max() < 1e-4


def test_a_block_is_its_equations() -> None:
    module, x = NonLocal(CHANNELS), maps(2, CHANNELS, STEPS, HEIGHT, WIDTH)
    weights = random_weights(module, 0.7)
    assert np.abs(run(module, x) - np.stack([attended(one, weights) for one in x])).max() < 1e-4


def test_a_block_begins_as_identity() -> None:
    x = maps(2, CHANNELS, STEPS, HEIGHT, WIDTH).astype(np.float32)
    assert np.array_equal(run(NonLocal(CHANNELS), x), x)


def test_the_last_frame_reaches_the_far_corner_of_the_first() -> None:
    module, x = NonLocal(CHANNELS), maps(1, CHANNELS, STEPS, HEIGHT, WIDTH)
    random_weights(module)
    changed = x.copy()
    changed[:, :, -1, 0, 0] += 5
    assert np.abs(run(module, changed) - run(module, x))[0, :, 0, -1, -1].max() > 1e-3


def test_the_trunk_is_its_equations() -> None:
    blocks = (1, 2, 2, 2)
    trunk, clips = I3d(2, blocks), maps(2, 4, 3, 32, 32)
    non_local.insert(trunk)
    weights, found = random_weights(trunk, 0.1), run(trunk, clips)
    assert found.shape == (2, trunk.features, 2, 2, 2)
    expected = np.stack([trunk_map(clip, weights, blocks) for clip in clips])
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_sizes_and_places_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        trunk = i3d.i3d_resnet50()
        plain = sum(one.numel() for one in trunk.parameters())
        non_local.insert(trunk)
        assert trunk(torch.empty(1, 32, 3, 224, 224)).shape == (1, 2048, 16, 14, 14)
    units = [list(stage) for stage in trunk.stages]
    taps = [[one.expand.weight.shape[2] // 2 for one in stage] for stage in units]
    assert taps == [[1, 1, 1], [1, 0, 1, 0], [1, 0, 1, 0, 1, 0], [0, 1, 0]]
    places = [[index for index, one in enumerate(stage) if isinstance(one.after, NonLocal)] for stage in units]
    assert places == [[], [1, 3], [1, 3, 5], []]
    assert sum(one.numel() for one in trunk.parameters()) - plain == sum(
        count * (2 * channels * channels + 4.5 * channels - channels) for count, channels in ((2, 512), (3, 1024))
    )
