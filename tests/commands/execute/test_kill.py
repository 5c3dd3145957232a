"""Whole commands, cut off: by SIGKILL at random moments, by Ctrl-C and SIGTERM, and two of them on one study."""

from __future__ import annotations

import contextlib
import os
import pty
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from stability.study.claims import is_claimed
from tests.plain import read_manifest, read_records

# Four cells of two points, half a second each: what is killed is in the middle of trials, or between two.
STUDY = (
    *("-m", "model=vitp_tiny,vitc_tiny", "optimizer=adamw,sgd", "lr=1e-3,1e-2", "model.blocks=1", "epochs=4"),
    *("data.train_size=320", "study=killed", "training.checkpoint_seconds=0.05", "pool.size=2"),
)
TRIALS = 8
KILLS = 6
# Lines that a command logs at most before it is killed; the study has 40 of epochs and ends alone.
MAX_LINES = 12


def heed_signals() -> None:
    """Heed what nohup, and a shell for what it starts in the background, have a process ignore."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


class Command:
    """`python -m stability.run` in a folder, as a process group of its own; its output is kept."""

    def __init__(self, folder: Path, arguments: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "HYDRA_FULL_ERROR": "0"}
        with open(folder / "output.txt", "ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "stability.run", *arguments],
                cwd=folder,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
                preexec_fn=heed_signals,
            )
        self._folder = folder

    @property
    def output(self) -> str:
        return (self._folder / "output.txt").read_text()

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def family(self) -> list[int]:
        """The command's process and its workers'."""
        lines = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        pairs = [tuple(map(int, line.split())) for line in lines.splitlines()]
        return [self._process.pid, *(pid for pid, parent in pairs if parent == self._process.pid)]

    def kill(self, chance: random.Random) -> None:
        """Kill the command and all its workers with SIGKILL, in any order."""
        family = self.family()
        chance.shuffle(family)
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def signal(self, number: int) -> int:
        """Send a signal to the process group, as a terminal does; return the exit code."""
        os.killpg(self._process.pid, number)
        return self.wait()

    def wait(self) -> int:
        return self._process.wait(timeout=300)


def logs(folder: Path) -> dict[Path, str]:
    return {path: path.read_text() for path in folder.glob("runs/*/trials/*/log.txt")}


def is_running(pid: int) -> bool:
    """Tell whether there is such a process, zombies included."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for_training(command: Command, folder: Path, lines: int = 1) -> bool:
    """Wait until a command has logged so many epochs and ends of trials; returns whether it still runs then."""
    before = count_lines(folder)
    while not command.has_ended:
        if count_lines(folder) >= before + lines:
            return True
        time.sleep(0.01)
    return False


def count_lines(folder: Path) -> int:
    return sum(text.count(": training loss") + text.count("completed: ") for text in logs(folder).values())


