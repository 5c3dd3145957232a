"""Processes that step the same work at once, each for itself."""

from __future__ import annotations

import multiprocessing
import signal
import statistics
from multiprocessing.connection import Connection
from typing import Any

import torch

from benchmarks.packs import timing
from benchmarks.packs.ways import KINDS, Feed, Round, warm_up
from benchmarks.packs.work import Work


class CrewError(RuntimeError):
    """What a process of a crew says went wrong."""

    def __init__(self, text: str, is_out_of_memory: bool = False) -> None:
        super().__init__(text)
        self.is_out_of_memory = is_out_of_memory


class Crew:
    """Processes that wait for work. On the CPU they are forked from a server that has imported everything and computed
    nothing, which is quick and keeps their memory their own; a GPU's are spawned."""

    def __init__(self, count: int, device: str, threads: int | None) -> None:
        methods = multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context(
            "forkserver" if device == "cpu" and "forkserver" in methods else "spawn"
        )
        if context.get_start_method() == "forkserver":
            context.set_forkserver_preload(["benchmarks.packs.crew"])
        # Whether what a process says of its resident memory is its own.
        self.is_fresh = context.get_start_method() == "forkserver"
        self._processes: list[Any] = []
        self._pipes: list[Connection] = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, threads), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)

    def __len__(self) -> int:
        return len(self._processes)

    def take(self, work: Work, kind: str, size: int, count: int, seconds: float) -> Round:
        """Let `count` processes step a way of `kind` and `size` each, begun together once all are warm.

        Raises CrewError where one cannot.
        """
        pipes = self._pipes[:count]
        try:
            self._ask(pipes, ("open", work, kind, size))
            taken = self._ask(pipes, ("go", seconds))
        finally:
            self._ask(pipes, ("close",))
        peaks = [peak for _, _, peak in taken]
        return Round(
            sum(rate for rate, _, _ in taken),
            statistics.mean(seconds for _, seconds, _ in taken),
            peak=None if None in peaks else sum(peaks),
        )

    def kernels(self, work: Work, kind: str, size: int) -> float:
        """Return the seconds that the kernels of a step take; raises CrewError where that cannot be found out.

        In a process of its own: a profiler may slow down what runs after it, and with CUDA graphs it has crashed.
        """
        pipes = self._pipes[:1]
        try:
            self._ask(pipes, ("open", work, kind, size))
            (found,) = self._ask(pipes, ("kernels",))
        finally:
            self._ask(pipes, ("close",))
        return found

    def _ask(self, pipes: list[Connection], message: tuple[Any, ...]) -> list[Any]:
        """Tell all, then hear all: the barrier at which they meet."""
        try:
            for pipe in pipes:
                pipe.send(message)
            replies = [pipe.recv() for pipe in pipes]
        except (EOFError, OSError) as error:
            raise CrewError("a process has ended") from error
        for is_error, *reply in replies:
            if is_error:
                raise CrewError(*reply)
        return [reply for _, reply in replies]

    def close(self) -> None:
        """End the processes."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.close()
            # Whatever it is at: it has nothing to lose.
            process.kill()
        for process in self._processes:
            process.join()


def serve(pipe: Connection, threads: int | None) -> None:
    """Do what a crew's pipe says until it is closed."""
    # Ctrl-C reaches every process of a terminal; the one that was started by hand closes the pipes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if threads is not None:
        torch.set_num_threads(threads)
    seat = Seat()
    while True:
        try:
            call, *arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((False, getattr(seat, call)(*arguments)))
        except Exception as error:
            pipe.send((True, timing.brief(error), timing.is_out_of_memory(error)))


class Seat:
    """The commands that one process of a crew carries out."""

    def __init__(self) -> None:
        self._way: Feed | None = None
        self._device = torch.device("cpu")

    def open(self, work: Work, kind: str, size: int) -> None:
        """Make a way and warm it up."""
        # What lies ready on the device is nobody's memory.
        work.data()
        self._device = torch.device(work.device)
        self._before = timing.start_peak(self._device)
        self._way = KINDS[kind](work, size)
        with self._way.arithmetic():
            warm_up(self._way)

    def go(self, seconds: float) -> tuple[float, float, int | None]:
        """Step for about so many seconds; returns trial-images per second, seconds of a step, and the peak memory."""
        way = self._way
        assert way is not None
        with way.arithmetic():
            done, elapsed = timing.burst(way.step, timing.clock(way.device), seconds)
        peak = timing.peak(way.device)
        return done * way.images / elapsed, elapsed / done, None if peak is None else peak - self._before

    def kernels(self) -> float:
        """Return the seconds that the kernels of a step take."""
        way = self._way
        assert way is not None
        with way.arithmetic():
            return timing.kernels(way.step, timing.clock(way.device))

    def close(self) -> None:
        """Let go of the way, and of workers that decode for it."""
        if self._way is not None:
            self._way.rest()
        self._way = None
        timing.release(self._device)
