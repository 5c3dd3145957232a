"""Publish a study's analysis on W&B: figures, tables and records as one run, a workspace and a report.

    python -m analysis.wandb publish runs/quick
    python -m analysis.wandb publish runs/quick --project mine --entity my-team
    python -m analysis.wandb publish runs/quick --dry-run        workspace and report as JSON; nothing is sent
    python -m analysis.wandb publish runs/quick --offline        the run in files under runs/quick/wandb, for wandb sync

The workspace and the report show the runs of the study's trials beside the analysis: log these with logger=wandb, or
afterwards with python -m analysis.wandb runs. Publishing again replaces figures, tables, workspace and report in their
places; the records become a new version of their artifact only where they differ. Of several studies each is published
on its own. Needs pip install 'stability[wandb]', and wandb login unless --dry-run or --offline.

The other options are those of analysis.edf.
"""

from __future__ import annotations

import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence

from analysis.command import Parser
from analysis.edf import check_finished, write
from analysis.options import add_options, options_of
from analysis.wandb import published
from analysis.wandb.analysis_run import open_run, prepare
from analysis.wandb.dashboard import Dashboard, specification
from analysis.wandb.saving import save_report, save_workspace
from stability.errors import UserError, unknown
from stability.files import shared_like
from stability.sinks.packages import require
from stability.sinks.wandb import OURS, check_login
from stability.sinks.wandb_content import Part
from stability.sinks.wandb_options import MODES, checked_entity, checked_project, environment_mode, sent_by
from stability.study.store import Study, study_folders

PROGRAM = "analysis.wandb publish"
WORKSPACE_FILE, REPORT_FILE = "wandb-workspace.json", "wandb-report.json"
# What of wandb_content.PARTS an analysis has; curves are in the trials' runs and in the records.
SENT: tuple[Part, ...] = ("record", "config", "command", "machine")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Raises UserError before anything is written or sent, or where W&B refuses; StudyError where it cannot be reached.
    """
    given = _parser().parse(arguments)
    options = options_of(given)
    _check(given)
    words = shlex.join(["python", "-m", *PROGRAM.split(), *(sys.argv[2:] if arguments is None else arguments)])
    folders = dict.fromkeys(folder for path in options.runs for folder in study_folders(path))
    dashboards = []
    for folder in folders:
        analysis = options._replace(runs=[folder]).analysed()
        check_finished([folder], analysis.cells)
        study = Study.open(folder)
        dashboards.append(Dashboard(study, analysis, options, _sent(study, given), words))
    if not (given.dry_run or given.offline):
        check_login("--offline", "--dry-run")
    for dashboard in dashboards:
        with shared_like(dashboard.study.directory):
            if given.dry_run:
                _write(dashboard, given)
            else:
                _publish(dashboard, given)
    return 0


def _parser() -> Parser:
    parser = Parser(PROGRAM, __doc__)
    add_options(parser)
    parser.set_defaults(out=None)
    parser.add_argument("--project", help="default: WANDB_PROJECT, else stability")
    parser.add_argument("--entity", help="W&B's user or team; default: WANDB_ENTITY, else your own")
    parser.add_argument("--offline", action="store_true", help="keep the run in files, for wandb sync")
    parser.add_argument("--dry-run", action="store_true", help="write workspace and report as JSON; send nothing")
    parser.add_argument("--no-workspace", dest="workspace", action="store_false", help="without the workspace")
    parser.add_argument("--no-report", dest="report", action="store_false", help="without the report")
    default = "as logger.wandb.send in the study's commands, else record config command"
    send = f"what may leave the machine, of {', '.join(SENT)}; default: {default}"
    parser.add_argument("--send", nargs="*", metavar="PART", help=send)
    return parser


def _check(given: Namespace) -> None:
    """Check the command's own options, and set project, entity and offline to what holds. Raises UserError."""
    given.project = checked_project(given.project, "--project")
    given.entity = checked_entity(given.entity, "--entity")
    for one in given.send or ():
        if one not in SENT:
            raise unknown("part of --send", one, SENT)
    if given.dry_run and given.offline:
        raise UserError("--dry-run and --offline; accepted: one of them: --dry-run makes no run")
    if given.dry_run and not (given.workspace or given.report):
        raise UserError("--dry-run with --no-workspace and --no-report writes nothing; accepted: at most one of these")
    require("wandb", PROGRAM)
    if given.workspace or given.report:
        require("wandb_workspaces", PROGRAM, "wandb")
    if not given.dry_run:
        _check_mode(given)


def _sent(study: Study, given: Namespace) -> list[str]:
    """Return what may leave the machine of a study. `machine` is sent only where --send names it."""
    known = sent_by(study.manifest.all_commands)
    return [part for part in SENT if part in known and part != "machine"] if given.send is None else given.send


def _check_mode(given: Namespace) -> None:
    """Check WANDB_MODE, and set offline to what holds. Raises UserError."""
    given.offline = given.offline or environment_mode(MODES) == "offline"
    for name in OURS:
        if os.environ.get(name):
            print(f"{name} is not used: id, group, job type and folder of the run follow from the study")


def _write(dashboard: Dashboard, given: Namespace) -> None:
    """Write the specifications of workspace and report into the study's folder analysis/."""
    prepare()
    files = {}
    if given.workspace:
        files[WORKSPACE_FILE] = specification(dashboard.workspace(given.entity or "", given.project))
    if given.report:
        files[REPORT_FILE] = specification(dashboard.report(given.entity or "", given.project, is_saved=False))
    folder = dashboard.study.directory / "analysis"
    write(folder, files)
    print(f"{dashboard.study.name}: written to {folder}: {', '.join(files)}; nothing was sent")


def _publish(dashboard: Dashboard, given: Namespace) -> None:
    """Log the analysis as a run; with a server, save workspace and report too."""
    study, is_private = dashboard.study, "machine" not in dashboard.sent
    # What a user's own code may raise comes before anything is sent.
    figures, tables, _ = dashboard.figures, dashboard.tables, dashboard.sections
    prepare()
    place = {"project": given.project, "entity": given.entity, "mode": "offline" if given.offline else "online"}
    saved: dict[str, str] = {}
    with open_run(study.name, study.directory, is_private=is_private, **place) as run:
        run.log(figures, tables, published.counts_of(study))
        files = published.record_files(study, dashboard.sent) if "record" in dashboard.sent else ()
        records = run.attach(files) if files else 0
        if not given.offline:
            saved |= {"workspace": save_workspace(dashboard, run, given.project)} if given.workspace else {}
            saved |= {"report": save_report(dashboard, run, given.project)} if given.report else {}
        where = run.url or str(study.directory / "wandb")
    print(f"{study.name}: {len(figures)} figures, {len(tables)} tables and {records} files of records: {where}")
    for name, url in saved.items():
        print(f"  {name}: {url}")
    if given.offline:
        kept = shlex.quote(str(study.directory / "wandb"))
        print(f"  next: wandb sync {kept}/offline-run-*; workspace and report need a server: publish without --offline")
