"""The command line `kinewatch-models`: `fit` for a folder of clips, and one command per step for a recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track
from typer.core import TyperGroup

from kinewatch_models import (
    agent,
    catalogue,
    conditions,
    crossval,
    curve,
    fit,
    leave_out,
    package,
    recipe,
    report,
    splice,
    steps,
)
from kinewatch_models.catalogue import Clip
from kinewatch_models.recipe import Recipe
from kinewatch_models.steps import Work
from kinewatch_models.told import console, in_one_line


class OneLine(TyperGroup):
    """Every command tells a known failure in one line."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with in_one_line():
            return super().invoke(ctx)


app = typer.Typer(
    cls=OneLine, no_args_is_help=True, add_completion=False, help="Train, measure and package kinewatch models."
)
app.command("fit")(fit.command)
app.command("splice")(splice.command)
app.command("report")(report.command)

RecipeFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="recipe, e.g. recipes/falls.toml")]
Data = Annotated[
    list[Path],
    typer.Option("--data", exists=True, file_okay=False, help="folder with clips.csv, or of `simulate`; repeatable"),
]
Cache = Annotated[Path, typer.Option("--cache", help="frame cache, filled by `prepare`")]
Run = Annotated[Path, typer.Option("--run", help="run directory: weights, graphs, calibration, results")]


def _work(recipe_file: Path, data: list[Path], cache: Path, run: Path) -> Work:
    spec = recipe.load(recipe_file)
    return Work(spec, catalogue.read(data, spec), cache, run)


@app.command("prepare")
def prepare_command(recipe_file: RecipeFile, data: Data, cache: Cache) -> None:
    """Decode the recipe's clips once, through the agent's capture chain."""
    work = _work(recipe_file, data, cache, cache)
    for _ in track(steps.decode(work), "decoding", len(work.clips), console=console):
        pass


@app.command()
def train(recipe_file: RecipeFile, data: Data, cache: Cache, run: Run, threads: int = 1) -> None:
    """Train on the train split; a killed run goes on after its last whole epoch."""
    steps.train(_work(recipe_file, data, cache, run), threads, console.print, lambda _: None)


@app.command()
def export(recipe_file: RecipeFile, run: Run) -> None:
    """Write the ONNX graph of a trained run and check it against the net."""
    work = Work(recipe.load(recipe_file), [], run, run)
    difference = steps.export(work)
    console.print(f"{work.graph('fp32')}: logits within {difference:.1e} of the net")


@app.command("quantise")
def quantise_command(recipe_file: RecipeFile, data: Data, cache: Cache, run: Run) -> None:
    """Write the int8 graph, calibrated on streams of the train split."""
    steps.quantise_graph(_work(recipe_file, data, cache, run))


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
        return steps.graphs(Work(spec, train, cache, folder), threads, console.print)

    for one in folds:
        file = run / one.folder / "fold.json"
        if not file.exists():
            steps.write(file, leave_out.measure(one, spec, cache, file.parent, graphs))
    steps.write(run / "leave-out.json", {"folds": [steps.read(run / one.folder / "fold.json") for one in folds]})
    console.print(str(run / "leave-out.json"))


@app.command("crossval")
def crossval_command(
    recipe_file: RecipeFile,
    data: Data,
    cache: Cache,
    run: Run,
    folds: Annotated[int, typer.Option("--folds", min=2)] = 5,
    seed: Annotated[int | None, typer.Option("--seed", help="instead of the recipe's; one --run for each")] = None,
    threads: int = 1,
) -> None:
    """k-fold cross-validation by group, for labels that are actions of their own; goes on where it was stopped."""
    spec = recipe.load(recipe_file)
    if seed is not None:
        spec = replace(spec, train=replace(spec.train, seed=seed))
    clips = [clip for clip in catalogue.read(data, spec) if clip.trainable]
    split = crossval.folds(clips, spec, folds)
    steps.claim(Work(spec, clips, cache, run))
    files = [run / f"fold-{index + 1}-of-{folds}.json" for index in range(folds)]
    for file, (train, measured) in zip(files, split, strict=True):
        work = Work(spec, [*train, *measured], cache, file.with_suffix(""))

        def graphs(_: list[Clip], work: Work = work) -> dict[str, Path]:
            for _path in steps.decode(work):
                pass
            return steps.graphs(work, threads, console.print)

        if not file.exists():
            steps.write(file, crossval.measure(train, measured, spec, cache, graphs))
    steps.write(run / "crossval.json", crossval.summary([steps.read(file) for file in files], spec))
    console.print(str(run / "crossval.json"))


