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
    agree,
    catalogue,
    cli_many,
    fit,
    package,
    recipe,
    report,
    report_architectures,
    splice,
    steps,
)
from kinewatch_models.arch.importing import command as importing
from kinewatch_models.cli_many import Cache, Data, RecipeFile, Run, Threads, work_of
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
app.command("import")(importing.command)
app.command("splice")(splice.command)
app.command("report")(report.command)
app.command("architectures")(report_architectures.command)
app.command("leave-out")(cli_many.left_out)
app.command("crossval")(cli_many.cross_validation)
app.command("curve")(cli_many.learning_curve)
app.command("conditions")(cli_many.where_wrong)
app.command("compare")(cli_many.comparison)


@app.command("prepare")
def prepare_command(recipe_file: RecipeFile, data: Data, cache: Cache) -> None:
    """Decode the recipe's clips once, through the agent's capture chain."""
    work = work_of(recipe_file, data, cache, cache)
    for _ in track(steps.decode(work), "decoding", len(work.clips), console=console):
        pass


@app.command()
def train(recipe_file: RecipeFile, data: Data, cache: Cache, run: Run, threads: Threads = 1) -> None:
    """Train on the train split; a killed run goes on after its last whole epoch."""
    steps.train(work_of(recipe_file, data, cache, run), threads, console.print, lambda _: None)


@app.command()
def export(recipe_file: RecipeFile, run: Run) -> None:
    """Write the ONNX graph of a trained run and check it against the net."""
    work = Work(recipe.load(recipe_file), [], run, run)
    difference = steps.export(work)
    console.print(f"{work.graph('fp32')}: logits within {difference:.1e} of the net")


@app.command("quantise")
def quantise_command(recipe_file: RecipeFile, data: Data, cache: Cache, run: Run) -> None:
    """Write the int8 graph, calibrated on streams of the train split."""
    steps.quantise_graph(work_of(recipe_file, data, cache, run))


@app.command("calibrate")
def calibrate_command(
    recipe_file: RecipeFile,
    data: Data,
    cache: Cache,
    run: Run,
    binary: Annotated[Path | None, typer.Option("--agent", help="the `kinewatch` binary; else the one found")] = None,
) -> None:
    """Choose thresholds and lags on the val videos, as `kinewatch replay` scores them with both graphs."""
    work = work_of(recipe_file, data, cache, run)
    steps.choose_thresholds(replace(work, agent=binary or agent.find()))


@app.command("evaluate")
def evaluate_command(recipe_file: RecipeFile, data: Data, cache: Cache, run: Run) -> None:
    """Measure both graphs on every val and test set; write `results.json` and print the figures."""
    work = work_of(recipe_file, data, cache, run)
    print(steps.card_text(work.spec, steps.measure(work)))


@app.command("scalers")
def scalers_command(recipe_file: RecipeFile, data: Data, cache: Cache, run: Run) -> None:
    """Measure what another platform's scaler changes on the test clips; write `scalers.json`."""
    for chain, row in steps.measure_scalers(work_of(recipe_file, data, cache, run))["chains"].items():
        print(f"{chain}: {row['changed']['hits']} of {row['changed']['of']} clips decided otherwise")


@app.command("ranges")
def ranges_command(recipe_file: RecipeFile, data: Data, cache: Cache, run: Run) -> None:
    """Compare ways to choose the ranges of int8: calibrated on train, judged on val; write `ranges.json`."""
    for method, row in steps.measure_ranges(work_of(recipe_file, data, cache, run))["methods"].items():
        print(f"{method}: logits {row['mean_abs_difference']:.3f} from fp32, {row['flips']} frames flip")


@app.command("agree")
def agree_command(
    recipe_file: RecipeFile,
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, metavar="PACKAGE")],
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="the table, NAME.agreement.json")],
    binary: Annotated[Path | None, typer.Option("--agent", help="the `kinewatch` binary; else the one found")] = None,
) -> None:
    """Whether both graphs of PACKAGE tell the same events in the agent, on the test videos of the recipe."""
    spec = agree.readable(recipe.load(recipe_file), data)
    table = agree.measure(binary or agent.find(), folder, catalogue.read(data, spec), spec)
    steps.write(out, table)
    same = table["all"]["same_within_a_judgement"]
    console.print(f"{out}: the same events in {same['hits']} of {same['of']} clips")


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
