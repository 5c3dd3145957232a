"""Which cells a published number belongs to: ImageNet-1k, the published image size and recipe, printed settings."""

from __future__ import annotations

import math
from collections.abc import Mapping

from analysis.results import CellResults, TrialResult
from stability.config.published import published_size
from stability.models.named import model_names, read_model
from stability.models.table import OWN_SIZES, key
from stability.models.transfer import INIT
from stability.shipped import choices, read
from stability.values import Options, group

# Side of the images in pixels, of all models but those of OWN_SIZES.
USUAL_SIZE = 224
# The batch that published lrs are for.
BATCH = 2048
# Keys of a data set that leave images out, or evaluate others than the validation images.
PARTS = ("train_size", "eval_size", "val_fraction", "subset")


def is_imagenet(cell: CellResults) -> bool:
    """Tell whether a cell trains on all of ImageNet-1k and is evaluated on its validation images."""
    data = group(cell.config, "data")
    known, published = published_size(_text(data.get("name"))), published_size("imagenet-1k")
    classes = cell.provenance("num_classes")
    is_whole = all(data.get(key) is None for key in PARTS)
    return known is not None and known == published and is_whole and classes in (None, known.classes)


def image_size(cell: CellResults) -> object:
    """Return the side of a cell's images in pixels; None where its configuration does not have it."""
    return group(cell.config, "data").get("image_size")


def has_usual_size(cell: CellResults) -> bool:
    """Tell whether a cell's images are as large as the published ones of its model."""
    return image_size(cell) == OWN_SIZES.get(cell.model, USUAL_SIZE)


def is_as_named(cell: CellResults) -> bool:
    """Tell whether a cell's model is the shipped one of its name, without changes."""
    name = cell.model
    return name in model_names() and key(model_options(cell)) == key(read_model(name))


def is_pretrained(cell: CellResults) -> bool:
    """Tell whether a cell's model begins with the weights of another."""
    model = group(cell.config, "model")
    return model.get(INIT) is not None or bool(model.get("pretrained"))


def recipe_name(cell: CellResults) -> str:
    """Return the shipped recipe that a cell is trained by; empty where it has other values than the recipe."""
    own = group(cell.config, "recipe")
    name = _text(own.get("name")) or ""
    if name not in choices("recipe"):
        return ""
    shipped = read("recipe", name)
    return name if all(own.get(key, value) == value for key, value in shipped.items()) else ""


def has_settings(trial: TrialResult, cell: CellResults, settings: Mapping[str, float]) -> bool:
    """Tell whether a trial has published values of lr and wd.

    Args:
        trial: of the cell.
        cell: whose optimizer's peak lr is compared, scaled to a batch of 2048.
        settings: lr, wd or both.
    """
    batch = cell.config.get("batch_size")
    if not isinstance(batch, int):
        return False
    own = {"lr": trial.lr * cell.lr_factor * BATCH / batch, "wd": trial.wd}
    return all(math.isclose(own[name], value, rel_tol=1e-6) for name, value in settings.items())


def model_options(cell: CellResults) -> Options:
    """Return the configuration of a cell's model."""
    return group(cell.config, "model")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
