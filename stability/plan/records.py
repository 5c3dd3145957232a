"""The records that the next points of a cell are chosen from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stability.study.schema import Record, Trial
from stability.study.store import read_record, trial_directory


class EndedRecords:
    """A study's records. Those of trials that have ended do not change any more: each is read once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ended: dict[str, Record] = {}

    def of(self, trials: Sequence[Trial]) -> list[Record] | None:
        """Return the records of trials; None where a trial has none. Raises UserError where one cannot be read."""
        found = []
        for trial in trials:
            record = self._ended.get(trial.id) or read_record(trial_directory(self._directory, trial.id), trial)
            if record is None:
                return None
            if record.has_ended:
                self._ended[trial.id] = record
            found.append(record)
        return found
