"""Published top-1 errors, in percent (Xiao et al., 2021, arXiv 2106.14881v3), by this project's names of models.

All are of ImageNet-1k, at 224 px unless said otherwise. None was measured here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from analysis.paper.conditions import (
    has_settings,
    has_usual_size,
    image_size,
    is_as_named,
    is_imagenet,
    is_pretrained,
    recipe_name,
)
from analysis.results import CellResults
from stability.models.published import TABLE_2, Published

# Table 2: peak performance, by epochs. Those of timm's nearest models stand beside what they stand for.
PEAKS: Mapping[str, Mapping[int, float]] = {
    "resnet50": {100: 22.5, 200: 21.2, 400: 20.7},
    "resnet101": {100: 20.3, 200: 19.1, 400: 18.5},
    "resnet152": {100: 19.5, 200: 18.4, 400: 17.7},
    "resnet200": {100: 19.5, 200: 18.3, 400: 17.6},
    "regnety_1gf": {100: 23.2, 200: 22.2, 400: 21.5},
    "regnety_4gf": {100: 19.4, 200: 18.3, 400: 17.9},
    "regnety_16gf": {100: 17.1, 200: 16.4, 400: 16.3},
    "regnety_32gf": {100: 16.2, 200: 15.9, 400: 15.9},
    "regnetz_1gf": {100: 20.8, 200: 20.2, 400: 19.6},
    "regnetz_4gf": {100: 17.4, 200: 16.9, 400: 16.6},
    "efficientnet_b2": {100: 21.4, 200: 20.5, 400: 19.9},
    "efficientnet_b4": {100: 18.5, 200: 17.8, 400: 17.5},
    "efficientnet_b5": {100: 17.3, 200: 17.0, 400: 17.0},
    "vitp_1gf": {100: 33.2, 200: 29.7, 400: 27.7},
    "vitp_4gf": {100: 23.3, 200: 20.8, 400: 19.6},
    "vitp_18gf": {100: 19.9, 200: 18.4, 400: 17.9},
    "vitp_36gf": {100: 19.9, 200: 18.8, 400: 18.2},
    "vitc_1gf": {100: 28.6, 200: 26.1, 400: 24.7},
    "vitc_4gf": {100: 20.9, 200: 19.2, 400: 18.6},
    "vitc_18gf": {100: 18.4, 200: 17.5, 400: 17.0},
    "vitc_36gf": {100: 18.3, 200: 17.6, 400: 16.8},
}
# Table 2: minibatches.
BATCHES: Mapping[str, int] = {
    "resnet50": 2048,
    "resnet101": 2048,
    "resnet152": 2048,
    "resnet200": 1024,
    "regnety_1gf": 2048,
    "regnety_4gf": 2048,
    "regnety_16gf": 1024,
    "regnety_32gf": 512,
    "regnetz_1gf": 2048,
    "regnetz_4gf": 1024,
    "efficientnet_b2": 2048,
    "efficientnet_b4": 512,
    "efficientnet_b5": 256,
    "vitp_1gf": 2048,
    "vitp_4gf": 2048,
    "vitp_18gf": 1024,
    "vitp_36gf": 512,
    "vitc_1gf": 2048,
    "vitc_4gf": 2048,
    "vitc_18gf": 1024,
    "vitc_36gf": 512,
}
# Table 2: minutes of an ImageNet epoch on 8 V100s.
MINUTES: Mapping[str, float] = {
    "resnet50": 3.4,
    "resnet101": 5.5,
    "resnet152": 7.7,
    "resnet200": 10.7,
    "regnety_1gf": 3.1,
    "regnety_4gf": 7.6,
    "regnety_16gf": 17.9,
    "regnety_32gf": 35.1,
    "regnetz_1gf": 4.2,
    "regnetz_4gf": 12.9,
    "efficientnet_b2": 5.9,
    "efficientnet_b4": 19.4,
    "efficientnet_b5": 41.7,
    "vitp_1gf": 2.6,
    "vitp_4gf": 3.8,
    "vitp_18gf": 11.5,
    "vitp_36gf": 18.8,
    "vitc_1gf": 2.7,
    "vitc_4gf": 3.9,
    "vitc_18gf": 11.4,
    "vitc_36gf": 18.6,
}
# Table 3: multiply-adds of the stem, in M.
STEM_FLOPS: Mapping[str, int] = {
    "vitp_4gf": 58,
    "vitc_4gf": 435,
    "vit_s1_4gf": 422,
    "vit_s2_4gf": 422,
    "vit_s3_4gf": 458,
    "vit_s4_4gf": 407,
}
# Table 3: stems of ViT-4GF at 50 epochs, by optimizer.
STEMS: Mapping[str, Mapping[str, float]] = {
    "vitp_4gf": {"adamw": 27.7, "sgd": 33.0},
    "vitc_4gf": {"adamw": 24.0, "sgd": 24.7},
    "vit_s1_4gf": {"adamw": 24.3, "sgd": 25.1},
    "vit_s2_4gf": {"adamw": 24.3, "sgd": 25.3},
    "vit_s3_4gf": {"adamw": 25.1, "sgd": 26.2},
    "vit_s4_4gf": {"adamw": 26.2, "sgd": 27.9},
}
# Figure 7: norms of the stem of ViT-4GF at 100 epochs.
NORMS: Mapping[str, float] = {"vitp_4gf": 23.2, "vitp_bn_4gf": 23.3, "vitc_4gf": 20.9, "vitc_ln_4gf": 21.1}
# Table 5 and figure 10: recipes of ViT_P, by epochs. Which parts its rows between DeiT's recipe and its own drop is our
# reading.
RECIPES: Mapping[str, Mapping[str, Mapping[int, float]]] = {
    "vitp_4gf": {
        "paper": {100: 23.2, 400: 20.5},
        "deit": {100: 25.4, 400: 20.7},
        "deit_no_repeats": {100: 24.9, 400: 20.5},
        "deit_no_depth": {100: 23.6, 400: 20.4},
        "deit_no_erasing": {100: 23.5, 400: 20.3},
        "paper_no_ema": {100: 23.0, 400: 20.3},
    },
    "vitp_18gf": {
        "paper": {100: 19.9, 400: 17.9},
        "deit": {100: 22.5, 400: 18.6},
        "deit_no_repeats": {100: 25.1, 400: 19.2},
        "deit_no_depth": {100: 21.2, 400: 19.9},
        "deit_no_erasing": {100: 20.9, 400: 19.7},
        "paper_no_ema": {100: 20.4, 400: 20.0},
    },
}
# Table 2: after pre-training on ImageNet-21k and 20 epochs of fine-tuning. The 72 GF models are of appendix C.
PRETRAINED: Mapping[str, float] = {
    "resnet50": 21.6,
    "resnet101": 19.2,
    "resnet152": 18.2,
    "resnet200": 17.7,
    "regnety_4gf": 18.4,
    "regnety_16gf": 15.6,
    "regnety_32gf": 15.0,
    "vitp_4gf": 20.6,
    "vitp_18gf": 16.4,
    "vitp_36gf": 15.1,
    "vitp_72gf": 14.2,
    "vitc_4gf": 18.8,
    "vitc_18gf": 15.1,
    "vitc_36gf": 14.2,
    "vitc_72gf": 13.6,
}
# Appendix C: fine-tuned at a larger image size.
LARGE_SIZE = 384
PRETRAINED_LARGE: Mapping[str, float] = {"vitc_72gf": 12.6}
SOURCE = "Published: Xiao et al., 2021 (arXiv 2106.14881v3), ImageNet-1k; not measured here."
IMAGENET21K = "imagenet21k"
# Table 2 and its figure: models that begin anew, and after pre-training.
PEAK = ("fig6", "table2")
TUNING_EPOCHS, STEM_EPOCHS, NORM_EPOCHS = 20, 50, 100
# Recipes that are readings of the paper's.
READINGS = ("paper", "released")


class Line(NamedTuple):
    """A straight line through errors, and Pearson's r."""

    slope: float
    offset: float
    r: float


