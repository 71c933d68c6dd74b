"""Speed and memory of the daemon against what it is made of: `make bench`.

Usage: `python -m kinewatch_models.bench KINEWATCH_BINARY`, from a checkout installed with `pip install -e`. One run,
ratios: CPU seconds are those of whole processes (user + system, from the operating system), so a busy machine matters
little. Prints a Markdown table of what was measured, on what, against what. Needs ffmpeg, gst-launch-1.0 and the
standard library.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SECONDS = 20
PORT = 18189


def cpu(command: list[str], copies: int) -> float:
    """CPU seconds of `copies` of a command run beside each other."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    null = subprocess.DEVNULL
    processes = [subprocess.Popen(command, stdout=null, stderr=null) for _ in range(copies)]
    if any(process.wait() for process in processes):
        raise SystemExit(f"bench: failed: {' '.join(command)}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def clip(folder: Path, width: int, height: int) -> Path:
    """A camera-like clip: the rendered room, enlarged, with sensor noise, H.264 at 30 frames a second."""
    path = folder / f"{height}.mp4"
    vf = f"scale={width}:{height},noise=alls=6:allf=t,fps=30"
    encode = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "27", "-g", "60", "-pix_fmt", "yuv420p", "-an"]
    source = ["-stream_loop", "1", "-t", str(SECONDS), "-i", str(ROOT / "tests/data/room-1.mp4")]
    subprocess.run(["ffmpeg", "-v", "error", "-y", *source, "-vf", vf, *encode, str(path)], check=True)
    return path


def chain(path: Path, rate: float) -> list[str]:
    """gst-launch of the same work, paced as a camera paces it: decode, drop by time, scale, convert."""
    text = (
        f"filesrc location={path} ! qtdemux ! h264parse ! avdec_h264 max-threads=1 ! videorate drop-only=true "
        f"! video/x-raw,framerate={int(rate)}/1 ! videoscale method=bilinear add-borders=false "
        "! video/x-raw,width=144,height=144 ! videoconvert ! video/x-raw,format=RGB ! fakesink sync=true"
    )
    return ["gst-launch-1.0", "-q", *text.split()]


class Daemon:
    """A running daemon over `cameras` copies of one file, played once in real time."""

    def __init__(self, kinewatch: Path, folder: Path, sources: list[str], backend: str):
        shutil.rmtree(folder / "state", ignore_errors=True)
        text = f'[device]\nname = "bench"\nstate_dir = "{folder}/state"\n[web]\nlisten = "127.0.0.1:{PORT}"\n'
        text += (
            f'[mqtt]\nurl = "mqtt://127.0.0.1:{PORT + 10}"\n[engine]\nbackend = "{backend}"\n[log]\nlevel = "error"\n'
        )
        text += f'[[model]]\nname = "falls"\npath = "{ROOT}/models/falls"\n'
        for n, source in enumerate(sources):
            text += f'[[camera]]\nname = "cam{n}"\nsource = "{source}"\n'
        config = folder / "kinewatch.toml"
        config.write_text(text)
        self.cameras = len(sources)
        self.started = time.monotonic()
        self.process = subprocess.Popen([str(kinewatch), "run", "--config", str(config)])

    def metrics(self) -> dict[str, float]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return {}
        rows = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in rows}

    def total(self, name: str) -> float:
        return sum(v for k, v in self.metrics().items() if k.split("{")[0] == name)

    def reach(self, name: str, value: float, every: float = 0.02, limit: float = 120.0) -> float:
        """Seconds since the start until a metric's sum is at least `value`.

        Each question costs the daemon an answer, so ask seldom while it is measured.
        """
        while self.total(name) < value:
            if self.process.poll() is not None or time.monotonic() - self.started > limit:
                raise SystemExit(f"bench: the daemon ended, or {name} did not reach {value}")
            time.sleep(every)
        return time.monotonic() - self.started

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        return int(found.group(1)) / 1024 if found else 0.0

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=10)


def model_ms(kinewatch: Path, backend: str) -> float:
    """CPU milliseconds per frame of the back end, by `kinewatch model bench`."""
    command = [
        str(kinewatch),
        "model",
        "bench",
        str(ROOT / "models/falls"),
        "--backend",
        backend,
        "--json",
        "--seconds",
        "3",
    ]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return min(float(row["cpu_ms_per_frame"]) for row in json.loads(out)["results"])


def main() -> None:
    kinewatch = Path(sys.argv[1]).resolve()
    ort = bool(os.environ.get("ORT_DYLIB_PATH"))
    backend = "ort" if ort else "tract"
    rows: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video = clip(folder, 1920, 1080)
        ms = model_ms(kinewatch, backend)
        rss = []
        for cameras in (1, 4):
            daemon = Daemon(kinewatch, folder, [f"file:{video}"] * cameras, backend)
            daemon.reach("kinewatch_backbone_runs_total", 1)
            opened = daemon.cpu_seconds()
            frames_first = daemon.total("kinewatch_frames_total")
            expected = cameras * (SECONDS * 5 - 2)
            daemon.reach("kinewatch_frames_total", expected, every=2.0)
            used, frames = daemon.cpu_seconds() - opened, daemon.total("kinewatch_frames_total")
            runs = daemon.total("kinewatch_backbone_runs_total")
            dropped = daemon.total("kinewatch_frames_dropped_total")
            rss.append(daemon.rss_mb())
            daemon.stop()
            gst = cpu(chain(video, 5), cameras)
            bare = gst + (frames - frames_first) * ms / 1000
            what = f"daemon CPU / (gst-launch + bare {backend}), {cameras} x 1080p30, falls"
            rows.append((what, f"{used:.2f} s / {bare:.2f} s = {used / bare:.2f}", "≤ 1.10"))
            rows.append(
                (
                    f"backbone runs per sampled frame ({cameras} cameras, {dropped:.0f} dropped)",
                    f"{runs / (frames - dropped):.3f}",
                    "1.00",
                )
            )
        rows.append(
            ("RSS per further camera", f"{(rss[1] - rss[0]) / 3:.1f} MB ({rss[0]:.0f} MB with one)", "≤ ring + 10 MB")
        )
        small = clip(folder, 640, 360)
        daemon = Daemon(kinewatch, folder, [f"file:{small}"], "tract")
        cold = daemon.reach("kinewatch_backbone_runs_total", 1)
        daemon.stop()
        rows.append(("`run` cold start to first inference (tract, falls)", f"{cold:.2f} s", "≤ 2 s"))
        rows.append((f"back end alone, CPU ms per frame ({backend})", f"{ms:.2f}", ""))
    print(f"measured on {os.cpu_count()} cores, clip of {SECONDS} s\n\n| measured | value | to reach |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
