"""Tell all of one trial: its configuration, curve, exception and provenance, and the command that reruns it alone.

python -m analysis.trial runs/quick 5a13cc5ed813
python -m analysis.trial runs/quick 5a1           enough of an id to tell it from the others
"""

from __future__ import annotations

import json
import shlex
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from analysis.command import Parser, run
from analysis.rerun import rerun_command
from analysis.screen import print_table
from analysis.status import study_folders
from stability.errors import UserError, nearest
from stability.records import cell_label, is_claimed, read_manifest, read_record, trial_directory

PROGRAM = "analysis.trial"
# Columns of the curve: key, heading, format. One that is null throughout is left out.
COLUMNS = (
    ("epoch", "epoch", "{:d}"),
    ("train_loss", "training loss", "{:.4f}"),
    ("loss", "loss", "{:.4f}"),
    ("top1_error", "top-1 error %", "{:.2f}"),
    ("top5_error", "top-5 error %", "{:.2f}"),
    ("ema_loss", "EMA loss", "{:.4f}"),
    ("ema_top1_error", "EMA top-1 %", "{:.2f}"),
    ("ema_top5_error", "EMA top-5 %", "{:.2f}"),
    ("gradient_norm", "gradient norm", "{:.3g}"),
    ("lr", "lr", "{:.3g}"),
)


class Found(NamedTuple):
    """A planned trial, where it is planned, and the folder of its study."""

    folder: Path
    manifest: Mapping[str, Any]
    trial: Mapping[str, Any]

    @property
    def directory(self) -> Path:
        """The trial's folder."""
        return trial_directory(self.folder, self.trial["id"])

    @property
    def cell(self) -> Mapping[str, Any]:
        """The trial's cell as the manifest has it."""
        return self.manifest["cells"][self.trial["cell"]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. Raises UserError where there is no such trial, or several."""
    parser = Parser(prog=f"python -m {PROGRAM}", description=__doc__)
    parser.add_argument("runs", type=Path, metavar="RUNS", help="a study's folder, or a folder of them")
    parser.add_argument("id", metavar="ID", help="the trial's id, or enough of its first characters")
    options = parser.parse(arguments)
    show(find(options.runs, options.id))
    return 0


def find(runs: Path, given: str) -> Found:
    """Return the planned trial whose id is `given` or alone begins so. Raises UserError where none or several do."""
    planned = [
        Found(folder, manifest, trial)
        for folder in study_folders(runs)
        for manifest in [read_manifest(folder) or {}]
        for trial in manifest["trials"]
    ]
    wanted = given.strip().lower()
    found = [one for one in planned if wanted and one.trial["id"].startswith(wanted)]
    found = [one for one in found if one.trial["id"] == wanted] or found
    if len(found) == 1:
        return found[0]
    ids = sorted({one.trial["id"] for one in found})
    if len(ids) == 1:
        folders = ", ".join(str(one.folder) for one in found)
        raise UserError(f"trial {given!r} is planned in several studies; accepted: one of {folders} instead of {runs}")
    if ids:
        shown = ", ".join(ids[:6]) + (", ..." if len(ids) > 6 else "")
        raise UserError(f"{given!r} begins {len(ids)} ids of {runs}; accepted: one of {shown}")
    near = nearest(wanted, [one.trial["id"] for one in planned])
    example = f", as {planned[0].trial['id']}" if planned else ""
    raise UserError(
        f"unknown trial {given!r}{near}; accepted: the id of one of {runs}'s {len(planned)} trials{example}"
    )


def show(found: Found) -> None:
    """Print all that is known of a trial."""
    record = read_record(found.directory)
    trial, study = found.trial, found.manifest["study"]
    point = " ".join(f"{name}={trial[name]!r}" for name in ("lr", "wd", "seed"))
    print(f"trial {trial['id']} of {study}: {cell_label(found.cell['factors'])}, point #{trial['number']}: {point}")
    print(_outcome(found, record))
    _show_exception(record)
    _show_configuration({**found.cell["config"], **{name: trial[name] for name in ("lr", "wd", "seed")}})
    _show_curve(record["result"].get("curve") or [] if record else [])
    if record:
        print("\nprovenance")
        _show_groups({name: _rounded(value) for name, value in record["provenance"].items()})
    _show_files(found.directory)
    print(f"\nrerun it alone, in a study of its own:\n  {rerun_command(found.manifest, trial, record)}")


def _outcome(found: Found, record: Mapping[str, Any] | None) -> str:
    running = (record is None or record["status"] == "failed") and is_claimed(found.directory)
    if record is None:
        return "running" if running else "planned: it has not ended"
    result, attempts = record["result"], record["provenance"].get("attempts", 1)
    if record["status"] == "failed":
        again = "; it is being tried again now" if running else ""
        return f"failed at attempt {attempts}, after {result.get('epochs_done') or 0} whole epochs{again}"
    if record["status"] == "diverged":
        step, done = result.get("diverged_step"), result.get("epochs_done") or 0
        return f"diverged at optimizer step {step}, after {done} whole epochs: the loss or gradient was not finite"
    top5 = "" if result.get("top5_error") is None else f", top-5 {result['top5_error']:.2f} %"
    best = f"best top-1 {result['best_top1_error']:.2f} % after epoch {result['best_epoch']}"
    return f"completed: top-1 error {result['top1_error']:.2f} %{top5} ({best})"


def _show_exception(record: Mapping[str, Any] | None) -> None:
    text = record["result"].get("exception") if record else None
    if text:
        print("\nexception")
        print(textwrap.indent(str(text).rstrip(), "  "))


def _show_configuration(config: Mapping[str, Any]) -> None:
    """Print the configuration but for the ranges that points are drawn from, which are no part of a trial."""
    hidden = {"model": ("family",), "optimizer": ("search",)}
    shown = dict(config)
    for name, keys in hidden.items():
        shown[name] = {key: value for key, value in config[name].items() if key not in keys}
    print("\nconfiguration")
    _show_groups(shown)


def _show_groups(values: Mapping[str, Any]) -> None:
    """Print values by key, those of a group on lines of their own."""
    single = {name: value for name, value in values.items() if not isinstance(value, Mapping)}
    _show_wrapped("", [f"{name}={_plain(value)}" for name, value in single.items()])
    for name in [name for name in values if name not in single]:
        _show_wrapped(f"{name}: ", [f"{key}={_plain(value)}" for key, value in values[name].items()])


def _show_wrapped(heading: str, words: Sequence[str]) -> None:
    # A value keeps its spaces: lines are broken between values alone.
    joined = " ".join(word.replace(" ", "\0") for word in words)
    width = min(120, shutil.get_terminal_size((120, 24)).columns)
    lines = textwrap.fill(
        heading + joined,
        width,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    print(lines.replace("\0", " "))


def _plain(value: Any) -> str:
    """Return a value for the eye: a word as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def _rounded(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _show_curve(curve: Sequence[Mapping[str, Any]]) -> None:
    if not curve:
        return
    columns = [column for column in COLUMNS if any(row.get(column[0]) is not None for row in curve)]
    rows = []
    for row in curve:
        rows.append(["-" if row.get(key) is None else form.format(row[key]) for key, _, form in columns])
    print("\ncurve")
    print_table([heading for _, heading, _ in columns], rows, words=0)


def _show_files(directory: Path) -> None:
    if directory.is_dir():
        names = ", ".join(sorted(path.name for path in directory.iterdir()))
        print(f"\nfiles in {shlex.quote(str(directory))}: {names}")


if __name__ == "__main__":
    run(PROGRAM, main)
