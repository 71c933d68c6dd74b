"""The steps from clips to a package, each reading what the one before left in the run directory.

A run directory holds what belongs to one trained model: weights, graphs, calibration, results. The frame cache may be
shared by runs. Only `train` and `export` need PyTorch, imported late.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kinewatch_models import (
    agent,
    calibrate,
    calibrate_actions,
    card,
    card_actions,
    evaluate,
    evaluate_actions,
    lags,
    package,
    prepare,
    quantise,
    ranges,
    scalers,
    scoring,
    stored,
    windows_scored,
)
from kinewatch_models.arch.registry import ARCHITECTURES
from kinewatch_models.catalogue import Clip
from kinewatch_models.error import ToolError
from kinewatch_models.recipe import Recipe
from kinewatch_models.scoring import Scored
from kinewatch_models.stream import Floats, Graph

MADE_WITH, CALIBRATION = "made-with.json", "calibration.json"
CALIBRATION_STREAMS = 40
PRECISIONS = ("fp32", "int8")
ANY_DIFFERENCE = 1000.0
MOST_LOST = 0.01
"""Share of the val clips that int8 may be right on less often than fp32, and fp32 than with its weights in half; one
clip is always allowed."""

Table = dict[str, Any]


class StepError(ToolError):
    """A step cannot go on; the message holds the figures and says what to do."""


@dataclass(frozen=True)
class Work:
    """One model in the making."""

    spec: Recipe
    clips: list[Clip]
    cache: Path
    run: Path
    agent: Path | None = None
    """The agent that scores the val videos for thresholds; without one, their frames are streamed here."""

    def graph(self, precision: str) -> Path:
        """The ONNX file of a precision."""
        return self.run / f"{self.spec.name}.{precision}.onnx"

    def of(self, split: str) -> list[Clip]:
        """The clips of a split that teach something; there has to be one."""
        found = [clip for clip in self.clips if clip.split == split and (clip.trainable or split != "train")]
        if not found:
            raise StepError(f"no clip is in the split {split}: move a group there")
        return found

    def read(self, name: str) -> Table:
        """A table that an earlier step left."""
        if not (self.run / name).exists():
            raise StepError(
                f"{self.run / name} is missing: train, export, quantise, calibrate and evaluate come in order"
            )
        return read(self.run / name)

    def write(self, name: str, table: Table) -> None:
        """Leave a table for later steps."""
        write(self.run / name, table)


def read(path: Path) -> Table:
    """A table in a JSON file."""
    table: Table = json.loads(path.read_text(encoding="utf-8"))
    return table


def history(run: Path) -> list[dict[str, float]]:
    """A row per epoch of the training in `run`: its loss and what it took."""
    rows: list[dict[str, float]] = json.loads((run / "history.json").read_text(encoding="utf-8"))
    return rows


def write(path: Path, table: Table) -> None:
    """Write `table` as JSON; the file appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(table) + "\n", encoding="utf-8")
    draft.replace(path)


def decode(work: Work) -> Iterator[str]:
    """Decode the clips once, through the agent's capture chain; yields each clip's path when it is there."""
    return prepare.fill(work.clips, work.spec, work.cache)


def claim(work: Work) -> None:
    """Mark the run directory as that of this recipe and these clips; one of others is refused, not gone on with.

    What a recipe only says (licence, limits, notes) or sets after training (decoders) may change.
    """
    clips = [replace(clip, root=Path()) for clip in work.clips]
    made_with = {"recipe": _digest_of_recipe(work.spec), "clips": hashlib.sha256(repr(clips).encode()).hexdigest()}
    if not (work.run / MADE_WITH).exists():
        work.write(MADE_WITH, made_with)
    _not_of_an_earlier_version(work)
    if work.read(MADE_WITH) != made_with:
        raise StepError(f"{work.run} holds the run of another recipe, seed or clips: give another --run")


def _digest_of_recipe(spec: Recipe) -> str:
    """Of what decides the weights."""
    sources = [(one.dataset, one.classes, one.weight, one.overhead, one.overhead_weight) for one in spec.sources]
    decides = (spec.labels, spec.background, spec.rate_hz, spec.input, spec.net, spec.train, sources)
    return hashlib.sha256(repr(decides).encode()).hexdigest()


def _not_of_an_earlier_version(work: Work) -> None:
    """What came before told recipes and clips apart in one sum."""
    if "recipe" not in work.read(MADE_WITH):
        raise StepError(f"{work.run} was made by an earlier version of this tool: give another --run")


def _check_recipe(work: Work) -> None:
    """Weights under a recipe that did not make them may have their labels swapped, and nothing later would notice."""
    if not (work.run / MADE_WITH).exists():
        return
    _not_of_an_earlier_version(work)
    if work.read(MADE_WITH)["recipe"] != _digest_of_recipe(work.spec):
        raise StepError(f"{work.run} was not trained with this recipe: give that, or train again with another --run")


