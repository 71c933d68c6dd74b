"""The agent's scores are those of the package's graph on the frames of the cache."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from kinewatch_models import agent, manifest, prepare, recipe, scoring
from kinewatch_models.agent import AgentError
from kinewatch_models.catalogue import Clip
from kinewatch_models.decode import probabilities
from kinewatch_models.stream import Graph

ROOT = Path(__file__).parents[2]
FALLS = ROOT / "models/falls"
AGENT = os.environ.get("KINEWATCH", "")


@pytest.mark.skipif(not AGENT, reason="KINEWATCH names no agent")
def test_the_agent_scores_a_video_as_the_graph_does(tmp_path: Path) -> None:
    spec = recipe.load(ROOT / "models/recipes/falls.toml")
    videos = sorted((ROOT / "tests/data").glob("*.mp4"))
    clips = [Clip(path.name, "simulated", "val", path.stem, True, None, root=path.parent) for path in videos]
    assert len(list(prepare.fill(clips, spec, tmp_path))) == len(videos) > 1
    graphs = manifest.read(FALLS / "model.toml")["graphs"]
    for precision, tolerance in (("fp32", 2e-3), ("int8", 1e-4)):
        found = agent.score(Path(AGENT), FALLS, clips, precision, spec)
        expected = scoring.score(clips, Graph(FALLS / graphs[precision]["model"]), spec, tmp_path)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one.times, other.times, atol=1e-4)
            difference = probabilities(one.logits, 1.0) - probabilities(other.logits, 1.0)
            assert np.abs(difference).max() < tolerance, precision


def test_an_agent_that_is_missing_or_fails_is_named(tmp_path: Path) -> None:
    spec = recipe.load(ROOT / "models/recipes/falls.toml")
    clip = Clip("none.mp4", "simulated", "val", "none", True, None, root=tmp_path)
    with pytest.raises(AgentError, match=r"nowhere.*--agent"):
        agent.score(tmp_path / "nowhere", FALLS, [clip], "fp32", spec)
    with pytest.raises(AgentError, match="false replay of"):
        agent.score(Path("/bin/false"), FALLS, [clip], "fp32", spec)
