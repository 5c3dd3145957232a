"""A study's dashboard: what is drawn and written of its analysis, and the workspace and the report that show it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from analysis import figures as drawing
from analysis.analysis import Analysis
from analysis.options import Options
from analysis.results import varied
from analysis.sections import own_section
from analysis.wandb import published
from analysis.wandb.keys import keys_of
from analysis.wandb.panels import Part, parts_of
from analysis.wandb.report import ReportWriter
from analysis.wandb.workspace import workspace
from stability.study.store import Study

if TYPE_CHECKING:
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    from analysis.export import Sheet


class Dashboard:
    """A study's dashboard.

    Args:
        study: the study.
        analysis: its numbers.
        options: those of analysis.edf.
        sent: what may leave the machine, of `wandb_content.PARTS`.
        command: the one that publishes.

    Raises:
        UserError: there is no such figure.
    """

    def __init__(self, study: Study, analysis: Analysis, options: Options, sent: Sequence[str], command: str) -> None:
        self.study, self.analysis, self.sent, self.command = study, analysis, tuple(sent), command
        self._options = options
        self._figures = tuple(dict.fromkeys((*drawing.unasked(analysis), *options.figure)))
        for name in self._figures:
            drawing.find(name)

    @cached_property
    def figures(self) -> dict[str, bytes]:
        """The figures by name, as PNGs. Raises UserError where one of the user's own cannot be drawn."""
        return published.figures_of(self.analysis, self._figures)

    @cached_property
    def tables(self) -> dict[str, Sheet]:
        """The tables by name."""
        return published.tables_of(self.analysis, self.sent)

    @cached_property
    def sections(self) -> dict[str, str]:
        """The texts of the user's own sections. Raises UserError where one cannot be written."""
        return {name: own_section(name, self.analysis) for name in self._options.section}

    def _parts(self) -> list[Part]:
        """The panels, new ones each time: workspace and report place them differently."""
        keys = keys_of(self.study, ("model", "optimizer", *varied(self.analysis.cells)))
        kept = published.kept(self._figures, self.tables)
        return parts_of(keys, kept, is_fixed=self.analysis.is_fixed)

    def workspace(self, entity: str, project: str) -> ws.Workspace:
        """Return the workspace of a project, not saved."""
        return workspace(entity, project, self.study.name, self.analysis, self._parts())

    def report(self, entity: str, project: str, *, is_saved: bool) -> wr.Report:
        """Return the report of a project, not saved.

        Args:
            entity: W&B's user or team; may be empty where the report is not to be saved.
            project: W&B's project.
            is_saved: whether the report is to be saved.
        """
        writer = ReportWriter(entity, project, self.study.name, is_saved=is_saved)
        return writer.report(self.analysis, self._parts(), self.sections, self.sent, self.command)


def specification(found: ws.Workspace | wr.Report) -> bytes:
    """Return what a workspace or a report would send to W&B, as JSON."""
    values = found._to_model().model_dump(by_alias=True, exclude_none=True, mode="json")
    return f"{json.dumps(values, indent=1, ensure_ascii=False)}\n".encode()
