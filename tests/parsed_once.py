"""Hydra reads a dozen YAML files for each composition; the tests compose two thousand times: each file is read once."""

from __future__ import annotations

import copy
import io
import os
from collections.abc import Callable
from typing import Any

Key = tuple[str, int, int]


def parsed_once(load: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return OmegaConf's `load` with a memory of what it returned for a file, until the file changes."""
    known: dict[Key, Any] = {}

    def remembering(file: Any) -> Any:
        name = getattr(file, "name", None)
        # Hydra hands open files over; what is called by its path is read as it is.
        if not isinstance(file, io.IOBase) or not isinstance(name, str):
            return load(file)
        status = os.stat(name)
        key = (name, status.st_mtime_ns, status.st_size)
        if key not in known:
            known[key] = load(file)
        return copy.deepcopy(known[key])

    return remembering
