"""Smoke test of packs on a GPU: train, evaluate, diverge, compact, write a checkpoint, resume; compare with the CPU.

    python -m benchmarks.gpu_smoke [--json gpu_smoke.json]

One pack of 8 trials of vitc_tiny on the embedded digits, in float32 and bf16, compiled and not. No files are needed.
Prints one row per check as it is measured, rewrites the JSON after each, and ends with exit code 1 if a check failed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from benchmarks.machine import describe
from stability.data import get_data
from stability.files import write_text
from stability.study.events import Epoch, Event
from stability.training import whole as whole_step
from stability.training.contexts import exact_arithmetic
from stability.training.defaults import complete
from stability.training.module import StackModule
from stability.training.trial import ready_module, train_pack

PACK_SIZE = 8
MODEL = "vitc_tiny"
# Trial 1 diverges in its first steps; half of the pack ends one epoch before the others, so that the stack shrinks.
DIVERGING, SHORT, LONG = 1, 2, 3
HUGE_LR = 1e12
NOISE = 0.05
PRECISIONS = ("float32", "bf16")
# What two devices, or a pack and a single trial, may differ by. Logits, gradients: of the largest value, at the first
# batch. Loss: of the mean over the first epoch's steps. Errors at the end have no limit: training amplifies rounding.
LOGIT_LIMIT = {"float32": 1e-4, "bf16": 3e-2}
GRADIENT_LIMIT = {"float32": 1e-3, "bf16": 1e-1}
LOSS_LIMIT = {"float32": 1e-3, "bf16": 2e-2}


@dataclass(frozen=True)
class Check:
    """One row: what was checked, what was measured, the limit (None: reported without one), and whether it holds."""

    case: str
    name: str
    measured: str
    limit: str | None
    holds: bool


@dataclass(frozen=True)
class Outcome:
    """What training one pack gave: its records, the stack sizes it moved to, its events, and its time in seconds."""

    records: list[dict[str, Any]]
    sizes: list[int]
    events: list[str]
    seconds: float


def configs(precision: str, device: str, compiled: bool = False) -> list[dict[str, Any]]:
    """Return the configurations of the pack's trials: two optimizers, several lr, one EMA, one lr that diverges."""
    found = []
    for seed in range(PACK_SIZE):
        optimizer = "sgd" if seed % 2 else "adamw"
        lr = (0.05 if optimizer == "sgd" else 1e-3) * (1 + seed / PACK_SIZE)
        found.append(
            {
                "model": MODEL,
                "optimizer": optimizer,
                "lr": HUGE_LR if seed == DIVERGING else lr,
                "wd": 0.01,
                "seed": seed,
                "epochs": SHORT if seed < PACK_SIZE // 2 else LONG,
                "recipe": {"name": "light", "ema": seed % 4 == 2},
                "precision": precision,
                "device": device,
                "training": {"compile": compiled, "checkpoint_seconds": 3600},
            }
        )
    return found


def run_pack(trials: Sequence[dict[str, Any]], folder: Path | None = None, stop_after: int | None = None) -> Outcome:
    """Train the pack, compacted as on a GPU.

    Args:
        trials: configurations of the members.
        folder: where checkpoints go; None: nowhere.
        stop_after: send Ctrl-C to this process when a member has ended this epoch; the pack then writes checkpoints.

    Raises:
        KeyboardInterrupt: where it was stopped.
    """
    sizes: list[int] = []
    events: list[str] = []

    def on_event(event: Event) -> None:
        events.append(event.kind)
        if isinstance(event, Epoch) and event.epoch == stop_after and events.count("epoch") == 1:
            signal.raise_signal(signal.SIGINT)

    start = time.perf_counter()
    directories = None if folder is None else [folder / str(number) for number in range(len(trials))]
    with _watched_sizes(sizes):
        records = train_pack(trials, directories=directories, full_size=PACK_SIZE, compact=True, on_event=on_event)
    return Outcome([record.to_json() for record in records], sizes, events, time.perf_counter() - start)


@contextmanager
def _watched_sizes(sizes: list[int]) -> Iterator[None]:
    """Note every size that a stack is moved to."""
    move = StackModule._move_to

    def noted(self: StackModule, size: int, compiles: bool) -> None:
        sizes.append(size)
        move(self, size, compiles)

    StackModule._move_to = noted  # type: ignore[method-assign]
    try:
        yield
    finally:
        StackModule._move_to = move  # type: ignore[method-assign]


