"""The training loop: AdamW, warm-up and cosine, one checkpoint per epoch from which a killed run goes on.

Each epoch draws from its own seed, so a resumed run equals one that was never stopped. The last epoch is kept;
no checkpoint is picked by its score.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kinewatch_models.recipe import TrainSpec

WARM_UP = 0.08
GRADIENT_LIMIT = 5.0

Batches = Callable[[np.random.Generator], Iterator[tuple[int, Tensor, Tensor]]]


def partial_loss(logits: Tensor, allowed: Tensor, class_weights: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy against a set of allowed classes per frame; equals the usual one where the set is one class.

    `logits` and `allowed` are ``[..., C]``. Label smoothing applies only where the class is known exactly.
    """
    total = torch.logsumexp(logits, -1)
    inside = torch.logsumexp(logits.masked_fill(~allowed, -1e4), -1)
    exact = allowed.sum(-1) == 1
    weight = torch.where(exact, (allowed * class_weights).sum(-1), torch.ones_like(total))
    spread = torch.where(exact, smoothing, 0.0)
    losses = (1 - spread) * (total - inside) + spread * (total - logits.mean(-1))
    return (weight * losses).sum() / weight.sum()


def fit(net: nn.Module, batches: Batches, spec: TrainSpec, out: Path, report: Callable[[str], None]) -> None:
    """Train `net` in place; leaves ``weights.pt`` and ``history.json`` in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    optimiser = _optimiser(net, spec)
    history = _resume(net, optimiser, out)
    for epoch in range(len(history), spec.epochs):
        began, cpu = time.monotonic(), time.process_time()
        loss = _epoch(net, optimiser, batches, spec, epoch)
        row = {"epoch": epoch, "loss": loss, "wall_s": time.monotonic() - began, "cpu_s": time.process_time() - cpu}
        history.append(row)
        left = row["wall_s"] * (spec.epochs - epoch - 1)
        report(f"epoch {epoch + 1}/{spec.epochs}  loss {loss:.3f}  {row['wall_s']:.0f} s, about {left:.0f} s left")
        _keep(net, optimiser, history, out)
    torch.save(net.state_dict(), out / "weights.pt")
    (out / "history.json").write_text(json.dumps(history, indent=1) + "\n", encoding="utf-8")


def _epoch(net: nn.Module, optimiser: torch.optim.Optimizer, batches: Batches, spec: TrainSpec, epoch: int) -> float:
    rng = np.random.default_rng((spec.seed, epoch))
    torch.manual_seed(spec.seed * 1000 + epoch)
    weights = torch.tensor(spec.class_weights)
    net.train()
    losses = []
    for index, (count, frames, allowed) in enumerate(batches(rng)):
        done = (epoch + index / count) / spec.epochs
        factor = 0.5 * (1 + math.cos(math.pi * done)) * min(1.0, (done + 1 / (count * spec.epochs)) / WARM_UP)
        for group in optimiser.param_groups:
            group["lr"] = group["base"] * factor
        loss = partial_loss(net(frames), allowed, weights, spec.label_smoothing)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(net.parameters(), GRADIENT_LIMIT)
        optimiser.step()
        losses.append(loss.item())
    return float(np.mean(losses))


def _optimiser(net: nn.Module, spec: TrainSpec) -> torch.optim.Optimizer:
    head = [p for name, p in net.named_parameters() if name.startswith("classifier")]
    body = [p for name, p in net.named_parameters() if p.requires_grad and not name.startswith("classifier")]
    rate = spec.learning_rate
    groups = [{"params": body, "base": rate}, {"params": head, "base": rate * spec.head_factor}]
    return torch.optim.AdamW(groups, lr=rate, weight_decay=spec.weight_decay)


def _keep(net: nn.Module, optimiser: torch.optim.Optimizer, history: list[dict[str, float]], out: Path) -> None:
    state = {"net": net.state_dict(), "optimiser": optimiser.state_dict(), "history": history}
    torch.save(state, out / "checkpoint.tmp")
    (out / "checkpoint.tmp").replace(out / "checkpoint.pt")


def _resume(net: nn.Module, optimiser: torch.optim.Optimizer, out: Path) -> list[dict[str, float]]:
    path = out / "checkpoint.pt"
    if not path.exists():
        return []
    state = torch.load(path, map_location="cpu", weights_only=True)
    net.load_state_dict(state["net"])
    optimiser.load_state_dict(state["optimiser"])
    return list(state["history"])
