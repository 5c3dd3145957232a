"""A headless Chromium, driven over its DevTools protocol by a pipe: no driver and no port is needed."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SECONDS = 180.0


def program() -> str | None:
    """Return the path of a Chromium; None where none is installed."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Browser:
    """A browser with one page. `complaints` are errors and warnings of its console, and requests that it refused."""

    def __init__(self, process: subprocess.Popen[bytes], to: int, back: int) -> None:
        self._process, self._to, self._back = process, to, back
        self._ids, self._read = itertools.count(1), b""
        self.complaints: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank", session=None)["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True, session=None)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    _session: str | None = None

    def call(self, method: str, *, session: str | None = "own", **parameters: Any) -> Any:
        """Call a method of the protocol and return its result."""
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == number:
                assert "error" not in found, f"{method}: {found['error']}"
                return found["result"]

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + SECONDS
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._back], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            part = os.read(self._back, 1 << 20)
            assert part, f"the browser ended with code {self._process.wait(5)}"
            self._read += part
        line, _, self._read = self._read.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        self._note(found)
        return found

    def _note(self, found: dict[str, Any]) -> None:
        method, values = found.get("method"), found.get("params", {})
        if method == "Runtime.exceptionThrown":
            details = values["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])
        if method == "Runtime.consoleAPICalled" and values["type"] in ("error", "warning", "assert"):
            self.complaints.append(" ".join(str(one.get("value", one)) for one in values["args"]))
        if method == "Log.entryAdded" and values["entry"]["level"] in ("error", "warning"):
            self.complaints.append(values["entry"]["text"])
        if method == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])

    def open(
        self, page: Path | str, *, width: int = 1280, height: int = 800, scheme: str = "light", touch: bool = False
    ) -> None:
        """Open a file or an address in a window of this size, under a system's theme."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        self.call("Emulation.setDeviceMetricsOverride", mobile=touch, **size)
        self.call("Emulation.setTouchEmulationEnabled", enabled=touch)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        self.wait("document.readyState === 'complete' && location.protocol !== 'about:'")

    def run(self, script: str) -> Any:
        """Return the value of an expression of JavaScript, or of a promise of it."""
        options = {"returnByValue": True, "awaitPromise": True, "userGesture": True}
        found = self.call("Runtime.evaluate", expression=script, **options)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script: str, seconds: float = 20.0) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < deadline, f"never true: {script}"
            time.sleep(0.05)

    def point(self, across: float, down: float) -> None:
        """Move the pointer to a place in the window."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=across, y=down)

    def click(self, selector: str) -> None:
        """Click in the middle of an element."""
        across, down = self.middle(selector)
        self.point(across, down)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=across, y=down, button="left", clickCount=1)

    def middle(self, selector: str) -> tuple[float, float]:
        """Return the middle of an element in the window, into which it is scrolled."""
        place = "one.scrollIntoView({block: 'center'}); const box = one.getBoundingClientRect()"
        box = self.run(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)}); {place};"
            " return [box.x, box.y, box.width, box.height]; })()"
        )
        return box[0] + box[2] / 2, box[1] + box[3] / 2

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Write what the window shows, or the whole page, as a PNG file."""
        options: dict[str, Any] = {"captureBeyondViewport": True} if whole else {}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            options["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png", **options)["data"]))

    def print(self, path: Path) -> None:
        """Write the page as a PDF file, as the browser prints it."""
        options = {"printBackground": True, "preferCSSPageSize": True}
        path.write_bytes(base64.b64decode(self.call("Page.printToPDF", **options)["data"]))


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Start a Chromium with a profile folder of its own, and end it."""
    found = program()
    assert found is not None
    (theirs_in, to), (back, theirs_out) = os.pipe(), os.pipe()
    # The protocol's pipes are the descriptors 3 and 4 of the browser.
    command = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        ["bash", "-c", command, found, *flags, "about:blank"],
        pass_fds=(theirs_in, theirs_out),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Browser(process, to, back)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        os.close(to)
        os.close(back)
