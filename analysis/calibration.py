"""How often the analysis's statements are false, how often its intervals hold the truth, and what it can see.

    python -m analysis.calibration                     40 minutes on one core; prints the tables of docs/statistics.md
    python -m analysis.calibration --studies 100       sooner, and coarser

It draws studies from known error surfaces (`analysis.compute.simulation`) and passes them through the functions that
`python -m analysis.edf` calls. A statement is false where a verdict is decided and its sign is not that of the truth,
or the truth is no difference.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from analysis.compute.contrasts import (
    Bits,
    image_error,
    level,
    peak_difference,
    regret_parts,
    sensitivity_parts,
    spread_difference,
)
from analysis.compute.intervals import Interval, mcnemar
from analysis.compute.measures import Peak, capped, collapses, guarded_difference, peak, spread
from analysis.compute.simulation import (
    CHANCE,
    MANY,
    ImagePair,
    Pair,
    Surface,
    WeighedPair,
    image_pairs,
    pairs,
    powers,
    weighed_pairs,
)

CONFIDENCE = 0.95
RERUNS = 5
SIZES = (16, 24, 64)
QUANTITIES = ("level", "typical", "spread", "relative", "peak", "regret", "sensitivity", "mean")
# Below these a true difference counts as none: what two surfaces of equal truth differ by in MANY draws.
NOTHING = {"sensitivity": 0.003, "relative": 0.003}
SMALL = 0.15


@dataclass
class Tally:
    """Counts of one quantity's verdicts over the studies of a pair."""

    studies: int = 0
    decided: int = 0
    false: int = 0
    covered: int = 0

    def add(self, found: Interval, truth: float) -> None:
        """Count one study."""
        self.studies += 1
        self.covered += found.lower <= truth <= found.upper
        self.decided += found.excludes_zero
        self.false += found.excludes_zero and truth * found.estimate <= 0

    @property
    def text(self) -> str:
        """False statements, coverage and decided verdicts, in percent of the studies."""
        if not self.studies:
            return "-"
        return " / ".join(f"{100 * one / self.studies:.0f}" for one in (self.false, self.covered, self.decided))


@dataclass
class CalibrationResult:
    """The tallies of a pair at one number of points."""

    quantities: dict[str, Tally] = field(default_factory=lambda: {name: Tally() for name in QUANTITIES})
    studies: int = 0
    collapses: int = 0
    easier: int = 0
    wrongly_easier: int = 0


def truth_of(pair: Pair) -> dict[str, float]:
    """Return the true difference of every quantity, first minus second, from many draws."""
    generator = np.random.default_rng(1)
    points = generator.random((MANY, 2))
    first, second = (capped(one.draw(points, generator), CHANCE) for one in (pair.first, pair.second))
    shuffled = generator.permutation(MANY)

    def typical(differences: np.ndarray) -> float:
        return float(np.median((differences + differences[shuffled]) / 2))

    # Regret and sensitivity are of the true peaks; the peak itself is of the settings that each study finds.
    peaks = pair.first.peak, pair.second.peak
    spreads = spread(first, CHANCE), spread(second, CHANCE)
    shares = [(errors - low) / (CHANCE - low) for errors, low in zip((first, second), peaks, strict=True)]
    found = {
        "level": float(np.median(first - second)),
        "typical": typical(first - second),
        "spread": spreads[0].low - spreads[1].low,
        "relative": spreads[0].relative - spreads[1].relative,
        "regret": typical((first - peaks[0]) - (second - peaks[1])),
        "sensitivity": typical(shares[0] - shares[1]),
        "mean": float(np.mean(first - second)),
    }
    return {name: 0.0 if abs(one) < NOTHING.get(name, SMALL) else one for name, one in found.items()}


def best_runs(
    surface: Surface, points: np.ndarray, errors: np.ndarray, generator: np.random.Generator
) -> tuple[Peak | None, float]:
    """Return the peak that reruns of the best point show, as `reseed` makes them, and that point's expected error.

    Args:
        surface: that errors are drawn from.
        points: (n, 2), each coordinate between 0 and 1.
        errors: (n,), in percent.
        generator: the source of chance.
    """
    place = points[[int(np.argmin(errors))] * RERUNS]
    return peak(surface.draw(place, generator), CHANCE, surface.images), float(surface.expected(place[:1])[0])


def study(pair: Pair, n: int, generator: np.random.Generator) -> tuple[dict[str, Interval], float, bool]:
    """Return what the analysis finds of one study, the true difference of the settings found, and a verdict.

    Args:
        pair: the surfaces.
        n: the number of shared points.
        generator: of points and errors.

    Returns:
        The difference of each quantity; how the expected errors of both best points differ, which the peaks estimate;
        whether collapses are decided.
    """
    points = generator.random((n, 2))
    raw = pair.first.draw(points, generator), pair.second.draw(points, generator)
    errors = capped(raw[0], CHANCE), capped(raw[1], CHANCE)
    chances = CHANCE, CHANCE
    levels = level(*errors, CONFIDENCE, None)
    spreads = spread_difference(*errors, chances, CONFIDENCE)
    found = {"level": levels.median, "typical": levels.typical, "spread": spreads.low, "relative": spreads.relative}
    found["mean"] = guarded_difference(*errors, CHANCE, CONFIDENCE)
    one, first = best_runs(pair.first, points, raw[0], generator)
    other, second = best_runs(pair.second, points, raw[1], generator)
    if one and other:
        found["peak"] = peak_difference(one, other, CONFIDENCE)
        found["regret"] = regret_parts(errors, (one, other), CONFIDENCE).interval
        found["sensitivity"] = sensitivity_parts(errors, (one, other), chances, CONFIDENCE).interval
    which = (collapses(own, CHANCE, side.images) for own, side in zip(raw, (pair.first, pair.second), strict=True))
    return found, first - second, mcnemar(*which) <= 1 - CONFIDENCE


