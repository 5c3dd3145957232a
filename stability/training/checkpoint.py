"""A trial's checkpoint, read: all that the trial needs to continue to the same result.

It holds tensors and plain values only. A file of a study may come from anybody: reading it runs none of its code.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from stability.study.shape import parse
from stability.training.checkpoint_file import (
    COUNT,
    NAME,
    NEXT_NAME,
    VERSION,
    WITH_OBJECTS,
    State,
    count_values,
    file_version,
    log,
)
from stability.training.member import Progress, Sums

# What the first files of version 1 do not have, and what stands for it.
LATER: dict[str, Any] = {"right": None, "probes": ()}


def read_checkpoints(
    directory: Path,
    identifier: str,
    *,
    trusts: bool = False,
    check: Callable[[Progress], str | None] | None = None,
) -> dict[int, State | None]:
    """Return the states that the trial in `directory` can continue from, by optimizer step, tensors on the CPU.

    One or two: that of the standing checkpoint, or {0: None}, a fresh start, where there is none; and that of the next
    checkpoint, which a pack was writing when it was cut off. A file that cannot be read, has a part missing, or is of
    another version or another trial, is skipped with a line in the log: it costs time, but no result changes.

    Args:
        directory: the trial's folder.
        identifier: the trial's id.
        trusts: whether objects of any class are read, which runs what code the file names (training.trust_files).
        check: returns in words what of a file's progress cannot be the trial's, None where all can
            (`Member.misfit`); None: nothing is checked.
    """
    standing, following = (_read(directory / name, identifier, trusts, check) for name in (NAME, NEXT_NAME))
    found: dict[int, State | None] = {} if standing is not None else {0: None}
    return found | {state["progress"].step: state for state in (standing, following) if state is not None}


def _read(
    path: Path, identifier: str, trusts: bool, check: Callable[[Progress], str | None] | None = None
) -> State | None:
    if not path.exists():
        return None
    try:
        content = _load(path, trusts)
        found = (content["version"], content["id"])
        wanted = [(file_version(one), identifier) for one in (VERSION, WITH_OBJECTS)]
        if found not in wanted:
            log.warning("%s is of version and trial %s, not %s: the trial starts afresh", path, found, wanted[0])
            return None
        state = _state(content)
        problem = None if check is None else check(state["progress"])
        if problem is not None:
            log.warning("%s holds %s: the trial starts afresh", path, problem)
            return None
        return state
    # Whatever fails here, the trial can start afresh.
    except Exception as error:
        words = _foreign(path) or f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        log.warning("%s cannot be read (%s): the trial starts afresh", path, words)
        return None


def _load(path: Path, trusts: bool) -> dict[str, Any]:
    """Return what a file holds. Raises what torch raises, for a class that is not allowed too; ValueError or what
    zipfile raises where bytes have changed since it was written: torch does not look at the checksums.
    """
    import torch

    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"{damaged} is not as it was written")
    # Of version 1.
    with torch.serialization.safe_globals([Progress, Sums]):
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=not trusts)
    return content


def _foreign(path: Path) -> str | None:
    """Return in words which classes a file holds that are not read; None where that is not its trouble."""
    import torch

    try:
        with torch.serialization.safe_globals([Progress, Sums]):
            classes = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:
        return None
    if not classes:
        return None
    return f"it holds {', '.join(classes)}; training.trust_files=true reads it and runs the code that it names"


def _state(content: dict[str, Any]) -> State:
    """Return the state that a file holds.

    Raises KeyError, ValueError or UserError where a part is missing or of another kind.
    """
    progress = content["progress"]
    if isinstance(progress, Progress):
        # Of version 1. What the object itself does not have, its class would give: a default.
        own, sums = LATER | vars(progress), LATER | vars(progress.sums)
    else:
        own, sums = progress, progress["sums"]
    values = {field.name: own[field.name] for field in fields(Progress)}
    values["sums"] = {field.name: sums[field.name] for field in fields(Sums)}
    found = count_values(content["optimizer"])
    if content.get(COUNT, found) != found:
        raise ValueError(f"an optimizer's state of {found} values, of which {content[COUNT]} were written")
    return {
        # The curve as it was: an epoch's number stays an integer.
        "progress": replace(parse(Progress, values, "progress"), curve=list(values["curve"])),
        "model": dict(content["model"]),
        "optimizer": dict(content["optimizer"]),
        "ema": None if content["ema"] is None else dict(content["ema"]),
        # Files of earlier versions have no such entry.
        "best": None if content.get("best") is None else dict(content["best"]),
    }


def of_one_step(states: Sequence[Mapping[int, State | None]]) -> list[dict[int, int]]:
    """Part members by the step that they continue from, given the states of each by step: {place: step}, each.

    One group where there is a step that all can continue from; else one for each last step.
    """
    common = set.intersection(*map(set, states))
    if common:
        return [dict.fromkeys(range(len(states)), max(common))]
    groups: dict[int, dict[int, int]] = {}
    for place, own in enumerate(states):
        groups.setdefault(max(own), {})[place] = max(own)
    return [groups[step] for step in sorted(groups, reverse=True)]
