"""The counts of the named models at their usual inputs, kept in a file so that a plan needs neither torch nor timm.

`python -m stability.models.table --write` counts them anew after a change of conf/model/ or of a model.
"""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from pathlib import Path

from stability.models.build import OWN_KEYS
from stability.models.counts import Complexity, Input
from stability.models.named import model_names, read_model
from stability.models.transfer import KEYS
from stability.values import Options, Value

PATH = Path(__file__).with_name("complexity.csv")


IMAGENET, CIFAR10, DIGITS = Input(224, 3, 1000), Input(32, 3, 10), Input(16, 1, 10)
# Published at sizes of their own; at 224 px like everything else besides.
OWN_SIZES = {"efficientnet_b2": 260, "efficientnet_b4": 380, "efficientnet_b5": 456}
COLUMNS = ("name", *Input._fields, *Complexity._fields, "key")


def usual_inputs(name: str, model: Options) -> list[Input]:
    """Return the inputs that a named model is counted at; the first is the one that its published counts are for."""
    if model["family"] == "tiny":
        return [CIFAR10, DIGITS]
    if name in OWN_SIZES:
        return [IMAGENET._replace(image_size=OWN_SIZES[name]), IMAGENET]
    return [IMAGENET]


def lookup(model: Options, image_size: int, channels: int, num_classes: int) -> Complexity | None:
    """Return the counts of a model's configuration, or None where the file does not hold them.

    Args:
        model: the configuration; one with an overridden argument is not in the file.
        image_size: side of the image, in pixels.
        channels: of the image.
        num_classes: the number of logits.
    """
    wanted = {
        "key": key(model),
        "image_size": str(image_size),
        "channels": str(channels),
        "num_classes": str(num_classes),
    }
    with PATH.open(newline="") as file:
        for row in csv.DictReader(file):
            if wanted.items() <= row.items():
                return Complexity(*(int(row[column]) for column in Complexity._fields))
    return None


def key(model: Options) -> str:
    """Return 12 hex digits of what a model's configuration builds: its target and arguments, in one spelling each."""
    built = {name: value for name, value in model.items() if name not in (*OWN_KEYS, *KEYS) or name == "_target_"}
    canonical = {name: _plain(value) for name, value in built.items() if value is not None}
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _plain(value: Value) -> Value:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value


def count_all() -> list[dict[str, str]]:
    """Count every named model at each of its usual inputs; returns the rows of the file."""
    from stability.models.complexity import count

    rows = []
    for name in model_names():
        model = read_model(name)
        for size in usual_inputs(name, model):
            values = (name, *size, *count(model, **size._asdict()), key(model))
            rows.append({column: str(value) for column, value in zip(COLUMNS, values, strict=True)})
    return rows


def read_rows() -> list[dict[str, str]]:
    """Return the rows of the file as it stands."""
    with PATH.open(newline="") as file:
        return list(csv.DictReader(file))


def write_rows(rows: list[dict[str, str]]) -> None:
    """Write the file."""
    with PATH.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main(arguments: list[str]) -> int:
    """Write the file (--write), or tell whether it is up to date; returns the exit code."""
    if arguments not in ([], ["--write"]):
        print(f"unknown arguments {' '.join(arguments)!r}; accepted: --write, or none to check", file=sys.stderr)
        return 2
    rows = count_all()
    if arguments:
        write_rows(rows)
        print(f"wrote {len(rows)} rows to {PATH}")
        return 0
    stale = rows != (read_rows() if PATH.exists() else [])
    print(f"{PATH} is out of date: python -m stability.models.table --write" if stale else f"{PATH} is up to date")
    return int(stale)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
