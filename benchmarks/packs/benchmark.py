"""The benchmark from its options to its tables and its JSON."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning
import torch

from benchmarks.machine import describe
from benchmarks.packs import JPEGS, MODELS, contest, tables, timing
from benchmarks.packs.contest import Contestant, Plan, Screen
from benchmarks.packs.crew import Crew
from benchmarks.packs.ways import Pack
from benchmarks.packs.work import Work, decodes, has_policies, link_images, write_sample
from stability.errors import UserError
from stability.files import write_text
from stability.training.contexts import exact_arithmetic

VERSION = 1
BATCH_SIZE, JPEG_SIDE, TINY_SIDE = 64, 224, 32
MATMUL_ROUNDS = 5
# Options that are not kept: where things lie on the machine.
PATHS = ("cifar", "jpegs", "json")
# Workers deliver in bursts, a batch each: a rate takes a longer look. Decodes are counted over so many steps.
JPEG_FACTOR, DECODE_STEPS = 3.0, 2
# Of the time, beside a large model's share of 1; the tiny ones' aims are about what has to be compiled.
TINY_SHARE, JPEG_SHARE = 1.3, 0.8
# Of a work's time, what is kept for finding out how long its kernels take.
KERNELS_SHARE = 0.1
# What is aimed at on a GPU.
MFU = {"vitp_1gf": 0.30, "vitp_4gf": 0.45}
# Beside the others this would take half of the time again: measured by name.
BY_NAME = ("vitp_4gf",)
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Defaults:
    """What is measured unless asked otherwise."""

    only: tuple[str, ...]
    sizes: tuple[int, ...]
    seconds: float
    matmul_size: int
    at_once: int
    # Of packs that are fed from JPEGs: models, batch size, the largest pack, and how many images make an epoch.
    jpeg_models: tuple[str, ...]
    jpeg_batch: int
    jpeg_most: int
    jpeg_images: int
    # Whether packs are timed on them, or the pipeline alone, which shares the CPU with them.
    jpeg_packs: bool


DEFAULTS = {
    "cuda": Defaults(
        (*(name for name in MODELS if name not in BY_NAME), JPEGS),
        (1, 2, 4, 8, 16, 32, 64),
        0.5,
        8192,
        8,
        ("vitp_1gf", "vitc_1gf"),
        64,
        16,
        20_000,
        True,
    ),
    "cpu": Defaults(
        ("vitp_tiny", "vitc_tiny", JPEGS), (1, 2, 4, 8), 1.0, 1024, CORES, ("vitc_1gf",), 4, 2, 2_000, False
    ),
}


class Benchmark:
    """One run."""

    def __init__(self, options: argparse.Namespace, kind: str) -> None:
        self.options, self.kind, self.device = options, kind, torch.device(kind)
        self.defaults = DEFAULTS[kind]
        self.screen, self.end = Screen(), time.monotonic() + 60 * options.budget
        asked = options.only or self.defaults.only
        self.models = [name for name in MODELS if name in asked]
        self.jpeg_models = list(self.defaults.jpeg_models) if JPEGS in asked else []
        # What is still to be measured, in shares of the time that is left.
        self.shares = sum(map(share_of, self.models)) + JPEG_SHARE * len(self.jpeg_models)
        compiles = kind == "cuda" if options.compile is None else options.compile
        sizes = options.sizes or self.defaults.sizes
        seconds = options.seconds or self.defaults.seconds
        self.plan = Plan(sizes, options.rounds, seconds, compiles, self.device)
        self.crew: Crew | None = None
        # One process, for what would disturb this one.
        self.profiler: Crew | None = None
        self.peak_flops = 1.0
        # What is decoded.
        self.files = "given"
        # What goes into the JSON.
        kept = {name: value for name, value in vars(options).items() if name not in PATHS}
        self.found: dict[str, Any] = {"version": VERSION, "finished": False, "options": kept}
        # Of the work that is being measured, rounds so far.
        self.found["under_way"] = None
        self.found |= {"works": [], "jpegs": [], "left_out": {}, "aims": []}

    def run(self) -> None:
        """Measure everything; print and write it as it comes: what ends this process takes one work with it at most."""
        self.found["machine"] = machine(self.device)
        self._print(self.found["machine"]["line"], *lacking(self.models, self.jpeg_models))
        at_once = self.defaults.at_once if self.options.processes is None else self.options.processes
        if self.models and at_once > 1:
            self.crew = Crew(at_once, self.kind, 1 if self.kind == "cpu" else None)
        if self.kind == "cuda":
            self.profiler = Crew(1, self.kind, None)
        try:
            self.found["matmul_flops"] = self._matmul()
            self._write()
            for name in self.models:
                self._add("works", name, share_of(name), partial(self._model, name))
            if self.crew is not None:
                self.crew.close()
            with tempfile.TemporaryDirectory(prefix="packs-") as folder:
                for name in self.jpeg_models:
                    self._add("jpegs", jpegs_title(name), JPEG_SHARE, partial(self._jpegs, name, Path(folder)))
        finally:
            for crew in filter(None, (self.crew, self.profiler)):
                crew.close()
        if self.found["aims"]:
            self._print("", tables.aims_table(self.found["aims"]))
        self.found["finished"] = True
        self._write()
        self._print("", f"{self.options.json} written after {self.screen.elapsed:.0f} s")

    def _write(self) -> None:
        """Write what has been found so far."""
        if self.kind == "cuda":
            self.found["aims"] = aims(self.found["works"], self.found["jpegs"])
        write_text(self.options.json, json.dumps(self.found, indent=1, allow_nan=False) + "\n")

    def _keep(self, work: Work, field_of: Sequence[Contestant]) -> None:
        """Write what is known of a work while it is measured."""
        self.found["under_way"] = contest.results(work, field_of, self.peak_flops, {})
        self._write()

    def _print(self, *lines: str) -> None:
        self.screen.clear()
        print("\n".join(lines), flush=True)

    def _add(self, key: str, title: str, share: float, measure: Callable[[float], dict[str, Any]]) -> None:
        """Add what `measure` finds, print and write it; where it cannot be measured here, say why."""
        now = time.monotonic()
        deadline = now + (self.end - now) * share / self.shares
        self.shares -= share
        with self._noting(title):
            if now > self.end:
                raise UserError("no time left")
            row = measure(deadline)
            self.found[key].append(row)
            self.found["under_way"] = None
            parts, best = tables.parts_table(row), tables.fastest(row)
            texts = [tables.work_title(row), tables.rates_table(row), parts, tables.decodes_line(row), best]
            self._print("", *filter(None, texts))
        self._write()

    @contextmanager
    def _noting(self, title: str) -> Iterator[None]:
        """Let what fails be noted as left out, and the rest go on."""
        try:
            yield
        except Exception as error:
            self.found["left_out"][title] = text = str(error) if isinstance(error, UserError) else timing.brief(error)
            self._print("", f"{title}: left out: {text}")

    def _matmul(self) -> dict[str, Any]:
        """Measure the peak of matrix products; MFU is a share of the peak at the chosen precision."""
        found = {}
        for name, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
            # A CPU without instructions for bfloat16 takes minutes.
            if self.kind == "cpu" and name != self.options.precision:
                continue
            self.screen.say(f"matrix products in {name}")
            flops = self._flops(dtype, MATMUL_ROUNDS)
            found[name] = {"size": self.defaults.matmul_size} | timing.summary(flops)
            kind = f"{self.defaults.matmul_size} in {name}{'' if self.kind == 'cuda' else ' on one core'}"
            self._print(f"matrix products of {kind}: {tables.spread(found[name], 1e-12)} TFLOP/s")
        self.peak_flops = found[self.options.precision]["max"]
        return found

    def _flops(self, dtype: torch.dtype, rounds: int) -> list[float]:
        with exact_arithmetic(self.device):
            seconds = min(0.5, self.plan.seconds)
            found = timing.matmul_flops(self.device, dtype, self.defaults.matmul_size, rounds, seconds)
        timing.release(self.device)
        return found

    def _watch_peak(self) -> None:
        """Measure again: a machine that is slow in one minute would have a low peak in that one alone."""
        dtype = torch.bfloat16 if self.options.precision == "bf16" else torch.float32
        self.peak_flops = max(self.peak_flops, *self._flops(dtype, 1))

    def _model(self, name: str, deadline: float) -> dict[str, Any]:
        """Measure a model on images that lie ready on the device."""
        side, classes = MODELS[name]
        batch = self.options.batch_size or BATCH_SIZE
        work = Work(name, side, classes, batch, self.options.precision, self.kind)
        if self.options.cifar is not None and side == TINY_SIDE:
            real = replace(work, images="cifar", path=str(self.options.cifar))
            try:
                real.data()
                work = real
            except UserError as error:
                self._print(f"random images instead of CIFAR-10: {error}")
        peaks: dict[int, int | None] = {}
        if self.kind == "cpu":
            self.screen.say(f"{name}: memory of packs")
            peaks = contest.fresh_peaks(work, self.plan.sizes)
        field_of = contest.contestants(work, self.plan, self.crew)
        self._compete(work, field_of, self.plan, deadline, name)
        return contest.results(work, field_of, self.peak_flops, peaks)

    def _compete(self, work: Work, field_of: list[Contestant], plan: Plan, deadline: float, title: str) -> None:
        """Let contestants compete; where something breaks once they have been measured, that remains."""
        try:
            self._watch_peak()
            reserve = KERNELS_SHARE * (deadline - time.monotonic()) if self.profiler else 0.0
            try:
                keep = partial(self._keep, work, field_of)
                contest.compete(work, field_of, plan, deadline - reserve, self.screen, title, keep)
            finally:
                contest.forget(field_of)
            timing.release(self.device)
            self._watch_peak()
            if self.profiler is not None:
                contest.profile(work, field_of, self.profiler, deadline, self.screen)
        except Exception:
            if not any(one.rounds for one in field_of):
                raise
            with self._noting(f"{title}, the rest"):
                raise

    def _jpegs(self, name: str, folder: Path, deadline: float) -> dict[str, Any]:
        """Measure a model whose images workers decode from JPEG files, as the paper's recipe has it.

        On the CPU, which they share with it, the pipeline alone.
        """
        links = folder / "links"
        if not links.exists():
            self.screen.say("finding JPEG files")
            if self.options.jpegs is None:
                self.files = write_sample(folder / "sample")
            link_images(self.options.jpegs or folder / "sample", links, self.defaults.jpeg_images)
        work = Work(
            name,
            JPEG_SIDE,
            sum(one.is_dir() for one in links.iterdir()),
            self.options.batch_size or self.defaults.jpeg_batch,
            self.options.precision,
            self.kind,
            images="jpegs",
            path=str(links),
            workers=self.options.workers or CORES,
        )
        sizes = sorted({1, max((size for size in self.plan.sizes if size <= self.defaults.jpeg_most), default=1)})
        # Alone it waits for its images, compiled or not.
        plan = replace(self.plan, sizes=sizes, seconds=JPEG_FACTOR * self.plan.seconds, only_largest=True)
        field_of = contest.contestants(work, plan, None)
        if not self.defaults.jpeg_packs:
            field_of = [one for one in field_of if one.name == "pipeline"]
        self._compete(work, field_of, plan, deadline, jpegs_title(name))
        row = contest.results(work, field_of, self.peak_flops, {})
        row["augments"] = has_policies()
        row["files"] = self.files
        row["decodes_per_trial_image"] = {}
        failed = [one.size for one in field_of if one.name == "pack" and one.note is not None]
        for size in [size for size in sizes if size not in failed]:
            self.screen.say(f"{name}: counting decodes, K = {size}")
            with self._noting(f"{jpegs_title(name)}, decodes at K = {size}"):
                row["decodes_per_trial_image"][str(size)] = decodes_per_trial_image(work, size)
                timing.release(self.device)
        return row


def share_of(model: str) -> float:
    """Return a model's share of the time."""
    return TINY_SHARE if MODELS[model][0] == TINY_SIDE else 1.0


