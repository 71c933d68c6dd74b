"""Frames to MP4 and truth to ``annotations.json`` (the layout of ActivityNet).

The stream suits live serving: H.264, one key frame a second, closed groups, no B-frames, yuv420p. Encoding runs on
one thread, so the same frames give the same file with the same ffmpeg.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .clip import Clip, Picture
from .error import EncodeError
from .quaternion import Array


def write_mp4(frames: Iterable[Array], picture: Picture, path: Path, bitrate_kbps: int = 0) -> None:
    """Encode BGR frames. ``bitrate_kbps`` caps the rate; 0 leaves it to constant quality."""
    if shutil.which("ffmpeg") is None:
        raise EncodeError("ffmpeg is not installed: apt install ffmpeg")
    cap = ["-maxrate", f"{bitrate_kbps}k", "-bufsize", f"{3 * bitrate_kbps}k"] if bitrate_kbps else []
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-y",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "bgr24",
        "-s",
        f"{picture.width}x{picture.height}",
        "-r",
        str(picture.fps),
        "-i",
        "-",
        "-an",
        "-c:v",
        "libx264",
        "-preset",
        "slow",
        "-crf",
        "27",
        *cap,
        "-pix_fmt",
        "yuv420p",
        "-bf",
        "0",
        "-g",
        str(picture.fps),
        "-keyint_min",
        str(picture.fps),
        "-sc_threshold",
        "0",
        "-x264-params",
        "open-gop=0:threads=1",
        "-movflags",
        "+faststart",
        "-fflags",
        "+bitexact",
        str(path),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None  # both were asked for as pipes
        assert process.stderr is not None
        try:
            for frame in frames:
                process.stdin.write(frame.tobytes())
            process.stdin.close()
        except BrokenPipeError:
            pass  # ffmpeg gave up: its own message is the better one
        errors = process.stderr.read().decode(errors="replace").strip()
    if process.returncode:
        raise EncodeError(f"ffmpeg failed on {path.name}: {errors.splitlines()[-1] if errors else 'no message'}")


def entry(clip: Clip, subset: str) -> dict[str, Any]:
    """The annotation of one clip: duration, subset and labelled segments, in seconds exact to the frame."""
    fps = clip.picture.fps
    return {
        "duration": round(clip.duration_s, 3),
        "subset": subset,
        "annotations": [
            {"label": t.label, "segment": [round(t.first / fps, 3), round(t.end / fps, 3)]} for t in clip.truth
        ],
    }


def write_annotations(path: Path, version: str, database: dict[str, dict[str, Any]]) -> None:
    """Write ``{"version": …, "database": {file: entry}}``; the file appears whole."""
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps({"version": version, "database": database}, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)


def read_annotations(path: Path) -> dict[str, dict[str, Any]]:
    """The database of an annotations file; empty when there is none."""
    if not path.exists():
        return {}
    database: dict[str, dict[str, Any]] = json.loads(path.read_text("utf-8"))["database"]
    return database
