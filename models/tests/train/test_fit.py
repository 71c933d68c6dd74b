"""`fit` from a folder to a package, and its one line on every bad folder."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

import moving_shapes
from kinewatch_models import cli, package

RUN = CliRunner()


def fit(data: Path, out: Path, *more: str) -> tuple[int, str]:
    done = RUN.invoke(cli.app, ["fit", "--data", str(data), "--out", str(out), "--threads", "1", *more])
    return done.exit_code, done.output


def test_a_folder_becomes_a_package_and_a_second_run_goes_on(tmp_path: Path) -> None:
    data = moving_shapes.folder(tmp_path / "clips", 5)
    (data / "left" / "broken.mp4").write_text("no video", encoding="utf-8")
    out = tmp_path / "moves"
    code, text = fit(data, out, "--epochs", "1")
    assert code == 0, text
    assert "1 of 16 videos cannot be read" in text
    assert package.check(out)["fp32"] < 1e-3
    assert "left" in (out / "labels.txt").read_text()
    first = (out / "model.toml").read_text()
    code, text = fit(data, out, "--epochs", "1")
    assert code == 0, text
    assert (out / "model.toml").read_text() == first, "nothing is trained twice; the same package"
    code, text = fit(data, out, "--epochs", "1", "--strict")
    assert code == 2
    assert "broken.mp4" in text


def test_bad_folders_get_one_line(tmp_path: Path) -> None:
    for data, words in ((tmp_path / "none", "is not a folder"), (tmp_path, "neither labels.csv nor a folder")):
        code, text = fit(data, tmp_path.with_name("out") / "package")
        assert (code, words in text) == (2, True), text
        assert "Traceback" not in text
