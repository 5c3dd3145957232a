"""What part of an epoch of CIFAR-10 is evaluation."""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.packs import MODELS
from benchmarks.roofline.counting import Device, Totals, Trace
from benchmarks.roofline.tracing import AVERAGE, FIRST, LATER, trace_evaluation
from stability.training.evaluation import BATCHES_AT_ONCE

TRAIN_IMAGES, EVAL_IMAGES, SIDE = 50_000, 10_000, 32


class Share(NamedTuple):
    """Of an epoch's steps and its evaluation, the part that is evaluation: of the predicted time and of the bytes."""

    seconds: float
    bytes: float


def evaluation_share(step: Trace, evaluation: Trace, batch_size: int, device: Device) -> Share:
    """Return the part of an epoch that is evaluation.

    Args:
        step: from `trace_step`; the averages, which are updated every 32nd step at most, are left out.
        evaluation: from `trace_evaluation`, of BATCHES_AT_ONCE training batches.
        batch_size: of the step.
        device: gives the times.
    """
    phases = evaluation.totals(device)
    first, later = phases[FIRST], phases[LATER]
    others = EVAL_IMAGES / (BATCHES_AT_ONCE * batch_size) - 1
    steps = TRAIN_IMAGES // batch_size
    whole = Totals()
    for name, one in step.totals(device).items():
        if name != AVERAGE:
            whole += one
    found = []
    for trained, prepared, evaluated in (
        (whole.seconds, first.seconds, later.seconds),
        (whole.bytes, first.bytes, later.bytes),
    ):
        spent = prepared + others * evaluated
        found.append(spent / (spent + steps * trained))
    return Share(*found)


def evaluation_shares(
    step: Trace, model: str, size: int, batch_size: int, precision: str, device: Device
) -> dict[str, Share]:
    """Return the part of an epoch that is evaluation, with averages and without; of a model of other images nothing.

    Args:
        step: from `trace_step` of what follows.
        model: a name of `benchmarks.packs.MODELS`.
        size: the number of members.
        batch_size: images.
        precision: bf16 or float32.
        device: gives the times.
    """
    if MODELS[model][0] != SIDE:
        return {}
    found = {}
    for name, ema in (("with averages", True), ("without", False)):
        evaluation = trace_evaluation(model, size, BATCHES_AT_ONCE * batch_size, precision, ema=ema)
        found[name] = evaluation_share(step, evaluation, batch_size, device)
    return found
