"""The sweeper: plans a study, writes its manifest, and launches what is missing until nothing is."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stability.errors import StudyError, UserError
from stability.execute.launcher import TrialLauncher
from stability.execute.layout import check_pool, layout_of
from stability.execute.loop import Loop, attempts_left
from stability.execute.task import TrialTask
from stability.files import shared_like
from stability.hydra import alone, wandb_sweep
from stability.hydra.compose import Composer
from stability.hydra.extensions import check_extensions
from stability.hydra.job_launcher import trial_launcher
from stability.hydra.keys import SWEEPER
from stability.hydra.overrides import parse
from stability.hydra.places import check_places
from stability.hydra.plain import contents
from stability.hydra.refused import failing, left_out_line, refused
from stability.optuna.copy import check_storage
from stability.optuna.mirror import Mirror
from stability.outputs import announced
from stability.plan import cost, phases, preview, rounds
from stability.plan.cells import CellPlan, Plan, make_plan
from stability.plan.manifest import Command, build, grow, settle, study_directory
from stability.plan.packing import PackSizes, pack_of
from stability.sinks.choose import check_loggers, make_loggers
from stability.sinks.threads import Loggers
from stability.study.identity import trial_id
from stability.study.named import study_name
from stability.study.planned import PlannedTrial
from stability.study.schema import ENDED, Manifest, Record, Scalar, Trial
from stability.study.store import read_manifest, records_of
from stability.study.weights import without_weights
from stability.values import Options

if TYPE_CHECKING:
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig


class TrialsFailed(StudyError):
    """Some trials failed for good; the study is as complete as it gets. Exit code 1."""


class StudySweeper:
    """Runs one command: from its overrides to records."""

    def __init__(self, params: Options, context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._params, self._context, self._task_function, self._config = params, context, task_function, config
        self._composer = Composer(context.config_loader, config)

    def sweep(self, arguments: Sequence[str]) -> dict[str, Record]:
        """Train what is missing of the study that `arguments` describe; return its records by trial id.

        Raises UserError before anything is written where the command is mistaken, and TrialsFailed at the end.
        """
        with announced("planning the study"):
            plan = self.plan(arguments)
            directory = study_directory(plan)
            command = self._command(arguments, plan)
            # Refuse first what can be refused without reading the data.
            standing = read_manifest(directory)
            grows = grow(standing, build(plan, command, None)) != standing
        phases.check(plan)
        self._chosen = alone.chosen(plan)
        check_pool(plan)
        check_storage(plan.config.optuna.storage)
        loggers = make_loggers(plan.config.logger)
        for advice in check_loggers(loggers):
            # A sweep's runs are opened by its agents, not here.
            if plan.config.plan != wandb_sweep.WANDB_SWEEP:
                print(advice)
        if plan.needs_results:
            plan = rounds.standing(plan, standing)
        plan = phases.standing(plan, standing)
        with contextlib.ExitStack() as stack:
            stack.enter_context(shared_like(directory))
            if plan.config.plan:
                return self._show(plan, directory, stack, command)
            with announced(f"reading the records of {directory}"):
                records = records_of(directory, plan.all_trials)
            own = alone.part_of(plan, self._chosen)
            missing = [trial for trial in own.all_trials if attempts_left(records.get(trial.id))]
            bare = _ended_without_weights(plan, directory, standing, records) if standing else None
            if bare is not None:
                print(bare)
            is_open = len(plan.trials) < plan.samples or (not missing and phases.is_open(plan, directory))
            launcher = self._launcher(plan, stack) if missing or is_open else None
            left_out: dict[int, str] = {}
            if launcher is not None:
                launcher.warm_up(len(missing))
                left_out = self._try_cells(launcher, plan, directory, records, missing)
            for place, problem in left_out.items():
                print(left_out_line(plan.cells[place], problem))
            plan = plan.without(left_out)
            # After what is refused: a mistake is one line.
            for note in preview.notes(plan):
                print(note)
            sizes = PackSizes(plan, layout_of(plan), launcher)
            if sizes.advice and len(missing) > 1:
                print(sizes.advice)
            # A complete study can be run again on a machine without its data.
            if grows or launcher is not None:
                known = {trial.id for trial in standing.trials} if standing else set()
                fresh = {trial.id: plan.config_of(trial) for trial in plan.trials if trial.id not in known}
                settle(directory, build(plan, command, _fingerprints(plan), sizes.group(fresh)))
            listening = Loggers(loggers)
            if launcher is not None:
                stack.enter_context(Mirror(directory, plan.config.optuna.storage))
                stack.enter_context(listening)
                plan = self._run(launcher, plan, directory, sizes, listening)
        if launcher is not None:
            records = records_of(directory, plan.all_trials)
        own = alone.part_of(plan, self._chosen)
        rest = [one for one in own.trials if one.id in records and one.id not in listening.ended]
        task_of = functools.partial(self._task_of, plan, directory)
        alone.tell_ended(loggers, rest, records, task_of)
        cost.learn(plan, records, layout_of(plan))
        _report(own, directory, {one.id: records[one.id] for one in own.all_trials if one.id in records})
        if left_out:
            raise TrialsFailed(f"{len(left_out)} of {len(left_out) + len(plan.cells)} cells left out: see above")
        return records

    def _run(self, launcher: TrialLauncher, plan: Plan, directory: Path, sizes: PackSizes, loggers: Loggers) -> Plan:
        """Train what is missing of a plan, in rounds where points depend on results; return it with all its trials."""
        loop = Loop(launcher, directory, loggers)
        if not plan.needs_results:
            manifest = read_manifest(directory)
            assert manifest is not None
            self._train(loop, plan, plan.all_trials, directory, manifest)
        size = layout_of(plan).size * max(map(sizes.of, (cell.config for cell in plan.cells)))
        done = {trial.id for trial in plan.all_trials} if not plan.needs_results else set()
        grow = (rounds.rounds,) if plan.needs_results else ()
        for more in (*grow, phases.phases):
            for grown, manifest in more(plan, directory, size, sizes.group):
                plan = grown
                # Trials of earlier rounds have ended, or used up their attempts.
                fresh = [trial for trial in plan.all_trials if trial.id not in done]
                self._train(loop, plan, fresh, directory, manifest)
                done |= {trial.id for trial in fresh}
        return plan

    def _train(self, loop: Loop, plan: Plan, trials: Sequence[Trial], directory: Path, manifest: Manifest) -> None:
        wanted = [one for one in trials if self._chosen is None or one.id in self._chosen]
        loop.run(self._tasks(plan, wanted, directory, manifest), max(plan.planned, len(manifest.trials)))

    def _show(self, plan: Plan, directory: Path, stack: contextlib.ExitStack, command: Command) -> dict[str, Record]:
        """Print what would run, after timing it for plan=measure, or write the sweep's file; return no records."""
        advice: list[str] = []
        with announced(f"reading the records of {directory}"):
            statuses = cost.statuses_of(plan, directory)
        # A complete study can be planned on a machine without its data, as it can be run.
        is_open = len(statuses) < plan.planned or any(status not in ENDED for status in statuses.values())

        def check(plan: Plan) -> None:
            check_extensions(plan)
            if is_open:
                advice[:] = check_places(plan, lambda: self._launcher(plan, stack).is_remote)
            if plan.config.failing_cells == "skip":
                cost.costs_of(plan, layout_of(plan))

        left_out = refused(plan, check)
        for place, problem in left_out.items():
            print(left_out_line(plan.cells[place], problem))
        plan = plan.without(left_out)
        if plan.config.plan == "measure":
            tasks = [self._task_of(plan, directory, _any_point(cell)) for cell in plan.cells]
            launcher = self._launcher(plan, stack)
            sizes = PackSizes(plan, layout_of(plan), launcher)
            members = [sizes.of(cell.config) for cell in plan.cells]
            taken = launcher.measure_cells(tasks, members)
            seconds = [step / size for step, size in zip(taken, members, strict=True)]
            cost.keep_measured(plan, seconds, layout_of(plan))
        if plan.config.plan == wandb_sweep.WANDB_SWEEP:
            wandb_sweep.write(plan, command)
        else:
            preview.show(plan, directory, layout_of(plan), statuses, advice)
        return {}

    def plan(self, arguments: Sequence[str]) -> Plan:
        """Return the plan that `arguments` describe; composes and checks every cell."""
        self._composer.check()
        asked = parse(self._params, arguments, self._composer.choices_of)
        choices = self._config.hydra.runtime.choices
        # Hydra has composed a single cell without params already; composing again takes a tenth of a second.
        is_composed = not (asked.axes or self._params)
        compose = (lambda overrides: self._composer.composed()) if is_composed else self._composer.compose
        sweeps = choices.get("sweeps")
        return make_plan(asked, compose, study_name(sweeps, choices.get("scale")) if sweeps else None)

    def _launcher(self, plan: Plan, stack: contextlib.ExitStack) -> TrialLauncher:
        """Make the launcher that the configuration names, for this study's folder; `stack` closes it."""
        from hydra.core.plugins import Plugins
        from omegaconf import open_dict

        from stability.data.shared import shared_listings

        stack.enter_context(shared_listings())
        with open_dict(self._config):
            self._config.study, self._config.runs = plan.study, str(study_directory(plan).parent)
            # As the cells have them, which a sweep file's params may set.
            self._config.pool = dataclasses.asdict(plan.config.pool)
            if all(cell.config.device == "cpu" for cell in plan.cells):
                self._config.device = "cpu"
        plugin = Plugins.instance().instantiate_launcher(
            hydra_context=self._context, task_function=self._task_function, config=self._config
        )
        launcher = trial_launcher(plugin)
        stack.callback(launcher.close)
        return launcher

    def _command(self, arguments: Sequence[str], plan: Plan) -> Command:
        """Return the command as a user can run it again."""
        flags = []
        for source in self._config.hydra.runtime.config_sources:
            if source.provider == "command-line":
                flags += ["--config-dir", source.path]
        if self._config.hydra.job.config_name != "config":
            flags += ["--config-name", self._config.hydra.job.config_name]
        several = ["-m"] if plan.planned > 1 else []
        overrides = (*(one for one in self._config.hydra.overrides.hydra if one != SWEEPER), *arguments)
        overrides = tuple(alone.of_the_study(overrides))
        line = shlex.join(["python", "-m", "stability.run", *several, *flags, *overrides])
        return Command(line, tuple(overrides))

    def _try_cells(
        self,
        launcher: TrialLauncher,
        plan: Plan,
        directory: Path,
        records: Mapping[str, Record],
        missing: Sequence[Trial],
    ) -> dict[int, str]:
        """Try the first batch of every cell none of whose trials has ended, before anything is written.

        Args:
            launcher: tries them.
            plan: of all cells.
            directory: the study's folder.
            records: by trial.
            missing: the trials that have not ended.

        Returns:
            What is wrong with the cells that fail, by place; more than none of them only with failing_cells=skip.

        Raises:
            UserError: a cell fails, and the command is to stop; or all do.
        """
        ended = {trial.cell for trial in plan.trials if trial.id in records and records[trial.id].has_ended}
        first = {trial.cell: trial for trial in reversed(missing)}
        cells = [cell for cell in plan.cells if cell.index not in ended and (not self._chosen or cell.index in first)]
        tasks = {cell.index: self._task_of(plan, directory, first.get(cell.index, _any_point(cell))) for cell in cells}
        return failing(
            plan,
            cells,
            lambda: launcher.try_cells(list(tasks.values())),
            lambda cell: _problem(launcher, tasks[cell.index]),
        )

    def _tasks(self, plan: Plan, trials: Sequence[Trial], directory: Path, manifest: Manifest) -> list[TrialTask]:
        """Return the tasks of some of a plan's trials, with the factors and packs that the manifest has for them."""
        factors = {trial.id: manifest.cell_of(trial).factors for trial in manifest.trials}
        packs = pack_of(manifest)
        return [self._task(plan, directory, trial, factors[trial.id], packs.get(trial.id, ())) for trial in trials]

    def _task_of(self, plan: Plan, directory: Path, trial: Trial) -> TrialTask:
        return self._task(plan, directory, trial, plan.cells[trial.cell].factors)

    def _task(
        self, plan: Plan, directory: Path, trial: Trial, factors: Mapping[str, Scalar], pack: tuple[str, ...] = ()
    ) -> TrialTask:
        return TrialTask(
            id=trial.id,
            study=plan.study,
            study_directory=directory,
            factors=factors,
            config=plan.config_of(trial),
            threads=plan.config.pool.threads,
            ranks=plan.config.pool.gpus_per_trial,
            overrides=alone.overrides_of(plan, trial, directory),
            hydra=self._hydra_node,
            number=trial.number,
            role=trial.role,
            pack=pack,
        )

    @functools.cached_property
    def _hydra_node(self) -> Options | None:
        """What .hydra/hydra.yaml of a trial holds; None where the user wants no .hydra/."""
        return None if self._config.hydra.output_subdir is None else contents(self._config.hydra)


