"""Keys of hydra-optuna-sweeper and of W&B sweeps, and how each is written here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from stability.errors import UserError
from stability.values import DRAWN, Options, Value, group

# Keys of other sweepers. {} stands for the value that was given.
WORDS = {
    "n_trials": "samples={}",
    "run_cap": "samples={}",
    "count": "samples={}",
    "n_jobs": "pool.size={}",
    "max_batch_size": "pool.size={}",
    "study_name": "study={}",
    "storage": "optuna.storage={}",
    "direction": "no direction, the lowest error is always the best",
    "metric": "no metric, the lowest error is always the best",
    "goal": "no direction, the lowest error is always the best",
    "early_terminate": "no early end, each trial trains for all its epochs",
    "custom_search_space": "lr=tag(log,interval(LOW,HIGH))",
    "max_failure_rate": "nothing, failed trials are tried again",
    "program": "python -m stability.run",
    "project": "logger=wandb logger.wandb.project={}",
    "entity": "logger=wandb logger.wandb.entity={}",
}
# Nodes of other sweepers that hold one entry for each parameter.
PARAMETERS = ("parameters", "params", "search_space")
SAMPLERS = {"bayes": "tpe", "tpe": "tpe", "random": "random", "qmc": "sobol", "sobol": "sobol"}
_SWEEPER = "hydra.sweeper."
# Keys of one parameter's distribution, by which a mapping is known as one.
_DISTRIBUTION = {"type", "distribution", "low", "high", "min", "max", "values", "value", "choices", "log", "step", "q"}
_OUR_NAMES = {"lr": "lr", "learning_rate": "lr", "wd": "wd", "weight_decay": "wd"}
# Names of coordinates elsewhere, and keys under which a sampler is chosen.
_THEIR_NAMES = ("learning_rate", "weight_decay", "optimizer.lr", "optimizer.weight_decay")
_SAMPLER = ("sweep.method", "sweep.sampler")
# A key of a study that holds a mapping which looks like a distribution.
_CONTRAST = "contrast"


def is_foreign(key: str) -> bool:
    """Tell whether a dotted key, or a config group, is another sweeper's."""
    if key == "hydra/sweeper/sampler":
        return True
    if key in (*_THEIR_NAMES, "sweep.method"):
        return True
    head = key.removeprefix(_SWEEPER).split(".")[0]
    if head == "params":
        return key.startswith(_SWEEPER)
    return head in (*WORDS, *PARAMETERS, "method", "sampler")


def is_distribution(key: str, value: Value) -> bool:
    """Tell whether a key is given a distribution, as Optuna or W&B describes one."""
    if not isinstance(value, Mapping) or not value or key == _CONTRAST:
        return False
    return value.keys() <= _DISTRIBUTION or (key in _OUR_NAMES and bool(_DISTRIBUTION & value.keys()))


def refuse_foreign(given: Options) -> None:
    """Refuse keys of other sweepers; the error shows how they are written here.

    Args:
        given: values by dotted key or config group; others than foreign keys are passed over.

    Raises:
        UserError: on one line for all of them.
    """
    foreign = {
        key: value
        for key, value in _with_parts_joined(given).items()
        if is_foreign(key) or is_distribution(key, value) or (key in _SAMPLER and str(value) in ("bayes", "qmc"))
    }
    answers = list(
        dict.fromkeys(answer for key, value in _gathered(foreign).items() for answer in _answers(key, value))
    )
    if not answers:
        return
    if any("interval(" in one for one in answers) and not any(one.startswith("samples=") for one in answers):
        answers.append("samples=N")
    words = ", ".join(_shown(key, value) for key, value in foreign.items())
    raise UserError(f"{words}: another sweeper's way to write it; accepted here: {', '.join(answers)}")


def _with_parts_joined(given: Options) -> dict[str, Value]:
    """Return values in which the parts of one distribution, as lr.min and lr.max, are one mapping."""
    joined: dict[str, Value] = {}
    for key, value in given.items():
        parent, _, part = key.rpartition(".")
        if part in _DISTRIBUTION and parent in (*_OUR_NAMES, *_THEIR_NAMES, "seed", "epochs", "batch_size"):
            joined[parent] = {**group(joined, parent), part: value}
        else:
            joined[key] = value
    return joined


