"""model.init: which weights a trial begins with. They are found once, when the trial is planned.

A study's folder (the best trial of the same model), that folder followed by /ID or /MODEL, or a safetensors file. The
trial's id holds the weights' fingerprint: where they lie decides no result.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stability.errors import UserError, nearest
from stability.locate import locate
from stability.study.metrics import metrics_of
from stability.study.planned import PlannedTrial, find, planned_trials
from stability.study.schema import Record
from stability.study.shape import parse
from stability.study.store import read_record, studies
from stability.study.weights import FILE, error_of_weights, fingerprint, kept_epoch, weights_file
from stability.values import Options, Value

INIT = "init"
ACCEPTED = "accepted: a study's folder, also with /ID or /MODEL behind it, or a safetensors file"
# Only the targets of others may take an argument of this name themselves.
OURS = "stability."


class NotThereError(UserError):
    """What another study would have is not there: the study may not have been trained yet."""


@dataclass(frozen=True)
class Initial:
    """The weights that a trial begins with.

    Attributes:
        name: as given.
        fingerprint: of the weights.
        trial: whose weights they are; None: the name is a file's.
    """

    name: str
    fingerprint: str
    trial: str | None = None

    @property
    def path(self) -> Path:
        """The file of the weights. Raises UserError where it is not there, or holds other weights."""
        given = Path(self.name).expanduser()
        found = given if self.trial is None else _folder_of(given, self.trial) / FILE
        if not found.is_file():
            raise UserError(f"model.init={self.name}: {found} is not there any more; {ACCEPTED}")
        if fingerprint(found) != self.fingerprint:
            raise UserError(
                f"model.init={self.name}: {found} holds other weights ({fingerprint(found)}) than the trial was "
                f"planned with ({self.fingerprint}); accepted: those, or study=NAME for another study"
            )
        return found


def _folder_of(given: Path, identifier: str) -> Path:
    runs = given if list(studies(given)) else given.parent
    return find(runs, identifier).directory


def initial_of(model: Options) -> Initial | None:
    """Return the weights that a planned trial's model begins with; None: its own."""
    given = model.get(INIT)
    return parse(Initial, given, "model.init") if isinstance(given, Mapping) else None


def with_initial(model: Options, planned: Options | None = None) -> Options:
    """Return a model's configuration with the weights found that `init` names.

    Args:
        model: the configuration.
        planned: that of the same cell in a study that has been planned already: its weights stay.

    Raises:
        UserError: there are no such weights.
    """
    given = model.get(INIT)
    if INIT not in model or isinstance(given, Mapping) or _takes_init(model):
        return model
    if given is None:
        return {name: value for name, value in model.items() if name != INIT}
    if not isinstance(given, str) or not given:
        raise UserError(f"model.init={given!r}; {ACCEPTED}")
    standing = initial_of(planned) if planned else None
    if standing is None or standing.name != given:
        standing = _found(given, str(model.get("name")))
    values: dict[str, Value] = {"name": standing.name, "fingerprint": standing.fingerprint}
    return {**model, INIT: values | ({"trial": standing.trial} if standing.trial else {})}


def _takes_init(model: Options) -> bool:
    """Tell whether a model of the user's own has an argument of this name itself."""
    target = str(model.get("_target_"))
    if target.startswith(OURS):
        return False
    return INIT in inspect.signature(locate(target, "model._target_", "my_package.MyModel")).parameters


def _found(given: str, model: str) -> Initial:
    path = Path(given).expanduser()
    if path.is_file():
        return Initial(given, fingerprint(path))
    above, name = path.parent, path.name
    if path.is_dir() and list(studies(path)):
        one = _best(given, planned_trials(path), model)
    else:
        planned = planned_trials(above) if above.is_dir() and list(studies(above)) else []
        models = [one for one in planned if one.cell.factors.get("model") == name]
        if not models and not any(one.trial.id.startswith(name.lower()) for one in planned):
            near = [other.name for other in above.iterdir()] if above.is_dir() else []
            near += [str(one.cell.factors.get("model")) for one in planned]
            raise NotThereError(
                f"model.init={given}: there is no such study, trial or file{nearest(name, near)}; {ACCEPTED}"
            )
        one = _best(given, models, name) if models else find(above, name)
    return Initial(given, fingerprint(weights_file(one)), one.trial.id)


def _best(given: str, planned: Sequence[PlannedTrial], model: str) -> PlannedTrial:
    """Return the trial of a model whose weights have the lowest error.

    Args:
        given: what names the study.
        planned: its trials.
        model: the model's name.

    Raises:
        UserError: the study has no such model, has not ended, or kept no weights.
    """
    own = [one for one in planned if one.cell.factors.get("model") == model]
    if not own:
        names = sorted({str(one.cell.factors.get("model")) for one in planned})
        raise UserError(
            f"model.init={given}: no trial of {model} there{nearest(model, names)}; accepted: the study's folder with "
            f"/ID or /MODEL behind it, of {', '.join(names)}"
        )
    records: list[tuple[PlannedTrial, Record | None]] = [(one, read_record(one.directory, one.trial)) for one in own]
    missing = sum(record is None for _, record in records)
    if missing:
        raise UserError(
            f"model.init={given}: {missing} of {len(own)} trials of {model} have not ended; accepted: a study that has "
            f"ended, or one trial, {given}/ID"
        )
    known = [(error_of_weights(record), one) for one, record in records if record is not None and kept_epoch(record)]
    if not known:
        completed = [one for one, record in records if record is not None and record.status == "completed"]
        weights_file((completed or own)[0])
    sign = 1.0 if metrics_of().primary.direction == "minimize" else -1.0
    return min(known, key=lambda pair: sign * pair[0])[1]
