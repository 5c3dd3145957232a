"""Keys that a command may set, whether or not a file lists them."""

from __future__ import annotations

from stability.hydra.keys import schema_keys


def test_every_key_of_the_schema_is_found_without_a_plus(say, place):
    for key in schema_keys():
        # A key that a list of defaults composes.
        said = say(f"{key}=null", "--cfg", "job")
        assert said.code == 0, said.err


def test_help_lists_every_key_of_the_schema(say, place):
    text = say("--help").out
    listed, further = text.split("Further keys")
    for key in schema_keys():
        assert key in further or f"  {key.rpartition('.')[2]}:" in listed, key


def test_a_key_that_no_file_lists_is_set_and_compared(say, place):
    assert say("data.eval_split=null", "recipe.clip_norm=1.0", "plan=true").code == 0
    # What is misspelled stays unknown, and what is near is named.
    said = say("recipe.clip_nrm=1", "plan=true")
    assert said.code == 2
    assert "did you mean 'recipe.clip_norm'" in said.err
    said = say("-m", "recipe.clip_norm=1,2", "data.workers=0", "plan=true")
    assert said.code == 0, said.err
    assert "recipe.clip_norm" in said.out


def power(step: int, total_steps: int, warmup_steps: int, exponent: float = 1.0) -> float:
    """A schedule of the user's own."""
    return (1 - step / total_steps) ** exponent if step >= warmup_steps else 1.0


def test_a_class_of_the_users_own_is_named_without_a_plus_where_the_schema_has_it(say, place):
    target = f"schedule._target_={__name__}.power"
    assert say(target, "+schedule.exponent=2", "plan=true").code == 0
    said = say(target, "schedule.exponent=2", "plan=true")
    assert "+schedule.exponent=VALUE to add it" in said.err
    said = say("data._target_=my.Bars", "plan=true")
    assert "accepted: data.source=torch with data._target_" in said.err


def test_an_entry_of_the_users_own_is_added(say, place):
    assert "accepted: +metrics.x._target_=VALUE to add it" in say("metrics.x._target_=my.f", "plan=true").err
    assert "accepted: +probes.my_probe._target_=VALUE to add it" in say("probes._target_=my.f", "plan=true").err
