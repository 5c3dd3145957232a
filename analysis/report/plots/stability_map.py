"""The stability map: a point per cell with its intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

from analysis.analysis import Analysis
from analysis.compute.intervals import Interval
from analysis.figures.layout import error_label
from analysis.figures.map import SIZE, Spot, Tile, tiles
from analysis.map_places import HEADING, MapPlaces, map_notes, map_places
from analysis.report.looks import PIXELS, colour, symbol
from analysis.report.names import CellNames, error_words, marked_up, plain_words
from analysis.report.plots.base import Chart, Key, Plot, axis, bars
from analysis.results import CellResults
from stability.study.metrics import metrics_of
from stability.values import Options


def chart(analysis: Analysis, names: CellNames) -> Chart:
    """Return the stability map, in the panels that the figure of analysis.edf has."""
    found = map_places(analysis)
    rows = tiles(analysis, found, plain_words)
    cells = {id(place.statement): cell for cell, place in found.by_cell.items()}
    limits = _limits([spot for row in rows for tile in row for spot in tile.spots])
    plots = [
        [_plot(f"map-{up}-{across}", tile, found, limits, cells, names, analysis) for across, tile in enumerate(row)]
        for up, row in enumerate(rows)
    ]
    return Chart("map", "Stability map", plots, [f"{HEADING}.", *map_notes(analysis, found)])


def _plot(
    name: str,
    tile: Tile,
    found: MapPlaces,
    limits: Options,
    cells: dict[int, CellResults],
    names: CellNames,
    analysis: Analysis,
) -> Plot:
    level = f"{100 * analysis.confidence:g} %"
    title = f"{found.across}: {error_label(False)}"
    own = [(spot, cells[id(spot.place.statement)]) for spot in tile.spots]
    # Large points first, so that none is hidden by a larger one.
    drawn = sorted(own, key=lambda one: -one[0].mark.size)
    return Plot(
        name=name,
        title=tile.title,
        about=f"{found.up} against {title}, a point for each of {len(own)} cells",
        traces=[_trace(spot, cell, found, level, names) for spot, cell in drawn],
        layout={"xaxis": axis(title, range=limits["across"]), "yaxis": axis(found.up, range=limits["up"])},
        keys=[_key(spot, cell, names) for spot, cell in own],
        empty="" if own else tile.empty,
    )


def _key(spot: Spot, cell: CellResults, names: CellNames) -> Key:
    label = spot.mark.label or names.name(cell)
    return Key(names.number(cell), label, spot.mark.look, False, True, not spot.place.is_hollow, spot.mark.size / SIZE)


def _trace(spot: Spot, cell: CellResults, found: MapPlaces, level: str, names: CellNames) -> Options:
    (statement, across, up, is_open), look = spot.place, spot.mark.look
    lines = [
        names.name(cell),
        f"{found.across} {error_words(across.estimate)}{_ends(across, level, 1)}",
        f"{found.up} {up.estimate:z.2f}{_ends(up, level, 2)}",
        f"{len(cell.finished)} of {cell.planned} trials finished, {cell.count('diverged')} diverged",
    ]
    lines += [] if statement.has_learned else ["the schedule has not let it learn"]
    lines += [f"{found.up} means nothing here"] if is_open else []
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [across.estimate],
        "y": [up.estimate],
        "error_x": bars([across], colour(look)),
        "error_y": bars([up], colour(look)),
        "marker": {
            "color": colour(look),
            "symbol": symbol(look, is_open=is_open),
            "size": PIXELS * spot.mark.size + 4,
            "line": {"width": 1.6 if is_open else 0, "color": colour(look)},
        },
        "showlegend": False,
        "hoverinfo": "text",
        "hovertext": [marked_up(*lines)],
        "meta": {"cell": names.number(cell)},
        "cliponaxis": False,
    }


def _ends(found: Interval, level: str, digits: int) -> str:
    if not (math.isfinite(found.lower) and math.isfinite(found.upper)) or found.lower == found.upper:
        return ""
    return f" ({level}: {found.lower:z.{digits}f} to {found.upper:z.{digits}f})"


def _limits(spots: Sequence[Spot]) -> Options:
    """Return the ends of both axes, the same in all panels."""
    across = [end for spot in spots for end in spot.place.across if math.isfinite(end)]
    up = [end for spot in spots for end in spot.place.up if math.isfinite(end)]
    left, right = _around(across)
    most = 100.0 if metrics_of().primary.unit == "%" else math.inf
    return {"across": [left, max(*across, min(most, right)) if across else right], "up": _around(up)}


def _around(values: Sequence[float]) -> list[float]:
    low, high = min(0.0, *values, 0.0), max(values, default=1.0)
    margin = 0.06 * ((high - low) or 1.0)
    return [low - margin, high + margin]
