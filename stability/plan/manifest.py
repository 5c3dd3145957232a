"""The study's manifest: what is planned, how it may grow, and which changes of existing cells are refused."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from stability.config import TrialConfig, identity, parse_trial, to_dict
from stability.errors import StudyError, UserError, unknown
from stability.factors import MISSING, differing_keys, factor_name, factor_value, flattened, held
from stability.plan.cells import FACTORS, CellPlan, Plan, describe
from stability.samplers import SHIPPED
from stability.study.identity import RESULTS_VERSION, results_version
from stability.study.schema import GRID, Cell, Contrast, Manifest, SamplerInfo, Scalar
from stability.study.shape import parse
from stability.study.store import read_manifest, write_manifest
from stability.values import COORDINATES, Options, Value, group

VERSION = 1
# Held while the manifest is read, grown and written.
LOCK = ".study.lock"
# The manifest is read, grown and written in less: then its lock is a dead command's.
LONGEST_GROWTH = 60.0


@dataclass(frozen=True)
class Command:
    """The command that a plan was made from: as typed in a shell, and its overrides."""

    line: str
    overrides: tuple[str, ...]


def study_directory(plan: Plan) -> Path:
    """Return the folder of a plan's study. Raises UserError where it cannot be a folder."""
    name = plan.study
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}", name):
        raise UserError(
            f"study={name!r}; accepted: a name of letters, digits and . _ + - that begins with a letter or digit"
        )
    runs = Path(os.path.expanduser(plan.config.runs))
    existing = next(path for path in (runs / name, *(runs / name).absolute().parents) if path.exists())
    if not existing.is_dir():
        raise UserError(f"{existing} is no folder; accepted: runs=FOLDER study=NAME to write elsewhere")
    if not os.access(existing, os.W_OK):
        raise UserError(f"{existing} cannot be written to; accepted: runs=FOLDER to write elsewhere")
    return runs / name


def build(
    plan: Plan, command: Command, fingerprints: Sequence[str] | None, packs: Sequence[Sequence[str]] = ()
) -> Manifest:
    """Return the manifest of a new study.

    Args:
        plan: cells and trials.
        command: what the user ran.
        fingerprints: of each cell's data; None: the data has not been read.
        packs: ids of the trials that train together.
    """
    fingerprints = fingerprints or [""] * len(plan.cells)
    contrast = _contrast(plan)
    cells = [_cell(cell, fingerprint) for cell, fingerprint in zip(plan.cells, fingerprints, strict=True)]
    return Manifest(
        version=VERSION,
        results_version=RESULTS_VERSION,
        study=plan.study,
        command=command.line,
        commands=(command.line,),
        overrides=command.overrides,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        sampler=_sampler(plan),
        samples=plan.config.samples,
        fingerprint=fingerprints[0],
        data=group(cells[0].config, "data"),
        cells=tuple(cells),
        trials=plan.trials,
        packs=several(packs),
        contrast=contrast,
    )


def _contrast(plan: Plan) -> Contrast | None:
    """Return the comparison that a study is made for. Raises UserError where its cells do not have it."""
    given = plan.config.contrast
    if given is None:
        return None
    found = parse(Contrast, given, "contrast")
    values = [cell.factors.get(found.factor) for cell in plan.cells]
    names = sorted({name for cell in plan.cells for name in cell.factors})
    if found.factor not in names:
        raise unknown("contrast.factor", found.factor, names)
    missing = [value for value in found.values if value not in values]
    if missing and len(set(values)) > 1:
        known = [str(one) for one in dict.fromkeys(values)]
        raise unknown(f"contrast.values of {found.factor}", str(missing[0]), known)
    # A command that trains other cells of a study's file says nothing of the comparison; one that trains a side of it
    # declares it for the cells to come.
    return None if len(missing) == len(found.values) else found


def _sampler(plan: Plan) -> SamplerInfo:
    """Return a sampler as the manifest holds it: a shipped one by its name and seed alone."""
    name, seed, sampler = plan.sampler_name, plan.config.sweep.seed, plan.sampler
    if sampler is None or name in SHIPPED:
        return SamplerInfo(name, seed)
    return SamplerInfo(name, seed, sampler.words, sampler.is_independent, sampler.needs_results)


