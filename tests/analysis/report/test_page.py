"""The page as a file: whole, safe to open, of bounded size, the same on every run, and refused in one line."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.report.command import main
from stability.errors import UserError
from tests.analysis.report.conftest import Report, with_curve, with_trouble
from tests.analysis.report.pages import figures, read

MakeStudy = Callable[..., Path]
NASTY = "my.Net</script><script>alert(1)</script>&amp;<b>'\"%{y}"


def test_no_text_of_a_study_is_read_as_html_or_as_a_script(study: MakeStudy, report: Report) -> None:
    folder = study(models=(NASTY, "vitc_tiny"), change=with_trouble, samples=8)
    page = report(folder)
    # Ours: the theme, the data, plotly.js, the page's own.
    scripts = page.every("script")
    assert [one.attributes.get("type") for one in scripts] == [None, "application/json", None, None]
    assert page.every("b") == []
    assert page.one("table", id="cells").rows()[0]["model"] == NASTY
    assert any(NASTY in card.one("h3").text for card in page.every("article"))
    found = figures(page)
    # Of labels plotly.js reads some tags: those of a name are escaped, and only the page's own line ends are tags.
    texts = [text for one in found.values() for trace in one["traces"] for text in trace.get("hovertext", [])]
    texts += [trace["meta"]["trial"] for trace in found["curves-0-0"]["traces"]]
    assert any("&lt;script&gt;" in text for text in texts)
    assert {tag for text in texts for tag in re.findall(r"<[^>]*>", text)} == {"<br>"}
    # A template holds no name: in one, %{y} would be replaced.
    templates = {trace["hovertemplate"] for trace in found["curves-0-0"]["traces"]}
    assert len(templates) == 1
    assert "Net" not in templates.pop()


def test_only_the_pages_own_scripts_may_run_and_nothing_is_loaded(study: MakeStudy, report: Report) -> None:
    page = report(study(samples=2))
    policy = next(one for one in page.every("meta") if "http-equiv" in one.attributes).attributes["content"]
    assert policy is not None
    assert "default-src 'none'" in policy
    scripts = [one for one in page.every("script") if "type" not in one.attributes]
    hashes = set(re.findall(r"'sha256-([^']+)'", policy))
    assert len(scripts) == len(hashes) == 3
    for one in scripts:
        (text,) = one.parts
        assert isinstance(text, str)
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in hashes
    for name in ("src", "href", "action", "srcset"):
        links = [one.attributes[name] for one in page.every() if name in one.attributes]
        assert all(str(link).startswith(("#", "data:")) for link in links)
    assert page.every("link") == []
    style = page.one("style").text
    assert "url(" not in style
    assert "@import" not in style


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of 1,024 trials in 16 cells, with curves of 30 and 60 epochs."""
    from tests.analysis.conftest import make_study

    models = ("vitp_tiny", "vitc_tiny", "regnety_tiny", "mine")
    folder = tmp_path_factory.mktemp("runs") / "thousand"
    return make_study(folder, models=models, samples=64, epochs=(30, 60), change=with_curve)


def test_the_page_of_a_thousand_trials_is_below_ten_megabytes(thousand: Path, tmp_path: Path) -> None:
    assert main([str(thousand), "--out", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").stat().st_size < 10_000_000
    page = read(tmp_path / "page.html")
    assert len(page.one("table", id="trials").rows()) == 1024
    # Folded: a reader prints what is unfolded.
    assert "open" not in page.one(id="trials-part").one("details").attributes


def test_the_file_lies_in_the_study_or_where_out_says(
    study: MakeStudy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = study(samples=2)
    assert main([str(folder)]) == 0
    default = folder / "analysis" / "report.html"
    assert f"Written: {default}, " in capsys.readouterr().out
    other = tmp_path / "a" / "b" / "mine.html"
    assert main([str(folder), "--out", str(other)]) == 0
    assert {path.name for path in other.parent.iterdir()} == {"mine.html"}
    first, second = default.read_text(), other.read_text()
    # But for the command that made it.
    assert first == second.replace(f" --out {other}", "")


def test_plotly_accepts_every_figure(study: MakeStudy, report: Report) -> None:
    from plotly.graph_objects import Figure

    folder = study(models=("vitp_tiny", "vitc_tiny", "mine"), change=with_trouble, samples=8)
    for figure in figures(report(folder)).values():
        data: Any = figure["traces"]
        for trace in data:
            # The page's script puts the colour of the text in the place of this word.
            for part in (
                trace,
                trace.get("line", {}),
                trace.get("marker", {}),
                trace.get("marker", {}).get("line", {}),
            ):
                for key in ("color", "fillcolor"):
                    if str(part.get(key, "")).startswith("@"):
                        part[key] = "#123456"
            for key in ("error_x", "error_y"):
                if str(trace.get(key, {}).get("color", "")).startswith("@"):
                    trace[key]["color"] = "#123456"
        for shape in figure["layout"].get("shapes", []):
            shape["line"]["color"] = "#123456"
        Figure(data, figure["layout"])
        for variant in figure.get("variants", []):
            assert len(variant["across"]) == len(data)
            assert [len(values) for values in variant["across"]] == [len(trace["y"]) for trace in data]
            Figure(data, {"xaxis": variant["axis"]})


MINE = """
def counts(analysis):
    return f"<i>{len(analysis.cells)} cells</i>"


def broken(analysis):
    raise RuntimeError("no luck")


def figure(analysis):
    from matplotlib.figure import Figure

    return Figure(figsize=(1, 1))
"""


def test_sections_and_figures_of_the_users_own(
    study: MakeStudy, report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_report.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = study(samples=2)
    page = report(folder, "--section", "mine_report.counts", "--figure", "mine_report.figure")
    assert "<i>4 cells</i>" in [one.text for one in page.every("pre")]
    assert [one.attributes["alt"] for one in page.every("img")] == ["figure mine_report.figure of analysis.edf"]
    with pytest.raises(UserError, match="no luck"):
        main([str(folder), "--section", "mine_report.broken"])
    assert not (folder / "analysis").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no such folder: nowhere"),
        (["runs/empty"], "nothing to draw yet: of 8 planned trials none has completed"),
        (["runs/quick", "--ot", "x.html"], "did you mean '--out'"),
        (["runs/quick", "--out", "runs"], "--out runs is a folder; accepted: a file, as runs/report.html"),
        (["runs/quick", "--out", "runs/quick/study.yaml/x.html"], "cannot be written"),
        (["runs/quick", "--cells", "vitc_tny"], "did you mean 'vitc_tiny'"),
        (["runs/quick", "--confidence", "95"], "between 0 and 1"),
        (["runs/quick", "--relative", "bset"], "did you mean 'best'"),
        (["runs/quick", "--figure", "edff"], "did you mean 'edf'"),
        (["runs/quick", "--section", "cels"], "did you mean 'cells'"),
        ([], "required"),
    ],
)
def test_mistakes_get_one_line_and_write_nothing(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, study: MakeStudy
) -> None:
    monkeypatch.chdir(tmp_path)
    study("runs/quick", samples=2)
    study("runs/empty", samples=2, change=lambda record: None)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        main(arguments)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_missing_package_is_named_with_its_extra(study: MakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "plotly" else found(name, *rest)
    )
    folder = study(samples=2)
    with pytest.raises(UserError, match=re.escape("analysis.report needs pip install 'stability[report]'")):
        main([str(folder)])
    assert not (folder / "analysis").exists()