def tried(pair: Pair, n: int, studies: int) -> CalibrationResult:
    """Return the tallies of many studies of a pair.

    Args:
        pair: of surfaces.
        n: points of a study.
        studies: how many.
    """
    truth, result, generator = truth_of(pair), CalibrationResult(), np.random.default_rng(n)
    for _ in range(studies):
        found, truth["peak"], collapsed = study(pair, n, generator)
        result.studies += 1
        result.collapses += collapsed
        for name, one in found.items():
            result.quantities[name].add(one, truth[name])
        signs = {np.sign(found[name].estimate) if found[name].excludes_zero else 0 for name in SCALES if name in found}
        if len(signs) == 1 and 0 not in signs and "regret" in found:
            result.easier += 1
            result.wrongly_easier += truth["regret"] * found["regret"].estimate <= 0 or truth["sensitivity"] == 0
    return result


SCALES = ("regret", "sensitivity")


def print_table(title: str, found: Sequence[Pair], studies: int) -> None:
    """Print the results of pairs of surfaces: false statements / coverage / decided, in percent.

    Args:
        title: of the table.
        found: the pairs.
        studies: of each line.
    """
    print(f"\n{title}: false / covered / decided, % of {studies} studies\n")
    print(f"| surfaces | n | {' | '.join(QUANTITIES)} | collapses | easier: false / said |")
    print(f"|---|---|{'---|' * (len(QUANTITIES) + 2)}")
    for pair in found:
        for n in SIZES:
            result = tried(pair, n, studies)
            shares = [100 * one / result.studies for one in (result.collapses, result.wrongly_easier, result.easier)]
            cells = [pair.name, str(n), *(tally.text for tally in result.quantities.values())]
            cells += [f"{shares[0]:.0f}", f"{shares[1]:.0f} / {shares[2]:.0f}"]
            print(f"| {' | '.join(cells)} |", flush=True)


def with_images(pair: ImagePair, n: int, studies: int) -> tuple[float, float]:
    """Return how often the level of two equally good models is called different, without and with the images' part.

    Args:
        pair: of models that share test images.
        n: points of a study.
        studies: how many.

    Returns:
        Both in percent of the studies.
    """
    generator = np.random.default_rng(n)
    counts = [0, 0]
    for _ in range(studies):
        bits = Bits(*pair.draw(n, generator))
        errors = 100 * bits.first.mean(axis=1), 100 * bits.second.mean(axis=1)
        for place, part in enumerate((None, image_error(bits))):
            counts[place] += level(*errors, CONFIDENCE, part).median.excludes_zero
    return 100 * counts[0] / studies, 100 * counts[1] / studies


def spread_of_images(pair: WeighedPair, n: int, studies: int) -> float:
    """Return how often the spread of two models of one law is called different; its interval has no images' part.

    Args:
        pair: of models that share test images.
        n: points of a study.
        studies: how many.

    Returns:
        Percent of the studies.
    """
    generator = np.random.default_rng(n)
    count = 0
    for _ in range(studies):
        first, second = (capped(100 * bits.mean(axis=1), CHANCE) for bits in pair.draw(n, generator))
        count += spread_difference(first, second, (CHANCE, CHANCE), CONFIDENCE).low.excludes_zero
    return 100 * count / studies


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--studies", type=int, default=400, help="simulated studies for each line; default 400")
    studies = parser.parse_args(arguments).studies
    print_table("No difference, or of another quantity", pairs(), studies)
    print_table("True differences", powers(), studies)
    print(f"\nShared test images, nothing truly different: level called different, % of {studies} studies\n")
    print("| images | disagreement | n | without the images' part | with it |\n|---|---|---|---|---|")
    for pair in image_pairs():
        for n in SIZES:
            bare, whole = with_images(pair, n, studies)
            print(f"| {pair.images} | {pair.words} | {n} | {bare:.0f} | {whole:.0f} |", flush=True)
    print(f"\nShared test images, nothing truly different: spread called different, % of {studies} studies\n")
    print(f"| images | sd of log weight | {' | '.join(f'n = {n}' for n in SIZES)} |\n|---|---|{'---|' * len(SIZES)}")
    for own in weighed_pairs():
        shares = [f"{spread_of_images(own, n, studies):.1f}" for n in SIZES]
        print(f"| {own.images} | {own.sd:g} | {' | '.join(shares)} |", flush=True)


if __name__ == "__main__":
    main()
