"""Checks of a drawn figure: where its texts are, and that they lie within it, apart from each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text


def legends(figure: Figure) -> list[Legend]:
    """Return the legends of a figure and of its axes."""
    return [*figure.legends, *filter(None, (axes.get_legend() for axes in figure.axes))]


def text_boxes(figure: Figure) -> list[tuple[str, Any]]:
    """Return each visible text of a figure with its extent in pixels, at 300 dpi."""
    figure.set_dpi(300)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    texts = [*figure.texts, *(text for legend in legends(figure) for text in legend.get_texts())]
    for axes in figure.axes:
        texts += [*axes.texts, axes.xaxis.label, axes.yaxis.label]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                # The ticks of a bar of colours have their numbers on the right.
                labels: Sequence[Text] = (tick.label1, tick.label2)
                texts += [label for label in labels if label.get_visible() and low <= tick.get_loc() <= high]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_text()]


def texts_of(figure: Figure) -> str:
    """Return all texts of a figure, its spaces plain."""
    return " | ".join(text for text, _ in text_boxes(figure)).replace("\u00a0", " ")


def check_texts(figure: Figure) -> None:
    """Check that no text and no legend leaves the figure, and that none lies on another or on axes."""
    boxes = text_boxes(figure)
    edges = figure.bbox
    for words, box in boxes:
        assert edges.x0 <= box.x0, words
        assert box.x1 <= edges.x1, words
        assert edges.y0 <= box.y0, words
        assert box.y1 <= edges.y1, words
    places = np.array([box.extents for _, box in boxes])
    for place, (words, _) in enumerate(boxes):
        # A pixel of contact is no overlap at 300 dpi.
        left, bottom, right, top = places[place] + (1, 1, -1, -1)
        others = places[place + 1 :]
        touching = (
            (others[:, 0] < right) & (others[:, 2] > left) & (others[:, 1] < top) & (others[:, 3] > bottom)
        ).nonzero()[0]
        assert not len(touching), f"{words!r} on {boxes[place + 1 + touching[0]][0]!r}"
    for legend in legends(figure):
        box = legend.get_window_extent()
        assert edges.x0 <= box.x0
        assert box.x1 <= edges.x1
        for axes in figure.axes:
            assert not box.padded(-1).overlaps(axes.get_window_extent())
        # No more than a line lies between the title and the legend.
        above = [title.y0 for words, title in boxes if title.y0 >= box.y1 - 1 and title.x0 < box.x1 and words]
        assert min(above) - box.y1 <= 0.17 * figure.dpi
