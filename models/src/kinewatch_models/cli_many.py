"""The commands that train many times: folds, groups left out, shares of the data, architectures side by side.

Each goes on where it was stopped: what has been measured lies in a file of its own.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from kinewatch_models import agent, catalogue, compare, conditions, crossval, curve, leave_out, recipe, steps
from kinewatch_models.catalogue import Clip
from kinewatch_models.recipe import Recipe
from kinewatch_models.steps import Table, Work
from kinewatch_models.told import console

RecipeFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="recipe, e.g. recipes/falls.toml")]
Data = Annotated[
    list[Path],
    typer.Option("--data", exists=True, file_okay=False, help="folder with clips.csv, or of `simulate`; repeatable"),
]
Cache = Annotated[Path, typer.Option("--cache", help="frame cache, filled by `prepare`")]
Run = Annotated[Path, typer.Option("--run", help="run directory: weights, graphs, calibration, results")]
Threads = Annotated[int, typer.Option("--threads", min=1, help="CPU threads")]


def work_of(recipe_file: Path, data: list[Path], cache: Path, run: Path) -> Work:
    """The work of one recipe."""
    spec = recipe.load(recipe_file)
    return Work(spec, catalogue.read(data, spec), cache, run)


def left_out(
    recipe_file: RecipeFile,
    data: Data,
    cache: Cache,
    run: Run,
    names: Annotated[list[str], typer.Option("--left-out", help="DATASET or DATASET/GROUP; repeatable")],
    binary: Annotated[
        Path | None,
        typer.Option("--agent", exists=True, dir_okay=False, help="a `kinewatch` that streams the videos, too"),
    ] = None,
    threads: Threads = 1,
) -> None:
    """Train without each of `--left-out` in turn and measure on it; a killed run goes on where it stopped."""
    spec = recipe.load(recipe_file)
    if not spec.sequences:
        raise leave_out.FoldError("leave-out measures events of a sequence, and this recipe has none: use crossval")
    clips = catalogue.read(data, spec)
    folds = [leave_out.fold(clips, name) for name in names]
    steps.claim(Work(spec, clips, cache, run))

    def graphs(train: list[Clip], folder: Path) -> dict[str, Path]:
        return steps.graphs(Work(spec, train, cache, folder), threads, console.print)

    def told(program: Path, paths: dict[str, Path], chosen: Table, measured: list[Clip]) -> list[list[agent.Event]]:
        with tempfile.TemporaryDirectory(dir=run) as folder:
            made = steps.draft(spec, paths, Path(folder), chosen)
            return agent.events(program, made, measured, "int8")

    streamed = partial(told, binary) if binary else None
    for one in folds:
        file = run / one.folder / "fold.json"
        if not file.exists() or (streamed and "told" not in steps.read(file)):
            steps.write(file, leave_out.measure(one, spec, cache, file.parent, graphs, streamed))
    rows = [steps.read(run / one.folder / "fold.json") for one in folds]
    steps.write(run / "leave-out.json", {"name": spec.name, "version": spec.version, "folds": rows})
    console.print(str(run / "leave-out.json"))


def cross_validation(
    recipe_file: RecipeFile,
    data: Data,
    cache: Cache,
    run: Run,
    folds: Annotated[int, typer.Option("--folds", min=2)] = 5,
    seed: Annotated[int | None, typer.Option("--seed", help="instead of the recipe's; one --run for each")] = None,
    threads: Threads = 1,
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


def learning_curve(
    recipe_file: RecipeFile,
    data: Data,
    cache: Cache,
    run: Run,
    share: Annotated[list[float], typer.Option("--share", min=0.01, max=1.0, help="of the groups; repeatable")],
    seed: Annotated[list[int], typer.Option("--seed", help="instead of the recipe's; repeatable")] = [],  # noqa: B006
    threads: Threads = 1,
) -> None:
    """Learning curve: train on each share of the groups and measure on the test split; goes on where it was stopped."""
    spec = recipe.load(recipe_file)
    clips = catalogue.read(data, spec)
    steps.claim(Work(spec, clips, cache, run))
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


def where_wrong(
    recipe_file: RecipeFile,
    data: Data,
    cache: Cache,
    run: Run,
    names: Annotated[list[str], typer.Option("--left-out", help="of these alone; else of every group left out")] = [],  # noqa: B006
) -> None:
    """Where a finished `crossval` or `leave-out` in --run was wrong: by view, motion, light and frame rate."""
    spec = recipe.load(recipe_file)
    clips = catalogue.read(data, spec)
    if spec.sequences:
        judged = conditions.of_left_out(steps.read(run / "leave-out.json"), run, clips, spec, cache, names)
    else:
        if names:
            raise conditions.NoFoldsError("--left-out names folds of `leave-out`; those of `crossval` have no names")
        trainable = [clip for clip in clips if clip.trainable]
        judged = conditions.of_crossval(steps.read(run / "crossval.json"), trainable, spec)
    table = {"name": spec.name, "version": spec.version, **conditions.measure(judged, spec, cache)}
    steps.write(run / "conditions.json", table)
    console.print(str(run / "conditions.json"))


def comparison(
    recipe_file: RecipeFile,
    data: Data,
    cache: Cache,
    run: Run,
    architecture: Annotated[list[str], typer.Option("--architecture", help="repeatable; else all that can be")] = [],  # noqa: B006
    binary: Annotated[Path | None, typer.Option("--agent", help="the `kinewatch` binary; else the one found")] = None,
    threads: Threads = 1,
) -> None:
    """Train architectures with one budget, that of the recipe, and measure them on the test split, with their cost."""
    work = work_of(recipe_file, data, cache, run)
    known = binary or agent.find()
    steps.claim(work)
    specs = {name: compare.recipe_of(work.spec, name) for name in architecture or compare.ALL}
    rows = []
    for name, spec in specs.items():
        one = replace(work, spec=spec, run=run / name)

        def graphs(_: Recipe, one: Work = one) -> dict[str, Path]:
            return steps.graphs(one, threads, console.print)

        def speeds(_: Recipe, paths: dict[str, Path], one: Work = one) -> list[dict[str, Any]]:
            with tempfile.TemporaryDirectory(dir=one.run) as folder:
                return agent.bench(known, steps.draft(one.spec, paths, Path(folder)))

        file = run / f"{name}.json"
        if not file.exists():
            console.print(f"{name}:")
            steps.write(file, compare.measure(spec, work.of("test"), cache, graphs, speeds))
        rows.append({**steps.read(file), **compare.training(one.run)})
    steps.write(run / "compare.json", {"name": work.spec.name, "rows": rows})
    console.print(str(run / "compare.json"))
