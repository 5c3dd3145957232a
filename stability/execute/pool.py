"""A pool of supervised processes on this machine: the death of one restarts that one and runs its job again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, Pipe, wait
from typing import IO, Any

from stability.errors import StudyError
from stability.execute.failure import History, Step, Trouble, halves, next_step
from stability.execute.layout import ProcessLayout
from stability.execute.task import TrialTask
from stability.study.events import Ended, Event, from_json

# Processes that die before they are ready, one after the other, until we stop trying.
MAX_FAILED_STARTS = 2
# Seconds for a process to exit after the signal: it finishes its step and writes a checkpoint.
GRACE_SECONDS = 15.0
# How often a process is looked at whose pipe somebody else holds open.
LOOK_SECONDS = 0.5

_BOOTSTRAP = (
    "import sys; from multiprocessing.connection import Connection; connection = Connection(int(sys.argv[1])); "
    "sys.path[:] = connection.recv(); from stability.execute.process import serve; serve(connection)"
)
_THREAD_VARIABLES = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
    *("NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
)


@dataclass(eq=False)
class Job:
    """Something to do in a worker: `kind` is a row of stability.execute.process.

    tasks: the trial that it is about, or those of a pack; those that have ended leave. full_size: with how many trials
    the pack began.
    """

    kind: str
    tasks: list[TrialTask]
    full_size: int = 1
    # The processes that died doing it, in words.
    deaths: list[str] = field(default_factory=list)

    @property
    def task(self) -> TrialTask:
        """The trial that the job is about; the first of a pack's."""
        return self.tasks[0]

    def halves(self) -> list[Job]:
        """Return a pack's two halves."""
        return [Job(self.kind, part, len(part)) for part in halves(self.tasks)]


@dataclass(frozen=True)
class JobReport:
    """What happened to a job: "started", "event" (of one of its trials), "died" (it will run again, a pack in halves),
    "lost" or "ended"."""

    name: str
    job: Job
    payload: dict[str, Any] = field(default_factory=dict)
    event: Event | None = None


class Pool:
    """Processes that work off jobs, one at a time each, and stay warm in between. One thread uses it.

    Jobs are started in the order of `submit`; `step` says what happened. A process that dies is replaced when there
    is work for it, and its job is first in the queue again; when its task has no try left it is "lost". A pack goes on
    in halves: one of its trials may be what kills, or there is not the memory for so many.
    """

    def __init__(self, layout: ProcessLayout, environment: Mapping[str, str] | None = None) -> None:
        self.layout = layout
        self._environment = dict(environment or {})
        self._slots = [_Slot() for _ in range(layout.size)]
        self._queue: deque[Job] = deque()
        self._failed_starts = 0

    @property
    def running(self) -> list[Job]:
        """The jobs that processes are at, in the order of the processes."""
        return [slot.job for slot in self._slots if slot.job is not None]

    def submit(self, job: Job) -> None:
        """Queue a job."""
        self._queue.append(job)

    def warm_up(self, count: int) -> None:
        """Start up to `count` processes, so that they import while the caller does something else."""
        for index in range(min(count, self.layout.size)):
            if self._slots[index].process is None:
                self._start(index)

    def step(self, timeout: float) -> list[JobReport]:
        """Feed idle processes, wait for news for `timeout` seconds at most, and return what happened.

        Raises StudyError where processes cannot be started.
        """
        reports = self._feed()
        connections = {slot.connection: slot for slot in self._slots if slot.connection is not None}
        ready = wait(list(connections), 0 if reports else min(timeout, LOOK_SECONDS))
        for connection in ready:
            assert isinstance(connection, Connection)
            reports += self._read(connections[connection])
        for slot in self._slots:
            if slot.process is not None and slot.process.poll() is not None:
                # Its last words first: a job that has ended has ended, whatever came after.
                reports += self._read(slot)
                if slot.process is not None:
                    reports += self._bury(slot)
        return reports + self._feed()

    def close(self) -> None:
        """End idle processes. Harmless when said twice."""
        for slot in self._slots:
            if slot.connection is not None:
                with contextlib.suppress(OSError):
                    slot.connection.send(None)
        self.kill(say=False)

    def kill(self, grace: float = GRACE_SECONDS, *, say: bool = True) -> None:
        """End every process, busy or not, and forget what was queued: SIGTERM, `grace` seconds, SIGKILL."""
        self._queue.clear()
        processes = [slot.process for slot in self._slots if slot.process is not None]
        for process in processes:
            if say:
                process.terminate()
        deadline = time.monotonic() + grace
        try:
            for process in processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
        finally:
            for slot in self._slots:
                slot.clear()

    def _feed(self) -> list[JobReport]:
        reports = []
        for index, slot in enumerate(self._slots):
            if not self._queue:
                break
            if slot.job is not None:
                continue
            if slot.process is None:
                self._start(index)
            job = self._queue.popleft()
            if slot.give(job):
                reports.append(JobReport("started", job, {"slot": index}))
            else:
                # It has just died idle; the job waits for its successor.
                self._queue.appendleft(job)
        return reports

    def _start(self, index: int) -> None:
        variables = dict.fromkeys(_THREAD_VARIABLES, str(self.layout.threads))
        devices = self.layout.devices
        if devices:
            variables["CUDA_VISIBLE_DEVICES"] = devices[index % len(devices)]
        environment = {**os.environ, **variables, **self._environment}
        try:
            self._slots[index].start(environment, self.layout.threads)
        except OSError as error:
            raise StudyError(f"no worker process can be started: {error.strerror or error}") from error

    def _read(self, slot: _Slot) -> list[JobReport]:
        reports = []
        for name, payload in slot.messages():
            if name == "ready":
                slot.is_ready, self._failed_starts = True, 0
                continue
            assert slot.job is not None
            if name == "event":
                reports.append(_report(slot.job, from_json(payload)))
            if name == "done":
                reports.append(JobReport("ended", slot.job, payload))
                slot.job = None
                if not payload.get("is_fit", True):
                    slot.clear()
        return reports

    def _bury(self, slot: _Slot) -> list[JobReport]:
        """Clear a slot whose process is dead; queue its job again, or give it up."""
        assert slot.process is not None
        job, words = slot.job, describe_exit(slot.process.returncode)
        if not slot.is_ready:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise StudyError(f"worker processes cannot start: {slot.last_words() or words}")
        was_ready = slot.is_ready
        slot.clear()
        if job is None:
            return []
        if not job.tasks:
            # It died after the last of its records.
            return [JobReport("ended", job, {"status": "done"})]
        report = JobReport("died", job, {"text": words})
        # A process that dies before it is ready is no trial's trouble.
        trouble = Trouble.DEATH if was_ready else Trouble.NONE
        task = job.task
        step = next_step(History(trouble, len(job.tasks), task.attempt if was_ready else 0, task.limit))
        if step is Step.HALVES:
            self._queue.extendleft(reversed(job.halves()))
            return [report]
        if was_ready:
            job.deaths.append(words)
            if step is Step.GIVE_UP:
                return [JobReport("lost", job, {"text": describe_deaths(job.deaths)})]
            # A death is a failure, though no record counts it yet.
            job.tasks = [replace(task, attempt=task.attempt + 1, tries=task.tries - 1)]
        self._queue.appendleft(job)
        return [report]


