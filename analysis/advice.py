"""What would decide what is undecided of two cells: more points, more reruns, or nothing, if estimates hold."""

from __future__ import annotations

import math

from analysis.answers import Answer
from analysis.compute.contrasts import Parts
from analysis.statements import LEAST_POINTS, Statement

# The advice to draw more points, or to rerun more often, never exceeds these numbers.
MOST_POINTS, MOST_RERUNS = 1024, 64
# Fewer reruns say too little of their own noise.
LEAST_RERUNS = 5
NOUNS = {"regret": "regrets", "sensitivity": "sensitivities"}


def for_easier(answer: Answer) -> str:
    """Return what would decide regret and sensitivity, of which at least one is undecided."""
    left = {name: one for name, one in answer.parts.items() if not answer.sign(name)}
    points = points_for_easier(answer)
    if points is not None:
        return f"if the differences are as estimated, it needs about {_more(answer, points)}"
    reruns = reruns_for_easier(answer)
    if reruns is not None:
        return (
            "the reruns' noise hides a difference of this size, so more reruns, not more points, would help: "
            f"reseed={reruns}"
        )
    name, parts = next((name, one) for name, one in left.items() if _reruns(answer, one) is None)
    return _too_small(name, parts)


def _too_small(name: str, parts: Parts) -> str:
    """Return why no number of points or reruns decides a difference, if it is as estimated."""
    digits, unit = (1, " points") if name == "regret" else (2, "")
    size = f"the difference of {NOUNS[name]} seen, {abs(parts.points.estimate):.{digits}f}{unit}, is"
    none = "if it is as estimated, neither more points nor more reruns decide it"
    if parts.room <= 0:
        return f"{size} within what the settings found may be off by, {parts.allowance:.{digits}f}{unit}; {none}"
    if parts.reruns_growth is None:
        return f"{size} too small for so few test images; {none}"
    return f"{size} so small against the reruns' noise that more than {MOST_RERUNS} reruns would be needed"


def points_for_easier(answer: Answer) -> int | None:
    """Return the number of points that would decide regret and sensitivity, if estimates hold; None: no number would.

    At least half as many points again; a power of two.
    """
    growths = [one.points_growth for name, one in answer.parts.items() if not answer.sign(name)]
    known = [one for one in growths if one is not None]
    return _points(answer, max(known)) if known and len(known) == len(growths) else None


def reruns_for_easier(answer: Answer) -> int | None:
    """Return the number of reruns of each best setting that would let points decide; None: no number would."""
    needed = [_reruns(answer, one) for name, one in answer.parts.items() if not answer.sign(name)]
    known = [one for one in needed if one is not None]
    return max(known) if known and len(known) == len(needed) else None


def _reruns(answer: Answer, parts: Parts) -> int | None:
    growth, peaks = parts.reruns_growth, [side.peak for side in (answer.first, answer.second)]
    fewest = min(one.reruns for one in peaks if one)
    needed = None if growth is None else max(LEAST_RERUNS, math.ceil(fewest * growth))
    return needed if needed is not None and needed <= MOST_RERUNS else None


def for_level(answer: Answer) -> str:
    """Return what would decide an undecided level; empty where it is decided, or too little is paired."""
    if answer.level is None or answer.sign("level") or answer.points < LEAST_POINTS:
        return ""
    small, growth = "A difference of levels as small as the one seen", answer.level.points_growth
    if growth is None:
        return f"{small} is not decided by more points."
    points = _points(answer, growth)
    if points is None:
        return f"{small} takes more than {MOST_POINTS} points."
    return f"If the level differs as estimated, about {_more(answer, points)} would decide it."


def _points(answer: Answer, growth: float) -> int | None:
    needed = answer.points * max(1.5, growth)
    return int(2 ** math.ceil(math.log2(needed))) if needed <= MOST_POINTS else None


def _more(answer: Answer, points: int) -> str:
    sides: tuple[Statement, ...] = (answer.first, answer.second)
    drawn = all(side.cell.samples for side in sides)
    return f"{points - answer.points} more points{f' (samples={points})' if drawn else ''}"
