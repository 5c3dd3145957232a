"""The inside of a worker process: take a job, do it, say how it ended; end when the supervisor is gone."""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from queue import SimpleQueue
from types import FrameType
from typing import Any, NoReturn

from stability.errors import StudyError
from stability.execute.task import TrialTask
from stability.execute.trial_log import describe
from stability.execute.worker import first_batch_problem, run_pack, seconds_of_pack
from stability.files import describe_trouble, disk_trouble

# Preferred by the kernel over the supervisor, when memory runs out and it has to end one of us (Linux).
OOM_SCORE = "500"
Send = Callable[[str, dict[str, Any]], None]
# How a job ends that may have left the device in trouble.
UNWELL = ("failed", "refused", "stopped")


def serve(connection: Connection) -> NoReturn:
    """Work off the jobs (kind, tasks, full_size) that come in, until None or the supervisor's end.

    Sends (name, payload): "ready" once; while a job runs "event" with the JSON of each event of its trials; after each
    job "done" with {status} and what belongs to it: done, failed, refused with {text}, seconds, `claimed` (ids of
    trials that run elsewhere), or `stopped` with {text} where the study cannot go on, and is_fit, whether this process
    can do another. Records go through their files.
    """
    signal.signal(signal.SIGTERM, _leave)
    jobs: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_listen, args=(connection, jobs), daemon=True, name="supervisor").start()
    with contextlib.suppress(OSError):
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(OOM_SCORE)
    faulthandler.enable()
    _warm_up(threads=jobs.get())

    def send(name: str, payload: dict[str, Any]) -> None:
        try:
            connection.send((name, payload))
        except OSError:
            _end_with_children()

    code = 0
    try:
        send("ready", {})
        while (job := jobs.get()) is not None:
            kind, tasks, full_size = job
            outcome = _do(kind, tasks, full_size, send)
            is_fit = outcome["status"] not in UNWELL or _device_works()
            send("done", outcome | {"is_fit": is_fit})
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    # Run what libraries registered for the end; tearing torch down is a waste of time.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)


def _device_works() -> bool:
    """Tell whether the GPU still answers: after some errors (a failed assertion on it) it does so to no call any more.

    Only a new process has it working again: the pool starts one in place of this.
    """
    torch = sys.modules["torch"]
    if not torch.cuda.is_initialized():
        return True
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _listen(connection: Connection, jobs: SimpleQueue[Any]) -> None:
    """Queue what the supervisor sends; its end of the pipe is closed the moment it dies, however it dies."""
    while True:
        try:
            jobs.put(connection.recv())
        except (EOFError, OSError):
            _end_with_children()


def _end_with_children() -> NoReturn:
    """End at once, and with us the processes that load our data: they hold our claim's lock open."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _warm_up(threads: int) -> None:
    """Import what every trial needs, and keep it out of the garbage collector's rounds."""
    import torch

    import stability.training.trial  # noqa: F401

    torch.set_num_threads(threads)
    with contextlib.suppress(RuntimeError):
        torch.set_num_interop_threads(1)
    gc.collect()
    gc.freeze()


def _do(kind: str, tasks: Sequence[TrialTask], full_size: int, send: Send) -> dict[str, Any]:
    try:
        return _KINDS[kind](tasks, full_size, send)
    except Exception as error:
        trouble = error if isinstance(error, OSError) else disk_trouble(error)
        text = describe(error) if trouble is None else describe_trouble(trouble, tasks[0].directory)
        return {"status": "stopped", "text": text, "traceback": traceback.format_exc()}


def _pack(tasks: Sequence[TrialTask], full_size: int, send: Send) -> dict[str, Any]:
    records = run_pack(
        tasks,
        lambda event: send("event", event.to_json()),
        full_size=full_size,
        capture_output=True,
    )
    claimed = [task.id for task, record in zip(tasks, records, strict=True) if record is None]
    has_failed = any(record is not None and record.status == "failed" for record in records)
    return {"status": "failed" if has_failed else "done", "claimed": claimed}


def _first_batch(tasks: Sequence[TrialTask], full_size: int, send: Send) -> dict[str, Any]:
    problem = first_batch_problem(tasks[0])
    return {"status": "done"} if problem is None else {"status": "refused", "text": problem}


def _measure(tasks: Sequence[TrialTask], full_size: int, send: Send) -> dict[str, Any]:
    from stability.training import measure

    try:
        return {"status": "done", "seconds": measure(tasks[0].config, size=full_size)}
    except Exception as error:
        if isinstance(error, StudyError) or disk_trouble(error) is not None:
            raise
        traceback.print_exc()
        return {"status": "refused", "text": describe(error)}


def _pack_size(tasks: Sequence[TrialTask], full_size: int, send: Send) -> dict[str, Any]:

    return {"status": "done", "seconds": seconds_of_pack(tasks[0].config, full_size)}


_KINDS: dict[str, Callable[[Sequence[TrialTask], int, Send], dict[str, Any]]] = {
    "pack": _pack,
    "first batch": _first_batch,
    "measure": _measure,
    "pack size": _pack_size,
}
