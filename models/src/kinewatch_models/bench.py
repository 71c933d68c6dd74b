"""Speed and memory of the daemon against what it is made of: `make bench`.

Usage: `python -m kinewatch_models.bench KINEWATCH_BINARY [--peer DIR]`, from a checkout installed with
`pip install -e`. One run, ratios: CPU seconds are those of whole processes (user + system, from the operating system),
so a busy machine matters little. Prints a Markdown table of what was measured, on what, against what. Needs ffmpeg and
gst-launch-1.0; with `--peer` also what the peer imports (PyTorch, torchvision, OpenCV).
"""

from __future__ import annotations

import argparse
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

from kinewatch_models import bench_package

ROOT = Path(__file__).resolve().parents[3]
FALLS = ROOT / "models/falls"
SECONDS = 20
PORT = 18189

Row = tuple[str, str, str]
"""What was measured, its value, what is to be reached."""


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


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found.group(1)) / 1024 if found else 0.0


class Daemon:
    """A running daemon over `cameras` copies of one file, played once in real time."""

    def __init__(self, kinewatch: Path, folder: Path, sources: list[str], backend: str, package: Path = FALLS):
        shutil.rmtree(folder / "state", ignore_errors=True)
        text = f'[device]\nname = "bench"\nstate_dir = "{folder}/state"\n[web]\nlisten = "127.0.0.1:{PORT}"\n'
        text += (
            f'[mqtt]\nurl = "mqtt://127.0.0.1:{PORT + 10}"\n[engine]\nbackend = "{backend}"\n[log]\nlevel = "error"\n'
        )
        text += f'[[model]]\nname = "watched"\npath = "{package}"\n'
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
        return resident_mb(self.process.pid)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=10)


def cpu_ms(kinewatch: Path, package: Path, backend: str, precision: str = "auto") -> float:
    """CPU milliseconds per frame of the back end, by `kinewatch model bench`."""
    command = [str(kinewatch), "model", "bench", str(package), "--backend", backend, "--precision", precision]
    out = subprocess.run([*command, "--json", "--seconds", "3"], check=True, capture_output=True, text=True).stdout
    return min(float(row["cpu_ms_per_frame"]) for row in json.loads(out)["results"])


def overhead(kinewatch: Path, folder: Path, video: Path, backend: str, ms: float) -> tuple[list[Row], list[float]]:
    """The daemon against what it is made of, with one camera and four; rows, and MB resident with each."""
    rows, rss = [], []
    for cameras in (1, 4):
        daemon = Daemon(kinewatch, folder, [f"file:{video}"] * cameras, backend)
        daemon.reach("kinewatch_backbone_runs_total", 1)
        opened, frames_first = daemon.cpu_seconds(), daemon.total("kinewatch_frames_total")
        daemon.reach("kinewatch_frames_total", cameras * (SECONDS * 5 - 2), every=2.0)
        used, frames = daemon.cpu_seconds() - opened, daemon.total("kinewatch_frames_total")
        runs, dropped = (daemon.total(f"kinewatch_{name}_total") for name in ("backbone_runs", "frames_dropped"))
        rss.append(daemon.rss_mb())
        daemon.stop()
        bare = cpu(chain(video, 5), cameras) + (frames - frames_first) * ms / 1000
        what = f"daemon CPU / (gst-launch + bare {backend}), {cameras} x 1080p30, falls"
        rows.append((what, f"{used:.2f} s / {bare:.2f} s = {used / bare:.2f}", "≤ 1.10"))
        what = f"backbone runs per sampled frame, online ({cameras} cameras, {dropped:.0f} frames dropped)"
        rows.append((what, f"{runs / (frames - dropped):.3f}", "1.00"))
    return rows, rss


def cached_runs(kinewatch: Path, folder: Path, video: Path) -> Row:
    """Windows of four frames that overlap by three: the features of a frame are computed once."""
    daemon = Daemon(kinewatch, folder, [f"file:{video}"], "tract", ROOT / "tests/data/packages/tiny-cached")
    daemon.reach("kinewatch_frames_total", SECONDS * 5, every=2.0)
    runs, frames = daemon.total("kinewatch_backbone_runs_total"), daemon.total("kinewatch_frames_total")
    daemon.stop()
    return (
        "backbone runs per sampled frame, cached (windows overlap by 3 of 4 frames)",
        f"{runs / frames:.3f}",
        "1.00",
    )


def resident_chain(video: Path, pipelines: int) -> float:
    """MB resident of one gst-launch process that runs so many chains."""
    first, *rest = chain(video, 5)
    process = subprocess.Popen([first, rest[0], *(rest[1:] * pipelines)], stdout=subprocess.DEVNULL)
    time.sleep(SECONDS / 2)
    found = resident_mb(process.pid)
    process.terminate()
    process.wait()
    return found


def memory(kinewatch: Path, folder: Path, small: Path, video: Path, backend: str, rss: list[float]) -> list[Row]:
    """What a further camera costs: at 1080p mostly the decoder's pictures, so the bare chain stands beside it."""
    further = (rss[1] - rss[0]) / 3
    bare = (resident_chain(video, 4) - resident_chain(video, 1)) / 3
    rows = [
        (
            "RSS per further camera, 1080p30: daemon, and gst-launch of the chain alone",
            f"{further:.1f} MB and {bare:.1f} MB; ours {further - bare:.1f} MB ({rss[0]:.0f} MB with one)",
            "≤ ring + 10 MB",
        )
    ]
    found = []
    for cameras in (1, 4):
        daemon = Daemon(kinewatch, folder, [f"file:{small}"] * cameras, backend)
        daemon.reach("kinewatch_frames_total", cameras * SECONDS * 5 / 2, every=2.0)
        found.append(daemon.rss_mb())
        daemon.stop()
    rows.append(("RSS per further camera, 640x360", f"{(found[1] - found[0]) / 3:.1f} MB", "≤ ring + 10 MB"))
    return rows


