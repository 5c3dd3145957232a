"""Trials that failed with the texts of their exceptions, each text once, and records that cannot be read."""

from __future__ import annotations

from typing import NamedTuple

from analysis.analysis import Analysis
from analysis.report.names import point_words
from analysis.results import CellResults, TrialResult, describe, varied
from analysis.screen import headline
from analysis.selection import ALL_SHOWN

# A page holds so many different texts, so many trials of each by name, and of each text so many characters.
MOST_TEXTS, MOST_NAMED, MOST_LETTERS = ALL_SHOWN, ALL_SHOWN, 20_000


class Failure(NamedTuple):
    """An exception's text, its first line, and the trials that ended with it, as many as are named."""

    headline: str
    text: str
    trials: list[str]
    number: int


class Failures(NamedTuple):
    """What went wrong; `left_out` counts the trials whose texts are not on the page."""

    failed: list[Failure]
    unreadable: list[str]
    left_out: int

    @property
    def number(self) -> int:
        """How many trials failed or cannot be read."""
        return sum(one.number for one in self.failed) + self.left_out + len(self.unreadable)


def failures(analysis: Analysis) -> Failures:
    """Return the failures of all cells, those that are not shown included."""
    every = [(cell, trial) for cell in analysis.cells for trial in (*cell.trials, *cell.after)]
    by_text: dict[str, list[tuple[CellResults, TrialResult]]] = {}
    for cell, trial in every:
        if trial.status == "failed" and trial.record:
            by_text.setdefault(trial.record.result.exception or "", []).append((cell, trial))
    factors = varied(analysis.cells)
    found = [
        Failure(
            headline(text),
            _shortened(text),
            [_named(cell, trial, factors) for cell, trial in own[:MOST_NAMED]],
            len(own),
        )
        for text, own in by_text.items()
    ]
    unreadable = [trial.problem for _, trial in every if trial.problem is not None]
    unreadable += [trial.correctness_problem for _, trial in every if trial.correctness_problem is not None]
    return Failures(found[:MOST_TEXTS], unreadable, sum(one.number for one in found[MOST_TEXTS:]))


def _named(cell: CellResults, trial: TrialResult, factors: list[str]) -> str:
    attempt = (trial.record.provenance.attempts if trial.record else None) or 1
    return f"{trial.id}: {describe(cell, factors)}, {point_words(trial)}, attempt {attempt}"


def _shortened(text: str) -> str:
    """Return a text whose middle is left out where it is very long: the cause stands at its end."""
    if len(text) <= MOST_LETTERS:
        return text
    half = MOST_LETTERS // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters are left out ...\n{text[-half:]}"
