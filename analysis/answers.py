"""What is stated of cells and of pairs of cells: numbers with their certainty, and one plain sentence.

Words: level is the error over the search range, peak the error of the best setting by reruns of it, regret a point's
error minus the peak, sensitivity regret divided by chance minus peak. "Easier to optimise" means lower typical regret
and sensitivity; "better" means a lower peak or level. The two are never mixed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from analysis.compute import contrasts, measures
from analysis.compute.intervals import Interval, holm, mcnemar
from analysis.results import Pair, TrialResult, finished_pairs, planned_pairs
from analysis.statements import LEAST_POINTS, Statement, images_of, reruns
from stability.study.schema import Scalar

# In a study of more cells than MANY_CELLS not every two are compared, where more than ALL_PAIRS differ in one factor.
MANY_CELLS = 24
ALL_PAIRS = 12
QUANTITIES = ("level", "spread", "collapses", "peak", "regret", "sensitivity")


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
        spread: None where a gate is closed, half of the trials of a cell collapsed, or points are too few.
        collapsed: how many of the shared points collapsed in each.
        peak: difference of the peaks of the settings found; None without reruns of both.
        regret: typical, with its allowance.
        sensitivity: typical, with its allowance.
        p: of each quantity's verdict, before Holm's correction.
        adjusted: after it; of a primary comparison the same.
        has_images: whether intervals of level, peak, regret and sensitivity hold the shared test images' error too.
        peak_has_images: the same of the peak's interval alone, which follows from the reruns.
        parts: of the intervals of regret and sensitivity, by their names.
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
    peak_has_images: bool = False
    parts: dict[str, contrasts.Parts] = field(default_factory=dict)
    adjusted: dict[str, float] = field(default_factory=dict)
    decided: frozenset[str] = field(default_factory=frozenset)

    @property
    def is_primary(self) -> bool:
        """Whether the study was made for this comparison."""
        contrast, sides = self.first.cell.contrast, (self.first.cell, self.second.cell)
        if contrast is None or contrast.factor != self.factor:
            return False
        return {cell.factors.get(self.factor) for cell in sides} == set(contrast.values)

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

    def turned(self) -> Answer:
        """Return the same answer with the cells the other way round."""

        def turn(found: Interval | None) -> Interval | None:
            return Interval(0.0 - found.estimate, 0.0 - found.upper, 0.0 - found.lower) if found else None

        level, spread = self.level, self.spread
        if level:
            halves = turn(level.median) or level.median, turn(level.typical) or level.typical
            level = contrasts.Level(level.second_lower, level.first_lower, *halves, level.p, level.images)
        if spread:
            three = [turn(one) or one for one in (spread.low, spread.interquartile, spread.relative)]
            spread = contrasts.SpreadDifference(three[0], three[1], three[2], spread.p)
        return replace(
            self,
            first=self.second,
            second=self.first,
            level=level,
            spread=spread,
            collapsed=self.collapsed[::-1],
            peak=turn(self.peak),
            regret=turn(self.regret),
            sensitivity=turn(self.sensitivity),
        )

    @property
    def intervals(self) -> dict[str, Interval]:
        """Every difference that is known, by its name."""
        found = {"peak": self.peak, "regret": self.regret, "sensitivity": self.sensitivity}
        if self.level:
            found |= {"median": self.level.median, "typical": self.level.typical}
        if self.spread:
            found |= {"spread": self.spread.low, "interquartile": self.spread.interquartile}
            found |= {"relative_spread": self.spread.relative}
        return {name: one for name, one in found.items() if one is not None}

    @cached_property
    def easier(self) -> int:
        """Which cell is easier to optimise: -1, 1, or 0 where that is not shown."""
        sign = self.sign("regret")
        agrees = sign == self.sign("sensitivity")
        return sign if agrees and self.sign("collapses") in (0, sign) else 0

    @cached_property
    def better(self) -> int:
        """Which cell is better, by peak and level: 0 where neither is decided, or the two point different ways."""
        signs = {self.sign("peak"), self.sign("level")} - {0}
        return signs.pop() if len(signs) == 1 else 0

    @property
    def disagrees(self) -> bool:
        """Whether one cell has the lower peak and the other the lower level, both decided."""
        return self.sign("peak") * self.sign("level") == -1

    @cached_property
    def varies_less(self) -> int:
        """Which cell's error varies less over the range, in points and as a share of what it can learn; else 0.

        0 as well where that cell collapses more often: the spread does not see a few collapses.
        """
        sign = self.sign("spread")
        relative = self.spread.relative.estimate if self.spread else 0.0
        return sign if sign * relative > 0 and self.sign("collapses") in (0, sign) else 0


def answers(found: Sequence[Statement], confidence: float) -> list[Answer]:
    """Compare every two cells that differ in one factor alone.

    Args:
        found: what is known of each cell.
        confidence: of intervals and verdicts; Holm's correction is over the pairs, for each quantity.

    Returns:
        One answer for each pair. Those that their study was made for come first, and are corrected among themselves.
    """
    every = [_compare(factor, one, other, confidence) for factor, one, other in compared(found)]
    first = [one for one in every if one.is_primary]
    rest = [one for one in every if not one.is_primary]
    return [*_adjusted(first, confidence), *_adjusted(rest, confidence)]


def compared(found: Sequence[Statement]) -> Iterator[tuple[str, Statement, Statement]]:
    """Yield the factor and the two cells of each comparison: of cells that differ in one factor alone.

    Every two of them in a study of at most MANY_CELLS cells. In a larger study, where more than ALL_PAIRS cells differ
    in one factor alone, each is compared with the first one planned. So the number of comparisons grows with the number
    of cells, not with the number of pairs.
    """
    for factor, groups in _groups(found):
        pairs: list[tuple[int, int]] = []
        for group in groups:
            is_large = _is_large(group, found)
            pairs += [(group[0], other) for other in group[1:]] if is_large else itertools.combinations(group, 2)
        for first, second in sorted(pairs):
            if found[first].cell.factors.get(factor) != found[second].cell.factors.get(factor):
                yield factor, found[first], found[second]


def _groups(found: Sequence[Statement]) -> Iterator[tuple[str, list[list[int]]]]:
    """Yield each factor with the places of the cells that differ in nothing else, group by group."""
    names = list(dict.fromkeys(name for one in found for name in one.cell.factors))
    for factor in names:
        groups: dict[tuple[Scalar, ...], list[int]] = {}
        for place, one in enumerate(found):
            key = tuple(one.cell.factors.get(name) for name in names if name != factor)
            groups.setdefault(key, []).append(place)
        yield factor, list(groups.values())


def _is_large(group: Sequence[int], found: Sequence[Statement]) -> bool:
    return len(found) > MANY_CELLS and len(group) > ALL_PAIRS


def is_against_first(found: Sequence[Statement]) -> bool:
    """Return whether some cells are compared with the first one only, and not with each other."""
    return any(_is_large(group, found) for _, groups in _groups(found) for group in groups)


def _adjusted(every: Sequence[Answer], confidence: float) -> list[Answer]:
    """Return answers with what holds after Holm's correction over all of them, for each quantity."""
    adjusted: list[dict[str, float]] = [{} for _ in every]
    for quantity in QUANTITIES:
        tested = [place for place, one in enumerate(every) if quantity in one.p]
        for place, p in zip(tested, holm([every[place].p[quantity] for place in tested]), strict=True):
            adjusted[place][quantity] = p
    return [_decided(one, p, confidence) for one, p in zip(every, adjusted, strict=True)]


