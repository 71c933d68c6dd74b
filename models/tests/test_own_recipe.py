"""The recipe that `fit` makes follows from the clips."""

from __future__ import annotations

from kinewatch_models import card_actions, manifest, own_recipe
from kinewatch_models.catalogue import Clip


def clips(**counts: int) -> list[Clip]:
    return [
        Clip(f"{label}-{n}", "own", "train", f"{label}-{n}", label != "background", None, label=label)
        for label, count in counts.items()
        for n in range(count)
    ]


def test_few_clips_are_seen_as_often_as_many() -> None:
    few = own_recipe.build(["background", "wave"], clips(background=5, wave=4), "m", 0, 0).train
    many = own_recipe.build(["background", "wave"], clips(background=500, wave=40), "m", 0, 0).train
    assert few.epochs * 2 * 4 >= own_recipe.WINDOWS_WANTED
    assert many.epochs == -(-own_recipe.WINDOWS_WANTED // 80)
    assert own_recipe.build(["background", "wave"], clips(background=5, wave=4), "m", 0, 3).train.epochs == 3


def test_a_rare_action_weighs_more() -> None:
    spec = own_recipe.build(["background", "rare", "wave"], clips(background=9, rare=1, wave=100), "m", 0, 0)
    assert spec.train.class_weights == [1.0, own_recipe.MOST_WEIGHT, 1.0]
    spec = own_recipe.build(["background", "rare", "wave"], clips(background=9, rare=20, wave=90), "m", 0, 0)
    assert spec.train.class_weights == [1.0, 1.5, 1.0]


def test_a_model_without_background_says_so_in_its_manifest() -> None:
    spec = own_recipe.build(["left", "right"], clips(left=3, right=3), "m", 0, 0)
    assert "background" not in manifest.build(spec, {}, [], [], 0.5)["output"]
    spec = own_recipe.build(["background", "left"], clips(left=3, background=3), "m", 0, 0)
    assert manifest.build(spec, {}, [], [], 0.5)["output"]["background"] == "background"


def test_the_card_of_own_clips_claims_no_terms_of_others() -> None:
    spec = own_recipe.build(["left", "right"], clips(left=3, right=3), "m", 0, 0)
    results = {
        "seed": 0,
        "training": {"actions": 6, "daily": 0},
        "calibration": {"temperature": 1.0, "chosen_on": {"clips": 2}},
        "graphs": {},
        "sets": {},
        "int8_against_fp32": {
            "clips_with_another_class": {"hits": 0, "of": 2, "low": 0.0, "high": 0.6},
            **dict.fromkeys(("frames", "flips", "mean_abs_difference", "mean_cosine"), 0),
        },
        "ms_per_frame": {"fp32": 1.0, "int8": 1.0},
    }
    assert "non-commercial" not in card_actions.render(spec, results)