def first_batch(precision: str, device: str, members: Sequence[int]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return logits (K, B, classes) and each parameter's gradients (K, ...) of these members at their first batch."""
    trials = [complete(configs(precision, device)[index]) for index in members]
    place = torch.device(device)
    data = get_data(trials[0].data, trials[0].recipe, trials[0].batch_size, device)
    with exact_arithmetic(place):
        module = ready_module(trials, data, place)
        own = [module.stack.member_tensors(index) for index in range(len(trials))]
        for tensors, trial in zip(own, trials, strict=True):
            _perturb(tensors, trial.seed)
        batch = module.transfer_batch_to_device(next(iter(data.train_batches(0))), place, 0)
        logits = module.forward(batch.images).detach().cpu()
        module.stack.clear_gradients()
        module.compute_gradients(batch)
    module.stack.share_gradients()
    names = [name for name, tensor in own[0].items() if tensor.grad is not None]
    return logits, {name: torch.stack([one[name].grad.cpu() for one in own]) for name in names}  # type: ignore[union-attr]


@torch.no_grad()
def _perturb(tensors: dict[str, torch.Tensor], seed: int) -> None:
    """Add noise to every parameter: a head of zeros would return logits of zero and hide all layers below it."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in tensors.values():
        if tensor.requires_grad:
            tensor += (NOISE * torch.randn(tensor.shape, generator=generator)).to(tensor.device)


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Return the largest difference as a share of the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def gradient_difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """Return the relative L2 difference over all gradients of all members together."""
    above = sum(float((ours[name] - theirs[name]).double().square().sum()) for name in theirs)
    below = sum(float(theirs[name].double().square().sum()) for name in theirs)
    return math.sqrt(above / below)


class TorchAttention(nn.Module):
    """A model with torch's own transformer layer, as users bring one: it calls torch's attention, not the library's."""

    def __init__(self, num_classes: int, image_size: int) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(image_size, 2, 32, dropout=0.0, batch_first=True)
        self.classifier = nn.Linear(image_size, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Attend among the rows of images (B, 1, S, S); return logits (B, classes)."""
        return self.classifier(self.layer(images[:, 0]).mean(1))


def _way(record: dict[str, Any]) -> str:
    return str(record["provenance"].get("training_step", "its parts"))


def _refused(call: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    raise RuntimeError("refused for the test")


class Smoke:
    """One run of the smoke test."""

    def __init__(self, device: str, path: Path, compiles: bool) -> None:
        self.device, self.path, self.compiles = device, path, compiles
        self.checks: list[Check] = []
        self.seconds: dict[str, float] = {}
        self.start = time.perf_counter()

    def run(self) -> bool:
        """Run every case; return whether every check holds."""
        print(describe(), flush=True)
        # Reference runs on the CPU go on in processes of their own meanwhile.
        threads = max(1, (os.cpu_count() or 1) // 4)
        with ProcessPoolExecutor(
            len(PRECISIONS), get_context("spawn"), initializer=torch.set_num_threads, initargs=(threads,)
        ) as pool:
            references = {one: pool.submit(run_pack, configs(one, "cpu")) for one in PRECISIONS}
            for precision in PRECISIONS:
                self._case(f"{precision}, first batch", self._first_batch, precision)
                self._case(f"{precision}, user's model", self._own_model, precision)
            for compiled in (False, True) if self.compiles else (False,):
                for precision in PRECISIONS:
                    case = f"{precision}{', compiled' if compiled else ''}"
                    self._case(case, self._pack, precision, compiled, references[precision])
        held = sum(check.holds for check in self.checks)
        print(f"{held} of {len(self.checks)} checks hold; {self._elapsed():.0f} s; {self.path} written")
        return held == len(self.checks)

    def _elapsed(self) -> float:
        return time.perf_counter() - self.start

    def _case(self, case: str, measure: Callable[..., None], *arguments: Any) -> None:
        """Run one case. An exception is a failed check, and the other cases go on."""
        start = time.perf_counter()
        try:
            measure(case, *arguments)
        except Exception as error:
            traceback.print_exc()
            self._add(case, "runs", f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}", None, False)
        self.seconds[case] = time.perf_counter() - start
        self._write()

    def _add(self, case: str, name: str, measured: str, limit: str | None, holds: bool) -> None:
        self.checks.append(Check(case, name, measured, limit, holds))
        mark = "ok  " if holds else "FAIL"
        beside = "" if limit is None else f"  (at most {limit})"
        print(f"[{self._elapsed():4.0f} s] {mark}  {case:24}  {name:44}  {measured}{beside}", flush=True)

    def _limit(self, case: str, name: str, measured: float, limit: float) -> None:
        self._add(case, name, f"{measured:.3g}", f"{limit:g}", measured <= limit)

    def _write(self) -> None:
        rows = [dataclasses.asdict(check) for check in self.checks]
        found = {"machine": describe(), "device": self.device, "seconds": self.seconds, "checks": rows}
        write_text(self.path, json.dumps(found, indent=1) + "\n")

    def _first_batch(self, case: str, precision: str) -> None:
        """Compare logits and gradients at equal weights: pack against pack on the CPU, pack against members alone."""
        every = [index for index in range(PACK_SIZE) if index != DIVERGING]
        logits, gradients = first_batch(precision, self.device, every)
        cpu_logits, cpu_gradients = first_batch(precision, "cpu", every)
        self._limit(case, "logits, pack against CPU", relative(logits, cpu_logits), LOGIT_LIMIT[precision])
        difference = gradient_difference(gradients, cpu_gradients)
        self._limit(case, "gradients, pack against CPU", difference, GRADIENT_LIMIT[precision])
        alone = [first_batch(precision, self.device, [index]) for index in every[:3]]
        own = torch.cat([one for one, _ in alone])
        self._limit(case, "logits, pack against alone", relative(logits[:3], own), LOGIT_LIMIT[precision])
        theirs = {name: torch.cat([one[name] for _, one in alone]) for name in gradients}
        ours = {name: one[:3] for name, one in gradients.items()}
        difference = gradient_difference(ours, theirs)
        self._limit(case, "gradients, pack against alone", difference, GRADIENT_LIMIT[precision])

    def _own_model(self, case: str, precision: str) -> None:
        """Train a pack of a user's model, which calls torch's attention under vmap."""
        model = {"_target_": "benchmarks.gpu_smoke.TorchAttention", "name": "torch_attention"}
        trials = [config | {"model": model, "lr": 1e-3, "epochs": 1} for config in configs(precision, self.device)]
        losses = [record["result"]["curve"][0]["train_loss"] for record in run_pack(trials).records]
        self._add(case, "torch's attention in a pack trains", f"loss {statistics.mean(losses):.3f}", None, True)

    def _pack(self, case: str, precision: str, compiled: bool, reference: Future[Outcome]) -> None:
        """Train the pack to its end, and once more with a Ctrl-C after its first epoch."""
        trials = configs(precision, self.device, compiled)
        whole = run_pack(trials)
        self._add(case, "seconds of training", f"{whole.seconds:.1f}", None, True)
        self._statuses(case, whole)
        # What is compiled moves to a smaller stack only where that pays for compiling it.
        shrinks = whole.sizes == [PACK_SIZE // 2]
        self._add(case, "stack shrinks", f"{PACK_SIZE} -> {whole.sizes or PACK_SIZE}", None, shrinks or compiled)
        if compiled:
            count = sum(bool(record["provenance"].get("compiled")) for record in whole.records)
            self._add(case, "records that say compiled", f"{count} of {PACK_SIZE}", None, count == PACK_SIZE)
            self._whole_step(case, trials, whole)
        self._against_cpu(case, precision, whole, reference.result())
        with tempfile.TemporaryDirectory(prefix="gpu-smoke-") as folder:
            self._resume(case, trials, whole, Path(folder))

    def _whole_step(self, case: str, trials: Sequence[dict[str, Any]], whole: Outcome) -> None:
        """Check that steps were replayed as one graph, and that a pack goes on where none can be captured."""
        # One that diverges in its first steps has its record before anything is captured.
        ways = Counter(_way(record) for index, record in enumerate(whole.records) if index != DIVERGING)
        text = ", ".join(f"{count} by {way}" for way, count in ways.items())
        wanted = {"one CUDA graph"} if self.device == "cuda" else {"its parts"}
        self._add(case, "the step was taken", text, None, set(ways) == wanted)
        with patch.object(whole_step, "captured", _refused):
            others = run_pack(trials)
        ways = Counter(_way(record) for index, record in enumerate(others.records) if index != DIVERGING)
        wanted = {"one compiled function"} if self.device == "cuda" else {"its parts"}
        text = ", ".join(f"{count} by {way}" for way, count in ways.items())
        self._add(case, "the step was taken, where no graph can be captured", text, None, set(ways) == wanted)
        pairs = zip(whole.records, others.records, strict=True)
        equal = sum(one["result"] == other["result"] for one, other in pairs)
        self._add(
            case, "results without a graph equal those with it", f"{equal} of {PACK_SIZE}", None, equal == PACK_SIZE
        )

    def _statuses(self, case: str, whole: Outcome) -> None:
        statuses = [record["status"] for record in whole.records]
        expected = ["diverged" if index == DIVERGING else "completed" for index in range(PACK_SIZE)]
        step = whole.records[DIVERGING]["result"]["diverged_step"]
        self._add(case, "one member diverges, the others complete", f"at step {step}", None, statuses == expected)
        errors = [one["result"]["top1_error"] for one in whole.records if one["status"] == "completed"]
        chance = 90.0
        text = f"{min(errors):.1f} to {max(errors):.1f} %"
        self._add(case, "top-1 errors, evaluated every epoch", text, None, min(errors) < chance)

    def _against_cpu(self, case: str, precision: str, whole: Outcome, cpu: Outcome) -> None:
        pairs = [(ours["result"], theirs["result"]) for ours, theirs in zip(whole.records, cpu.records, strict=True)]
        steps = [theirs["diverged_step"] for _, theirs in pairs]
        here = [ours["diverged_step"] for ours, _ in pairs]
        same = [step is None for step in here] == [step is None for step in steps]
        # A GPU may overflow a step earlier or later than the CPU: both have diverged, and that is what counts.
        self._add(
            case, "steps diverged at, here and on the CPU", f"{here[DIVERGING]} and {steps[DIVERGING]}", None, same
        )
        done = [(ours, theirs) for ours, theirs in pairs if theirs["diverged_step"] is None]
        losses = [(ours["curve"][0]["train_loss"], theirs["curve"][0]["train_loss"]) for ours, theirs in done]
        worst = max(abs(ours - theirs) / theirs for ours, theirs in losses)
        self._limit(case, "first epoch's loss against CPU, relative", worst, LOSS_LIMIT[precision])
        moved = statistics.mean(abs(ours["top1_error"] - theirs["top1_error"]) for ours, theirs in done)
        self._add(case, "last error against CPU, points in the mean", f"{moved:.2f}", None, True)

    def _resume(self, case: str, trials: Sequence[dict[str, Any]], whole: Outcome, folder: Path) -> None:
        # The member that diverges has its record before the checkpoint: a study resumes the others.
        rest = [trial for index, trial in enumerate(trials) if index != DIVERGING]
        for number in range(len(rest)):
            (folder / str(number)).mkdir()
        try:
            run_pack(rest, folder, stop_after=1)
        except KeyboardInterrupt:
            pass
        else:
            self._add(case, "stops at Ctrl-C", "it went on to its end", None, False)
            return
        resumed = run_pack(rest, folder)
        count = resumed.events.count("resumed")
        self._add(case, "resumes from checkpoints", f"{count} of {len(rest)}", None, count == len(rest))
        expected = {record["id"]: record["result"] for record in whole.records}
        equal = sum(record["result"] == expected[record["id"]] for record in resumed.records)
        self._add(case, "results equal the uninterrupted run's", f"{equal} of {len(rest)}", None, equal == len(rest))


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser("python -m benchmarks.gpu_smoke", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try the script itself")
    parser.add_argument("--json", type=Path, default=Path("gpu_smoke.json"), help="where the results go")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="compiled packs too")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda, but torch sees no GPU here; accepted: --device cpu")
    if not options.json.absolute().parent.is_dir():
        parser.error(f"--json {options.json}: there is no such folder")
    sys.exit(0 if Smoke(options.device, options.json, options.compile).run() else 1)


if __name__ == "__main__":
    main()
