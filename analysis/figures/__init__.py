"""Figures, a file each: `draw(analysis)` returns a matplotlib Figure. Users add theirs by a dotted path.

Figures are made without pyplot, from matplotlib's own defaults and style.SETTINGS: the same bytes on every run.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.style import SETTINGS
from stability.errors import UserError
from stability.locate import called, check_name, locate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analysis.analysis import Analysis
    from analysis.facets import Names

Draw = Callable[["Analysis"], "Figure"]
# Shipped figures by name.
SHIPPED = ("map", "edf", "scatter", "lr", "heatmap", "length", "gap")
# Those of a study with a distribution; the others need a study of their kind.
EVERY = ("map", "edf", "scatter")


def unasked(analysis: Analysis) -> list[str]:
    """Return the figures that are written unasked.

    Of a study of one trial a cell they are what cells reach against epochs and between optimizers, or else against lr
    and wd: nothing has a distribution. The lr curve is one of them for a grid with several seeds per setting.
    """
    from analysis.reached import optimizer_gaps, training_curves
    from analysis.settings import has_repeats, lr_curve

    if analysis.is_fixed:
        found = {"length": training_curves(analysis), "gap": optimizer_gaps(analysis)}
        return [name for name, of in found.items() if of] or ["scatter"]
    has_curve = has_repeats(analysis.shown) and any(lr_curve(cell, analysis.confidence) for cell in analysis.shown)
    return [*EVERY, *(["lr"] if has_curve else [])]


def find(name: str) -> Draw:
    """Return the function that draws a figure.

    Args:
        name: of a shipped figure, or the dotted path of a function (analysis) -> Figure.

    Raises:
        UserError: there is none.
    """
    check_name(name, SHIPPED, f"figure {name!r}", "my_module.my_figure")
    path = f"{__name__}.{name}.draw" if name in SHIPPED else name
    return locate(path, "--figure", "my_module.my_figure")


def drawn(name: str, draw: Draw, analysis: Analysis) -> Figure:
    """Return the figure that a function draws.

    Args:
        name: of the figure, as `find` takes it.
        draw: the function.
        analysis: what it draws.

    Raises:
        UserError: a user's function raises, or returns something else than a figure; or a shipped figure has nothing to
            show of these studies.
    """
    from matplotlib.figure import Figure

    if name in SHIPPED:
        return draw(analysis)
    found = called(f"--figure {name}", lambda: draw(analysis))
    if not isinstance(found, Figure):
        raise UserError(f"--figure {name} returned {type(found).__name__}; accepted: a matplotlib Figure")
    return found


def figure(
    name: str,
    *runs: Path | str,
    relative: Sequence[str] = (),
    confidence: float = 0.95,
    cells: Sequence[str] = (),
    columns: Names = (),
    rows: Names = (),
    color: Names = (),
) -> Figure:
    """Return one figure of studies, for a notebook.

    Args:
        name: of a shipped figure, or the dotted path of a function of the user's own.
        runs: folders of studies, or folders of such folders.
        relative: as `--relative` of `python -m analysis.edf`.
        confidence: of bands.
        cells: as `--cells` of `python -m analysis.edf`.
        columns: as `--columns`: a factor's name, or several in a list or with commas between.
        rows: as `--rows`.
        color: as `--color`.

    Raises:
        UserError: no such figure, nothing to show in it, no such factor, or a folder holds no study.
    """
    from analysis.analysis import analyse

    draw = find(name)
    analysis = analyse(
        *runs, relative=relative, confidence=confidence, cells=cells, columns=columns, rows=rows, color=color
    )
    with print_style():
        return drawn(name, draw, analysis)


@contextlib.contextmanager
def print_style() -> Iterator[None]:
    """Draw in our style whatever the user's matplotlibrc says."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcParams.update({**matplotlib.rcParamsDefault, "backend": "agg", **SETTINGS})
        yield


def rendered(figure: Figure, kind: str) -> bytes:
    """Return a figure as the bytes of a PNG or PDF file, equal for equal figures."""
    file = io.BytesIO()
    # Without metadata that changes from run to run or with matplotlib's version.
    if kind == "png":
        # A lower compression takes half of the time.
        figure.savefig(file, format=kind, metadata={"Software": None}, pil_kwargs={"compress_level": 3})
    else:
        figure.savefig(file, format=kind, metadata={"CreationDate": None})
    return file.getvalue()
