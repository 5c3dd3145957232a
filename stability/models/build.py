"""Build a model from its configuration: locate `_target_`, give it what it accepts, check what comes back."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from stability.errors import UserError, unknown
from stability.locate import first_line, locate

if TYPE_CHECKING:
    from torch import nn

# Keys of a model's configuration that are not its target's arguments.
OWN_KEYS = ("name", "family", "_target_", "search")


def build_model(
    model: Mapping[str, Any], *, image_size: int, channels: int, num_classes: int, stochastic_depth: float = 0.0
) -> nn.Module:
    """Build the model that a configuration names, its weights drawn from torch's global generator.

    model: `_target_` (the dotted path of a class or function that returns an nn.Module) and its own arguments.
    Those of image_size, channels and num_classes that the target accepts are added.
    stochastic_depth: rate of the last residual branch. A model with `num_residuals` is given its masks at each forward;
    any other must accept `drop_path_rate`. Raises UserError where the target cannot be found or does not fit.
    """
    from torch import nn

    target = locate(model.get("_target_"), "model._target_", "my_package.MyModel")
    arguments = {name: value for name, value in model.items() if name not in OWN_KEYS}
    task: dict[str, Any] = {"image_size": image_size, "channels": channels, "num_classes": num_classes}
    if stochastic_depth > 0:
        task["drop_path_rate"] = stochastic_depth
    given = _fit(target, arguments, task, str(model["_target_"]))

    built = target(**given)
    if not isinstance(built, nn.Module):
        raise UserError(
            f"model._target_={model['_target_']!r} returned a {type(built).__name__}; accepted: an nn.Module"
        )
    _check_trained_elsewhere(built, str(model["_target_"]))
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


def own_arguments(target: Callable[..., Any], given: Mapping[str, Any], path: str, fixed: Collection[str] = ()) -> None:
    """Check the arguments that a configuration gives to a user's target.

    Args:
        target: what is called.
        given: the arguments of the configuration.
        path: the dotted path of the target, for messages.
        fixed: the names of what the program passes besides; the target must take them.

    Raises:
        UserError: an argument is unknown, or a needed one is missing.
    """
    parameters = inspect.signature(target).parameters
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    named = [name for name, one in parameters.items() if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]
    for name in fixed:
        if name not in named and not takes_any:
            raise UserError(f"{path} takes {', '.join(named) or 'nothing'}; accepted: a callable that takes {name}")
        if name in given:
            raise UserError(f"argument {name!r} of {path} is set by the program; leave it out")
    for name in given:
        if name not in named and not takes_any:
            raise unknown(f"argument of {path}", name, set(named) - set(fixed))
    missing = [name for name in named if parameters[name].default is inspect.Parameter.empty]
    missing = [name for name in missing if name not in given and name not in fixed]
    if missing:
        raise UserError(f"{path} needs a value for {', '.join(missing)}")


def bind(entry: Mapping[str, Any], key: str, fixed: Collection[str]) -> Callable[..., Any]:
    """Return a user's function with its own arguments bound, to be called by name with those of `fixed`.

    Args:
        entry: `_target_` and its own arguments. A class is instantiated with them; its instances are called.
        key: of the configuration, for messages.
        fixed: the names of what the program passes at every call.

    Raises:
        UserError: the target cannot be found, its arguments do not fit, or it does not take `fixed`.
    """
    path = str(entry["_target_"])
    target = locate(path, f"{key}._target_", "my_package.my_function")
    arguments = {name: value for name, value in entry.items() if name != "_target_"}
    if not isinstance(target, type):
        own_arguments(target, arguments, path, fixed)
        return functools.partial(target, **arguments)
    instance = instantiate(target, arguments, path)
    if not callable(instance):
        raise UserError(f"{key}._target_={path!r}: its instances cannot be called; accepted: a class with __call__")
    own_arguments(instance, {}, f"{path}.__call__", fixed)
    return instance


def instantiate(target: Callable[..., Any], arguments: Mapping[str, Any], path: str) -> Any:
    """Call a user's class with its arguments. Raises UserError where they do not fit or the class refuses them."""
    own_arguments(target, arguments, path)
    try:
        return target(**arguments)
    except Exception as error:
        raise UserError(f"{path} cannot be made: {type(error).__name__}: {first_line(error)}") from error


def _fit(target: Callable[..., Any], arguments: dict[str, Any], task: dict[str, Any], path: str) -> dict[str, Any]:
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
            raise unknown(f"argument of {path}", name, named - set(task))
    given = {name: value for name, value in task.items() if name in named or variadic} | arguments
    missing = [name for name in named if parameters[name].default is inspect.Parameter.empty and name not in given]
    if missing:
        raise UserError(f"{path} needs {', '.join(f'model.{name}' for name in sorted(missing))}; give it a value")
    return given
