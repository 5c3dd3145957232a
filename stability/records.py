"""Records, manifests and claims: the only truth of a study. Written whole, read by everything that follows training."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from stability.config import TrialConfig, identity
from stability.errors import UserError
from stability.files import write_text

if TYPE_CHECKING:
    import pandas

# Raised by hand when our numerics change, so that old records are not taken for new ones.
RESULTS_VERSION = 2
# Of trials whose images are cut at random or changed by policies: how these are drawn has changed since.
AUGMENTED_VERSION = 3
# Added for trials in bfloat16: a pack computes them in bfloat16 between products too, as a trial alone does.
BF16_STEP = 2
# Keys that came later, with the value they were introduced with: at that value they are left out of a trial's id.
INTRODUCED: dict[str, Any] = dict.fromkeys(
    ("recipe.clip_norm", "schedule._target_", "data._target_", "metrics", "probes", "callbacks")
)
ENDED = ("completed", "diverged")
STATUSES = (*ENDED, "failed")
HEARTBEAT_SECONDS = 30.0
STALE_SECONDS = 120.0
# How long claims that are made at once may lie apart where a file system has no locks.
SETTLE_SECONDS = 0.5

MANIFEST = "study.yaml"
RECORD = "record.json"
LOCK = "lock"


def trial_id(config: TrialConfig) -> str:
    """Return 12 hex digits: the hash of what decides this trial's result."""
    values = _drop_introduced(identity(config), "")
    text = json.dumps(
        {"version": results_version(config), **values}, sort_keys=True, separators=(",", ":"), allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def results_version(config: TrialConfig) -> int:
    """Return the version of our numerics that a trial's results are of."""
    is_augmented = config.recipe.augment != "none" or config.recipe.crop == "random_resized"
    version = AUGMENTED_VERSION if is_augmented else RESULTS_VERSION
    return version + BF16_STEP if config.precision == "bf16" else version


def _drop_introduced(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            kept[name] = _drop_introduced(value, f"{path}.")
        elif path not in INTRODUCED or INTRODUCED[path] != value:
            kept[name] = value
    return kept


def to_json(value: Any) -> str:
    """Return strict JSON: what is not finite becomes null, and nothing else is lost."""
    return json.dumps(_finite(value), indent=1, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    # Scalars of numpy and torch, so that a whole training run is not lost to the type of one number.
    if not isinstance(value, (int, float, str)) and getattr(value, "shape", None) == ():
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return os.fspath(value) if isinstance(value, Path) else value


def cell_label(factors: Mapping[str, Any]) -> str:
    """Return a cell in words: model and optimizer by their names alone, other factors as key=value."""
    named = (str(value) if name in ("model", "optimizer") else f"{name}={value}" for name, value in factors.items())
    return " ".join(named)


def trial_directory(study_directory: Path, identifier: str) -> Path:
    """Return the folder of one trial."""
    return study_directory / "trials" / identifier


def write_record(directory: Path, record: Mapping[str, Any]) -> None:
    """Write `record` as `directory`/record.json, whole or not at all."""
    assert record["status"] in STATUSES, record["status"]
    directory.mkdir(parents=True, exist_ok=True)
    write_text(directory / RECORD, to_json(record) + "\n")


def read_record(directory: Path) -> dict[str, Any] | None:
    """Return the record of the trial in `directory`, or None where it has not ended.

    Raises UserError where the file is there and is no record.
    """
    path = directory / RECORD
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is no record: {error}; move it away and the trial runs again") from error
    if not isinstance(record, dict) or record.get("status") not in STATUSES:
        words = f"no status of {', '.join(STATUSES)}"
        raise UserError(f"{path} is no record: {words}; move it away and the trial runs again")
    return record


def failures(record: Mapping[str, Any] | None) -> int:
    """Return how often a trial has failed, by its record. Attempts that were cut off are no failures."""
    if record is None or record["status"] in ENDED:
        return 0
    provenance = record["provenance"]
    return int(provenance.get("failures", provenance.get("attempts", 1)))


def read_records(study_directory: Path) -> dict[str, dict[str, Any]]:
    """Return every record of a study by trial id, read from the files."""
    records = {}
    for path in sorted((study_directory / "trials").glob(f"*/{RECORD}")):
        record = read_record(path.parent)
        if record is not None:
            records[path.parent.name] = record
    return records


def write_manifest(study_directory: Path, manifest: Mapping[str, Any]) -> None:
    """Write the study's manifest (what was planned), whole or not at all."""
    import yaml

    study_directory.mkdir(parents=True, exist_ok=True)
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text = yaml.dump(_finite(manifest), Dumper=dumper, sort_keys=False, width=120)
    write_text(study_directory / MANIFEST, text)


def read_manifest(study_directory: Path) -> dict[str, Any] | None:
    """Return the study's manifest, or None where there is none. Raises UserError where it cannot be read."""
    import yaml

    path = study_directory / MANIFEST
    try:
        manifest = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except FileNotFoundError:
        return None
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(manifest, dict) or "trials" not in manifest:
        raise UserError(f"{path} is no manifest of a study: it has no list of trials")
    return manifest


def studies(runs: Path) -> Iterator[Path]:
    """Yield the study folders that `runs` names: itself, or those directly in it."""
    if (runs / MANIFEST).exists():
        yield runs
        return
    yield from sorted(path.parent for path in runs.glob(f"*/{MANIFEST}"))


def load(*runs: str | Path) -> pandas.DataFrame:
    """Return one row per planned trial of the studies under `runs`: study, id, number, cell factors, lr, wd, seed,
    status (planned where it has not ended), the fields of `result` as columns, and provenance as `provenance.KEY`.

    Errors are in percent; a diverged trial's are NaN. Raises UserError where a path holds no study.
    """
    import pandas

    rows = []
    for path in map(Path, runs):
        found = list(studies(path))
        if not found:
            raise UserError(f"{path} holds no study; accepted: a folder with {MANIFEST}, or a folder of such folders")
        for directory in found:
            rows += _rows(directory)
    return pandas.DataFrame(rows)


def _rows(directory: Path) -> list[dict[str, Any]]:
    manifest = read_manifest(directory)
    assert manifest is not None
    records = read_records(directory)
    rows = []
    for trial in manifest["trials"]:
        record = records.get(trial["id"])
        row = {"study": manifest["study"], "id": trial["id"], "number": trial["number"]}
        row |= manifest["cells"][trial["cell"]]["factors"]
        row |= {name: trial[name] for name in ("lr", "wd", "seed")}
        row["status"] = record["status"] if record else "planned"
        if record:
            row |= record["result"]
            row |= {f"provenance.{name}": value for name, value in record["provenance"].items()}
        rows.append(row)
    return rows


class Claim:
    """The right to run one trial: an flock on its lock file, void the moment this process dies.

    Where hosts share a file system without sharing locks, the lock's age decides: its owner touches it every
    HEARTBEAT_SECONDS, and one of another host untouched for STALE_SECONDS is void. `attempt` is the number of
    this attempt at the trial: one more than that of an owner who died.
    """

    def __init__(self, file: IO[str], path: Path, attempt: int) -> None:
        self._file, self._path, self.attempt = file, path, attempt
        self._released = threading.Event()
        # One of several threads of a process is no other's owner.
        self._owner = {"host": socket.gethostname(), "boot": _boot(), "pid": os.getpid(), "attempt": attempt}
        self._owner["token"] = secrets.token_hex(8)
        self._write(self._owner)
        self._heart = threading.Thread(target=self._beat, daemon=True, name=f"claim-{path.parent.name}")
        self._heart.start()

    def _write(self, owner: Mapping[str, Any]) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._file.write(json.dumps(owner))
        self._file.flush()

    def is_settled(self) -> bool:
        """Tell, on a file system without locks, whether of several who claim at once this one was the last to write.

        All of them see the file free, write, wait, and read what stands then.
        """
        os.fsync(self._file.fileno())
        time.sleep(SETTLE_SECONDS)
        with open(self._path) as file:
            return _owner(file).get("token") == self._owner["token"]

    def abandon(self) -> None:
        """Leave the claim to whoever has it."""
        self._released.set()
        self._file.close()

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(self._path)

    def release(self, *, ended: bool = True) -> None:
        """Give the trial up for others; harmless when said twice. `ended`: nobody needs to count this attempt."""
        if self._released.is_set():
            return
        self._released.set()
        try:
            # Unlinked while it is locked: whoever opened it before looks again (see claim).
            if ended:
                self._path.unlink(missing_ok=True)
            else:
                self._write({"attempt": self.attempt})
        finally:
            # Said in so many words, because forked children hold the file open too.
            _flock(self._file, fcntl.LOCK_UN)
            self._file.close()

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.release(ended=kind is None)


def claim(directory: Path, attempt: int = 1) -> Claim | None:
    """Claim the trial in `directory` (made if need be); None where somebody else is running it.

    `attempt` is the number of this attempt, as far as records tell; owners who died are counted besides.
    Raises OSError where the folder cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / LOCK
    while True:
        file = open(path, "a+")  # noqa: SIM115 - the claim owns and closes it
        locked = _flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its owner may have ended and removed it between our two calls: then the lock is on a file that is gone.
        if locked and not _is_at(file, path):
            file.close()
            continue
        owner = _owner(file)
        if locked is False or _is_alive(owner, path, locked is not None):
            file.close()
            return None
        held = Claim(file, path, max(attempt, owner.get("attempt", 0) + 1))
        if locked is None:
            settled = False
            try:
                settled = held.is_settled()
            finally:
                if not settled:
                    held.abandon()
            return held if settled else None
        return held


def is_claimed(directory: Path) -> bool:
    """Tell whether somebody is running the trial in `directory`; takes no claim and makes nothing."""
    path = directory / LOCK
    try:
        file = open(path)  # noqa: SIM115
    except OSError:
        return False
    with file:
        locked = _flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return locked is False or _is_alive(_owner(file), path, locked is not None)


def attempts_begun(directory: Path) -> int:
    """Return the number of the last attempt that was begun at the trial in `directory` and has not ended; else 0."""
    try:
        with open(directory / LOCK) as file:
            return int(_owner(file).get("attempt", 0))
    except OSError:
        return 0


def _flock(file: IO[str], how: int) -> bool | None:
    """Lock a file: True, False where somebody else holds it, None where its file system has no locks."""
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _owner(file: IO[str]) -> dict[str, Any]:
    """Return what the last owner wrote into a lock file and did not take back; empty where nothing can be read."""
    file.seek(0)
    try:
        owner = json.loads(file.read())
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _is_alive(owner: Mapping[str, Any], path: Path, has_locks: bool) -> bool:
    """Tell whether the owner written in a lock file may still be at work, given that we could lock it ourselves."""
    if "host" not in owner:
        return False
    # Containers of one machine have different names but one kernel, whose locks are to be believed.
    boot = _boot()
    is_here = owner["host"] == socket.gethostname() or bool(boot and owner.get("boot") == boot)
    if is_here and has_locks:
        return False
    try:
        return time.time() - path.stat().st_mtime < STALE_SECONDS
    except FileNotFoundError:
        return False


def _boot() -> str:
    """Return what names this machine's running kernel (Linux), or an empty string."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
