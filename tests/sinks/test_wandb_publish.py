"""analysis.wandb publish: what arrives, what is kept offline, and that every panel names what a run has."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.export import Sheet
from analysis.statistics import error_distribution
from analysis.wandb.__main__ import main
from analysis.wandb.analysis_run import _neutral_folder
from analysis.wandb.published import _drawn, cells_of
from analysis.wandb.workspace import quoted, view_name
from stability.errors import StudyError, UserError
from stability.sinks import wandb_run
from tests.analysis import grids
from tests.analysis.conftest import make_study
from tests.sinks.dashboard_server import COMMITTED, DashboardServer, serving_dashboards
from tests.sinks.offline_runs import read_back, runs_of, sync
from tests.sinks.panel_keys import keys_named, panel_keys
from tests.trained import TINY, TINY_C, tiny, trained_study

pytest.importorskip("wandb_workspaces")

FACTORS = {"models": ("vitp_tiny", "vitc_tiny"), "optimizers": ("adamw",), "samples": 6}


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No login and no settings but those of a test; wandb's copies of artifacts go away with the test."""
    for name in [name for name in os.environ if name.startswith("WANDB_") and name != "WANDB_SERVICE"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))
    yield
    for link in Path(_neutral_folder()).glob("wandb-*"):
        if link.is_symlink() and tmp_path in link.readlink().parents:
            link.unlink()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[DashboardServer]:
    """A server, and an environment that points to it."""
    with serving_dashboards() as one:
        monkeypatch.setenv("WANDB_BASE_URL", one.url)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setattr(wandb_run, "INIT_SECONDS", 4)
        wandb_run.forget()
        yield one
        one.mode = "401"
    wandb_run.forget()


