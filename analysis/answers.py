"""What is stated of cells and of pairs of cells: numbers with their certainty, and one plain sentence.

Words: level is the error over the search range, peak the error of the best setting by reruns of it, regret a point's
error minus the peak, sensitivity regret divided by chance minus peak. "Easier to optimise" means lower typical regret
and sensitivity; "better" means a lower peak or level. The two are never mixed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from analysis.compute import contrasts, measures
from analysis.compute.intervals import Interval, holm, mcnemar
from analysis.results import CellResults, Pair, TrialResult, finished_pairs, planned_pairs

# Points from the reference within which the share of trials is counted.
WITHIN = (1.0, 2.0, 4.0)
# A best point in this outer part of a range: the optimum may lie beyond.
EDGE = 0.1
# A longer schedule that gains more than this share of chance minus best is told of first.
GAIN = 0.1
QUANTITIES = ("level", "spread", "collapses", "peak", "regret", "sensitivity")


@dataclass(frozen=True)
class Statement:
    """What is known of one cell.

    Attributes:
        cell: the cell.
        best: the lowest error seen, which is below the peak by luck; None where nothing completed.
        median: of the errors.
        spread: of the errors over the range.
        within: share of trials within so many points of the reference, by the number of points.
        reference: what `within` and `tries` are relative to: the peak where there is one, else the best seen.
        collapses: trials that diverged or are no better than guessing.
        tries: random settings that it takes to come within `WITHIN[-1]` points of the reference.
        mean: over the range, collapses at chance, with its guarded interval.
        lr_range: width of the good lrs in factors of two; None where lr was not listed.
        peak: by reruns of the best setting; None without reruns.
        gain: points by which twice the epochs at the best setting lower the error; None: not tried.
        edges: coordinates whose best value lies in the outer tenth of the range.
    """

    cell: CellResults
    best: float | None
    median: float
    spread: measures.Spread
    within: dict[float, float]
    reference: float | None
    collapses: measures.Collapses
    tries: Interval
    mean: Interval
    lr_range: float | None
    peak: measures.Peak | None
    gain: float | None
    edges: tuple[str, ...]

    @property
    def has_learned(self) -> bool:
        """Whether the gate is open: statements on regret, sensitivity and spread need a model that has learned."""
        return self.best is not None and measures.has_learned(self.best, self.cell.chance)

    @property
    def needs_longer(self) -> bool:
        """Whether a longer schedule gains so much that statements on this one come second."""
        room = self.cell.chance - (self.best or 0.0)
        return self.gain is not None and self.gain > GAIN * room


def statement(cell: CellResults, confidence: float, reference: float | None = None) -> Statement | None:
    """Return what is known of a cell; None where no trial has ended.

    Args:
        cell: with its trials.
        confidence: of intervals, between 0 and 1.
        reference: an error in percent that errors are relative to; None: the cell's own peak, or its best seen.
    """
    errors, chance, images = cell.errors, cell.chance, images_of(cell)
    if len(errors) == 0:
        return None
    best = cell.best.error if cell.best else None
    peak = peak_of(cell)
    own = peak.mean if peak else best
    zero = reference if reference is not None else own
    low = measures.capped(errors, chance)
    return Statement(
        cell=cell,
        best=best,
        median=float(np.median(low)),
        spread=measures.spread(errors, chance),
        within={points: measures.share_within(errors, zero, points) for points in WITHIN} if zero is not None else {},
        reference=zero,
        collapses=measures.count_collapses(measures.collapses(errors, chance, images), confidence),
        tries=measures.tries_needed(errors, zero if zero is not None else -math.inf, WITHIN[-1], confidence),
        mean=measures.mean_error(errors, chance, confidence),
        lr_range=_lr_range(cell, low),
        peak=peak,
        gain=_gain(cell, peak),
        edges=_edges(cell),
    )


def images_of(cell: CellResults) -> int | None:
    """Return how many images a cell's trials were evaluated on; None where no record says."""
    images = cell.provenance("eval_images")
    return images if isinstance(images, int) else None


def peak_of(cell: CellResults) -> measures.Peak | None:
    """Return the peak that a cell's reruns show: those of the best setting that was searched."""
    return measures.peak(np.array([trial.error for trial in reruns(cell)]), cell.chance, images_of(cell))


def reruns(cell: CellResults) -> list[TrialResult]:
    """Return the finished reruns of the setting that more reruns than of any other were made of, the last of equals."""
    return _at_best(cell, "reseed")


def _at_best(cell: CellResults, role: str) -> list[TrialResult]:
    found: dict[tuple[float, float], list[TrialResult]] = {}
    for trial in cell.after:
        if trial.planned.role == role and trial.finished:
            found.setdefault((trial.lr, trial.wd), []).append(trial)
    # The best setting may have moved while the study grew: the last one asked for counts.
    return list(found.values())[-1] if found else []


