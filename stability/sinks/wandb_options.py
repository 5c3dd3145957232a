"""What the keys of logger=wandb accept; a mistake is one line before anything is trained."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from stability.errors import UserError, nearest, unknown
from stability.sinks.wandb_content import DEFAULT_PARTS, NAME_LENGTH, PARTS
from stability.study.named import words_of
from stability.values import Value

MODES = ("online", "offline")
# The words that WANDB_MODE may hold, and what they mean.
ENVIRONMENT_MODES = {
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
    "shared": "shared",
}


def environment_mode(meanings: Collection[str] = frozenset(ENVIRONMENT_MODES.values())) -> str:
    """Return what WANDB_MODE asks for; without it, online. Raises UserError where it is none of `meanings`."""
    accepted = {word: meaning for word, meaning in ENVIRONMENT_MODES.items() if meaning in meanings}
    word = os.environ.get("WANDB_MODE") or "online"
    if word not in accepted:
        raise UserError(f"WANDB_MODE={word}{nearest(word, accepted)}; accepted: {', '.join(accepted)}")
    return accepted[word]


# The key that says what leaves the machine.
SEND = "logger.wandb.send"
# The longest tag that W&B takes.
TAG_LENGTH = 64


def checked_project(project: Value, option: str = "logger.wandb.project") -> str:
    """Return the project's name; None: WANDB_PROJECT, else stability. Raises UserError where W&B would refuse it."""
    if project is None:
        project, option = os.environ.get("WANDB_PROJECT") or "stability", "WANDB_PROJECT"
    if not isinstance(project, str) or set(project) & set("/\\#?%:") or not 0 < len(project) <= NAME_LENGTH:
        accepted = f"1 to {NAME_LENGTH} characters, none of / \\ # ? % :"
        raise UserError(f"{option}={project!r}; accepted: {accepted}")
    return project


def checked_entity(entity: Value, option: str = "logger.wandb.entity") -> str | None:
    """Return W&B's user or team; None: WANDB_ENTITY, else your own. Raises UserError where it can be neither."""
    if entity is None:
        entity, option = os.environ.get("WANDB_ENTITY") or None, "WANDB_ENTITY"
    if entity is not None and (not isinstance(entity, str) or not entity or set(entity) & set("/\\#?%: ")):
        accepted = "a user or team of W&B, without the project; without it, your own"
        raise UserError(f"{option}={entity!r}; accepted: {accepted}")
    return entity


def checked_tags(tags: Value) -> list[str] | None:
    """Return a run's tags; None: W&B's own. Raises UserError where they are no list of tags."""
    if tags is None:
        return None
    if isinstance(tags, str) or not isinstance(tags, Sequence):
        raise UserError(f"logger.wandb.tags={tags!r}; accepted: a list, as logger.wandb.tags=[first,second]")
    found = [str(one) for one in tags]
    for one in found:
        if not 0 < len(one) <= TAG_LENGTH:
            raise UserError(f"logger.wandb.tags: {one!r}; accepted: 1 to {TAG_LENGTH} characters")
    return found


def checked_parts(send: Value) -> tuple[str, ...]:
    """Return what may leave the machine. Raises UserError where `send` is no list of `PARTS`."""
    if send is None or isinstance(send, str) or not isinstance(send, Sequence):
        raise UserError(f"logger.wandb.send={send!r}; accepted: a list of {', '.join(PARTS)}; [] for none of them")
    for one in send:
        if one not in PARTS:
            raise unknown("part of logger.wandb.send", str(one), PARTS)
    return tuple(map(str, send))


def sent_by(commands: Iterable[str]) -> tuple[str, ...]:
    """Return what the runs of a study's trials hold of `PARTS`: what all commands that set logger.wandb.send name.

    Args:
        commands: the study's, as a shell reads them. What a sweep file sets is not in them.
    """
    found = list(DEFAULT_PARTS)
    for command in commands:
        for word in words_of(command):
            key, _, value = word.lstrip("+").partition("=")
            if key == SEND:
                named = set(re.findall(r"\w+", value))
                found = [part for part in PARTS if part in named and (part in found or part == "machine")]
    return tuple(found)


def checked_flag(name: str, value: Value) -> bool:
    """Return a flag. Raises UserError where it is neither true nor false."""
    if not isinstance(value, bool):
        raise UserError(f"logger.wandb.{name}={value!r}; accepted: true, false")
    return value


@dataclass(frozen=True)
class AgentRun:
    """The run that W&B's agent has opened for the program that it started: the one place where its variables count."""

    # What the agent sets for the program; wandb.init reads them.
    variables: ClassVar[tuple[str, ...]] = ("WANDB_RUN_ID", "WANDB_SWEEP_ID")
    run_id: str

    @classmethod
    def of_environment(cls) -> AgentRun:
        """Return the agent's run. Raises UserError where no agent has started this process."""
        missing = [name for name in cls.variables if not os.environ.get(name)]
        if missing:
            raise UserError(
                f"logger.wandb.agent=true without {' and '.join(missing)}; accepted: where `wandb agent` starts the "
                "program, as python -m stability.wandb_sweep has it do"
            )
        return cls(os.environ["WANDB_RUN_ID"])
