"""The other processes of a trial that several train together: started, watched, and ended with this one."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Protocol

import torch
from torch import distributed

from stability.config import TrialConfig
from stability.errors import UnreadableImage, UserError
from stability.gpus import visible_gpus
from stability.training.ranks import ADDRESS, Ranks

_BOOTSTRAP = (
    "import sys; from multiprocessing.connection import Connection; connection = Connection(int(sys.argv[1])); "
    "sys.path[:] = connection.recv(); from stability.training.other_rank import serve; serve(connection)"
)
# How long a rank that has failed is waited for to say why, and one that has trained to the end to leave.
WORDS_SECONDS, LEAVE_SECONDS = 2.0, 10.0
# What ranks say, and what it is called that one has ended without a word.
READY, DONE, ENDED = "ready", "done", "ended"
# What a rank's exception is to the first one: its own kind where that decides what happens next.
KINDS: dict[str, type[Exception]] = {
    "OutOfMemoryError": torch.OutOfMemoryError,
    "MemoryError": MemoryError,
    "UserError": UserError,
    "UnreadableImage": UnreadableImage,
}


@dataclass(frozen=True)
class RankJob:
    """What a rank besides the first trains: the trial, where its checkpoints lie, and how."""

    config: TrialConfig
    directory: Path | None
    micro_batches: int
    threads: int
    ranks: Ranks


def ranks_for(config: TrialConfig, count: int, device: torch.device) -> Ranks:
    """Return the first of the ranks that train a trial.

    Args:
        config: of the trial.
        count: how many ranks.
        device: where the first one computes.

    Raises:
        UserError: the batch has fewer images, or the machine fewer GPUs.
    """
    if count == 1:
        return Ranks()
    if config.batch_size < count:
        raise UserError(f"a batch of {config.batch_size} for {count} processes; accepted: an image or more for each")
    if device.type == "cuda" and torch.cuda.device_count() < count:
        raise UserError(f"{count} GPUs a trial, and this process sees {torch.cuda.device_count()}")
    with socket.socket() as one:
        one.bind((ADDRESS, 0))
        return Ranks(0, count, int(one.getsockname()[1]))


class Team(Protocol):
    """The processes that train a trial together, as one of them sees it."""

    @property
    def ranks(self) -> Ranks:
        """Which of the processes this one is."""
        ...

    def wait_until_ready(self) -> None:
        """Wait until every process has its data and its model: from then on they wait for each other."""
        ...


class OtherRanks:
    """The processes of the other ranks, as long as the first one trains with them."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self._processes: list[subprocess.Popen[bytes]] = []
        self._connections: list[Connection] = []
        self._failure: Exception | None = None
        self._ready = 0
        self._news = threading.Condition()

    @contextlib.contextmanager
    def training(self, config: TrialConfig, directory: Path | None, micro_batches: int, on_gpu: bool) -> Iterator[None]:
        """Have the other ranks train a trial meanwhile.

        Args:
            config: of the trial.
            directory: where its checkpoints lie; the other ranks read them and write nothing.
            micro_batches: the number of parts of a rank's share of a batch.
            on_gpu: whether each takes a GPU of its own.

        Raises:
            Exception: what one of the ranks raised, or RuntimeError where its process ended.
        """
        if self.ranks.count == 1:
            yield
            return
        gpus, has_ended = visible_gpus() if on_gpu else (), False
        try:
            for rank in range(1, self.ranks.count):
                ranks = Ranks(rank, self.ranks.count, self.ranks.port)
                job = RankJob(config, directory, micro_batches, torch.get_num_threads(), ranks)
                self._start(job, {"CUDA_VISIBLE_DEVICES": gpus[rank]} if gpus else {})
            threading.Thread(target=self._watch, args=(list(self._connections),), daemon=True, name="ranks").start()
            yield
            has_ended = True
        except Exception as error:
            # What ended another rank comes first: here it shows as an exchange that failed.
            with self._news:
                self._news.wait_for(lambda: self._failure is not None, WORDS_SECONDS)
            if self._failure is not None and error is not self._failure:
                raise self._failure from None
            raise
        finally:
            self._close(LEAVE_SECONDS if has_ended else 0.0)

    def wait_until_ready(self) -> None:
        """Wait until every other rank is ready. Raises what has ended one of them."""
        with self._news:
            self._news.wait_for(lambda: self._failure is not None or self._ready == self.ranks.count - 1)
        if self._failure is not None:
            raise self._failure

    def _start(self, job: RankJob, variables: dict[str, str]) -> None:
        ours, theirs = Pipe()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", _BOOTSTRAP, str(theirs.fileno()), "stability-rank"],
                env={**os.environ, **variables},
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
            )
        self._processes.append(process)
        self._connections.append(ours)
        with contextlib.suppress(OSError):
            ours.send(sys.path)
            ours.send(job)

    def _watch(self, connections: list[Connection]) -> None:
        """Take in which ranks are ready and how they end; where one fails, have this one's exchanges fail, too."""
        running = list(connections)
        while running:
            for one in wait(running):
                assert isinstance(one, Connection)
                try:
                    kind, text = one.recv()
                except (EOFError, OSError):
                    kind, text = "", ENDED
                if text != READY:
                    running.remove(one)
                failure = self._described(connections.index(one)) if text == ENDED else None
                if kind:
                    failure = KINDS.get(kind, RuntimeError)(text)
                with self._news:
                    self._ready += text == READY
                    self._failure = self._failure or failure
                    self._news.notify_all()
                if failure is not None:
                    _abort_exchanges()
                    return

    def _described(self, place: int) -> Exception:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._processes[place].wait(WORDS_SECONDS)
        code = self._processes[place].poll()
        how = "without a word" if code is None else f"signal {-code}" if code < 0 else f"exit code {code}"
        return RuntimeError(f"process {place + 2} of {self.ranks.count} of the trial ended ({how})")

    def _close(self, seconds: float) -> None:
        for process in self._processes:
            # A rank that has trained to the end leaves by itself.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
            process.kill()
            process.wait()
        for connection in self._connections:
            connection.close()


def _abort_exchanges() -> None:
    """End exchanges that wait for a rank that has ended: gloo's fail by themselves, NCCL's must be told."""
    with contextlib.suppress(Exception):
        if distributed.get_backend() == "nccl":
            distributed.distributed_c10d._abort_process_group()
