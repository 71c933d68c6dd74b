"""Tiny model packages for the agent's tests: one per inference plan, random weights, synthetic golden clips.

Run ``python -m kinewatch_models.fixtures REPOSITORY`` (needs PyTorch; seconds). The output is committed, so nothing
that builds or tests the agent runs this. Every random number comes from a fixed seed.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import Tensor, nn

WIDTH, HEIGHT, LENGTH, CLASSES = 24, 16, 4, 3
OPSET = 17
LABELS = ("background", "wave", "jump")
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


# ---------------------------------------------------------------- nets


class ShiftBlock(nn.Module):
    """Residual block; its convolutions see the input with some channels taken from other frames."""

    def __init__(self, channels: int):
        super().__init__()
        self.fold = channels // 4
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, y: Tensor, past: Tensor) -> Tensor:
        """`past` replaces the first quarter of the channels."""
        return F.relu(y + self.conv(torch.cat([past, y[:, self.fold :]], 1)))


class TinyTsm(nn.Module):
    """A stem, two shift blocks and a classifier. ``features`` maps normalised frames ``[B,3,H,W]`` to ``[B,C]``."""

    def __init__(self, channels: int = 8):
        super().__init__()
        self.fold = channels // 4
        self.stem = nn.Conv2d(3, channels, 3, stride=4, padding=1)
        self.blocks = nn.ModuleList([ShiftBlock(channels), ShiftBlock(channels)])
        self.classifier = nn.Linear(channels, CLASSES)

    def logits(self, y: Tensor) -> Tensor:
        return self.classifier(y.mean((2, 3)))


class CausalClip(nn.Module):
    """Frames ``[N,T,3,H,W]`` to the logits of the newest one; each frame sees only older ones."""

    def __init__(self, net: TinyTsm):
        super().__init__()
        self.net = net

    def forward(self, clip: Tensor) -> Tensor:
        step = OnlineStep(self.net)
        batch = clip[:, 0]
        states = [batch * 0.0, batch[:, :1, 0, 0] * 0.0]
        states += [self.net.stem(batch)[:, : block.fold] * 0.0 for block in self.net.blocks]
        logits = torch.zeros(1)
        for index in range(LENGTH):
            logits, *states = step(clip[:, index], *states)
        return logits


class OnlineStep(nn.Module):
    """One frame and the states before it to logits and the states after it."""

    def __init__(self, net: TinyTsm):
        super().__init__()
        self.net = net

    def forward(self, frame: Tensor, previous: Tensor, seen: Tensor, *kept: Tensor) -> tuple[Tensor, ...]:
        y = F.relu(self.net.stem(frame + (frame - previous) * seen[:, :, None, None]))
        nexts = []
        for block, past in zip(self.net.blocks, kept, strict=True):
            nexts.append(y[:, : block.fold] + 0.0)
            y = block(y, past)
        return (self.net.logits(y), frame + 0.0, seen * 0.0 + 1.0, *nexts)


class OfflineClip(nn.Module):
    """Bytes ``[N,T,3,H,W]`` to logits of the whole window; channels move one frame forward and one back."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: TinyTsm):
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 1, 3, 1, 1))

    def forward(self, clip: Tensor) -> Tensor:
        x = (clip.to(torch.float32) - self.mean) / self.std
        y = F.relu(self.net.stem(x.reshape(-1, 3, HEIGHT, WIDTH)))
        for block in self.net.blocks:
            y = block(y, shift_both_ways(y, self.net.fold))
        return self.net.logits(y).reshape(-1, LENGTH, CLASSES).mean(1)


def shift_both_ways(y: Tensor, fold: int) -> Tensor:
    """The first `fold` channels: half of them from the frame before, half from the frame after, zero at the ends."""
    rows, columns = HEIGHT // 4, WIDTH // 4
    clips = y[:, :fold].reshape(-1, LENGTH, fold, rows, columns)
    half = fold // 2
    none = clips[:, :1, :half] * 0.0
    before = torch.cat([none, clips[:, :-1, :half]], 1)
    after = torch.cat([clips[:, 1:, half:], none], 1)
    return torch.cat([before, after], 2).reshape(-1, fold, rows, columns)


