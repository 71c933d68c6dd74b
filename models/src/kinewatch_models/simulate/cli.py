"""``kinewatch-models simulate``: rendered clips with exact truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kinewatch_models.catalogue import SPLITS

from .error import SimulateError

app = typer.Typer(help="Render rooms in which people walk, fall and get up, with truth exact to the frame.")


@app.command()
def simulate(
    out: Annotated[Path, typer.Option(help="Folder for the clips and annotations.json.")],
    name: Annotated[str, typer.Option("--scenario", help="Scenario of the file.")] = "falls",
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same frames.")] = 1,
    clips: Annotated[int, typer.Option(min=1, help="How many clips.")] = 4,
    first: Annotated[int, typer.Option(min=1, help="Number of the first clip, to extend a set.")] = 1,
    width: Annotated[int, typer.Option(min=64, help="Picture width, even.")] = 640,
    height: Annotated[int, typer.Option(min=48, help="Picture height, even.")] = 480,
    fps: Annotated[int, typer.Option(min=5, max=60, help="Frames per second.")] = 25,
    oversample: Annotated[int, typer.Option(min=1, max=4, help="Pixels drawn per pixel and direction.")] = 2,
    mesh: Annotated[float, typer.Option(min=0.008, max=0.06, help="Size of the faces of the skin (m).")] = 0.016,
    bitrate: Annotated[int, typer.Option(min=0, help="Cap in kbit/s; 0: constant quality only.")] = 0,
    subset: Annotated[str, typer.Option(help="The subset written into the annotations.")] = "train",
    file: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Your own scenario file.")] = None,
) -> None:
    """Write CLIPS videos ``<scenario>-<seed>-<number>.mp4`` and ``annotations.json`` into OUT."""
    if subset not in SPLITS:
        raise typer.BadParameter(f"--subset {subset} is not one of {', '.join(SPLITS)}")
    if width % 2 or height % 2:
        raise typer.BadParameter("width and height must be even: yuv420p halves them")
    try:
        # Late, so that the command line works without the extra.
        from .clip import Picture
        from .render import Order, render

        numbers = range(first - 1, first - 1 + clips)
        order = Order(name, seed, numbers, Picture(width, height, fps, oversample, mesh), subset, bitrate)
        render(order, out, file.read_text("utf-8") if file else None)
    except SimulateError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    except ModuleNotFoundError as error:
        typer.echo(f"error: {error.name} is not installed: pip install 'kinewatch-models[simulate]'", err=True)
        raise typer.Exit(1) from error
