"""Tables 2, 3 and 5 as the paper has them: a row per model, stem or recipe, schedules and optimizers side by side."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from analysis.analysis import Analysis
from analysis.paper.conditions import image_size, is_pretrained
from analysis.paper.differences import between_optimizers, values_of
from analysis.paper.published import BATCHES, SOURCE, published_counts, published_minutes
from analysis.paper.rows import EpochTime, Row, rows, timed
from analysis.paper.stems import STEM_COLUMNS, stem_values
from analysis.paper.tables import PUBLISHED, Column, Table
from analysis.reached import Kind, base_of, epochs_of
from analysis.results import CellResults
from analysis.style import optimizer_name
from stability.models.published import NEAREST
from stability.study.metrics import metrics_of
from stability.study.schema import Scalar
from stability.values import group

COSTS = (("multiply_adds", "flops (B)", 1e9, 1), ("params", "params (M)", 1e6, 1), ("activations", "acts (M)", 1e6, 1))
# Parts of a recipe, as table 5 has them.
PARTS = {
    "augment": "augment",
    "mixup": "mixup",
    "cutmix": "CutMix",
    "label_smoothing": "label smoothing",
    "ema": "EMA",
    "erasing": "erasing",
    "stochastic_depth": "stochastic depth",
    "repeats": "repeated augmentation",
}
KINDS: Mapping[Kind, str] = {
    "peak": "Peak: mean of reruns of the best setting found.",
    "seeds": "Seeds: mean over the seeds of the best setting, which the same seeds chose.",
    "one run": "One run each: no interval.",
    "best seen": "Best of several runs: too low by luck.",
}
Values = dict[str, Scalar]


def peaks_table(analysis: Analysis) -> Table:
    """Return a row per model: its cost, the measured time of an epoch, errors by epochs, and after pre-training."""
    found = {row.cell: row for row in rows(analysis, "table2")}
    times = {one.cell: one for one in timed(analysis)}
    scratch = [cell for cell in analysis.cells if not is_pretrained(cell)]
    tuned = {cell: row for cell, row in found.items() if is_pretrained(cell)}
    lengths = sorted({epochs_of(cell) for cell in scratch})
    names = _row_factors(scratch or analysis.cells, ("epochs",))
    groups = _groups(scratch, names)
    for cell in tuned:
        if all(cell.model != own[0].model for own in groups):
            groups.append([cell])
    written = []
    for own in groups:
        same = [row for cell, row in tuned.items() if cell.model == own[0].model]
        fresh = [found[cell] for cell in own if cell not in tuned]
        values = {name: own[0].factors.get(name) for name in names} | _costs(own, times)
        values |= _by_epochs(fresh) | _after_pretraining(same)
        written.append(values | _diverged([*fresh, *same], "epochs"))
    # Batches have a column of their own.
    columns = [
        *(Column(name, name) for name in names if name != "batch_size"),
        *_cost_columns(),
        *_epoch_columns(lengths),
    ]
    columns += _pairs("error_21k", "21k") if tuned else []
    has_nearest = any(own[0].model in NEAREST and published_counts(own[0]) for own in groups)
    nearest = ["RegNetY and RegNetZ are timm's nearest models."] if has_nearest else []
    seconds = ["Seconds of an epoch: measured, evaluation included, of one process among all at work."]
    return _table(columns, written, list(found.values()), [*seconds, *nearest])


def stems_table(analysis: Analysis) -> Table:
    """Return a row per stem: its layers and multiply-adds, the error of each optimizer, and their difference."""
    found = {row.cell: row for row in rows(analysis, "table3")}
    return _optimizers_table(analysis, found, {cell: stem_values(cell) for cell in analysis.cells}, STEM_COLUMNS)


def optimizers_table(analysis: Analysis) -> Table:
    """Return a row per model and schedule: the error of each optimizer, and their difference (figure 3)."""
    found = {row.cell: row for row in rows(analysis, "fig3")}
    return _optimizers_table(analysis, found, {}, [])


def _optimizers_table(
    analysis: Analysis,
    found: Mapping[CellResults, Row],
    more: Mapping[CellResults, Values],
    more_columns: Sequence[Column],
) -> Table:
    """Return a table with optimizers side by side.

    Args:
        analysis: of the cells.
        found: a row for each cell.
        more: further values of cells; of a row the first cell's stand.
        more_columns: their columns.
    """
    gaps, digits = between_optimizers(list(found.values()), analysis), metrics_of().primary.digits
    names = _row_factors(analysis.cells, ("optimizer",), always=("epochs",))
    optimizers = list(dict.fromkeys(cell.optimizer for cell in analysis.cells))
    columns = [*(Column(name, name) for name in names), *more_columns]
    for optimizer in optimizers:
        columns += _pairs(f"error_{optimizer}", optimizer_name(optimizer))
    written, pairs = [], dict[str, str]()
    for own in _groups(analysis.cells, names):
        base = base_of(own)
        values = {name: own[0].factors.get(name) for name in names} | dict(more.get(own[0], {}))
        for cell in own:
            values |= _error(f"error_{cell.optimizer}", found[cell])
            if cell is base:
                continue
            key = f"{cell.optimizer}_minus_{base.optimizer}"
            pairs[key] = f"{optimizer_name(cell.optimizer)} minus {optimizer_name(base.optimizer)}"
            values |= dict(values_of(gaps.get(cell), key)) | _published_gap(key, found[cell], found[base])
        written.append(values | _diverged([found[cell] for cell in own], "optimizer"))
    for key, heading in pairs.items():
        columns += [Column(key, heading, digits), Column(f"{key}_from", "from", digits)]
        columns += [Column(f"{key}_to", "to", digits), Column(f"{key}_{PUBLISHED}", PUBLISHED, 1)]
    gone = ["A difference with a diverged run is, as in the paper, of the best error of a shorter schedule."]
    return _table(columns, written, list(found.values()), gone if _any_diverged(found.values()) else [])


def recipes_table(analysis: Analysis) -> Table:
    """Return a row per model and recipe: the recipe's parts, and errors by epochs."""
    found = {row.cell: row for row in rows(analysis, "table5")}
    lengths = sorted({epochs_of(cell) for cell in analysis.cells})
    names = _row_factors(analysis.cells, ("epochs",))
    written = []
    for own in _groups(analysis.cells, names):
        recipe = group(own[0].config, "recipe")
        parts = {name: _part(recipe.get(name)) for name in PARTS}
        of_row = [found[cell] for cell in own]
        values = {name: own[0].factors.get(name) for name in names} | parts
        written.append(values | _by_epochs(of_row) | _diverged(of_row, "epochs"))
    columns = [Column(name, name) for name in names] + [Column(name, heading) for name, heading in PARTS.items()]
    return _table([*columns, *_epoch_columns(lengths)], written, list(found.values()), [])


