"""One trial of a study by itself: what composes it, and a command that trains no other (`only=N`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from stability.errors import UserError
from stability.execute.task import TrialTask
from stability.hydra.overrides import quoted
from stability.plan.cells import Plan
from stability.sinks.base import Logger
from stability.sinks.threads import Loggers
from stability.study.events import replay
from stability.study.initial import initial_of
from stability.study.schema import Record, Trial

# What is for one command and not for the study: `only`, and that W&B's agent has opened the run.
ONLY, AGENT = "only", "logger.wandb.agent"


def overrides_of(plan: Plan, trial: Trial, directory: Path) -> tuple[str, ...]:
    """Return the overrides that compose a trial by itself, within its study.

    Args:
        plan: the study's.
        trial: one of its trials.
        directory: the study's folder.
    """
    settled = {"lr": repr(trial.lr), "wd": repr(trial.wd), "seed": str(trial.seed), "study": plan.study}
    settled |= {"runs": quoted(str(directory.parent)), "samples": "null"}
    cell = plan.cells[trial.cell]
    if trial.role == "longer":
        settled |= {"epochs": str(cell.config_of(trial).epochs)}
    initial = initial_of(cell.config.model)
    if initial is not None:
        # As found when the cell was planned.
        trial_key = "" if initial.trial is None else f",trial:{quoted(initial.trial)}"
        values = f"{{name:{quoted(initial.name)},fingerprint:{quoted(initial.fingerprint)}{trial_key}}}"
        settled |= {"++model.init": values}
    study = (*(name.lstrip("+") for name in settled), "plan", "tune", "reseed", "longer", ONLY, AGENT)
    kept = [one for one in cell.overrides if one.partition("=")[0].lstrip("+~") not in study]
    return (*kept, *(f"{name}={value}" for name, value in settled.items()))


def of_the_study(overrides: Sequence[str]) -> list[str]:
    """Return a command's overrides without those that are not for the study's other trials."""
    return [one for one in overrides if one.partition("=")[0].lstrip("+") not in (ONLY, AGENT)]


def chosen(plan: Plan) -> frozenset[str] | None:
    """Return the ids of the trials that the command is to train; None: all. Raises UserError."""
    place = plan.config.only
    if place is None:
        loggers = plan.config.logger or {}
        if any(isinstance(one, Mapping) and one.get("agent") is True for one in loggers.values()):
            raise UserError(f"{AGENT}=true without {ONLY}=N: an agent's run is one trial's; accepted: both, or neither")
        return None
    check_is_fixed(plan, f"{ONLY}={place}")
    if place >= len(plan.trials):
        raise UserError(f"{ONLY}={place}; accepted: 0 to {len(plan.trials) - 1}, a place among the study's trials")
    return frozenset([plan.trials[place].id])


def check_is_fixed(plan: Plan, what: str) -> None:
    """Raise UserError where trials depend on the results of others, so that no list of them can be made before."""
    further = [name for name in ("tune", "reseed", "longer") if getattr(plan.config, name)]
    because = f"sweep.sampler={plan.sampler_name}" if plan.needs_results else f"{' and '.join(further)}"
    if plan.needs_results or further:
        raise UserError(
            f"{what}: with {because} trials depend on the results of others; accepted: studies whose points are known "
            "before, with tune=0 reseed=0 longer=0 and without sweep.sampler=tpe"
        )


def part_of(plan: Plan, ids: Collection[str] | None) -> Plan:
    """Return a plan with these trials alone; None: all."""
    return plan if ids is None else replace(plan, trials=tuple(one for one in plan.trials if one.id in ids))


def tell_ended(
    loggers: Mapping[str, Logger],
    trials: Sequence[Trial],
    records: Mapping[str, Record],
    task_of: Callable[[Trial], TrialTask],
) -> None:
    """Tell the loggers that want it of trials that this command has not trained: another had, or was at it.

    Args:
        loggers: by name.
        trials: those whose ends the loggers have not been told.
        records: by trial id.
        task_of: returns a trial's task.
    """
    wanting = {name: one for name, one in loggers.items() if one.wants_ended}
    if not (wanting and trials):
        return
    with Loggers(wanting) as listening:
        for trial in trials:
            for event in replay(records[trial.id].to_json()):
                listening.take(task_of(trial).logged, event)
