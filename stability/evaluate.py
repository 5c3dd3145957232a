"""Evaluate trained models on another split or data set.

    python -m stability.evaluate runs/quick data.val_fraction=0          the test images, of trials that held some out
    python -m stability.evaluate runs/quick 5a1 data.eval_split=test     one trial, by enough of its id
    python -m stability.evaluate runs/fig6 data=imagefolder data.path=FOLDER data.name=imagenet-v2

Trials need weights (training.keep_weights=last or best); without IDs all trials that have them are evaluated. Without
data=NAME it is the trials' own set, with the keys that are given changed. Results go beside the trials' records, as
evaluated.SET.json; trials that have been evaluated on the set already are left out. Other keys: batch_size=,
device=auto|cpu|cuda, training.trust_files=true (models, metrics and data sets that only the study's folder names
are run).
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stability.data.overrides import DataOverrides, data_overrides
from stability.errors import UserError, unknown
from stability.files import shared_like
from stability.outputs import run
from stability.study.evaluations import Evaluation, read_evaluation, set_name, write_evaluation
from stability.study.metrics import metrics_of
from stability.study.planned import PlannedTrial, find, planned_trials
from stability.study.store import read_record, study_folders
from stability.study.weights import kept_epoch, weights_file
from stability.values import Value

if TYPE_CHECKING:
    from stability.config import DataConfig, TrialConfig
    from stability.data.evaluation import EvaluationData

PROGRAM = "stability.evaluate"
KEYS = ("batch_size", "device", "training.trust_files")


@dataclass(frozen=True)
class Request:
    """What a command asks for: the trials, the data, and how to compute."""

    # With the file of each one's weights.
    trials: Sequence[tuple[PlannedTrial, Path]]
    data: DataOverrides
    batch_size: int | None
    device: str
    trust_files: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. Raises UserError."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {PROGRAM}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", metavar="RUNS", help="a study's folder, or a folder of them")
    parser.add_argument(
        "words", nargs="*", metavar="ID | RUNS | KEY=VALUE", help="trials, further folders, and the data"
    )
    options = parser.parse_args(arguments)
    request = _request([options.runs, *options.words])
    done = _evaluate(request)
    folders = list(dict.fromkeys(one.folder for one, _ in request.trials))
    others = ", the others had been before" if done < len(request.trials) else ""
    print(f"{done} of {len(request.trials)} trials evaluated{others}")
    print(f"next:    python -m analysis.evaluated {shlex.join(map(str, folders))}")
    return 0


def _request(words: Sequence[str]) -> Request:
    """Return what the words of a command ask for. Raises UserError."""
    overrides = [one for one in words if "=" in one and not Path(one).is_dir()]
    others = [one for one in words if one not in overrides]
    folders = [Path(one) for place, one in enumerate(others) if place == 0 or Path(one).is_dir()]
    names = [one for place, one in enumerate(others) if place and not Path(one).is_dir()]
    data = data_overrides(overrides)
    keys = _keys(data.others)
    if data.chosen is None and not data.keys:
        raise UserError("no data to evaluate on; accepted: data.eval_split=test, data.val_fraction=0, or data=NAME")
    trials = [_named(folders, name) for name in names] if names else _with_weights(folders)
    size, trusts = keys.get("batch_size"), keys.get("training.trust_files", False)
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise UserError(f"batch_size={size!r}; accepted: a number of at least 1")
    if not isinstance(trusts, bool):
        raise UserError(f"training.trust_files={trusts!r}; accepted: true, false")
    return Request(trials, data, size, str(keys.get("device", "auto")), trusts)


def _keys(overrides: Sequence[str]) -> dict[str, Value]:
    import yaml

    found: dict[str, Value] = {}
    for one in overrides:
        name, _, value = one.partition("=")
        if name not in KEYS:
            raise unknown("key", name, ["data", "data.KEY", *KEYS])
        found[name] = yaml.safe_load(value)
    if str(found.get("device", "auto")) not in ("auto", "cpu", "cuda"):
        raise UserError(f"device={found['device']}; accepted: auto, cpu, cuda")
    return found


def _named(folders: Sequence[Path], name: str) -> tuple[PlannedTrial, Path]:
    """Return the trial of an id and its weights' file. Raises UserError where there is none, or it has no weights."""
    if len(folders) == 1:
        found = find(folders[0], name)
    else:
        every = [one for folder in folders for one in planned_trials(folder) if one.trial.id.startswith(name.lower())]
        found = every[0] if len(every) == 1 else find(folders[0], name)
    return found, weights_file(found)


