"""The benchmark's results as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Summary = dict[str, Any] | None
PART_HEADS = {"data": "data", "forward and backward": "fwd+bwd", "update": "update", "whole": "sum"}
PART_HEADS |= {"host": "host", "kernels": "kernels"}


def number(value: float) -> str:
    """Return a number with three significant digits, or all those before the point: 0.0123, 1.23, 12.3, 12345."""
    for digits, least in ((0, 99.95), (1, 9.995), (2, 0.9995)):
        if abs(value) >= least:
            return f"{value:.{digits}f}"
    return f"{value:.3g}"


def spread(summary: Summary, factor: float = 1.0) -> str:
    """Return `median (min to max)`, or a dash."""
    if summary is None:
        return "-"
    middle, least, most = (number(summary[name] * factor) for name in ("median", "min", "max"))
    return middle if len(summary["rounds"]) == 1 else f"{middle} ({least} to {most})"


def median(summary: Summary, factor: float = 1.0) -> str:
    """Return the median, or a dash."""
    return "-" if summary is None else number(summary["median"] * factor)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows in columns as wide as they need, the first flush left and the others flush right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        first, *others = zip(row, widths, strict=True)
        return "  ".join(["", first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]).rstrip()

    return "\n".join(map(line, [head, *rows]))


def work_title(work: dict[str, Any]) -> str:
    """Return a line that says what was trained."""
    published = work["published_multiply_adds"]
    beside = f" (published with all tokens: {number(published / 1e6)} M)" if published else ""
    images = {"random": "random images", "cifar": "CIFAR-10", "jpegs": "JPEG files"}[work["images"]]
    return (
        f"{work['model']}, {work['image_size']} px, batch {work['batch_size']}, {work['precision']}, {images}; "
        f"{number(work['multiply_adds'] / 1e6)} M multiply-adds an image{beside}"
    )


def rates_table(work: dict[str, Any]) -> str:
    """Return how fast the contestants were, and what memory they took.

    "x default": times one trial alone that torch.compile's default mode compiled; "x compiled": in its best mode.
    """
    head = ["", "K", "trial-images/s", "ms a step", "x alone", "x default", "x compiled", "MFU %", "MB"]
    rows = []
    for one in work["contestants"]:
        name = f"{one['processes']} processes at once" if one["processes"] > 1 else one["name"]
        values = [name, str(one["size"])]
        if one["images_per_second"] is None:
            rows.append([*values, one["note"] or "-", *[""] * (len(head) - 3)])
            continue
        values += [spread(one["images_per_second"]), median(one["seconds_per_step"], 1e3)]
        values += [median(one[f"over_{name}"]) for name in ("alone", "default", "compiled")]
        values.append(median(one["mfu"], 100))
        peak = one["peak_memory"]
        rows.append([*values, "-" if peak is None else f"{peak / 1e6:.0f}"])
    return table(head, rows)


def parts_table(work: dict[str, Any]) -> str:
    """Return where a step's time goes, in milliseconds; empty where nothing was timed part by part."""
    timed = [one for one in work["contestants"] if one["parts"] is not None]
    parts = [name for name in PART_HEADS if any(one["parts"].get(name) for one in timed)]
    head = ["ms of a step", "K", "as it runs", *(PART_HEADS[name] for name in parts)]
    rows = [
        [one["name"], str(one["size"]), median(one["seconds_per_step"], 1e3)]
        + [median(one["parts"].get(name), 1e3) for name in parts]
        for one in timed
    ]
    notes = sorted({one["kernels_note"] for one in timed if one.get("kernels_note")})
    return "\n".join([table(head, rows), *(f"  kernels: {note}" for note in notes)]) if rows else ""


def decodes_line(work: dict[str, Any]) -> str:
    """Return a line of how many images are decoded, where they are."""
    if work["images"] != "jpegs":
        return ""
    counts = ", ".join(f"{count:.4g} (K = {size})" for size, count in work["decodes_per_trial_image"].items())
    recipe = "" if work["augments"] else "; no AutoAugment here (torchvision is missing)"
    return f"  images decoded per trial-image: {counts}; {work['workers']} workers, {work['files']}{recipe}"


def fastest(work: dict[str, Any]) -> str:
    """Return a line that names the way with the highest median rate."""
    ran = [one for one in work["contestants"] if one["images_per_second"] is not None and one["name"] != "pipeline"]
    if not ran:
        return ""
    best = max(ran, key=lambda one: one["images_per_second"]["median"])
    where = f" in each of {best['processes']} processes" if best["processes"] > 1 else ""
    name = "pack" if best["processes"] > 1 else best["name"]
    return f"  fastest: {name}, K = {best['size']}{where}"


def aims_table(aims: Sequence[dict[str, Any]]) -> str:
    """Return what was aimed at and what was measured; empty where nothing of it was."""
    rows = [
        [one["what"], number(one["aim"]), number(one["measured"]), "yes" if one["reached"] else "no"] for one in aims
    ]
    return table(["aim", "", "measured", "reached"], rows) if rows else ""
