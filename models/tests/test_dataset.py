"""A user's folder of clips: what becomes of it, and what is said where it cannot be trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from kinewatch_models import dataset
from kinewatch_models.catalogue import Span
from kinewatch_models.dataset import DataError


def put(root: Path, *names: str) -> Path:
    """Empty files: reading a data set does not open them."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def clips(label: str, count: int) -> list[str]:
    return [f"{label}/{n}.mp4" for n in range(count)]


def test_folders_become_labels_and_every_label_is_in_train_and_val(tmp_path: Path) -> None:
    found = dataset.read(put(tmp_path, *clips("wave", 10), *clips("background", 5), "wave/notes.txt"))
    assert found.labels == ["background", "wave"]
    assert found.background == "background"
    counts = {
        split: sum(clip.split == split and clip.label == "wave" for clip in found.clips) for split in dataset.SPLITS
    }
    assert counts == {"train": 6, "val": 2, "test": 2}
    dataset.check_splits(found.clips, found.labels)
    assert dataset.read(tmp_path) == found, "the same clips, the same splits"


def test_names_become_fit_for_topics_and_it_is_said(tmp_path: Path) -> None:
    found = dataset.read(put(tmp_path, *clips("Händeschütteln links", 2), *clips("background", 2)))
    assert found.labels == ["background", "handeschutteln-links"]
    assert any("handeschutteln-links" in note for note in found.notes)


def test_without_background_the_user_is_told(tmp_path: Path) -> None:
    found = dataset.read(put(tmp_path, *clips("left", 3), *clips("right", 3)))
    assert found.background == ""
    assert any("background" in note for note in found.notes)


def test_a_rare_label_is_told(tmp_path: Path) -> None:
    found = dataset.read(put(tmp_path, *clips("rare", 2), *clips("background", 200)))
    assert any("200 times background but 2 times rare" in note for note in found.notes)


def test_times_in_long_videos_leave_background_between(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    lines = ["path,label,begin_s,end_s,group", "a.mp4,wave,1,2.5,anna", "a.mp4,wave,5,6,anna", "b.mp4,wave,1,2,ben"]
    (tmp_path / "labels.csv").write_text("\n".join([*lines, "c.mp4,wave,3,4,ben"]), encoding="utf-8")
    found = dataset.read(tmp_path)
    assert found.labels == ["background", "wave"]
    assert found.clips[0].spans == (Span("wave", 1.0, 2.5), Span("wave", 5.0, 6.0))
    assert {clip.split for clip in found.clips if clip.group == "ben"} != {
        clip.split for clip in found.clips if clip.group == "anna"
    }, "a group is in one split"


@pytest.mark.parametrize(
    ("files", "table", "words"),
    [
        ([], None, "neither labels.csv nor a folder"),
        (["wave/notes.txt", *clips("background", 3)], None, "wave holds no video"),
        ([*clips("wave", 1), *clips("background", 3)], None, "label wave comes from one recording"),
        ([*clips("Wave!", 2), *clips("wave", 2)], None, "would both be called wave"),
        ([*clips("手", 2), *clips("wave", 2)], None, "no letter or digit"),
        (["a.mp4"], "path,begin_s\na.mp4,1", "no column label"),
        (["a.mp4"], "path,label\nb.mp4,x", "labels.csv:2: b.mp4 is not a file"),
        (["a.mp4"], "path,label,begin_s,end_s\na.mp4,x,3,2", "labels.csv:2: begin_s and end_s"),
        (["a.mp4"], "path,label,begin_s,end_s\na.mp4,x,soon,2", "begin_s soon is not a number"),
        (["a.mp4"], "path,label,split\na.mp4,x,training", "split training is not one of"),
        (
            ["a.mp4", "b.mp4"],
            "path,label,group,split\na.mp4,x,anna,train\nb.mp4,x,anna,test",
            "label x comes from one recording",
        ),
        (
            ["a.mp4", "b.mp4", "c.mp4"],
            "path,label,group,split\na.mp4,x,anna,train\nb.mp4,x,anna,test\nc.mp4,x,ben,val",
            "group anna is in train and in test",
        ),
    ],
)
def test_what_cannot_be_trained_on_is_named(tmp_path: Path, files: list[str], table: str | None, words: str) -> None:
    put(tmp_path, *files)
    if table is not None:
        (tmp_path / "labels.csv").write_text(table, encoding="utf-8")
    with pytest.raises(DataError) as told:
        dataset.read(tmp_path)
    assert words in str(told.value)
    assert "\n" not in str(told.value)
