"""Folds: what is left out is in no other part, and a fold that leaves nothing to learn or measure is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tiny
from kinewatch_models import calibrate, conditions, leave_out, prepare, steps
from kinewatch_models.agent import Event
from kinewatch_models.catalogue import Clip, Span

FALL = (Span("falling", 1.0, 2.0), Span("lying", 2.0, 3.0))


def clip(name: str, split: str, group: str, dataset: str = "drawn", action: bool = True) -> Clip:
    return Clip(f"{name}.mp4", dataset, split, group, action, FALL if action else ())


CLIPS = [
    clip("a", "train", "P1"),
    clip("b", "train", "P2"),
    clip("c", "val", "P2"),
    clip("d", "val", "P3"),
    clip("e", "test", "P4"),
    clip("f", "train", "P5", "other"),
    clip("g", "test", "P6", "other", action=False),
]


def test_a_group_left_out_is_in_no_other_part() -> None:
    one = leave_out.fold(CLIPS, "drawn/P2")
    assert [clip.path for clip in one.measured] == ["b.mp4", "c.mp4"]
    assert [clip.path for clip in one.train] == ["a.mp4", "f.mp4"]
    assert [clip.path for clip in one.val] == ["d.mp4"]
    assert one.folder == "drawn-P2"


def test_a_set_left_out_takes_all_its_splits() -> None:
    one = leave_out.fold(CLIPS, "other")
    assert [clip.path for clip in one.measured] == ["f.mp4", "g.mp4"]
    assert "test" not in {clip.split for clip in one.train + one.val}


@pytest.mark.parametrize(("left_out", "said"), [("drawn/P9", "no clip of an action in drawn/P9"), ("drawn", "in val")])
def test_a_fold_without_actions_is_refused(left_out: str, said: str) -> None:
    with pytest.raises(leave_out.FoldError, match=said):
        leave_out.fold(CLIPS, left_out)


def decoded(cache: Path) -> Path:
    for one in CLIPS:
        one.folder(cache).mkdir(parents=True)
        prepare.save(one.folder(cache) / "times.npy", np.arange(90) / 30)
        prepare.save(one.folder(cache) / f"{tiny.SIZE}.npy", np.zeros((90, tiny.SIZE, tiny.SIZE, 3), np.uint8))
    return cache


def test_the_best_thresholds_are_asked_only_where_daily_clips_hold_them_down(tmp_path: Path) -> None:
    recipe, cache = tiny.recipe(), decoded(tmp_path / "cache")
    settings = {one.label: calibrate.decoder_settings(one, 0.5, 0.1) for one in recipe.decoders}
    names = ["drawn/P2", "other"]
    table = {"folds": [{"left_out": one, "calibration": {"temperature": 1.0, "labels": settings}} for one in names]}
    for name in names:
        run = tmp_path / leave_out.fold(CLIPS, name).folder
        run.mkdir()
        tiny.write_graph(run / f"{recipe.name}.int8.onnx")
    judged = conditions.of_left_out(table, tmp_path, CLIPS, recipe, cache, names)
    assert [(one.clip.path, one.right_at_best is None) for one in judged] == [
        ("b.mp4", True),
        ("c.mp4", True),
        ("f.mp4", False),
        ("g.mp4", False),
    ]
    assert judged[3].right_at_best, "nothing moves in it"


def test_a_fold_is_measured_on_what_it_did_not_train_on(tmp_path: Path) -> None:
    cache, graph = decoded(tmp_path / "cache"), tmp_path / "tiny.onnx"
    tiny.write_graph(graph)
    trained: list[str] = []

    def graphs(train: list[Clip], _: Path) -> dict[str, Path]:
        trained.extend(one.path for one in train)
        return dict.fromkeys(steps.PRECISIONS, graph)

    def told(paths: dict[str, Path], chosen: steps.Table, measured: list[Clip]) -> list[list[Event]]:
        assert set(paths) == set(steps.PRECISIONS)
        assert set(chosen["labels"]) == {"falling", "lying"}
        return [[Event("fall", 1.2, 2.9)], [Event("lying", 2.0, 2.9)]]

    table = leave_out.measure(leave_out.fold(CLIPS, "drawn/P2"), tiny.recipe(), cache, tmp_path, graphs, told)
    assert trained == ["a.mp4", "f.mp4"]
    assert table["clips"]["actions"] == 2
    assert table["int8"]["fall"]["found"]["of"] == 2
    found, shown = table["told"]["found"], table["told"]["found_where_shown"]
    assert (found["hits"], found["of"], shown["hits"], shown["of"]) == (1, 2, 1, 2)
