"""Pictures of a study in TensorBoard, optuna-dashboard, `wandb leet` and a table of its CSVs, for docs/dashboards.md.

    python scripts/screenshots.py runs/stem --out docs/figures/dashboards

Needs a Chromium on the PATH, and pip install 'stability[tensorboard,wandb]' optuna-dashboard pyte. Writes the study's
files for each dashboard first (analysis.log, analysis.optuna), from its records, into a temporary folder.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import html
import os
import pty
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.browser import Browser, browser

COLUMNS, ROWS = 150, 42
SECONDS = 90.0


def main() -> None:
    """Take the pictures that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="the study's folder")
    parser.add_argument("--out", type=Path, required=True, help="where the pictures go")
    parser.add_argument("--only", nargs="*", choices=sorted(PICTURES), default=sorted(PICTURES))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / options.study.name
        kept = shutil.ignore_patterns("checkpoint.pt", "tensorboard", "wandb", "csv", "analysis", "*.safetensors")
        shutil.copytree(options.study, copy, ignore=kept)
        with browser(Path(folder) / "profile") as page:
            for name in options.only:
                PICTURES[name](page, copy, options.out)
                print(f"{name}: done", flush=True)


def python(module: str, *arguments: object, folder: Path) -> None:
    """Run a command of this project in a folder."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    subprocess.run([sys.executable, "-m", module, *map(str, arguments)], cwd=folder, env=environment, check=True)


@contextlib.contextmanager
def serve(command: Sequence[object], port: int) -> Iterator[str]:
    """Start a server, wait until it answers, and end it."""
    process = subprocess.Popen([str(one) for one in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/"
    try:
        deadline = time.monotonic() + SECONDS
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(address, timeout=5).read()
                break
            assert process.poll() is None, f"{command[0]} has ended"
            assert time.monotonic() < deadline, f"{command[0]} does not answer"
            time.sleep(0.3)
        yield address
    finally:
        process.terminate()
        process.wait(10)


def free_port() -> int:
    """Return a port that nobody listens to."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def program(name: str) -> str:
    """Return a program of this environment."""
    return str(Path(sys.executable).parent / name)


def tensorboard(page: Browser, study: Path, out: Path) -> None:
    """Curves and the HParams table of TensorBoard."""
    python("analysis.log", study, "--logger", "tensorboard", folder=study.parent)
    port = free_port()
    command = [program("tensorboard"), "--logdir", study / "tensorboard", "--port", port, "--load_fast=false"]
    with serve(command, port) as address:
        page.open(f"{address}?tagFilter=top1_error&smoothing=0#timeseries", width=1400, height=900)
        # Charts are drawn when their data has come: in a canvas, whose content no selector sees.
        page.wait("document.querySelectorAll('line-chart').length > 0", SECONDS)
        time.sleep(6)
        page.picture(out / "tensorboard.png")
        # Another query, or the page would not be loaded again.
        page.open(f"{address}?table#hparams", width=1400, height=900)
        page.wait("document.body.innerText.includes('HPARAMS')", SECONDS)
        time.sleep(10)
        page.picture(out / "tensorboard-hparams.png")


def optuna(page: Browser, study: Path, out: Path) -> None:
    """The page of a study in optuna-dashboard."""
    python("analysis.optuna", study, folder=study.parent)
    port = free_port()
    with serve([program("optuna-dashboard"), study / "optuna.journal", "--port", port], port) as address:
        page.open(f"{address}dashboard/studies/0", width=1400, height=900)
        page.wait("document.querySelectorAll('.js-plotly-plot .point').length > 5", SECONDS)
        time.sleep(3)
        page.picture(out / "optuna-dashboard.png")


def leet(page: Browser, study: Path, out: Path) -> None:
    """The terminal's page of offline runs, drawn by a terminal emulator."""
    import pyte

    python("analysis.wandb", study, "--offline", folder=study.parent)
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", COLORTERM="truecolor", WANDB_ERROR_REPORTING="false", HOME=str(study))
        # It leaves a log in the folder where it runs.
        os.chdir(study)
        os.execv(program("wandb"), ["wandb", "leet", "run", str(study / "wandb")])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    read_for(terminal, stream, 20.0)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    path = study / "leet.html"
    path.write_text(as_html(screen))
    page.open(path, width=9 * COLUMNS + 20, height=18 * ROWS + 20)
    page.picture(out / "leet.png")


def csv(page: Browser, study: Path, out: Path) -> None:
    """The CSVs of a study as one table, by pandas."""
    import pandas

    python("analysis.log", study, "--logger", "csv", folder=study.parent)
    rows = pandas.concat(map(pandas.read_csv, sorted((study / "csv").glob("*.csv")))).query("epoch == 12")
    shown = rows.sort_values("top1_error").dropna(axis="columns", how="all").head(24)
    style = (
        "body{font:14px 'DejaVu Sans',sans-serif;margin:12px;overflow:hidden}table{border-collapse:collapse}"
        "td,th{padding:3px 8px;text-align:right;white-space:nowrap;border-bottom:1px solid #ddd}"
    )
    path = study / "csv.html"
    table = shown.to_html(index=False, border=0, float_format="{:.4g}".format)
    path.write_text(f"<!doctype html><meta charset=utf-8><style>{style}</style>{table}")
    page.open(path, width=1560, height=640)
    page.picture(out / "csv.png")


def read_for(terminal: int, stream: object, seconds: float) -> None:
    """Feed what a program writes into a terminal emulator, and answer what it asks of a terminal."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                part = os.read(terminal, 65536)
            except OSError:
                return
            # Where is the cursor, what are you, which colours have you.
            for asked, answer in ((b"\x1b[6n", b"\x1b[1;1R"), (b"\x1b[c", b"\x1b[?62;c")):
                if asked in part:
                    os.write(terminal, answer)
            stream.feed(part)  # type: ignore[attr-defined]


def as_html(screen: object) -> str:
    """Return a page of a terminal's screen, character by character."""
    lines = []
    for row in range(ROWS):
        cells = [screen.buffer[row][column] for column in range(COLUMNS)]  # type: ignore[attr-defined]
        lines.append("".join(cell_html(cell) for cell in cells))
    style = (
        "body{background:#111;color:#ddd;font:15px/18px 'DejaVu Sans Mono',monospace;margin:8px;white-space:pre}"
        # Fonts differ in how wide they draw dots and frames.
        "span{display:inline-block;width:9px;height:18px;overflow:hidden;vertical-align:top}"
    )
    return f"<!doctype html><meta charset=utf-8><style>{style}</style><body>" + "\n".join(lines)


def cell_html(cell: object) -> str:
    """Return a character with its colours."""
    styles = []
    for name, value in (("color", cell.fg), ("background", cell.bg)):  # type: ignore[attr-defined]
        if value != "default":
            is_number = len(value) == 6 and all(one in "0123456789abcdef" for one in value)
            styles.append(f"{name}:{'#' if is_number else ''}{value.replace('bright', '')}")
    if cell.bold:  # type: ignore[attr-defined]
        styles.append("font-weight:bold")
    text = html.escape(cell.data)  # type: ignore[attr-defined]
    return f"<span style='{';'.join(styles)}'>{text}</span>"


PICTURES = {"tensorboard": tensorboard, "optuna": optuna, "leet": leet, "csv": csv}

if __name__ == "__main__":
    main()
