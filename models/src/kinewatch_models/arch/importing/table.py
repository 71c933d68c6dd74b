"""The table of importers. Needs no PyTorch."""

from __future__ import annotations

from kinewatch_models.arch.importing import authors, eco, mmaction2
from kinewatch_models.arch.importing.mapping import Importer
from kinewatch_models.error import ToolError

IMPORTERS = (*mmaction2.IMPORTERS, *authors.IMPORTERS, *eco.IMPORTERS)


def sources(architecture: str) -> tuple[str, ...]:
    """Whose checkpoints of an architecture can be imported."""
    return tuple(dict.fromkeys(one.source for one in IMPORTERS if one.architecture == architecture))


def rows(source: str, architecture: str) -> list[Importer]:
    """The importers of an architecture, one for each backbone. Raises `ToolError` where there is none."""
    found = [one for one in IMPORTERS if (one.source, one.architecture) == (source, architecture)]
    if not found:
        known = "; ".join(
            f"{name}: {', '.join(dict.fromkeys(one.architecture for one in IMPORTERS if one.source == name))}"
            for name in dict.fromkeys(one.source for one in IMPORTERS)
        )
        raise ToolError(f"there is no importer of {architecture} from {source}; there are {known}")
    return found
