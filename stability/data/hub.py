"""Sets on the Hugging Face hub, and what keeps it from answering: the user's setting, the network, or the name."""

from __future__ import annotations

import hashlib
import os
import socket
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

import numpy

from stability.config import DataConfig
from stability.data.stores import Store, require
from stability.errors import StudyError, UserError

if TYPE_CHECKING:
    import pyarrow

REACH_SECONDS = 5
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
# What HTTP libraries call an exchange that broke off; their classes are not builtin ones.
BROKEN = ("ConnectionError", "TimeoutError", "Timeout", "TransportError")
TOO_MANY_REQUESTS, SERVER_ERROR = 429, 500


class HubStore(Store):
    """A set on the Hugging Face hub."""

    def __init__(self, data: DataConfig) -> None:
        self.title, self.left_out = str(data.name), ()
        self._subset = data.subset
        with _offline_if_unreachable() as trouble:
            datasets = require("datasets")
        try:
            self._by_split = datasets.load_dataset(data.name, data.subset)
        except Exception as error:
            raise _explained(error, data, trouble) from error
        self.splits = tuple(self._by_split)

    def open(self, split: str) -> pyarrow.Table:
        """Return a split, mapped from the cache on disk."""
        return self._by_split[split].data

    def fingerprint(self, *labels: numpy.ndarray, images: Sequence[Path] = ()) -> str:
        """Return a hash of the set's name and its labels."""
        digest = hashlib.sha256(f"{self.title}\0{self._subset}".encode())
        for one in labels:
            digest.update(one.tobytes())
        return digest.hexdigest()[:16]


def _explained(error: Exception, data: DataConfig, trouble: str) -> Exception:
    """Return the error to raise: StudyError where the network is in trouble, UserError where the name or a setting is.

    Args:
        error: what `datasets` has raised.
        data: the set.
        trouble: why the hub cannot be reached, in words; empty where it can.
    """
    cause = f"data.name={data.name} cannot be had from the hub: "
    cache = "and the set is not in its cache here: "
    words = " ".join(str(error).split()) or type(error).__name__
    remedy = "data.path reads Parquet files that lie here"
    offline = _offline()
    if offline:
        return UserError(f"{cause}{offline}={os.environ[offline]} is set, {cache}{words}; {remedy}")
    if trouble:
        return StudyError(f"{cause}{trouble}, {cache}{words}; {remedy}")
    if _is_of_network(error):
        return StudyError(f"{cause}the network or the hub's server is in trouble, {cache}{words}; {remedy}")
    if isinstance(error, (OSError, ValueError, RuntimeError)):
        return UserError(f"{cause}{words}; {remedy}, data.subset names one of several configurations")
    return error


def _is_of_network(error: BaseException) -> bool:
    """Tell whether an exchange with the hub broke off, or its server failed, in an error or what it was raised from."""
    seen: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in seen:
        seen.append(one)
        status = getattr(getattr(one, "response", None), "status_code", 0)
        if status == TOO_MANY_REQUESTS or status >= SERVER_ERROR:
            return True
        if any(kind.__name__ in BROKEN for kind in type(one).__mro__):
            return True
        one = one.__cause__ or one.__context__
    return False


@contextmanager
def _offline_if_unreachable() -> Iterator[str]:
    """Set the switch that the hub's libraries read when they are imported, where no network reaches the hub.

    Yields why that is so, in words, or an empty string. The libraries use what is in their cache then, or fail at
    once: without the switch they try for half a minute.
    """
    trouble = "" if _offline() or "HF_HUB_OFFLINE" in os.environ else _unreachable()
    if not trouble:
        yield ""
        return
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        yield trouble
    finally:
        del os.environ["HF_HUB_OFFLINE"]


def _offline() -> str:
    """Return the variable by which the user keeps the hub's libraries from the network; empty where none does."""
    return next((name for name in OFFLINE if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")), "")


def _unreachable() -> str:
    """Return why the hub cannot be reached, in words: no network, or its proxy; an empty string where it can."""
    hub = urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    host = hub.hostname or ""
    name = "" if urllib.request.proxy_bypass(host) else _proxy(hub.scheme)
    if not name:
        port = hub.port or (80 if hub.scheme == "http" else 443)
        return "" if _reaches(host, port) else "no network reaches the hub"
    given = os.environ[name]
    proxy = urlparse(given if "://" in given else f"http://{given}")
    if _reaches(proxy.hostname or "", proxy.port or 80):
        return ""
    return f"the network's proxy {proxy.hostname}:{proxy.port or 80} ({name}) does not answer"


def _proxy(scheme: str) -> str:
    """Return the variable that names the proxy through which the hub is asked; empty where there is none."""
    names = (f"{scheme}_proxy", "all_proxy")
    return next((name for name in os.environ if name.lower() in names and os.environ[name]), "")


def _reaches(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=REACH_SECONDS).close()
    except OSError:
        return False
    return True
