"""The online net: its step form equals its clip form, it exports, and it learns what only time order tells apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import tiny

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from kinewatch_models import quantise, steps, stored  # noqa: E402
from kinewatch_models.arch import backbone  # noqa: E402
from kinewatch_models.arch.layers import ConvNorm  # noqa: E402
from kinewatch_models.recipe import NetSpec, TrainSpec  # noqa: E402
from kinewatch_models.stream import Graph  # noqa: E402
from kinewatch_models.train import export, loop  # noqa: E402
from kinewatch_models.train.net import ActionNet, OnlineStep, build, early_fusion, state_shapes, zero_states  # noqa: E402

SIZE, LENGTH, CHANNELS = 24, 5, 16
EVERY_BLOCK = 1


def tiny_net(
    shift_from: int, architecture: str = "tsm-online", seen: str = "difference", gru_units: int = 0
) -> ActionNet:
    blocks = [backbone.inverted(3, 1, 2, CHANNELS, CHANNELS) for _ in range(3)]
    trunk = backbone.Trunk(ConvNorm(3, CHANNELS, 3, 2), [blocks], ConvNorm(CHANNELS, 32, 1), 32)
    spec = NetSpec(architecture, seen, "tiny", 0, 0.0, 1.0, 4, shift_from, gru_units=gru_units)
    return ActionNet(spec, 2, trunk)


def moving_squares(count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Squares that go left or right and end anywhere; half are bright, half dark.

    Neither the last picture nor the last difference tells the direction: a bright square that goes left changes the
    picture as a dark one that goes right does.
    """
    right = rng.integers(0, 2, count)
    sign = rng.choice([-1.0, 1.0], count)
    clips = rng.normal(0, 0.05, (count, LENGTH, 3, SIZE, SIZE)).astype(np.float32)
    for index in range(count):
        top, last, speed = rng.integers(2, 14), rng.integers(8, 11), rng.integers(1, 3)
        for step in range(LENGTH):
            back = speed * (LENGTH - 1 - step)
            left = last - back if right[index] else last + back
            clips[index, step, :, top : top + 6, left : left + 6] += 2 * sign[index]
    return torch.from_numpy(clips), torch.from_numpy(right)


def accuracy_after_training(architecture: str, seen: str) -> float:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    net = tiny_net(EVERY_BLOCK, architecture, seen)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-2)
    steps = 120
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=steps)
    for _ in range(steps):
        clips, right = moving_squares(16, rng)
        loss = nn.functional.cross_entropy(net(clips)[:, -1], right)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    net.eval()
    clips, right = moving_squares(300, np.random.default_rng(1))
    with torch.no_grad():
        return float((net(clips)[:, -1].argmax(1) == right).float().mean())


@pytest.mark.parametrize(
    ("architecture", "seen"), [("tsm-online", "difference"), ("tsm", "rgb"), ("tsm-online", "both")]
)
def test_shift_learns_direction(architecture: str, seen: str) -> None:
    assert accuracy_after_training(architecture, seen) > 0.95


@pytest.mark.parametrize("seen", ["rgb", "difference"])
def test_without_a_shift_direction_stays_chance(seen: str) -> None:
    assert accuracy_after_training("tsn", seen) < 0.65


def test_early_fusion_keeps_the_response_to_equal_halves() -> None:
    stem = ConvNorm(3, CHANNELS, 3, 2)
    stem.gamma.data.uniform_(0.5, 2)
    stem.mean.uniform_(-1, 1)
    x = torch.randn(2, 3, SIZE, SIZE)
    torch.testing.assert_close(early_fusion(stem)(torch.cat([x, x], 1)), stem(x), atol=1e-5, rtol=1e-5)


def test_early_fusion_can_tell_picture_and_change_apart() -> None:
    weight = early_fusion(ConvNorm(3, CHANNELS, 3, 2)).weight
    ratio = weight[:, :3].flatten(1).norm(dim=1) / weight[:, 3:].flatten(1).norm(dim=1)
    assert (ratio[::2] > 2).all()
    assert (ratio[1::2] < 0.5).all()


def large_net(name: str, shifted: int) -> ActionNet:
    net = build(NetSpec("tsm-online", "difference", name, 4, 0.5), 3, 5, pretrained=False)
    assert sum(net.shifted) == shifted
    return net


