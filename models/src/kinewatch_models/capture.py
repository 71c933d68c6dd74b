"""Frames of a video file exactly as the agent sees them: GStreamer scales first, then converts to RGB.

Training on pixels of another scaler moves the scores, so nothing here decodes with OpenCV or FFmpeg.
Frame times come from ffprobe, because clips may have a variable rate. Never resamples in time: see `sampling`.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.uint8]
"""``[F, H, W, 3]`` RGB."""
Seconds = npt.NDArray[np.float64]
"""``[F]`` seconds from the first frame."""


class CaptureError(Exception):
    """A clip could not be decoded; the message names the file and the reason."""


def decode(path: Path, width: int, height: int) -> tuple[Frames, Seconds]:
    """Decode every frame of `path`, stretched to `width` x `height`, with its time in seconds from the first frame."""
    frames = _pixels(path, width, height)
    times = _frame_times(path)
    if len(times) != len(frames):
        raise CaptureError(f"{path}: GStreamer gives {len(frames)} frames, ffprobe {len(times)} times")
    return frames, times - times[0]


def _pixels(path: Path, width: int, height: int) -> Frames:
    location = str(path.resolve())
    pipeline = [
        *("gst-launch-1.0", "-q", "filesrc", f"location={location}", "!", "decodebin", "!"),
        *("videoscale", "method=bilinear", "add-borders=false", "!"),
        *(f"video/x-raw,width={width},height={height},pixel-aspect-ratio=1/1", "!", "videoconvert", "!"),
        *("video/x-raw,format=RGB", "!", "fdsink", "fd=1", "sync=false"),
    ]
    done = subprocess.run(pipeline, capture_output=True, check=False)
    if done.returncode != 0:
        raise CaptureError(f"{path}: {done.stderr.decode(errors='replace').strip()}")
    return unpack(done.stdout, width, height, path)


def unpack(raw: bytes, width: int, height: int, path: Path) -> Frames:
    """Raw RGB bytes of GStreamer (rows padded to four bytes) as ``[F, H, W, 3]``."""
    stride = (width * 3 + 3) // 4 * 4
    size = stride * height
    if not raw or len(raw) % size:
        raise CaptureError(f"{path}: {len(raw)} bytes are not whole {width}x{height} frames")
    rows = np.frombuffer(raw, np.uint8).reshape(-1, height, stride)
    return np.ascontiguousarray(rows[:, :, : width * 3]).reshape(-1, height, width, 3)


def _frame_times(path: Path) -> Seconds:
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "frame=best_effort_timestamp_time"]
    done = subprocess.run([*command, "-of", "csv=p=0", str(path)], capture_output=True, check=False, text=True)
    if done.returncode != 0:
        raise CaptureError(f"{path}: {done.stderr.strip()}")
    times = [float(line.split(",")[0]) for line in done.stdout.split() if line.strip(",")]
    if not times:
        raise CaptureError(f"{path}: no video frames")
    return np.array(times)
