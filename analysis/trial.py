"""Show one trial: its configuration, curve, exception and provenance, and the command that reruns it alone.

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

from analysis.command import RUNS_HELP, Parser
from analysis.screen import print_table
from stability.config import lr_factor
from stability.outputs import run
from stability.study.claims import is_claimed
from stability.study.metrics import EMA, Metric, metrics_of
from stability.study.planned import PlannedTrial, find
from stability.study.rerun import rerun_command
from stability.study.schema import EpochRow, Record, Settings
from stability.study.store import read_record
from stability.values import Value

PROGRAM = "analysis.trial"
# Columns of the curve beside the metrics: key, heading, format. A column that is null in every row is left out.
BEFORE = (("epoch", "epoch", "{:d}"), ("train_loss", "training loss", "{:.4f}"))
AFTER = (("gradient_norm", "gradient norm", "{:.3g}"), ("lr", "lr", "{:.3g}"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. Raises UserError where there is no such trial, or several."""
    parser = Parser(PROGRAM, __doc__)
    parser.add_argument("runs", type=Path, metavar="RUNS", help=RUNS_HELP)
    parser.add_argument("id", metavar="ID", help="the trial's id, or enough of its first characters")
    options = parser.parse(arguments)
    show(find(options.runs, options.id))
    return 0


def show(found: PlannedTrial) -> None:
    """Print everything that is known of a trial."""
    record = read_record(found.directory, found.trial)
    trial = found.trial
    point = " ".join(f"{name}={value!r}" for name, value in trial.point.items())
    factor = lr_factor(found.cell.config)
    point += f", peak lr {trial.lr * factor:g}" if factor != 1 else ""
    print(f"trial {trial.id} of {found.manifest.study}: {found.cell.label}, point #{trial.number}: {point}")
    print(_outcome(found, record))
    _show_exception(record)
    _show_configuration({**found.cell.config, **trial.point})
    _show_curve(record.result.rows if record else ())
    if record:
        print("\nprovenance")
        known = record.to_json()["provenance"]
        assert isinstance(known, Mapping)
        _show_groups({name: _rounded(value) for name, value in known.items() if value not in (None, {})})
    _show_files(found.directory)
    print(f"\nrerun it alone, in a study of its own:\n  {rerun_command(found.manifest, trial, record)}")


def _outcome(found: PlannedTrial, record: Record | None) -> str:
    running = (record is None or record.status == "failed") and is_claimed(found.directory)
    if record is None:
        return "running" if running else "planned: it has not ended"
    result, done = record.result, record.result.epochs_done or 0
    if record.status == "failed":
        again = "; it is being tried again now" if running else ""
        return f"failed at attempt {record.provenance.attempts or 1}, after {done} whole epochs{again}"
    if record.status == "diverged":
        step = result.diverged_step
        return f"diverged at optimizer step {step}, after {done} whole epochs: the loss or gradient was not finite"
    return f"completed: {_numbers(record)}"


def _numbers(record: Record) -> str:
    """Return the final metrics in words, with the best value of the primary one."""
    primary, *others = metrics_of().final
    values = [(one, record.result.value(one.key)) for one in (primary, *others)]
    text = ", ".join(f"{one.label} {one.text(value)}" for one, value in values if value is not None)
    best = record.result.best(primary)
    if best is None:
        return text
    return f"{text} (best {primary.label} {primary.text(best)} after epoch {record.result.best_epoch})"


def _show_exception(record: Record | None) -> None:
    text = record.result.exception if record else None
    if text:
        print("\nexception")
        print(textwrap.indent(text.rstrip(), "  "))


def _show_configuration(config: Settings) -> None:
    """Print the configuration without the ranges that points are drawn from: they do not belong to a trial."""
    hidden = {"model": ("family",), "optimizer": ("search",)}
    shown = dict(config)
    for name, keys in hidden.items():
        group = config.get(name)
        if isinstance(group, Mapping):
            shown[name] = {key: value for key, value in group.items() if key not in keys}
    print("\nconfiguration")
    _show_groups(shown)


def _show_groups(values: Settings) -> None:
    """Print values by key, those of a group on lines of their own."""
    single = {name: value for name, value in values.items() if not isinstance(value, Mapping)}
    _show_wrapped("", [f"{name}={_plain(value)}" for name, value in single.items()])
    for name, group in values.items():
        if isinstance(group, Mapping):
            _show_wrapped(f"{name}: ", [f"{key}={_plain(value)}" for key, value in group.items()])


def _show_wrapped(heading: str, words: Sequence[str]) -> None:
    # Lines are broken between values only, not at the spaces within one.
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


def _plain(value: object) -> str:
    """Return text as it is and any other value as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def _rounded(value: Value) -> Value:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _columns(curve: Sequence[EpochRow]) -> list[tuple[str, str, str]]:
    """Return key, heading and format of the curve's columns: the task's metrics, then other measurements."""
    known = [
        (prefix + metric.key, f"{words}{metric.label} {metric.unit}".strip(), f"{{:.{metric.digits}f}}")
        for prefix, words in (("", ""), (EMA, "EMA "))
        for metric in _in_order()
    ]
    names = {key for key, _, _ in known}
    others = dict.fromkeys(key for row in curve for key in row.rest if key not in names)
    return [*BEFORE, *known, *((key, key, "{:.4g}") for key in others), *AFTER]


def _in_order() -> list[Metric]:
    """Return the metrics in the curve's order: the loss first."""
    return sorted(metrics_of(), key=lambda metric: metric.is_final)


def _show_curve(curve: Sequence[EpochRow]) -> None:
    if not curve:
        return
    cells = [{"epoch": row.epoch, **{key: row.value(key) for key in row.rest}, **_own(row)} for row in curve]
    columns = [column for column in _columns(curve) if any(row.get(column[0]) is not None for row in cells)]
    rows = []
    for row in cells:
        rows.append(["-" if row.get(key) is None else form.format(row[key]) for key, _, form in columns])
    print("\ncurve")
    print_table([heading for _, heading, _ in columns], rows, words=0)


def _own(row: EpochRow) -> dict[str, float | None]:
    return {"train_loss": row.train_loss, "gradient_norm": row.gradient_norm, "lr": row.scheduled_lr}


def _show_files(directory: Path) -> None:
    if directory.is_dir():
        names = ", ".join(sorted(path.name for path in directory.iterdir()))
        print(f"\nfiles in {shlex.quote(str(directory))}: {names}")


if __name__ == "__main__":
    run(PROGRAM, main)
