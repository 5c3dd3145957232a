"""Read every image of a set before a study does: `python -m stability.data check data=imagefolder data.path=FOLDER`.

What cannot be read is named, and listed in unreadable.txt in the set's folder (data.unreadable=FILE: there), which
data.on_error=skip leaves out of every trial alike. Exit code 1 where there is any.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace

from stability.config import DataConfig, parse_trial
from stability.data.images import Images
from stability.data.overrides import data_overrides
from stability.data.sources import load
from stability.data.unreadable import check, list_path, write_list
from stability.errors import UserError
from stability.outputs import run
from stability.shipped import read

SHOWN = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a set; returns the exit code: 0 all can be read, 1 some cannot, 2 a mistake of the user's."""
    parser = argparse.ArgumentParser(
        prog="python -m stability.data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["check"])
    parser.add_argument("overrides", nargs="+", metavar="data.KEY=VALUE", help="as for a study: data=hf data.path=...")
    given = parser.parse_args(arguments)
    try:
        return _check(_configured(given.overrides))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


def _configured(overrides: Sequence[str]) -> DataConfig:
    """Return the data that overrides describe; other keys of a study are refused."""
    chosen, keys, others = data_overrides(overrides)
    if others:
        raise UserError(f"{others[0]!r}; accepted: data=NAME and data.KEY=VALUE")
    return parse_trial({"data": {**read("data", chosen or "digits"), **keys}}).data


def _check(data: DataConfig) -> int:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    # Whole splits: a subset's images are drawn from them.
    with tempfile.NamedTemporaryFile() as empty:
        source = load(replace(data, on_error="skip", unreadable=empty.name, train_size=None, eval_size=None))
    print(source.describe())
    parts = [source.train] if source.evaluation is source.train else [source.train, source.evaluation]
    wrong: dict[str, str] = {}
    digests: list[set[bytes]] = []
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("reading", total=sum(map(len, parts)))
        for part in parts:
            digests.append(_read(part, wrong, lambda: progress.advance(task)))
    total = sum(map(len, parts))
    print(f"{total} images read, {len(wrong)} unreadable")
    twice = len(digests[0] & digests[1]) if len(digests) > 1 else 0
    if twice:
        print(f"{twice} evaluated images are training images too: the same pixels")
    path = list_path(data)
    if wrong or path.is_file():
        write_list(path, wrong)
        print("\n".join([*list(wrong.values())[:SHOWN], *(["..."] if len(wrong) > SHOWN else [])]))
        print(f"listed in {path}; data.on_error=skip leaves them out")
    return 1 if wrong else 0


def _read(images: Images, wrong: dict[str, str], tell: object) -> set[bytes]:
    assert callable(tell)
    found = set()
    for name, problem, digest in check(images, tell):
        if problem is None:
            found.add(digest)
        else:
            wrong[name] = problem
    return found


if __name__ == "__main__":
    run("stability.data", main)
