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

from kinewatch_models.error import ToolError
from kinewatch_models.recipe import TrainSpec

GRADIENT_LIMIT = 5.0
FRESH = {"classifier", "memory", "consensus", "embedding"}
"""Parts of a net behind its features, which begin untrained and learn faster."""

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


def objective(logits: Tensor, allowed: Tensor, class_weights: Tensor, spec: TrainSpec) -> Tensor:
    """Loss of ``[N, T, C]`` logits: frame by frame and of each window's mean, both without the warm-up frames.

    Of logits of whole windows, ``[N, 1, C]``, it is that of the window.
    """
    allowed = allowed[:, spec.loss_from :]
    if logits.shape[1] == 1:
        return partial_loss(logits[:, 0], _of_window(allowed), class_weights, spec.label_smoothing)
    logits = logits[:, spec.loss_from :]
    loss = partial_loss(logits, allowed, class_weights, spec.label_smoothing)
    if spec.consensus == 0:
        return loss
    whole = partial_loss(logits.mean(1), _of_window(allowed), class_weights, spec.label_smoothing)
    return (1 - spec.consensus) * loss + spec.consensus * whole


def _of_window(allowed: Tensor) -> Tensor:
    """Classes ``[N, C]`` that all frames of a window may show, or any of them where there is none in common."""
    common = allowed.all(1)
    return torch.where(common.any(1, keepdim=True), common, allowed.any(1))


def fit(
    net: nn.Module,
    batches: Batches,
    spec: TrainSpec,
    out: Path,
    report: Callable[[str], None],
    done: Callable[[float], None],
) -> None:
    """Train `net` in place, on a GPU if there is one; leaves ``weights.pt`` and ``history.json`` in `out`.

    `report` is told a line per epoch, `done` the share of the whole run after every batch.
    """
    out.mkdir(parents=True, exist_ok=True)
    _place(net)
    optimiser, average = _optimiser(net, spec), Average(net, spec.average)
    history = _resume(net, optimiser, average, out)
    for epoch in range(len(history), spec.epochs):
        began, cpu = time.monotonic(), time.process_time()
        loss = _epoch(net, optimiser, average, batches, spec, epoch, done)
        row = {"epoch": epoch, "loss": loss, "wall_s": time.monotonic() - began, "cpu_s": time.process_time() - cpu}
        history.append(row)
        left = row["wall_s"] * (spec.epochs - epoch - 1)
        report(f"epoch {epoch + 1}/{spec.epochs}  loss {loss:.3f}  {row['wall_s']:.0f} s, about {left:.0f} s left")
        _keep(net, optimiser, average, history, out)
    net.load_state_dict(average.weights)
    (out / "history.json").write_text(json.dumps(history, indent=1) + "\n", encoding="utf-8")
    torch.save(net.state_dict(), out / "weights.tmp")
    (out / "weights.tmp").replace(out / "weights.pt")


def _place(net: nn.Module) -> None:
    """Move `net` to a GPU if there is one, and the kernels of its 2D convolutions to channels last, which is faster."""
    net.to("cuda" if torch.cuda.is_available() else "cpu")
    for weight in net.parameters():
        if weight.dim() == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)


class Average:
    """Exponential moving average of a net's weights; with `decay` 0, the weights as they are."""

    def __init__(self, net: nn.Module, decay: float):
        self.decay, self.steps = decay, 0
        self.weights = {name: value.detach().clone() for name, value in net.state_dict().items()}

    def add(self, net: nn.Module) -> None:
        """Take in one more step. The first steps count more, or the untrained weights would stay for long."""
        self.steps += 1
        keep = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in net.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value.detach(), 1 - keep)
            else:  # a norm's count of batches
                self.weights[name].copy_(value)


def _epoch(
    net: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: Average,
    batches: Batches,
    spec: TrainSpec,
    epoch: int,
    done: Callable[[float], None],
) -> float:
    rng = np.random.default_rng((spec.seed, epoch))
    torch.manual_seed(spec.seed * 1000 + epoch)
    device = next(net.parameters()).device
    weights = torch.tensor(spec.class_weights, device=device) if spec.class_weights else None
    net.train()
    losses = []
    for index, (count, frames, allowed) in enumerate(batches(rng)):
        share = (epoch + index / count) / spec.epochs
        factor = 0.5 * (1 + math.cos(math.pi * share)) * min(1.0, (share + 1 / (count * spec.epochs)) / spec.warm_up)
        for group in optimiser.param_groups:
            group["lr"] = group["base"] * factor
        loss = _loss(net, frames.to(device), allowed.to(device), weights, spec, rng)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(net.parameters(), GRADIENT_LIMIT)
        optimiser.step()
        average.add(net)
        losses.append(loss.item())
        done(share)
    if not losses:
        raise ToolError("there is no window to train on: no clip of the train split shows anything")
    return float(np.mean(losses))


def _loss(
    net: nn.Module, frames: Tensor, allowed: Tensor, weights: Tensor | None, spec: TrainSpec, rng: np.random.Generator
) -> Tensor:
    """Loss of one batch, each window mixed with another where the recipe asks for mixup (Zhang et al. 2018)."""
    class_weights = torch.ones(allowed.shape[-1], device=allowed.device) if weights is None else weights
    if spec.mixup == 0:
        return objective(net(frames), allowed, class_weights, spec)
    share = float(rng.beta(spec.mixup, spec.mixup))
    other = torch.from_numpy(rng.permutation(len(frames)))
    logits = net(share * frames + (1 - share) * frames[other])
    first = objective(logits, allowed, class_weights, spec)
    return share * first + (1 - share) * objective(logits, allowed[other], class_weights, spec)


def _optimiser(net: nn.Module, spec: TrainSpec) -> torch.optim.Optimizer:
    named = [(FRESH & set(name.split(".")), p) for name, p in net.named_parameters() if p.requires_grad]
    head, body = [p for fresh, p in named if fresh], [p for fresh, p in named if not fresh]
    rate = spec.learning_rate
    groups = [{"params": body, "base": rate}, {"params": head, "base": rate * spec.head_factor}]
    return torch.optim.AdamW(groups, lr=rate, weight_decay=spec.weight_decay)


def _keep(
    net: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: Average,
    history: list[dict[str, float]],
    out: Path,
) -> None:
    state = {
        "net": net.state_dict(),
        "optimiser": optimiser.state_dict(),
        "average": average.weights,
        "steps": average.steps,
        "history": history,
    }
    torch.save(state, out / "checkpoint.tmp")
    (out / "checkpoint.tmp").replace(out / "checkpoint.pt")


def _resume(net: nn.Module, optimiser: torch.optim.Optimizer, average: Average, out: Path) -> list[dict[str, float]]:
    path = out / "checkpoint.pt"
    if not path.exists():
        return []
    state = torch.load(path, map_location=next(net.parameters()).device, weights_only=True)
    net.load_state_dict(state["net"])
    optimiser.load_state_dict(state["optimiser"])
    average.weights, average.steps = state["average"], state["steps"]
    return list(state["history"])
