"""Clips, splits and sampling."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tiny
from kinewatch_models import capture, catalogue, prepare, recipe, sampling
from kinewatch_models.capture import CaptureError
from kinewatch_models.catalogue import CatalogueError, Clip, Span
from kinewatch_models.recipe import Recipe, RecipeError, Source

RECIPES = Path(__file__).parent.parent / "recipes"


def clip(split: str, group: str) -> Clip:
    return Clip(f"{group}-{split}.mp4", "drawn", split, group, True, ())


def test_group_in_two_splits_is_refused_by_name() -> None:
    with pytest.raises(CatalogueError, match=r"drawn/P4 is in the splits test, train"):
        catalogue.check_groups([clip("train", "P1"), clip("train", "P4"), clip("test", "P4")])


def test_group_may_be_shared_by_train_and_val_only() -> None:
    shared = [clip("train", "P3"), clip("val", "P3")]
    catalogue.check_groups(shared, ["drawn/P3"])
    with pytest.raises(CatalogueError, match="P3"):
        catalogue.check_groups(shared)
    with pytest.raises(CatalogueError, match="P3"):
        catalogue.check_groups([*shared, clip("test", "P3")], ["drawn/P3"])


def test_catalogue_reads_spans(tmp_path: Path) -> None:
    head = "path,dataset,label,split,group\n"
    (tmp_path / "clips.csv").write_text(f"{head}a.mp4,drawn,fall,train,P1\nb.mp4,other,fall,train,P1\n")
    notes = [{"label": "fall", "segment": [1.0, 2.0]}, {"label": "lying", "segment": [2.0, 4]}]
    (tmp_path / "annotations.json").write_text(json.dumps({"database": {"a.mp4": {"annotations": notes}}}))
    (only,) = catalogue.read([tmp_path], tiny.recipe())
    assert [(span.label, span.start, span.end) for span in only.spans or ()] == [("falling", 1, 2), ("lying", 2, 4)]
    assert only.trainable


def test_recipe_may_annotate_single_clips(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("path,dataset,label,split,group\na.mp4,drawn,fall,train,P1\n")
    source = Source("drawn", "Drawn", "drawn", None, {"fall": "falling"}, spans={"a.mp4": {"fall": [1.0, 2.0]}})
    (only,) = catalogue.read([tmp_path], replace(tiny.recipe(), sources=[source]))
    assert only.spans == (Span("falling", 1.0, 2.0),)


def simulated(folder: Path, recipe: Recipe) -> list[Clip]:
    notes = [{"label": "fall", "segment": [1.0, 2.0]}, {"label": "lying", "segment": [2.0, 4]}]
    clips = {"falls-1-1.mp4": notes, "daily-1-1.mp4": []}
    database = {path: {"subset": "val", "annotations": annotations} for path, annotations in clips.items()}
    (folder / "annotations.json").write_text(json.dumps({"database": database}))
    return catalogue.read([folder], recipe)


def test_simulated_folder_is_a_data_set(tmp_path: Path) -> None:
    source = replace(tiny.recipe().sources[0], dataset=catalogue.SIMULATED)
    fall, daily = simulated(tmp_path, replace(tiny.recipe(), sources=[source]))
    assert (fall.is_action, daily.is_action) == (True, False)
    assert fall.spans == (Span("falling", 1.0, 2.0), Span("lying", 2.0, 4.0))
    assert daily.spans == ()
    assert daily.trainable
    assert {fall.split, daily.split} == {"val"}
    assert fall.root / fall.path == tmp_path / "falls-1-1.mp4"


def test_simulated_folder_must_be_in_the_recipe(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="nor simulated clips that the recipe asks for"):
        simulated(tmp_path, tiny.recipe())


def test_source_without_clips_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("path,dataset,label,split,group\n")
    with pytest.raises(CatalogueError, match="no clip of drawn"):
        catalogue.read([tmp_path], tiny.recipe())


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (["/videos/a.mp4"], "does not lie in"),
        (["../a.mp4"], "does not lie in"),
        (["a.mp4", "./a.mp4"], "twice in"),
    ],
)
def test_a_video_has_one_place_in_its_folder(tmp_path: Path, paths: list[str], words: str) -> None:
    rows = "".join(f"{path},drawn,fall,train,P1\n" for path in paths)
    (tmp_path / "clips.csv").write_text(f"path,dataset,label,split,group\n{rows}")
    source = replace(tiny.recipe().sources[0], annotations=None)
    with pytest.raises(CatalogueError, match=words):
        catalogue.read([tmp_path], replace(tiny.recipe(), sources=[source]))


def test_one_path_in_two_folders_is_refused(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "clips.csv").write_text("path,dataset,label,split,group\n1.mp4,drawn,fall,train,P1\n")
    source = replace(tiny.recipe().sources[0], annotations=None)
    with pytest.raises(CatalogueError, match=r"1\.mp4 is in .*a and in .*b"):
        catalogue.read([tmp_path / "a", tmp_path / "b"], replace(tiny.recipe(), sources=[source]))


def test_a_subset_that_is_no_split_is_refused(tmp_path: Path) -> None:
    source = replace(tiny.recipe().sources[0], dataset=catalogue.SIMULATED)
    entry = {"subset": "validation", "annotations": []}
    (tmp_path / "annotations.json").write_text(json.dumps({"database": {"daily-1-1.mp4": entry}}))
    with pytest.raises(CatalogueError, match="subset 'validation' is not one of train, val, test"):
        catalogue.read([tmp_path], replace(tiny.recipe(), sources=[source]))


def test_a_cache_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"video")
    (tmp_path / "cache/a.mp4").mkdir(parents=True)
    (tmp_path / "cache/a.mp4/thesis.txt").write_text("years of work")
    one = Clip("a.mp4", "drawn", "train", "P1", True, (), root=tmp_path)
    for cache in (tmp_path / "cache", tmp_path):
        with pytest.raises(CaptureError, match="holds no decoded frames: give another --cache"):
            next(prepare.fill([one], tiny.recipe(), cache))
    assert (tmp_path / "cache/a.mp4/thesis.txt").exists()


def test_a_cache_of_another_video_that_was_emptied_halfway_is_emptied_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.mp4").write_bytes(b"another video")
    folder = tmp_path / "cache/a.mp4"
    folder.mkdir(parents=True)
    for name in ("times.npy", "16.npy", prepare.MARK):
        (folder / name).write_text("of the video before")
    one, unlink = Clip("a.mp4", "drawn", "train", "P1", True, (), root=tmp_path), Path.unlink

    def killed(path: Path) -> None:
        unlink(path)
        raise KeyboardInterrupt

    def refused(path: Path, *_size: object) -> None:
        raise CaptureError(f"{path}: no video frames")

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        next(prepare.fill([one], tiny.recipe(), tmp_path / "cache"))
    monkeypatch.undo()
    monkeypatch.setattr(capture, "decode", refused)
    with pytest.raises(CaptureError, match="no video frames"):
        next(prepare.fill([one], tiny.recipe(), tmp_path / "cache"))
    assert [path.name for path in folder.iterdir()] == [prepare.MARK]


def test_shipped_recipes_load() -> None:
    paths = [*RECIPES.glob("*.toml"), *RECIPES.glob("compare/*.toml")]
    assert len(paths) == 6
    for path in paths:
        loaded = recipe.load(path)
        assert (path.parent / loaded.license_file).exists()


def test_misspelt_key_is_refused(tmp_path: Path) -> None:
    text = (RECIPES / "falls.toml").read_text().replace("dropout", "dropuot")
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(RecipeError, match="unknown key dropuot"):
        recipe.load(tmp_path / "bad.toml")


def test_one_decoder_may_stand_for_every_action(tmp_path: Path) -> None:
    text = (RECIPES / "compare" / "interactions.toml").read_text()
    own = '\n[[decoders]]\nlabel = "hug"\n' + text.split('label = "*"\n')[1].replace("on = 0.5\n", "on = 0.9\n")
    (tmp_path / "own.toml").write_text(text + own)
    on = {one.label: one.on for one in recipe.load(tmp_path / "own.toml").decoders}
    assert on == {"handshake": 0.5, "hug": 0.9, "kick": 0.5, "point": 0.5, "punch": 0.5, "push": 0.5}


def test_a_longest_duration_that_is_none_is_refused(tmp_path: Path) -> None:
    falls = (RECIPES / "falls.toml").read_text()
    for longest in ("0.0", "-1.0", "nan"):
        (tmp_path / "bad.toml").write_text(falls.replace("max_duration_s = 2.0", f"max_duration_s = {longest}"))
        with pytest.raises(RecipeError, match="max_duration_s of fall"):
            recipe.load(tmp_path / "bad.toml")


def test_a_weight_of_ceilings_that_nothing_would_take_is_refused(tmp_path: Path) -> None:
    falls = (RECIPES / "falls.toml").read_text()
    for source in ("overhead_weight = 2.0\n", 'overhead = "*"\noverhead_weight = -1.0\n'):
        (tmp_path / "bad.toml").write_text(falls.replace('dataset = "up-fall"\n', f'dataset = "up-fall"\n{source}'))
        with pytest.raises(RecipeError, match="overhead_weight of up-fall"):
            recipe.load(tmp_path / "bad.toml")


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        ("window = 24", 'window = "24"', "window = '24' is not of type int"),
        ("rate_hz = 10.0", "rate_hz = nan", "rate_hz = nan is not above 0"),
        ("epochs = 8", "epochs = 0", "train.epochs = 0 is not above 0"),
        ('name = "falls"', 'name = "a/b"', "name 'a/b' is not one to 64 of"),
        ('labels = ["background", ', 'labels = ["lying", "background", ', "a label is named twice"),
    ],
)
def test_a_value_that_cannot_be_is_refused(tmp_path: Path, right: str, wrong: str, words: str) -> None:
    falls = (RECIPES / "falls.toml").read_text()
    assert right in falls
    (tmp_path / "bad.toml").write_text(falls.replace(right, wrong, 1))
    with pytest.raises(RecipeError) as told:
        recipe.load(tmp_path / "bad.toml")
    assert words in str(told.value)


def test_a_warm_up_beyond_the_run_is_refused(tmp_path: Path) -> None:
    text = (RECIPES / "compare" / "interactions.toml").read_text()
    assert "warm_up = 0.3" in text
    (tmp_path / "bad.toml").write_text(text.replace("warm_up = 0.3", "warm_up = 1.5"))
    with pytest.raises(RecipeError, match="warm_up is a share of the run"):
        recipe.load(tmp_path / "bad.toml")


def test_ticks_take_the_first_frame_in_time() -> None:
    steady = np.arange(0, 31) / 30
    assert sampling.ticks(steady, 5.0).tolist() == [0, 6, 12, 18, 24, 30]
    jittered = np.array([0.0, 0.19, 0.22, 0.39, 0.5, 0.58])
    assert sampling.ticks(jittered, 5.0).tolist() == [0, 1, 3, 5]


def test_ticks_over_a_hole_do_not_repeat_a_frame() -> None:
    assert sampling.ticks(np.array([0.0, 0.2, 1.0, 1.2]), 5.0).tolist() == [0, 1, 2, 3]


def test_window_is_clipped_to_the_clip() -> None:
    assert sampling.window(np.arange(10) / 10, 0.4, 5.0, 4).tolist() == [0, 0, 2, 4]


def test_padded_rows_are_unpacked() -> None:
    rows = np.arange(2 * 5 * 16, dtype=np.uint8).reshape(2, 5, 16)  # width 5: 15 bytes and one of padding
    frames = capture.unpack(rows.tobytes(), 5, 5, Path("x"))
    assert frames.shape == (2, 5, 5, 3)
    np.testing.assert_array_equal(frames.reshape(2, 5, 15), rows[:, :, :15])


def test_interrupted_save_leaves_no_file(tmp_path: Path) -> None:
    prepare.save(tmp_path / "times.npy", np.zeros(3))
    assert [path.name for path in tmp_path.iterdir()] == ["times.npy"]


@pytest.mark.skipif(not shutil.which("gst-launch-1.0") or not shutil.which("ffmpeg"), reason="needs GStreamer, FFmpeg")
def test_decoded_frames_have_size_and_time(tmp_path: Path) -> None:
    import subprocess

    path = tmp_path / "clip.mkv"
    source = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=1"]
    made = subprocess.run(["ffmpeg", "-v", "error", *source, "-c:v", "mjpeg", str(path)], check=False)
    if made.returncode:
        pytest.skip("this FFmpeg cannot write the test clip")
    frames, times = capture.decode(path, 30, 20)
    assert frames.shape == (10, 20, 30, 3)
    np.testing.assert_allclose(times, np.arange(10) / 10, atol=0.01)