# Figure 11: error on ImageNet-V2 against error on ImageNet.
IMAGENET_V2 = Line(1.31, 5.0, 0.99)
# Figure 9: Pearson's r of an epoch's time with parameters, multiply-adds and activations (appendix D).
CORRELATIONS: Mapping[str, float] = {"params": 0.71, "multiply_adds": 0.75, "activations": 0.93}


def published(experiment: str, cell: CellResults) -> float | None:
    """Return the published top-1 error of a cell in percent; None where the paper prints none of this very cell.

    Figures 2 and 3 print no error of a cell. See `conditions` for what makes a cell the paper's.

    Args:
        experiment: a figure or table, as fig6.
        cell: with its configuration and trials.
    """
    epochs = cell.factors.get("epochs")
    if not isinstance(epochs, int) or not (is_imagenet(cell) and is_as_named(cell)):
        return None
    if experiment == IMAGENET21K or (experiment in PEAK and is_pretrained(cell)):
        return _pretrained(cell, epochs)
    if is_pretrained(cell) or not has_usual_size(cell):
        return None
    recipe = recipe_name(cell)
    if experiment in ("table5", "fig10"):
        return RECIPES.get(cell.model, {}).get(recipe, {}).get(epochs) if _has_its_optimizer(cell) else None
    if recipe not in READINGS:
        return None
    if experiment == "table3":
        return STEMS.get(cell.model, {}).get(cell.optimizer) if epochs == STEM_EPOCHS else None
    if experiment == "fig7":
        return NORMS.get(cell.model) if epochs == NORM_EPOCHS and _has_its_optimizer(cell) else None
    if experiment in PEAK and _has_its_optimizer(cell) and _is_at(cell, peak_settings(cell.model)):
        return PEAKS.get(cell.model, {}).get(epochs)
    return None


