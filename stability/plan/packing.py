"""Which trials train together, as one pack: planned once, written into the manifest, kept when the study goes on."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING

from stability.config import TrialConfig, in_common
from stability.gpus import gpu_name
from stability.plan import timings
from stability.values import Value

if TYPE_CHECKING:
    from stability.execute.launcher import TrialLauncher
    from stability.execute.layout import ProcessLayout
    from stability.plan.cells import Plan
    from stability.study.schema import Manifest


def architecture(config: TrialConfig) -> str:
    """Return the keys in which members of a pack agree, as text; see `stability.config.in_common`."""
    return json.dumps(in_common(config), sort_keys=True)


def group(trials: Mapping[str, TrialConfig], size: Callable[[TrialConfig], int]) -> list[tuple[str, ...]]:
    """Part trials, configurations by id, into packs: ids, each in one pack, whatever their order.

    Members of a pack agree in all but what each may have of its own (`in_common`), and there are at most size(config)
    of them. Trials of one length come together where they can, since a pack runs as long as its longest; then those of
    neighbouring draws, whose seeds are, so that what has ended at any time is a study of fewer points.
    """

    def order(identifier: str) -> tuple[int, int, str]:
        return (trials[identifier].epochs, trials[identifier].seed, identifier)

    alike: dict[str, list[str]] = {}
    for identifier in sorted(trials, key=order):
        alike.setdefault(architecture(trials[identifier]), []).append(identifier)
    packs = []
    for _, members in sorted(alike.items()):
        most = size(trials[members[0]])
        assert most >= 1, most
        packs += [tuple(members[start : start + most]) for start in range(0, len(members), most)]
    return packs


class PackSizes:
    """How many trials of each architecture a study's packs hold: pack.size, or measured where that is `auto`."""

    def __init__(self, plan: Plan, layout: ProcessLayout, launcher: TrialLauncher | None) -> None:
        self._asked, self._launcher = plan.config.pack.size, launcher
        self._has_gpu = bool(layout.devices)
        self._is_divided = layout.ranks > 1
        self._is_for_cpu = all(cell.config.device == "cpu" for cell in plan.cells)
        self._plan = plan
        # By architecture: the name by which its size is remembered, and the size.
        self._known: dict[str, tuple[str, int]] = {}

    @cached_property
    def _planned(self) -> Counter[str]:
        """How many trials of each architecture there are: no pack can hold more."""
        trials, found = Counter(trial.cell for trial in self._plan.trials), Counter[str]()
        for cell in self._plan.cells:
            found[architecture(cell.config)] += max(trials[cell.index], self._plan.config.samples or 0)
        return found

    def of(self, config: TrialConfig) -> int:
        """Return the size of packs of a configuration's architecture; the first call may measure it."""
        key = architecture(config)
        # Several processes train one trial, and no pack.
        if self._is_divided:
            return 1
        if isinstance(self._asked, int):
            return max(1, min(self._asked, self._planned[key] or self._asked))
        if not self._has_gpu or self._launcher is None or self._planned[key] < 2:
            return 1
        if key not in self._known:
            name = _name(config)
            self._known[key] = (name, self._recalled(config, name, self._planned[key]))
        name, size = self._known[key]
        # It may have run out of memory since.
        return min(size, _remembered(name).get("most", size))

    @property
    def advice(self) -> str | None:
        """A line for the user where jobs run elsewhere and there is no GPU here to measure packs on; else None."""
        is_elsewhere = self._launcher is not None and self._launcher.is_remote and not self._is_for_cpu
        if self._asked != "auto" or self._has_gpu or not is_elsewhere:
            return None
        return (
            "pack.size=auto: there is no GPU here to measure packs on, and every trial trains by itself; "
            "pack.size=N has N of them train together"
        )

    def group(self, trials: Mapping[str, TrialConfig]) -> list[tuple[str, ...]]:
        """Part trials into packs; see `group`."""
        return group(trials, self.of)

    def _recalled(self, config: TrialConfig, name: str, limit: int) -> int:
        """Return the size, up to `limit`, that this machine remembers by `name`; else measure it."""
        known = _remembered(name)
        limit = min(limit, known.get("most", limit))
        if limit > 1 and known.get("limit", 0) < limit:
            assert self._launcher is not None
            size = best_size(partial(self._launcher.seconds_of_pack, config), limit)
            if size > 1:
                timings.remember(pack_size={name: known | {"size": size, "limit": limit}})
            return size
        return min(known.get("size", 1), limit)


