"""Packages: what is written can be read, checked and is refused when it was tampered with."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tomli

import tiny
from kinewatch_models import golden, manifest, package, steps
from kinewatch_models.package import PackageError, Parts


@pytest.fixture
def folder(tmp_path: Path, graphs: dict[str, Path]) -> Path:
    licence = tmp_path / "licence"
    licence.write_text("free\n")
    calibration = {"temperature": 1.5, "labels": {"lying": {"on": 0.42, "lag_start_s": -0.1}}}
    package.write(
        tiny.recipe(), Parts(graphs["fp32"], graphs["int8"], licence, "# card\n", calibration), tmp_path / "p"
    )
    return tmp_path / "p"


def test_package_round_trip(folder: Path) -> None:
    table = manifest.read(folder / "model.toml")
    assert table["format"] == 1
    assert table["plan"] == "online"
    assert [row["shape"] for row in table["tensors"]["states"]] == [[3, 16, 16], [1], [8, 7, 7]]
    falling, lying = table["labels"][1:]
    assert falling["publish"] is False
    assert "publish" not in lying
    assert lying["decoder"]["on"] == 0.42
    assert lying["decoder"]["lag_start_s"] == -0.1
    assert table["output"]["temperature"] == 1.5
    assert table["sequences"] == [{"name": "fall", "parts": ["falling", "lying"], "within_s": 2.0}]
    assert set(table["files"]) == set(package.checksums(folder))
    assert not folder.with_name("p.part").exists()


def test_golden_clips_pass_on_both_graphs(folder: Path) -> None:
    differences = package.check(folder)
    assert differences["fp32"] == 0
    assert 0 < differences["int8"] < package.TOLERANCE_INT8


def test_int8_that_differs_makes_no_package_but_a_draft(
    folder: Path, graphs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(folder)
    monkeypatch.setattr(package, "_golden_difference", lambda *_: 0.7)
    with pytest.raises(PackageError, match="golden logits differ by"):
        package.write(tiny.recipe(), Parts(*graphs.values(), tmp_path / "licence", "# card\n", {}), folder)
    assert not folder.exists()
    monkeypatch.setattr(package, "_golden_difference", lambda folder, table, path: 0.7 * ("int8" in path.name))
    assert (steps.draft(tiny.recipe(), graphs, tmp_path) / "model.toml").exists()


def test_golden_files_have_the_layout_of_the_contract(folder: Path) -> None:
    for row in manifest.read(folder / "model.toml")["golden"]["clips"]:
        frames, logits = np.load(folder / row["frames"]), np.load(folder / row["logits"])
        assert frames.dtype == np.uint8
        assert frames.shape == (golden.FRAMES, tiny.SIZE, tiny.SIZE, 3)
        assert frames.flags.c_contiguous
        assert logits.dtype == np.float32
        assert logits.shape == (golden.FRAMES, len(tiny.LABELS))


def test_changed_file_is_refused_by_name(folder: Path) -> None:
    (folder / "labels.txt").write_text("background\nfalling\nsitting\n")
    with pytest.raises(PackageError, match=r"labels\.txt"):
        package.check(folder)


def test_wrong_golden_logits_are_refused(folder: Path) -> None:
    path = folder / "golden/walk.logits.npy"
    np.save(path, np.load(path) + 0.01)
    table = manifest.read(folder / "model.toml")
    table["files"] = package.checksums(folder)
    (folder / "model.toml").write_text(manifest.render(table))
    with pytest.raises(PackageError, match=r"differ by 0\.01"):
        package.check(folder)


def test_manifest_survives_odd_text() -> None:
    table = {
        "name": 'quote " backslash \\ snow ☃',
        "number": 1e-3,
        "flag": False,
        "rows": [{"a": 1, "inner": {"b": [0.5, 2.0]}}, {"a": 2}],
        "files": {"golden/walk.npy": "00"},
        "outer": {"inner": {"value": 3}},
    }
    assert tomli.loads(manifest.render(table)) == table
