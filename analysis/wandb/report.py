"""The report of a study on W&B: the question, the answer, figures and tables, and panels that show its runs live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from analysis.analysis import Analysis
from analysis.report import origin
from analysis.report.names import CellNames
from analysis.wandb import story
from analysis.wandb.panels import Part, placed
from analysis.wandb.published import JOB
from analysis.wandb.workspace import quoted, view_name
from stability.sinks import wandb_content as content
from stability.sinks.private import without_paths

if TYPE_CHECKING:
    import wandb_workspaces.reports.v2 as wr


class ReportWriter:
    """Makes the report of a study.

    Args:
        entity: W&B's user or team.
        project: W&B's project.
        study: the study's name.
        is_saved: whether the report is to be saved: then wandb-workspaces asks the server for the project.
    """

    def __init__(self, entity: str, project: str, study: str, *, is_saved: bool) -> None:
        self._entity, self._project, self._study, self._is_saved = entity, project, study, is_saved

    def report(
        self, analysis: Analysis, parts: Sequence[Part], own: Mapping[str, str], sent: Sequence[str], command: str
    ) -> wr.Report:
        """Return the report, which is not saved.

        Args:
            analysis: the study's numbers.
            parts: the panels.
            own: texts of the user's own sections, by name.
            sent: what may leave the machine, of `wandb_content.PARTS`.
            command: the one that publishes.

        Raises:
            Exception: what wandb raises where the project cannot be found.
        """
        import wandb_workspaces.reports.v2 as wr

        blocks: list[wr.Block] = [wr.MarkdownBlock(story.heading(analysis)), wr.TableOfContents()]
        blocks += [wr.H1("Answer"), wr.MarkdownBlock(story.answer(analysis))]
        for part in parts:
            blocks += [wr.H1(part.name), wr.P(part.about), *self._grids(part)]
        blocks += [wr.H1("Cells"), wr.MarkdownBlock(story.cells(analysis))]
        for name, text in own.items():
            blocks += [wr.H1(name), wr.MarkdownBlock(f"```\n{without_paths(text.rstrip())}\n```")]
        if basis := story.basis(analysis):
            blocks += [wr.H1("What the answers rest on"), wr.MarkdownBlock(basis)]
        if "config" in sent:
            blocks += [wr.H1("What was held fixed"), wr.MarkdownBlock(story.settings(origin.fixed(analysis)))]
        blocks += [wr.H1("Versions and devices"), wr.MarkdownBlock(story.settings(origin.versions(analysis)))]
        if "command" in sent:
            blocks += [wr.H1("Commands"), wr.MarkdownBlock(_commands(analysis, command))]
        title = view_name(f"stability {self._study}")
        about = str(without_paths(story.heading(analysis).split("\n\n")[1]))
        return wr.Report(
            project=self._project, entity=self._entity, title=title, description=about, blocks=blocks, width="fixed"
        )

    def _grids(self, part: Part) -> list[wr.Block]:
        import wandb_workspaces.reports.v2 as wr

        grids: list[wr.Block] = []
        if part.published:
            grids.append(wr.PanelGrid(runsets=[self._runset("Analysis", "==")], panels=placed(part.published)))
        if part.live:
            grids.append(wr.PanelGrid(runsets=[self._runset("Trials", "!=")], panels=placed(part.live)))
        return grids

    def _runset(self, name: str, sign: str) -> wr.Runset:
        """Return the study's runs: that of its analysis (==) or all others (!=).

        They are not grouped: W&B would draw a group as one point of a scatter plot and as one line of parallel
        coordinates. Panels of cells group for themselves.
        """
        import wandb_workspaces.reports.v2 as wr

        study = quoted(content.short(self._study, content.NAME_LENGTH))
        # With entity and project, wandb-workspaces asks the server for the project's id.
        place = {"entity": self._entity, "project": self._project} if self._is_saved else {}
        return wr.Runset(
            **place,
            name=name,
            filters=f"Metric('Group') == {study} and Metric('JobType') {sign} {quoted(JOB)}",
        )


def _commands(analysis: Analysis, command: str) -> str:
    found = origin.commands(analysis, command, CellNames(analysis))
    lines = [line for one in found for line in (f"# {one.about.replace('this page', 'this report')}", one.line)]
    return str(without_paths("\n".join(["```", *lines, "```"])))
