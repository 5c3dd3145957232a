"""The page in a real browser: a headless Chromium, where one is installed (Debian: apt-get install chromium)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis.report.command import main
from tests.analysis.conftest import make_study
from tests.analysis.grids import cells_of, make_grid
from tests.analysis.report.conftest import with_trouble
from tests.browser import PROGRAMS, Browser, browser, program
from tests.plain import read_records

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(program() is None, reason=f"no Chromium on PATH ({', '.join(PROGRAMS)})"),
]
# The traces of a cell that are visible in a panel.
VISIBLE = "(name, cell) => document.getElementById(name).data.filter(one => one.meta.cell === cell && one.visible)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with diverged, failed and missing trials, one model of a name that is no HTML."""
    models = ("vitp_tiny", "vitc_tiny", "my.Net</script><script>alert(1)</script>")
    return make_study(tmp_path_factory.mktemp("runs") / "study", models=models, change=with_trouble)


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    """The study's page."""
    assert main([str(folder)]) == 0
    return folder / "analysis" / "report.html"


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser."""
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(autouse=True)
def no_complaints(window: Browser) -> Iterator[None]:
    """Whatever a test does: the console has no error and no warning, and nothing is asked of the network."""
    window.complaints.clear()
    window.requests.clear()
    yield
    assert window.complaints == []
    assert [one for one in window.requests if not one.startswith(("file:", "data:", "blob:", "about:"))] == []


def open_page(window: Browser, page: Path, **options: Any) -> None:
    """Open the page and wait for its first figure."""
    window.open(page, **options)
    window.wait("document.querySelector('#map .plot .main-svg') !== null")


def scroll(window: Browser, name: str) -> None:
    """Scroll to a panel and wait until it is drawn."""
    window.run(f"document.getElementById({json.dumps(name)}).scrollIntoView({{block: 'center'}})")
    window.wait(f"document.querySelector('#{name} .main-svg') !== null")


def hovered(window: Browser, name: str, trace: int, point: int) -> str:
    """Move the pointer to a point of a trace and return the text that appears."""
    scroll(window, name)
    across, down = window.run(
        f"""(() => {{
            const place = document.getElementById({json.dumps(name)}), box = place.getBoundingClientRect();
            const trace = place._fullData[{trace}], layout = place._fullLayout;
            const axis = (letter) => layout[trace[letter + "axis"].replace(/^([xy])/, "$1axis")];
            const x = axis("x"), y = axis("y");
            return [box.x + x._offset + x.d2p(trace.x[{point}]), box.y + y._offset + y.d2p(trace.y[{point}])];
        }})()"""
    )
    window.point(across - 40, down - 40)
    window.point(across, down)
    window.wait(f"document.querySelector('#{name} .hoverlayer .hovertext') !== null")
    text: str = window.run(f"document.querySelector('#{name} .hoverlayer').textContent")
    window.point(1, 1)
    return text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_figures_are_drawn(window: Browser, page: Path, scheme: str) -> None:
    open_page(window, page, scheme=scheme)
    names = window.run("[...document.querySelectorAll('.plot')].map(one => one.id)")
    assert names == ["map-0-0", *(f"{kind}-0-{place}" for kind in ("edf", "errors", "curves") for place in (0, 1))]
    for name in names:
        scroll(window, name)
        box = "(() => { const box = document.querySelector('#%s .main-svg').getBoundingClientRect();"
        assert window.run(box % name + " return box.width > 300 && box.height > 250; })()"), name
    assert window.run("document.querySelectorAll('.modebar-btn[data-title*=\"loud\"]').length") == 0


def test_the_answer_and_the_map_are_on_the_first_screen(window: Browser, page: Path) -> None:
    open_page(window, page)
    for what in (".verdict", "#map .main-svg"):
        assert window.run(f"document.querySelector({json.dumps(what)}).getBoundingClientRect().bottom < innerHeight")


def test_a_pointer_on_a_mark_tells_what_it_is(window: Browser, page: Path, folder: Path) -> None:
    open_page(window, page)
    data = json.loads(window.run("document.getElementById('data').textContent"))
    records = read_records(folder)
    for name in ("edf-0-1", "errors-0-1"):
        for number, trace in enumerate(data[name]["traces"]):
            if "hovertext" not in trace or trace["meta"]["cell"] != 1:
                continue
            text = hovered(window, name, number, 0)
            record = records[text[-12:]]
            is_diverged = record["status"] == "diverged"
            assert ("diverged at optimizer step 31" if is_diverged else "completed: top-1 error") in text
            assert "lr " in text
            assert "wd " in text
    assert "epoch 1: " in hovered(window, "curves-0-0", 0, 0)
    assert "best seen" in hovered(window, "map-0-0", 0, 0)
    # A name with a tag in it is text in a label too.
    last = len(data["curves-0-0"]["traces"]) - 1
    assert "</script><script>alert(1)</script>" in hovered(window, "curves-0-0", last, 2)


def test_legends_show_and_hide_cells_everywhere(window: Browser, page: Path) -> None:
    open_page(window, page)
    for name in ("edf-0-0", "errors-0-0"):
        scroll(window, name)
    entry = "#edf .legend button[data-cell='0']"

    def visible(name: str, cell: int) -> bool:
        return bool(window.run(f"({VISIBLE})('{name}', {cell}).length"))

    assert all(visible(name, cell) for name in ("edf-0-0", "errors-0-0", "map-0-0") for cell in (0, 2))
    window.click(entry)
    assert [visible(name, 0) for name in ("edf-0-0", "errors-0-0", "map-0-0")] == [False] * 3
    assert all(visible(name, 2) for name in ("edf-0-0", "errors-0-0", "map-0-0"))
    pressed = "[...document.querySelectorAll(\"[data-cell='0']\")].map(one => one.getAttribute('aria-pressed'))"
    assert set(window.run(pressed)) == {"false"}
    window.click(entry)
    assert visible("edf-0-0", 0)
    # By the keyboard, and alone by a double click.
    window.run(f'document.querySelector("{entry}").focus()')
    window.call("Input.dispatchKeyEvent", type="keyDown", key=" ", code="Space", text=" ", windowsVirtualKeyCode=32)
    window.call("Input.dispatchKeyEvent", type="keyUp", key=" ", code="Space", windowsVirtualKeyCode=32)
    assert not visible("edf-0-0", 0)
    window.run(f"document.querySelector(\"{entry}\").dispatchEvent(new MouseEvent('dblclick'))")
    assert visible("edf-0-0", 0)
    assert not visible("edf-0-0", 2)
    window.run(f"document.querySelector(\"{entry}\").dispatchEvent(new MouseEvent('dblclick'))")
    assert visible("edf-0-0", 2)


def test_a_drag_zooms_and_hiding_a_cell_keeps_the_zoom(window: Browser, page: Path) -> None:
    open_page(window, page)
    scroll(window, "edf-0-0")
    span = "document.getElementById('edf-0-0')._fullLayout.xaxis.range"
    before = window.run(span)
    across, down = window.middle("#edf-0-0 .nsewdrag")
    window.point(across - 60, down - 60)
    options = {"button": "left", "clickCount": 1}
    window.call("Input.dispatchMouseEvent", type="mousePressed", x=across - 60, y=down - 60, **options)
    for step in range(1, 6):
        window.call(
            "Input.dispatchMouseEvent",
            type="mouseMoved",
            x=across - 60 + 24 * step,
            y=down - 60 + 24 * step,
            button="left",
            buttons=1,
        )
    window.call("Input.dispatchMouseEvent", type="mouseReleased", x=across + 60, y=down + 60, **options)
    window.wait(f"{span}[1] < {before[1]}")
    after = window.run(span)
    assert before[0] < after[0] < after[1] < before[1]
    window.click("#edf .legend button[data-cell='0']")
    assert window.run(span) == after


def test_errors_are_drawn_against_another_axis(window: Browser, page: Path) -> None:
    open_page(window, page)
    scroll(window, "errors-0-0")
    window.run(
        "(() => { const one = document.querySelector('[data-variants=errors]'); one.value = '1';"
        " one.dispatchEvent(new Event('change')); })()"
    )
    assert window.run("document.getElementById('errors-0-0')._fullLayout.xaxis.title.text") == "weight decay"
    data = json.loads(window.run("document.getElementById('data').textContent"))
    drawn = window.run("document.getElementById('errors-0-0').data.map(one => one.x)")
    assert drawn == data["errors-0-0"]["variants"][1]["across"]


def test_tables_are_sorted_by_their_headings(window: Browser, page: Path) -> None:
    open_page(window, page)
    column = "[...document.querySelectorAll('#trials tbody tr')].map(row => row.cells[%d].textContent)"
    headings = window.run("[...document.querySelectorAll('#trials th')].map(one => one.textContent)")
    place = headings.index("top-1 error (%)")
    first = window.run(column % (len(headings) - 1))

    def sort() -> list[tuple[str, str]]:
        window.click(f"#trials th:nth-child({place + 1}) button")
        return list(zip(window.run(column % place), window.run(column % headings.index("status")), strict=True))

    up = sort()
    errors = [float(error) for error, status in up if status == "completed"]
    assert errors == sorted(errors)
    # Diverged is worse than any error; without a result there is no place among them, either way.
    statuses = [status for _, status in up]
    order = {"completed": 0, "diverged": 1, "planned": 2, "failed": 2}
    assert [order[status] for status in statuses] == sorted(order[status] for status in statuses)
    assert window.run(f"document.querySelectorAll('#trials th')[{place}].getAttribute('aria-sort')") == "ascending"
    down = sort()
    ended = [status for _, status in down if status in ("completed", "diverged")]
    assert ended == sorted(ended, reverse=True)
    assert [status in ("planned", "failed") for _, status in down][-len(down) + len(ended) :] == [True] * (
        len(down) - len(ended)
    )
    assert sorted(window.run(column % (len(headings) - 1))) == sorted(first)


def test_trials_are_filtered_by_words(window: Browser, page: Path) -> None:
    open_page(window, page)
    window.run(
        "(() => { const one = document.getElementById('filter'); one.value = 'SGD diverged';"
        " one.dispatchEvent(new Event('input')); })()"
    )
    rows = window.run("[...document.querySelectorAll('#trials tbody tr:not([hidden])')].map(one => one.textContent)")
    assert rows
    assert all("sgd" in row and "diverged" in row for row in rows)
    assert window.run("document.getElementById('matching').textContent") == f"{len(rows)} of 96"


def test_light_and_dark_follow_the_system_until_the_reader_chooses(window: Browser, page: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    words = "getComputedStyle(document.querySelector('#map .xtitle')).fill"
    for scheme, other in (("light", "dark"), ("dark", "light")):
        open_page(window, page, scheme=scheme)
        grounds = {scheme: window.run(ground)}
        inks = {scheme: window.run(words)}
        window.click("#theme")
        grounds[other], inks[other] = window.run(ground), window.run(words)
        assert grounds == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}
        assert inks == {"light": "rgb(27, 31, 36)", "dark": "rgb(230, 233, 237)"}
        # The choice outlasts the visit, once the browser has passed it on.
        for _ in range(10):
            open_page(window, page, scheme=scheme)
            if window.run(ground) == grounds[other]:
                break
        assert window.run(ground) == grounds[other]
        # Time for the browser to pass it on.
        window.run("new Promise((done) => { localStorage.clear(); setTimeout(done, 500); })")
    # A black curve would not be seen on the dark page.
    open_page(window, page, scheme="dark")
    scroll(window, "edf-0-0")
    colours = window.run("document.getElementById('edf-0-0')._fullData.map(one => one.line ? one.line.color : '')")
    assert "#e6e9ed" in colours
    assert not {"#000000", "@ink"} & set(colours)


def test_a_phone_shows_all_of_it_without_scrolling_sideways(window: Browser, page: Path) -> None:
    window.open(page, width=390, height=844, touch=True)
    for name in ("map-0-0", "edf-0-0"):
        scroll(window, name)
    assert window.run("document.documentElement.scrollWidth") == 390
    assert window.run("document.getElementById('edf-0-0').getBoundingClientRect().width") <= 390
    # A finger on a figure scrolls the page.
    assert window.run("document.getElementById('edf-0-0')._fullLayout.dragmode") is False


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a study of one trial a cell, with long names of models."""
    names = [f"my_package.networks.Net{number}" for number in range(2)]
    cells = cells_of(*names, optimizers=("adamw", "sgd"), epochs=(6, 12))
    folder = tmp_path_factory.mktemp("runs") / "fixed"
    make_grid(folder, lambda factors, *_: 120.0 / factors["epochs"] + (factors["optimizer"] == "sgd"), cells=cells)
    assert main([str(folder)]) == 0
    return folder / "analysis" / "report.html"