def _report(job: Job, event: Event) -> JobReport:
    """Return an event of a job's trial as a report; a trial that has ended leaves the job."""
    if isinstance(event, Ended):
        job.tasks = [task for task in job.tasks if task.id != event.id]
    return JobReport("event", job, event=event)


class _Slot:
    """The place of one process: the process, the pipe to it, and the job it is at."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.connection: Connection | None = None
        self.job: Job | None = None
        self.is_ready = False
        self._output: IO[bytes] | None = None

    def start(self, environment: Mapping[str, str], threads: int) -> None:
        """Start a fresh interpreter with this one's import path, so that it finds the same modules."""
        ours, theirs = Pipe()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the slot is cleared
        with theirs:
            # A group of its own: Ctrl-C reaches the supervisor alone, which ends its processes in good order.
            self.process = subprocess.Popen(
                [sys.executable, "-c", _BOOTSTRAP, str(theirs.fileno()), "stability-worker"],
                env=environment,
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                process_group=0,
            )
        self.connection = ours
        with contextlib.suppress(OSError):
            ours.send(sys.path)
            ours.send(threads)

    def give(self, job: Job) -> bool:
        """Hand over a job; False where the process is dead."""
        assert self.connection is not None
        try:
            self.connection.send((job.kind, job.tasks, job.full_size))
        except OSError:
            return False
        self.job = job
        return True

    def messages(self) -> list[tuple[str, dict[str, Any]]]:
        """Return what the process has sent by now; nothing more comes from a dead one."""
        received = []
        if self.connection is not None:
            with contextlib.suppress(EOFError, OSError):
                while self.connection.poll():
                    received.append(self.connection.recv())
        return received

    def last_words(self) -> str:
        """Return the last line that the process printed."""
        if self._output is None:
            return ""
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def clear(self) -> None:
        """Kill the process and its children, reap it, and forget the job."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        for resource in (self.connection, self._output):
            if resource is not None:
                resource.close()
        self.process = self.connection = self.job = self._output = None
        self.is_ready = False


def describe_exit(code: int) -> str:
    """Return how a process ended: `signal 9`, `exit code 3`."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def describe_deaths(deaths: Sequence[str]) -> str:
    """Return the text of a job that was given up."""
    how = deaths[0] if len(set(deaths)) == 1 else ", then ".join(deaths)
    times = {1: "once", 2: "twice"}.get(len(deaths), f"{len(deaths)} times")
    hint = "; killed by hand, or for want of memory" if f"signal {int(signal.SIGKILL)}" in deaths else ""
    return f"worker died ({how}) {times}{hint}"
