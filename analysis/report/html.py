"""The page: HTML, styles, scripts and data in one text. All text of a study is escaped, and none of it can run.

The figures are drawn by plotly.js: SVG, which prints sharply; bars to two sides, custom dashes, texts on hover and zoom
are its own; its bundle is one file in the Python package, 4.8 MB, half of what a page may have. Bokeh's is 1.3 MB, but
it draws on a canvas, which prints as pixels and cannot change its colours with the page. Vega's needs a second package
of 30 MB to be embedded.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.report.content import Content
from analysis.report.looks import INK, MARKERS, WIDTH, colour, dashes
from analysis.report.plots.base import Chart, Key, Plot
from stability.sinks.packages import require
from stability.values import Options

if TYPE_CHECKING:
    from markupsafe import Markup

FOLDER = Path(__file__).parent / "page"
# Trials that are listed open; more are folded, and so not printed unless unfolded.
MOST_OPEN = 100
# The answer is on the first screen: so many warnings stand above it in full, and so many letters of each.
MOST_WARNINGS, MOST_LETTERS = 3, 240


def check_packages() -> None:
    """Raise UserError where a package that the page is made with is not installed."""
    for package in ("plotly", "jinja2"):
        require(package, "analysis.report", "report")


def page(content: Content) -> str:
    """Return the page as HTML. The same content gives the same bytes."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True,
        loader=FileSystemLoader(FOLDER),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["swatch"] = _swatch
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    charts = [*filter(None, [content.stability_map]), *content.charts, content.curves]
    scripts = {name: _script(name) for name in ("theme", "plotly", "page")}
    return environment.get_template("page.html").render(
        content=content,
        question=content.question,
        figures=_figures(charts),
        style=Markup((FOLDER / "page.css").read_text()),
        scripts={name: Markup(text) for name, text in scripts.items()},
        policy=_policy(list(scripts.values())),
        version=metadata.version("stability"),
        most_open=MOST_OPEN,
        most_warnings=MOST_WARNINGS,
        most_letters=MOST_LETTERS,
    )


def _script(name: str) -> str:
    """Return a script as it stands in the page. Nothing in it may look like the end of its element."""
    if name == "plotly":
        from plotly.offline import get_plotlyjs

        text: str = get_plotlyjs()
    else:
        text = (FOLDER / f"{name}.js").read_text()
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _policy(scripts: list[str]) -> str:
    """Return the page's rule for the browser: these scripts run and no other, and nothing is loaded from anywhere."""
    hashes = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
    allowed = " ".join(f"'sha256-{one}'" for one in hashes)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"


def _figures(charts: list[Chart]) -> dict[str, Options]:
    """Return what plotly.js draws, by the name of each panel."""
    return {plot.name: _figure(plot) for chart in charts for plot in chart.plots if not plot.empty}


def _figure(plot: Plot) -> Options:
    figure: Options = {"traces": plot.traces, "layout": plot.layout}
    if not plot.variants:
        return figure
    return {**figure, "variants": [{"across": one.across, "axis": one.axis} for one in plot.variants]}


def _swatch(key: Key) -> Markup:
    """Return the picture of a legend's entry."""
    from markupsafe import Markup

    shade = "currentColor" if colour(key.look) == INK else colour(key.look)
    parts = []
    if key.has_line:
        lengths = " ".join(f"{length:g}" for length in dashes(key.look))
        line = Markup('<path d="M1,7H33" stroke="{}" stroke-width="{}" stroke-dasharray="{}" fill="none"/>')
        parts.append(line.format(shade, WIDTH, lengths or "none"))
    if key.has_marker:
        mark = Markup('<path d="{}" transform="translate(17 7) scale({:g})" fill="{}" stroke="{}" stroke-width=".35"/>')
        is_filled = key.is_filled and not key.has_line
        parts.append(mark.format(MARKERS[key.look.marker].path, 4 * key.scale, shade if is_filled else "none", shade))
    return Markup('<svg width="34" height="14" aria-hidden="true">{}</svg>').format(Markup("").join(parts))
