"""The bar's time left, and failures in one line."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import typer

from kinewatch_models import told
from kinewatch_models.dataset import DataError


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_the_time_left_follows_how_long_the_present_step_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(told, "time", clock)
    bar = told.Bar(20)
    total = sum(bar._guess.values())
    assert bar._until() - clock.now == total
    with bar.step("decode"):
        bar.share(0.1)
        clock.now += 3 * told.DECODE_S * 10
        bar.share(0.5)
        assert bar._until() - clock.now == pytest.approx(3 * (total - told.DECODE_S * 10))
    with bar.step("train"):
        assert bar._until() - clock.now == pytest.approx(total - told.DECODE_S * 20), "the next step may go as guessed"
        bar.share(0.75)
        clock.now += told.SURE_AFTER_S + 1
        left = total - told.DECODE_S * 20 - 0.75 * bar._guess["train"]
        assert bar._until() - clock.now == pytest.approx(left), "what an earlier run did says nothing about speed"


@pytest.mark.parametrize(
    ("error", "words", "code"),
    [
        (DataError("clips: too few [of them]"), "error: clips: too few [of them]", 2),
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on the disk of", 2),
        (PermissionError(errno.EACCES, "Permission denied", "/locked"), "error: /locked: Permission denied", 2),
        (KeyboardInterrupt(), "give the same command again to go on", 130),
    ],
)
def test_known_failures_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: BaseException, words: str, code: int
) -> None:
    with pytest.raises(typer.Exit) as stopped, told.in_one_line(tmp_path):
        raise error
    assert stopped.value.exit_code == code
    text = capsys.readouterr().err
    assert words in text
    assert text.count("\n") == 1


def test_a_full_disk_is_told_where_the_writer_does_not_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(told, "FULL_BYTES", 1 << 62)
    with pytest.raises(typer.Exit), told.in_one_line(tmp_path / "not/yet"):
        raise OSError("1024 requested and 0 written")
    assert "no space left" in capsys.readouterr().err


def test_what_nobody_foresaw_is_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"), told.in_one_line(tmp_path):
        raise RuntimeError("shapes do not fit")
