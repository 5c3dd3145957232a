"""What a trial's W&B run holds. The names of config, history and summary keys are known here alone.

config    a cell's factors, the point, what the trial is and what trained it, at the top; the whole configuration under
          `config`
history   `train/` and `val/` over `epoch`; `probe/` over `probe/step`
summary   the record's result: `final/`, `best/`, `status`; never what the history's last row has
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Literal, NamedTuple

from stability.sinks.base import LoggedTrial
from stability.sinks.private import without_paths
from stability.study.events import Ended
from stability.study.metrics import BEST, EMA, Metric, metrics_of
from stability.study.schema import EpochRow, cell_label
from stability.values import Options, Value, group, number

# What may leave the machine, besides what the trial is and how it ended; by default all but `machine`.
Part = Literal["curve", "config", "record", "command", "machine"]
PARTS: Mapping[str, str] = {
    "curve": "the history: an epoch's numbers and the values of probes",
    "config": "the trial's whole configuration",
    "record": "the files record.json, correct.json and study.yaml, from which analysis.wandb pull makes a study",
    "command": "the study's commands",
    "machine": "the host's name, paths of the file system, and what W&B finds out about the machine",
}
DEFAULT_PARTS = ("curve", "config", "record", "command")

TRAIN, VAL, PROBE, FINAL, BEST_AT = "train/", "val/", "probe/", "final/", "best/"
EPOCH, PROBE_STEP = "epoch", f"{PROBE}step"
STATUS, EXCEPTION, WEIGHTS = "status", "exception", f"{FINAL}weights"
RUNNING, INTERRUPTED = "running", "interrupted"
# Config keys of what a trial is.
STUDY, CELL, PEAK_LR = "study", "cell", "peak_lr"
# Config keys of the whole configuration, and of what a record's provenance says of the trial.
WHOLE = "config"
ORIGIN = ("device", "pack_size", "parameters", "multiply_adds")
# Summary keys of what a record's provenance says of the training.
COST = ("seconds", "images_per_second", "attempts")
# Of a result: values that are no metric keep their names, and are null where there are none.
DIVERGED = "diverged_step"
PLAIN_RESULTS = (DIVERGED, EXCEPTION, "epochs_done")
# A failure's line in the notes.
FAILURE = "Failed: "
# The longest that W&B takes.
NAME_LENGTH, JOB_TYPE_LENGTH = 128, 64
# Fields of a curve's row that training measures, not an evaluation.
_OF_TRAINING = frozenset(one.name for one in dataclasses.fields(EpochRow)) - {"rest", EPOCH}


class Definition(NamedTuple):
    """How W&B shows a metric: over which other one, and which of its values the summary keeps."""

    name: str
    step_metric: str | None = None
    summary: str | None = None


def factor_key(name: str) -> str:
    """Return a factor's config key. W&B reads a dot as a level of nesting, and `model` is a value itself."""
    return name.replace(".", "/")


def epoch_key(name: str, probes: Options | None = None) -> str:
    """Return the history's key of an entry of a curve's row: `train/loss`, `val/loss`, `val/ema_loss`.

    Args:
        name: as the row has it.
        probes: the configuration's own probes, by name: their means over an epoch are training's.
    """
    if name == EPOCH:
        return EPOCH
    if name in _OF_TRAINING or name in (probes or {}):
        return TRAIN + name.removeprefix("train_")
    return VAL + name


def definitions() -> Iterator[Definition]:
    """Yield how W&B is to show the metrics. An exact name goes before the pattern that it fits.

    A metric's direction is declared by what the summary keeps of its history: the least or the largest.
    """
    for metric in metrics_of():
        best = best_of(metric)
        for name in (VAL + metric.key, VAL + metric.ema_key):
            yield Definition(name, EPOCH, best)
        for name in (FINAL + metric.key, BEST_AT + metric.key) if metric.is_final else ():
            yield Definition(name, summary=best)
    yield Definition(f"{TRAIN}*", EPOCH, "none")
    yield Definition(f"{VAL}*", EPOCH, "none")
    # The summary's last epoch and step say where a run goes on.
    yield Definition(PROBE_STEP)
    yield Definition(f"{PROBE}*", PROBE_STEP, "none")


def best_of(metric: Metric) -> str:
    """Return what W&B's summary keeps of a metric's history: `min` or `max`."""
    return "min" if metric.direction == "minimize" else "max"


def config_of(trial: LoggedTrial, parts: tuple[str, ...], command: str | None = None) -> dict[str, Value]:
    """Return a run's config at its start.

    Args:
        trial: the trial.
        parts: what may leave the machine.
        command: the study's commands; None: not known.
    """
    point = trial.point
    factors = {factor_key(name): value for name, value in trial.cell.items()}
    known: dict[str, Value] = {
        STUDY: trial.study,
        "trial": trial.id,
        "number": trial.number,
        "role": trial.role,
        CELL: trial.cell_label,
        **point,
        PEAK_LR: point["lr"] if trial.peak_lr is None else trial.peak_lr,
        STATUS: RUNNING,
    }
    if "command" in parts and command:
        known["command"] = command
    if "config" in parts:
        known[WHOLE] = _whole(trial.config)
    found = factors | known
    if "machine" in parts:
        return found
    return _private(found) | {CELL: private_label(trial.cell_label)}


