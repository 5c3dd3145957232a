"""A study's records as an Optuna storage, one Optuna study per cell: what optuna-dashboard opens. Never read back.

Optuna is imported when a copy is made, not before.
"""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from stability.errors import UserError
from stability.files import write_text
from stability.study.metrics import metrics_of
from stability.study.schema import Manifest, Record, Result, Trial
from stability.study.store import MANIFEST, RECORD, read_manifest, read_record, trial_directory
from stability.values import DRAWN, Value
from stability.words import first_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

logger = logging.getLogger(__name__)

JOURNAL = "optuna.journal"
# optuna.storage=none: no mirror.
OFF = "none"
# The attribute that tells our Optuna studies from others in a database; it holds the study's name.
OWNER = "stability study"


def check_storage(storage: str | None) -> None:
    """Check that `storage` can be one: null (a journal file in the study's folder), none, or an RDB URL.

    Raises UserError on anything else, and where a database's driver is not installed; connects to nothing.
    """
    if storage is None or storage == OFF:
        return
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    try:
        make_url(storage).get_dialect().import_dbapi()
    except (ArgumentError, NoSuchModuleError) as error:
        accepted = f"null (a journal in the study's folder), {OFF}, or an RDB URL, as sqlite:///optuna.db"
        raise UserError(f"optuna storage {storage!r}; accepted: {accepted}") from error
    except ImportError as error:
        raise UserError(f"optuna storage {storage!r} needs a driver that is not installed: {error}") from error


def rebuild(directory: Path, storage: str | None) -> int:
    """Make the copy of the study in `directory` again, whole, from its records; return how many trials it holds.

    The journal (`storage` null) is replaced atomically; in a database the study's cells are deleted and written anew.
    """
    if storage is not None:
        _delete(directory, storage)
    return OptunaExporter(directory, storage).update()


def remove_half_written(directory: Path) -> None:
    """Remove what a killed process left of a journal that it was writing."""
    for path in directory.glob(f".{JOURNAL}.*.tmp"):
        path.unlink(missing_ok=True)


def _delete(directory: Path, storage: str) -> None:
    import optuna

    manifest = read_manifest(directory)
    assert manifest is not None
    with quiet():
        database = optuna.storages.get_storage(storage)
        for summary in optuna.get_all_study_summaries(database, include_best_trial=False):
            if summary.user_attrs.get(OWNER) == manifest.study:
                optuna.delete_study(study_name=summary.study_name, storage=database)


class OptunaExporter:
    """Writes one study to Optuna: to a journal in its folder (`storage` null), or to an RDB that studies share.

    Discard an exporter that raised: which of the records it has written is unknown.
    """

    def __init__(self, directory: Path, storage: str | None) -> None:
        self._directory, self._storage = directory, storage
        self._stamps: dict[Path, tuple[int, int]] = {}
        self._manifest: Manifest | None = None
        # Planned trials whose records are looked for; a record of a trial that has ended does not change.
        self._open_trials: dict[str, Trial] = {}
        self._distributions: dict[int, dict[str, BaseDistribution]] = {}
        self._begin()

    def _begin(self) -> None:
        self._target: BaseStorage | None = None
        self._lines = _Lines()
        self._studies: dict[str, Study] = {}
        # (trial id, status): a failed trial that is tried again stands in a copy twice, until it is made anew.
        self._copied: set[tuple[str, str]] = set()

    def update(self) -> int:
        """Copy what has ended since the last call; return how many trials that were.

        A record that cannot be read is left out, and a warning names it. Raises what the storage raises, and UserError
        on a manifest that cannot be read.
        """
        grown = self._read_manifest()
        fresh = self._fresh()
        if not (fresh or grown):
            return 0
        with quiet():
            if grown:
                for cell in range(len(self._plan.cells)):
                    self._open(cell)
            fresh = [(trial, record) for trial, record in fresh if (trial.id, record.status) not in self._copied]
            for trial, record in fresh:
                study = self._studies[self._name(trial.cell)]
                study.add_trial(frozen_trial(trial, record, self._distributions_of(trial.cell)))
                self._copied.add((trial.id, record.status))
        if self._storage is None:
            self._lines.write(self._directory / JOURNAL)
        return len(fresh)

    @property
    def _plan(self) -> Manifest:
        assert self._manifest is not None
        return self._manifest

    def _read_manifest(self) -> bool:
        """Read the manifest if it has changed; return whether it has."""
        path = self._directory / MANIFEST
        if not self._is_new(path):
            return False
        manifest = read_manifest(self._directory)
        assert manifest is not None
        before, self._manifest = self._manifest, manifest
        if before and [cell.factors for cell in before.cells] != [cell.factors for cell in manifest.cells]:
            # Cells are called otherwise since a factor was added: all of them are copied under their new names.
            self._begin()
            self._stamps, before = {path: self._stamps[path]}, None
        known = {trial.id for trial in before.trials} if before else set()
        self._open_trials |= {trial.id: trial for trial in manifest.trials if trial.id not in known}
        self._distributions = {}
        return True

    def _fresh(self) -> list[tuple[Trial, Record]]:
        """Return planned trials whose records are new since the last call, and those, in the order they ended."""
        fresh, problems = [], []
        for trial in list(self._open_trials.values()):
            directory = trial_directory(self._directory, trial.id)
            if not self._is_new(directory / RECORD):
                continue
            try:
                record = read_record(directory, trial)
            except UserError as error:
                # The others are copied.
                problems.append(str(error))
                continue
            if record is not None:
                fresh.append((trial, record))
                if record.has_ended:
                    del self._open_trials[trial.id]
        for line in first_of(problems):
            logger.warning("left out of the Optuna copy: %s", line)
        return sorted(fresh, key=lambda pair: (str(pair[1].provenance.end), pair[0].id))

    def _is_new(self, path: Path) -> bool:
        try:
            status = path.stat()
        except FileNotFoundError:
            return False
        stamp = (status.st_mtime_ns, status.st_size)
        if self._stamps.get(path) == stamp:
            return False
        self._stamps[path] = stamp
        return True

    def _name(self, cell: int) -> str:
        return f"{self._plan.study}/{self._plan.cells[cell].label}"

    def _open(self, cell: int) -> None:
        """Make or load the Optuna study of a cell."""
        import optuna

        name = self._name(cell)
        if name in self._studies:
            return
        if self._target is None:
            journal = self._storage is None
            target = optuna.storages.JournalStorage(self._lines) if journal else self._storage
            self._target = optuna.storages.get_storage(target)
        metric = metrics_of().primary
        study = optuna.create_study(
            storage=self._target, study_name=name, direction=metric.direction, load_if_exists=True
        )
        if OWNER not in study.user_attrs:
            study.set_user_attr(OWNER, self._plan.study)
            study.set_user_attr("cell", dict(self._plan.cells[cell].factors))
            study.set_user_attr("objective", metric.title)
            with warnings.catch_warnings():
                # Experimental in Optuna: the dashboard calls it "Objective 0" otherwise.
                warnings.simplefilter("ignore")
                study.set_metric_names([metric.title])
        for trial in study.get_trials(deepcopy=False):
            self._copied.add((trial.user_attrs.get("id", ""), trial.user_attrs.get("status", "")))
        self._studies[name] = study

    def _distributions_of(self, cell: int) -> dict[str, BaseDistribution]:
        """Return lr's and wd's distribution in a cell: the range drawn from, else the span of the listed values."""
        from optuna.distributions import FloatDistribution

        if cell not in self._distributions:
            own: dict[str, BaseDistribution] = {}
            for name in DRAWN:
                values = [trial.point[name] for trial in self._plan.by_cell[cell]]
                low, high = self._plan.cells[cell].ranges.get(name) or (min(values), max(values))
                is_log = self._plan.cells[cell].scales.get(name, "log") == "log"
                own[name] = FloatDistribution(low, high, log=is_log and low > 0)
            self._distributions[cell] = own
        return self._distributions[cell]


