"""What Optuna does for a sweep: Sobol points, points chosen by TPE, and the mirror that optuna-dashboard opens."""

from __future__ import annotations

import fcntl
import logging
import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from stability.mirror import OFF, Copy, quiet, remove_half_written
from stability.study.metrics import metrics_of
from stability.study.schema import Record
from stability.sweep.sampling import DIGITS, log_scale, rounded, uniform

logger = logging.getLogger(__name__)

# Dimensions of the sequence: always these in this order, so that a pinned coordinate leaves the other's points alone.
DIMENSIONS = ("lr", "wd")
# TPE learns from so many points of a cell; they are those of the default sampler, equal in all cells.
STARTUP = 10
# How often the mirror looks for records, the share of a core that looking and writing may take, how long the end of a
# command waits for it, and how long it leaves alone a storage that made trouble.
POLL_SECONDS = 2.0
MIRROR_SHARE = 0.02
CLOSE_SECONDS = 10.0
RETRY_SECONDS = 60.0
# Held by the one command that mirrors a study.
LOCK = ".optuna.lock"


def sobol_points(count: int, names: Sequence[str], seed: int) -> list[dict[str, float]]:
    """Return the first `count` points of a Sobol sequence of the unit square, scrambled with `seed`.

    The first of more are the same. They come from scipy's generator, which is Optuna's own (QMCSampler): a pure
    function of `seed`, where the sampler would have to be asked in order.
    """
    import numpy as np
    from scipy.stats import qmc

    assert count >= 1, count
    engine = qmc.Sobol(len(DIMENSIONS), scramble=True, seed=np.random.default_rng(seed))
    # Drawn by powers of two, which is what a Sobol sequence is balanced over; the rest is left over for more samples.
    drawn = engine.random_base2(math.ceil(math.log2(count)))[:count]
    places = [DIMENSIONS.index(name) for name in names]
    return [{name: float(row[place]) for name, place in zip(names, places, strict=True)} for row in drawn]


@dataclass(frozen=True)
class Tpe:
    """Chooses a cell's points by Optuna's TPE: each round on an in-memory study rebuilt from the cell's records.

    `ranges` holds (low, high) of each coordinate that is drawn, log-uniformly; the others are left out (or None).
    """

    ranges: Mapping[str, Sequence[float] | None]
    seed: int

    def ask(self, count: int, finished: Sequence[Record], start: int | None = None) -> list[dict[str, float]]:
        """Return the next `count` points, values of the drawn coordinates, given the records that have `finished`.

        `start` is the number of the first new trial within the cell; null: as many as have finished. It has to count
        failed trials too, for they teach nothing (they may be passed; they are left out). The same (seed, start,
        count, finished) gives the same points, in whatever order the records come. Trials below STARTUP are the
        default sampler's.

        A diverged trial is told as +inf: TPE knows ranks alone, and so it is worse than any that ended, even one at
        chance, whatever the number of classes.
        """
        start = len(finished) if start is None else start
        ranges = {name: (ends[0], ends[1]) for name, ends in self.ranges.items() if ends}
        assert ranges, "nothing to draw"
        first = range(start, min(start + count, max(start, STARTUP)))
        points = [
            {name: log_scale(uniform(self.seed, number, name), *ends) for name, ends in ranges.items()}
            for number in first
        ]
        if len(points) < count:
            points += self._suggest(count - len(points), ranges, finished, points, start + len(points))
        return points

    def _suggest(
        self,
        count: int,
        ranges: Mapping[str, tuple[float, float]],
        finished: Sequence[Record],
        asked: Sequence[Mapping[str, float]],
        start: int,
    ) -> list[dict[str, float]]:
        """Ask TPE for `count` points, those of `asked` being tried already without a result so far."""
        import optuna

        distributions = {name: optuna.distributions.FloatDistribution(*ends, log=True) for name, ends in ranges.items()}
        digest = sha256(f"stability/tpe/{self.seed}/{start}".encode()).digest()
        # constant_liar: the points of a round keep away from each other. What TPE draws itself before it has learnt
        # anything is not needed: STARTUP has seen to that.
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=1, multivariate=True, constant_liar=True, seed=int.from_bytes(digest[:4], "big")
        )
        with quiet():
            study = optuna.create_study(sampler=sampler, direction="minimize")
        for record in sorted(finished, key=lambda one: (one.seed, one.id)):
            if record.has_ended:
                study.add_trial(_told(record, distributions))
        for point in asked:
            running = optuna.trial.TrialState.RUNNING
            study.add_trial(optuna.trial.create_trial(state=running, params=dict(point), distributions=distributions))
        points = []
        for _ in range(count):
            params = study.ask(distributions).params
            points.append({name: _within(params[name], ends) for name, ends in ranges.items()})
        return points


