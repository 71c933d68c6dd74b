"""ARCHITECTURES.md is what the command writes of what is in the code, and names every architecture."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kinewatch_models import report_architectures
from kinewatch_models.arch.registry import Architecture

DOCUMENT = Path(__file__).parents[1] / "ARCHITECTURES.md"
every = pytest.mark.parametrize("row", report_architectures.ROWS, ids=lambda row: row.name)


def test_the_document_is_what_the_command_writes() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text == report_architectures.render(), "run: kinewatch-models architectures --out ARCHITECTURES.md"


def test_costs_are_those_of_the_architectures() -> None:
    assert report_architectures.read_costs().keys() == {"form", *(row.name for row in report_architectures.ROWS)}


@every
def test_it_has_one_whole_row_each(row: Architecture) -> None:
    lines = [line for line in report_architectures.render().splitlines() if line.startswith(f"| `{row.name}` |")]
    assert len(lines) == 1
    cells = [cell.strip() for cell in lines[0].strip("|").split("|")]
    assert len(cells) == len(report_architectures.TITLES)
    assert all(cells)


@every
def test_a_published_figure_says_where_it_was_read(row: Architecture) -> None:
    assert all(one.figure and one.source and one.url.startswith("https://") for one in row.published)


def test_the_list_needs_no_pytorch() -> None:
    code = "import sys; sys.modules['torch'] = None; from kinewatch_models.cli import app; app(['architectures'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = [line.split()[0] for line in done.stdout.splitlines()[1:]]
    assert sorted(names) == sorted(row.name for row in report_architectures.ROWS)
