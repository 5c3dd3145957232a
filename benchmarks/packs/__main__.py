"""Measure packs of trials against trials one after another; print tables, write a JSON.

    python -m benchmarks.packs [--only vitc_tiny,jpegs] [--sizes 1,8,64] [--precision bf16] [--cifar FOLDER] [...]

On a GPU: five models, packs of up to 64, as much as fits into --budget minutes (8; everything takes over half an hour,
most of it compiling); vitp_4gf where --only names it. On the CPU: the tiny models, packs of up to 8 in one process with
one thread, and in as many such processes at once as there are cores.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.packs import JPEGS, MODELS


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.packs", description=(__doc__ or "").splitlines()[0])
    names = [*MODELS, JPEGS]
    parser.add_argument("--only", type=words(names), help=f"of {', '.join(names)} (packs fed from JPEG files)")
    parser.add_argument("--sizes", type=sizes, help="of packs (default: 1 to 64 on a GPU, 1 to 8 on the CPU)")
    parser.add_argument(
        "--seconds", type=positive, help="of steps, each contestant and round (default: 0.5 on a GPU, else 1)"
    )
    parser.add_argument("--rounds", type=whole, default=3, help="fewer where the time is short")
    parser.add_argument("--budget", type=positive, default=8.0, help="minutes in all; inf: as long as it takes")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--batch-size", type=whole, help="of a trial (default: 64; with JPEGs on the CPU 8)")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="default: on a GPU")
    parser.add_argument(
        "--processes",
        type=int,
        help="at once, on a GPU 2, 4, ... up to it (default: 8, on the CPU one per core; 0: none)",
    )
    parser.add_argument("--workers", type=whole, help="that decode JPEGs (default: one per core)")
    parser.add_argument("--cifar", type=folder, help="of CIFAR-10 as Parquet files (default: random images)")
    parser.add_argument("--jpegs", type=folder, help="of class folders (default: parts of two photographs)")
    parser.add_argument("--json", type=Path, default=Path("packs.json"), help="where the results go")
    options = parser.parse_args(arguments)
    if not options.json.absolute().parent.is_dir():
        parser.error(f"--json {options.json}: there is no such folder")
    return options


def words(known: Sequence[str]) -> Callable[[str], list[str]]:
    """Return a reader of words with commas between them."""

    def read(text: str) -> list[str]:
        for word in text.split(","):
            if word not in known:
                raise argparse.ArgumentTypeError(f"{word!r}; accepted: {', '.join(known)}")
        return text.split(",")

    return read


def sizes(text: str) -> list[int]:
    """Read whole numbers with commas between them; they come in order."""
    return sorted({whole(word) for word in text.split(",")})


def whole(text: str) -> int:
    """Read a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; accepted: a whole number of at least 1")
    return int(text)


def positive(text: str) -> float:
    """Read a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r}; accepted: a number above 0")
    return value


def folder(text: str) -> Path:
    """Read the path of a folder that exists."""
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text}")
    return Path(text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    options = parse(arguments)
    import torch

    kind = "cuda" if torch.cuda.is_available() and options.device != "cpu" else "cpu"
    if kind != options.device and options.device == "cuda":
        sys.exit("--device cuda, but torch sees no GPU here")
    if kind == "cpu":
        torch.set_num_threads(1)
        if "forkserver" in multiprocessing.get_all_start_methods():
            # Begun now, it imports while this process does.
            from multiprocessing import forkserver

            forkserver.set_forkserver_preload(["benchmarks.packs.crew"])
            forkserver.ensure_running()
    from benchmarks.packs.benchmark import Benchmark

    Benchmark(options, kind).run()


if __name__ == "__main__":
    main()
