"""Packages: what is written can be read, checked and is refused when it was tampered with."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

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


Pairs = list[tuple[np.ndarray, np.ndarray]]


def off_by(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[np.ndarray], np.ndarray]) -> None:
    """Let the int8 graph say what `spoil` makes of the recorded logits."""
    whole = package._golden_pairs

    def pairs(folder: Path, table: dict[str, Any], path: Path) -> Pairs:
        found = whole(folder, table, path)
        return [(spoil(recorded), recorded) if "int8" in path.name else (one, recorded) for one, recorded in found]

    monkeypatch.setattr(package, "_golden_pairs", pairs)


def test_int8_that_is_off_on_drawn_clips_is_packaged_with_a_tolerance_that_grants_it(
    folder: Path, graphs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert manifest.read(folder / "model.toml")["golden"]["tolerance_int8"] == package.TOLERANCE_INT8
    off_by(monkeypatch, lambda logits: logits + 0.854)
    found = package.write(tiny.recipe(), Parts(*graphs.values(), tmp_path / "licence", "# card\n", {}), folder)
    assert found["int8"] == pytest.approx(0.854, abs=1e-3)
    assert manifest.read(folder / "model.toml")["golden"]["tolerance_int8"] == pytest.approx(1.29)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda logits: logits + 5.5, r"5\.5 logits off fp32.*add training clips"),
        (lambda logits: np.nan * logits, "nan logits off"),
        (lambda logits: logits[:, ::-1], "another label in [1-9]"),
    ],
)
def test_a_broken_int8_makes_no_package_but_a_draft(
    folder: Path,
    graphs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[np.ndarray], np.ndarray],
    words: str,
) -> None:
    shutil.rmtree(folder)
    if "another" in words:
        monkeypatch.setattr(package, "CLEAR", 0.0)
    off_by(monkeypatch, spoil)
    with pytest.raises(PackageError, match=words):
        package.write(tiny.recipe(), Parts(*graphs.values(), tmp_path / "licence", "# card\n", {}), folder)
    assert not folder.exists()
    if "nan" not in words:
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


def test_what_is_no_package_is_not_replaced(folder: Path, graphs: dict[str, Path]) -> None:
    (folder.parent / "home").mkdir()
    parts = Parts(graphs["fp32"], graphs["int8"], folder / "LICENSE", "", {})
    with pytest.raises(PackageError, match="home exists and is no model package"):
        package.write(tiny.recipe(), parts, folder.parent / "home")


def test_a_run_of_another_recipe_is_refused_and_nothing_is_left_of_a_calibration_that_is(tmp_path: Path) -> None:
    work = steps.Work(tiny.recipe(), [], tmp_path, tmp_path)
    steps.claim(work)
    swapped = replace(work, spec=replace(work.spec, labels=["background", "lying", "falling"]))
    for step in (steps.quantise_graph, steps.choose_thresholds, steps.measure, steps.measure_scalers, steps.export):
        with pytest.raises(steps.StepError, match="was not trained with this recipe"):
            step(swapped)
    work.write(steps.CALIBRATION, {})
    with pytest.raises(steps.StepError, match="no clip is in the split val"):
        steps.choose_thresholds(work)
    with pytest.raises(steps.StepError, match=r"calibration\.json is missing"):
        work.read(steps.CALIBRATION)
