"""Frames of a video file exactly as the agent sees them: turned upright, scaled, then converted to RGB by GStreamer.

Training on pixels of another scaler moves the scores, so nothing here decodes with OpenCV or FFmpeg. Pixels and times
come from one pipeline (in the GStreamer Data Protocol), because containers may have a variable rate or be cut by an
edit list. Never resamples in time: see `sampling`.
"""

from __future__ import annotations

import re
import select
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from kinewatch_models.error import ToolError

Frames = npt.NDArray[np.uint8]
"""``[F, H, W, 3]`` RGB."""
Seconds = npt.NDArray[np.float64]
"""``[F]`` seconds from the first frame."""

HEADER = struct.Struct(">4xHIQ44x")
"""Of a GDP packet: its type, the length of what follows, and the time of a buffer in nanoseconds."""
BUFFER, NO_TIME = 1, 2**64 - 1
SILENCE_S = 60.0
AGENT = "agent"
CHAINS = {
    AGENT: ("videoscale", "method=bilinear", "add-borders=false", "!"),
    "nearest": ("videoscale", "method=nearest-neighbour", "add-borders=false", "!"),
    "convert first": (
        "videoconvert",
        "!",
        "video/x-raw,format=RGB",
        "!",
        "videoscale",
        "method=bilinear",
        "add-borders=false",
        "!",
    ),
}
"""What scales a picture on the way."""


class CaptureError(ToolError):
    """A clip could not be decoded; the message names the file and the reason."""


def decode(path: Path, width: int, height: int, chain: str = AGENT) -> tuple[Frames, Seconds]:
    """Decode every frame of `path`, stretched to `width` x `height`, with its time in seconds from the first frame."""
    times, pictures = zip(*stream(path, width, height, chain), strict=True)
    return np.stack(pictures), np.array(times)


def stream(path: Path, width: int, height: int, chain: str = AGENT) -> Iterator[tuple[float, Frames]]:
    """Like `decode`, a frame ``[H, W, 3]`` at a time with its seconds from the first one; at least one frame.

    Another `chain` than the agent's is for measuring what it changes.
    """
    location = re.sub(r"([\\\t])", r"\\\1", str(path.resolve()))
    pipeline = [
        *("gst-launch-1.0", "-q", "filesrc", f"location={location}", "!", "decodebin", "!"),
        *("videoconvert", "!", "videoflip", "video-direction=auto", "!"),
        *CHAINS[chain],
        *(f"video/x-raw,width={width},height={height},pixel-aspect-ratio=1/1", "!", "videoconvert", "!"),
        *("video/x-raw,format=RGB", "!", "gdppay", "!", "fdsink", "fd=1", "sync=false"),
    ]
    if path.exists() and path.stat().st_size == 0:
        raise CaptureError(f"{path}: is empty")
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(pipeline, stdout=subprocess.PIPE, stderr=errors, bufsize=0) as run,
    ):
        assert run.stdout is not None  # it was asked for as a pipe
        count = 0
        try:
            for time_s, body in _timed(_packets(run.stdout, path), path):
                count += 1
                yield time_s, unpack(body, width, height, path)[0]
            failed = run.wait(SILENCE_S) != 0
        except subprocess.TimeoutExpired:
            failed = True
        finally:
            run.kill()  # before the pipe is closed and the process awaited: it may hang
        errors.seek(0)
        told = errors.read().decode(errors="replace").strip()
    if failed or not count:
        raise CaptureError(f"{path}: {_first_line(told) or 'no video frames'}")


def _packets(pipe: IO[bytes], path: Path) -> Iterator[tuple[int, bytes]]:
    """(nanoseconds, bytes) of every buffer."""
    while len(head := _read(pipe, HEADER.size, path)) == HEADER.size:
        kind, length, time_ns = HEADER.unpack(head)
        body = _read(pipe, length, path)
        if kind == BUFFER and len(body) == length:
            yield time_ns, body


def _read(pipe: IO[bytes], count: int, path: Path) -> bytes:
    """`count` bytes, or fewer at the end. GStreamer may hang on damaged files, so silence is an error."""
    parts = bytearray()
    while len(parts) < count:
        if not select.select([pipe], [], [], SILENCE_S)[0]:
            raise CaptureError(f"{path}: GStreamer has hung for {SILENCE_S:g} s")
        some = pipe.read(count - len(parts))
        if not some:
            break
        parts += some
    return bytes(parts)


def _timed(packets: Iterator[tuple[int, bytes]], path: Path) -> Iterator[tuple[float, bytes]]:
    """Seconds from the first frame; a frame that comes late or twice is left out."""
    first = last = -1
    for time_ns, body in packets:
        if time_ns == NO_TIME:
            raise CaptureError(f"{path}: its frames have no times")
        if time_ns > last:
            first, last = time_ns if first < 0 else first, time_ns
            yield (time_ns - first) / 1e9, body


def unpack(raw: bytes, width: int, height: int, path: Path) -> Frames:
    """Raw RGB bytes of GStreamer (rows padded to four bytes) as ``[F, H, W, 3]``."""
    stride = (width * 3 + 3) // 4 * 4
    size = stride * height
    if not raw or len(raw) % size:
        raise CaptureError(f"{path}: {len(raw)} bytes are not whole {width}x{height} frames")
    rows = np.frombuffer(raw, np.uint8).reshape(-1, height, stride)
    return np.ascontiguousarray(rows[:, :, : width * 3]).reshape(-1, height, width, 3)


def _first_line(errors: str) -> str:
    """What GStreamer says without its prefix, e.g. ``ERROR: from element /GstPipeline:…:``."""
    line = (errors.splitlines() or [""])[0]
    return line.rpartition(": ")[2] if line.startswith("ERROR: from element") else line