@pytest.mark.parametrize(
    "net",
    [
        *(tiny_net(EVERY_BLOCK, seen=seen) for seen in ("rgb", "difference", "both")),
        tiny_net(EVERY_BLOCK, gru_units=8),
        large_net("efficientnet-lite0", 8),
        large_net("mobilenetv2", 9),
    ],
    ids=["rgb", "difference", "both", "memory", "efficientnet", "mobilenet"],
)
def test_step_equals_clip(net: ActionNet) -> None:
    net.eval()
    step = OnlineStep(net)
    frames = torch.randn(1, 5, 3, 48, 48)
    states = zero_states(state_shapes(net, 48))
    with torch.no_grad():
        expected = net(frames)[0]
        scale = max(1.0, float(expected.abs().max()))
        for index in range(5):
            logits, *states = step(frames[:, index], *states)
            assert float((logits[0] - expected[index]).abs().max()) < 1e-4 * scale


def test_export_matches_and_has_free_batch_axis(tmp_path: Path) -> None:
    net = tiny_net(EVERY_BLOCK)
    assert export.export(net, SIZE, LENGTH, tmp_path / "net.onnx") < 1e-4
    session = Graph(tmp_path / "net.onnx").session
    assert [node.shape[0] for node in (*session.get_inputs(), *session.get_outputs())] == ["N"] * 12
    assert [node.name for node in session.get_inputs()][:3] == ["frame", "state0", "state1"]


def test_weights_are_stored_in_half_where_half_holds_them(tmp_path: Path) -> None:
    net = tiny_net(EVERY_BLOCK)
    net.head.weight.data[0, 0] = 1e6
    export.export(net, SIZE, LENGTH, tmp_path / "net.onnx")
    kinds = {tuple(one.dims): one.data_type for one in onnx.load(str(tmp_path / "net.onnx")).graph.initializer}
    assert kinds[32, CHANNELS, 1, 1] == onnx.TensorProto.FLOAT, "a value beyond 65504 is not cut off"
    large = {shape: kind for shape, kind in kinds.items() if np.prod(shape) >= stored.LEAST_VALUES}
    assert list(large.values()).count(onnx.TensorProto.FLOAT16) == len(large) - 1 > 0


def test_weights_in_int8_are_those_that_quantisation_makes(tmp_path: Path) -> None:
    net = tiny_net(EVERY_BLOCK)
    path = tmp_path / "net.onnx"
    export.export(net, SIZE, LENGTH, path)
    frames = np.random.default_rng(1).standard_normal((LENGTH, 3, SIZE, SIZE), np.float32)
    halved, logits = path.stat().st_size, Graph(path).logits(frames)
    stored.int8(path)
    assert path.stat().st_size < halved
    assert 0 < np.abs(Graph(path).logits(frames) - logits).max() < 0.05
    quantise.quantise(path, tmp_path / "int8.onnx", [frames], every=1)
    ours, theirs = (
        {
            array.tobytes()
            for array in map(onnx.numpy_helper.to_array, onnx.load(str(file)).graph.initializer)
            if array.dtype == np.int8 and array.size >= stored.LEAST_VALUES
        }
        for file in (path, tmp_path / "int8.onnx")
    )
    assert ours
    assert ours <= theirs


def test_uneven_padding_is_part_of_the_convolution(tmp_path: Path) -> None:
    net = tiny_net(EVERY_BLOCK)
    assert export.export(net, SIZE, LENGTH, tmp_path / "net.onnx") < 1e-4
    nodes = onnx.load(str(tmp_path / "net.onnx")).graph.node
    stem = next(node for node in nodes if node.op_type == "Conv")
    assert next(list(one.ints) for one in stem.attribute if one.name == "pads") == [0, 0, 1, 1]
    assert not {"Pad", "Shape"} & {node.op_type for node in nodes}


@pytest.mark.parametrize(
    ("architecture", "seen", "plan"), [("tsm", "rgb", "clip"), ("tsn", "difference", "clip"), ("tsn", "rgb", "cached")]
)
def test_window_graphs_give_mean_logits(architecture: str, seen: str, plan: str, tmp_path: Path) -> None:
    net = tiny_net(EVERY_BLOCK, architecture, seen)
    assert export.export(net, SIZE, LENGTH, tmp_path / "net.onnx") < 1e-4
    graph = Graph(tmp_path / "net.onnx")
    assert (graph.online, graph.window, graph.head is not None) == (False, LENGTH, plan == "cached")
    frames = np.random.default_rng(1).standard_normal((2 * LENGTH, 3, SIZE, SIZE), np.float32)
    windows = np.stack([frames[end - LENGTH + 1 : end + 1] for end in graph.ends(len(frames))])
    with torch.no_grad():
        expected = net.eval()(torch.from_numpy(windows)).mean(1).numpy()
    np.testing.assert_allclose(graph.logits(frames), expected, atol=1e-4)
    assert graph.logits(frames[: LENGTH - 1]).shape == (0, 2), "no window is full yet"


