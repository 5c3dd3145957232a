"""Print what the named models cost, beside the published figures: `python -m stability.models [NAMES...]`."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence

from stability.errors import UserError
from stability.models.named import model_names, read_model
from stability.models.published import AUTHORS_CODE, NEAREST, TABLE_2, Published
from stability.models.table import Complexity, Input, lookup, usual_inputs
from stability.outputs import run

Row = tuple[str, Input, Complexity]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; returns the exit code: 2 on an unknown name or an input that a named model does not fit."""
    given = _parse(arguments)
    try:
        rows = _count(given.names, _asked_input(given))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    _print_csv(rows) if given.csv else _print_table(rows)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m stability.models", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a model of conf/model/; without one, all of them")
    parser.add_argument(
        "--csv", action="store_true", help="name, params, multiply_adds, activations, blocks as numbers"
    )
    parser.add_argument("--image-size", type=_whole, metavar="PX", help="side of the images in pixels")
    parser.add_argument("--channels", type=_whole, metavar="N", help="channels of the images")
    parser.add_argument("--classes", type=_whole, metavar="N", help="number of classes")
    return parser.parse_args(arguments)


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; accepted: a whole number of at least 1")
    return int(text)


def _asked_input(given: argparse.Namespace) -> dict[str, int]:
    asked = {"image_size": given.image_size, "channels": given.channels, "num_classes": given.classes}
    return {name: value for name, value in asked.items() if value is not None}


def _count(names: Sequence[str], asked: dict[str, int]) -> list[Row]:
    """Count the models `names` at their usual input, changed by what is asked; those that do not fit are left out with
    a word where all models are meant, and an error where they were named."""
    models = {name: read_model(name) for name in names or model_names()}
    rows = []
    for name, model in models.items():
        size = usual_inputs(name, model)[0]._replace(**asked)
        counts = lookup(model, *size)
        try:
            if counts is None:
                from stability.models.complexity import count

                counts = count(model, **size._asdict())
        except UserError as error:
            if names:
                raise UserError(f"{name}: {error}") from error
            print(f"left out {name}: {error}", file=sys.stderr)
            continue
        rows.append((name, size, counts))
    return rows


def _print_csv(rows: Sequence[Row]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("name", *Complexity._fields))
    writer.writerows((name, *counts) for name, _, counts in rows)


def _print_table(rows: Sequence[Row]) -> None:
    figures = ("params M", "m-adds G", "acts M")
    print(f"{'':36}{'counted here':^37} {'published, table 2':^39} {'published, code':^29}".rstrip())
    print(_line("model", "input", *figures, "blocks", *figures, "blocks", *figures))
    for name, size, counts in rows:
        usual = size == usual_inputs(name, read_model(name))[0]
        here = Published(counts.params / 1e6, counts.multiply_adds / 1e9, counts.activations / 1e6)
        table, code = (source.get(name) if usual else None for source in (TABLE_2, AUTHORS_CODE))
        shape = f"{size.channels}x{size.image_size}x{size.image_size}, {size.num_classes}"
        mark = "~" if name in NEAREST else ""
        published_blocks = str(table.blocks) if table and table.blocks else "-"
        cells = (*_figures(here, (3, 4, 3)), str(counts.blocks), *_figures(table, (1, 1, 1), mark), published_blocks)
        print(_line(name, shape, *cells, *_figures(code, (2, 3, 2))))
    print("\ninput: channels x height x width, classes. m-adds: multiply-adds (the paper's flops). acts: elements put")
    print("out by convolutions and matrix products. ~: of the published model that timm's nearest stands for here.")


def _line(name: str, shape: str, *cells: str) -> str:
    return f"{name:<16} {shape:<18}" + "".join(f"{cell:>10}" for cell in cells)


def _figures(values: Published | None, digits: tuple[int, int, int], mark: str = "") -> list[str]:
    if values is None:
        return ["-"] * 3
    return [f"{mark}{value:.{places}f}" for value, places in zip(values[:3], digits, strict=True)]


if __name__ == "__main__":
    run("stability.models", main)
