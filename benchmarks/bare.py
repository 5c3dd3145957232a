"""The bare training loop: what a trial costs with nothing around it. The yardstick of every other benchmark here."""

from __future__ import annotations

import math
import os
import sys
import time
from typing import Any

import torch
from torch import nn

from stability.config import TrialConfig, parse_trial
from stability.data import get_data
from stability.models import build_model
from stability.training.defaults import complete

# Of sweeps/quick.yaml: epochs; steps in one, and batches of an evaluation.
QUICK_EPOCHS = 6
QUICK_STEPS, QUICK_EVALUATION_BATCHES = 22, 6


def train_bare(config: TrialConfig) -> float:
    """Train one trial with nothing but torch and return its top-1 error in percent; evaluates after every epoch."""
    data = get_data(config.data, config.recipe, config.batch_size)
    torch.manual_seed(config.seed)
    info = data.info
    model = build_model(config.model, image_size=info.image_size, channels=info.channels, num_classes=info.num_classes)
    optimizer = make_optimizer(model, config)
    steps = config.epochs * data.steps_per_epoch
    warmup = config.warmup_epochs * data.steps_per_epoch
    error, step = 100.0, 0
    for epoch in range(config.epochs):
        model.train()
        for batch in data.train_batches(epoch):
            set_lr(optimizer, config.scaled_lr * lr_factor(step, steps, warmup))
            loss = nn.functional.cross_entropy(model(batch.images), batch.targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        error = evaluate(model, data)
    return error


def make_optimizer(model: nn.Module, config: TrialConfig) -> torch.optim.Optimizer:
    """Return AdamW or SGD, fused as the harness has it, over two groups: decayed, and not (norm gains and biases)."""
    # One-dimensional parameters are the norm gains and biases of every model here.
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.wd}, {"params": others, "weight_decay": 0.0}]
    if config.optimizer["name"] == "sgd":
        return torch.optim.SGD(groups, lr=config.scaled_lr, momentum=0.9, fused=True)
    return torch.optim.AdamW(groups, lr=config.scaled_lr, fused=True)


def lr_factor(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up, then half a cosine: the share of the peak lr at `step`."""
    if step < warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, steps - warmup)))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the lr of every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


@torch.no_grad()
def evaluate(model: nn.Module, data: Any) -> float:
    """Return the top-1 error in percent over the evaluation images."""
    model.eval()
    wrong = total = 0
    for batch in data.eval_batches():
        wrong += int((model(batch.images).argmax(1) != batch.targets).sum())
        total += len(batch.targets)
    return 100 * wrong / total


def quick_trial(model: str, optimizer: str, seed: int, **overrides: Any) -> TrialConfig:
    """Return a trial of the quick study's cell (model, optimizer), at an lr where it trains; deterministic."""
    lr = {"adamw": 3e-3, "sgd": 3e-2}[optimizer]
    quick: dict[str, Any] = {
        "model": model,
        "optimizer": optimizer,
        "lr": lr,
        "seed": seed,
        "epochs": QUICK_EPOCHS,
        "device": "cpu",
    }
    return complete({**quick, **overrides})


def main() -> None:
    """Train the trials read from standard input (one JSON configuration a line) one after another."""
    import json

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    configs = [parse_trial(json.loads(line)) for line in sys.stdin]
    start = time.perf_counter()
    for config in configs:
        train_bare(config)
    print(f"{time.perf_counter() - start:.3f}")


if __name__ == "__main__":
    main()
