"""A study as a W&B sweep: a configuration by which `wandb agent` trains its trials, one a call."""

from __future__ import annotations

import shlex
from pathlib import Path

import yaml

from stability.errors import UserError
from stability.files import write_text
from stability.hydra.alone import AGENT, ONLY, check_is_fixed
from stability.plan.cells import Plan
from stability.plan.manifest import Command
from stability.sinks.wandb_content import FINAL, NAME_LENGTH, short
from stability.sinks.wandb_options import checked_project
from stability.study.metrics import metrics_of
from stability.values import Value, group

# The value of `plan` that has the configuration written.
WANDB_SWEEP = "wandb_sweep"
_HEADER = """# The study {study} as a W&B sweep: {count} trials, one for each call of an agent.
# wandb sweep {file}
# wandb agent ENTITY/PROJECT/ID     on every machine that shares the study's folder, from this working directory
"""


def write(plan: Plan, command: Command) -> Path:
    """Write the configuration of a study's sweep into the working directory; return the file.

    Args:
        plan: the study's.
        command: the command that asked for it; its overrides are those of the sweep's trials.

    Raises:
        UserError: trials depend on results, or the logger sends no runs.
    """
    check_is_fixed(plan, f"plan={WANDB_SWEEP}")
    if plan.config.pack.size not in ("auto", 1):
        raise UserError(f"pack.size={plan.config.pack.size}: each call of W&B's agent trains one trial; accepted: 1")
    path = Path(f"{plan.study}.wandb-sweep.yaml")
    header = _HEADER.format(study=plan.study, count=len(plan.trials), file=shlex.quote(str(path)))
    text = header + yaml.safe_dump(configuration(plan, command), sort_keys=False, allow_unicode=True, width=120)
    word = "replaced" if path.exists() else "wrote"
    write_text(path, text)
    print(f"{word} {path}: {len(plan.trials)} trials of {plan.study}, one for each call of an agent")
    print(f"next: wandb sweep {shlex.quote(str(path))}; it prints the command of the agent")
    return path


def configuration(plan: Plan, command: Command) -> dict[str, Value]:
    """Return the configuration of a study's sweep."""
    settings = _logger(plan)
    # The study's name: without one, the folder's name follows from the overrides, and each call has another.
    added = {"study": plan.study, "pack.size": "1", AGENT: "true"}
    if not plan.config.logger:
        added = {"logger": "wandb", **added}
    _, _, _, *arguments = shlex.split(command.line)
    kept = [one for one in arguments if one.partition("=")[0] not in ("plan", ONLY, *added)]
    flag = [] if "-m" in kept else ["-m"]
    program = ["${env}", "${interpreter}", "-m", "stability.run"]
    primary = metrics_of().primary
    entity = settings.get("entity")
    return {
        "project": checked_project(settings.get("project")),
        **({"entity": entity} if entity else {}),
        "name": short(plan.study, NAME_LENGTH),
        "method": "grid",
        "metric": {"name": FINAL + primary.key, "goal": primary.direction},
        "program": "stability.run",
        "command": [
            *program,
            *flag,
            *kept,
            *(f"{name}={value}" for name, value in added.items()),
            "${args_no_hyphens}",
        ],
        "parameters": {ONLY: {"values": list(range(len(plan.trials)))}},
    }


def _logger(plan: Plan) -> dict[str, Value]:
    """Return the keys of the W&B logger. Raises UserError where the command has loggers, and none that sends runs."""
    loggers = plan.config.logger
    if not loggers:
        return {}
    settings = dict(group(loggers, "wandb"))
    if settings.get("mode") != "online":
        found = f"logger.wandb.mode={settings['mode']}" if "mode" in settings else f"logger={','.join(loggers)}"
        raise UserError(f"{found}: the trials of a sweep are W&B's runs; accepted: logger=wandb, alone or in a list")
    return settings