def _decided(answer: Answer, p: dict[str, float], confidence: float) -> Answer:
    return replace(answer, adjusted=p, decided=frozenset(name for name, one in p.items() if one <= 1 - confidence))


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
    bits = bits_of(pairs)
    if not pairs or first.cell.adaptive or second.cell.adaptive:
        return _with_peaks(answer, errors, chances, confidence, bits)
    of_images = contrasts.image_error(bits) if bits else None
    level = contrasts.level(*errors, confidence, of_images)
    p = {"level": level.p, "collapses": mcnemar(which[0], which[1])}
    answer = replace(answer, level=level, p=p, has_images=bits is not None)
    if len(pairs) < LEAST_POINTS or not (first.has_spread and second.has_spread):
        return _with_peaks(answer, errors, chances, confidence, bits)
    spread = contrasts.spread_difference(*errors, chances, confidence)
    answer = replace(answer, spread=spread, p=p | {"spread": spread.p})
    return _with_peaks(answer, errors, chances, confidence, bits)


def _with_peaks(
    answer: Answer,
    errors: tuple[np.ndarray, np.ndarray],
    chances: tuple[float, float],
    confidence: float,
    bits: contrasts.Bits | None,
) -> Answer:
    """Return an answer with what reruns of both best settings tell: the peaks, and regrets where both have learned."""
    if answer.first.peak is None or answer.second.peak is None:
        return answer
    peaks = answer.first.peak, answer.second.peak
    own = reruns(answer.first.cell), reruns(answer.second.cell)
    of_reruns = _bits_of(*own)
    at_peak = contrasts.image_error(of_reruns) if of_reruns else None
    of_images = contrasts.image_error(bits, of_reruns) if bits and of_reruns else None

    def peak(level: float) -> Interval:
        return contrasts.peak_difference(*peaks, level, at_peak)

    parts: dict[str, Callable[[float], contrasts.Parts]] = {}
    if answer.level is not None and answer.first.has_learned and answer.second.has_learned:
        parts = {
            "regret": lambda level: contrasts.regret_parts(errors, peaks, level, of_images),
            "sensitivity": lambda level: contrasts.sensitivity_parts(errors, peaks, chances, level, of_images),
        }
    found = {name: at(confidence) for name, at in parts.items()}
    p = answer.p | {"peak": contrasts.smallest_p(peak)} | {name: _smallest_p(at) for name, at in parts.items()}
    values = {name: one.interval for name, one in found.items()}
    answer = replace(answer, p=p, parts=found, peak=peak(confidence))
    answer = replace(answer, peak_has_images=at_peak is not None)
    return replace(answer, regret=values.get("regret"), sensitivity=values.get("sensitivity"))


def _smallest_p(parts: Callable[[float], contrasts.Parts]) -> float:
    return contrasts.smallest_p(lambda level: parts(level).interval)


def bits_of(pairs: Sequence[Pair]) -> contrasts.Bits | None:
    """Return which images the trials of two cells got wrong, at the points where both records have kept them.

    None where fewer than two points have: a trial that diverged has none.
    """
    kept = [pair for pair in pairs if pair[0].correctness and pair[1].correctness]
    return _bits_of(*zip(*kept, strict=True)) if len(kept) > 1 else None


def _bits_of(first: Sequence[TrialResult], second: Sequence[TrialResult]) -> contrasts.Bits | None:
    rows = [[trial.correctness for trial in trials] for trials in (first, second)]
    kept = [[one for one in row if one is not None] for row in rows]
    # Of other images there is nothing in common.
    if not all(len(row) > 1 for row in kept) or len({one.fingerprint for row in kept for one in row}) > 1:
        return None
    return contrasts.Bits(*(np.stack([one.wrong for one in row]) for row in kept))