class Backbone(nn.Module):
    """One NHWC BGR frame ``[N,H,W,3]`` to a feature map ``[N,8,2,3]``."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.second = nn.Conv2d(8, 8, 3, stride=2, padding=1)

    def forward(self, frame: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(frame.permute(0, 3, 1, 2)))))


class RelationHead(nn.Module):
    """Features ``[N,T,8,2,3]`` in order to logits (a TRN of one relation)."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(LENGTH * 8, 12)
        self.out = nn.Linear(12, CLASSES)

    def forward(self, features: Tensor) -> Tensor:
        return self.out(F.relu(self.hidden(features.mean((3, 4)).flatten(1))))


# ---------------------------------------------------------------- clips


def moving_shapes(seed: int, length: int) -> Bytes:
    """A bright rectangle and a disc crossing a noisy gradient: ``[length, H, W, 3]`` RGB."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    ground = 40 + 4 * columns[..., None] + 3 * rows[..., None] * np.array([1, 0.5, 0.2])
    colour, other = rng.integers(120, 255, (2, 3))
    frames = []
    for index in range(length):
        picture = ground + rng.normal(0, 4, (HEIGHT, WIDTH, 3))
        left, top = (2 + 3 * index + seed) % WIDTH, (index + seed) % (HEIGHT - 5)
        picture[top : top + 5, left : left + 6] = colour
        disc = (columns - (WIDTH - 2 * index)) ** 2 + (rows - 8) ** 2 < 9
        picture[disc] = other
        frames.append(np.clip(picture, 0, 255).astype(np.uint8))
    return np.stack(frames)


def normalised(frames: Bytes) -> Tensor:
    """``[F,H,W,3]`` bytes to ``[F,3,H,W]``; PyTorch does the arithmetic the agent is tested against."""
    x = torch.from_numpy(frames).permute(0, 3, 1, 2).to(torch.float32)
    return (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def normalised_bgr_rows(frames: Bytes) -> Tensor:
    """``[F,H,W,3]`` RGB bytes to NHWC BGR; mean and deviation are in the tensor's channel order."""
    x = torch.from_numpy(frames[..., ::-1].copy()).to(torch.float32)
    return (x - torch.tensor(MEAN[::-1])) / torch.tensor(STD[::-1])


# ---------------------------------------------------------------- export


@dataclass
class GraphFile:
    """A graph to export with an example input (batch 2) for each input name."""

    stem: str
    net: nn.Module
    inputs: dict[str, Tensor]
    outputs: Sequence[str]
    calibration: Sequence[Mapping[str, Bytes | Floats]] = field(default_factory=list)


class Samples(CalibrationDataReader):  # type: ignore[misc]
    """Feeds calibration samples, each a batch of one."""

    def __init__(self, samples: Sequence[Mapping[str, Bytes | Floats]]):
        self.left: Iterator[Mapping[str, Bytes | Floats]] = iter(samples)

    def get_next(self) -> Mapping[str, Bytes | Floats] | None:
        return next(self.left, None)


def export(graph: GraphFile, folder: Path) -> None:
    """Writes ``<stem>.fp32.onnx`` and, when there are calibration samples, ``<stem>.int8.onnx``."""
    names = [*graph.inputs, *graph.outputs]
    path = folder / f"{graph.stem}.fp32.onnx"
    torch.onnx.export(
        graph.net.eval().requires_grad_(False),
        tuple(graph.inputs.values()),
        str(path),
        input_names=list(graph.inputs),
        output_names=list(graph.outputs),
        dynamic_axes={name: {0: "N"} for name in names},
        opset_version=OPSET,
        dynamo=False,
    )
    tidy(path)
    if not graph.calibration:
        return
    quantised = folder / f"{graph.stem}.int8.onnx"
    quantize_static(
        str(path),
        str(quantised),
        Samples(graph.calibration),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=["Conv", "Gemm", "MatMul", "Add", "Relu"],
    )
    tidy(quantised)