def with_curve(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record with a row of a curve."""
    return {**record, "result": {**record["result"], "curve": [{"epoch": 1, "train_loss": 2.0, "top1_error": 50.0}]}}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study of two cells, whose records have a host and a path."""

    def change(record: dict[str, Any]) -> dict[str, Any]:
        record["provenance"] = {**record.get("provenance", {}), "host": "a-host", "command": "python /home/me/run.py"}
        return with_curve(record)

    return make_study(tmp_path / "runs" / "small", change=change, **FACTORS)  # type: ignore[arg-type]


def test_an_analysis_arrives_as_one_run_a_workspace_and_a_report(
    server: DashboardServer, study: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["publish", str(study), "--project", "mine"]) == 0
    printed = capsys.readouterr().out
    assert "small: 3 figures, 5 tables and 13 files of records: " in printed
    assert f"workspace: {server.url}/us/mine?nw=" in printed
    assert f"report: {server.url}/us/mine/reports/" in printed
    about = server.upserts[0]
    assert (about["name"], about["groupName"], about["jobType"]) == ("small-analysis", "small", "analysis")
    assert server.exit_codes == {"small-analysis": 0}
    assert set(server.history["small-analysis"][0]) >= {"figures/map", "figures/edf", "figures/scatter", "tables/cells"}
    assert server.summary["small-analysis"]["trials"] == 12
    assert server.history["small-analysis"][0]["figures/edf"]["width"] > 600
    assert len(server.artifacts["small-records"]) == 1
    (place,) = [one for one in server.artifact_files if one.startswith("small-records:")]
    assert server.states[place] == COMMITTED
    names = server.artifact_files[place]
    assert len(names) == 13
    assert {"study.yaml", "record.json"} == {Path(one).name for one in names}
    check_specifications(server.spec("project-view"), server.spec("runs"), "small")
    check_nothing_of_the_machine(server, study)
    # The same records again: no new version, and workspace and report in their places.
    count = server.saved
    server.artifacts["small-records"].append("of another version")
    assert main(["publish", str(study), "--project", "mine"]) == 0
    assert (server.saved, len(server.views)) == (count + 2, 2)
    assert len(server.artifacts["small-records"]) == 2
    again = capsys.readouterr().out
    assert printed.splitlines()[1:] == again.splitlines()[1:]
    # Trouble with the workspace is one line, and the run is a failed one.
    monkeypatch.setattr(DashboardServer, "answer_UpsertView2", lambda *_: None)
    with pytest.raises(StudyError, match=r"^small: the workspace is not saved: \w+: [^\n]*$"):
        main(["publish", str(study), "--project", "mine"])
    assert server.exit_codes == {"small-analysis": 1}


def check_nothing_of_the_machine(server: DashboardServer, study: Path) -> None:
    """Check that no request names a host or a path of this machine: the home, the working directory, the study's."""
    everything = b"".join(server.bodies)
    assert b'"local_path"' in everything, "artifacts' manifests are among the requests"
    paths = [Path.home(), Path.cwd(), study.absolute(), study.resolve(), *map(Path, ("/home/me", "/root"))]
    # A host's name may be as short as a word.
    assert [one for one in ("a-host", f'"{platform.node()}"', *map(str, paths)) if one.encode() in everything] == []


@pytest.mark.slow
@pytest.mark.parametrize("is_named", [False, True])
def test_what_was_published_offline_names_nothing_of_the_machine(
    server: DashboardServer, study: Path, monkeypatch: pytest.MonkeyPatch, is_named: bool
) -> None:
    """wandb sync sends where the copies of the artifacts' files lie."""
    if not is_named:
        monkeypatch.delenv("WANDB_DATA_DIR")
    for _ in range(2):
        assert main(["publish", str(study), "--offline", "--project", "mine"]) == 0
    assert server.bodies == []
    # Else `wandb sync` names the path of its own program, as docs/loggers.md says.
    monkeypatch.setenv("WANDB_PROGRAM", "wandb")
    sync(study)
    (row,) = server.history["small-analysis"]
    assert "tables/cells" in row
    (place,) = [one for one in server.artifact_files if one.startswith("small-records:")]
    assert (server.states[place], len(server.artifact_files[place])) == (COMMITTED, 13)
    check_nothing_of_the_machine(server, study)


def check_specifications(workspace: dict[str, Any], report: dict[str, Any], study: str) -> None:
    """Check the parts of both, and that they show the study's runs alone."""
    sections = workspace["section"]["panelBankConfig"]["sections"]
    parts = ["Overview", "EDFs", "Hyperparameters", "Training curves", "Divergences and failures"]
    assert [one["name"] for one in sections] == parts
    (runset,) = workspace["section"]["runSets"]
    assert runset["grouping"] == [{"section": "config", "name": "cell.value"}]
    assert [(one["key"]["name"], one["value"]) for one in runset["filters"]["filters"]] == [("group", study)]
    # Panels that do not group, as scatter plots, draw so many trials; they have no number of their own.
    assert workspace["section"]["settings"]["maxRuns"] >= 1_000
    # A grouped scatter plot has a point per cell: panels do not follow the table of runs, and those of cells group.
    assert {one["localPanelSettings"]["useRunsTableGroupingInPanels"] for one in sections} == {False}
    drawn = [panel for one in sections for panel in one["panels"]] + [
        panel
        for one in report["blocks"]
        if one["type"] == "panel-grid"
        for panel in one["metadata"]["panelBankSectionConfig"]["panels"]
    ]
    grouped = {"Run History Line Plot": "cell.value", "Bar Chart": "cell.value"}
    kinds = {(one["viewType"], one["config"].get("groupBy")) for one in drawn}
    assert {("Bar Chart", "cell.value"), ("Scatter Plot", None), ("Parallel Coordinates Plot", None)} <= kinds
    assert all(group == grouped.get(kind) for kind, group in kinds)
    # W&B shows the first 10 unless told.
    assert all(one["config"]["limit"] >= 1_000 for one in drawn if one["viewType"] in grouped)
    headings = [one["children"][0]["text"] for one in report["blocks"] if one["type"] == "heading"]
    assert headings[:6] == ["Answer", *parts]
    grids = [one["metadata"] for one in report["blocks"] if one["type"] == "panel-grid"]
    for grid in grids:
        (runset,) = grid["runSets"]
        found = {one["key"]["name"]: one["value"] for one in runset["filters"]["filters"]}
        assert found == {"group": study, "jobType": "analysis"}
        assert runset["project"]["name"] == "mine"
        assert runset["grouping"] == []
    words = " ".join(one["content"] for one in report["blocks"] if one["type"] == "markdown-block")
    assert "Is this model easy to optimise?" in words
    assert "against" in words
    assert "| level |" in words


def test_a_dry_run_writes_specifications_without_login_or_network(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Any connection is refused at this port.
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert main(["publish", str(study), "--dry-run", "--project", "mine", "--entity", "us"]) == 0
    assert capsys.readouterr().out == (
        f"small: written to {study}/analysis: wandb-workspace.json, wandb-report.json; nothing was sent\n"
    )
    workspace = json.loads((study / "analysis" / "wandb-workspace.json").read_text())
    report = json.loads((study / "analysis" / "wandb-report.json").read_text())
    assert (workspace["entity"], workspace["project"]) == ("us", "mine")
    assert report["project"] == {"name": "mine", "entityName": "us"}
    assert not (study / "wandb").exists()
    assert main(["publish", str(study), "--dry-run", "--no-report", "--send"]) == 0
    assert "wandb-report.json" not in capsys.readouterr().out
    main(["publish", str(study), "--dry-run", "--no-workspace", "--send"])
    less = (study / "analysis" / "wandb-report.json").read_text()
    assert "What was held fixed" not in less
    assert "Commands" not in less


@pytest.mark.parametrize(
    ("command", "sent", "has_curves"),
    [
        ("python -m stability.run logger=wandb", ["record", "config", "command"], True),
        ("python -m stability.run logger=wandb 'logger.wandb.send=[]'", [], False),
        ("python -m stability.run 'logger.wandb.send=[curve, record, machine]'", ["record"], True),
    ],
)
def test_what_the_study_did_not_send_is_neither_sent_nor_drawn(
    tmp_path: Path, command: str, sent: list[str], has_curves: bool
) -> None:
    study = make_study(tmp_path / "less", change=with_curve, command=command, **FACTORS)  # type: ignore[arg-type]
    assert main(["publish", str(study), "--dry-run", "--project", "mine"]) == 0
    text = (study / "analysis" / "wandb-report.json").read_text()
    named = set(panel_keys(json.loads(text)))
    assert (("history", "train/loss") in named, "Training curves" in text) == (has_curves, has_curves)
    assert ("What was held fixed" in text, '"Commands"' in text) == ("config" in sent, "command" in sent)
    # No trial of this study diverged; each has an error.
    assert ("summary", "diverged_step") not in named
    assert ("summary", "final/top1_error") in named
    assert main(["publish", str(study), "--offline"]) == 0
    (folder,) = runs_of(study)
    (log,) = folder.glob("*.wandb")
    assert (b"small-records" in log.read_bytes() or b"less-records" in log.read_bytes()) == ("record" in sent)


def test_a_study_of_one_trial_a_cell_has_neither_map_nor_edf(tmp_path: Path) -> None:
    cells = grids.cells_of("vitp_tiny", "vitc_tiny", optimizers=("adamw", "sgd"), epochs=(6, 12))
    fixed = grids.make_grid(tmp_path / "fixed", lambda factors, *_: 60.0 / factors["epochs"], cells=cells)
    assert main(["publish", str(fixed), "--dry-run", "--project", "mine"]) == 0
    for name in ("workspace", "report"):
        text = (fixed / "analysis" / f"wandb-{name}.json").read_text()
        named = {key for _, key in keys_named(json.loads(text))}
        assert {"figures/length", "figures/gap", "tables/cells", "tables/errors", "tables/differences"} <= named
        assert not {"figures/map", "figures/edf", "tables/edf", "tables/answers"} & named
        for word in ("stability map", "erdict", "good range", "Lowest", "Median", "mean over its trials"):
            assert word not in text, word
        # Every cell has the same lr and weight decay: no panel shows these.
        assert not {("config", "lr"), ("config", "wd")} & set(panel_keys(json.loads(text)))
        assert ("config", "epochs") in set(panel_keys(json.loads(text)))
    # What a panel shows was published.
    assert main(["publish", str(fixed), "--offline", "--project", "mine"]) == 0
    ((_, (row,)),) = map(read_back, runs_of(fixed))
    media = {name.removesuffix("._type") for name in row if name.endswith("._type")}
    assert media == {key for key in named if key.startswith(("figures/", "tables/"))}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], r"no such folder: nowhere"),
        (["{study}", "--project", "a/b"], r"--project='a/b'; accepted: 1 to 128 characters"),
        (["{study}", "--entity", "team/mine"], r"--entity='team/mine'; accepted: a user or team of W&B"),
        (["{study}", "--send", "records"], r"unknown part of --send 'records' \(did you mean 'record'\?\)"),
        (["{study}", "--dry-run", "--offline"], r"accepted: one of them"),
        (["{study}", "--dry-run", "--no-report", "--no-workspace"], r"writes nothing"),
        (["{study}"], r"no login is found; accepted: wandb login, or WANDB_API_KEY; or --offline, --dry-run"),
        (["{study}", "--figure", "mapp"], r"mapp"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(study: Path, arguments: list[str], message: str) -> None:
    before = sorted(study.rglob("*"))
    with pytest.raises(UserError, match=message):
        main(["publish", *(one.format(study=study) for one in arguments)])
    assert sorted(study.rglob("*")) == before


def test_a_study_without_records_has_nothing_to_publish(tmp_path: Path) -> None:
    empty = make_study(tmp_path / "empty", change=lambda record: None, **FACTORS)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="nothing to draw yet"):
        main(["publish", str(empty), "--offline"])
    assert not (empty / "wandb").exists()