def several(packs: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """Return the packs of more than one trial."""
    return tuple(tuple(pack) for pack in packs if len(pack) > 1)


def _cell(cell: CellPlan, fingerprint: str) -> Cell:
    return Cell(
        factors=dict(cell.factors),
        ranges={name: ends if ends else None for name, ends in cell.ranges.items()},
        scales=dict(cell.scales),
        fingerprint=fingerprint,
        results_version=results_version(cell.config),
        choices=dict(cell.choices),
        # Each trial has a point of its own.
        config={name: value for name, value in to_dict(cell.config).items() if name not in COORDINATES},
    )


def grow(standing: Manifest | None, planned: Manifest) -> Manifest:
    """Return the manifest of a study after a command that plans `planned`: `standing` with what is new in it.

    A key in which cells come to differ becomes a factor of all cells, whether or not a command varied it.

    Raises:
        UserError: the command changes what existing cells hold fixed; the message names key, old and new value.
    """
    if standing is None:
        return replace(planned, cells=_distinguished(planned.cells))
    _refuse_version(standing.study, standing.results_version, planned.results_version)
    _refuse(standing.study, "sampler", standing.sampler.name, planned.sampler.name)
    if planned.sampler.name != GRID:
        _refuse(standing.study, "sweep.seed", standing.sampler.seed, planned.sampler.seed)
    # All trials of a study see one stream of batches.
    before, after = (group(manifest.cells[0].config, "data").get("seed") for manifest in (standing, planned))
    _refuse(standing.study, "data.seed", before, after)
    cells, moved = _merged_cells(standing, planned)
    known = {trial.id for trial in standing.trials}
    fresh = tuple(replace(trial, cell=moved[trial.cell]) for trial in planned.trials if trial.id not in known)
    # Existing packs stay as they are; new trials get new packs.
    packs = [[identifier for identifier in pack if identifier not in known] for pack in planned.packs]
    grown = replace(
        standing,
        # Without new cells, the factors do not change.
        cells=standing.cells if tuple(cells) == standing.cells else _distinguished(cells),
        trials=standing.trials + fresh,
        packs=several([*standing.packs, *packs]),
        samples=max(planned.samples or 0, standing.samples or 0) or None,
        contrast=standing.contrast or planned.contrast,
    )
    return grown if grown == standing else _commanded(grown, standing, planned)


def _merged_cells(standing: Manifest, planned: Manifest) -> tuple[list[Cell], dict[int, int]]:
    """Return the cells of both, and where each planned cell stands among them."""
    names = _factor_names(standing, planned)
    cells = [replace(cell, factors=_refactored(cell, names)) for cell in standing.cells]
    places = {describe(cell.factors): place for place, cell in enumerate(cells)}
    moved = {}
    for index, cell in enumerate(planned.cells):
        new = replace(cell, factors=_refactored(cell, names))
        place = places.setdefault(describe(new.factors), len(cells))
        if place == len(cells):
            cells.append(new)
        else:
            _check_same(standing.study, cells[place], new)
        moved[index] = place
    return cells, moved


def _commanded(grown: Manifest, standing: Manifest, planned: Manifest) -> Manifest:
    """Return a grown manifest with the commands that together train all of it."""
    samples = {trial.id for trial in standing.trials if trial.role == "sample"}
    asks_for_all = samples <= {trial.id for trial in planned.trials}
    before = () if asks_for_all else standing.all_commands
    commands = tuple(dict.fromkeys([*before, planned.command]))
    return replace(grown, command=planned.command, commands=commands, overrides=planned.overrides)


def _distinguished(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """Return cells with a new factor for each key that differs among them without one."""
    keys = differing_keys([(cell.factors, held(cell.config)) for cell in cells])
    named = dict.fromkeys(name for cell in cells for name in cell.factors)
    choices = [cell.choices for cell in cells]
    names = list(named | dict.fromkeys(factor_name(key, choices, named) for key in keys))
    return tuple(replace(cell, factors=_refactored(cell, names)) for cell in cells)


def _factor_names(*manifests: Manifest) -> list[str]:
    """Return every factor of several manifests: what was not varied before may be now."""
    names = dict.fromkeys(FACTORS)
    for manifest in manifests:
        for cell in manifest.cells:
            names |= dict.fromkeys(cell.factors)
    return list(names)


def _refactored(cell: Cell, names: Sequence[str]) -> dict[str, Scalar]:
    """Return a cell's value of every factor of the study, including factors that are new."""
    return {name: cell.factors[name] if name in cell.factors else _value(cell, name) for name in names}


def _value(cell: Cell, name: str) -> Scalar:
    value = factor_value(name, cell.choices, cell.config)
    return None if value is MISSING else value


def _check_same(study: str, old: Cell, new: Cell) -> None:
    """Refuse a change of what an existing cell holds fixed: its configuration, its ranges, its data."""
    kept = ("config", "ranges", "scales", "results_version")
    if all(getattr(old, name) == getattr(new, name) for name in kept) and not new.fingerprint:
        return
    words = f"{study!r} in {describe(old.factors)}"
    before, after = _fixed(old.config), _fixed(new.config)
    for key in sorted(before.keys() | after.keys()):
        # Of earlier studies, in which the recipes none and light gave lr for a batch of 64. A name that is made of the
        # command changes with it.
        own = f"{key}={before.get(key)} study={study}, which continues it" if key == "schedule.lr_batch" else ""
        _refuse(words, key, before.get(key), after.get(key), own)
    for name in old.ranges:
        _refuse(words, f"the range of {name}", _listed(old.ranges[name]), _listed(new.ranges.get(name)))
        _refuse(words, f"the scale of {name}", old.scales.get(name, "log"), new.scales.get(name, "log"))
    versions = (cell.results_version or RESULTS_VERSION for cell in (old, new))
    _refuse_version(words, *versions)
    if new.fingerprint:
        _refuse(words, "the data's fingerprint", old.fingerprint, new.fingerprint)


def _listed(ends: Sequence[float] | None) -> Value:
    return list(ends) if ends else "one value"


def _fixed(config: Options | TrialConfig) -> dict[str, Value]:
    """Return what decides a cell's results by dotted key, but for the coordinates of its points."""
    parsed = config if isinstance(config, TrialConfig) else parse_trial(config)
    flat = flattened(identity(parsed))
    kept = {key: value for key, value in flat.items() if key not in COORDINATES}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in kept.items()}


def _refuse_version(study: str, old: int, new: int) -> None:
    if old != new:
        raise UserError(
            f"study {study} holds results of version {old} of our numerics, and this is version {new}: not "
            "to be mixed; accepted: study=NAME for another study"
        )


def _refuse(study: str, key: str, old: Value, new: Value, accepted: str = "") -> None:
    """Refuse a change.

    Args:
        study: its name, and the cell's.
        key: what has changed.
        old: its value in the study.
        new: its value in the command.
        accepted: what continues the study, in words; empty: the old value.

    Raises:
        UserError: the values differ.
    """
    if old != new:
        raise UserError(
            f"study {study} holds {key} = {old}, and this command has {new}; "
            f"accepted: {accepted or old}, or study=NAME for another study"
        )


def places(manifest: Manifest, plan: Plan) -> list[int]:
    """Return where each cell of a plan stands in its study's manifest; -1 for one that is not in it yet."""
    names = list(manifest.cells[0].factors)
    standing = {describe(cell.factors): place for place, cell in enumerate(manifest.cells)}
    return [standing.get(describe(_refactored(_cell(cell, ""), names)), -1) for cell in plan.cells]


def settle(directory: Path, planned: Manifest) -> Manifest:
    """Write what `planned` adds to the study in `directory`, under its lock, and return the manifest.

    Where the command is refused, nothing is written and no folder is made.
    """
    grow(read_manifest(directory), planned)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        words = f"{directory} cannot be made: {error.strerror}"
        raise UserError(f"{words}; accepted: runs=FOLDER to write elsewhere") from error
    return change(directory, lambda standing: grow(standing, planned))


def change(directory: Path, make: Callable[[Manifest | None], Manifest]) -> Manifest:
    """Replace the manifest in `directory` by what `make` makes of it, under the study's lock, and return that."""
    with _locked(directory):
        standing = read_manifest(directory)
        manifest = make(standing)
        if manifest != standing:
            write_manifest(directory, manifest)
    return manifest


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    path = directory / LOCK
    try:
        file = open(path, "a")  # noqa: SIM115 - closed below
    except PermissionError:
        # Another user's: to lock it, reading is enough.
        file = open(path)  # noqa: SIM115
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            with _held_without_flock(path.with_name(f"{LOCK}.held"), error):
                yield
            return
        yield


@contextlib.contextmanager
def _held_without_flock(path: Path, reason: OSError) -> Iterator[None]:
    """Hold a lock where the file system has no flock (some NFS, Lustre): a file that only one process can make.

    Raises StudyError where it stands for LONGEST_GROWTH seconds: another command died while it held it.
    """
    deadline = time.monotonic() + LONGEST_GROWTH
    while True:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            break
        except FileExistsError:
            if time.monotonic() > deadline:
                raise StudyError(
                    f"{path} has stood for {LONGEST_GROWTH:g} seconds: another command that plans this study has died, "
                    f"and {path.parent} has no flock that would tell ({reason.strerror}); accepted: remove that file "
                    "where no other command of the study runs"
                ) from None
            time.sleep(0.05)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