def lacking(models: Sequence[str], jpeg_models: Sequence[str]) -> list[str]:
    """Return a line for each library that is missing here: what is not measured without it."""
    lines = []
    if models and importlib.util.find_spec("modelbatch") is None:
        lines.append("modelbatch is missing, packs are not compared with it: pip install modelbatch")
    if "resnet50" in models and importlib.util.find_spec("timm") is None:
        lines.append("timm is missing, resnet50 is left out: pip install timm")
    if (jpeg_models or any(MODELS[name][0] > TINY_SIDE for name in models)) and not has_policies():
        lines.append(f"torchvision is missing, no AutoAugment at {JPEG_SIDE} px: pip install torchvision")
    if jpeg_models and importlib.util.find_spec("PIL") is None:
        lines.append("Pillow is missing, nothing is fed from JPEG files: pip install pillow")
    return lines


def jpegs_title(model: str) -> str:
    """Return what a model's packs are called that are fed from JPEG files."""
    return f"{model} fed from JPEG files"


def decodes_per_trial_image(work: Work, size: int) -> float:
    """Return how many images are decoded for each trial-image of a pack: counted over its last steps of an epoch, after
    which no worker has made any ahead."""
    pack, root = Pack(work, size), Path(str(work.path))
    end = pack.data.steps_per_epoch
    steps = min(DECODE_STEPS, end)
    before = decodes(root)
    with pack.arithmetic():
        for batch in pack.data.train_batches(0, end - steps):
            pack.compute(pack.module.transfer_batch_to_device(batch, pack.device, 0))
            pack.update()
    return (decodes(root) - before) / (steps * pack.images)