def tidy(path: Path) -> None:
    """Drops what only makes the file larger or differ from one run to the next."""
    model = onnx.load(str(path))
    del model.graph.value_info[:]
    graph = model.graph
    kept = {value.name for value in [*graph.input, *graph.output]}
    short: dict[str, str] = {"": ""}
    for index, node in enumerate(graph.node):
        node.name, node.doc_string = f"n{index}", ""
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = name if name in kept else short.setdefault(name, f"v{len(short)}")
    for tensor in graph.initializer:
        tensor.name = short.setdefault(tensor.name, f"v{len(short)}")
    model.producer_name, model.producer_version, model.doc_string = "kinewatch_models.fixtures", "1", ""
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


# ---------------------------------------------------------------- packages


@dataclass
class Package:
    """Everything `write_package` needs."""

    name: str
    plan: str
    architecture: str
    graphs: list[GraphFile]
    clips: dict[str, tuple[Bytes, Floats]]
    input_lines: str
    sampling: tuple[int, float, float]  # segments, window_s, stride_s
    scores: str
    tensor_lines: str
    tolerance_int8: float = 0.5


def write_package(root: Path, package: Package) -> None:
    """A complete package directory, hashes included."""
    folder = root / package.name
    (folder / "golden").mkdir(parents=True, exist_ok=True)
    for graph in package.graphs:
        export(graph, folder)
    for stem, (frames, logits) in package.clips.items():
        np.save(folder / "golden" / f"{stem}.npy", frames)
        np.save(folder / "golden" / f"{stem}.logits.npy", logits)
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in LABELS))
    (folder / "MODEL_CARD.md").write_text(
        f"# {package.name}\n\nRandom weights ({package.architecture}, plan `{package.plan}`) for the tests of the "
        "agent: it recognises nothing. Made by `kinewatch_models.fixtures` from a fixed seed; the golden clips are "
        "drawn shapes.\n"
    )
    (folder / "LICENSE").write_text("CC0-1.0: https://creativecommons.org/publicdomain/zero/1.0/\n")
    (folder / "model.toml").write_text(manifest(package, folder))


def manifest(package: Package, folder: Path) -> str:
    """The text of ``model.toml``."""
    segments, window, stride = package.sampling
    stems = [graph.stem for graph in package.graphs]
    parts = [
        f'format = 1\nname = "{package.name}"\nversion = "1.0.0"\narchitecture = "{package.architecture}"\n'
        f'plan = "{package.plan}"\ndescription = "Random weights for tests"\nlicense = "CC0-1.0"\n'
        'provenance = ["random weights, drawn shapes"]\n',
        f'[input]\nwidth = {WIDTH}\nheight = {HEIGHT}\nresize = "stretch"\nfilter = "bilinear"\n'
        f'order = "scale-convert"\n{package.input_lines}',
        f"[sampling]\nrate_hz = 10.0\nsegments = {segments}\nsnippet = 1\nwindow_s = {window}\nstride_s = {stride}\n"
        "max_hole_s = 0.5\n",
        f'[output]\nscores = "{package.scores}"\nactivation = "softmax"\ntemperature = 1.0\n'
        'background = "background"\n',
        f"[tensors]\n{package.tensor_lines}",
    ]
    for precision in ("fp32", "int8"):
        if (folder / f"{stems[0]}.{precision}.onnx").exists():
            head = f'head = "{stems[1]}.{precision}.onnx"\n' if len(stems) > 1 else ""
            parts.append(f'[graphs.{precision}]\nmodel = "{stems[0]}.{precision}.onnx"\n{head}')
    decoder = 'kind = "hysteresis"\non = 0.6\noff = 0.4\nsmooth_s = 0.2\n'
    if package.scores == "frame":
        decoder = 'kind = "cusum"\non = 0.6\noff = 0.4\nh_on = 0.5\nh_off = 0.5\n'
    decoder += "min_duration_s = 0.2\nmerge_gap_s = 0.2\nmax_duration_s = 60.0\n"
    for label in LABELS:
        tail = "" if label == "background" else f"[labels.decoder]\n{decoder}"
        parts.append(f'[[labels]]\nname = "{label}"\n{tail}')
    parts.append(f"[golden]\ntolerance_fp32 = 1e-4\ntolerance_int8 = {package.tolerance_int8}\n")
    for stem in package.clips:
        parts.append(f'[[golden.clips]]\nframes = "golden/{stem}.npy"\nlogits = "golden/{stem}.logits.npy"\n')
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "model.toml")
    hashes = (f'"{p.relative_to(folder).as_posix()}" = "{hashlib.sha256(p.read_bytes()).hexdigest()}"\n' for p in files)
    parts.append("[files]\n" + "".join(hashes))
    return "\n".join(parts)