def results(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Return what must be equal in two studies of one plan: status and result of every trial."""
    records = read_records(next((folder / "runs").iterdir()))
    return {name: (record["status"], record["result"]) for name, record in records.items()}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_study_killed_at_random_moments_ends_as_one_that_was_not(tmp_path: Path) -> None:
    chance = random.Random(20)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    in_training = 0
    for kill in range(KILLS):
        command = Command(killed, STUDY)
        if kill % 3 == 0:
            # While it composes, writes its manifest, imports.
            time.sleep(chance.uniform(0.2, 3.0))
        else:
            in_training += wait_for_training(command, killed, chance.randint(1, MAX_LINES))
            time.sleep(chance.uniform(0.0, 0.1))
        command.kill(chance)
    assert in_training >= KILLS // 2, "the study is too short to be killed so often"

    assert Command(killed, STUDY).wait() == 0
    assert Command(whole, STUDY).wait() == 0
    assert len(results(whole)) == TRIALS
    assert results(killed) == results(whole)

    # What was killed was continued, and nothing is left of it.
    texts = "".join(logs(killed).values())
    assert texts.count("attempt ") > TRIALS
    assert "continues from its checkpoint" in texts
    for folder in (killed / "runs" / "killed").glob("trials/*"):
        assert sorted(os.listdir(folder)) == [".hydra", "correct.json", "log.txt", "record.json"]
    assert "Traceback" not in (killed / "output.txt").read_text()


def plain_study(name: str, points: int, **options: Any) -> list[str]:
    """A study of a trivial model that sleeps: its length does not depend on the machine."""
    seeds = ",".join(map(str, range(points)))
    target = ["model._target_=misbehaving_models.Plain", f"+model.sleep={options.pop('sleep', 0.02)}"]
    keys = [f"{key}={value}" for key, value in options.items()]
    return ["-m", *target, f"seed={seeds}", "data.train_size=256", "data.eval_size=100", f"study={name}", *keys]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_signals_end_a_command_cleanly_and_it_can_be_said_again(tmp_path: Path) -> None:
    for number, code, size in (
        (signal.SIGINT, 130, 2),
        (signal.SIGTERM, 143, 1),
        (signal.SIGHUP, 129, 1),
        # As Slurm sends before a time limit to a batch script: #SBATCH --signal=B:USR2@90.
        (signal.SIGUSR2, 140, 1),
    ):
        command = Command(tmp_path, [*plain_study("signalled", points=2, epochs=16), f"pool.size={size}"])
        wait_for_training(command, tmp_path)
        family = command.family()
        assert len(family) == 1 + size
        assert command.signal(number) == code
        assert not any(map(is_running, family))
        assert command.output.splitlines()[-1] == "Run the same command again to go on from here."
        assert not any(map(is_claimed, (tmp_path / "runs" / "signalled" / "trials").iterdir()))
    assert Command(tmp_path, [*plain_study("signalled", points=2, epochs=16), "pool.size=1"]).wait() == 0
    assert "Traceback" not in command.output
    assert len(logs(tmp_path)) == 2
    assert "".join(logs(tmp_path).values()).count("continues from its checkpoint") >= 4


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGUSR2, 140)])
def test_a_signal_to_the_command_alone_ends_joblibs_trials_with_checkpoints(
    tmp_path: Path, number: int, code: int
) -> None:
    """Four trials in two processes: two have begun, two wait in joblib's queue and do not begin any more."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", exc_type=ImportError)
    study = plain_study("forwarded", points=4, epochs=40, **{"pack.size": 1, "training.checkpoint_seconds": 1000})
    command = Command(tmp_path, [*study, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"])
    while sum(": training loss" in text for text in logs(tmp_path).values()) < 2:
        assert not command.has_ended, command.output
        time.sleep(0.05)
    os.kill(command.family()[0], number)
    assert command.wait() == code
    assert command.output.splitlines()[-1] == "cut off; run the command again to continue"
    began = [path.parent for path in logs(tmp_path)]
    assert len(began) == 2
    for folder in began:
        assert f"cut off: SystemExit: {code}" in (folder / "log.txt").read_text()
        assert (folder / "checkpoint.pt").exists()
        assert not is_claimed(folder)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_dropped_terminal_ends_a_command_with_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = [*plain_study("dropped", points=2, epochs=60), "pool.size=1"]
    monkeypatch.chdir(tmp_path)
    pid, terminal = pty.fork()
    if pid == 0:
        heed_signals()
        os.execv(sys.executable, [sys.executable, "-m", "stability.run", *study])
    while not count_lines(tmp_path):
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
        if select.select([terminal], [], [], 0.05)[0]:
            os.read(terminal, 65536)
    # What sshd does: the kernel sends SIGHUP, and every further word to the terminal is refused.
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 129
    (folder,) = (path.parent for path in (tmp_path / "runs" / "dropped" / "trials").glob("*/log.txt"))
    assert (folder / "checkpoint.pt").exists()
    assert not is_claimed(folder)
    assert "cut off: SystemExit: 143" in (folder / "log.txt").read_text()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["USR2", "USR1"])
def test_submitits_signal_ends_a_job_with_a_checkpoint_and_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", exc_type=ImportError)
    if name != "USR2":
        monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", name)
    launcher = ["hydra/launcher=submitit_local", "training.checkpoint_seconds=1000"]
    command = Command(tmp_path, [*plain_study("preempted", points=2, epochs=24, **{"pack.size": 2}), *launcher])
    assert wait_for_training(command, tmp_path, lines=4)
    lines = subprocess.run(["ps", "-Aww", "-o", "pid=,args="], capture_output=True, text=True, check=True).stdout
    jobs = [line.split()[0] for line in lines.splitlines() if "core._submit" in line and str(tmp_path) in line]
    assert len(jobs) == 1
    os.kill(int(jobs[0]), getattr(signal, f"SIG{name}"))
    assert command.wait() == 0, command.output
    records = read_records(tmp_path / "runs" / "preempted").values()
    assert [(one["status"], one["provenance"]["attempts"]) for one in records] == [("completed", 2)] * 2
    for text in logs(tmp_path).values():
        assert text.count("cut off: SystemExit") == 1
        assert text.count("continues from its checkpoint") == 1


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_commands_share_a_study_and_one_takes_over_from_the_other(tmp_path: Path) -> None:
    study = plain_study("shared", points=8, epochs=6, **{"pool.size": 1})
    first, second = Command(tmp_path, study), Command(tmp_path, study)
    while (
        len({line.split()[6] for text in logs(tmp_path).values() for line in text.splitlines() if "attempt" in line})
        < 2
    ):
        assert not first.has_ended
        assert not second.has_ended
        time.sleep(0.05)
    first.kill(random.Random(0))
    assert second.wait() == 0
    records = read_records(tmp_path / "runs" / "shared")
    assert len(records) == 8
    assert {record["status"] for record in records.values()} == {"completed"}
    # Only what the killed command was at was begun again.
    starts = sorted(text.count("attempt ") for text in logs(tmp_path).values())
    assert starts in ([1] * 7 + [2], [1] * 8)


def test_a_folder_that_cannot_be_written_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("in the way")
    command = Command(tmp_path, plain_study("nowhere", points=2))
    assert command.wait() == 2
    assert len(command.output.splitlines()) == 1
    assert "is no folder" in command.output


# Ray tries a job again by itself before it raises.
LAUNCHERS = {
    "joblib": (1, ["hydra.launcher.n_jobs=2"]),
    "submitit_local": (1, []),
    "ray": (2, ["+hydra.launcher.ray.remote.max_retries=1"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_worker_that_dies_under_hydras_launchers_costs_no_record_of_another_pack(
    launcher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """joblib loses its whole batch with it, the others its pack: that is launched again, each trial alone."""
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.removesuffix('_local')}_launcher", exc_type=ImportError)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    times, options = LAUNCHERS[launcher]
    target = ["model._target_=misbehaving_models.Misbehaves", "+model.what=kill", f"+model.counter={tmp_path}/count"]
    # Two packs: one dies in its second epoch, and the other is never so far.
    study = ["-m", *target, f"+model.times={times}", "+model.at=6,1000000", "seed=0,1", "epochs=60", "study=dies"]
    study += ["data.train_size=128", "data.eval_size=50", "pack.size=2", f"hydra/launcher={launcher}", *options]
    command = Command(tmp_path, study)
    assert command.wait() == 0, command.output
    assert (tmp_path / "count").read_text() == str(times)
    assert "what is missing is launched again" in command.output
    directory = tmp_path / "runs" / "dies"
    records = read_records(directory)
    assert [record["status"] for record in records.values()] == ["completed"] * 4
    for name, record in records.items():
        folder = directory / "trials" / name
        starts = [line for line in (folder / "log.txt").read_text().splitlines() if " attempt " in line]
        is_deadly = record["cell"]["model.at"] == 6
        if is_deadly or launcher == "joblib":
            assert len(starts) <= times + 1
        else:
            assert len(starts) == 1
        assert len(starts) == record["provenance"]["attempts"]
        assert ("one of a pack of 2" in starts[-1]) == (record["provenance"]["pack_size"] == 2)
        assert record["provenance"]["pack_size"] == (1 if len(starts) > 1 else 2)
        # Whichever of its pack the job was composed from.
        assert sorted(os.listdir(folder)) == [".hydra", "correct.json", "log.txt", "record.json"]
        config = yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())
        assert (config["seed"], config["model"]["at"]) == (record["seed"], record["cell"]["model.at"])
    assert any(record["provenance"]["pack_size"] == 1 for record in records.values())


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["pool", "basic"])
def test_a_pack_that_memory_does_not_suffice_for_is_halved_for_good(launcher: str, tmp_path: Path) -> None:
    study = ["-m", "model._target_=misbehaving_models.Hungry", "+model.most=128", "seed=0,1,2,3", "epochs=2"]
    study += ["data.train_size=256", "data.eval_size=100", "study=hungry", f"hydra/launcher={launcher}"]
    study += ["pack.size=4", "pool.size=1", "pool.threads=1"]
    assert Command(tmp_path, study).wait() == 0
    directory = tmp_path / "runs" / "hungry"
    manifest, records = read_manifest(directory), read_records(directory)
    assert manifest is not None
    assert [len(pack) for pack in manifest["packs"]] == [2, 2]
    assert "its pack of 4 broke off" in "".join(logs(tmp_path).values())
    for name in records:
        shutil.rmtree(directory / "trials" / name)
    assert Command(tmp_path, study).wait() == 0
    assert "broke off" not in "".join(logs(tmp_path).values())
    assert read_manifest(directory) == manifest
    again = read_records(directory)
    assert {name: record["result"] for name, record in again.items()} == {
        name: record["result"] for name, record in records.items()
    }
    assert {record["provenance"]["pack_size"] for record in again.values()} == {2}
