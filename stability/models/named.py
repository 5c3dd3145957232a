"""The named models: the files of conf/model/, read without Hydra."""

from __future__ import annotations

import re

from stability.errors import unknown
from stability.shipped import choices, read
from stability.values import Value

# Forms to be filled in rather than models.
FORMS = ("custom", "timm")
# The paper's pairs and stems, the small models, the references.
ORDER = (
    r"vit[pc]_\d+gf",
    r"vit_s\d_.*",
    r"vit.*gf",
    r".*_tiny",
    r".*_small",
    r"resnet.*",
    r"regnety.*",
    r"regnetz.*",
    r"efficientnet.*",
)


def model_names() -> list[str]:
    """Return the names of the models that are complete as they stand: pairs together, sizes in order."""
    return sorted(set(choices("model")) - set(FORMS), key=_order)


def shipped_targets() -> set[Value]:
    """Return what builds the models that come with the program: the targets of conf/model/."""
    return {read("model", name).get("_target_") for name in choices("model")} - {None, "???"}


def read_model(name: str) -> dict[str, Value]:
    """Return the configuration of a named model, as `model=NAME` composes it. Raises UserError on an unknown name."""
    if name not in model_names():
        raise unknown("model", name, model_names())
    return read("model", name)


def _order(name: str) -> tuple[int, int, bool, bool, str]:
    """Sort by ORDER, then by the number in a name, P before C."""
    group = next((index for index, pattern in enumerate(ORDER) if re.fullmatch(pattern, name)), len(ORDER))
    number = re.search(r"\d+", name)
    return group, int(number.group()) if number else 0, not name.startswith("vitp"), not name.startswith("vit"), name
