"""`kinewatch-models fit`: from a user's labelled clips to a package, with one command."""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from kinewatch_models import capture, dataset, prepare, steps
from kinewatch_models.calibrate import CalibrationError
from kinewatch_models.catalogue import Clip
from kinewatch_models.dataset import DataError, Dataset
from kinewatch_models.package import PackageError
from kinewatch_models.recipe import DecoderSpec, InputSpec, NetSpec, Recipe, Source, TrainSpec
from kinewatch_models.steps import StepError, Work

console = Console(stderr=True, highlight=False, soft_wrap=True)

SIZE, CACHE_SIZE, RATE_HZ, WINDOW, BATCH = 144, 168, 5.0, 8, 6
WINDOWS_WANTED, LEAST_EPOCHS, MOST_EPOCHS = 900, 6, 30
LICENCE = "All rights as in the clips it was trained on; the backbone's ImageNet weights are Apache-2.0.\n"
STEPS = ("decode", "train", "export", "quantise", "calibrate", "evaluate", "package")


def command(
    data: Annotated[Path, typer.Option("--data", help="folder per label, or a folder with labels.csv")],
    out: Annotated[Path, typer.Option("--out", help="the package to write; its last part is the model's name")],
    strict: Annotated[bool, typer.Option("--strict", help="refuse videos that cannot be read")] = False,
    seed: Annotated[int, typer.Option("--seed", help="same clips and seed, same model")] = 0,
    epochs: Annotated[int, typer.Option("--epochs", help="0: as many as the number of clips asks for")] = 0,
    threads: Annotated[int, typer.Option("--threads", help="CPU threads; 0: all")] = 0,
) -> None:
    """Train on your own clips: decode, train, quantise, choose thresholds, measure, package. Goes on after a kill.

    Example: kinewatch-models fit --data clips --out models/wave
    """
    with _told():
        fit(data, out, strict, seed, epochs, threads or os.cpu_count() or 1)


def fit(data: Path, out: Path, strict: bool, seed: int, epochs: int, threads: int) -> None:
    """All steps. Raises what `_told` knows how to tell."""
    if not data.is_dir():
        raise DataError(f"{data} is not a folder: give one with a folder of clips for each label, or with labels.csv")
    if importlib.util.find_spec("torch") is None:
        raise StepError("training needs PyTorch: pip install 'kinewatch-models[train]'")
    run = out.with_name(f"{out.name}.run")
    run.mkdir(parents=True, exist_ok=True)
    found = dataset.read(data)
    for note in found.notes:
        console.print(f"note: {note}")
    spec = build(found, dataset.slug(out.name) or "own", seed, epochs)
    _check_disk(found.clips, run)
    with _progress() as progress:
        clips = _decode(found.clips, spec, run, strict, progress)
        dataset.check_splits(clips, spec.labels)
        _say_what_is_short(clips, run)
        work = Work(spec, clips, run / "frames", run)
        _train(work, threads, progress)
        _finish(work, out, progress)
    console.print(f"{out}: try it with `kinewatch replay VIDEO --model {out}`; how good it is: {out / 'MODEL_CARD.md'}")


def build(found: Dataset, name: str, seed: int, epochs: int) -> Recipe:
    """The recipe for these clips."""
    per_epoch = max(1, sum(clip.split == "train" for clip in found.clips))
    background = found.background
    actions = [label for label in found.labels if label != background]
    return Recipe(
        name=name,
        version="0.1.0",
        description=f"{', '.join(actions)}: trained on own clips",
        license="LicenseRef-own-clips",
        license_file="LICENSE",
        provenance=["own clips", "Backbone: EfficientNet-Lite0, ImageNet weights (Apache-2.0)"],
        limits=["Trained on few clips: try it where it is to work before you rely on it."],
        labels=found.labels,
        background=background,
        rate_hz=RATE_HZ,
        sources=[Source(dataset.DATASET, "own clips", "split by recording", classes={n: n for n in found.labels})],
        input=InputSpec(SIZE, [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
        net=NetSpec("tsm-online", "both", "efficientnet-lite0", 4, 0.5),
        train=TrainSpec(
            seed=seed,
            epochs=epochs or min(MOST_EPOCHS, max(LEAST_EPOCHS, WINDOWS_WANTED // per_epoch)),
            window=WINDOW,
            batch=BATCH,
            cache_size=CACHE_SIZE,
            learning_rate=3e-4,
            head_factor=10.0,
            weight_decay=0.01,
            label_smoothing=0.05,
            loss_from=2,
            consensus=0.5,
            average=0.95,
            mirror=False,
            strange_views=0.5,
        ),
        decoders=[DecoderSpec(label, True, 0.5, 0.3, 0.4, 0.8, 0.4, 0.6, 600.0) for label in actions],
    )


def _decode(clips: list[Clip], spec: Recipe, run: Path, strict: bool, progress: Progress) -> list[Clip]:
    task = progress.add_task("decode", total=len(clips))
    kept, refused = [], []
    for clip in clips:
        try:
            for _ in prepare.fill([clip], spec, run / "frames"):
                kept.append(clip)
        except capture.CaptureError as error:
            if strict:
                raise DataError(f"{error}; without --strict it is left out") from None
            refused.append(str(error))
        progress.advance(task)
    for line in refused:
        console.print(f"left out: {line}")
    if refused:
        console.print(f"note: {len(refused)} of {len(clips)} videos cannot be read and are left out")
    return kept


def _say_what_is_short(clips: list[Clip], run: Path) -> None:
    lengths = [float(clip.frames(run / "frames", SIZE)[1][-1]) for clip in clips]
    short = sum(length < (WINDOW - 1) / RATE_HZ for length in lengths)
    if short:
        console.print(
            f"note: {short} of {len(clips)} clips are shorter than a window of {WINDOW / RATE_HZ:g} s: "
            "their first and last pictures are repeated"
        )


def _train(work: Work, threads: int, progress: Progress) -> None:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"the CPU, {threads} threads (no GPU found)"
    task = progress.add_task(f"train on {device}", total=1.0)
    steps.train(work, threads, lambda _: None, lambda share: progress.update(task, completed=share))
    progress.update(task, completed=1.0)


def _finish(work: Work, out: Path, progress: Progress) -> None:
    licence = work.run / "LICENSE"
    licence.write_text(LICENCE, encoding="utf-8")
    for name, step in (
        ("export", lambda: steps.export(work)),
        ("quantise", lambda: steps.quantise_graph(work)),
        ("calibrate", lambda: steps.choose_thresholds(work)),
        ("evaluate", lambda: steps.measure(work)),
        ("package", lambda: steps.pack(work, licence, out)),
    ):
        task = progress.add_task(name, total=1)
        step()
        progress.advance(task)


def _check_disk(clips: list[Clip], run: Path) -> None:
    """Refuse early where decoded frames cannot fit: about 30 pictures a second, by the size of the files."""
    need = sum((clip.root / clip.path).stat().st_size for clip in clips) * 30
    free = shutil.disk_usage(run).free
    if free < min(need, 2_000_000_000):
        raise DataError(f"{run} has {free / 1e6:.0f} MB free, decoded frames need about {need / 1e6:.0f} MB: free some")


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    return Progress(*columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console)


@contextmanager
def _told() -> Iterator[None]:
    """Known failures end in one line and exit code 2."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        where = error.filename or "the run directory"
        console.print(f"error: no space left on the disk of {where}: free some, then give the same command again")
        raise typer.Exit(2) from None
    except (DataError, StepError, CalibrationError, PackageError) as error:
        console.print(f"error: {error}")
        raise typer.Exit(2) from None