def frozen_trial(trial: Trial, record: Record, distributions: Mapping[str, BaseDistribution]) -> FrozenTrial:
    """Return a planned trial and its record as Optuna has trials.

    A diverged trial becomes a pruned one without a value, so that it does not look like a failed one.
    (As complete with the value inf it breaks the dashboard's charts, whose browser code takes "inf" for a label.)

    Args:
        trial: the planned trial.
        record: its record, of any status.
        distributions: of the cell's lr and wd.
    """
    import optuna

    states = {"completed": "COMPLETE", "diverged": "PRUNED", "failed": "FAIL"}
    status, result, provenance = record.status, record.result, record.provenance
    complete = _local(provenance.end) or datetime.now()
    attributes = {"diverged_step": result.diverged_step, "exception": result.exception}
    return optuna.trial.FrozenTrial(
        number=-1,
        trial_id=-1,
        state=optuna.trial.TrialState[states[status]],
        value=result.value(metrics_of().primary.key) if status == "completed" else None,
        datetime_start=_local(provenance.start) or complete,
        datetime_complete=complete,
        params={name: trial.point[name] for name in distributions},
        distributions=dict(distributions),
        user_attrs={
            "id": trial.id,
            "number": trial.number,
            "seed": trial.seed,
            "status": status,
            **{name: value for name, value in attributes.items() if value is not None},
        },
        system_attrs={},
        intermediate_values=_errors_by_epoch(result),
    )


def _errors_by_epoch(result: Result) -> dict[int, float]:
    """Return the primary metric after each epoch, of the weights that the recipe evaluates."""
    found = {row.epoch: row.evaluated(metrics_of().primary) for row in result.rows}
    return {epoch: value for epoch, value in found.items() if value is not None}


def _local(time: str | None) -> datetime | None:
    """Return ISO 8601 in UTC as Optuna keeps times: local, without a zone; None for what is no such time."""
    try:
        return datetime.fromisoformat(time).astimezone().replace(tzinfo=None) if time else None
    except (ValueError, OverflowError):
        return None


class _Lines:
    """What an Optuna journal holds, in memory: the file is written whole, so that it needs no lock and has no torn end.

    A backend of optuna.storages.JournalStorage by its two methods.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []

    def append_logs(self, logs: list[dict[str, Value]]) -> None:
        """Keep entries as the lines that Optuna's own file backend would write."""
        self._lines += [json.dumps(log, separators=(",", ":")) for log in logs]

    def read_logs(self, log_number_from: int) -> list[dict[str, Value]]:
        """Return the entries from a number on."""
        return [json.loads(line) for line in self._lines[log_number_from:]]

    def write(self, path: Path) -> None:
        """Write the journal, whole or not at all."""
        write_text(path, "".join(f"{line}\n" for line in self._lines))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna from telling of every study that it makes."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