def _table(columns: Sequence[Column], written: Sequence[Values], found: Sequence[Row], notes: Sequence[str]) -> Table:
    """Return a table without the columns that only published numbers or diverged runs fill, where there are none."""
    optional = {column.key for column in columns if column.key.endswith((PUBLISHED, "_from", "_to"))}
    filled = {key for values in written for key, value in values.items() if value is not None}
    kept = [column for column in columns if column.key not in optional or column.key in filled]
    kinds = {row.kind for row in found if row.kind}
    own = [" ".join(["Errors in percent.", *(words for kind, words in KINDS.items() if kind in kinds)])]
    own += [SOURCE] if any(column.key.endswith(PUBLISHED) for column in kept) else []
    if _any_diverged(found):
        kept = [*kept, Column("diverged", "diverged")]
    return Table(kept, written, [*own, *notes])


def _any_diverged(found: Iterable[Row]) -> bool:
    return any(row.diverged for row in found)


def _row_factors(cells: Sequence[CellResults], without: Sequence[str], always: Sequence[str] = ()) -> list[str]:
    """Return the factors that name a row: the model, and what varies.

    Args:
        cells: of the table.
        without: factors that have columns.
        always: factors that are named even where they have one value.
    """
    every = dict.fromkeys(name for cell in cells for name in cell.factors)
    varying = [name for name in every if len({str(cell.factors.get(name)) for cell in cells}) > 1]
    return [name for name in every if name not in without and (name in ("model", *always) or name in varying)]