@app.command("curve")
def curve_command(
    recipe_file: RecipeFile,
    data: Data,
    cache: Cache,
    run: Run,
    share: Annotated[list[float], typer.Option("--share", min=0.01, max=1.0, help="of the groups; repeatable")],
    seed: Annotated[list[int], typer.Option("--seed", help="instead of the recipe's; repeatable")] = [],  # noqa: B006
    threads: int = 1,
) -> None:
    """Learning curve: train on each share of the groups and measure on the test split; goes on where it was stopped."""
    spec = recipe.load(recipe_file)
    clips = catalogue.read(data, spec)
    rows = []
    for one in seed or [spec.train.seed]:
        seeded = replace(spec, train=replace(spec.train, seed=one))

        def graphs(train: list[Clip], folder: Path, seeded: Recipe = seeded) -> dict[str, Path]:
            return steps.graphs(Work(seeded, train, cache, folder), threads, console.print)

        for part in share:
            file = run / f"share-{part:g}-seed-{one}.json"
            if not file.exists():
                steps.write(file, curve.measure(clips, part, seeded, cache, file.with_suffix(""), graphs))
            rows.append(steps.read(file))
    steps.write(run / "curve.json", {"name": spec.name, "rows": rows})
    console.print(str(run / "curve.json"))


@app.command("conditions")
def conditions_command(recipe_file: RecipeFile, data: Data, cache: Cache, run: Run) -> None:
    """Where a finished `crossval` or `leave-out` in --run was wrong: by view, motion, light and frame rate."""
    spec = recipe.load(recipe_file)
    clips = catalogue.read(data, spec)
    if spec.sequences:
        judged = conditions.of_left_out(steps.read(run / "leave-out.json"), run, clips, spec, cache)
    else:
        trainable = [clip for clip in clips if clip.trainable]
        judged = conditions.of_crossval(steps.read(run / "crossval.json"), trainable, spec)
    steps.write(run / "conditions.json", conditions.measure(judged, spec, cache))
    console.print(str(run / "conditions.json"))


@app.command("calibrate")
def calibrate_command(
    recipe_file: RecipeFile,
    data: Data,
    cache: Cache,
    run: Run,
    binary: Annotated[Path | None, typer.Option("--agent", help="the `kinewatch` binary; else the one found")] = None,
) -> None:
    """Choose thresholds and lags on the val videos, as `kinewatch replay` scores them with both graphs."""
    work = _work(recipe_file, data, cache, run)
    steps.choose_thresholds(replace(work, agent=binary or agent.find()))


@app.command("evaluate")
def evaluate_command(recipe_file: RecipeFile, data: Data, cache: Cache, run: Run) -> None:
    """Measure both graphs on every val and test set; write `results.json` and print the figures."""
    work = _work(recipe_file, data, cache, run)
    print(steps.card_text(work.spec, steps.measure(work)))


@app.command("scalers")
def scalers_command(recipe_file: RecipeFile, data: Data, cache: Cache, run: Run) -> None:
    """Measure what another platform's scaler changes on the test clips; write `scalers.json`."""
    for chain, row in steps.measure_scalers(_work(recipe_file, data, cache, run))["chains"].items():
        print(f"{chain}: {row['changed']['hits']} of {row['changed']['of']} clips decided otherwise")


@app.command("package")
def package_command(recipe_file: RecipeFile, run: Run, out: Annotated[Path, typer.Option("--out")]) -> None:
    """Assemble a checked package at OUT from a measured run; the results go beside it as `OUT.results.json`."""
    work = Work(recipe.load(recipe_file), [], run, run)
    _say(out, steps.pack(work, recipe_file.parent / work.spec.license_file, out))


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
    _say(folder, package.check(folder))


def _say(folder: Path, differences: dict[str, float]) -> None:
    for precision, difference in differences.items():
        console.print(f"{folder}: {precision} golden logits within {difference:.3g}")


if __name__ == "__main__":
    app()