def graphs(work: Work, threads: int, report: Callable[[str], None]) -> dict[str, Path]:
    """Train, export and quantise; returns the graphs by precision."""
    train(work, threads, report, lambda _: None)
    export(work)
    quantise_graph(work)
    return {precision: work.graph(precision) for precision in PRECISIONS}


def train(work: Work, threads: int, report: Callable[[str], None], done: Callable[[float], None]) -> None:
    """Train on the train split; a killed run goes on after its last whole epoch. `done` is told the share done."""
    import torch

    from kinewatch_models.train import loop, windows
    from kinewatch_models.train import net as nets

    if (work.run / "weights.pt").exists() and not (work.run / "history.json").exists():
        raise StepError(f"{work.run} holds weights that were imported: training begins anew, so give another --run")
    claim(work)
    if not (work.run / "code.json").exists():
        work.write("code.json", evaluate.made_with())
    torch.set_num_threads(threads)
    torch.manual_seed(work.spec.train.seed)
    net = nets.build(work.spec.net, len(work.spec.labels), work.spec.train.window)
    clips = work.of("train")
    batches = lambda rng: windows.batches(clips, work.spec, work.cache, rng)  # noqa: E731
    loop.fit(net, batches, work.spec.train, work.run, report, done)


def export(work: Work) -> float:
    """Write the fp32 graph of a trained run; leaves and returns its largest logit difference from the net.

    That is with weights in half; what int8 does to them is judged on val, see `choose_thresholds`.
    """
    _check_recipe(work)
    (work.run / CALIBRATION).unlink(missing_ok=True)
    import torch

    from kinewatch_models.train import export as exporter
    from kinewatch_models.train import net as nets

    net = nets.build(work.spec.net, len(work.spec.labels), work.spec.train.window, pretrained=False)
    net.load_state_dict(torch.load(work.run / "weights.pt", map_location="cpu", weights_only=True))
    path = work.graph("fp32")
    difference = exporter.export(net, work.spec.input.size, work.spec.train.window, path)
    if work.spec.stored_weights == stored.INT8:
        shutil.copyfile(path, work.graph(stored.HALF))
        stored.int8(path)
    work.write("export.json", {"largest_difference": difference, "made_with": evaluate.made_with()})
    return difference


