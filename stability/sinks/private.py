"""What a run leaves out before it leaves the machine: names of hosts and paths of the file system."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from stability.values import Options, Value

# A sign that ends a path, unless the path goes on behind it: `/a=b/c`, `/[a]/c`.
_INNER = r"[=,;(\[{](?=[^\s/:'\"]+/)|[)\]}](?=[^\s/:'\"]*/)"
# An absolute path or one in a home folder, wherever it stands in a text, also behind an option (`-I/usr/include`) and
# with several slashes (`//nas/share`); what follows :// (as in a URL) is none.
_PATH = re.compile(
    r"(?P<option>(?<![\w-])--?[A-Za-z]\w*(?=/))?(?(option)|(?<![\w./~\\-]))(?!(?<=:)//)"
    rf"(?:file://)?(?:~[\w.-]*)?(?:/+(?:[^\s/:'\",;=()\[\]{{}}<>|]|{_INNER})+)+/?"
)
# The user and password of a URL.
_LOGIN = re.compile(r"(?<=://)[^\s/'\"]+(?=@)")
_DRIVE = re.compile(r"(?<!\w)[A-Za-z]:\\[^\s'\",;=()\[\]{}<>|]*")
_SHARE = re.compile(r"\\\\[\w.-]+\\[^\s'\",;=()\[\]{}<>|]*")
# In quotes a path may hold anything but these.
_QUOTED = re.compile(r"(?<=['\"=])(?:file://)?(?:~|/|[A-Za-z]:[\\/])[^'\"]*(?=['\"])")
# Stands before the last part of a path, which says which data or file it was.
HIDDEN = "..."
# The key of a record's provenance that holds a command.
COMMAND = "command"


def without_paths(value: Value) -> Value:
    """Return plain values, every absolute path in a text cut to its last part: `/home/me/cifar` -> `.../cifar`.

    A URL loses its user and password.
    """
    if isinstance(value, str):
        value = _QUOTED.sub(_last_part, value)
        for own in (Path.cwd(), Path.home()):
            # They may hold spaces.
            if len(own.parts) > 1:
                value = value.replace(f"{own}{os.sep}", f"{HIDDEN}{os.sep}")
        for pattern in (_SHARE, _DRIVE, _PATH):
            value = pattern.sub(_last_part, value)
        return _LOGIN.sub(HIDDEN, value)
    if isinstance(value, Mapping):
        return {name: without_paths(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_paths(one) for one in value]
    return value


def without_host(record: Options) -> dict[str, Value]:
    """Return a record as it stands in its file, without the host that trained the trial."""
    origin = record.get("provenance")
    if not isinstance(origin, Mapping) or origin.get("host") is None:
        return dict(record)
    return {**record, "provenance": {**origin, "host": None}}


def without_command(record: Options) -> dict[str, Value]:
    """Return a record as it stands in its file, without the command whose jobs trained the trial."""
    origin = record.get("provenance")
    if not isinstance(origin, Mapping) or COMMAND not in origin:
        return dict(record)
    return {**record, "provenance": {name: value for name, value in origin.items() if name != COMMAND}}


def private(record: Options) -> dict[str, Value]:
    """Return a record without the host's name and without paths."""
    found = without_paths(without_host(record))
    assert isinstance(found, dict)
    return found


def _last_part(match: re.Match[str]) -> str:
    last = re.split(r"[/\\]", match.group().rstrip("/\\"))[-1]
    return f"{match.groupdict().get('option') or ''}{HIDDEN}/{last}"
