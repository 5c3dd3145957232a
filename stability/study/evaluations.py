"""Trials evaluated on further sets: a file beside the trial's record for each, evaluated.SET.json.

A set's name stands for its images: under one name there are no results of others.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from stability.errors import UserError
from stability.files import write_text
from stability.study.content import json_values
from stability.study.schema import Kept
from stability.study.shape import dump, parse
from stability.values import Options, number, plain

PREFIX, SUFFIX = "evaluated.", ".json"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What one trial's weights come to on one set.

    Attributes:
        id: of the trial.
        name: of the set.
        images: identifies the evaluated images, in their order.
        metrics: by key, as in a trial's result.
        epoch: after which the weights were taken.
        kept: why these weights: of the last epoch, or of the best one on held-out images.
        averaged: whether they are averaged ones (EMA).
        eval_images: the number of images.
        data: the configuration of the set.
        classes: how the set's classes became the model's, where they are not the same; None: they are.
        provenance: the machine's part of it: device, versions, time.
    """

    id: str
    name: str
    images: str
    metrics: Options
    epoch: int
    kept: Kept
    averaged: bool
    eval_images: int
    data: Options = field(default_factory=dict)
    classes: str | None = field(default=None, metadata={"optional": True})
    provenance: Options = field(default_factory=dict)

    def value(self, key: str) -> float | None:
        """Return a metric by its key; None where it is missing."""
        return number(self.metrics.get(key))


def set_name(words: str) -> str:
    """Return a name that a file can have, made of words that name a set."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", words).strip("-")[:60] or "set"


def evaluation_path(directory: Path, name: str) -> Path:
    """Return the file of a set's evaluation in a trial's folder."""
    return directory / f"{PREFIX}{name}{SUFFIX}"


def write_evaluation(directory: Path, found: Evaluation) -> None:
    """Write an evaluation into a trial's folder."""
    write_text(evaluation_path(directory, found.name), json.dumps(plain(dump(found)), indent=1, allow_nan=False) + "\n")


def read_evaluations(directory: Path) -> dict[str, Evaluation]:
    """Return the evaluations of the trial in `directory` by the set's name.

    Raises:
        UserError: a file holds none of this trial; the message names file and key.
    """
    found = {}
    for path in sorted(directory.glob(f"{PREFIX}*{SUFFIX}")):
        one = _read(path, directory.name)
        found[one.name] = one
    return found


def read_evaluation(directory: Path, name: str) -> Evaluation | None:
    """Return the evaluation of a trial on a set; None: there is none. Raises UserError as `read_evaluations`."""
    path = evaluation_path(directory, name)
    return _read(path, directory.name) if path.exists() else None


def _read(path: Path, identifier: str) -> Evaluation:
    where = f"{path} is no evaluation"
    remedy = "remove it and evaluate again"
    try:
        found = parse(Evaluation, json_values(path.read_text(encoding="utf-8"), where), where)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except UserError as error:
        raise UserError(f"{error}; {remedy}") from None
    except ValueError as error:
        words = f"it is no JSON ({error})" if isinstance(error, json.JSONDecodeError) else str(error)
        raise UserError(f"{where}: {words}; {remedy}") from error
    named = evaluation_path(path.parent, found.name).name
    if (found.id, named) != (identifier, path.name):
        raise UserError(f"{where} of trial {identifier}: it holds {found.name!r} of {found.id}; {remedy}")
    return found
