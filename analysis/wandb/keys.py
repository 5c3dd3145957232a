"""Which config, history and summary keys the runs of a study's trials have: panels name no others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.log import logged_trial
from stability.sinks import wandb_content as content
from stability.sinks.wandb_options import sent_by
from stability.study.events import Ended
from stability.study.store import Study, read_json
from stability.values import group


@dataclass(frozen=True)
class RunKeys:
    """The keys by which W&B shows the trials of a study.

    Attributes:
        factors: config keys of the factors in which cells differ.
        config: config keys at the top level.
        varying: those of `config` that have several values.
        history: keys of the rows.
        summary: keys of the summary.
    """

    factors: tuple[str, ...]
    config: frozenset[str]
    varying: frozenset[str]
    history: frozenset[str]
    summary: frozenset[str]


def keys_of(study: Study, factors: Sequence[str]) -> RunKeys:
    """Return the keys with values in the runs that logger=wandb makes of a study's trials.

    What is not sent (logger.wandb.send in the study's commands) and what is null in all runs is left out.

    Args:
        study: a study with records.
        factors: the names of the factors in which its cells differ.
    """
    parts = sent_by(study.manifest.all_commands)
    config: dict[str, set[str]] = {}
    history: set[str] = set()
    summary: set[str] = set()
    for trial in study.trials:
        record = read_json(study.folder(trial)) if trial.id in study.records else None
        if record is None:
            continue
        logged, event = logged_trial(study, trial), Ended(trial.id, record)
        values = content.config_of(logged, parts) | content.origin_of(logged, event)
        for name, value in values.items():
            config.setdefault(name, set()).add(repr(value))
        found = content.summary_of(event, parts)
        summary |= {name for name, value in found.items() if value is not None}
        probes = group(logged.config, "probes")
        for row in event.curve if "curve" in parts else ():
            history |= content.row_of(row, probes).keys()
    own = tuple(map(content.factor_key, factors))
    varying = frozenset(name for name, values in config.items() if len(values) > 1)
    return RunKeys(own, frozenset(config), varying, frozenset(history), frozenset(summary))