def published_minutes(cell: CellResults) -> float | None:
    """Return the published minutes of an epoch on 8 V100s; None where the paper prints none of the cell."""
    return MINUTES.get(cell.model) if _is_counted(cell) else None


def published_counts(cell: CellResults) -> Published | None:
    """Return what the paper prints of a model's cost; None where its images or classes are others."""
    return TABLE_2.get(cell.model) if _is_counted(cell) else None


def published_stem_flops(cell: CellResults) -> int | None:
    """Return the published multiply-adds of a cell's stem in M; None where its images are others."""
    return STEM_FLOPS.get(cell.model) if _is_counted(cell) else None


def _is_counted(cell: CellResults) -> bool:
    return is_imagenet(cell) and is_as_named(cell) and has_usual_size(cell)


def _pretrained(cell: CellResults, epochs: int) -> float | None:
    """Return the error after pre-training: of 20 epochs of fine-tuning without weight decay."""
    is_tuned = is_pretrained(cell) and epochs == TUNING_EPOCHS and recipe_name(cell) in READINGS
    if not (is_tuned and _has_its_optimizer(cell) and _is_at(cell, {"wd": 0.0})):
        return None
    if image_size(cell) == LARGE_SIZE:
        return PRETRAINED_LARGE.get(cell.model)
    return PRETRAINED.get(cell.model) if has_usual_size(cell) else None


def peak_settings(model: str) -> Mapping[str, float]:
    """Return the lr, for a batch of 2048, and wd that the paper prints for the peak of a model."""
    if not _is_vit(model):
        return {"lr": 2.54, "wd": 2.4e-5}
    return {"lr": 6.0e-4, "wd": 0.28} if model.endswith("_36gf") else {"lr": 1.0e-3, "wd": 0.24}


def _is_at(cell: CellResults, settings: Mapping[str, float]) -> bool:
    """Tell whether the trial that a cell's error is of, or else all its trials, have these settings."""
    trials = [cell.best] if cell.best else list(cell.trials)
    return bool(trials) and all(has_settings(trial, cell, settings) for trial in trials)


def _has_its_optimizer(cell: CellResults) -> bool:
    """Tell whether a cell has the optimizer of its model in table 2."""
    return cell.optimizer == ("adamw" if _is_vit(cell.model) else "sgd")


def _is_vit(model: str) -> bool:
    return model.startswith("vit")
