"""TRN against its equations, and which tuples of frames it compares."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from kinewatch_models.arch import resnet, trn  # noqa: E402
from kinewatch_models.arch.window import Shape, WindowNet  # noqa: E402
from kinewatch_models.error import ToolError  # noqa: E402
from kinewatch_models.stream import Floats  # noqa: E402

CLASSES = 3


def _random(net: torch.nn.Module) -> dict[str, Floats]:
    """Random weights and statistics; returns the parameters by name."""
    torch.manual_seed(2)
    with torch.no_grad():
        for name, value in [*net.named_parameters(), *net.named_buffers()]:
            if name.endswith("variance"):
                value.uniform_(0.5, 2.0)
            elif value.is_floating_point():
                value.normal_(0, 0.1)
    return {name: value.detach().numpy().astype(np.float64) for name, value in net.named_parameters()}


def _relation(features: Floats, tuples: list[tuple[int, ...]], weights: dict[str, Floats], prefix: str) -> Floats:
    """One window's logits by the equation, tuple by tuple."""
    total = np.zeros(CLASSES)
    for chosen in tuples:
        joined = np.concatenate([features[t] for t in chosen])
        hidden = weights[f"{prefix}hidden.weight"] @ np.maximum(joined, 0) + weights[f"{prefix}hidden.bias"]
        total += weights[f"{prefix}classifier.weight"] @ np.maximum(hidden, 0) + weights[f"{prefix}classifier.bias"]
    return total


def _features(frames: int, windows: int = 2) -> Floats:
    return np.random.default_rng(3).normal(size=(windows, frames, trn.FEATURES)).astype(np.float32)


def test_single_scale_joins_all_frames_in_their_order() -> None:
    net = trn.build(resnet.resnet_thin(16), Shape(CLASSES, 5)).eval()
    weights, features = _random(net.consensus), _features(5)
    assert weights["hidden.weight"].shape == (512, 5 * 256)
    with torch.no_grad():
        found = net.consensus(torch.from_numpy(features)).numpy()
    expected = [_relation(window, [(0, 1, 2, 3, 4)], weights, "") for window in features]
    assert np.abs(found - expected).max() < 1e-4


@pytest.mark.parametrize("frames", [2, 3, 5, 8])
def test_multi_scale_sums_relations_of_every_length(frames: int) -> None:
    net = trn.build_multiscale(resnet.resnet_thin(16), Shape(CLASSES, frames)).eval()
    weights, features = _random(net.consensus), _features(frames)
    with torch.no_grad():
        found = net.consensus(torch.from_numpy(features)).numpy()
    for window, logits in zip(features, found, strict=True):
        expected = np.zeros(CLASSES)
        for scale, length in enumerate(range(frames, 1, -1)):
            prefix, chosen = f"scales.{scale}.", trn.tuples(frames, length)
            assert weights[f"{prefix}hidden.weight"].shape == (256, length * 256)
            expected += _relation(window, chosen, weights, prefix)
        assert np.abs(logits - expected).max() < 1e-4


def test_a_frame_gives_a_linear_map_of_its_pooled_feature() -> None:
    net = trn.build(resnet.resnet_thin(16), Shape(CLASSES, 2)).eval()
    weights, frames = _random(net), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        pooled = WindowNet.features(net, frames).numpy()
        found = net.features(frames).numpy()
    expected = [weights["embedding.weight"] @ one + weights["embedding.bias"] for one in pooled]
    assert found.shape == (2, 256)
    assert np.abs(found - expected).max() < 1e-4


@pytest.mark.parametrize("frames", [2, 3, 4, 8])
def test_tuples_are_ordered_different_and_at_most_three(frames: int) -> None:
    for length in range(2, frames + 1):
        chosen, every = trn.tuples(frames, length), list(combinations(range(frames), length))
        assert len(set(chosen)) == len(chosen) == min(3, len(every))
        assert set(chosen) <= set(every)
        assert all(a < b for one in chosen for a, b in pairwise(one))


def test_tuples_of_eight_frames_are_spread() -> None:
    assert sum(len(trn.tuples(8, length)) for length in range(2, 9)) == 19
    assert trn.tuples(8, 2) == [(0, 5), (2, 4), (4, 6)]
    for length in range(2, 8):
        every = list(combinations(range(8), length))
        assert trn.tuples(8, length) == [every[len(every) * share // 6] for share in (1, 3, 5)]


def test_the_same_window_has_one_score_even_in_nets_built_twice() -> None:
    torch.manual_seed(0)
    one, other = (trn.build_multiscale(resnet.resnet_thin(16), Shape(CLASSES, 8)).eval() for _ in range(2))
    other.load_state_dict(one.state_dict())
    clip = torch.randn(1, 8, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(one(clip), one(clip))
        assert torch.equal(one(clip), other(clip))


def test_one_frame_has_no_relations() -> None:
    with pytest.raises(ToolError, match="at least 2"):
        trn.build_multiscale(resnet.resnet_thin(16), Shape(CLASSES, 1))
