"""A schedule of the user's own: one file and one YAML, alone and in a pack."""

from __future__ import annotations

from typing import Any

import pytest

from stability.errors import UserError
from stability.training.defaults import complete
from stability.training.schedule import make_schedule
from tests.plain import train

POWER = """
    def power(step, total_steps, warmup_steps, exponent=1.0):
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        return (1 - (step - warmup_steps) / (total_steps - warmup_steps)) ** exponent


    class Steps:
        def __init__(self, drop, every):
            self.drop, self.every = drop, every

        def __call__(self, step, total_steps, warmup_steps):
            return self.drop ** (step // self.every)


    def broken(step, total_steps, warmup_steps):
        return -1 if step == total_steps - 1 else 1


    def failing(step, total_steps, warmup_steps):
        return 1 / step


    def other(step):
        return 1
"""


@pytest.mark.slow
def test_a_study_trains_under_a_users_schedule(user: Any, equal_records: Any) -> None:
    user.write(POWER)
    user.configure("schedule", "power", {"_target_": user.path("power"), "exponent": 2.0, "warmup_epochs": 0})
    alone, packed = user.studies("schedule=power")
    equal_records(alone, packed)
    # Four steps an epoch; the lr of an epoch's last step.
    for record in alone.values():
        shares = [row["lr"] / record["lr"] for row in record["result"]["curve"]]
        assert shares == pytest.approx([(5 / 8) ** 2, (1 / 8) ** 2])


def test_a_class_is_a_schedule_too(user: Any, train_both: Any) -> None:
    user.write(POWER)
    records = train_both(schedule={"_target_": user.path("Steps"), "drop": 0.5, "every": 4})
    for record in records:
        assert [row["lr"] / record["lr"] for row in record["result"]["curve"]] == [1.0, 0.5]


@pytest.mark.slow
def test_exponents_are_a_factor_of_a_study(user: Any) -> None:
    user.write(POWER)
    user.configure("schedule", "power", {"_target_": user.path("power"), "exponent": 2.0})
    records = user.study("schedule=power", "schedule.exponent=1.0,2.0", "samples=1", "epochs=1")
    assert sorted(record["cell"]["schedule.exponent"] for record in records.values()) == [1.0, 2.0]


def test_own_arguments_are_part_of_the_id_and_survive_a_round_trip(user: Any, trial: dict[str, Any]) -> None:
    from stability.config import parse_trial, to_dict
    from stability.study.identity import trial_id

    user.write(POWER)
    own = {"_target_": user.path("power"), "exponent": 2.0}
    config = complete(trial | {"schedule": own})
    assert parse_trial(to_dict(config)) == config
    assert to_dict(config)["schedule"]["exponent"] == 2.0
    others = [trial, trial | {"schedule": own | {"exponent": 3.0}}]
    assert len({trial_id(config), *(trial_id(complete(one)) for one in others)}) == 3


MISTAKES = {
    "exponnt": ({"_target_": "power", "exponnt": 2}, r"unknown argument of \S+power 'exponnt' \(did you mean 'expon"),
    "missing": ({"_target_": "Steps", "drop": 0.5}, r"\S+Steps needs a value for every"),
    "step": ({"_target_": "power", "step": 3}, r"argument 'step' of \S+power is set by the program"),
    "nowhere": ({"_target_": "pwoer"}, r"schedule\._target_=\S+: \S+ has no 'pwoer' \(did you mean 'power'\?\)"),
    "signature": ({"_target_": "other"}, r"\S+other takes step; accepted: a callable that takes step, total_steps"),
    "negative": ({"_target_": "broken"}, r"schedule \S+broken returns -1 at step 7 of 8; accepted: a finite number"),
    "failing": ({"_target_": "failing"}, r"schedule \S+failing fails at step 0 of 8: ZeroDivisionError: division"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake: str, user: Any, trial: dict[str, Any]) -> None:
    values, words = MISTAKES[mistake]
    user.write(POWER)
    with pytest.raises(UserError, match=words) as raised:
        train(trial | {"schedule": values | {"_target_": user.path(values["_target_"])}})
    assert "\n" not in str(raised.value)


def test_an_unknown_name_lists_what_there_is(trial: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"schedule.name='cosin' \(did you mean 'cosine'\?\); accepted: cosine"):
        complete(trial | {"schedule": {"name": "cosin", "warmup_epochs": None, "lr_batch": None}})


def test_steps_count_from_zero_to_the_last(user: Any, trial: dict[str, Any]) -> None:
    user.write(POWER)
    schedule = make_schedule(complete(trial | {"schedule": {"_target_": user.path("power")}}), 4)
    assert [schedule.lr(step) / schedule.peak for step in (1, 7)] == pytest.approx([1.0, 1 / 7])
