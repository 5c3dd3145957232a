"""Trials of a study, one or a pack that trains together, from their claims to their records."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from stability.config import TrialConfig
from stability.devices import free_memory, is_short_of_memory
from stability.errors import StudyError, UnreadableImage, UserError
from stability.execute.attempt import Attempt, standing_record
from stability.execute.failure import History, Step, Trouble, halves, next_step
from stability.execute.task import TrialTask
from stability.execute.trial_log import describe, redirected
from stability.files import disk_trouble
from stability.plan.divisions import note_division
from stability.plan.packing import ran_out_of_memory
from stability.study.claims import claim
from stability.study.events import Ended, Event, Started
from stability.study.schema import Record
from stability.study.store import to_json

# What is said of a first batch that ends in an exception or the death of its process.
FIRST_BATCH_FAILS = "its first batch fails: "

OnEvent = Callable[[Event], None]


def run_pack(
    tasks: Sequence[TrialTask],
    on_event: OnEvent | None = None,
    *,
    full_size: int | None = None,
    capture_output: bool = False,
) -> list[Record | None]:
    """Run planned trials together, but for those that have ended or are running elsewhere; return their records.

    An exception (memory that does not suffice, most often) has the pack go on as `failure.next_step` says; halves for
    want of memory are noted beside the study's manifest. KeyboardInterrupt and SystemExit pass through.

    Args:
        tasks: the trials.
        on_event: called with the events of the trials that this process claims: Started first, Ended when the record
            is written.
        full_size: with how many trials the pack began.
        capture_output: whether this process's stdout and stderr go to the first trial's log meanwhile.

    Returns:
        In order, the standing record where there is one that holds (see `standing_record`), the new one, or None where
        somebody else is running the trial.

    Raises:
        OSError: a trial's folder or the note cannot be written.
        UserError: what stands in a trial's folder is no record.
    """
    outcomes: dict[str, Record | None] = {}
    with contextlib.ExitStack() as stack:
        attempts: list[Attempt] = []
        notify: OnEvent = on_event or (lambda event: None)
        is_lost = False
        for task in tasks:
            # Who claims the first trial of a pack gets it whole: two who begin at once do not share it out.
            outcome = None if is_lost else _begin(task, stack)
            if isinstance(outcome, Attempt):
                attempts.append(outcome)
                notify(Started(task.id, outcome.number))
            else:
                outcomes[task.id] = outcome
                is_lost = is_lost or (outcome is None and not attempts)
        if attempts and capture_output:
            stack.enter_context(redirected(attempts[0].log))

        def keep(attempt: Attempt, record: Record) -> None:
            outcomes[record.id] = written = attempt.end(record)
            notify(Ended(record.id, written.to_json()))

        waiting = [(attempts, full_size or len(tasks), 1)] if attempts else []
        while waiting:
            together, size, parts = waiting.pop(0)
            error = _train(together, size, parts, notify, keep)
            rest = [attempt for attempt in together if attempt.is_open]
            if error is None or not rest:
                # What is raised after the last record is no trial's end.
                continue
            step = next_step(_history(rest, error, parts))
            if step is Step.HALVES:
                both = halves(rest)
                for attempt in rest:
                    attempt.log.line(f"its pack of {len(rest)} broke off and goes on in halves")
                if is_short_of_memory(error):
                    _note_halves([[attempt.task for attempt in half] for half in both], size)
                waiting[:0] = [(half, len(half), parts) for half in both]
            elif step is Step.MICRO_BATCHES:
                rest[0].log.line(f"out of memory: each batch is computed in {2 * parts} parts")
                waiting.insert(0, (rest, 1, 2 * parts))
            else:
                # Another attempt, or none, begins from these records.
                for attempt in rest:
                    keep(attempt, attempt.failure(error, is_last=step is Step.GIVE_UP))
    return [outcomes[task.id] for task in tasks]


def _begin(task: TrialTask, stack: contextlib.ExitStack) -> Attempt | Record | None:
    """Claim a trial and begin an attempt, which `stack` ends; return the record, or None, if there is nothing to do."""
    record = standing_record(task)
    if record is not None:
        return record
    held = claim(task.directory, task.attempt)
    if held is None:
        return None
    stack.enter_context(held)
    record = standing_record(task)
    if record is not None:
        held.release()
        return record
    return stack.enter_context(Attempt(task, held))


def _history(attempts: Sequence[Attempt], error: Exception, parts: int) -> History:
    """Return what has happened to trials that trained together until `error`."""
    task = attempts[0].task
    return History(
        trouble=_trouble(error),
        members=len(attempts),
        failures=task.attempt,
        limit=task.limit,
        parts=parts,
        batch_size=task.config.batch_size,
    )


def _trouble(error: Exception) -> Trouble:
    if is_short_of_memory(error):
        return Trouble.MEMORY
    return Trouble.DATA if isinstance(error, UnreadableImage) else Trouble.EXCEPTION


def _note_halves(both: Sequence[Sequence[TrialTask]], full_size: int) -> None:
    """Note what was found out of a pack that memory did not suffice for: its halves in the study, its size here."""
    from stability.training.stack import stack_size

    first = both[0][0]
    note_division(Path(first.study_directory), [[task.id for task in half] for half in both])
    ran_out_of_memory(first.config, stack_size(full_size, sum(map(len, both))))


def _train(
    attempts: Sequence[Attempt],
    full_size: int,
    micro_batches: int,
    on_event: OnEvent,
    keep: Callable[[Attempt, Record], None],
) -> Exception | None:
    """Train trials together; return the exception that ended that, if any. Interrupts and a full disk pass through."""
    import torch

    from stability.training import train_pack

    by_id = {attempt.task.id: attempt for attempt in attempts}
    tasks = [attempt.task for attempt in attempts]
    threads = tasks[0].threads
    if threads is not None and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)

    def notify(event: Event) -> None:
        by_id[event.id].take(event)
        on_event(event)

    def ended(record: Record) -> None:
        # A record that is no JSON is a failure of the trial, not of the study's folder.
        to_json(record.to_json())
        keep(by_id[record.id], record)

    problem: Exception | None = None
    try:
        train_pack(
            [task.config for task in tasks],
            directories=[task.directory for task in tasks],
            full_size=full_size,
            micro_batches=micro_batches,
            on_event=notify,
            on_record=ended,
            study=tasks[0].study,
            cells=[task.factors for task in tasks],
            processes=tasks[0].ranks,
        )
    except StudyError:
        # Trouble of the environment (no network), as a full disk.
        raise
    except Exception as error:
        trouble = disk_trouble(error)
        if trouble is not None:
            # Not the trial's: it ends the study, since no record could be written either.
            raise trouble from None
        rest = [attempt for attempt in attempts if attempt.is_open]
        for attempt in rest:
            attempt.log.text(traceback.format_exc())
        # Its frames would hold on to the pack's memory.
        problem = error.with_traceback(None)
        problem.__context__ = problem.__cause__ = None
    if problem is not None:
        _recover(len(rest))
    return problem


def _recover(members: int) -> None:
    """Give memory back. Where a GPU answers no more, only another process can go on with a pack: SystemExit."""
    try:
        free_memory()
    except RuntimeError as error:
        if members > 1:
            raise SystemExit(f"the GPU answers no more: {describe(error)}") from None


def first_batch_problem(task: TrialTask) -> str | None:
    """Try the first batch of a trial, writing nothing; return what is wrong with it in a line, or None.

    Raises OSError where the trouble is a disk's or a share's, StudyError where it is the network's.
    """
    from stability.training import try_first_batch

    try:
        try_first_batch(task.config)
    except StudyError:
        raise
    except Exception as error:
        trouble = disk_trouble(error)
        if trouble is not None:
            raise trouble from None
        if isinstance(error, UserError):
            return str(error)
        size = task.config.data.image_size
        return f"{FIRST_BATCH_FAILS}{' '.join(describe(error).split())} (images of data.image_size={size} px)"
    return None


def refuse_cells(tasks: Sequence[TrialTask], problems: Sequence[str | None]) -> None:
    """Raise UserError where a cell cannot be trained: the first one named, and how many others there are.

    What is wrong with all cells alike (no such data, say) is no cell's own trouble: then none is named.
    """
    wrong = [(task, text) for task, text in zip(tasks, problems, strict=True) if text is not None]
    if not wrong:
        return
    task, text = wrong[0]
    if len(tasks) > 1 and {text} == set(problems) and not text.startswith(FIRST_BATCH_FAILS):
        raise UserError(text)
    others = f" (and {len(wrong) - 1} more of {len(tasks)} cells)" if len(wrong) > 1 else ""
    raise UserError(f"{task.cell_label}: {text}{others}")


def seconds_of_pack(config: TrialConfig, size: int) -> float | None:
    """Return the seconds of a step of a pack of so many trials; None where the device has not the memory."""
    from stability.devices import free_memory, is_short_of_memory
    from stability.training import measure

    try:
        return measure(config, size=size)
    except Exception as error:
        if is_short_of_memory(error):
            return None
        raise
    finally:
        free_memory()
