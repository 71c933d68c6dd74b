"""The simulated room: the same seed gives the same bytes, and truth says what the body does."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("pybullet", reason="extra [simulate]")
pytest.importorskip("cv2", reason="extra [simulate]")

from kinewatch_models.simulate import body, furnish, mocap, scenario, skeleton
from kinewatch_models.simulate.cli import app
from kinewatch_models.simulate.clip import Clip, Picture, stage
from kinewatch_models.simulate.error import FallError, ScenarioError
from kinewatch_models.simulate.furnish import View
from kinewatch_models.simulate.render import Order, render
from kinewatch_models.simulate.scenario import Act, Script

pytestmark = pytest.mark.simulate

TINY = Picture(width=96, height=72, fps=25, oversample=1, mesh_m=0.04)
STYLES = ["trip", "slip", "sideways", "faint"]


def falling(style: str, seed: int) -> Clip:
    acts = [Act("walk", {"to": "middle"}), Act("fall", {"style": style, "lie_s": [2.0, 2.0]}), Act("get_up", {})]
    return stage(Script(acts), (seed,), TINY)


def hips(clip: Clip) -> np.ndarray:
    return clip.poses.position[:, 1]


@pytest.mark.parametrize("name", ["crawl", "roll"])
def test_a_captured_motion_near_the_floor_is_no_fall(name: str) -> None:
    clip = stage(Script([Act("walk", {"to": "middle"}), Act("move", {"name": name})]), (1,), TINY)
    assert hips(clip).min() < 0.3
    assert clip.truth == []


@pytest.mark.slow
def test_same_seed_gives_the_same_frames() -> None:
    script = scenario.load("falls")[0]
    one, two, other = ([f.tobytes() for f in islice(stage(script, (s,), TINY).frames(), 5)] for s in (3, 3, 4))
    assert one == two
    assert one != other


@pytest.mark.slow
def test_a_frame_has_the_asked_size_and_a_person_in_it() -> None:
    clip = stage(Script([Act("walk", {"to": "middle"}), Act("stand", {"seconds": [0.2, 0.2]})]), (5,), TINY)
    frames = list(clip.frames())
    assert len(frames) == len(clip.poses)
    assert frames[0].shape == (72, 96, 3)
    assert frames[0].dtype == np.uint8
    moved = np.abs(frames[-1].astype(int) - frames[0]).max(axis=2) > 40
    assert moved.mean() > 0.02


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("seed", [1, 2])
def test_truth_follows_the_body(style: str, seed: int) -> None:
    clip = falling(style, seed)
    fall, lying = clip.truth
    assert (fall.label, lying.label) == ("fall", "lying")
    assert 0 < fall.first < fall.end == lying.first < lying.end < len(clip.poses)
    assert 0.4 <= (fall.end - fall.first) / TINY.fps <= 2.5
    assert (lying.end - lying.first) / TINY.fps == pytest.approx(2.0, abs=0.05)
    height = hips(clip)
    assert height[fall.first - 1] > 0.7
    assert height[lying.first : lying.end].max() < 0.4
    assert np.abs(np.diff(height[lying.first : lying.end])).max() * TINY.fps < 0.3
    assert height[-1] > 0.7  # up again


@pytest.mark.slow
def test_daily_life_has_no_truth() -> None:
    for number, script in enumerate(scenario.load("daily")):
        clip = stage(script, (number,), TINY)
        assert clip.truth == []
        assert clip.duration_s > 4


@pytest.mark.slow
def test_a_body_never_jumps_between_frames() -> None:
    clip = stage(scenario.load("falls")[1], (9,), TINY)
    positions, _ = skeleton.forward(clip.poses)
    speed = np.linalg.norm(np.diff(positions, axis=0), axis=-1) * TINY.fps
    assert speed.max() < 9  # m/s, of any joint


def test_kinematics_agree_with_pybullet() -> None:
    import pybullet
    from pybullet_utils.bullet_client import BulletClient

    from kinewatch_models.simulate import ragdoll

    poses = mocap.motion("walk").once(np.array([0.3, 0.34]))
    world = BulletClient(connection_mode=pybullet.DIRECT)
    try:
        import pybullet_data

        world.setAdditionalSearchPath(pybullet_data.getDataPath())
        doll = ragdoll.Ragdoll(world)
        doll.launch(poses, ragdoll.FallStyle(lean=0, push=0, spin=0, tone=1, fade_s=1), fps=25)
        expected = doll.positions()
    finally:
        world.disconnect()
    positions, _ = skeleton.forward(poses)
    np.testing.assert_allclose(positions[1], expected, atol=1e-5)


def test_the_skin_is_closed() -> None:
    mesh = body.build(cell_m=0.03)
    edges: dict[tuple[int, int], int] = {}
    for quad in mesh.faces.tolist():
        for edge in pairwise([*quad, quad[0]]):
            edges[edge] = edges.get(edge, 0) + 1
    assert all(edges.get((b, a), 0) == count for (a, b), count in edges.items())


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ('acts = [{ do = "fly" }]', "unknown act 'fly'"),
        ('acts = [{ do = "pick_up", speed = 2 }]', "no field 'speed'"),
        ('view = "floor"\nacts = []', "unknown view 'floor'; there are: ceiling, wall"),
        ("acts = []\nothers = [[], [], []]", "3 `others`; there is room for 2"),
        ('acts = []\nothers = [[{ do = "fly" }]]', "unknown act 'fly'"),
        ('label = "y"\nacts = []\nothers = [[]]', "a `label` shows one person"),
        ('veiw = "wall"\nacts = []', "no field 'veiw'"),
        ('acts = ["walk"]', r"list of tables, \[\[x\]\], with `acts` of tables"),
    ],
)
def test_mistakes_in_a_script_are_named(script: str, words: str) -> None:
    with pytest.raises(ScenarioError, match=words):
        scenario.load("x", f"[[x]]\n{script}")


def test_an_unknown_scenario_and_no_time_at_all_are_named() -> None:
    for text, words in (("[x]\nacts = []", "list of tables"), ("x = []", "has no script")):
        with pytest.raises(ScenarioError, match=words):
            scenario.load("x", text)
    with pytest.raises(ScenarioError, match="there are: company, daily, falls"):
        scenario.load("fals")
    with pytest.raises(ScenarioError, match="`lie_s` has to be above 0 seconds"):
        stage(Script([Act("lie_down", {"lie_s": [0, 0]})]), (1,), TINY)


def test_lying_down_on_purpose_ends_on_the_floor_and_is_no_fall() -> None:
    acts = [Act("walk", {"to": "middle"}), Act("lie_down", {"lie_s": [1.0, 1.0]}), Act("get_up", {})]
    for seed in range(4):
        clip = stage(Script(acts), (seed,), TINY)
        down, lying = clip.truth
        assert (down.label, lying.label) == ("lying_down", "lying")
        assert down.end == lying.first
        assert lying.end - lying.first == 25
        height = hips(clip)
        assert height[down.first - 1] > 0.7
        assert height[lying.first : lying.end].max() < 0.3
        assert height[-1] > 0.7
        positions, _ = skeleton.forward(clip.poses)
        assert np.linalg.norm(np.diff(positions, axis=0), axis=-1).max() * TINY.fps < 9  # m/s, of any joint


@pytest.mark.slow
def test_others_move_on_their_own_and_nobody_walks_into_anybody() -> None:
    script = scenario.load("company")[2]
    assert len(script.others) == 2
    clip = stage(script, (3,), TINY)
    alone = stage(replace(script, others=[]), (3,), TINY)
    assert (clip.poses.position == alone.poses.position).all(), "company changes nothing of the first person"
    joints = [skeleton.forward(person.poses)[0] for person in clip.people]
    assert [len(one) for one in joints] == [len(clip.poses)] * 3
    for n, one in enumerate(joints):
        assert np.ptp(one[:, 0], axis=0).max() > 1.0, "each walks"
        for other in joints[:n]:
            assert np.linalg.norm(one[:, :, None] - other[:, None], axis=-1).min() > 0.15
    first, second = (next(iter(one.frames())).astype(int) for one in (clip, clip))
    assert (first == second).all()
    middle = len(clip.poses) // 2
    with_company, without = (next(islice(one.frames(), middle, None)).astype(int) for one in (clip, alone))
    changed = np.abs(with_company - without).max(axis=2) > 60
    assert changed.mean() > 0.01


@pytest.mark.slow
def test_truth_is_of_everybody_and_ends_with_the_clip() -> None:
    stands = [Act("walk", {"to": "middle"}), Act("stand", {"seconds": [7.0, 7.0]})]
    falls = [Act("walk", {"to": "middle"}), Act("fall", {"style": "trip", "lie_s": [0.5, 0.5]})]
    clip = stage(Script(stands, others=[falls]), (2,), TINY)
    assert [one.label for one in clip.truth] == ["fall", "lying"]
    assert clip.truth[-1].end == len(clip.poses), "who is done lying last lies on"
    lies = clip.people[1].poses.position[clip.truth[-1].first :, 1]
    assert lies.max() < 0.4


def test_a_script_may_be_shown_backwards_or_from_its_last_act() -> None:
    acts = [Act("walk", {"to": "middle"}), Act("stand", {"seconds": [1.0, 1.0]})]
    whole, backwards, last = (
        stage(Script(acts, label="x", backwards=back, last=only), (5,), TINY)
        for back, only in ((False, False), (True, False), (False, True))
    )
    assert (backwards.poses.position[::-1] == whole.poses.position).all()
    assert len(last.poses) == 25
    assert (last.poses.position == whole.poses.position[-25:]).all()
    assert [(one.label, one.first, one.end) for one in last.truth] == [("x", 0, 25)]
    with pytest.raises(ScenarioError, match="needs a `label`"):
        scenario.load("x", "[[x]]\nbackwards = true\nacts = []")


def test_a_body_that_does_not_come_to_rest_falls_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    falls = [Act("walk", {"to": "middle"}), Act("fall", {"style": "trip", "lie_s": [1.0, 1.0]})]
    first = stage(Script(falls), (7,), TINY)
    staged, failures = scenario.stage, 2

    def fails_twice(*given: Any) -> scenario.Staged:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise FallError("not at rest")
        return staged(*given)

    monkeypatch.setattr(scenario, "stage", fails_twice)
    again = stage(Script(falls), (7,), TINY)
    assert failures == -1
    assert again.truth
    assert again.people[0].height_m != first.people[0].height_m
    failures = 100
    with pytest.raises(FallError, match="not at rest"):
        stage(Script(falls), (7,), TINY)


def test_a_camera_under_the_ceiling_looks_down_on_the_action() -> None:
    for seed in range(20):
        camera = furnish.camera(View.CEILING, np.random.default_rng(seed), 96, 72)
        assert camera.axes[2, 1] < -0.9  # forward is down
        pixel, depth = camera.project(np.array([0.0, 0.3, furnish.STAGE_Z]))
        assert depth > 1.5
        assert (np.abs(pixel - [48, 36]) < [48, 36]).all()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_video_and_annotations_are_reproducible_and_extended(tmp_path: Path) -> None:
    script = """[[short]]
    acts = [{ do = "walk", to = "middle" }, { do = "fall", style = "trip", lie_s = [1.2, 1.2] }]"""
    one = Order("short", 2, range(0, 1), TINY, "test")
    render(one, tmp_path / "a", script)
    render(one, tmp_path / "b", script)
    render(replace(one, numbers=range(1, 2)), tmp_path / "a", script)
    assert (tmp_path / "a" / "short-2-1.mp4").read_bytes() == (tmp_path / "b" / "short-2-1.mp4").read_bytes()
    database = json.loads((tmp_path / "a" / "annotations.json").read_text())["database"]
    assert sorted(database) == ["short-2-1.mp4", "short-2-2.mp4"]
    entry = database["short-2-1.mp4"]
    assert entry["subset"] == "test"
    assert [a["label"] for a in entry["annotations"]] == ["fall", "lying"]
    assert entry["annotations"][1]["segment"][1] == pytest.approx(entry["duration"], abs=0.05)


def test_command_reports_an_unknown_scenario(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--scenario", "nothing", "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert "unknown scenario 'nothing'" in result.output
