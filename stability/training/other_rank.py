"""The inside of a process that trains a trial with others and is not the first of them."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import NoReturn

import torch

from stability.errors import UserError
from stability.training.rank_processes import DONE, READY, RankJob
from stability.training.ranks import Ranks
from stability.training.trial import train_rank

# Signals reach a whole process group: the first rank alone acts on them, and the others end with it.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True)
class OneRank:
    """What a rank besides the first knows of the others: the first one, which it tells that it is ready."""

    ranks: Ranks
    tell: Callable[[], None]

    def wait_until_ready(self) -> None:
        """Tell the first one, and go on: the exchanges wait."""
        self.tell()


def serve(connection: Connection) -> NoReturn:
    """Train as one of the ranks that the first one has started; end when it ends."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    job: RankJob = connection.recv()
    threading.Thread(target=_end_with, args=(connection,), daemon=True, name="first rank").start()
    torch.set_num_threads(job.threads)
    code, words = 0, ("", DONE)
    try:
        train_rank(job, OneRank(job.ranks, lambda: connection.send(("", READY))))
    except BaseException as error:
        text = str(error.args[0]) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        code, words = 1, (type(error).__name__, text)
    with contextlib.suppress(OSError):
        connection.send(words)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _end_with(connection: Connection) -> None:
    """End this process when the first one has closed its end of the pipe, or has died."""
    with contextlib.suppress(EOFError, OSError):
        connection.recv()
    os._exit(1)