def allocations(video: Path) -> list[Row]:
    """Rust allocations of all threads. The back end's wrapper makes some per output: `tiny-clip` has one output."""
    rows = []
    for package in ("tests/data/packages/tiny-clip", "models/falls"):
        bench = ["cargo", "bench", "-q", "--workspace", "--features", "kinewatch/embedded-broker"]
        command = [*bench, "--bench", "allocations", "--", str(video), str(ROOT / package)]
        out = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
        value = next(line for line in out.splitlines() if "allocations per" in line)
        what = f"Rust heap allocations, appsink to scores, the back end's wrapper included, {package}"
        rows.append((what, value, "0 of ours"))
    return rows


def decoders() -> list[Row]:
    """From logits to decisions, each kind of decoder alone."""
    bench = ["cargo", "bench", "-q", "--workspace", "--features", "kinewatch/embedded-broker", "--bench", "decoder"]
    # It fails when a limit is exceeded, which the table shows as well.
    out = subprocess.run(bench, check=False, capture_output=True, text=True, cwd=ROOT).stdout
    found = [line.split(": ", 1) for line in out.splitlines() if "per label and step" in line]
    if not found:
        raise SystemExit("cargo bench --bench decoder printed nothing; run it by hand to see why")
    return [(f"decoder, {what}", value, "< 2000 ns, 0 allocations") for what, value in found]


def outbox() -> list[Row]:
    """Storing events, on the disk that the build is on."""
    bench = ["cargo", "bench", "-q", "--workspace", "--features", "kinewatch/embedded-broker", "--bench", "outbox"]
    out = subprocess.run(bench, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    found = [line.split(": ", 1) for line in out.splitlines() if "commits/s" in line]
    return [(f"outbox, {what}", value, "-") for what, value in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("kinewatch", type=Path, help="release binary")
    parser.add_argument("--peer", type=Path, help="folder of python_pipeline.py and export_tsm.py, to measure against")
    arguments = parser.parse_args()
    kinewatch = arguments.kinewatch.resolve()
    backend = "ort" if os.environ.get("ORT_DYLIB_PATH") else "tract"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video, small = clip(folder, 1920, 1080), clip(folder, 640, 360)
        ms = cpu_ms(kinewatch, FALLS, backend)
        rows, rss = overhead(kinewatch, folder, video, backend, ms)
        rows.append(cached_runs(kinewatch, folder, small))
        rows += memory(kinewatch, folder, small, video, backend, rss)
        rows += allocations(small)
        rows += decoders()
        rows += outbox()
        daemon = Daemon(kinewatch, folder, [f"file:{small}"], "tract")
        cold = daemon.reach("kinewatch_backbone_runs_total", 1)
        daemon.stop()
        rows.append(("`run` cold start to first inference (tract, falls)", f"{cold:.2f} s", "≤ 2 s"))
        rows.append((f"back end alone, CPU ms per frame ({backend}, falls)", f"{ms:.2f}", ""))
        if arguments.peer:
            rows += peer_rows(kinewatch, folder, arguments.peer.resolve(), video, small)
    print(f"measured on {os.cpu_count()} cores, clip of {SECONDS} s\n\n| measured | value | to reach |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


# ---------------------------------------------------------------- the Python script a user would write


def peer_rows(kinewatch: Path, folder: Path, peer: Path, video: Path, small: Path) -> list[Row]:
    """CPU per minute of video against the peer script: same backbone, 8 frames over 2 s, every 0.5 s."""
    subprocess.run([sys.executable, str(peer / "export_tsm.py")], check=True, cwd=folder, stderr=subprocess.DEVNULL)
    package = bench_package.write(folder / "feat224.onnx", folder / "peer")
    rows = []
    for path, limit in ((video, "≤ 0.50"), (small, "≤ 0.30")):
        script = [sys.executable, str(peer / "python_pipeline.py"), str(path), "--model"]
        out = subprocess.run([*script, str(folder / "tsm_mbv2_8x224.onnx")], check=True, capture_output=True, text=True)
        theirs = json.loads(out.stdout)["cpu_s_per_video_minute"]
        for precision in ("fp32", "int8"):
            total = replay_cpu_per_minute(kinewatch, package, path, precision)
            inference = cpu_ms(kinewatch, package, "ort", precision) * bench_package.RATE_HZ * 60 / 1000
            what = f"CPU s per minute of {path.stem}p30 against the Python script, ort {precision}"
            values = f"{total:.2f} / {theirs['total']:.2f} = {total / theirs['total']:.2f}"
            rows.append((f"{what}: total", values, limit))
            values = f"{inference:.2f} / {theirs['inference']:.2f} = {inference / theirs['inference']:.2f}"
            rows.append((f"{what}: inference", values, "≤ 0.25"))
    return rows


def replay_cpu_per_minute(kinewatch: Path, package: Path, video: Path, precision: str) -> float:
    """CPU seconds of `replay` per minute of video: a long clip less a short one, so the opening drops out."""
    used = []
    for repeats in (1, 4):
        path = video.with_name(f"{video.stem}-x{repeats}.mp4")
        loop = ["-stream_loop", str(repeats - 1), "-i", str(video), "-c", "copy", str(path)]
        subprocess.run(["ffmpeg", "-v", "error", "-y", *loop], check=True)
        engine = ["--backend", "ort", "--precision", precision]
        used.append(cpu([str(kinewatch), "replay", str(path), "--model", str(package), *engine], 1))
    return (used[1] - used[0]) * 60 / (3 * SECONDS)


if __name__ == "__main__":
    main()