def _gain(cell: CellResults, peak: measures.Peak | None) -> float | None:
    longer = [trial.error for trial in _at_best(cell, "longer") if math.isfinite(trial.error)]
    same = peak.mean if peak else (cell.best.error if cell.best else None)
    return same - longer[-1] if longer and same is not None else None


def _lr_range(cell: CellResults, errors: np.ndarray) -> float | None:
    if cell.ranges.get("lr"):
        return None
    return measures.good_lr_range(np.array([trial.lr for trial in cell.finished]), errors, WITHIN[-1])


def _edges(cell: CellResults) -> tuple[str, ...]:
    """Return the coordinates in whose range the best point lies within the outer tenth, with the end."""
    found = []
    for name, ends in cell.ranges.items():
        if cell.best is None or not ends:
            continue
        low, high = (math.log(end) for end in ends)
        place = (math.log(getattr(cell.best, name)) - low) / (high - low)
        if not EDGE <= place <= 1 - EDGE:
            found.append(f"{name} {'lower' if place < EDGE else 'upper'}")
    return tuple(found)


@dataclass(frozen=True)
class Answer:
    """Two cells that differ in one factor, first minus second, at the points that they share.

    Attributes:
        factor: in which they differ.
        first: what is known of one.
        second: what is known of the other.
        shared: how many points they share; `points` of them have ended in both.
        points: see above.
        level: see `compute.contrasts`; None where no point has ended in both.
        spread: None where a gate is closed.
        collapsed: how many of the shared points collapsed in each.
        peak: difference of the peaks of the settings found; None without reruns of both.
        regret: typical, with its allowance.
        sensitivity: typical, with its allowance.
        p: of each quantity's verdict, before Holm's correction.
        has_images: whether intervals hold the error of the shared test images too.
        decided: quantities whose verdict holds after Holm's correction.
    """

    factor: str
    first: Statement
    second: Statement
    shared: int
    points: int
    level: contrasts.Level | None
    spread: contrasts.SpreadDifference | None
    collapsed: tuple[int, int]
    peak: Interval | None
    regret: Interval | None
    sensitivity: Interval | None
    p: dict[str, float]
    has_images: bool = False
    decided: frozenset[str] = field(default_factory=frozenset)

    def sign(self, quantity: str) -> int:
        """Return which cell has less of a quantity: -1 the first, 1 the second, 0 not decided."""
        if quantity not in self.decided:
            return 0
        if quantity == "collapses":
            return -1 if self.collapsed[0] < self.collapsed[1] else 1
        return -1 if self.estimate(quantity) < 0 else 1

    def estimate(self, quantity: str) -> float:
        """Return the estimate of a quantity; nan where there is none."""
        if quantity == "level":
            return self.level.median.estimate if self.level else math.nan
        if quantity == "spread":
            return self.spread.low.estimate if self.spread else math.nan
        found: Interval | None = getattr(self, quantity)
        return found.estimate if found else math.nan

    @cached_property
    def easier(self) -> int:
        """Which cell is easier to optimise: -1, 1, or 0 where that is not shown."""
        sign = self.sign("regret")
        agrees = sign == self.sign("sensitivity")
        return sign if agrees and self.sign("collapses") in (0, sign) else 0

    @cached_property
    def better(self) -> int:
        """Which cell is better: by peak, or where that is not decided by level; 0 where neither is."""
        return self.sign("peak") or self.sign("level")

    @cached_property
    def varies_less(self) -> int:
        """Which cell's error varies less over the range, in points and as a share of what it can learn; else 0."""
        sign = self.sign("spread")
        relative = self.spread.relative.estimate if self.spread else 0.0
        return sign if sign * relative > 0 else 0


def answers(
    found: Sequence[Statement], confidence: float, primary: tuple[str, frozenset[str]] | None = None
) -> list[Answer]:
    """Compare every two cells that differ in one factor alone.

    Args:
        found: what is known of each cell.
        confidence: of intervals and verdicts; Holm's correction is over the pairs, for each quantity.
        primary: a factor and two values of it: these pairs come first, and are tested unadjusted.

    Returns:
        One answer for each pair, the primary ones first.
    """
    pairs = [
        (factor, one, other)
        for one, other in itertools.combinations(found, 2)
        if (factor := differing_factor(one.cell, other.cell)) is not None
    ]
    told = [_compare(factor, one, other, confidence) for factor, one, other in pairs]
    first = [one for one in told if _is_primary(one, primary)]
    rest = [one for one in told if not _is_primary(one, primary)]
    return [*(_decided(one, one.p, confidence) for one in first), *_adjusted(rest, confidence)]


def differing_factor(first: CellResults, second: CellResults) -> str | None:
    """Return the one factor in which two cells differ; None where it is none or several."""
    names = {**first.factors, **second.factors}
    differing = [name for name in names if first.factors.get(name) != second.factors.get(name)]
    return differing[0] if len(differing) == 1 else None


