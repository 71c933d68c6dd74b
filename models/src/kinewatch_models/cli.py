"""The command line `kinewatch-models`: one command per step, each reading what the step before left behind.

A run directory holds what belongs to one trained model: weights, graphs, calibration, results. The frame cache may
be shared by runs. Commands that need PyTorch import it late, so that the others work without it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from kinewatch_models import calibrate as calibration
from kinewatch_models import (
    calibrate_actions,
    card,
    card_actions,
    catalogue,
    evaluate,
    evaluate_actions,
    leave_out,
    package,
    prepare,
    quantise,
    recipe,
    scoring,
    stream,
    windows_scored,
)
from kinewatch_models.catalogue import Clip
from kinewatch_models.recipe import Recipe

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Train, measure and package kinewatch models.")
console = Console(stderr=True)

RecipeFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="recipe, e.g. recipes/falls.toml")]
Data = Annotated[
    list[Path],
    typer.Option("--data", exists=True, file_okay=False, help="folder with clips.csv, or of `simulate`; repeatable"),
]
Cache = Annotated[Path, typer.Option("--cache", help="frame cache, filled by `prepare`")]
Run = Annotated[Path, typer.Option("--run", help="run directory: weights, graphs, calibration, results")]

CALIBRATION_STREAMS = 40


@app.command("prepare")
def prepare_command(recipe_file: RecipeFile, data: Data, cache: Cache) -> None:
    """Decode the recipe's clips once, through the agent's capture chain."""
    spec = recipe.load(recipe_file)
    clips = catalogue.read(data, spec)
    for _ in track(prepare.fill(clips, spec, cache), "decoding", len(clips), console=console):
        pass


@app.command()
def train(recipe_file: RecipeFile, data: Data, cache: Cache, run: Run, threads: int = 1) -> None:
    """Train on the train split; a killed run goes on after its last whole epoch."""
    spec = recipe.load(recipe_file)
    _train(_trainable(data, spec), spec, cache, run, threads)


def _trainable(data: list[Path], spec: Recipe) -> list[Clip]:
    return [clip for clip in catalogue.read(data, spec) if clip.split == "train" and clip.trainable]


def _train(clips: list[Clip], spec: Recipe, cache: Path, run: Path, threads: int) -> None:
    import torch

    from kinewatch_models.train import loop, windows
    from kinewatch_models.train import net as nets

    torch.set_num_threads(threads)
    torch.manual_seed(spec.train.seed)
    net = nets.build(spec.net, len(spec.labels)).to(memory_format=torch.channels_last)
    loop.fit(net, lambda rng: windows.batches(clips, spec, cache, rng), spec.train, run, console.print)


@app.command()
def export(recipe_file: RecipeFile, run: Run) -> None:
    """Write the ONNX graph of a trained run and check it against the net."""
    _export(recipe.load(recipe_file), run)


def _export(spec: Recipe, run: Path) -> None:
    import torch

    from kinewatch_models.train import export as exporter
    from kinewatch_models.train import net as nets

    net = nets.build(spec.net, len(spec.labels), pretrained=False)
    net.load_state_dict(torch.load(run / "weights.pt", map_location="cpu", weights_only=True))
    difference = exporter.export(net, spec.input.size, spec.train.window, _graph(run, spec, "fp32"))
    console.print(f"{_graph(run, spec, 'fp32')}: logits within {difference:.1e} of the net")


@app.command("quantise")
def quantise_command(recipe_file: RecipeFile, data: Data, cache: Cache, run: Run) -> None:
    """Write the int8 graph, calibrated on streams of the train split."""
    spec = recipe.load(recipe_file)
    _quantise(_trainable(data, spec), spec, cache, run)


def _quantise(clips: list[Clip], spec: Recipe, cache: Path, run: Path) -> None:
    some = clips[:: max(1, len(clips) // CALIBRATION_STREAMS)]
    streams = (scoring.frames(clip, spec, cache)[0] for clip in some)
    quantise.quantise_online(_graph(run, spec, "fp32"), _graph(run, spec, "int8"), streams)
    console.print(str(_graph(run, spec, "int8")))


@app.command("leave-out")
def leave_out_command(
    recipe_file: RecipeFile,
    data: Data,
    cache: Cache,
    run: Run,
    left_out: Annotated[list[str], typer.Option("--left-out", help="DATASET or DATASET/GROUP; repeatable")],
    threads: int = 1,
) -> None:
    """Train without each of `--left-out` in turn and measure on it; a killed run goes on where it stopped."""
    spec = recipe.load(recipe_file)
    clips = catalogue.read(data, spec)
    folds = [leave_out.fold(clips, name) for name in left_out]

    def graphs(train: list[Clip], folder: Path) -> dict[str, Path]:
        _train(train, spec, cache, folder, threads)
        _export(spec, folder)
        _quantise(train, spec, cache, folder)
        return {precision: _graph(folder, spec, precision) for precision in leave_out.PRECISIONS}

    for one in folds:
        file = run / one.folder / "fold.json"
        if not file.exists():
            _write(file, leave_out.measure(one, spec, cache, file.parent, graphs))
    _write(run / "leave-out.json", {"folds": [_read(run / one.folder / "fold.json") for one in folds]})


@app.command("calibrate")
def calibrate_command(recipe_file: RecipeFile, data: Data, cache: Cache, run: Run) -> None:
    """Choose thresholds and lags on the val split, for both graphs together."""
    spec = recipe.load(recipe_file)
    clips = [clip for clip in catalogue.read(data, spec) if clip.split == "val"]
    if not spec.sequences:
        _write(run / "calibration.json", _calibrate_actions(clips, spec, cache, run))
        return
    graphs = [stream.session(_graph(run, spec, precision)) for precision in ("fp32", "int8")]
    _write(run / "calibration.json", calibration.on_graphs(clips, graphs, spec, cache))


def _calibrate_actions(clips: list[Clip], spec: Recipe, cache: Path, run: Path) -> dict[str, Any]:
    graphs = [stream.session(_graph(run, spec, precision)) for precision in ("fp32", "int8")]
    streams = [one for graph in graphs for one in scoring.score(clips, graph, spec, cache)]
    windows = np.concatenate([windows_scored.score(clips, graph, spec, cache) for graph in graphs])
    classes = evaluate_actions.true_classes(clips, spec) * len(graphs)
    return calibrate_actions.choose(streams, windows, classes, spec)


@app.command("evaluate")
def evaluate_command(recipe_file: RecipeFile, data: Data, cache: Cache, run: Run) -> None:
    """Measure both graphs on every val and test set; write `results.json` and print the figures."""
    spec = recipe.load(recipe_file)
    graphs = {precision: _graph(run, spec, precision) for precision in ("fp32", "int8")}
    measure = evaluate.evaluate if spec.sequences else evaluate_actions.evaluate
    results = measure(catalogue.read(data, spec), spec, cache, graphs, _read(run / "calibration.json"))
    _write(run / "results.json", results)
    print(_card(spec, results))


@app.command("package")
def package_command(recipe_file: RecipeFile, run: Run, out: Annotated[Path, typer.Option("--out")]) -> None:
    """Assemble a checked package at OUT from a measured run; the results go beside it as `OUT.results.json`."""
    spec = recipe.load(recipe_file)
    fp32, int8 = _graph(run, spec, "fp32"), _graph(run, spec, "int8")
    results = _read(run / "results.json")
    if results["graphs"] != {"fp32": evaluate.digest(fp32), "int8": evaluate.digest(int8)}:
        raise typer.BadParameter(f"{run / 'results.json'} was measured on other graphs: run evaluate again")
    licence = recipe_file.parent / spec.license_file
    text = _card(spec, results)
    package.write(spec, package.Parts(fp32, int8, licence, text, results["calibration"]), out)
    _write(out.with_name(f"{out.name}.results.json"), results)
    check(out)


@app.command(add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def simulate(context: typer.Context) -> None:
    """Render clips of falls and daily life with exact truth (needs the extra `simulate`)."""
    try:
        from kinewatch_models.simulate.cli import app as simulator
    except ModuleNotFoundError as error:
        raise typer.BadParameter(f"{error.name} is missing: pip install 'kinewatch-models[simulate]'") from None
    simulator(context.args, prog_name="kinewatch-models simulate")


@app.command()
def check(folder: Annotated[Path, typer.Argument(exists=True, file_okay=False)]) -> None:
    """Verify a package: checksums, labels, golden clips on every graph."""
    for precision, difference in package.check(folder).items():
        console.print(f"{folder}: {precision} golden logits within {difference:.3g}")


def _card(spec: Recipe, results: dict[str, Any]) -> str:
    return card.render(spec, results) if spec.sequences else card_actions.render(spec, results)


def _graph(run: Path, spec: Recipe, precision: str) -> Path:
    return run / f"{spec.name}.{precision}.onnx"


def _read(path: Path) -> dict[str, Any]:
    table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return table


def _write(path: Path, table: dict[str, Any]) -> None:
    path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    console.print(str(path))


if __name__ == "__main__":
    app()
