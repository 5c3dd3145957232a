"""Processes that die, hang about or cannot start; how a machine is divided among them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stability.errors import StudyError
from stability.execute import layout as layouts
from stability.execute import pool as pools
from stability.execute.layout import ProcessLayout, available_cores, plan_layout
from stability.execute.pool import Job, Pool, describe_deaths
from stability.execute.task import TrialTask
from stability.gpus import visible_gpus
from stability.study.claims import is_claimed

Make = Callable[..., TrialTask]
HAS_PROC = Path("/proc/self/stat").exists()


def drain(pool: Pool, jobs: int = 1, seconds: float = 60.0) -> list[tuple[str, str]]:
    """Step until so many jobs have ended or are lost; return what happened, as (name, trial id), without events."""
    happened: list[tuple[str, str]] = []
    leads: dict[int, str] = {}
    deadline = time.monotonic() + seconds
    left = jobs
    while left > 0:
        assert time.monotonic() < deadline, happened
        for report in pool.step(0.2):
            # A job whose trials have all ended has none left.
            lead = leads.setdefault(id(report.job), report.job.tasks[0].id if report.job.tasks else "")
            happened.append((report.name, lead))
            left -= report.name in ("ended", "lost")
    return [one for one in happened if one[0] != "event"]


def alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    """One process, for all tests: a fresh one takes seconds to import torch."""
    pool = Pool(ProcessLayout(size=1, threads=1))
    yield pool
    pool.kill(grace=0)


def process_of(pool: Pool) -> int:
    process = pool._slots[0].process
    assert process is not None
    return process.pid


def test_the_death_of_a_process_restarts_it_and_its_job(pool: Pool, make_task: Make, tmp_path: Path) -> None:
    dies = make_task("Misbehaves", what="leave", counter=str(tmp_path / "count"))
    after = make_task()
    for task in (dies, after):
        pool.submit(Job("pack", [task]))
    a, b = dies.id, after.id
    # The job that died comes before those that were queued behind it.
    assert drain(pool, 2) == [("started", a), ("died", a), ("started", a), ("ended", a), ("started", b), ("ended", b)]


@pytest.mark.skipif(not HAS_PROC, reason="needs /proc")
def test_processes_see_their_threads_and_no_terminal(pool: Pool, make_task: Make) -> None:
    pool.submit(Job("pack", [make_task()]))
    drain(pool)
    process = process_of(pool)
    lines = Path(f"/proc/{process}/environ").read_text().split("\0")
    environment = dict(line.split("=", 1) for line in lines if "=" in line)
    assert environment["OMP_NUM_THREADS"] == environment["MKL_NUM_THREADS"] == "1"
    assert os.readlink(f"/proc/{process}/fd/0") == "/dev/null"
    # A group of its own: Ctrl-C on the terminal is the supervisor's to handle.
    assert os.getpgid(process) == process


def test_a_process_that_dies_idle_costs_nothing(pool: Pool, make_task: Make) -> None:
    first, second = make_task(seed=0), make_task(seed=1)
    pool.submit(Job("pack", [first]))
    drain(pool)
    os.kill(process_of(pool), signal.SIGKILL)
    pool.submit(Job("pack", [second]))
    happened = drain(pool)
    # Whether it was given the job before its death was seen depends on the moment; the job ends in any case.
    assert happened[-2:] == [("started", second.id), ("ended", second.id)]


def test_idle_processes_end_when_they_are_told_to(pool: Pool, make_task: Make) -> None:
    pool.submit(Job("pack", [make_task()]))
    drain(pool)
    process = process_of(pool)
    start = time.monotonic()
    pool.close()
    assert time.monotonic() - start < 1.0
    assert not alive(process)


def test_processes_that_cannot_start_end_the_study_in_a_line(make_task: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "_BOOTSTRAP", "import sys; sys.exit('no torch here')")
    pool = Pool(ProcessLayout(size=1, threads=1))
    pool.submit(Job("pack", [make_task()]))
    with pytest.raises(StudyError, match="worker processes cannot start: no torch here"):
        drain(pool)


SUPERVISOR = """
import sys, time
from pathlib import Path
from stability.study.identity import trial_id
from stability.config import to_dict
from stability.gpus import visible_gpus
from stability.execute.pool import Job, Pool
from stability.execute.layout import ProcessLayout
from stability.execute.task import TrialTask
from stability.training.defaults import complete

model = {"name": "plain", "_target_": "misbehaving_models.Plain", "sleep": 60}
config = complete({"model": model, "recipe": "none"})
pool = Pool(ProcessLayout(1, 1))
pool.submit(Job("pack", [TrialTask(trial_id(config), "s", Path(sys.argv[1]), {}, config)]))
# In its first forward pass, which takes a minute: the process says nothing, and must notice by itself.
while not list(Path(sys.argv[1]).glob("trials/*/log.txt")):
    pool.step(0.1)
print(pool._slots[0].process.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not HAS_PROC, reason="needs /proc")
def test_processes_end_with_their_supervisor(tmp_path: Path) -> None:
    supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert supervisor.stdout is not None
    worker = int(supervisor.stdout.readline())
    assert alive(worker)
    supervisor.send_signal(signal.SIGKILL)
    supervisor.wait()
    assert wait_until(lambda: not alive(worker), 2.0)
    (lock,) = tmp_path.glob("trials/*/lock")
    # Its threads may take a moment longer than its main one.
    assert wait_until(lambda: not is_claimed(lock.parent), 1.0)


# --- how a machine is divided


def test_a_cpu_has_a_process_per_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "available_cores", lambda: 8)
    monkeypatch.setattr(layouts, "visible_gpus", lambda: pytest.fail("a GPU was looked for"))
    assert plan_layout(None, None, wants_gpu=False) == ProcessLayout(8, 1)
    assert plan_layout(2, None, wants_gpu=False) == ProcessLayout(2, 4)
    assert plan_layout(16, None, wants_gpu=False) == ProcessLayout(16, 1)
    assert plan_layout(2, 3, wants_gpu=False) == ProcessLayout(2, 3)
    assert plan_layout(None, 3, wants_gpu=False) == ProcessLayout(2, 3)
    assert plan_layout(None, 16, wants_gpu=False) == ProcessLayout(1, 16)


def test_gpus_have_a_process_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "available_cores", lambda: 16)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2")
    assert visible_gpus() == ("0", "2")
    assert plan_layout(None, None, wants_gpu=True) == ProcessLayout(2, 8, ("0", "2"))
    assert plan_layout(4, None, wants_gpu=True) == ProcessLayout(4, 4, ("0", "2"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert plan_layout(None, None, wants_gpu=True) == ProcessLayout(16, 1)


def test_a_gpu_process_sees_its_gpu_alone(make_task: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    environments: list[str] = []
    monkeypatch.setattr(
        pools._Slot, "start", lambda slot, variables, threads: environments.append(variables["CUDA_VISIBLE_DEVICES"])
    )
    Pool(ProcessLayout(3, 1, ("0", "5"))).warm_up(3)
    assert environments == ["0", "5", "0"]


def test_cores_are_counted() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


def test_deaths_are_told_in_words() -> None:
    assert describe_deaths(["exit code 3"] * 2) == "worker died (exit code 3) twice"
    assert describe_deaths(["signal 9"] * 2) == "worker died (signal 9) twice; killed by hand, or for want of memory"
    assert describe_deaths(["signal 11", "exit code 1"]) == "worker died (signal 11, then exit code 1) twice"
