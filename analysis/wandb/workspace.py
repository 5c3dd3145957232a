"""The workspace of a study on W&B: its runs grouped by cell, a section for each part of the dashboard."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.analysis import Analysis
from analysis.wandb import story
from analysis.wandb.panels import MOST_TRIALS, Part
from stability.sinks import wandb_content as content
from stability.study.metrics import metrics_of
from stability.values import DRAWN

if TYPE_CHECKING:
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

# Columns of panels in a section.
COLUMNS = 2


def workspace(entity: str, project: str, study: str, analysis: Analysis, parts: Sequence[Part]) -> ws.Workspace:
    """Return the workspace, which is not saved.

    Args:
        entity: W&B's user or team; empty where it is not known.
        project: W&B's project.
        study: the study's name.
        analysis: its numbers.
        parts: the panels.
    """
    import wandb_workspaces.expr as expr
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    words: list[wr.Panel] = [wr.MarkdownPanel(f"{story.heading(analysis)}\n\n{story.answer(analysis)}")]
    settings = _panel_settings()
    sections = [
        ws.Section(
            name=part.name,
            panels=[*(words if place == 0 else []), *part.published, *part.live],
            is_open=place < 2,
            layout_settings=ws.SectionLayoutSettings(columns=COLUMNS, rows=2),
            panel_settings=settings,
        )
        for place, part in enumerate(parts)
    ]
    error = content.FINAL + metrics_of().primary.key
    return ws.Workspace(
        entity=entity,
        project=project,
        name=view_name(f"stability {study}"),
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis=content.EPOCH, max_runs=MOST_TRIALS),
        runset_settings=ws.RunsetSettings(
            filters=f"Metric('Group') == {quoted(content.short(study, content.NAME_LENGTH))}",
            groupby=[expr.Config(content.CELL)],
            pinned_columns=[f"summary:{content.STATUS}", f"summary:{error}", *(f"config:{one}.value" for one in DRAWN)],
        ),
    )


def _panel_settings() -> ws.SectionPanelSettings:
    """Return settings by which panels do not follow the grouping of the table of runs.

    W&B would draw a group as one point of a scatter plot and as one line of parallel coordinates. Panels of cells group
    for themselves. wandb-workspaces has the setting in what it sends, and no argument for it.
    """
    import wandb_workspaces.reports.v2.internal as internal
    import wandb_workspaces.workspaces as ws

    class OwnGrouping(ws.SectionPanelSettings):
        def _to_model(self) -> internal.LocalPanelSettings:
            model = super()._to_model()
            model.use_runs_table_grouping_in_panels = False
            return model

    return OwnGrouping(x_axis=content.EPOCH)


def view_name(text: str) -> str:
    """Return a name that wandb-workspaces accepts: no symbols, such as = and +."""
    plain = "".join("-" if unicodedata.category(one) in ("So", "Sk", "Sm", "Sc", "Cs") else one for one in text)
    return content.short(plain, content.NAME_LENGTH)


def quoted(text: str) -> str:
    """Return a text as a literal of a filter, whose parser rewrites signs such as = wherever they stand."""
    return "'" + "".join(one if one.isascii() and one.isalnum() else f"\\U{ord(one):08x}" for one in text) + "'"
