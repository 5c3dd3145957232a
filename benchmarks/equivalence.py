"""Do packs change a study? Packed against alone, beside what an initialisation changed by 1e-7 does.

    python -m stability.run -m sweeps=quick study=quick-packed pack.size=4
    python -m benchmarks.equivalence runs/quick runs/quick-packed --out docs/figures/packs

Training amplifies rounding, so a trial's error moves when anything does. The alone study's trials are therefore trained
once more from weights that are each changed by a factor of 1 + 1e-7 z, z drawn from a standard normal distribution, and
the packed study's differences are to be no larger than those. Writes packs.png, packs.pdf, packs.csv (a row per trial)
and packs.txt, which is what is printed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.machine import describe
from stability.execute.layout import plan_layout
from stability.files import write_atomic, write_text
from stability.study.metrics import metrics_of
from stability.study.store import Study

RELATIVE_CHANGE = 1e-7
DRAWS = 10_000


def perturbed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Train a trial from weights changed by RELATIVE_CHANGE; return its status and top-1 error."""
    import torch

    from stability.training import trial as training

    build = training.build

    def changed(*arguments: Any) -> torch.nn.Module:
        model = build(*arguments)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1 + RELATIVE_CHANGE * torch.randn(parameter.shape, generator=generator))
        return model

    torch.set_num_threads(1)
    training.build = changed  # type: ignore[assignment]
    try:
        record = training.train(config)
    finally:
        training.build = build
    return {"status": record.status, "top1_error": record.result.value("top1_error")}


def collect(alone: Path, packed: Path) -> pd.DataFrame:
    """Return a row per trial that both studies hold: its cell, and status and error alone, packed and perturbed."""
    study = Study.open(alone)
    ours, theirs = study.records, Study.open(packed).records
    trials = [trial for trial in study.trials if trial.id in ours and trial.id in theirs]
    configs = [{**study.cells[trial.cell].config, **trial.point} for trial in trials]
    metric = metrics_of().primary.key
    rows = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(plan_layout(None, 1, wants_gpu=False).size, mp_context=context) as pool:
        for trial, moved in zip(trials, pool.map(perturbed, configs), strict=True):
            factors = study.cells[trial.cell].factors
            row = {"id": trial.id, "model": factors["model"], "optimizer": factors["optimizer"]}
            for name, record in (("alone", ours[trial.id]), ("packed", theirs[trial.id])):
                row |= {f"{name}_status": record.status, f"{name}_error": record.result.value(metric)}
            row |= {"perturbed_status": moved["status"], "perturbed_error": moved["top1_error"]}
            rows.append(row)
            print(f"{len(rows)} of {len(trials)} trained again", end="\r", file=sys.stderr, flush=True)
    return pd.DataFrame(rows)


def summary(trials: pd.DataFrame) -> str:
    """Return a table per cell of how far errors moved, and whether packing moved them further than the perturbation."""
    lines = [
        "difference of a trial's top-1 error from the study alone, in points: mean (median, largest) of its size",
        "",
    ]
    lines.append(f"{'cell':20} {'n':>3}  {'packed':22} {'weights changed by 1e-7':24} {'flips of diverged':18}")
    for (model, optimizer), cell in trials.groupby(["model", "optimizer"], sort=False):
        sizes = [_sizes(cell, name) for name in ("packed", "perturbed")]
        shown = [f"{one.mean():.2f} ({np.median(one):.2f}, {one.max():.2f})" for one in sizes]
        flips = [int((cell[f"{name}_status"] != cell["alone_status"]).sum()) for name in ("packed", "perturbed")]
        lines.append(
            f"{f'{model} {optimizer}':20} {len(cell):>3}  {shown[0]:22} {shown[1]:24} {flips[0]} and {flips[1]}"
        )
    packed, moved = _sizes(trials, "packed"), _sizes(trials, "perturbed")
    excess = packed - moved
    low, high = _interval(excess)
    larger, smaller = int((excess > 0).sum()), int((excess < 0).sum())
    lines += [
        "",
        f"All {len(excess)}: packing moves an error by {packed.mean():.2f} points in the mean, the perturbation by "
        f"{moved.mean():.2f};",
        f"the difference is {excess.mean():.2f} points (95 %, bootstrap over trials: {low:.2f} to {high:.2f}); "
        f"packing moved {larger} further, the perturbation {smaller}.",
        f"Signed, packing moves the mean error by {_signed(trials):.2f} points.",
    ]
    return "\n".join(lines) + "\n"


def _sizes(trials: pd.DataFrame, name: str) -> np.ndarray:
    """Return how far errors moved, in points; a trial that diverged counts as 100 %."""
    errors = [trials[f"{one}_error"].astype(float).fillna(100.0).to_numpy() for one in (name, "alone")]
    return np.abs(errors[0] - errors[1])


def _signed(trials: pd.DataFrame) -> float:
    return float((trials["packed_error"].astype(float) - trials["alone_error"].astype(float)).mean())


def _interval(values: np.ndarray) -> tuple[float, float]:
    generator = np.random.default_rng(0)
    means = generator.choice(values, (DRAWS, len(values))).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def figure(trials: pd.DataFrame) -> dict[str, bytes]:
    """Return the EDFs alone, packed and perturbed, a panel per cell, as PNG and PDF."""
    from matplotlib.figure import Figure

    from analysis.figures import print_style, rendered
    from analysis.style import BLUE, COLUMN, GREY, VERMILION, model_name, optimizer_name

    ways = (("alone", BLUE, "-"), ("packed", VERMILION, (0, (4, 1.2))), ("perturbed", GREY, (0, (1, 1))))
    cells = list(trials.groupby(["model", "optimizer"], sort=False))
    with print_style():
        drawing = Figure(figsize=(2 * COLUMN, 2.2 * -(-len(cells) // 2)), layout="constrained")
        panels = drawing.subplots(-(-len(cells) // 2), 2, squeeze=False).flatten()
        for axes, ((model, optimizer), cell) in zip(panels, cells, strict=False):
            for name, colour, line in ways:
                errors = np.sort(cell[f"{name}_error"].astype(float).fillna(np.inf).to_numpy())
                axes.step(
                    errors, np.arange(1, len(errors) + 1) / len(cell), where="post", color=colour, ls=line, label=name
                )
            axes.set(title=f"{model_name(str(model))}, {optimizer_name(str(optimizer))}", ylim=(0, 1.02))
            axes.set(xlabel="top-1 error (%)", ylabel="share of trials (EDF)")
            axes.grid(color="#DDDDDD", linewidth=0.4)
        panels[0].legend(frameon=False, loc="lower right")
        return {f"packs.{kind}": rendered(drawing, kind) for kind in ("png", "pdf")}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the alone study's trials again, compare, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("alone", type=Path)
    parser.add_argument("packed", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    trials = collect(options.alone, options.packed)
    text = f"{describe()}\n\n{summary(trials)}"
    options.out.mkdir(parents=True, exist_ok=True)
    for name, content in figure(trials).items():
        write_atomic(options.out / name, lambda file, content=content: file.write(content))  # type: ignore[misc]
    write_text(options.out / "packs.csv", trials.to_csv(index=False))
    write_text(options.out / "packs.txt", text)
    print(text)


if __name__ == "__main__":
    main()