def test_a_server_that_refuses_or_cannot_be_reached_is_one_line(server: DashboardServer, study: Path) -> None:
    server.mode = "403"
    with pytest.raises(UserError, match=r"small: W&B: \w+: .*; accepted: a login .* --entity and --project"):
        main(["publish", str(study), "--project", "mine", "--entity", "nobody"])
    wandb_run.forget()
    server.close()
    with pytest.raises(StudyError, match=r"^small: W&B: \w+: [^\n]*; accepted: later again, or --offline, --dry-run$"):
        main(["publish", str(study), "--project", "mine"])
    # No run was opened: nothing is left of it.
    assert not list(study.glob("wandb/*"))


def test_literals_of_filters_and_names_of_views() -> None:
    from wandb_workspaces.expr import expr_to_filters

    for name in ("quick", "fig4/a b", "lr=1 <2> 'x' \"y\" \\ ü"):
        found = expr_to_filters(f"Metric('Group') == {quoted(name)}")
        assert (found.key.section, found.key.name, found.op, found.value) == ("run", "group", "=", name)
    assert view_name("stability lr=1 + $x") == "stability lr-1 - -x"


def test_columns_of_tables_hold_one_type() -> None:
    rows = [{"a": 1, "b": True, "c": float("inf"), "d": "/home/me/x", "e": [1]}, {"a": 2.5, "b": 3, "c": 1.0}]
    assert cells_of(Sheet("abcde", rows), is_private=True) == [
        [1, "True", None, ".../x", "[1]"],
        [2.5, "3", 1.0, None, None],
    ]
    assert cells_of(Sheet("d", rows), is_private=False)[0] == ["/home/me/x"]