def _is_primary(answer: Answer, primary: tuple[str, frozenset[str]] | None) -> bool:
    if primary is None or answer.factor != primary[0]:
        return False
    return {str(side.cell.factors.get(answer.factor)) for side in (answer.first, answer.second)} == primary[1]


def _adjusted(told: Sequence[Answer], confidence: float) -> list[Answer]:
    """Return answers with what holds after Holm's correction over all of them, for each quantity."""
    adjusted: list[dict[str, float]] = [{} for _ in told]
    for quantity in QUANTITIES:
        tested = [place for place, one in enumerate(told) if quantity in one.p]
        for place, p in zip(tested, holm([told[place].p[quantity] for place in tested]), strict=True):
            adjusted[place][quantity] = p
    return [_decided(one, p, confidence) for one, p in zip(told, adjusted, strict=True)]


def _decided(answer: Answer, p: dict[str, float], confidence: float) -> Answer:
    return replace(answer, decided=frozenset(name for name, one in p.items() if one <= 1 - confidence))


def _compare(factor: str, first: Statement, second: Statement, confidence: float) -> Answer:
    planned = planned_pairs(first.cell, second.cell)
    pairs = finished_pairs(planned)
    chances = first.cell.chance, second.cell.chance
    raw = [np.array([pair[side].error for pair in pairs]) for side in (0, 1)]
    errors = measures.capped(raw[0], chances[0]), measures.capped(raw[1], chances[1])
    which = [
        measures.collapses(found, side.cell.chance, images_of(side.cell))
        for found, side in zip(raw, (first, second), strict=True)
    ]
    answer = Answer(
        factor=factor,
        first=first,
        second=second,
        shared=len(planned),
        points=len(pairs),
        level=None,
        spread=None,
        collapsed=(int(which[0].sum()), int(which[1].sum())),
        peak=None,
        regret=None,
        sensitivity=None,
        p={},
    )
    if not pairs or first.cell.adaptive or second.cell.adaptive:
        return answer
    bits = bits_of(pairs)
    of_images = contrasts.image_error(bits) if bits else None
    level = contrasts.level(*errors, confidence, of_images)
    p = {"level": level.p, "collapses": mcnemar(which[0], which[1])}
    answer = replace(answer, level=level, p=p, has_images=bits is not None)
    if not (first.has_learned and second.has_learned):
        return _with_peaks(answer, errors, chances, confidence, only_peak=True)
    spread = contrasts.spread_difference(*errors, chances, confidence)
    answer = replace(answer, spread=spread, p=p | {"spread": spread.p})
    return _with_peaks(answer, errors, chances, confidence, only_peak=False)


def _with_peaks(
    answer: Answer,
    errors: tuple[np.ndarray, np.ndarray],
    chances: tuple[float, float],
    confidence: float,
    *,
    only_peak: bool,
) -> Answer:
    """Return an answer with what reruns of both best settings tell."""
    if answer.first.peak is None or answer.second.peak is None:
        return answer
    peaks = answer.first.peak, answer.second.peak
    own = reruns(answer.first.cell), reruns(answer.second.cell)
    bits = bits_of(finished_pairs(planned_pairs(answer.first.cell, answer.second.cell)))
    of_reruns = _bits_of(*own)
    at_peak = contrasts.image_error(of_reruns) if of_reruns else None
    of_images = contrasts.image_error(bits, of_reruns) if bits and of_reruns else None

    def peak(level: float) -> Interval:
        return contrasts.peak_difference(*peaks, level, at_peak)

    def regret(level: float) -> Interval:
        return contrasts.typical_regret(errors, peaks, level, of_images)

    def sensitivity(level: float) -> Interval:
        return contrasts.typical_sensitivity(errors, peaks, chances, level, of_images)

    asked: dict[str, Callable[[float], Interval]] = {"peak": peak}
    if not only_peak:
        asked |= {"regret": regret, "sensitivity": sensitivity}
    p = answer.p | {name: contrasts.smallest_p(at) for name, at in asked.items()}
    values = {name: at(confidence) for name, at in asked.items()}
    return replace(answer, p=p, peak=values["peak"], regret=values.get("regret"), sensitivity=values.get("sensitivity"))


def bits_of(pairs: Sequence[Pair]) -> contrasts.Bits | None:
    """Return which images the trials of two cells got wrong, pair by pair; None where a record has not kept them."""
    return _bits_of(*zip(*pairs, strict=True)) if pairs else None


def _bits_of(first: Sequence[TrialResult], second: Sequence[TrialResult]) -> contrasts.Bits | None:
    rows = [[trial.correctness for trial in trials] for trials in (first, second)]
    kept = [[one for one in row if one is not None] for row in rows]
    whole = all(len(own) == len(row) and own for own, row in zip(kept, rows, strict=True))
    # Of other images there is nothing in common.
    if not whole or len({one.fingerprint for row in kept for one in row}) > 1:
        return None
    return contrasts.Bits(*(np.stack([one.wrong for one in row]) for row in kept))