def test_a_recurrent_memory_stays_in_float(tmp_path: Path) -> None:
    net = tiny_net(EVERY_BLOCK, gru_units=8)
    assert export.export(net, SIZE, LENGTH, tmp_path / "net.onnx") < 1e-4
    frames = np.random.default_rng(1).standard_normal((LENGTH, 3, SIZE, SIZE), np.float32)
    quantise.quantise(tmp_path / "net.onnx", tmp_path / "int8.onnx", [frames], every=1)
    nodes = onnx.load(str(tmp_path / "int8.onnx")).graph.node
    memory = [node for node in nodes if quantise.MEMORY in node.name]
    assert memory
    assert not {"QuantizeLinear", "DequantizeLinear"} & {node.op_type for node in memory}
    assert any(node.op_type == "QuantizeLinear" for node in nodes)
    difference = Graph(tmp_path / "int8.onnx").logits(frames) - Graph(tmp_path / "net.onnx").logits(frames)
    assert 0 < np.abs(difference).max() < 0.2


def test_the_layer_that_a_difference_goes_into_stays_in_float(tmp_path: Path) -> None:
    export.export(tiny_net(EVERY_BLOCK), SIZE, LENGTH, tmp_path / "net.onnx")
    frames = np.random.default_rng(1).standard_normal((LENGTH, 3, SIZE, SIZE), np.float32)
    spec = tiny.recipe()
    assert steps._float_parts(replace(spec, net=replace(spec.net, input="rgb"))) == ()
    quantise.quantise(
        tmp_path / "net.onnx", tmp_path / "int8.onnx", [frames], every=1, float_parts=steps._float_parts(spec)
    )
    graph = onnx.load(str(tmp_path / "int8.onnx")).graph
    widened = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    quantised = [set(node.input[:2]) <= widened for node in graph.node if node.op_type == "Conv"]
    assert quantised == [False] + [True] * (len(quantised) - 1)


def test_partial_loss_is_cross_entropy_where_the_class_is_known() -> None:
    logits, target = torch.randn(7, 3), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    weights = torch.tensor([1.0, 1.5, 1.0])
    allowed = nn.functional.one_hot(target, 3).bool()
    expected = nn.functional.cross_entropy(logits, target, weight=weights)
    torch.testing.assert_close(loop.partial_loss(logits, allowed, weights, 0.0), expected)


def test_partial_loss_leaves_allowed_classes_alone() -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    loss = loop.partial_loss(logits, torch.ones(4, 3, dtype=torch.bool), torch.ones(3), 0.1)
    assert abs(float(loss.detach())) < 1e-6


def test_resumed_run_equals_an_unbroken_one(tmp_path: Path) -> None:
    spec = TrainSpec(3, 3, LENGTH, 4, SIZE, 1e-3, 1.0, 0.01, 0.0, mixup=0.5, average=0.9, loss_from=1, consensus=0.5)

    def batches(rng: np.random.Generator):  # type: ignore[no-untyped-def]
        for _ in range(2):
            clips, right = moving_squares(4, rng)
            yield 2, clips, nn.functional.one_hot(right, 2).bool().unsqueeze(1).expand(-1, LENGTH, -1)

    def killed(line: str) -> None:
        if line.startswith("epoch 2/"):
            raise KeyboardInterrupt

    def fresh() -> ActionNet:
        torch.manual_seed(0)
        return tiny_net(EVERY_BLOCK)

    whole, broken = fresh(), fresh()
    loop.fit(whole, batches, spec, tmp_path / "whole", lambda line: None, lambda share: None)
    with pytest.raises(KeyboardInterrupt):
        loop.fit(broken, batches, spec, tmp_path / "broken", killed, lambda share: None)
    resumed = fresh()
    loop.fit(resumed, batches, spec, tmp_path / "broken", lambda line: None, lambda share: None)
    for first, second in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(first, second)
