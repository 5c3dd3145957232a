"""Trials run until each has a record: deaths, other commands, full disks, Ctrl-C."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from stability.errors import StudyError, UserError
from stability.execute.attempt import failed_record
from stability.execute.layout import ProcessLayout
from stability.execute.pool import JobReport
from stability.execute.progress import ProgressDisplay
from stability.execute.runner import TrialRunner
from stability.execute.task import TrialTask
from stability.study.claims import claim, is_claimed
from stability.study.events import Ended, Event
from stability.study.schema import Provenance
from tests.plain import PlainRunner, read_record, run_trial, write_record

Make = Callable[..., TrialTask]


@pytest.fixture(scope="module")
def runner() -> Iterator[TrialRunner]:
    """Two processes for all tests that do not break them."""
    with PlainRunner(ProcessLayout(2, 1), progress=ProgressDisplay(io.StringIO())) as runner:
        yield runner


@pytest.fixture
def output(runner: TrialRunner) -> io.StringIO:
    """What the runner's progress prints."""
    stream = io.StringIO()
    runner.progress = ProgressDisplay(stream)
    return stream


def test_trials_in_processes_end_as_they_do_in_this_one(runner: TrialRunner, make_task: Make, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    tasks = [make_task(seed=seed) for seed in range(5)]
    seen: list[str] = []
    records = runner.run(tasks, on_record=lambda record: seen.append(record["id"]))
    assert [record["id"] for record in records] == [task.id for task in tasks]
    assert sorted(seen) == sorted(task.id for task in tasks)
    for task, record in zip(tasks, records, strict=True):
        assert record == read_record(task.directory)
        here = run_trial(dataclasses.replace(task, study_directory=tmp_path / "here"))
        assert here["result"] == record["result"]
    # Said again, nothing is trained.
    stands = [task.directory.joinpath("record.json").stat().st_mtime_ns for task in tasks]
    assert runner.run(tasks) == records
    assert stands == [task.directory.joinpath("record.json").stat().st_mtime_ns for task in tasks]


@pytest.mark.slow
def test_deaths_cost_no_other_trial(runner: TrialRunner, make_task: Make, tmp_path: Path, output: io.StringIO) -> None:
    def misbehaves(what: str, times: int) -> TrialTask:
        counter = str(tmp_path / f"{what}{times}")
        return make_task(
            "Misbehaves", what=what, counter=counter, times=times, training={"checkpoint_seconds": 0.0}, at=7
        )

    killed, crashes = misbehaves("kill", 1), misbehaves("segfault", 2)
    plain = [make_task(seed=seed) for seed in range(6)]
    records = runner.run([killed, crashes, *plain])
    assert [record["status"] for record in records] == ["completed", "failed", *["completed"] * 6]

    assert records[0]["provenance"]["attempts"] == 2
    assert "continues from its checkpoint" in (killed.directory / "log.txt").read_text()
    assert records[1]["result"]["exception"] == "worker died (signal 11) twice"
    assert records[1]["provenance"]["attempts"] == records[1]["provenance"]["failures"] == 2
    # What the process had to say about its end is in the trial's log.
    assert "Segmentation fault" in (crashes.directory / "log.txt").read_text()
    assert not is_claimed(crashes.directory)
    assert f"{killed.id} " in output.getvalue()
    assert "its worker died (signal 9)" in output.getvalue()
    assert "failed: worker died (signal 11) twice" in output.getvalue()

    # The file now says that it has misbehaved often enough.
    again = runner.run([dataclasses.replace(crashes, attempt=3)])
    assert again[0]["status"] == "completed"


def test_a_trial_with_one_try_left_is_given_up_when_its_process_dies(
    runner: TrialRunner, make_task: Make, tmp_path: Path
) -> None:
    task = make_task("Misbehaves", what="kill", counter=str(tmp_path / "count"))
    last = runner.run([dataclasses.replace(task, attempt=3, tries=1)])
    assert last[0]["status"] == "failed"
    assert last[0]["result"]["exception"].startswith("worker died (signal 9) once")
    assert last[0]["provenance"]["failures"] == 3


def test_a_process_whose_device_is_broken_is_replaced(runner: TrialRunner, make_task: Make, tmp_path: Path) -> None:
    first = make_task("Misbehaves", what="break_device", counter=str(tmp_path / "count"))
    others = [make_task(seed=seed) for seed in range(6)]
    records = runner.run([first, *others])
    assert [record["status"] for record in records] == ["failed", *["completed"] * 6]
    assert all(record["provenance"]["attempts"] == 1 for record in records)
    logs = {line.split()[6] for task in [first] for line in (task.directory / "log.txt").read_text().splitlines()[:1]}
    after = {(task.directory / "log.txt").read_text().split()[6] for task in others}
    # The process that had it trains nothing more; the pool of two has had three.
    assert not logs & after


def test_a_failed_trial_is_handed_back(runner: TrialRunner, make_task: Make, tmp_path: Path) -> None:
    task = make_task("Misbehaves", what="fail", counter=str(tmp_path / "count"))
    first = runner.run([task])
    assert first[0]["result"]["exception"] == "RuntimeError: broken on purpose"
    second = runner.run([dataclasses.replace(task, attempt=2)])
    assert second[0]["status"] == "completed"


HOLD = """
import sys, time
from pathlib import Path
from typing import Any
from stability.study.claims import claim
held = claim(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def held_by_another(task: TrialTask) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(task.directory)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_trial_of_another_command_is_taken_over_when_that_dies(runner: TrialRunner, make_task: Make) -> None:
    runner.run([make_task(seed=8), make_task(seed=9)])  # both processes are warm now
    tasks = [make_task(seed=seed) for seed in range(3)]
    other = held_by_another(tasks[0])
    killed_at = []

    def kill() -> None:
        killed_at.append(time.monotonic())
        other.kill()

    threading.Timer(1.0, kill).start()
    ended: list[str] = []
    records = runner.run(tasks, on_record=lambda record: ended.append(record["id"]))
    # Whether a claim still holds is asked every few seconds, gently to a shared file system.
    assert time.monotonic() - killed_at[0] < 15.0
    assert [record["status"] for record in records] == ["completed"] * 3
    assert ended[-1] == tasks[0].id
    assert records[0]["provenance"]["attempts"] == 2
    other.wait()


def test_a_trial_of_another_command_is_waited_for(runner: TrialRunner, make_task: Make) -> None:
    task = make_task()
    other = held_by_another(task)
    theirs = failed_record(task, "elsewhere", Provenance(attempts=1, failures=1)).to_json()
    threading.Timer(0.6, lambda: write_record(task.directory, theirs)).start()
    assert runner.run([task])[0]["result"]["exception"] == "elsewhere"
    other.kill()
    other.wait()


def kinds_of(told: list[tuple[TrialTask, Event]], task: TrialTask) -> list[str]:
    """Return the kinds of a trial's events, without its progress."""
    return [event.kind for one, event in told if one.id == task.id and event.kind != "progress"]


def test_events_tell_of_the_trials_that_this_pool_trains(runner: TrialRunner, make_task: Make, tmp_path: Path) -> None:
    checkpoints = {"checkpoint_seconds": 0.0}
    dies = make_task("Misbehaves", what="kill", counter=str(tmp_path / "count"), at=7, training=checkpoints)
    elsewhere, stands = make_task(seed=1), make_task(seed=2)
    record = run_trial(stands)
    other = held_by_another(elsewhere)

    def end() -> None:
        write_record(elsewhere.directory, failed_record(elsewhere, "no", Provenance()).to_json())
        other.kill()

    threading.Timer(3.0, end).start()
    told: list[tuple[TrialTask, Event]] = []
    records = runner.run([dies, elsewhere, stands], on_event=lambda task, event: told.append((task, event)))
    assert records[2] == record
    # It goes on from its checkpoint in a new process, and its epochs are told once.
    assert kinds_of(told, dies) == ["started", "epoch", "started", "resumed", "epoch", "epoch", "ended"]
    assert [event.record for _, event in told if isinstance(event, Ended)] == [records[0]]
    # Another command trains this one, or has trained it, and logs it.
    assert kinds_of(told, elsewhere) == kinds_of(told, stands) == []
    other.wait()


def test_a_trial_whose_process_dies_for_good_is_told_to_have_failed(
    runner: TrialRunner, make_task: Make, tmp_path: Path
) -> None:
    task = make_task("Misbehaves", what="kill", counter=str(tmp_path / "count"), times=9)
    told: list[tuple[TrialTask, Event]] = []
    (record,) = runner.run([task], on_event=lambda task, event: told.append((task, event)))
    assert kinds_of(told, task) == ["started", "started", "ended"]
    assert told[-1][1] == Ended(task.id, record)
    assert record["status"] == "failed"


def test_first_batches_are_tried_and_nothing_is_written(runner: TrialRunner, make_task: Make, tmp_path: Path) -> None:
    counter = str(tmp_path / "count")
    tasks = [
        make_task(),
        make_task("Misbehaves", what="fail", counter=counter, at=1),
        make_task("Missing"),
    ]
    problems = runner.first_batches(tasks)
    assert problems[0] is None
    said = "its first batch fails: RuntimeError: broken on purpose (images of data.image_size=16 px)"
    assert problems[1] == said
    assert "Missing" in (problems[2] or "")
    assert not (tmp_path / "runs").exists()


def test_steps_are_timed(runner: TrialRunner, make_task: Make) -> None:
    fast, slow = runner.measure([make_task(), make_task(sleep=0.05)])
    assert fast > 0
    assert slow > 0.05
    with pytest.raises(UserError, match=r"^missing adamw epochs=3: "):
        runner.measure([make_task("Missing")])


def test_output_is_lines_where_there_is_no_terminal(runner: TrialRunner, make_task: Make, output: io.StringIO) -> None:
    runner.run([make_task(seed=seed) for seed in range(3)], planned=4)
    runner.run([make_task(seed=3)], standing={"completed": 3}, planned=4)
    lines = output.getvalue().splitlines()
    assert lines[0] == "test: 4 trials; 3 to run, 2 at a time"
    assert lines[1].startswith("test: 4 of 4 trials ended after")
    assert lines[1].endswith(": 4 completed")
    assert len(lines) == 2


def test_a_first_batch_that_ends_its_process_is_a_problem(make_task: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = PlainRunner(ProcessLayout(1, 1), progress=ProgressDisplay(io.StringIO()))
    lost = {"text": "worker died (signal 9) twice"}
    monkeypatch.setattr(runner.pool, "step", lambda timeout: [JobReport("lost", runner.pool._queue[0], lost)])
    assert runner.first_batches([make_task()]) == ["its first batch fails: worker died (signal 9) twice"]


# --- what ends a study


def children() -> set[int]:
    """Return the processes that this one has started and not reaped, zombies included.

    But for multiprocessing's tracker of resources, which it keeps once another test has spawned processes.
    """
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            is_ours = int(path.read_text().rpartition(")")[2].split()[1]) == os.getpid()
            if is_ours and b"resource_tracker" not in path.with_name("cmdline").read_bytes():
                found.add(int(path.parent.name))
    return found


def test_a_folder_that_cannot_be_written_ends_the_study_in_a_line(
    runner: TrialRunner, make_task: Make, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    task = dataclasses.replace(make_task(), study_directory=tmp_path / "file")
    with pytest.raises(StudyError, match=r"file.*: Not a directory$"):
        runner.run([task])


def test_a_full_disk_ends_the_study_in_a_line(runner: TrialRunner, make_task: Make, tmp_path: Path) -> None:
    # Other tests of this process may have left some.
    before = children()
    full = make_task("Misbehaves", what="fill", counter=str(tmp_path / "count"))
    with pytest.raises(
        StudyError, match=r"^/somewhere: No space left on device \(on /: [\d,.]+ of [\d,.]+ MB are free\)$"
    ):
        runner.run([full])
    assert children() <= before
    assert read_record(full.directory) is None
    # The same runner goes on when there is room again.
    assert runner.run([full])[0]["status"] == "completed"


def test_sigterm_ends_processes_in_good_order(runner: TrialRunner, make_task: Make, output: io.StringIO) -> None:
    # Other tests of this process may have left some.
    before = children()
    task = make_task(sleep=0.02, epochs=100)
    log = task.directory / "log.txt"

    def terminate() -> None:
        while not (log.exists() and "epoch 1" in log.read_text()):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate).start()
    with pytest.raises(SystemExit) as caught:
        runner.run([task])
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert children() <= before
    assert read_record(task.directory) is None
    assert (task.directory / "checkpoint.pt").exists()
    assert not is_claimed(task.directory)
    assert output.getvalue().splitlines()[-1] == "Run the same command again to go on from here."


def pack(make_task: Make, count: int, *arguments: Any, **options: Any) -> list[TrialTask]:
    """Return tasks that train as one pack."""
    tasks = [make_task(*arguments, seed=seed, **options) for seed in range(count)]
    identifiers = tuple(task.id for task in tasks)
    return [dataclasses.replace(task, pack=identifiers) for task in tasks]


def test_a_pack_trains_together_and_each_trial_has_its_folder(runner: TrialRunner, make_task: Make) -> None:
    tasks = pack(make_task, 3)
    seen: list[str] = []
    records = runner.run(tasks, on_record=lambda record: seen.append(record["id"]))
    assert [record["status"] for record in records] == ["completed"] * 3
    assert sorted(seen) == sorted(task.id for task in tasks)
    assert {record["provenance"]["pack_size"] for record in records} == {3}
    for task, record in zip(tasks, records, strict=True):
        assert (record["id"], record["study"], record["cell"]) == (task.id, "test", dict(task.factors))
        log = (task.directory / "log.txt").read_text()
        assert "one of a pack of 3" in log
        assert log.count("epoch ") == 3
        assert sorted(path.name for path in task.directory.iterdir()) == ["correct.json", "log.txt", "record.json"]


def test_the_death_of_a_process_costs_a_pack_no_record(
    runner: TrialRunner, make_task: Make, tmp_path: Path, output: io.StringIO
) -> None:
    """It goes on in halves, until what kills is alone."""
    harmless = pack(make_task, 2, lr=0.02)
    deadly = pack(make_task, 3, "Misbehaves", what="kill", counter=str(tmp_path / "count"), times=2, at=5)
    records = runner.run([*harmless, *deadly])
    assert [record["status"] for record in records] == ["completed"] * 5
    assert {record["provenance"]["pack_size"] for record in records[:2]} == {2}
    assert {record["provenance"]["pack_size"] for record in records[2:]} <= {1, 2}
    assert "in its pack: their worker died (signal 9); they go on in halves" in output.getvalue()
    # Two deaths of packs are no failure of any trial, and every trial still had both of its tries.
    assert all("failures" not in record["provenance"] for record in records)


def test_an_exception_has_a_pack_go_on_in_halves(runner: TrialRunner, make_task: Make, tmp_path: Path) -> None:
    once = pack(make_task, 4, "Misbehaves", what="fail", counter=str(tmp_path / "once"), times=1, at=6)
    for_good = pack(make_task, 3, "Misbehaves", what="fail", counter=str(tmp_path / "ever"), times=99, at=6, lr=0.02)
    records = runner.run([*once, *for_good])
    assert [record["status"] for record in records] == ["completed"] * 4 + ["failed"] * 3
    assert {record["provenance"]["pack_size"] for record in records[:4]} == {2}
    for record in records[4:]:
        assert record["result"]["exception"] == "RuntimeError: broken on purpose"
    log = (once[0].directory / "log.txt").read_text()
    assert "its pack of 4 broke off and goes on in halves" in log
    assert "RuntimeError: broken on purpose" in log


def test_memory_that_does_not_suffice_halves_packs_and_then_batches(runner: TrialRunner, make_task: Make) -> None:
    """Batches of 64: four members at once are too many, then two, and where there is less still, a whole batch is."""
    for most, size, parts in ((128, 2, None), (64, 1, None), (16, 1, 4)):
        tasks = pack(make_task, 4, "Hungry", most=most)
        records = runner.run(tasks)
        assert [record["status"] for record in records] == ["completed"] * 4
        assert {record["provenance"]["pack_size"] for record in records} == {size}
        assert {record["provenance"].get("micro_batches") for record in records} == {parts}


def test_what_others_run_is_waited_for_and_the_rest_of_the_pack_trains(runner: TrialRunner, make_task: Make) -> None:
    tasks = pack(make_task, 3)
    held = claim(tasks[1].directory)
    assert held is not None
    ended: list[str] = []

    def release(record: dict[str, Any]) -> None:
        ended.append(record["id"])
        if len(ended) == 2:
            held.release(ended=False)

    records = runner.run(tasks, on_record=release)
    assert [record["status"] for record in records] == ["completed"] * 3
    assert ended[-1] == tasks[1].id
    # All at one size of stack: the bits of none depend on who was there.
    assert {record["provenance"]["pack_size"] for record in records} == {3}