def _shown(key: str, value: Value) -> str:
    return repr(key if isinstance(value, Mapping) else f"{key}={_text(value)}")


def _gathered(given: Options) -> dict[str, Value]:
    """Return values with the keys of PARAMETERS gathered into one nested mapping each."""
    gathered: dict[str, Value] = {}
    for key, value in given.items():
        head, *parts = key.removeprefix(_SWEEPER).split(".")
        if head not in PARAMETERS:
            gathered[key] = value
            continue
        for part in reversed(parts):
            value = {part: value}
        gathered[head] = _merged(group(gathered, head), value if isinstance(value, Mapping) else {})
    return gathered


def _merged(one: Options, other: Options) -> Options:
    nested = {
        key: _merged(group(one, key), value) if isinstance(value, Mapping) else value for key, value in other.items()
    }
    return {**one, **nested}


def _answers(key: str, value: Value) -> Iterator[str]:
    """Yield how one foreign key is written here."""
    name = key.removeprefix(_SWEEPER).removeprefix("hydra/sweeper/")
    head, _, rest = name.partition(".")
    node = value if isinstance(value, Mapping) else {}
    if is_distribution(key, value):
        yield distribution(key, node)
    elif key in _THEIR_NAMES:
        yield f"{_OUR_NAMES[key.rpartition('.')[2]]}={_text(value)}"
    elif key in _SAMPLER:
        yield f"sweep.sampler={SAMPLERS.get(str(value), 'tpe')}"
    elif head in PARAMETERS:
        yield from _parameters(node)
    elif head == "method" and value == "grid":
        yield "lists, such as lr=1e-3,3e-3, without samples"
    elif head in ("method", "sampler") and rest == "seed":
        yield f"sweep.seed={_text(value)}"
    elif head in ("method", "sampler"):
        word = str(node.get("_target_", "") if node else value).lower()
        yield f"sweep.sampler={next((ours for theirs, ours in SAMPLERS.items() if theirs in word), 'tpe')}"
    else:
        yield WORDS[head].format("VALUE" if isinstance(value, Mapping) else _text(value))


def _parameters(node: Options, prefix: str = "") -> Iterator[str]:
    """Yield how each parameter of a search space is written here."""
    for name, value in node.items():
        if not isinstance(value, Mapping):
            yield f"{prefix}{name}={_text(value)}"
        elif _DISTRIBUTION & value.keys():
            yield distribution(f"{prefix}{name}", value)
        else:
            yield from _parameters(group(value, "parameters") or value, f"{prefix}{name}.")


def distribution(key: str, given: Options) -> str:
    """Return the override that stands for one parameter's distribution, as Optuna or W&B describes it."""
    key = _OUR_NAMES.get(key.rpartition(".")[2], key)
    values = given.get("values", given.get("choices"))
    if isinstance(values, (list, tuple)):
        return f"{key}={','.join(map(_text, values))}"
    if "value" in given:
        return f"{key}={_text(given['value'])}"
    low, high = given.get("low", given.get("min", "LOW")), given.get("high", given.get("max", "HIGH"))
    # W&B's log_uniform takes exponents of e; log_uniform_values takes the ends themselves.
    if str(given.get("distribution", "")).endswith("log_uniform"):
        low, high = (math.exp(end) if isinstance(end, (int, float)) else end for end in (low, high))
    if key in DRAWN:
        is_linear = given.get("distribution") in ("uniform", "q_uniform") or given.get("log") is False
        return f"{key}=tag({'linear' if is_linear else 'log'},interval({_text(low)},{_text(high)}))"
    if isinstance(low, int) and isinstance(high, int):
        step = given.get("step", given.get("q"))
        return f"{key}=range({low},{high + 1}{'' if step is None else f',{_text(step)}'})"
    return f"{key}=A,B (only lr and wd are sampled)"


def _text(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "null" if value is None else str(getattr(value, "text", value))
