"""Public checkpoints become runs that compute the same, or are refused with the names of what is off.

The checkpoints are those of stand-ins with the names, shapes and maths of the public code (`public_*`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import public_authors  # noqa: E402
import public_eco  # noqa: E402
import public_mmaction2  # noqa: E402
import public_nets  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from kinewatch_models import recipe, steps, stream  # noqa: E402
from kinewatch_models.arch import bninception, msnet, registry, resnet  # noqa: E402
from kinewatch_models.arch.importing import checkpoint, convert, mapping, table, written  # noqa: E402
from kinewatch_models.arch.importing.mapping import Importer  # noqa: E402
from kinewatch_models.cli import app  # noqa: E402
from kinewatch_models.error import ToolError  # noqa: E402
from kinewatch_models.steps import Work  # noqa: E402
from kinewatch_models.train import net as nets  # noqa: E402

CLASSES, SIZE, WIDTH = 5, 64, 16


@dataclass(frozen=True)
class Public:
    """A stand-in; `width` keeps its net thin and every number of channels whole."""

    source: str
    architecture: str
    make: Callable[[int, int, int], nn.Module]
    backbone: str = "resnet50"
    width: int = WIDTH
    frames: int = 4

    @property
    def row(self) -> Importer:
        return next(one for one in table.rows(self.source, self.architecture) if one.backbone == self.backbone)


PUBLIC = [
    Public("mmaction2", "tsn", public_mmaction2.mm_tsn),
    Public("mmaction2", "tsm", public_mmaction2.mm_tsm),
    Public("mmaction2", "trn", public_mmaction2.mm_trn),
    Public("mmaction2", "trn-multiscale", public_mmaction2.mm_trn_multiscale),
    Public("mmaction2", "tanet", public_mmaction2.mm_tanet),
    Public("authors", "tsm", public_authors.authors_tsm),
    Public("authors", "tsm", public_authors.authors_tsm_mobilenet, "mobilenetv2"),
    Public("authors", "tea", public_authors.authors_tea, width=10),
    Public("authors", "tdn", public_authors.authors_tdn, frames=8),
    Public("authors", "msnet", public_authors.authors_msnet),
    Public("authors", "action", public_authors.authors_action),
    Public("authors", "eco-lite", public_eco.authors_eco_lite, "bninception", width=4),
    Public("authors", "eco-full", public_eco.authors_eco_full, "bninception", width=4),
]
every = pytest.mark.parametrize("public", PUBLIC, ids=lambda one: f"{one.source}-{one.architecture}-{one.backbone}")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def thin(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes the backbones of the package as thin as a stand-in of some width, all their blocks kept."""
    wide = bninception.bninception

    def narrowed(width: int) -> None:
        blocks, unit = list(public_nets.BLOCKS), resnet._bottleneck
        monkeypatch.setattr(resnet, "resnet50", lambda: resnet._resnet(blocks, width, unit, resnet.EXPANSION))
        monkeypatch.setattr(bninception, "bninception", lambda: wide(public_nets.FULL // width))

    return narrowed


def imported(one: Importer, tensors: dict[str, Tensor], frames: int, classes: int = CLASSES) -> dict[str, Tensor]:
    shapes = convert.shapes_of(written.net_of(one), classes, written.window_of(one, frames))
    return convert.convert(tensors, one, frames, shapes, Path("public.pth"))


def ours(one: Importer, tensors: dict[str, Tensor], frames: int) -> nn.Module:
    """The net of the imported run."""
    net = nets.build(written.net_of(one), CLASSES, written.window_of(one, frames), pretrained=False)
    net.load_state_dict(imported(one, tensors, frames))
    return net.eval()


def clip(one: Importer, frames: int) -> Tensor:
    rng = torch.Generator().manual_seed(1)
    return torch.randn(2, written.window_of(one, frames), 3, SIZE, SIZE, generator=rng)


def difference(public: Public) -> tuple[float, float]:
    """How far the imported net's logits are from the public net's, and how far those of two clips are apart."""
    net = public_nets.randomised(public.make(public.width, public.frames, CLASSES))
    given = clip(public.row, public.frames)
    with torch.no_grad():
        fed = given.flip(2) if public.row.colours == "bgr" else given
        expected = net(fed)
        found = ours(public.row, net.state_dict(), public.frames)(given).mean(1)
    assert found.shape == expected.shape
    return float((found - expected).abs().max()), float((expected[0] - expected[1]).abs().max())


@every
def test_the_imported_net_computes_what_the_public_one_does(
    public: Public, thin: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    thin(public.width)
    monkeypatch.setattr(msnet, "TIE", 0.0)  # ours: of equal displacements the shortest
    off, apart = difference(public)
    assert off < 1e-3 * min(1.0, apart)


@every
def test_names_and_shapes_are_those_of_the_public_net_at_its_width(public: Public) -> None:
    with torch.device("meta"):
        net = public.make(public_nets.FULL, public.row.segments, 174)
    tensors = net.state_dict()
    made = imported(public.row, tensors, public.row.segments, 174)
    spec = written.net_of(public.row)
    shapes = convert.shapes_of(spec, 174, written.window_of(public.row, public.row.segments))
    assert {name: tuple(value.shape) for name, value in made.items()} == shapes
    rules = public.row.rules(public.row.segments)
    weights = [name for rule in rules for name in rule.theirs if not name.endswith(".bias")]
    assert len(weights) == len(set(weights)), "every weight goes to one place"
    assert {name for rule in rules for name in rule.theirs} == tensors.keys() - convert.left_out(public.row, tensors)
    assert convert.segments_of(public.row, tensors) == public.row.segments
    assert convert.classes_of(public.row, tensors) == 174


@pytest.mark.parametrize("at", [index for index, one in enumerate(PUBLIC) if one.architecture == "tsm"][:2])
def test_the_two_eighths_have_to_change_places(
    at: int, thin: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    public = PUBLIC[at]
    thin(public.width)
    made = mapping.past_first(0, 1).make(torch.arange(256.0).view(16, 16))
    assert made[0, :5].tolist() == [34, 35, 32, 33, 36]
    monkeypatch.setattr("kinewatch_models.arch.importing.resnet50.past_first", lambda *_: mapping.SAME)
    off, apart = difference(public)
    assert off > 0.05 * apart


def torchvision_resnet() -> nn.Module:
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    return public_nets.randomised(torchvision.models.resnet50(num_classes=CLASSES))


def test_a_tsn_of_torchvision_s_resnet_gives_the_mean_of_its_logits() -> None:
    net, frames = torchvision_resnet(), 3
    names = {"fc.": "cls_head.fc_cls.", "downsample.0": "downsample.conv", "downsample.1": "downsample.bn"}
    tensors = {}
    for name, value in net.state_dict().items():
        for number in "123":
            name = name.replace(f"conv{number}.", f"conv{number}.conv.").replace(f"bn{number}.", f"conv{number}.bn.")
        for old, new in names.items():
            name = name.replace(old, new)
        tensors[name if name.startswith("cls_head") else f"backbone.{name}"] = value
    row = table.rows("mmaction2", "tsn")[0]
    given = clip(row, frames)
    with torch.no_grad():
        expected = net(given.flatten(0, 1)).unflatten(0, (-1, frames)).mean(1)
        found = ours(row, tensors, frames)(given).mean(1)
    assert float((found - expected).abs().max()) < 1e-3


def test_a_tsm_of_torchvision_s_blocks_gives_the_logits_of_a_shift_written_apart() -> None:
    net, frames = torchvision_resnet(), 4
    last, net.fc = net.fc, nn.Identity()
    for number in range(1, 5):
        for unit in getattr(net, f"layer{number}"):
            unit.conv1 = public_nets.Shifted(unit.conv1, frames)
    public = public_authors.Authors(net, frames, last).eval()
    row = table.rows("authors", "tsm")[0]
    given = clip(row, frames)
    with torch.no_grad():
        expected = public(given)
        found = ours(row, public.state_dict(), frames)(given).mean(1)
    assert float((found - expected).abs().max()) < 1e-3


def checkpoint_of(public: Public, path: Path, classes: int = CLASSES) -> dict[str, Tensor]:
    """As the training code leaves it: in `state_dict`, with the prefix of `DataParallel`."""
    net = public_nets.randomised(public.make(public.width, public.frames, classes))
    tensors = net.state_dict()
    prefix = checkpoint.PARALLEL if public.source == "authors" else ""
    torch.save({"epoch": 3, "state_dict": {f"{prefix}{name}": value for name, value in tensors.items()}}, path)
    return tensors


def run(folder: Path, public: Public, *more: str) -> tuple[int, str]:
    labels = folder / "labels.txt"
    if not labels.exists():
        labels.write_text("Swiping Left\nSwiping Right\nDoing other things\nno gesture\nStop Sign\n")
    made = CliRunner().invoke(
        app,
        [
            *("import", str(folder / "public.pth"), "--from", public.source, "--architecture", public.architecture),
            *("--labels", str(labels), "--out", str(folder / "hands"), *more),
        ],
    )
    return made.exit_code, made.output


@pytest.mark.parametrize("at", [0, 5, 8], ids=["cached", "clip", "snippets"])
def test_what_it_leaves_can_be_exported(at: int, tmp_path: Path, thin: Callable[[int], None]) -> None:
    public = replace(PUBLIC[at], width=8, frames=2)
    thin(public.width)
    tensors = checkpoint_of(public, tmp_path / "public.pth")
    code, said = run(tmp_path, public, "--segments", str(public.frames), "--span", "2")
    assert code == 0, said
    out = tmp_path / "hands"
    spec = recipe.load(out / "recipe.toml")
    window = written.window_of(public.row, public.frames)
    assert (spec.name, spec.train.window, spec.rate_hz) == ("hands", window, window / 2)
    assert spec.labels == ["swiping-left", "swiping-right", "doing-other-things", "no-gesture", "stop-sign"]
    assert [one.label for one in spec.decoders] == spec.labels
    assert spec.input.size == 224
    spec = replace(spec, input=replace(spec.input, size=SIZE))  # is faster
    assert steps.export(Work(spec, [], out, out)) < 1e-2
    given = clip(public.row, public.frames)[:1]
    with torch.no_grad():
        expected = ours(public.row, tensors, public.frames)(given).mean(1).numpy()
    found = stream.Graph(out / "hands.fp32.onnx").logits(given[0].numpy())
    assert np.abs(found - expected).max() < 1e-2 * max(1.0, float(np.abs(expected).max()))


def test_segments_are_those_of_the_weights_where_these_tell(tmp_path: Path, thin: Callable[[int], None]) -> None:
    public = Public("mmaction2", "tanet", public_mmaction2.mm_tanet, frames=6)
    thin(public.width)
    checkpoint_of(public, tmp_path / "public.pth")
    assert run(tmp_path, public)[0] == 0
    assert recipe.load(tmp_path / "hands/recipe.toml").train.window == 6
    code, said = run(tmp_path, public)
    assert code == 2
    assert "holds weights already" in said
    (tmp_path / "hands/weights.pt").unlink()
    code, said = run(tmp_path, public, "--segments", "8")
    assert code == 2
    assert "tam.G.0.weight [12, 6] instead of [16, 8]" in said


def test_pictures_are_given_as_the_checkpoint_had_them() -> None:
    labels = ["a", "b"]
    row = table.rows("authors", "eco-lite")[0]
    spec = written.recipe_of(row, labels, 16, 4.0, "eco", "x")
    assert (row.colours, row.mean) == ("bgr", (104.0, 117.0, 128.0))
    assert (spec.input.mean, spec.input.std) == ([128.0, 117.0, 104.0], [1.0, 1.0, 1.0]), "ours are always RGB"
    spec = written.recipe_of(table.rows("authors", "tsm")[0], labels, 8, 4.0, "tsm", "x")
    assert (spec.input.mean, spec.input.size) == ([123.675, 116.28, 103.53], 224)


def test_a_last_layer_has_another_name_where_no_dropout_was_before_it() -> None:
    public = PUBLIC[6]
    tensors = public.make(public.width, public.frames, CLASSES).state_dict()
    other = {name.replace("new_fc", "base_model.classifier"): value for name, value in tensors.items()}
    one = convert.closest(other, table.rows("authors", "tsm"))
    assert one is public.row
    assert convert.renamed(one, other).keys() == tensors.keys()


def refused(folder: Path, tensors: dict[str, Tensor], public: Public) -> str:
    torch.save({"state_dict": tensors}, folder / "public.pth")
    code, said = run(folder, public)
    assert code == 2
    assert said.count("\n") == 1, "one line"
    assert not (folder / "hands").exists()
    return said


def test_a_wrong_checkpoint_is_refused_by_the_names_of_what_is_off(tmp_path: Path, thin: Callable[[int], None]) -> None:
    tsm, tea = PUBLIC[5], PUBLIC[7]
    thin(tsm.width)
    tensors = dict(tsm.make(tsm.width, tsm.frames, CLASSES).state_dict())
    key = "base_model.layer2.0.conv1.net.weight"
    shape = list(tensors[key].shape)
    lacking = refused(tmp_path, {name: value for name, value in tensors.items() if name != key}, tsm)
    assert f"1 missing: {key} {shape}" in lacking
    off = refused(tmp_path, {**tensors, key: tensors[key][:3]}, tsm)
    assert f"1 of another shape: {key} {[3, *shape[1:]]} instead of {shape}" in off
    unknown = refused(tmp_path, {**tensors, "base_model.layer1.0.nl.g.weight": torch.zeros(2)}, tsm)
    assert "1 unknown: base_model.layer1.0.nl.g.weight [2]" in unknown
    other = refused(tmp_path, dict(tea.make(tea.width, tea.frames, CLASSES).state_dict()), tsm)
    assert "missing: base_model.layer1.0.conv1.net.weight" in other
    assert "unknown: base_model.layer1.0.conv1.weight" in other
    assert "its names are those of a checkpoint of tea on resnet50 from authors" in other
    assert "--from authors --architecture tea" in other


def test_labels_must_be_those_it_was_trained_with(tmp_path: Path, thin: Callable[[int], None]) -> None:
    tsm = PUBLIC[5]
    thin(tsm.width)
    checkpoint_of(tsm, tmp_path / "public.pth")
    (tmp_path / "labels.txt").write_text("one\ntwo\n")
    code, said = run(tmp_path, tsm)
    assert (code, said.count("\n")) == (2, 1)
    assert "has 2 labels" in said
    assert "5 classes" in said
    (tmp_path / "labels.txt").write_text("one\ntwo\nTwo!\nthree\nfour\n")
    assert "lines 2 and 3 would both be called two" in run(tmp_path, tsm)[1]
    (tmp_path / "labels.txt").write_bytes(b"\xff\xfe")
    assert "is not UTF-8" in run(tmp_path, tsm)[1]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"not a checkpoint at all", "is not a PyTorch checkpoint"),
        ({"state_dict": {}}, "holds no state dict"),
        ([1, 2], "holds no state dict"),
        ({"state_dict": {"a": torch.zeros(1)}, "made_by": Path("x")}, "holds more than tensors, which may run code"),
    ],
    ids=["bytes", "empty", "list", "code"],
)
def test_a_file_that_is_no_checkpoint_is_one_line(tmp_path: Path, content: object, words: str) -> None:
    if isinstance(content, bytes):
        (tmp_path / "public.pth").write_bytes(content)
    else:
        torch.save(content, tmp_path / "public.pth")
    code, said = run(tmp_path, PUBLIC[0])
    assert (code, said.count("\n")) == (2, 1)
    assert words in said


def test_the_table_says_whose_checkpoints_there_are() -> None:
    assert table.sources("tsm") == ("mmaction2", "authors")
    assert table.sources("stm") == ()
    assert {one.architecture for one in table.IMPORTERS} <= registry.ARCHITECTURES.keys()
    assert {(one.source, one.architecture, one.backbone) for one in PUBLIC} == {
        (one.source, one.architecture, one.backbone) for one in table.IMPORTERS
    }
    with pytest.raises(ToolError, match="no importer of stm from authors; there are mmaction2: tsn, tsm, trn"):
        table.rows("authors", "stm")
