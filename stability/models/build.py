"""Build a model from its configuration: locate `_target_`, give it what it accepts, check what comes back."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING

from stability.errors import UserError, unknown
from stability.locate import locate
from stability.models.tokens import check_tokens
from stability.models.transfer import KEYS
from stability.values import Options, Value

if TYPE_CHECKING:
    from torch import nn

# Keys of a model's configuration that are not its target's arguments.
OWN_KEYS = ("name", "family", "_target_", "search")


def own_arguments(model: Options, target: Callable[..., object]) -> dict[str, Value]:
    """Return the arguments of a model's target: without our own keys, of which a target may take some itself."""
    ours = [name for name in KEYS if name in model and not _names(target, name)]
    return {name: value for name, value in model.items() if name not in (*OWN_KEYS, *ours)}


def _names(target: Callable[..., object], name: str) -> bool:
    try:
        return name in inspect.signature(target).parameters
    except ValueError:
        return False


# Arguments of timm's models that say which weights they begin with; a pickle may be among them.
TIMM = "stability.models.cnn.timm_model"
TIMM_WEIGHTS = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")


def without_weights(model: Options) -> Options:
    """Return a model's configuration without what says which weights it begins with: it builds the same layers."""
    left_out = TIMM_WEIGHTS if model.get("_target_") == TIMM else ()
    return {name: value for name, value in model.items() if name not in left_out}


def build_model(
    model: Options, *, image_size: int, channels: int, num_classes: int, stochastic_depth: float = 0.0
) -> nn.Module:
    """Build the model that a configuration names, its weights drawn from torch's global generator.

    Args:
        model: `_target_` (the dotted path of a class or function that returns an nn.Module) and its own arguments.
            Those of image_size, channels and num_classes that the target accepts are added.
        image_size: side of the images, in pixels.
        channels: of the images.
        num_classes: the number of logits.
        stochastic_depth: rate of the last residual branch. A model with `num_residuals` is given its masks at each
            forward pass; any other must accept `drop_path_rate`.

    Raises:
        UserError: the target cannot be found, does not fit, or sees each image as one patch.
    """
    from torch import nn

    target = locate(model.get("_target_"), "model._target_", "my_package.MyModel")
    arguments = own_arguments(model, target)
    task: dict[str, Value] = {"image_size": image_size, "channels": channels, "num_classes": num_classes}
    if stochastic_depth > 0:
        task["drop_path_rate"] = stochastic_depth
    given = _fit(target, arguments, task, str(model["_target_"]))

    built = target(**given)
    if not isinstance(built, nn.Module):
        raise UserError(
            f"model._target_={model['_target_']!r} returned a {type(built).__name__}; accepted: an nn.Module"
        )
    _check_trained_elsewhere(built, str(model["_target_"]))
    check_tokens(built, image_size, channels, arguments.get("img_size"))
    if stochastic_depth > 0 and "drop_path_rate" not in given and not hasattr(built, "num_residuals"):
        raise UserError(
            f"stochastic depth of {stochastic_depth:g} with model._target_={model['_target_']!r}, which takes no "
            "drop_path_rate; accepted: recipe.stochastic_depth=0, or a model that takes drop_path_rate"
        )
    return built


# Methods of a LightningModule that decide its loss, its optimizer or its updates.
TRAINING_METHODS = (
    "training_step",
    "configure_optimizers",
    "optimizer_step",
    "backward",
    "configure_gradient_clipping",
)


def _check_trained_elsewhere(model: nn.Module, path: str) -> None:
    """Raise UserError where a model is a LightningModule that brings its own training: it would not run."""
    # By name: lightning and pytorch_lightning hold two classes of this name, and importing one takes seconds.
    base = next((one for one in type(model).__mro__ if one.__name__ == "LightningModule"), None)
    if base is None:
        return
    own = [name for name in TRAINING_METHODS if getattr(type(model), name, None) is not getattr(base, name, None)]
    if own:
        raise UserError(
            f"model._target_={path!r} is a LightningModule with its own {', '.join(own)}, which would not run: "
            "loss and optimizer come from the configuration; accepted: an nn.Module that returns logits (B, classes)"
        )


def _fit(target: Callable[..., object], arguments: Options, task: Options, path: str) -> dict[str, Value]:
    """Return the arguments to call `target` with: its own, and those of `task` that it accepts."""
    try:
        parameters = inspect.signature(target).parameters
    except ValueError:
        raise UserError(
            f"model._target_={path!r} has no signature; accepted: a class or function written in Python"
        ) from None
    variadic = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    named = {name for name, one in parameters.items() if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    for name in arguments:
        if name in task:
            raise UserError(f"model.{name} is set by the data and the recipe, not by the model; leave it out")
        if name not in named and not variadic:
            raise unknown(f"argument of {path}", name, (named | set(KEYS)) - set(task))
    given = {**{name: value for name, value in task.items() if name in named or variadic}, **arguments}
    missing = [name for name in named if parameters[name].default is inspect.Parameter.empty and name not in given]
    if missing:
        raise UserError(f"{path} needs {', '.join(f'model.{name}' for name in sorted(missing))}; give it a value")
    return given