def test_wide_tables_of_one_trial_a_cell_scroll_inside_of_a_phone(window: Browser, fixed: Path) -> None:
    window.open(fixed, width=390, height=844, touch=True)
    assert window.run("document.documentElement.scrollWidth") == 390
    # Errors and differences are wider than the phone, and scroll.
    wide = "[...document.querySelectorAll('.answers .wide')].map(one => one.scrollWidth > one.clientWidth)"
    assert window.run(wide) == [True, True]
    assert window.run("[...document.querySelectorAll('.card')].every(one => one.getBoundingClientRect().right <= 390)")


@pytest.mark.parametrize(("scheme", "ink"), [("light", "#1b1f24"), ("dark", "#e6e9ed")])
def test_length_and_gap_follow_the_theme_and_tell_what_a_mark_is(
    window: Browser, fixed: Path, scheme: str, ink: str
) -> None:
    window.open(fixed, scheme=scheme)
    assert window.run("document.images.length") == 0
    assert "one run: 20.00 %" in hovered(window, "length-0-0", 0, 0)
    assert "one run: +1.00 points" in hovered(window, "gap-0-0", 1, 0)
    # The line at 0 is in the colour of the page's text.
    assert window.run("document.getElementById('gap-0-0')._fullLayout.shapes[0].line.color") == ink


def test_paper_gets_all_figures_in_light_and_what_is_folded(window: Browser, page: Path, tmp_path: Path) -> None:
    open_page(window, page, scheme="dark")
    window.run(
        "addEventListener('beforeprint', () => { window.printed = [document.documentElement.dataset.theme,"
        " [...document.querySelectorAll('.plot')].every(one => one.querySelector('.main-svg')),"
        " [...document.querySelectorAll('.plot .main-svg')].every(one => one.clientWidth <= 690),"
        " document.querySelector('article details').open]; })"
    )
    window.print(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    assert window.run("window.printed") == ["light", True, True, True]
    assert window.run("document.documentElement.dataset.theme") == "dark"
    assert window.run("document.querySelector('article details').open") is False