def _ended_without_weights(
    plan: Plan, directory: Path, standing: Manifest, records: Mapping[str, Record]
) -> str | None:
    """Return a line on trials that ended before the command asked for their weights; None: there are none."""
    own = {trial.id for trial in plan.all_trials if plan.config_of(trial).training.keep_weights != "none"}
    trials = [PlannedTrial(directory, standing, trial) for trial in standing.trials if trial.id in own]
    return without_weights(trials, records)


def _problem(launcher: TrialLauncher, task: TrialTask) -> str | None:
    """Return what is wrong with the first batch of a trial's cell; None where nothing is."""
    try:
        launcher.try_cells([task])
    except UserError as error:
        return str(error).removeprefix(f"{task.cell_label}: ")
    return None


def _any_point(cell: CellPlan) -> Trial:
    """Return a trial of a cell at the point that its configuration has."""
    config = cell.config
    return Trial(trial_id(config), cell.index, 0, config.lr, config.wd, config.seed)


def _fingerprints(plan: Plan) -> list[str]:
    """Return the fingerprint of each cell's data, and print what was found; one look at each data set."""
    from stability.data.sources import load

    known: dict[str, str] = {}
    for cell in plan.cells:
        if repr(cell.config.data) not in known:
            source = load(cell.config.data)
            print(source.describe(), flush=True)
            known[repr(cell.config.data)] = source.fingerprint
    return [known[repr(cell.config.data)] for cell in plan.cells]


def _report(plan: Plan, directory: Path, records: Mapping[str, Record]) -> None:
    """Print how the trials ended, where the results are and what to run next. Raises TrialsFailed where some failed."""
    counts = Counter[str](record.status for record in records.values())
    # A cell of which nothing completed has no best setting to run again.
    total = plan.samples + len(plan.after)
    counts["failed"] += total - len(records)
    words = ", ".join(f"{counts[status]} {status}" for status in (*ENDED, "failed"))
    print(f"{total} trial{'s' * (total > 1)} of {plan.study}: {words}")
    print(f"results: {directory}")
    failed = [trial.id for trial in plan.all_trials if trial.id not in records or not records[trial.id].has_ended]
    where = shlex.quote(str(directory))
    if total == 1 or failed:
        print(f"next:    python -m analysis.trial {where} {(failed or [plan.trials[0].id])[0]}")
    else:
        drawn = f"figure {shlex.quote(plan.config.figure)}" if plan.config.figure else "edf"
        print(f"next:    python -m analysis.{drawn} {where}")
    if counts["failed"]:
        raise TrialsFailed(f"{counts['failed']} of {total} trials failed; run the command again to try each once more")
