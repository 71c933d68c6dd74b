"""People put before other backgrounds: what is kept of them, and what is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from kinewatch_models import prepare
from kinewatch_models.capture import Frames
from kinewatch_models.catalogue import Clip, Span
from kinewatch_models.train import backgrounds

SIZE, RATE_HZ = 48, 10
ROOM, OTHER, PERSON = 40, 120, 220
STANDING, LYING = (slice(10, 30), slice(12, 18)), (slice(34, 40), slice(20, 40))
RNG = np.random.default_rng


def clip(cache: Path, name: str, spans: tuple[Span, ...], frames: Frames) -> Clip:
    made = Clip(f"{name}.mp4", "drawn", "train", name, bool(spans), spans)
    made.folder(cache).mkdir(parents=True)
    prepare.save(made.folder(cache) / "times.npy", np.arange(len(frames)) / RATE_HZ)
    prepare.save(made.folder(cache) / f"{SIZE}.npy", frames)
    return made


def fall(stands_s: float, lies_s: float) -> Frames:
    """Somebody who stands where they are, then lies."""
    frames = np.full((int((stands_s + lies_s) * RATE_HZ), SIZE, SIZE, 3), ROOM, np.uint8)
    at = int(stands_s * RATE_HZ)
    frames[(slice(at), *STANDING)] = PERSON
    frames[(slice(at, None), *LYING)] = PERSON
    return frames


@pytest.mark.parametrize(("stands_s", "lies_s"), [(4.0, 1.5), (1.0, 4.0), (2.5, 2.5)])
def test_background_keeps_neither_who_stood_nor_who_lies(tmp_path: Path, stands_s: float, lies_s: float) -> None:
    frames = fall(stands_s, lies_s)
    walks = np.full((20, SIZE, SIZE, 3), ROOM, np.uint8)
    for index in range(20):
        walks[index, 10:30, 2 * index : 2 * index + 6] = PERSON
    came = 2.0
    spans = (Span("falling", came + stands_s - 0.5, came + stands_s), Span("lying", came + stands_s, 99.0))
    shown = clip(tmp_path, "fall", spans, np.concatenate([walks, frames]))
    found = backgrounds.scene(shown, tmp_path, SIZE)
    assert (found.background[LYING] == ROOM).all()
    assert (found.background[STANDING] == ROOM).all()
    assert 0.03 < found.somebody < 0.12


def room(grey: int) -> backgrounds.Scene:
    return backgrounds.Scene(np.full((SIZE, SIZE, 3), grey, np.uint8), 0.05)


def test_person_goes_elsewhere_and_the_room_stays() -> None:
    frames = fall(1.0, 1.0)
    seen = backgrounds.elsewhere(frames, room(ROOM), room(OTHER), np.ones(len(frames), bool), RNG(0))
    assert (seen[-1, 36:38, 24:36] == PERSON).all()
    assert (seen[:, :4] == OTHER).all()
    assert (frames[:, :4] == ROOM).all()


def test_clip_whose_median_holds_the_person_is_left_as_it_is() -> None:
    frames = fall(1.0, 1.0)
    lies = backgrounds.Scene(frames[-1], 0.05)
    acting = np.arange(len(frames)) >= RATE_HZ
    assert backgrounds.elsewhere(frames, lies, room(OTHER), acting, RNG(0)) is frames
    assert backgrounds.elsewhere(frames, lies, room(OTHER), ~acting, RNG(0)) is not frames
    still = frames[[-1] * 5]
    assert backgrounds.elsewhere(still, lies, room(OTHER), np.ones(5, bool), RNG(0)) is still, "nobody would be left"


def test_every_set_lends_its_rooms_alike() -> None:
    clips = [Clip(f"{index}.mp4", "many", "train", "P1", False, ()) for index in range(99)]
    clips.append(Clip("one.mp4", "few", "train", "P1", False, ()))
    drawn = [backgrounds.any_clip(clips, RNG(seed)).dataset for seed in range(200)]
    assert 60 < drawn.count("few") < 140