def _told(record: Record, distributions: Mapping[str, Any]) -> Any:
    """Return a record as a trial that TPE learns from."""
    import optuna

    value = math.inf if record.status == "diverged" else record.result.value(metrics_of().primary.key)
    params = {name: getattr(record, name) for name in distributions}
    return optuna.trial.create_trial(params=params, distributions=dict(distributions), value=value)


def _within(value: float, ends: tuple[float, float]) -> float:
    return min(max(rounded(value, DIGITS), ends[0]), ends[1])


class Mirror:
    """Copies the ended trials of a study into an Optuna storage while it runs: `with Mirror(directory, storage): ...`.

    `directory` is the study's folder, its manifest written; `storage` is optuna.storage (null: a journal in the
    folder; an RDB URL; none). A thread of its own looks for records, whoever writes them, so that no launcher has to
    tell it. Its trouble (a database that is down, a full disk, Optuna's own) costs a warning, and the end of the
    study at most CLOSE_SECONDS; `python -m analysis.optuna` makes what is missing.
    """

    def __init__(self, directory: Path, storage: str | None) -> None:
        self._directory, self._storage = directory, storage
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="optuna-mirror")
        self._told: set[str] = set()
        self._copy: Copy | None = None
        self._lock: IO[str] | None = None

    def __enter__(self) -> Mirror:
        if self._storage != OFF:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._storage == OFF:
            return
        self._stop.set()
        self._thread.join(CLOSE_SECONDS if error is None else POLL_SECONDS)
        if self._thread.is_alive():
            self._warn("it is not done")

    def _run(self) -> None:
        # The first look takes long, for it imports Optuna: that says nothing of the next.
        pause = POLL_SECONDS if self._update() else RETRY_SECONDS
        while not self._stop.wait(pause):
            start = time.thread_time()
            worked = self._update()
            spent = time.thread_time() - start
            pause = min(max(POLL_SECONDS, spent / MIRROR_SHARE), RETRY_SECONDS) if worked else RETRY_SECONDS
        self._update()
        if self._lock is not None:
            self._lock.close()

    def _update(self) -> bool:
        """Copy what is new; tell whether that went well."""
        try:
            # One mirror at a time, which sees the records of every command on this study.
            if self._lock is None and (lock := _lock(self._directory / LOCK)):
                self._lock = lock
                remove_half_written(self._directory)
            if self._lock is not None:
                self._copy = self._copy or Copy(self._directory, self._storage)
                self._copy.update()
        except Exception as error:
            # A thread's boundary: whatever Optuna or a database raises, the study goes on.
            self._copy = None
            self._warn(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
            return False
        return True

    def _warn(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            logger.warning(
                "the Optuna mirror is behind (%s); python -m analysis.optuna %s makes it again", text, self._directory
            )


def _lock(path: Path) -> IO[str] | None:
    """Lock a file, until it is closed or this process dies; None where somebody else holds it."""
    file = open(path, "a")  # noqa: SIM115 - held open on purpose
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError:
        # A file system without locks: two mirrors would write the same journal, each whole.
        pass
    return file
