"""Published top-1 errors, in percent (Xiao et al., 2021, arXiv 2106.14881v3), by this project's names of models.

All are of ImageNet-1k at 224 px. None was measured here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from stability.study.schema import Scalar

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
TUNING_EPOCHS = 20


class Line(NamedTuple):
    """A straight line through errors, and Pearson's r."""

    slope: float
    offset: float
    r: float


# Figure 11: error on ImageNet-V2 against error on ImageNet.
IMAGENET_V2 = Line(1.31, 5.0, 0.99)
# Figure 9: Pearson's r of an epoch's time with parameters, multiply-adds and activations (appendix D).
CORRELATIONS: Mapping[str, float] = {"params": 0.71, "multiply_adds": 0.75, "activations": 0.93}


def published(experiment: str, factors: Mapping[str, Scalar]) -> float | None:
    """Return the published top-1 error of a cell in percent; None where the paper prints none.

    Args:
        experiment: a figure or table, as fig6.
        factors: the cell's.
    """
    model, epochs = str(factors.get("model")), factors.get("epochs")
    if not isinstance(epochs, int):
        return None
    if experiment == "table3":
        return STEMS.get(model, {}).get(str(factors.get("optimizer"))) if epochs == 50 else None
    if experiment == "fig7":
        return NORMS.get(model) if epochs == 100 else None
    if experiment == "imagenet21k":
        return PRETRAINED.get(model) if epochs == TUNING_EPOCHS else None
    if experiment in ("table5", "fig10"):
        return RECIPES.get(model, {}).get(str(factors.get("recipe")), {}).get(epochs)
    if experiment in ("fig6", "table2", "fig2", "fig3") and _is_of_the_peaks(factors):
        return PEAKS.get(model, {}).get(epochs)
    return None


def _is_of_the_peaks(factors: Mapping[str, Scalar]) -> bool:
    """Tell whether a cell has the optimizer of its model's line in table 2."""
    return factors.get("optimizer") == ("adamw" if str(factors.get("model")).startswith("vit") else "sgd")