def ran_out_of_memory(config: TrialConfig, size: int) -> None:
    """Remember that this machine's GPU has not the memory for packs of `size` trials of a configuration.

    Packs whose size is `auto` are at most half as large from then on. Without a GPU nothing is remembered.
    """
    if config.device == "cpu" or not gpu_name():
        return
    name, most = _name(config), max(1, size // 2)
    known = _remembered(name)
    timings.remember(pack_size={name: known | {"most": min(most, known.get("most", most))}})


def _name(config: TrialConfig) -> str:
    """Return the name by which a size of packs is remembered: machine, GPU, and what decides the best size."""
    return json.dumps([platform.node(), gpu_name(), _what_counts(config)], sort_keys=True)


def _remembered(name: str) -> dict[str, int]:
    """Return the `size` that was found best of those up to `limit`, and the `most` that memory may suffice for."""
    known = timings.recall()["pack_size"].get(name, {})
    return dict(known) if all(value > 0 for value in known.values()) else {}


def _what_counts(config: TrialConfig) -> dict[str, Value]:
    """Return the keys that decide which size of packs is best: those of the computation and of the images."""
    data: dict[str, Value] = {
        name: getattr(config.data, name) for name in ("image_size", "channels", "source", "workers", "memory_gib")
    }
    recipe: dict[str, Value] = {name: getattr(config.recipe, name) for name in ("crop", "augment")}
    own: dict[str, Value] = {"model": config.model, "batch_size": config.batch_size, "precision": config.precision}
    return own | data | recipe


def divide(packs: Iterable[Sequence[str]], parts: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return packs with `parts` of them as packs of their own, since memory does not suffice for more together.

    The other trials of such a pack are put into packs no larger than the largest part.
    """
    most = max(map(len, parts))
    own = {identifier for part in parts for identifier in part}
    divided: list[list[str]] = []
    for pack in packs:
        if own.isdisjoint(pack):
            divided.append(list(pack))
            continue
        rest = [identifier for identifier in pack if identifier not in own]
        pieces = [[identifier for identifier in part if identifier in pack] for part in parts]
        pieces += [rest[start : start + most] for start in range(0, len(rest), most)]
        divided += [piece for piece in pieces if piece]
    return divided


def pack_of(manifest: Manifest) -> dict[str, tuple[str, ...]]:
    """Return the pack of every trial of a study that has one."""
    return {identifier: pack for pack in manifest.packs for identifier in pack}


def best_size(seconds: Callable[[int], float | None], limit: int, gain: float = 0.05) -> int:
    """Return the size of packs that trains a trial fastest, of 1, 2, 4, ...: larger while it pays, up to `limit`.

    A larger size pays where the time per trial falls by the share `gain`, in this doubling or in the next, since one
    measurement may gain little by chance.

    Args:
        seconds: returns the measured seconds of a step of a pack of that size; None: out of memory.
        limit: the largest size.
        gain: the share of the time per trial.
    """
    best, per_trial, misses, size = 1, float("inf"), 0, 1
    while size <= limit and misses < 2:
        taken = seconds(size)
        if taken is None:
            break
        if taken / size < (1 - gain) * per_trial:
            best, per_trial, misses = size, taken / size, 0
        else:
            misses += 1
        size *= 2
    return best