def _groups(cells: Sequence[CellResults], names: Sequence[str]) -> list[list[CellResults]]:
    groups: dict[tuple[Scalar, ...], list[CellResults]] = {}
    for cell in cells:
        groups.setdefault(tuple(cell.factors.get(name) for name in names), []).append(cell)
    return list(groups.values())


def _pairs(key: str, heading: str) -> list[Column]:
    """Return the columns of an error and of the published one."""
    return [Column(key, heading, metrics_of().primary.digits), Column(f"{key}_{PUBLISHED}", PUBLISHED, 1)]


def _epoch_columns(lengths: Sequence[int]) -> list[Column]:
    return [column for epochs in lengths for column in _pairs(f"error_{epochs}", f"{epochs} epochs")]


def _error(key: str, row: Row) -> Values:
    """Return an error and the published one. That of a diverged run is left out: it has none."""
    return {key: None if row.diverged else row.error, f"{key}_{PUBLISHED}": row.published}


def _by_epochs(found: Sequence[Row]) -> Values:
    values: Values = {}
    for row in found:
        values |= _error(f"error_{epochs_of(row.cell)}", row)
    return values


def _after_pretraining(found: Sequence[Row]) -> Values:
    """Return the error after pre-training, at the smallest image size where a model was tuned at several."""
    if not found:
        return {}
    sizes = [size for row in found if isinstance(size := image_size(row.cell), int)]
    own = [row for row in found if not sizes or image_size(row.cell) == min(sizes)]
    return _error("error_21k", min(own, key=lambda row: (row.error is None, row.error or 0.0)))


def _diverged(found: Sequence[Row], factor: str) -> Values:
    """Return which values of a factor diverged."""
    return {"diverged": ", ".join(str(row.cell.factors.get(factor)) for row in found if row.diverged) or None}


def _cost_columns() -> list[Column]:
    columns = []
    for key, heading, _, digits in COSTS:
        own = Column(key, heading, digits, keeps_small=True)
        columns += [own, Column(f"{key}_{PUBLISHED}", PUBLISHED, digits)]
    columns += [
        Column("seconds", "seconds an epoch", 1),
        Column(f"seconds_{PUBLISHED}", f"{PUBLISHED}, minutes on 8 V100s", 1),
    ]
    return [*columns, Column("batch", "batch", 0), Column(f"batch_{PUBLISHED}", PUBLISHED, 0)]


def _costs(own: Sequence[CellResults], times: Mapping[CellResults, EpochTime]) -> Values:
    """Return what the model of some cells costs, with the published numbers of the same model and images."""
    found, printed = [times[cell] for cell in own], published_counts(own[0])
    counts = next((one.counts for one in found if one.counts), None)
    seconds = [one.seconds for one in found if one.seconds is not None]
    batch = own[0].config.get("batch_size")
    values: Values = {"seconds": statistics.median(seconds) if seconds else None}
    values |= {f"seconds_{PUBLISHED}": published_minutes(own[0]), "batch": batch if isinstance(batch, int) else None}
    values |= {f"batch_{PUBLISHED}": BATCHES.get(own[0].model) if printed else None}
    for key, _, unit, _ in COSTS:
        values[key] = getattr(counts, key) / unit if counts else None
        values[f"{key}_{PUBLISHED}"] = getattr(printed, key) if printed else None
    return values


def _published_gap(key: str, row: Row, base: Row) -> Values:
    """Return the difference of two published errors."""
    if row.published is None or base.published is None:
        return {}
    return {f"{key}_{PUBLISHED}": round(row.published - base.published, 1)}


def _part(value: object) -> Scalar:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, (str, int, float)) else None
