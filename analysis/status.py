"""Show how far a study is: planned, running, completed, diverged and failed trials per cell, and what to run next.

    python -m analysis.status runs/quick
    python -m analysis.status runs            every study in it

Reads the manifest, the records and the claims of running trials. It changes nothing and can run beside the study.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property

from analysis.command import Parser
from analysis.screen import headline, print_table
from stability.outputs import run
from stability.study.claims import is_claimed
from stability.study.schema import ENDED, Trial
from stability.study.store import UNREADABLE, Study, study_folders
from stability.words import duration, first_of

PROGRAM = "analysis.status"
RUNNING, MISSING = "running", "missing"
# States of a planned trial. `missing`: it has not ended, and no process holds its claim.
STATES = ("completed", "diverged", "failed", RUNNING, MISSING)


class StudySnapshot:
    """How far a study is: the state of every planned trial at one moment."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.states = {trial.id: self._state(trial) for trial in study.trials}

    def _state(self, trial: Trial) -> str:
        status = self.study.status(trial)
        # A failed trial may be in its next attempt. One that has ended may still hold its claim for a moment.
        if status in ENDED or status == UNREADABLE:
            return status
        if is_claimed(self.study.folder(trial)):
            return RUNNING
        return status if status == "failed" else MISSING

    @cached_property
    def _by_cell(self) -> list[Counter[str]]:
        by_cell = self.study.manifest.by_cell
        return [Counter(self.states[trial.id] for trial in trials) for trials in by_cell]

    @property
    def columns(self) -> tuple[str, ...]:
        """The states that have a column in the table: unreadable only where there is such a record."""
        return (*STATES, UNREADABLE) if self.study.unreadable else STATES

    def counts(self, cell: int | None = None) -> dict[str, int]:
        """Return how many trials (of one cell) are planned, and how many are in each state."""
        cells = range(len(self.study.cells)) if cell is None else [cell]
        states = Counter[str]()
        for one in cells:
            states += self._by_cell[one]
        planned = sum(map(self.study.manifest.planned, cells))
        counts = {state: states[state] for state in self.columns}
        # Including those whose points TPE has yet to choose.
        counts[MISSING] = planned - sum(states[state] for state in self.columns if state != MISSING)
        return {"planned": planned, **counts}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. Raises UserError where there is no study."""
    parser = Parser(PROGRAM, __doc__)
    parser.add_runs()
    folders = [folder for path in parser.parse(arguments).runs for folder in study_folders(path)]
    for number, folder in enumerate(dict.fromkeys(folders)):
        if number:
            print()
        show(StudySnapshot(Study.open(folder)))
    return 0


def show(snapshot: StudySnapshot) -> None:
    """Print how a study stands."""
    study, counts = snapshot.study, snapshot.counts()
    print(f"{study.name}: {summary(counts)}")
    print(f"time left: {time_left(snapshot)}\n" if counts[MISSING] or counts[RUNNING] else "")
    rows = []
    for index, cell in enumerate(study.cells):
        rows.append([cell.label, *map(str, snapshot.counts(index).values())])
    rows.append(["in all", *map(str, counts.values())])
    print_table(["cell", "planned", *snapshot.columns], rows, words=1, total=True)
    _show_failed(snapshot)
    _show_unreadable(study)
    print(f"\nnext: {next_step(snapshot)}")


def summary(counts: Mapping[str, int]) -> str:
    """Return in words how complete a study is."""
    ended = counts["completed"] + counts["diverged"]
    results = f"{counts['completed']} completed, {counts['diverged']} diverged"
    if ended == counts["planned"]:
        return f"complete: all {ended} trials have ended ({results})"
    states = (RUNNING, "failed", UNREADABLE, MISSING)
    open_ones = ", ".join(f"{counts[state]} {state}" for state in states if counts.get(state))
    return f"PARTIAL: {ended} of {counts['planned']} trials have ended ({results}); {open_ones}"


def time_left(snapshot: StudySnapshot) -> str:
    """Return in words how long the missing trials will take, by the mean time of those that have ended."""
    counts = snapshot.counts()
    seconds = _mean_seconds(snapshot)
    cells = range(len(snapshot.study.cells))
    needed = [cell for cell in cells if _open(snapshot, cell)]
    unknown = sum(cell not in seconds for cell in needed)
    if unknown:
        return f"not known: nothing has ended yet in {unknown} of {len(cells)} cells"
    # A running trial counts as half done.
    work = sum(seconds[cell] * _open(snapshot, cell) for cell in needed)
    if not counts[RUNNING]:
        return f"nobody is at work; {duration(work)} of training are missing"
    return f"about {duration(work / counts[RUNNING])}, {counts[RUNNING]} at a time"


def _open(snapshot: StudySnapshot, cell: int) -> float:
    counts = snapshot.counts(cell)
    return counts[MISSING] + counts[RUNNING] / 2


def _mean_seconds(snapshot: StudySnapshot) -> dict[int, float]:
    """Return the mean time of a trial of each cell that has ended trials."""
    times: dict[int, list[float]] = {}
    for trial in snapshot.study.trials:
        record = snapshot.study.record(trial)
        if record and record.has_ended and record.provenance.seconds is not None:
            times.setdefault(trial.cell, []).append(record.provenance.seconds)
    return {cell: sum(values) / len(values) for cell, values in times.items()}


def _show_failed(snapshot: StudySnapshot) -> None:
    study = snapshot.study
    failed = [trial for trial in study.trials if snapshot.states[trial.id] == "failed"]
    if not failed:
        return
    print("\nfailed:")
    _print_first([_failure(study, trial) for trial in failed])
    print(f"what happened: python -m analysis.trial {shlex.quote(str(study.directory))} {failed[0].id}")


def _failure(study: Study, trial: Trial) -> str:
    record = study.records[trial.id]
    point = f"lr={trial.lr:g} wd={trial.wd:g} seed={trial.seed}"
    where = f"{trial.id}  {study.cells[trial.cell].label} {point}, attempt {record.provenance.attempts or 1}:"
    return f"{where}\n    {headline(record.result.exception)}"


def _show_unreadable(study: Study) -> None:
    """Name the records that cannot be read: they count as neither ended nor missing."""
    if study.problems:
        print("\nunreadable:")
        _print_first(study.problems)


def _print_first(entries: Sequence[str]) -> None:
    for entry in first_of(entries):
        print(f"  {entry}")


def next_step(snapshot: StudySnapshot) -> str:
    """Return what to run next."""
    counts, folder = snapshot.counts(), shlex.quote(str(snapshot.study.directory))
    if counts[RUNNING]:
        return f"wait, or python -m analysis.edf {folder} for what has ended"
    effects = {
        MISSING: "trains what is missing",
        UNREADABLE: "trains again those whose records were moved away",
        "failed": "tries what failed once more",
    }
    does = " and ".join(words for state, words in effects.items() if counts.get(state))
    if not does:
        return f"python -m analysis.edf {folder}"
    first = "move the unreadable records away, then run\n" if counts.get(UNREADABLE) else ""
    commands = snapshot.study.manifest.all_commands
    if len(commands) == 1:
        return f"{first}{commands[0]}   ({does})"
    return "\n".join([f"{first}each of these commands   (together: {does})", *commands])


if __name__ == "__main__":
    run(PROGRAM, main)