def private_label(label: str) -> str:
    """Return a cell's label without paths; where one is cut, with a hash of the whole: cells stay different."""
    found = str(without_paths(label))
    return found if found == label else f"{found} {sha256(label.encode()).hexdigest()[:6]}"


def origin_of(trial: LoggedTrial, event: Ended) -> dict[str, Value]:
    """Return the config keys that a trial's record adds: what trained it, how large the model is, its status."""
    origin = group(event.record, "provenance")
    known = {name: origin.get(name) for name in ORIGIN if origin.get(name) is not None}
    factors = {factor_key(name) for name in trial.cell}
    return {name: value for name, value in {**known, STATUS: event.status}.items() if name not in factors}


def row_of(row: Mapping[str, float | None], probes: Options | None = None) -> dict[str, float]:
    """Return a history row of an epoch: its finite values; the status shows a divergence."""
    return {epoch_key(name, probes): value for name, value in _finite(row).items()}


def probe_of(step: int, values: Mapping[str, float | None]) -> dict[str, float]:
    """Return a history row of probes at an optimizer step."""
    return {PROBE_STEP: step, **{PROBE + name: value for name, value in _finite(values).items()}}


def summary_of(event: Ended, parts: tuple[str, ...]) -> dict[str, Value]:
    """Return a run's summary: the record's result. What has no value is null, so that a retried trial keeps no old one.

    Args:
        event: the trial's end.
        parts: what may leave the machine.
    """
    found: dict[str, Value] = {STATUS: event.status}
    for name, value in event.result.items():
        if name != "curve":
            found[_result_key(name)] = value
    found[WEIGHTS] = weights_of(event)
    origin = group(event.record, "provenance")
    found |= {name: origin[name] for name in COST if origin.get(name) is not None}
    return found if "machine" in parts else _private(found)


def weights_of(event: Ended) -> str:
    """Return which weights a result is of: `ema` where the recipe averages them, else `raw`."""
    averages = [
        name for row in event.curve for name, value in row.items() if name.startswith(EMA) and value is not None
    ]
    return "ema" if averages else "raw"


def notes_of(standing: str | None, event: Ended, parts: tuple[str, ...]) -> str:
    """Return a run's notes with the failure's text, or without that of an earlier attempt.

    Args:
        standing: the notes as they are: the user's, perhaps with a failure's line at the end.
        event: the trial's end.
        parts: what may leave the machine.
    """
    own = (standing or "").partition(FAILURE)[0].rstrip()
    exception = event.result.get("exception")
    if event.status != "failed" or not exception:
        return own
    text = exception if "machine" in parts else without_paths(exception)
    return "\n\n".join(filter(None, (own, f"{FAILURE}{text}")))


def run_name(trial: LoggedTrial) -> str:
    """Return a run's name for the eye: `vitp_tiny adamw lr=1.2e-03 wd=0.05 #3`."""
    factors = cell_label({name: value for name, value in trial.cell.items() if name != "epochs"})
    point = trial.point
    last = f"#{trial.number}" if trial.number is not None else f"seed={point['seed']}"
    role = "" if trial.role == "sample" else f" {trial.role}"
    return short(f"{factors} lr={point['lr']:.1e} wd={point['wd']:.2g} {last}{role}", NAME_LENGTH)


def short(text: str, length: int) -> str:
    """Return `text`, cut to `length` characters with a hash of the whole as its end."""
    return text if len(text) <= length else f"{text[: length - 7]} {sha256(text.encode()).hexdigest()[:6]}"


def _result_key(name: str) -> str:
    """Return the summary key of an entry of a result: metrics by final/ and best/."""
    if name in PLAIN_RESULTS:
        return name
    if name.startswith(BEST):
        return BEST_AT + name.removeprefix(BEST)
    return FINAL + name


def _whole(config: Options) -> dict[str, Value]:
    """Return the whole configuration; of the optimizer's search ranges those of the model's family alone."""
    family = group(config, "model").get("family")
    optimizer = dict(group(config, "optimizer"))
    if "search" in optimizer:
        own = group(optimizer, "search").get(str(family))
        optimizer["search"] = {} if own is None else {str(family): own}
    return {**config, **({"optimizer": optimizer} if optimizer else {})}


def _private(values: Options) -> dict[str, Value]:
    found = without_paths(values)
    assert isinstance(found, dict)
    return found


def _finite(row: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in row.items() if value is not None and number(value) is not None}