def test_long_tables_arrive_whole(study: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """wandb's own limits cut a table of 25,000 rows in a run's files; these are lowered here, so that both cut."""
    import wandb

    monkeypatch.setattr(wandb.Table, "MAX_ROWS", 3)
    monkeypatch.setattr(wandb.Table, "MAX_ARTIFACT_ROWS", 5)
    rows = [{"number": place, "word": "x"} for place in range(25_000)]
    monkeypatch.setattr("analysis.wandb.published.tables_of", lambda *_: {"trials": Sheet(["number", "word"], rows)})
    monkeypatch.setattr("analysis.wandb.published.figures_of", lambda *_: {})
    assert main(["publish", str(study), "--offline"]) == 0
    assert (wandb.Table.MAX_ROWS, wandb.Table.MAX_ARTIFACT_ROWS) == (3, 5)
    (folder,) = runs_of(study)
    (file,) = folder.rglob("*.table.json")
    assert [one[0] for one in json.loads(file.read_text())["data"]] == list(range(25_000))
    # The artifact of the table, which the App shows, as it waits to be sent.
    found = [json.loads(path.read_text()) for path in tmp_path.rglob("artifacts/staging/*") if path.is_file()]
    assert {len(one["data"]) for one in found if one.get("_type") == "table"} == {25_000}


def test_a_chart_of_many_steps_keeps_their_shape() -> None:
    """Ties among them: a third of the trials has one error."""
    errors = np.concatenate([np.random.default_rng(0).exponential(20.0, 6_000), np.full(3_000, 90.0)])
    curve = error_distribution(np.append(errors, np.inf), len(errors) + 1, None)
    places = _drawn(curve.share, 500)
    assert len(places) <= 500
    assert (places[0], places[-1]) == (0, len(curve.share) - 1)
    # Every step lies less than a 499th of the height above the last one that is drawn, as does the line to the next.
    above = np.searchsorted(places, np.arange(len(curve.share)), side="right") - 1
    assert (curve.share - curve.share[places[above]]).max() < 1 / 499
    assert len(_drawn(curve.share[:300], 500)) == 300
    assert len(_drawn(curve.share, 0)) == 2


@pytest.mark.slow
def test_every_panel_names_keys_that_a_real_offline_run_has(tmp_path: Path) -> None:
    """The study is trained; its runs and that of its analysis are read back by wandb's own reader."""
    study = tmp_path / "runs" / "trained"
    configs = [tiny(model, keep="none", lr=lr) for model in (TINY, TINY_C) for lr in (1e-3, 3e-3, 1e9)]
    trained_study(study, configs)
    assert main(["runs", str(study), "--offline", "--project", "mine"]) == 0
    assert main(["publish", str(study), "--offline", "--project", "mine"]) == 0
    assert main(["publish", str(study), "--dry-run", "--project", "mine"]) == 0
    found = [read_back(folder) for folder in runs_of(study)]
    trials = [one for one in found if one[0]["job_type"] != "analysis"]
    ((analysis, (row,)),) = [one for one in found if one[0]["job_type"] == "analysis"]
    assert len(trials) == len(configs)
    assert analysis["run_group"] == "trained"
    # The reader writes media as their fields.
    media = {name.removesuffix("._type") for name in row if name.endswith("._type")}
    logged: dict[str, set[str]] = {"config": set(), "summary": media, "history": set()}
    for run, rows in trials:
        logged["config"] |= run["config"].keys()
        logged["summary"] |= run["summary"].keys()
        logged["history"] |= {name for one in rows for name in one}
    assert any(run["summary"]["diverged_step"] for run, _ in trials), "a diverged trial has its step"
    for name in ("workspace", "report"):
        values = json.loads((study / "analysis" / f"wandb-{name}.json").read_text())
        named = set(keys_named(values))
        assert len(named) > 15
        assert {("config", "lr"), ("summary", "final/top1_error"), ("history", "train/loss")} <= named
        assert {("summary", "figures/map"), ("summary", "tables/trials"), ("summary", "diverged_step")} <= named
        assert [one for one in named if one[1] not in logged[one[0]]] == []
