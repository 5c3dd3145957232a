"""Records as plain values, for the processes that train; everything else reads `stability.study.store`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stability.study import store
from stability.study.claims import LOCK, Claim, attempts_begun, claim, is_claimed
from stability.study.identity import RESULTS_VERSION, results_version, trial_id
from stability.study.schema import ENDED, STATUSES, Record, cell_label
from stability.study.store import read_json, to_json, trial_directory, write_record

__all__ = [
    "ENDED",
    "LOCK",
    "RESULTS_VERSION",
    "STATUSES",
    "Claim",
    "attempts_begun",
    "cell_label",
    "claim",
    "failures",
    "is_claimed",
    "read_record",
    "results_version",
    "to_json",
    "trial_directory",
    "trial_id",
    "write_record",
]


def read_record(directory: Path) -> dict[str, Any] | None:
    """Return the record of the trial in `directory`, or None where it has not ended.

    Raises:
        UserError: the file is there and holds no record.
    """
    return None if store.read_record(directory) is None else read_json(directory)


def failures(record: Mapping[str, Any] | None) -> int:
    """Return how often a trial has failed, by its record. Attempts that were cut off are no failures."""
    return 0 if record is None else Record.from_json(record, "a record").failures
