"""Contestants that take turns on one work, round by round, and their results."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import torch

from benchmarks.packs import timing
from benchmarks.packs.crew import Crew, CrewError
from benchmarks.packs.ways import KINDS, Alone, Feed, Here, Pack, Round
from benchmarks.packs.work import Work, computed_multiply_adds, published_multiply_adds
from stability.errors import UserError

# What compiling a model may take, forward and backward: small images (tiny models), others, and on the CPU. With less
# than that left beside LEAST_ROUNDS it is left out.
COMPILE_SECONDS = (30.0, 60.0, 60.0)
LEAST_ROUNDS = 2
ALONE_COMPILED = "alone, compiled"
# What a burst takes besides: making the way, warming up, the steps that are timed part by part.
BURST_FACTOR, BURST_SECONDS = 1.4, 0.8
NO_TIME = "left out: no time left"


@dataclass
class Contestant:
    """A way to train `size` trials in each of `processes`; `note` says why it was not, or no longer, measured."""

    name: str
    size: int
    take: Callable[[float], Round]
    processes: int = 1
    is_compiled: bool = False
    rounds: list[Round] = field(default_factory=list)
    note: str | None = None
    # Seconds that the kernels of a step take on a GPU, or why they are not known.
    kernels: float | None = None
    kernels_note: str | None = None


@dataclass(frozen=True)
class Plan:
    """How long and how often to measure; sizes: of packs. only_largest: nothing but the largest pack is compiled."""

    sizes: Sequence[int]
    rounds: int
    seconds: float
    compiles: bool
    device: torch.device
    only_largest: bool = False


class Screen:
    """Progress on standard error: a line that changes on a terminal, one a round elsewhere."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._start = time.monotonic()

    def say(self, text: str, is_passing: bool = False) -> None:
        """Show what is going on; what is passing is shown on a terminal alone."""
        if self._is_terminal:
            print(f"\r\033[K[{self.elapsed:4.0f} s] {text}", end="", file=sys.stderr, flush=True)
        elif not is_passing:
            print(f"[{self.elapsed:4.0f} s] {text}", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Make room for a table."""
        if self._is_terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._start


def contestants(work: Work, plan: Plan, crew: Crew | None) -> list[Contestant]:
    """Return who takes part: alone first, then packs by size, then what has to be compiled, the largest pack first."""
    device, is_gpu = plan.device, plan.device.type == "cuda"
    found = [Contestant("pipeline", 1, Here(partial(Feed, work), device))] if work.images == "jpegs" else []
    found.append(Contestant("alone", 1, Here(partial(Alone, work), device)))
    found += [Contestant("pack", size, Here(partial(Pack, work, size), device)) for size in plan.sizes]
    if importlib.util.find_spec("modelbatch") and work.images != "jpegs":
        make = KINDS["modelbatch"]
        several = [size for size in plan.sizes if size > 1]
        found += [Contestant("modelbatch", size, Here(partial(make, work, size), device)) for size in several]
    if crew is not None:
        # A GPU is shared by trials that run alone; on the CPU, each process has a core and a pack.
        pairs = [(2**power, 1) for power in range(1, len(crew).bit_length())] if is_gpu else []
        pairs += [] if is_gpu else [(len(crew), size) for size in plan.sizes]
        kind = "alone" if is_gpu else "pack"
        found += [
            Contestant("at once", size, partial(crew.take, work, kind, size, count), count) for count, size in pairs
        ]
    if plan.compiles:
        found += _compiled(work, plan)
    return found


def _compiled(work: Work, plan: Plan) -> list[Contestant]:
    """Return who has to be compiled, in the order in which time is spent on it."""
    modes = {ALONE_COMPILED: "default"} | ({"alone, CUDA graphs": "reduce-overhead"} if work.device == "cuda" else {})
    # Seven at most: torch compiles one piece of code eight times and then no more.
    sizes = sorted(plan.sizes, reverse=True)[: 1 if plan.only_largest else 7]
    ways: list[tuple[str, int, Callable[[], Feed]]]
    ways = [("pack, compiled", size, partial(Pack, work, size, compiled=True)) for size in sizes]
    if not plan.only_largest:
        ways[1:1] = [(name, 1, partial(Alone, work, mode)) for name, mode in modes.items()]
    return [
        Contestant(name, size, Here(make, plan.device, is_kept=True), is_compiled=True) for name, size, make in ways
    ]


def compete(
    work: Work,
    field_of: list[Contestant],
    plan: Plan,
    deadline: float,
    screen: Screen,
    title: str | None = None,
    keep: Callable[[], None] = lambda: None,
) -> None:
    """Let the contestants take turns: what is compiled gets ready first, then all in every round, to and fro.

    Args:
        work: what they train.
        field_of: the contestants.
        plan: how often and how long.
        deadline: on the monotonic clock.
        screen: shows progress.
        title: of the work, on the screen; by default the model's name.
        keep: is called after every round.
    """
    title = title or work.model
    # What lies ready on the device is nobody's memory.
    work.data()
    cost = COMPILE_SECONDS[2 if work.device == "cpu" else int(work.image_size > 32)]
    turn = min(plan.rounds, LEAST_ROUNDS) * (BURST_FACTOR * plan.seconds + BURST_SECONDS)
    running = sum(not one.is_compiled for one in field_of)
    for one in [one for one in field_of if one.is_compiled]:
        # What takes too much memory as it is, is found out before time is spent on compiling it.
        for twin in [twin for twin in field_of if (f"{twin.name}, compiled", twin.size) == (one.name, one.size)]:
            _try(twin, field_of, plan)
            one.note = twin.note
        if one.note is None and time.monotonic() + cost + (running + 1) * turn > deadline:
            one.note = NO_TIME
        if one.note is None:
            screen.say(f"{title}: compiling {one.name}, K = {one.size}")
            _try(one, field_of, plan)
            running += one.note is None
    for number in range(plan.rounds):
        start = time.monotonic()
        screen.say(f"{title}: round {number + 1} of {plan.rounds}")
        # To and fro, so that nobody always comes first.
        for one in field_of[:: -1 if number % 2 else 1]:
            if one.note is None:
                screen.say(f"{title}: round {number + 1} of {plan.rounds}, {one.name}, K = {one.size}", is_passing=True)
                _take(one, plan.seconds, field_of, plan)
        keep()
        now = time.monotonic()
        if number + 1 < plan.rounds and now + (now - start) > deadline:
            screen.say(f"{title}: no time for more than {number + 1} of {plan.rounds} rounds")
            break


def profile(work: Work, field_of: Sequence[Contestant], crew: Crew, deadline: float, screen: Screen) -> None:
    """Find out how long the kernels of a step take, of each that was timed: alone first, then the largest packs, and
    what has to be compiled for it at the end, as long as there is time. Nothing that fails here does any harm."""
    # A process of a crew may not start others: it decodes by itself, which no kernel waits for.
    work = replace(work, workers=0)
    cost = COMPILE_SECONDS[int(work.image_size > 32)]
    timed = [one for one in field_of if one.rounds and one.processes == 1 and one.name in KINDS]
    for one in sorted(timed, key=lambda one: (one.is_compiled, one.name, -one.size)):
        if time.monotonic() + cost * one.is_compiled > deadline:
            one.kernels_note = NO_TIME
            continue
        screen.say(f"{work.model}: kernels of {one.name}, K = {one.size}", is_passing=True)
        try:
            one.kernels = crew.kernels(work, one.name, one.size)
        except Exception as error:
            one.kernels_note = timing.brief(error)


def forget(field_of: Sequence[Contestant]) -> None:
    """Let go of what has been compiled."""
    for one in field_of:
        if isinstance(one.take, Here):
            one.take.forget()
    torch.compiler.reset()


def _try(one: Contestant, field_of: Sequence[Contestant], plan: Plan) -> None:
    """Let a contestant take a few steps that do not count."""
    if one.note is None:
        _take(one, 0.0, field_of, plan)
        one.rounds.clear()


def _take(one: Contestant, seconds: float, field_of: Sequence[Contestant], plan: Plan) -> None:
    """Let a contestant have its turn; where it fails it leaves, and where memory is short all larger ones do.

    A pack as it is gets another try after larger ones, compiled and kept, have gone: theirs was the memory.
    """
    try:
        one.rounds.append(one.take(seconds))
        return
    except UserError:
        raise
    except CrewError as error:
        is_short, text = error.is_out_of_memory, str(error)
    except Exception as error:
        is_short, text = timing.is_out_of_memory(error), timing.brief(error)
    timing.release(plan.device)
    kept = [other for other in field_of if other is not one and isinstance(other.take, Here) and other.take.keeps]
    larger = [other for other in kept if other.size > one.size]
    if is_short and larger and one.name == "pack":
        for other in larger:
            assert isinstance(other.take, Here)
            other.take.forget()
            other.note = f"left: its memory was needed at K = {one.size}"
        _take(one, seconds, field_of, plan)
        return
    beside = f" beside {len(kept)} compiled and kept" if kept else ""
    one.note = f"out of memory{beside}" if is_short else text[:160]
    for other in field_of if is_short else ():
        amounts = (other.size >= one.size, other.processes >= one.processes)
        if other.name == one.name and all(amounts) and other.note is None:
            other.note = f"left out: {max(one.size, one.processes)} was out of memory"


def fresh_peaks(work: Work, sizes: Sequence[int]) -> dict[int, int | None]:
    """Return the peak resident memory of a process that trains a pack, for every size, each made for it alone."""
    found: dict[int, int | None] = {}
    for size in sizes:
        crew = Crew(1, "cpu", threads=1)
        try:
            found[size] = crew.take(work, "pack", size, 1, 0.0).peak if crew.is_fresh else None
        except CrewError:
            found[size] = None
        finally:
            crew.close()
    return found


def results(
    work: Work, field_of: Sequence[Contestant], peak_flops: float, peaks: dict[int, int | None]
) -> dict[str, Any]:
    """Return everything about a work as plain values; every number that was measured as a summary of its rounds.

    peak_flops: of the device, and on the CPU of a core. peaks: of packs by size, where rounds know of none.
    """
    products = computed_multiply_adds(work)
    eager = [each.images_per_second for one in field_of if one.name == "alone" for each in one.rounds]
    # Of two ways of compiling the better counts, in each round.
    compiled = [one.rounds for one in field_of if one.is_compiled and one.name.startswith("alone") and one.rounds]
    default = [each.images_per_second for one in field_of if one.name == ALONE_COMPILED for each in one.rounds]
    best = [max(one.images_per_second for one in rounds) for rounds in zip(*compiled, strict=False)]
    rows = []
    for one in field_of:
        rates = [each.images_per_second for each in one.rounds]
        cores = one.processes if work.device == "cpu" else 1
        shares = [timing.mfu(rate, products, peak_flops * cores) for rate in rates]
        known = [each.peak for each in one.rounds if each.peak is not None and work.device != "cpu"]
        row: dict[str, Any] = {"name": one.name, "size": one.size, "processes": one.processes, "note": one.note}
        row["images_per_second"] = _summary(rates)
        row["seconds_per_step"] = _summary([each.seconds_per_step for each in one.rounds])
        row["over_alone"] = _summary([a / b for a, b in zip(rates, eager, strict=False)])
        row["over_compiled"] = _summary([a / b for a, b in zip(rates, best, strict=False)])
        row["over_default"] = _summary([a / b for a, b in zip(rates, default, strict=False)])
        row["mfu"] = None if one.name == "pipeline" else _summary(shares)
        row["peak_memory"] = max(known, default=peaks.get(one.size) if one.name == "pack" else None)
        row["parts"] = _parts(one.rounds)
        if row["parts"] is not None:
            # Taken once, by a process of its own.
            row["parts"]["kernels"] = None if one.kernels is None else timing.summary([one.kernels])
        row["kernels_note"] = one.kernels_note
        rows.append(row)
    values = {name: value for name, value in asdict(work).items() if name != "path"}
    published = published_multiply_adds(work)
    counts = {"multiply_adds": products, "published_multiply_adds": published, "peak_flops": peak_flops}
    return values | counts | {"contestants": rows}


def _summary(values: Sequence[float]) -> dict[str, Any] | None:
    return timing.summary(values) if values else None


def _parts(rounds: Sequence[Round]) -> dict[str, Any] | None:
    """Return a summary of each part of a step."""
    known = [one.parts for one in rounds if one.parts is not None]
    return {name: timing.summary([parts[name] for parts in known]) for name in known[0]} if known else None
