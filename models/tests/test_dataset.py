"""A user's folder of clips: what becomes of it, and what is said where it cannot be trained on."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from kinewatch_models import dataset
from kinewatch_models.catalogue import Span
from kinewatch_models.dataset import DataError


def put(root: Path, *names: str) -> Path:
    """Files that differ: reading a data set does not decode them."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name, encoding="utf-8")
    return root


def clips(label: str, count: int) -> list[str]:
    return [f"{label}/{n}.mp4" for n in range(count)]


def test_folders_become_labels_and_every_label_is_in_train_and_val(tmp_path: Path) -> None:
    found = dataset.read(put(tmp_path, *clips("wave", 10), *clips("background", 5), "wave/notes.txt"))
    assert found.labels == ["background", "wave"]
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
    assert "background" not in found.labels
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


def test_a_folder_in_a_label_is_a_group(tmp_path: Path) -> None:
    names = [f"{label}/{person}/{n}.mp4" for label in ("wave", "background") for person in "abcde" for n in range(2)]
    found = dataset.read(put(tmp_path, *names))
    assert {clip.group for clip in found.clips} == set("abcde")
    for person in "abcde":
        assert len({clip.split for clip in found.clips if clip.group == person}) == 1


def test_every_file_that_is_not_read_is_named(tmp_path: Path) -> None:
    names = [
        *clips("wave", 4),
        *clips("background", 4),
        "wave/old.3gp",
        "background/ANNA.WMV",
        "a.mp4",
        ".hidden/b.mp4",
        "wave/.trash/c.mp4",
    ]
    found = dataset.read(put(tmp_path, *names, *(f"wave/{n}.jpg" for n in range(12)), "readme.txt"))
    assert {"wave/old.3gp", "background/ANNA.WMV"} <= {clip.path for clip in found.clips}
    loose, others = found.notes
    assert loose == "WARNING: 1 videos are left out, they lie in no folder of a label: move each into one: a.mp4"
    assert others.startswith("13 files are left out, they are not named like a video: readme.txt, wave/0.jpg")
    assert others.endswith(" and 5 more")


def test_linked_folders_are_read_and_a_link_to_itself_is_no_trap(tmp_path: Path) -> None:
    put(tmp_path, *(f"data/{name}" for name in (*clips("wave", 2), *clips("background", 2))), "far/cleo/1.mp4")
    (tmp_path / "data/wave/cleo").symlink_to(tmp_path / "far/cleo")
    (tmp_path / "data/wave/again").symlink_to(tmp_path / "data/wave")
    found = dataset.read(tmp_path / "data")
    assert [clip.path for clip in found.clips if clip.group == "cleo"] == ["wave/cleo/1.mp4"]
    assert len(found.clips) == 5


def test_a_label_of_few_people_is_in_train_and_val_whoever_else_is(tmp_path: Path) -> None:
    for people in itertools.permutations("abc"):
        names = [f"{label}/{person}/1.mp4" for label in ("wave", "background") for person in people]
        names += [f"punch/{person}/{n}.mp4" for person in people[:2] for n in range(5)]
        found = dataset.read(put(tmp_path / "".join(people), *names))
        dataset.check_splits(found.clips, found.labels)


def test_videos_that_a_table_does_not_name_are_named(tmp_path: Path) -> None:
    put(tmp_path, *clips("wave", 3), *clips("background", 2))
    lines = ["path,label", *(f"wave/{n}.mp4,wave" for n in range(3)), "background/0.mp4,background"]
    (tmp_path / "labels.csv").write_text("\n".join([*lines, "background/0.mp4,background"][:-1]), encoding="utf-8")
    with pytest.raises(DataError, match="label background comes from one"):
        dataset.read(tmp_path)
    lines.append("background/1.mp4,background")
    (tmp_path / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    put(tmp_path, "extra.mov")
    (note,) = dataset.read(tmp_path).notes
    assert note == "WARNING: 1 videos are left out, no line of labels.csv names them: extra.mov"


def test_folders_of_splits_are_splits_and_no_labels(tmp_path: Path) -> None:
    names = [f"{split}/{label}/1.mp4" for split in ("train", "Val", "test") for label in ("wave", "background")]
    found = dataset.read(put(tmp_path, *names))
    assert found.labels == ["background", "wave"]
    assert {(clip.path, clip.split) for clip in found.clips} == {
        (name, name.partition("/")[0].lower()) for name in names
    }
    dataset.check_splits(found.clips, found.labels)


def test_a_person_in_two_folders_of_splits_is_refused(tmp_path: Path) -> None:
    put(tmp_path, *(f"{split}/{label}/anna/1.mp4" for split in ("train", "val") for label in ("wave", "background")))
    with pytest.raises(DataError, match="group anna is in train and in val"):
        dataset.read(tmp_path)


def test_a_table_may_have_any_name_and_semicolons(tmp_path: Path) -> None:
    put(tmp_path, *clips("wave", 3))
    lines = ["path;label;begin_s;end_s", *(f"wave/{n}.mp4;wave;1;2" for n in range(3))]
    (tmp_path / "mine.csv").write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    assert len(dataset.read(tmp_path / "mine.csv").clips) == 3


def test_a_table_in_another_encoding_is_told(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4")
    (tmp_path / "labels.csv").write_bytes("path,label\na.mp4,Händeschütteln".encode("latin-1"))
    with pytest.raises(DataError, match="not in UTF-8"):
        dataset.read(tmp_path)


def test_copies_cannot_land_in_two_splits(tmp_path: Path) -> None:
    put(tmp_path, *clips("wave", 4), *clips("background", 4))
    (tmp_path / "wave/9.mp4").write_bytes((tmp_path / "wave/1.mp4").read_bytes())
    found = dataset.read(tmp_path)
    assert sum(clip.label == "wave" for clip in found.clips) == 4
    assert any("1 files are copies" in note for note in found.notes)
    (tmp_path / "background/9.mp4").write_bytes((tmp_path / "wave/1.mp4").read_bytes())
    with pytest.raises(DataError, match="are the same video with other labels"):
        dataset.read(tmp_path)


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
        (["a.mp4"], "path,label,begin_s,end_s\na.mp4,x,1,inf", "end_s inf is not a number"),
        (["a.mp4"], "path,label,split\na.mp4,x,training", "split training is not one of"),
        (
            ["a.mp4", "b.mp4"],
            "path,label,group,split\na.mp4,x,anna,train\nb.mp4,x,anna,test",
            "group anna is in train and in test",
        ),
        (["a.mp4", "b.mp4"], "path,label,group\na.mp4,x,anna\nb.mp4,x,anna", "label x comes from one recording (anna)"),
        (["a.mp4"], "path,label,begin_s,end_s\na.mp4,x,1,3\na.mp4,y,2,4", "a moment has one label"),
        (clips("wave", 4), None, "wave is the only label"),
        ([*clips("train", 4), *clips("test", 4)], None, "test is called like a split, not like a label: give train/L"),
        ([*clips("val", 4), *clips("wave", 4)], None, "val is called like a split"),
        ([*clips("val", 4), *clips("train", 4)], None, "no folder of clips for each label in train, val"),
        (clips("background", 4), None, "every clip is background"),
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
