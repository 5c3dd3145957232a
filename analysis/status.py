"""Tell how a study stands: planned, running, completed, diverged and failed trials per cell, and what to type next.

    python -m analysis.status runs/quick
    python -m analysis.status runs            every study in it

Reads the manifest, the records and who holds a claim; changes nothing, and may be said while the study runs.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.command import Parser, run
from analysis.screen import headline, print_table
from stability.errors import UserError
from stability.records import (
    ENDED,
    MANIFEST,
    cell_label,
    is_claimed,
    read_manifest,
    read_record,
    studies,
    trial_directory,
)
from stability.words import duration

PROGRAM = "analysis.status"
# What a planned trial can be; `missing` is neither ended nor running, whether or not a command is at work.
STATES = ("completed", "diverged", "failed", "running", "missing")
# So many failed trials are listed; the rest is counted.
LISTED = 10


@dataclass(frozen=True)
class Trial:
    """A planned trial and what has become of it."""

    id: str
    cell: int
    lr: float
    wd: float
    seed: int
    state: str
    record: Mapping[str, Any] | None


@dataclass(frozen=True)
class Study:
    """A study as its files tell it."""

    directory: Path
    manifest: Mapping[str, Any]
    trials: tuple[Trial, ...]

    @property
    def planned(self) -> Counter[int]:
        """Trials planned in each cell, those included whose points TPE has yet to choose."""
        planned = Counter(trial.cell for trial in self.trials)
        if self.manifest.get("sampler", {}).get("name") == "tpe":
            for cell in range(len(self.manifest["cells"])):
                planned[cell] = max(planned[cell], self.manifest.get("samples") or 0)
        return planned

    def counts(self, cell: int | None = None) -> dict[str, int]:
        """Return how many trials (of one cell) are planned, and how many are in each of STATES."""
        states = Counter(trial.state for trial in self.trials if cell is None or trial.cell == cell)
        planned = sum(self.planned.values()) if cell is None else self.planned[cell]
        counts = {state: states[state] for state in STATES}
        counts["missing"] = planned - sum(states[state] for state in STATES[:-1])
        return {"planned": planned, **counts}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. Raises UserError where there is nothing to tell of."""
    parser = Parser(prog=f"python -m {PROGRAM}", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUNS", help="a study's folder, or a folder of them")
    folders = [folder for path in parser.parse(arguments).runs for folder in study_folders(path)]
    for number, folder in enumerate(dict.fromkeys(folders)):
        if number:
            print()
        show(read_study(folder))
    return 0


def study_folders(path: Path) -> list[Path]:
    """Return the study folders that `path` names. Raises UserError where it is no folder or holds no study."""
    if not path.is_dir():
        raise UserError(f"no such folder: {path}{_beside(path)}; accepted: a study's folder, as runs/quick")
    found = list(studies(path))
    if not found:
        raise UserError(f"{path} holds no study; accepted: a folder with {MANIFEST}, or a folder of such folders")
    return found


def _beside(path: Path) -> str:
    """Return the near miss of a folder that is not there, as `(did you mean runs/quick?)`."""
    from stability.errors import nearest

    parent = path.parent
    names = [one.name for one in parent.iterdir() if one.is_dir()] if parent.is_dir() else []
    return nearest(str(path), [str(parent / name) for name in names])


def read_study(folder: Path) -> Study:
    """Return the study in `folder`. Raises UserError where its manifest or a record cannot be read."""
    manifest = read_manifest(folder)
    assert manifest is not None
    return Study(folder, manifest, tuple(_read_trial(folder, planned) for planned in manifest["trials"]))


def _read_trial(folder: Path, planned: Mapping[str, Any]) -> Trial:
    directory = trial_directory(folder, planned["id"])
    record = read_record(directory)
    state = record["status"] if record else "missing"
    # A failed trial may be at its next attempt; one that has ended may still hold its claim for a moment.
    if state not in ENDED and is_claimed(directory):
        state = "running"
    point = {name: planned[name] for name in ("id", "cell", "lr", "wd", "seed")}
    return Trial(**point, state=state, record=record)


def show(study: Study) -> None:
    """Print how a study stands."""
    print(f"{study.manifest['study']}: {summary(study.counts())}")
    print(f"time left: {time_left(study)}\n" if study.counts()["missing"] or study.counts()["running"] else "")
    rows = []
    for index, cell in enumerate(study.manifest["cells"]):
        rows.append([cell_label(cell["factors"]), *map(str, study.counts(index).values())])
    rows.append(["in all", *map(str, study.counts().values())])
    print_table(["cell", "planned", *STATES], rows, words=1, total=True)
    _show_failed(study)
    print(f"\nnext: {next_step(study)}")


def summary(counts: Mapping[str, int]) -> str:
    """Return in words how complete a study is."""
    ended = counts["completed"] + counts["diverged"]
    results = f"{counts['completed']} completed, {counts['diverged']} diverged"
    if ended == counts["planned"]:
        return f"complete: all {ended} trials have ended ({results})"
    open_ones = ", ".join(f"{counts[state]} {state}" for state in ("running", "failed", "missing") if counts[state])
    return f"PARTIAL: {ended} of {counts['planned']} trials have ended ({results}); {open_ones}"


def time_left(study: Study) -> str:
    """Return in words how long what is missing will take, by the times of the trials that have ended."""
    counts = study.counts()
    seconds = _mean_seconds(study)
    needed = [cell for cell in study.planned if _open(study, cell)]
    if any(cell not in seconds for cell in needed):
        untold = sum(cell not in seconds for cell in needed)
        return f"not known: nothing has ended yet in {untold} of {len(study.planned)} cells"
    # A trial that runs is taken to be half done.
    work = sum(seconds[cell] * _open(study, cell) for cell in needed)
    if not counts["running"]:
        return f"nobody is at work; {duration(work)} of training are missing"
    return f"about {duration(work / counts['running'])}, {counts['running']} at a time"


def _open(study: Study, cell: int) -> float:
    counts = study.counts(cell)
    return counts["missing"] + counts["running"] / 2


def _mean_seconds(study: Study) -> dict[int, float]:
    """Return the mean time of a trial of each cell that has ended trials."""
    times: dict[int, list[float]] = {}
    for trial in study.trials:
        seconds = trial.record["provenance"].get("seconds") if trial.record and trial.state in ENDED else None
        if seconds is not None:
            times.setdefault(trial.cell, []).append(seconds)
    return {cell: sum(values) / len(values) for cell, values in times.items()}


def _show_failed(study: Study) -> None:
    failed = [trial for trial in study.trials if trial.state == "failed"]
    if not failed:
        return
    print("\nfailed:")
    for trial in failed[:LISTED]:
        assert trial.record is not None
        attempts = trial.record["provenance"].get("attempts", 1)
        words = cell_label(study.manifest["cells"][trial.cell]["factors"])
        print(f"  {trial.id}  {words} lr={trial.lr:g} wd={trial.wd:g} seed={trial.seed}, attempt {attempts}:")
        print(f"    {headline(trial.record['result'].get('exception'))}")
    if len(failed) > LISTED:
        print(f"  and {len(failed) - LISTED} more")
    print(f"what happened: python -m analysis.trial {shlex.quote(str(study.directory))} {failed[0].id}")


def next_step(study: Study) -> str:
    """Return what to type next."""
    counts, folder = study.counts(), shlex.quote(str(study.directory))
    if counts["running"]:
        return f"wait, or python -m analysis.edf {folder} for what has ended"
    if counts["missing"] or counts["failed"]:
        commands = study.manifest.get("commands", [study.manifest["command"]])
        if len(commands) == 1:
            return f"{commands[0]}   ({_what_it_does(counts)})"
        return "\n".join([f"each of these commands   (together: {_what_it_does(counts)})", *commands])
    return f"python -m analysis.edf {folder}"


def _what_it_does(counts: Mapping[str, int]) -> str:
    again = "tries what failed once more" if counts["failed"] else ""
    missing = "trains what is missing" if counts["missing"] else ""
    return " and ".join(filter(None, (missing, again)))


if __name__ == "__main__":
    run(PROGRAM, main)