INPUT_FLOAT_RGB = f'layout = "nchw"\ncolour = "rgb"\ndtype = "float32"\nmean = {list(MEAN)}\nstd = {list(STD)}\n'
INPUT_BYTES = 'layout = "nchw"\ncolour = "rgb"\ndtype = "uint8"\nmean = [0.0, 0.0, 0.0]\nstd = [1.0, 1.0, 1.0]\n'
INPUT_ROWS_BGR = (
    f'layout = "nhwc"\ncolour = "bgr"\ndtype = "float32"\nmean = {list(MEAN[::-1])}\nstd = {list(STD[::-1])}\n'
)


def seeded(seed: int) -> TinyTsm:
    """A net of that seed; weights are scaled so that the golden logits differ from frame to frame."""
    torch.manual_seed(seed)
    net = TinyTsm()
    with torch.no_grad():
        net.stem.weight.mul_(3.0)
        net.classifier.weight.mul_(8.0)
    return net


def tiny_clip() -> Package:
    """Plan `clip`, uint8 input: the graph normalises."""
    net = OfflineClip(seeded(11))
    clips: dict[str, tuple[Bytes, Floats]] = {}
    for stem, seed in (("shapes", 1), ("more", 2)):
        frames = moving_shapes(seed, 2 * LENGTH)
        x = torch.from_numpy(frames).permute(0, 3, 1, 2).reshape(2, LENGTH, 3, HEIGHT, WIDTH)
        clips[stem] = (frames, net(x).detach().numpy())
    samples = [np.moveaxis(moving_shapes(30 + seed, LENGTH), 3, 1)[None] for seed in range(12)]
    example = torch.zeros(2, LENGTH, 3, HEIGHT, WIDTH, dtype=torch.uint8)
    graph = GraphFile("tiny", net, {"clip": example}, ["logits"], [{"clip": s} for s in samples])
    tensors = 'input = "clip"\nlogits = "logits"\n'
    return Package("tiny-clip", "clip", "tsm", [graph], clips, INPUT_BYTES, (LENGTH, 0.4, 0.2), "clip", tensors)


def tiny_clip_causal() -> Package:
    """Plan `clip` with the weights of `tiny-online`: logits of the newest frame, from frames before it only."""
    net = CausalClip(seeded(12))
    frames = moving_shapes(3, 2 * LENGTH)
    logits = net(normalised(frames).view(2, LENGTH, 3, HEIGHT, WIDTH)).detach().numpy()
    samples = [normalised(moving_shapes(30 + seed, LENGTH))[None].numpy() for seed in range(12)]
    graph = GraphFile("tiny", net, {"clip": torch.zeros(2, LENGTH, 3, HEIGHT, WIDTH)}, ["logits"])
    graph.calibration = [{"clip": s} for s in samples]
    tensors = 'input = "clip"\nlogits = "logits"\n'
    clips = {"shapes": (frames, logits)}
    return Package(
        "tiny-clip-causal", "clip", "tsm", [graph], clips, INPUT_FLOAT_RGB, (LENGTH, 0.4, 0.1), "clip", tensors
    )