def quantise_graph(work: Work) -> None:
    """Write the int8 graph, calibrated on streams of the train split."""
    _check_recipe(work)
    (work.run / CALIBRATION).unlink(missing_ok=True)
    clips = work.of("train")
    some = clips[:: max(1, len(clips) // CALIBRATION_STREAMS)]
    quantise.quantise(work.graph("fp32"), work.graph("int8"), _streams(some, work), float_parts=_float_parts(work.spec))


def measure_ranges(work: Work) -> Table:
    """How far int8 is from fp32 on the val split, by how its ranges are chosen; leaves and returns the table."""
    _check_recipe(work)
    clips, graph = work.of("train"), work.graph("fp32")
    train = list(_streams(clips[:: -(-len(clips) // ranges.STREAMS)], work))
    methods = ranges.measure(graph, train, list(_streams(work.of("val"), work)), _float_parts(work.spec))
    table = {"name": work.spec.name, "graph": evaluate.digest(graph), "methods": methods}
    work.write("ranges.json", table)
    return table


def _streams(clips: list[Clip], work: Work) -> Iterator[Floats]:
    return (scoring.frames(clip, work.spec, work.cache)[0] for clip in clips)


def _float_parts(spec: Recipe) -> tuple[str, ...]:
    """What stays in float: a difference is small beside its range, so that 256 levels leave little of it."""
    row = ARCHITECTURES.get(spec.net.architecture)
    return (*(row.float_parts if row else ()), *((quantise.FIRST_LAYER,) if spec.net.input != "rgb" else ()))


def choose_thresholds(work: Work) -> None:
    """Choose thresholds and lags on the val split, for both graphs together.

    Raises `StepError` where int8, or fp32 by how its weights are stored, loses more than it may on val: then nothing is
    left that a package could be made of.
    """
    _check_recipe(work)
    (work.run / CALIBRATION).unlink(missing_ok=True)
    clips = work.of("val")
    graphs = [Graph(work.graph(precision)) for precision in PRECISIONS]
    if work.spec.sequences:
        backwards = calibrate.backwards(clips, graphs, work.spec, work.cache)
        streams = _streamed(work, clips, graphs)
        chosen = calibrate.choose(streams, backwards, work.spec)
        first, second = streams[: len(clips)], streams[len(clips) :]
        fp32, int8 = (calibrate.right(some, chosen, work.spec) for some in (first, second))
        _check_loss(fp32, int8, len(clips))
        _check_stored(
            work,
            lambda graph: calibrate.right(scoring.score_all(clips, [graph], work.spec, work.cache), chosen, work.spec),
        )
        work.write(CALIBRATION, chosen)
        return
    windows = [windows_scored.score(clips, graph, work.spec, work.cache) for graph in graphs]
    classes = evaluate_actions.true_classes(clips, work.spec)

    def right(scores: Floats) -> int:
        return int((scores.argmax(1) == np.array(classes)).sum())

    _check_loss(right(windows[0]), right(windows[1]), len(classes))
    _check_stored(work, lambda graph: right(windows_scored.score(clips, graph, work.spec, work.cache)))
    streams = _streamed(work, clips, graphs)
    chosen = calibrate_actions.choose(streams, np.concatenate(windows), classes * len(graphs), work.spec)
    timed = [one for graph in graphs for one in lags.streams(clips, graph, work.spec, work.cache)]
    corrected = lags.correct(chosen, timed, work.spec)
    work.write(CALIBRATION, calibrate_actions.counted(corrected, streams, work.spec))


def _streamed(work: Work, clips: list[Clip], graphs: list[Graph]) -> list[Scored]:
    """The scores of both graphs on whole `clips`: those of the agent, where there is one."""
    if work.agent is None:
        return scoring.score_all(clips, graphs, work.spec, work.cache)
    with tempfile.TemporaryDirectory(dir=work.run) as folder:
        made = draft(work.spec, {precision: work.graph(precision) for precision in PRECISIONS}, Path(folder))
        return [one for name in PRECISIONS for one in agent.score(work.agent, made, clips, name, work.spec)]


def draft(spec: Recipe, graphs: dict[str, Path], folder: Path, calibration: Table | None = None) -> Path:
    """A package in `folder` for the agent to score, time or try; without `calibration` it has no thresholds yet.

    What int8 costs it is measured on clips; golden clips do not refuse it.
    """
    licence = folder / "LICENSE"
    licence.write_text("A draft: not to be used.\n", encoding="utf-8")
    parts = package.Parts(graphs["fp32"], graphs["int8"], licence, "Draft.\n", calibration or {}, ANY_DIFFERENCE)
    package.write(spec, parts, folder / "draft")
    return folder / "draft"


def _check_stored(work: Work, right: Callable[[Graph], int]) -> None:
    """Whether fp32 bears its weights in int8; `right` tells on how many val clips a graph is right."""
    if work.spec.stored_weights != stored.INT8:
        return
    int8, half = (right(Graph(work.graph(name))) for name in ("fp32", stored.HALF))
    if half - int8 > max(1, MOST_LOST * len(work.of("val"))):
        raise StepError(
            f"fp32 is right on {int8} val clips with its weights in int8, on {half} with them in half: it loses too "
            "much and is not packaged; set stored_weights to half, then export and quantise again"
        )


def _check_loss(fp32: int, int8: int, clips: int) -> None:
    if fp32 - int8 > max(1, MOST_LOST * clips):
        raise StepError(
            f"int8 is right on {int8} of {clips} val clips, fp32 on {fp32}: it loses too much and is not packaged; "
            "add training clips (they set its ranges), or train longer"
        )


def measure(work: Work) -> Table:
    """Measure both graphs on every val and test set; leaves and returns the results."""
    _check_recipe(work)
    graphs = {precision: work.graph(precision) for precision in PRECISIONS}
    module = evaluate if work.spec.sequences else evaluate_actions
    results: Table = module.evaluate(work.clips, work.spec, work.cache, graphs, work.read(CALIBRATION))
    results["training_cpu_s"] = sum(row["cpu_s"] for row in history(work.run))
    for name, file in (("made_with", "code.json"), ("export", "export.json")):
        if (work.run / file).exists():
            results[name] = work.read(file)
    work.write("results.json", results)
    return results


def measure_scalers(work: Work) -> Table:
    """What other scalers change on the test split, int8; leaves and returns the table."""
    _check_recipe(work)
    clips, graph = work.of("test"), Graph(work.graph("int8"))
    table = scalers.measure(clips, graph, work.spec, work.cache, work.read(CALIBRATION))
    work.write("scalers.json", table)
    return table


def card_text(spec: Recipe, results: Table) -> str:
    """The model card."""
    return card.render(spec, results) if spec.sequences else card_actions.render(spec, results)


def pack(work: Work, licence: Path, out: Path) -> dict[str, float]:
    """Write the package of a measured run to `out`, and its results beside it; returns the golden differences."""
    _check_recipe(work)
    results = work.read("results.json")
    if results["graphs"] != {precision: evaluate.digest(work.graph(precision)) for precision in PRECISIONS}:
        raise StepError(f"{work.run / 'results.json'} was measured on other graphs: run evaluate again")
    parts = package.Parts(
        work.graph("fp32"), work.graph("int8"), licence, card_text(work.spec, results), results["calibration"]
    )
    differences = package.write(work.spec, parts, out)
    write(out.with_name(f"{out.name}.results.json"), results)
    return differences
