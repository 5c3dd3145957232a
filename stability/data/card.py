"""The configurations that a Hugging Face set names in its README.md: which files are which split."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import yaml

from stability.config import DataConfig
from stability.errors import UserError
from stability.values import Value
from stability.words import some

CARD = "README.md"
FENCE = "---"
# Files that the card names without a split are of this one.
TRAIN = "train"


@dataclass(frozen=True)
class Configuration:
    """One of a set's configurations."""

    name: str
    is_default: bool
    # The folder that its files are in, relative to the set's.
    folder: str
    # Patterns of files by split, relative to `folder`; None: splits are told from the files' names.
    patterns: Mapping[str, tuple[str, ...]] | None


def chosen(root: Path, data: DataConfig) -> tuple[Configuration | None, tuple[str, ...]]:
    """Return the configuration of data.subset, else the default one; and the names of the others.

    None where the set names none, or none that is called data.subset.

    Raises:
        UserError: the card cannot be read, or there are several and no default.
    """
    known = {one.name: one for one in _configurations(root)}
    if data.subset is not None:
        found = known.get(data.subset)
    elif len(known) > 1:
        default = [one for one in known.values() if one.is_default] or [
            known[name] for name in known if name == "default"
        ]
        if not default:
            names = some(sorted(known), 8)
            raise UserError(f"{root / CARD} names several configurations: {names}; accepted: data.subset={min(known)}")
        found = default[0]
    else:
        found = next(iter(known.values()), None)
    return found, tuple(name for name in known if found is None or name != found.name)


def names_files(root: Path) -> bool:
    """Tell whether a set's card has a configuration that names files."""
    return any(one.patterns is not None for one in _configurations(root))


def files_by_split(root: Path, own: Configuration) -> dict[str, list[Path]]:
    """Return the Parquet files that a configuration names, by split, relative to the set's folder.

    Args:
        root: the set's folder.
        own: a configuration with patterns.

    Raises:
        UserError: a pattern matches no file, or a file that is no Parquet file.
    """
    assert own.patterns is not None
    found: dict[str, list[Path]] = {}
    for split, patterns in own.patterns.items():
        found[split] = sorted({file for pattern in patterns for file in _matches(root, own, split, pattern)})
    return found


def _matches(root: Path, own: Configuration, split: str, pattern: str) -> list[Path]:
    import fsspec

    where = f"{root / CARD}: configuration {own.name!r} names {pattern} for the {split} split"
    if "://" in pattern or pattern.startswith("/") or ".." in PurePosixPath(pattern).parts:
        raise UserError(f"{where}, which does not lie in its folder; accepted: files under {root}")
    below = PurePosixPath(own.folder) / pattern
    paths = fsspec.filesystem("file").glob(f"{glob.escape(str(root))}/{below}")
    files = [Path(path).relative_to(root) for path in sorted(paths) if Path(path).is_file()]
    files = [file for file in files if not _is_hidden(file) or _is_hidden(Path(below))]
    if not files:
        raise UserError(f"{where}, and no file is called so; accepted: files under {root}, or data.path=PATTERN")
    strange = next((file for file in files if file.suffix != ".parquet"), None)
    if strange is not None:
        raise UserError(f"{where}: {strange} is no Parquet file; accepted: .parquet")
    return files


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "__")) for part in path.parts)


def _configurations(root: Path) -> list[Configuration]:
    path = root / CARD
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").lstrip("\ufeff").splitlines()
    if not lines or lines[0].strip() != FENCE:
        return []
    end = next((place for place, line in enumerate(lines[1:], 1) if line.strip() == FENCE), 1)
    head = lines[1:end]
    if not any(line.startswith("configs:") for line in head):
        return []
    try:
        listed = yaml.safe_load("\n".join(head))["configs"]
        return [_configuration(one) for one in listed or ()]
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
        words = " ".join(str(error).split())
        raise UserError(f"configs of {path} cannot be read: {words}; accepted: config_name and data_files") from error


def _configuration(given: Mapping[str, Value]) -> Configuration:
    folder, files = given.get("data_dir"), given.get("data_files")
    return Configuration(
        name=str(given["config_name"]),
        is_default=given.get("default") is True,
        folder="." if folder is None else str(folder),
        patterns=None if files is None else _patterns(files),
    )


def _patterns(given: Value) -> dict[str, tuple[str, ...]]:
    """Return patterns by split; those without a split are of the training split."""
    if isinstance(given, str):
        return {TRAIN: (given,)}
    if not isinstance(given, Sequence):
        raise ValueError(f"data_files is {given!r}")
    words = [one for one in given if isinstance(one, str)]
    if words and len(words) == len(given):
        return {TRAIN: tuple(words)}
    found: dict[str, tuple[str, ...]] = {}
    for one in given:
        if not isinstance(one, Mapping) or {"split", "path"} - one.keys():
            raise ValueError(f"{one!r} has no split and path")
        path = one["path"]
        paths = tuple(map(str, path)) if isinstance(path, (list, tuple)) else (str(path),)
        found[str(one["split"])] = (*found.get(str(one["split"]), ()), *paths)
    return found
