"""What is said where the hub does not answer, and whose trouble that is: the user's (exit code 2) or not (1)."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stability.config import DataConfig
from stability.data import hub
from stability.data.hub import HubStore
from stability.errors import StudyError, UserError

SET = DataConfig(source="hf", name="nobody/has-this-set")
CACHE = ", and the set is not in its cache here: "
NOWHERE = "127.0.0.1:9"


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.lower().endswith("_proxy") or name.startswith("HF_") or name.endswith("_OFFLINE"):
            monkeypatch.delenv(name)


class Error(Exception):
    """As of a library of HTTP."""


class TransportError(Error):
    """An exchange that broke off."""


class Response:
    def __init__(self, status_code: int) -> None:
        self.status_code = status_code


def answered(code: int) -> Error:
    error = Error(f"{code} of the hub")
    error.response = Response(code)  # type: ignore[attr-defined]
    return error


def raised(monkeypatch: pytest.MonkeyPatch, error: Exception, wrapped: bool = False) -> Exception:
    """Return what a set is refused with where `datasets` raises `error`, or an error that it has caused."""
    import datasets

    def fail(*_: object) -> None:
        if wrapped:
            raise FileNotFoundError("not in the cache") from error
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises((StudyError, UserError)) as caught:
        HubStore(SET)
    return caught.value


@pytest.mark.parametrize(
    ("variables", "kind", "said"),
    [
        ({"HF_HUB_OFFLINE": "1"}, UserError, f"HF_HUB_OFFLINE=1 is set{CACHE}"),
        ({"HF_DATASETS_OFFLINE": "on"}, UserError, f"HF_DATASETS_OFFLINE=on is set{CACHE}"),
        (
            {"HTTPS_PROXY": f"http://{NOWHERE}"},
            StudyError,
            f"the network's proxy {NOWHERE} (HTTPS_PROXY) does not answer{CACHE}",
        ),
        ({"all_proxy": NOWHERE}, StudyError, f"the network's proxy {NOWHERE} (all_proxy) does not answer{CACHE}"),
        ({"HF_ENDPOINT": f"http://{NOWHERE}"}, StudyError, f"no network reaches the hub{CACHE}"),
        # No proxy is asked for this machine.
        (
            {"HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": "127.0.0.1", "HF_ENDPOINT": f"http://{NOWHERE}"},
            StudyError,
            f"no network reaches the hub{CACHE}",
        ),
    ],
)
def test_a_setting_is_the_users_and_a_network_is_not(
    variables: dict[str, str], kind: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    during: list[str | None] = []
    monkeypatch.setattr(
        hub, "require", lambda name: during.append(os.environ.get("HF_HUB_OFFLINE")) or sys.modules[name]
    )
    error = raised(monkeypatch, ConnectionError("Couldn't reach it"))
    assert type(error) is kind
    assert f"cannot be had from the hub: {said}Couldn't reach it; data.path" in str(error)
    # The libraries do not try for half a minute what cannot be reached.
    assert during == [variables.get("HF_HUB_OFFLINE", "1" if kind is StudyError else None)]
    assert os.environ.get("HF_HUB_OFFLINE") == variables.get("HF_HUB_OFFLINE")


@pytest.fixture
def _reachable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("_reachable")
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    "error", [TimeoutError("timed out"), TransportError("disconnected"), answered(500), answered(503), answered(429)]
)
def test_a_server_in_trouble_is_not_the_users_mistake(
    error: Exception, wrapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = raised(monkeypatch, error, wrapped)
    assert type(found) is StudyError
    assert "from the hub: the network or the hub's server is in trouble, " in str(found)


@pytest.mark.usefixtures("_reachable")
@pytest.mark.parametrize("cause", [answered(404), answered(401)])
def test_a_misspelt_name_is_the_users_mistake(cause: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    found = raised(monkeypatch, cause, wrapped=True)
    assert type(found) is UserError
    assert "trouble" not in str(found)
    assert "data.subset names one of several configurations" in str(found)


def test_another_kind_of_error_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_unreachable", lambda: "")
    error = KeyError("a mistake of our own")
    import datasets

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(KeyError):
        HubStore(replace(SET, subset="a"))
