"""Statements and answers in words: what the screen, a report and the README print."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from analysis import advice
from analysis.answers import Answer
from analysis.compute.intervals import Interval
from analysis.sizes import are_of_one_class, are_of_one_size
from analysis.statements import LEAST_POINTS, Statement, reruns, why_no_peak
from stability.study.schema import cell_label
from stability.values import DRAWN

# A command prints so many pairs in full; the rest is in the CSV.
MOST_PAIRS = 4
LABEL, WIDTH = 13, 120


def answer_lines(
    found: Sequence[Answer], confidence: float, extra: Sequence[str] = (), most: int = MOST_PAIRS
) -> list[str]:
    """Return the answers that matter in words, with how many are left out.

    Args:
        found: of every pair.
        confidence: of intervals.
        extra: factors that are named in headings, besides model and optimizer.
        most: answers that are printed in full.
    """
    shown = in_full(found, most)
    lines: list[str] = []
    for one in shown:
        lines += [*answer_text(one, confidence, extra), ""]
    return [*lines, *left_out(found, shown)]


def in_full(found: Sequence[Answer], most: int = MOST_PAIRS) -> list[Answer]:
    """Return the answers that matter most, at most so many: by what is compared, then in the order of `found`."""
    ranks = [_rank(one) for one in found]
    decided = [(len(one.decided), one.points > 0) for one in found]
    places = sorted(range(len(found)), key=lambda place: (ranks[place], decided[place]), reverse=True)
    return [found[place] for place in sorted(places[:most], key=lambda place: (-ranks[place], place))]


def left_out(found: Sequence[Answer], shown: Sequence[Answer], where: str = "in answers.csv") -> list[str]:
    """Return the line on the answers that are not shown.

    Args:
        found: all answers.
        shown: those of them that are.
        where: the others are.
    """
    more = len(found) - len(shown)
    return [f"{more} more pair{'s' * (more > 1)} of cells {'are' if more > 1 else 'is'} {where}."] if more else []


def _rank(answer: Answer) -> int:
    """Return the priority of what is compared: what the study was made for, then models.

    Of models those of one size come first: of one class, which differ in its arguments, as in the stem; then of two.
    """
    first, second = answer.first.cell, answer.second.cell
    if answer.is_primary:
        return 4
    if answer.factor != "model":
        return 0
    return 1 + (1 + are_of_one_class(first, second) if are_of_one_size(first, second) else 0)


Row = tuple[str, str, str]


class AnswerWords(NamedTuple):
    """One answer in words: a heading, for each quantity its name, numbers and verdict, and plain sentences."""

    heading: str
    rows: list[Row]
    sentences: list[str]


def answer_words(answer: Answer, confidence: float, extra: Sequence[str] = ()) -> AnswerWords:
    """Return one answer in words, the cell of the lower level first.

    Args:
        answer: of a pair of cells.
        confidence: of its intervals, between 0 and 1.
        extra: factors that are named in the heading, besides model and optimizer.
    """
    if answer.level and answer.level.typical.estimate > 0:
        answer = answer.turned()
    rows = [_level(answer, confidence), _spread(answer, confidence), _collapses(answer)]
    rows += [_peak(answer, confidence), _regret(answer, confidence)]
    return AnswerWords(_heading(answer, extra), rows, sentences(answer))


def answer_text(answer: Answer, confidence: float, extra: Sequence[str] = ()) -> list[str]:
    """Return one answer as lines of text; see `answer_words` for what it takes.

    Args:
        answer: of a pair of cells.
        confidence: of its intervals.
        extra: factors of the heading.
    """
    heading, rows, remarks = answer_words(answer, confidence, extra)
    width = max(len(text) for _, text, _ in rows)
    lines = [f"  {name:{LABEL}}{text:{width}}  {verdict}".rstrip() for name, text, verdict in rows]
    wrapped = [line for one in remarks for line in textwrap.wrap(one, WIDTH - 2)]
    return [heading, *lines, *(f"  {one}" for one in wrapped)]


def names(answer: Answer) -> tuple[str, str]:
    """Return what the two cells are called beside each other: their value of the factor that differs."""
    values = (side.cell.factors.get(answer.factor) for side in (answer.first, answer.second))
    one, other = (str(value) if answer.factor == "model" else f"{answer.factor}={value}" for value in values)
    return one, other


def _heading(answer: Answer, extra: Sequence[str]) -> str:
    one, other = names(answer)
    rest = {name: value for name, value in answer.first.cell.factors.items() if name != answer.factor}
    where = cell_label({name: rest[name] for name in ("model", "optimizer", *extra) if name in rest})
    parts = [
        f"{where + ': ' if where else ''}{one} against {other}",
        f"{answer.points} shared point{'s' * (answer.points != 1)}",
    ]
    ranges = (answer.first.cell.ranges, answer.second.cell.ranges)
    for name in DRAWN:
        texts = [_range(own.get(name)) for own in ranges]
        if any(texts):
            parts.append(f"{name} {texts[0] if texts[0] == texts[1] else f'{texts[0]} and {texts[1]}'}")
    return ", ".join(parts)


def _range(ends: Sequence[float] | None) -> str:
    return f"{ends[0]:.2g} to {ends[1]:.2g}" if ends else ""


def verdict(answer: Answer, quantity: str) -> str:
    """Return LOWER where the first cell has less of a quantity, HIGHER or undecided; empty where it is not tested."""
    if quantity not in answer.p:
        return ""
    return {-1: "LOWER", 1: "HIGHER", 0: "undecided"}[answer.sign(quantity)]


def _interval(found: Interval, confidence: float, digits: int = 1) -> str:
    return f"{100 * confidence:g} %: {found.lower:z.{digits}f} to {found.upper:z.{digits}f}"


def _level(answer: Answer, confidence: float) -> Row:
    level = answer.level
    if level is None:
        return "level", _why_none(answer), ""
    typical = level.typical
    count = f"{answer.points} point{'s' * (answer.points != 1)}"
    text = f"lower at {level.first_lower} of {count}; typical difference {typical.estimate:z.1f} points"
    interval = _interval(typical, confidence) if math.isfinite(typical.lower) else "too few for an interval"
    return "level", f"{text} ({interval})", verdict(answer, "level")


def _why_none(answer: Answer) -> str:
    if answer.first.cell.adaptive or answer.second.cell.adaptive:
        return "each cell chose its points by its own results: nothing is paired"
    return "no shared point has ended in both" if answer.shared else "they share no points"


def _spread(answer: Answer, confidence: float) -> Row:
    if answer.spread is None:
        return "spread", f"no statement: {_why_no_spread(answer)}", ""
    one, other = answer.first.spread.low, answer.second.spread.low
    low = answer.spread.low
    text = f"median - q10: {one:.1f} against {other:.1f} points (difference {low.estimate:z.1f}, "
    return "spread", f"{text}{_interval(low, confidence)})", verdict(answer, "spread")


def _why_no_spread(answer: Answer) -> str:
    if answer.level is None or not (answer.first.has_learned and answer.second.has_learned):
        return _gate(answer)
    if answer.points < LEAST_POINTS:
        return f"fewer than {LEAST_POINTS} shared points"
    sides = zip(names(answer), _sides(answer), strict=True)
    return (
        f"half of the trials or more collapsed of {' and of '.join(name for name, one in sides if not one.has_spread)}"
    )


def _gate(answer: Answer) -> str:
    closed = [name for name, side in zip(names(answer), _sides(answer), strict=True) if not side.has_learned]
    if not closed:
        return _why_none(answer)
    return f"the schedule has not let {' and '.join(closed)} learn"


def _sides(answer: Answer) -> tuple[Statement, Statement]:
    return answer.first, answer.second


def _collapses(answer: Answer) -> Row:
    one, other = answer.collapsed
    most = max(side.collapses.not_excluded for side in _sides(answer))
    text = f"{one} against {other} of {answer.points}; up to {100 * most:.0f} % not excluded"
    return "collapses", text, verdict(answer, "collapses") if answer.sign("collapses") else "no difference shown"


def _peak(answer: Answer, confidence: float) -> Row:
    if answer.peak is None:
        return "peak", f"no statement: {_why_no_peak(answer)}", ""
    one, other = answer.first.peak, answer.second.peak
    assert one is not None
    assert other is not None
    runs = str(one.reruns) if one.reruns == other.reruns else f"{one.reruns} and {other.reruns}"
    where = sorted({run.study for side in _sides(answer) for run in reruns(side.cell)} - set(_studies(answer)))
    runs += f" reruns{' in ' if where else ''}{' and '.join(where)}"
    text = f"{one.mean:.1f} against {other.mean:.1f} % ({runs}; difference {answer.peak.estimate:z.1f}, "
    return "peak", f"{text}{_interval(answer.peak, confidence)})", verdict(answer, "peak")


def _studies(answer: Answer) -> list[str]:
    return [trial.study for side in _sides(answer) for trial in side.cell.trials]


def _why_no_peak(answer: Answer) -> str:
    """Return why one of two cells has no peak."""
    for name, side in zip(names(answer), _sides(answer), strict=True):
        if side.peak is None and reruns(side.cell):
            return why_no_peak(side.cell, name)
    return "no reruns of the best settings (reseed=5 makes them)"


def _regret(answer: Answer, confidence: float) -> Row:
    if answer.level is None:
        return "regret", f"no statement: {_why_none(answer)}", ""
    if answer.regret is None or answer.sensitivity is None:
        why = _gate(answer) if not (answer.first.has_learned and answer.second.has_learned) else _why_no_peak(answer)
        return "regret", f"no statement: {why}", ""
    regret, sensitivity = answer.regret, answer.sensitivity
    if answer.points < LEAST_POINTS:
        return "regret", f"no statement: fewer than {LEAST_POINTS} shared points", ""
    text = f"typical difference {regret.estimate:z.1f} points ({_interval(regret, confidence)}); "
    text += f"of sensitivities {sensitivity.estimate:z.2f} ({_interval(sensitivity, confidence, 2)})"
    verdicts = list(dict.fromkeys(verdict(answer, name) for name in ("regret", "sensitivity")))
    return "regret", text, " / ".join(verdicts)


def sentences(answer: Answer) -> list[str]:
    """Return what follows from an answer, in plain sentences: better and easier to optimise are never mixed."""
    found = [_of_schedule(answer)] if _of_schedule(answer) else []
    one, other = names(answer)

    def of(sign: int) -> tuple[str, str]:
        return (one, other) if sign < 0 else (other, one)

    if answer.disagrees:
        found.append("Peak and level point different ways: neither is simply better.")
    if answer.better:
        found.append("{} is better than {}.".format(*of(answer.better)))
    elif not answer.disagrees and advice.for_level(answer):
        found.append(advice.for_level(answer))
    if answer.sign("collapses"):
        found.append("{} collapses less often than {}.".format(*of(answer.sign("collapses"))))
    if not (answer.first.has_learned and answer.second.has_learned):
        found.append(f"Whether one is easier to optimise cannot be said: {_gate(answer)}.")
        return found
    if answer.easier:
        found.append("{} is easier to optimise than {}.".format(*of(answer.easier)))
    elif answer.varies_less:
        found.append("{} varies less over the range than {}.".format(*of(answer.varies_less)))
    if not answer.easier:
        found.append(f"Whether one is easier to optimise is undecided: {_what_would_do(answer)}.")
    if not (answer.better or answer.easier or answer.varies_less):
        found.append("No difference shown does not mean that there is none.")
    return found


def _of_schedule(answer: Answer) -> str:
    """Return what is known of a longer schedule, where that comes first."""
    gains = [
        f"{name} gains {side.gain:.1f} points"
        for name, side in zip(names(answer), _sides(answer), strict=True)
        if side.needs_longer
    ]
    if not gains:
        return ""
    return f"The schedule is short: with twice the epochs {' and '.join(gains)}. What follows holds for this one alone."


def _what_would_do(answer: Answer) -> str:
    if answer.level is None:
        return _why_none(answer)
    if answer.points < LEAST_POINTS:
        return f"fewer than {LEAST_POINTS} shared points decide nothing"
    if answer.regret is None:
        return _why_no_peak(answer)
    signs = {answer.sign("regret"), answer.sign("sensitivity")}
    if signs == {-1, 1}:
        return "regret in points and as a share of what is learned point different ways"
    if answer.sign("collapses") and answer.sign("regret") == answer.sign("sensitivity") != 0:
        return "the one of lower regret collapses more often"
    return advice.for_easier(answer)


def statement_lines(found: Sequence[Statement], *, advises_longer: bool = True) -> list[str]:
    """Return the remarks on each cell that the table does not hold: gates, schedules, edges of ranges.

    advises_longer: whether to name longer=1, where a cell was not trained longer.
    """
    lines = []
    for one in found:
        label = cell_label(one.cell.factors)
        if not one.has_learned:
            best = "nothing completed" if one.best is None else f"best {one.best:.1f} %"
            lines.append(f"{label}: the schedule has not let it learn ({best}; guessing is {one.cell.chance:.1f} %).")
        if one.gain is not None:
            verb = "gain" if one.gain >= 0 else "lose"
            lines.append(f"{label}: twice the epochs at its best setting {verb} {abs(one.gain):.1f} points.")
        for edge in one.edges:
            name, end = edge.split()
            lines.append(f"{label}: its best point lies at the {end} end of the range of {name}.")
    if advises_longer and any(one.gain is None for one in found):
        lines.append("A longer schedule was not tried for every cell; longer=1 trains each best setting twice as long.")
    return lines