def tiny_online() -> Package:
    """Plan `online`: frame difference, `seen`, and two shift states."""
    net = seeded(12)
    step = OnlineStep(net)
    shapes = [(3, HEIGHT, WIDTH), (1,), *[(net.fold, HEIGHT // 4, WIDTH // 4) for _ in net.blocks]]
    frames = moving_shapes(3, 2 * LENGTH)
    rows, calibration = [], []
    for seed, clip in [(3, frames), *[(s, moving_shapes(s, LENGTH)) for s in range(30, 42)]]:
        states = [torch.zeros(1, *shape) for shape in shapes]
        for frame in normalised(clip):
            feed = {"frame": frame[None], **{f"state{i}": s for i, s in enumerate(states)}}
            logits, *states = step(*feed.values())
            if seed == 3:
                rows.append(logits[0].detach().numpy())
            else:
                calibration.append({name: value.detach().numpy() for name, value in feed.items()})
    inputs = {"frame": torch.zeros(2, 3, HEIGHT, WIDTH)}
    inputs |= {f"state{i}": torch.zeros(2, *shape) for i, shape in enumerate(shapes)}
    outputs = ["logits", *[f"next{i}" for i in range(len(shapes))]]
    graph = GraphFile("tiny", step, inputs, outputs, calibration)
    tensors = 'input = "frame"\nlogits = "logits"\n'
    for index, shape in enumerate(shapes):
        tensors += f'[[tensors.states]]\ninput = "state{index}"\noutput = "next{index}"\nshape = {list(shape)}\n'
    clips = {"shapes": (frames, np.stack(rows))}
    return Package(
        "tiny-online", "online", "tsm-online", [graph], clips, INPUT_FLOAT_RGB, (1, 0.1, 0.1), "frame", tensors
    )


def tiny_cached() -> Package:
    """Plan `cached`: NHWC BGR backbone with a spatial feature map, and a head over four of them."""
    torch.manual_seed(13)
    backbone, head = Backbone(), RelationHead()
    with torch.no_grad():
        backbone.first.weight.mul_(4.0)
        backbone.second.weight.mul_(2.0)
        head.hidden.weight.mul_(2.0)
        head.out.weight.mul_(4.0)
    frames = moving_shapes(4, 2 * LENGTH)
    features = backbone(normalised_bgr_rows(frames))
    logits = head(features.view(2, LENGTH, *features.shape[1:])).detach().numpy()
    single, windows = [], []
    for seed in range(12):
        x = normalised_bgr_rows(moving_shapes(30 + seed, LENGTH))
        single += [{"frame": frame[None].numpy()} for frame in x]
        windows.append({"features": backbone(x)[None].detach().numpy()})
    graphs = [
        GraphFile("backbone", backbone, {"frame": torch.zeros(2, HEIGHT, WIDTH, 3)}, ["feature"], single),
        GraphFile("head", head, {"features": torch.zeros(2, LENGTH, *features.shape[1:])}, ["logits"], windows),
    ]
    tensors = 'input = "frame"\nlogits = "logits"\nfeature = "feature"\nfeatures = "features"\n'
    clips = {"shapes": (frames, logits)}
    return Package("tiny-cached", "cached", "trn", graphs, clips, INPUT_ROWS_BGR, (LENGTH, 0.4, 0.1), "clip", tensors)


class Logarithm(nn.Module):
    """Fine on bright frames, not a number on dark ones."""

    def forward(self, clip: Tensor) -> Tensor:
        level = clip.mean((1, 3, 4))
        return torch.log(level + 1.0)


def tiny_nan() -> Package:
    """Plan `clip`, one frame, fp32 only: its logits are not numbers when the frame is black."""
    frames = moving_shapes(5, 2)
    net = Logarithm()
    logits = net(normalised(frames)[:, None]).detach().numpy()
    graph = GraphFile("tiny", net, {"clip": torch.zeros(2, 1, 3, HEIGHT, WIDTH)}, ["logits"])
    tensors = 'input = "clip"\nlogits = "logits"\n'
    clips = {"shapes": (frames, logits)}
    return Package("tiny-nan", "clip", "none", [graph], clips, INPUT_FLOAT_RGB, (1, 0.1, 0.1), "frame", tensors)


class Brightness(nn.Module):
    """Class 1 where the picture is brighter than the normalisation's mean, class 0 elsewhere."""

    def forward(self, clip: Tensor) -> Tensor:
        level = 8.0 * clip.mean((1, 2, 3, 4))
        return torch.stack([torch.zeros_like(level), level, torch.full_like(level, -8.0)], 1)


def tiny_bright() -> Package:
    """Plan `clip`, one frame, fp32 only: `wave` while the picture is bright, so end-to-end tests know the truth."""
    frames = moving_shapes(6, 2)
    frames[1] = 255
    net = Brightness()
    logits = net(normalised(frames)[:, None]).detach().numpy()
    graph = GraphFile("tiny", net, {"clip": torch.zeros(2, 1, 3, HEIGHT, WIDTH)}, ["logits"])
    tensors = 'input = "clip"\nlogits = "logits"\n'
    clips = {"shapes": (frames, logits)}
    return Package("tiny-bright", "clip", "none", [graph], clips, INPUT_FLOAT_RGB, (1, 0.1, 0.1), "frame", tensors)


def negative_pad(path: Path) -> None:
    """A graph of the shape `tiny-nan` promises, on which tract panics instead of returning an error."""
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Pad", ["clip", "pads"], ["narrow"], mode="constant"),
        helper.make_node("ReduceMean", ["narrow"], ["logits"], axes=[1, 3, 4], keepdims=0),
    ]
    pads = helper.make_tensor("pads", TensorProto.INT64, [10], [0, 0, 0, 0, -1, 0, 0, 0, 0, -1])
    graph = helper.make_graph(
        nodes,
        "negative-pad",
        [value("clip", TensorProto.FLOAT, ["N", 1, 3, HEIGHT, WIDTH])],
        [value("logits", TensorProto.FLOAT, ["N", CLASSES])],
        [pads],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 8
    onnx.save(model, str(path))


def write_preprocessing(folder: Path) -> None:
    """One frame and what PyTorch makes of it, for the agent's preprocessing tests."""
    folder.mkdir(parents=True, exist_ok=True)
    frame = np.random.default_rng(6).integers(0, 256, (1, HEIGHT, WIDTH, 3)).astype(np.uint8)
    np.save(folder / "frame.npy", frame)
    np.save(folder / "nchw-rgb.npy", normalised(frame).numpy())
    np.save(folder / "nhwc-bgr.npy", normalised_bgr_rows(frame).numpy())
    np.save(folder / "nhwc-rgb.npy", normalised(frame).permute(0, 2, 3, 1).contiguous().numpy())


def main(repository: Path) -> None:
    """Writes all fixtures below `repository`."""
    packages = repository / "tests" / "data" / "packages"
    for package in (tiny_clip(), tiny_clip_causal(), tiny_online(), tiny_cached(), tiny_nan(), tiny_bright()):
        write_package(packages, package)
    data = repository / "agent" / "engine" / "tests" / "data"
    data.mkdir(parents=True, exist_ok=True)
    negative_pad(data / "negative-pad.onnx")
    write_preprocessing(data / "preprocess")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
