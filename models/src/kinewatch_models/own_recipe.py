"""The recipe that `fit` makes for a user's clips: everything in it follows from the clips and a seed."""

from __future__ import annotations

from collections import Counter

from kinewatch_models import dataset
from kinewatch_models.catalogue import Clip
from kinewatch_models.recipe import DecoderSpec, InputSpec, NetSpec, Recipe, Source, TrainSpec

SIZE, CACHE_SIZE, RATE_HZ, WINDOW, BATCH = 144, 168, 5.0, 8, 6
WINDOWS_WANTED, LEAST_EPOCHS, MOST_EPOCHS = 800, 10, 100
REPEATS, MOST_WEIGHT = 3, 10.0
"""A rare action is drawn up to three times an epoch; what is then still missing, its weight makes up for."""


def build(labels: list[str], clips: list[Clip], name: str, seed: int, epochs: int) -> Recipe:
    """The recipe for `labels` (background first, where there is one) and clips of one label each."""
    background = dataset.BACKGROUND if dataset.BACKGROUND in labels else ""
    actions = [label for label in labels if label != background]
    drawn = _drawn(labels, clips)
    return Recipe(
        name=name,
        version="0.1.0",
        description=f"{', '.join(actions)}: trained on own clips",
        license="LicenseRef-own-clips",
        license_file="LICENSE",
        provenance=["own clips", "Backbone: EfficientNet-Lite0, ImageNet weights (Apache-2.0)"],
        limits=[
            "Trained on few clips: try it where it is to work before you rely on it.",
            "A moving camera, a cut, or a sudden change of light is motion to this net.",
        ],
        labels=labels,
        background=background,
        rate_hz=RATE_HZ,
        sources=[Source(dataset.DATASET, "own clips", "split by recording", classes={n: n for n in labels})],
        input=InputSpec(SIZE, [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
        net=NetSpec("tsm-online", "both", "efficientnet-lite0", 4, 0.5),
        train=TrainSpec(
            seed=seed,
            epochs=epochs or min(MOST_EPOCHS, max(LEAST_EPOCHS, -(-WINDOWS_WANTED // max(1, sum(drawn.values()))))),
            window=WINDOW,
            batch=BATCH,
            cache_size=CACHE_SIZE,
            learning_rate=3e-4,
            head_factor=10.0,
            weight_decay=0.01,
            label_smoothing=0.05,
            class_weights=_weights(labels, drawn),
            loss_from=2,
            consensus=0.5,
            average=0.95,
            background_share=1.0,
            mirror=False,
            strange_views=0.5,
        ),
        decoders=[DecoderSpec(label, True, 0.5, 0.3, 0.4, 0.8, 0.4, 0.6, 600.0) for label in actions],
    )


def _drawn(labels: list[str], clips: list[Clip]) -> Counter[str]:
    """Windows of each label in an epoch, see `train.action_windows`."""
    counts = Counter(clip.shows(dataset.BACKGROUND) for clip in clips if clip.split == "train")
    actions = [label for label in labels if label != dataset.BACKGROUND]
    most = max((counts[label] for label in actions), default=0)
    drawn = Counter({label: min(most, REPEATS * counts[label]) for label in actions})
    if dataset.BACKGROUND in labels:
        drawn[dataset.BACKGROUND] = sum(drawn.values())
    return drawn


def _weights(labels: list[str], drawn: Counter[str]) -> list[float]:
    most = max((drawn[label] for label in labels if label != dataset.BACKGROUND), default=1)
    return [
        1.0 if label == dataset.BACKGROUND else round(min(MOST_WEIGHT, most / max(1, drawn[label])), 2)
        for label in labels
    ]
