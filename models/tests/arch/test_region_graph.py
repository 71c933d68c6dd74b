"""Space-time region graphs against their equations, and region pooling against torchvision's."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from kinewatch_models.arch import i3d, region_graph  # noqa: E402
from kinewatch_models.arch.region_graph import GraphConv, RegionGraph, RegionGraphNet, Regions, overlaps  # noqa: E402
from kinewatch_models.arch.window import Shape  # noqa: E402
from kinewatch_models.error import ToolError  # noqa: E402
from kinewatch_models.stream import Floats  # noqa: E402

CHANNELS, STEPS, BOXES, CLASSES = 5, 3, 4, 3
BINS, POINTS = 7, 2
Weights = dict[str, Floats]


def random_weights(module: torch.nn.Module) -> Weights:
    """Random weights and running statistics, which are returned by name."""
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if name.endswith(("variance", "gamma")):
                value.uniform_(0.5, 1.5, generator=rng)
            else:
                value.normal_(0, 0.3, generator=rng)
    return {name: value.numpy().astype(np.float64) for name, value in module.eval().state_dict().items()}


def run(module: torch.nn.Module, *inputs: Floats) -> Floats:
    with torch.no_grad():
        return module.eval()(*(torch.from_numpy(x.astype(np.float32)) for x in inputs)).numpy()


def boxes(clips: int = 2) -> Floats:
    """Boxes within the picture, of which one is all of it, one a strip at its end and one apart from the others."""
    rng = np.random.default_rng(1)
    made = rng.uniform(0, 0.4, size=(clips, BOXES, 4))
    made[:, :, 2:] += 0.45
    made[:, 1], made[:, 2], made[:, 3] = (0, 0, 1, 1), (0.9, 0, 1, 0.97), (0.01, 0.98, 0.04, 1)
    return made


def maps(clips: int = 2) -> Floats:
    return np.random.default_rng(2).normal(size=(clips, CHANNELS, STEPS, 6, 9))


def at(picture: Floats, y: float, x: float) -> Floats:
    """``[C, H, W]`` between the centres of its pixels, the outermost ones reaching to the ends."""
    _, height, width = picture.shape
    y, x = np.clip(y - 0.5, 0, height - 1), np.clip(x - 0.5, 0, width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    above = picture[:, top, left] * (1 - x + left) + picture[:, top, right] * (x - left)
    below = picture[:, bottom, left] * (1 - x + left) + picture[:, bottom, right] * (x - left)
    return above * (1 - y + top) + below * (y - top)


def pooled(picture: Floats, box: Floats) -> Floats:
    """One box of ``[C, H, W]``: the maximum over bins of the means of their points."""
    _, height, width = picture.shape
    x0, y0, x1, y1 = box
    means = []
    for row, column in product(range(BINS), range(BINS)):
        points = []
        for down, right in product(range(POINTS), range(POINTS)):
            y = y0 + (row + (down + 0.5) / POINTS) / BINS * (y1 - y0)
            x = x0 + (column + (right + 0.5) / POINTS) / BINS * (x1 - x0)
            points.append(at(picture, y * height, x * width))
        means.append(np.mean(points, 0))
    return np.max(means, 0)


def iou(one: Floats, other: Floats) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    common = width * height if width > 0 and height > 0 else 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return common / (areas[0] + areas[1] - common)


def neighbours(nodes: list[tuple[int, Floats]], later: int) -> Floats:
    """The graph between nodes (step, box) `later` steps apart, node by node, rows divided by their sums."""
    graph = np.zeros((len(nodes), len(nodes)))
    for i, (step, box) in enumerate(nodes):
        for j, (other_step, other_box) in enumerate(nodes):
            if other_step == step + later:
                graph[i, j] = iou(box, other_box)
        if graph[i].sum() > 0:
            graph[i] /= graph[i].sum()
    return graph


def similarity(nodes: Floats, weights: Weights) -> Floats:
    graph = np.empty((len(nodes), len(nodes)))
    for i, one in enumerate(nodes):
        scores = [weights["query.weight"] @ one @ (weights["key.weight"] @ other) for other in nodes]
        graph[i] = np.exp(np.array(scores) - max(scores))
        graph[i] /= graph[i].sum()
    return graph


def convolved(nodes: Floats, graphs: list[Floats], weights: Weights, prefix: str) -> Floats:
    """One layer, node by node."""
    made = np.empty_like(nodes)
    for i in range(len(nodes)):
        total = nodes[i].copy()
        for index, graph in enumerate(graphs):
            for j in range(len(nodes)):
                total += graph[i, j] * (weights[f"{prefix}weights.{index}.weight"] @ nodes[j])
        normed = (total - total.mean()) / np.sqrt(total.var() + 1e-5)
        made[i] = np.maximum(normed * weights[f"{prefix}norm.weight"] + weights[f"{prefix}norm.bias"], 0)
    return made


def reasoned(nodes: Floats, zones: Floats, weights: Weights, prefix: str = "") -> Floats:
    """Both nets over the nodes of one window."""
    placed = [(index // len(zones), zones[index % len(zones)]) for index in range(len(nodes))]
    graphs = {
        "similar": [similarity(nodes, {name.removeprefix(prefix): value for name, value in weights.items()})],
        "near": [neighbours(placed, 1), neighbours(placed, -1)],
    }
    total = np.zeros_like(nodes)
    for name, chosen in graphs.items():
        x = nodes
        for index in range(3):
            x = convolved(x, chosen, weights, f"{prefix}{name}.layers.{index}.")
        total += x
    return total


def test_regions_are_pooled_as_in_roi_align() -> None:
    ops = pytest.importorskip("torchvision.ops")
    clips, zones = maps(), boxes()
    found = run(Regions(), clips, zones)
    _, channels, steps, height, width = clips.shape
    scaled = torch.from_numpy(zones * (width, height, width, height)).float()
    for step in range(steps):
        aligned = ops.roi_align(torch.from_numpy(clips[:, :, step]).float(), list(scaled), BINS, 1.0, POINTS, True)
        expected = aligned.amax((2, 3)).numpy().reshape(len(clips), BOXES, channels)
        assert np.abs(found[:, step * BOXES : (step + 1) * BOXES] - expected).max() < 1e-5


def test_regions_are_their_equations() -> None:
    clips, zones = maps(), boxes()
    found = run(Regions(), clips, zones)
    assert found.shape == (2, STEPS * BOXES, CHANNELS)
    for clip, (step, index) in product(range(2), product(range(STEPS), range(BOXES))):
        expected = pooled(clips[clip, :, step], zones[clip, index])
        assert np.abs(found[clip, step * BOXES + index] - expected).max() < 1e-4


def test_a_box_of_one_pixel_sees_that_pixel() -> None:
    clips = np.zeros((1, 1, 1, 6, 9))
    clips[0, 0, 0, 5, 8] = 1
    zones = np.array([[[8.4 / 9, 5.4 / 6, 8.6 / 9, 5.6 / 6], [0, 0, 0.8, 0.8]]])
    assert run(Regions(), clips, zones).ravel() == pytest.approx([0.985, 0], abs=0.02)


def test_overlaps_are_shares_of_iou() -> None:
    zones = boxes()
    found = overlaps(torch.from_numpy(zones).float()).numpy()
    for clip, one in enumerate(zones):
        expected = np.array([[iou(box, other) for other in one] for box in one])
        assert np.abs(found[clip] - expected / expected.sum(1, keepdims=True)).max() < 1e-5
    assert found[0, 2, 3] == 0
    assert found.sum(2) == pytest.approx(1, abs=1e-5)


def test_an_empty_box_has_no_neighbours() -> None:
    zones = torch.tensor([[[0.0, 0.0, 0.5, 0.5], [0.2, 0.2, 0.2, 0.2]]])
    assert overlaps(zones).tolist() == [[[1, 0], [0, 0]]]


@pytest.mark.parametrize("steps", [1, STEPS])
def test_the_graph_is_its_equations(steps: int) -> None:
    module, zones = RegionGraph(CHANNELS, steps), boxes()
    weights, nodes = random_weights(module), np.random.default_rng(3).normal(size=(2, steps * BOXES, CHANNELS))
    found = run(module, nodes, zones)
    for clip in range(2):
        assert np.abs(found[clip] - reasoned(nodes[clip], zones[clip], weights)).max() < 1e-4


def test_front_and_back_look_one_step_ahead_and_behind() -> None:
    placed = [(step, box) for step in range(STEPS) for box in boxes()[0]]
    front, back = neighbours(placed, 1), neighbours(placed, -1)
    module, nodes = RegionGraph(CHANNELS, STEPS), np.random.default_rng(3).normal(size=(1, STEPS * BOXES, CHANNELS))
    shares = overlaps(torch.from_numpy(boxes(1)).float())
    for move, graph in ((region_graph.later, front), (region_graph.earlier, back)):
        found = module._step(move, shares, torch.from_numpy(nodes).float()).numpy()
        assert np.abs(found[0] - graph @ nodes[0]).max() < 1e-5
    assert not front[-BOXES:].any()
    assert not back[:BOXES].any()


def test_a_graph_convolution_without_weights_keeps_its_nodes() -> None:
    layer, nodes = GraphConv(CHANNELS, 1), np.random.default_rng(3).normal(size=(1, 4, CHANNELS))
    torch.nn.init.zeros_(layer.weights[0].weight)
    with torch.no_grad():
        found = layer(torch.from_numpy(nodes).float(), [torch.zeros_like]).numpy()
    normed = (nodes - nodes.mean(2, keepdims=True)) / np.sqrt(nodes.var(2, keepdims=True) + 1e-5)
    assert np.abs(found - np.maximum(normed, 0)).max() < 1e-5


def test_the_classifier_sees_the_means_of_the_map_and_of_the_nodes() -> None:
    net = region_graph.build(i3d.i3d_thin(), Shape(CLASSES, 4))
    weights, clip, zones = random_weights(net), np.random.default_rng(4).normal(size=(1, 4, 3, 48, 32)), boxes(1)
    wide = run(net.trunk, clip)[0].astype(np.float64)
    assert wide.shape == (96, 2, 3, 2)
    narrow = np.einsum("oc,cthw->othw", weights["narrow.weight"][:, :, 0, 0, 0], wide)
    narrow += weights["narrow.bias"][:, None, None, None]
    nodes = np.stack([pooled(narrow[:, step], box) for step in range(2) for box in zones[0]])
    seen = reasoned(nodes, zones[0], weights, "graph.").mean(0)
    expected = weights["classifier.weight"] @ np.concatenate([narrow.mean((1, 2, 3)), seen])
    expected += weights["classifier.bias"]
    assert np.abs(run(net, clip, zones)[0] - expected).max() < 1e-3 * np.abs(expected).max()


def test_logits_depend_on_the_boxes_but_not_on_their_order() -> None:
    net = region_graph.build(i3d.i3d_thin(), Shape(CLASSES, 4))
    random_weights(net)
    clip, zones = np.random.default_rng(4).normal(size=(1, 4, 3, 48, 32)), boxes(1)
    logits = run(net, clip, zones)
    assert np.abs(run(net, clip, zones[:, ::-1].copy()) - logits).max() < 1e-3
    assert np.abs(run(net, clip, zones * 0.5) - logits).max() > 1e-2


def test_sizes_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        net = RegionGraphNet(i3d.i3d_resnet50(), Shape(174, 32))
        maps_of_clip = net.narrow(torch.empty(1, 2048, 16, 14, 14))
        nodes = net.regions(maps_of_clip, torch.empty(1, 50, 4))
        assert nodes.shape == (1, 800, 512)
        assert net.graph(nodes, torch.empty(1, 50, 4)).shape == nodes.shape
    assert net.classifier.in_features == 1024


def test_windows_are_multiples_of_four_frames() -> None:
    with pytest.raises(ToolError, match="multiple of 4"):
        region_graph.build(i3d.i3d_thin(), Shape(CLASSES, 6))
