"""Save workspace and report on the server; those of an earlier publish are replaced in their places."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.wandb.analysis_run import AnalysisRun, telling
from analysis.wandb.dashboard import Dashboard
from analysis.wandb.published import REPORT, WORKSPACE

if TYPE_CHECKING:
    import wandb_workspaces.workspaces as ws


def save_workspace(dashboard: Dashboard, run: AnalysisRun, project: str) -> str:
    """Save the workspace and return its address, which the run's config keeps.

    Args:
        dashboard: of the study.
        run: that of its analysis, which knows where an earlier workspace is.
        project: W&B's project.

    Raises:
        UserError: the server refuses.
        StudyError: no network, or the server fails.
    """
    with telling(f"{dashboard.study.name}: the workspace is not saved"):
        found = dashboard.workspace(run.entity, project)
        standing = _standing_workspace(run.known(WORKSPACE))
        if standing is not None:
            standing.name, standing.sections = found.name, found.sections
            standing.settings, standing.runset_settings = found.settings, found.runset_settings
            found = standing
        url = str(found.save().url)
        run.configure({WORKSPACE: url})
    return url


def save_report(dashboard: Dashboard, run: AnalysisRun, project: str) -> str:
    """Save the report and return its address, which the run's config keeps; see `save_workspace`.

    Args:
        dashboard: of the study.
        run: that of its analysis.
        project: W&B's project.

    Raises:
        UserError: the server refuses.
        StudyError: no network, or the server fails.
    """
    with telling(f"{dashboard.study.name}: the report is not saved"):
        found = dashboard.report(run.entity, project, is_saved=True)
        found.id = _standing_report(run.known(REPORT))
        url = str(found.save().url)
        run.configure({REPORT: url})
    return url


def _standing_workspace(url: str) -> ws.Workspace | None:
    """Return the workspace at an address; None where it was removed."""
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces.workspaces.errors import SpecVersionError

    try:
        return ws.Workspace.from_url(url) if url else None
    # Not found, or of a version that this wandb-workspaces does not know: a new one is made.
    except (ValueError, SpecVersionError):
        return None


def _standing_report(url: str) -> str:
    """Return the id of the report at an address; empty where it was removed."""
    import wandb_workspaces.reports.v2 as wr

    try:
        return str(wr.Report.from_url(url).id) if url else ""
    except (ValueError, TypeError):
        return ""