def aims(works: Sequence[dict[str, Any]], jpegs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what is aimed at on a GPU beside what was measured: medians, of the best way to train a pack."""
    found = []

    def add(what: str, aim: float, measured: float | None, at_most: bool = False) -> None:
        if measured is not None:
            reached = measured <= aim if at_most else measured >= aim
            found.append({"what": what, "aim": aim, "measured": measured, "reached": reached})

    for work in works:
        if work["model"] in ("vitp_tiny", "vitc_tiny"):
            add(f"{work['model']}, K = 64, times alone", 15, of_pack(work, 64, "over_alone"))
            add(f"{work['model']}, K = 64, times alone, compiled in default mode", 5, of_pack(work, 64, "over_default"))
        if work["model"] in MFU:
            add(f"{work['model']}, K = 16, MFU", MFU[work["model"]], of_pack(work, 16, "mfu"))
    for work in jpegs:
        title = f"{jpegs_title(work['model'])}, K = 16"
        alone = max(filter(None, (best_alone(one) for one in works if one["model"] == work["model"])), default=None)
        alone = alone or best_alone(work)
        rate = of_pack(work, 16, "images_per_second")
        add(f"{title}, times alone at its best", 1, rate / alone if rate and alone else None)
        add(f"{title}, MFU", MFU["vitp_1gf"], of_pack(work, 16, "mfu"))
        add(f"{title}, decodes of a trial-image", 1 / 16, work["decodes_per_trial_image"].get("16"), at_most=True)
    return found


def best_alone(work: dict[str, Any]) -> float | None:
    """Return the best median rate of a trial alone, however it was run; None where none was measured."""
    rates = [one["images_per_second"] for one in work["contestants"] if one["name"].startswith("alone")]
    return max((rate["median"] for rate in rates if rate is not None), default=None)


def of_pack(work: dict[str, Any], size: int, name: str) -> float | None:
    """Return the best median of a pack of this size, compiled or not; None where it was not measured."""
    rows = [one for one in work["contestants"] if one["name"].startswith("pack") and one["size"] == size]
    return max((one[name]["median"] for one in rows if one[name] is not None), default=None)


def machine(device: torch.device) -> dict[str, Any]:
    """Return what was measured on."""
    is_gpu = device.type == "cuda"
    properties = torch.cuda.get_device_properties(device) if is_gpu else None
    return {
        "line": describe(),
        "date": date.today().isoformat(),
        "device": properties.name if properties else platform.processor() or platform.machine(),
        "device_memory": properties.total_memory if properties else None,
        "cores": CORES,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda if is_gpu else None,
            "lightning": pytorch_lightning.__version__,
        },
    }