def _with_weights(folders: Sequence[Path]) -> list[tuple[PlannedTrial, Path]]:
    """Return the trials that have weights, and the files. Raises UserError that says how one gets them."""
    planned = [one for folder in folders for study in study_folders(folder) for one in planned_trials(study)]
    records = [(one, record) for one in planned if (record := read_record(one.directory, one.trial)) is not None]
    completed = [(one, record) for one, record in records if record.status == "completed"]
    kept = [(one, record) for one, record in completed if kept_epoch(record)]
    if not planned:
        raise UserError(f"{folders[0]} plans no trial; accepted: a study with trials that have ended")
    if not kept:
        weights_file(completed[0][0] if completed else planned[0])
    if len(kept) < len(completed):
        print(f"{len(completed) - len(kept)} of {len(completed)} completed trials have no weights and are left out")
    return [(one, weights_file(one, record)) for one, record in kept]


def _evaluate(request: Request) -> int:
    """Evaluate trials one after the other; return how many were."""
    from stability.data.evaluation import EvaluationData
    from stability.devices import pick_device
    from stability.training.evaluated import check_fit, evaluate_on, evaluated_data
    from stability.training.weights import load_weights, source_of

    device, sets = pick_device(request.device), dict[object, EvaluationData]()
    trust, accepted = request.trust_files, "training.trust_files=true"
    metric, done = metrics_of().primary, 0
    untrusted: set[tuple[str, ...]] = set()

    def images_of(data: DataConfig, config: TrialConfig) -> EvaluationData:
        recipe, size = config.recipe, request.batch_size or config.batch_size
        key = (data, recipe.eval_crop, recipe.crop, size)
        if key not in sets:
            sets[key] = EvaluationData(data, recipe, size, device.type)
            print(sets[key].describe(), flush=True)
        return sets[key]

    with _progress(len(request.trials)) as (begin, advance, end):
        for one, path in request.trials:
            info, config = source_of(path, trust_files=trust, accepted=accepted)
            data = evaluated_data(config, request.data, trust_files=trust)
            check_fit(info, data)
            images = images_of(data, config)
            begin(images.num_images)
            own = tuple(config.metrics or ())
            if own and not trust and own not in untrusted:
                untrusted.add(own)
                print(f"the trials' own metrics ({', '.join(own)}) are not computed; {accepted} runs their code")
            if not _stands(one, images, own if trust else ()):
                loaded = load_weights(path, trust_files=trust, accepted=accepted)
                found = evaluate_on(loaded, data, images, device, advance, trust_files=trust)
                with shared_like(one.directory):
                    write_evaluation(one.directory, found)
                value, done = found.value(metric.key), done + 1
                shown = "-" if value is None else metric.text(value)
                print(
                    f"{one.trial.id} {one.cell.label}: {metric.label} {shown} on {found.name}{_words(found)}",
                    flush=True,
                )
            end()
    return done


def _stands(one: PlannedTrial, images: EvaluationData, own: Collection[str]) -> bool:
    """Tell whether a trial has been evaluated on a set, by metrics of its own, too.

    Raises:
        UserError: other images go by the set's name.
    """
    name = set_name(images.title)
    standing = read_evaluation(one.directory, name)
    if standing is not None and standing.images != images.images:
        raise UserError(
            f"trial {one.trial.id} has been evaluated on other images under the name {name} "
            f"({standing.eval_images}, now {images.num_images}); accepted: data.name=NAME of its own, or remove "
            f"{one.directory}/evaluated.{name}.json"
        )
    return standing is not None and standing.metrics.keys() >= set(own)


def _words(found: Evaluation) -> str:
    """Return which weights were evaluated, and how classes were matched, where that needs words."""
    notes = [
        f"the averaged weights of epoch {found.epoch}" if found.averaged else f"the weights of epoch {found.epoch}"
    ]
    notes += [found.classes] if found.classes else []
    return f" ({'; '.join(notes)})"


@contextlib.contextmanager
def _progress(trials: int) -> Iterator[tuple[Callable[[int], None], Callable[[int], None], Callable[[], None]]]:
    """Show the trials and the images of the current one, on stderr: what begins one, advances it and ends it."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        every = progress.add_task("trials", total=trials)
        current = progress.add_task("images", total=None)
        yield (
            lambda images: progress.reset(current, total=images),
            lambda images: progress.advance(current, images),
            lambda: progress.advance(every),
        )


if __name__ == "__main__":
    run(PROGRAM, main)
