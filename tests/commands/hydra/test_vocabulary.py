"""Other sweepers' words: each is answered with the way it is written here."""

from __future__ import annotations

import pytest

from stability.hydra.vocabulary import distribution

# A command line, and what its one line of complaint names.
COMMANDS = [
    ("n_trials=20", ["'n_trials=20'", "samples=20"]),
    ("-m n_trials=20 lr=1e-3,1e-2", ["samples=20"]),
    ("hydra.sweeper.n_trials=20", ["'hydra.sweeper.n_trials=20'", "samples=20"]),
    ("hydra.sweeper.n_jobs=4", ["pool.size=4"]),
    ("++hydra.sweeper.n_jobs=4", ["pool.size=4"]),
    ("hydra.sweeper.max_batch_size=2", ["pool.size=2"]),
    ("hydra/sweeper=optuna", ["hydra/sweeper=optuna", "sweep.sampler=", "tpe"]),
    ("+hydra/sweeper=optuna", ["hydra/sweeper=optuna", "tpe"]),
    ("hydra/sweeper=optuna hydra/sweeper/sampler=tpe", ["sweep.sampler=tpe"]),
    ("hydra/sweeper/sampler=random", ["sweep.sampler=random"]),
    ("hydra.sweeper.sampler.seed=3", ["sweep.seed=3"]),
    ("hydra.sweeper.direction=minimize", ["lowest error"]),
    ("hydra.sweeper.study_name=vit", ["study=vit"]),
    ("hydra.sweeper.storage=sqlite:///x.db", ["optuna.storage=sqlite:///x.db"]),
    (
        "hydra.sweeper.params.lr={type:float,low:1e-4,high:1e-2,log:true}",
        ["'hydra.sweeper.params.lr'", "lr=tag(log,interval(0.0001,0.01))", "samples=N"],
    ),
    ("hydra.sweeper.params.lr.low=1e-4 hydra.sweeper.params.lr.high=1e-2", ["lr=tag(log,interval(0.0001,0.01))"]),
    ("hydra.sweeper.params.lr=interval(1e-4,1e-2)", ["lr=interval(1e-4,1e-2)"]),
    ("+hydra.sweeper.params.model=vitp_tiny,vitc_tiny", ["model=vitp_tiny,vitc_tiny"]),
    ("hydra.sweeper.n_trials=8 hydra.sweeper.study_name=y", ["samples=8, study=y"]),
    ("method=bayes", ["'method=bayes'", "sweep.sampler=tpe"]),
    ("method=random", ["sweep.sampler=random"]),
    ("method=grid", ["lr=1e-3,3e-3"]),
    ("metric.name=loss metric.goal=minimize", ["lowest error"]),
    (
        "parameters.lr.distribution=log_uniform_values parameters.lr.min=1e-4 parameters.lr.max=1e-2",
        ["lr=tag(log,interval(0.0001,0.01))"],
    ),
    ("parameters={lr:{distribution:log_uniform_values,min:1e-4,max:1e-2}}", ["lr=tag(log,interval(0.0001,0.01))"]),
    ("parameters.optimizer.values=[adamw,sgd]", ["optimizer=adamw,sgd"]),
    ("early_terminate.type=hyperband", ["all its epochs"]),
    ("run_cap=40", ["samples=40"]),
    ("+lr.distribution=log_uniform_values +lr.min=1e-4 +lr.max=1e-2", ["lr=tag(log,interval(0.0001,0.01))"]),
    ("lr.min=1e-4 lr.max=1e-2", ["lr=tag(log,interval(0.0001,0.01))"]),
    ("optimizer.lr={type:float,low:1e-4,high:1e-2,log:true}", ["lr=tag(log,interval(0.0001,0.01))"]),
    ("optimizer.lr=1e-3", ["lr=0.001"]),
    ("epochs={type:int,low:1,high:8}", ["epochs=range(1,9)"]),
    ("model={type:categorical,choices:[vitp_tiny,vitc_tiny]}", ["model=vitp_tiny,vitc_tiny"]),
    ("learning_rate=1e-3", ["'learning_rate=0.001'", "lr=0.001"]),
    ("weight_decay=interval(0.01,0.1)", ["wd=interval(0.01,0.1)"]),
    ("sweep.sampler=bayes samples=4", ["sweep.sampler=tpe"]),
    ("sweep.method=random samples=4", ["sweep.sampler=random"]),
    ("project=stems", ["logger.wandb.project=stems"]),
]


@pytest.mark.parametrize(("line", "named"), COMMANDS, ids=[line for line, _ in COMMANDS])
def test_another_sweepers_command_is_answered_in_one_line(line, named, say, place):
    said = say(*line.split())
    assert (said.code, said.out) == (2, "")
    assert said.err.count("\n") == 1, said.err
    for word in named:
        assert word in said.err
    assert list(place.parent.rglob("*")) == [place]


WANDB = """
program: train.py
method: bayes
metric: {name: val_loss, goal: minimize}
parameters:
  lr: {distribution: log_uniform_values, min: 1e-4, max: 1e-2}
  optimizer: {values: [adamw, sgd]}
  epochs: {value: 4}
"""
OPTUNA = """
defaults:
  - override /hydra/sweeper: optuna
hydra:
  sweeper:
    n_trials: 20
"""
FILES = {
    "wandb": (WANDB, ["sweep.sampler=tpe", "interval(0.0001,0.01)", "optimizer=adamw,sgd", "epochs=4", "samples=N"]),
    "wandb in its package": (f"# @package _global_\n{WANDB}", ["interval(0.0001,0.01)", "sweep.sampler=tpe"]),
    "optuna": (f"# @package _global_\n{OPTUNA}", ["hydra/sweeper=optuna", "tpe"]),
    "n_trials": ("# @package _global_\nn_trials: 20\n", ["n_trials=20", "samples=20"]),
    "sweeper keys": (
        "# @package _global_\nhydra: {sweeper: {n_trials: 20, n_jobs: 2, direction: minimize, study_name: x}}\n",
        ["samples=20, pool.size=2", "lowest error", "study=x"],
    ),
    "params": (
        "# @package _global_\nhydra: {sweeper: {params: {lr: {type: float, low: 1e-4, high: 1e-2, log: true}}}}\n",
        ["lr=tag(log,interval(0.0001,0.01))"],
    ),
    "a coordinate": (
        "# @package _global_\nsamples: 4\nlr: {distribution: log_uniform_values, min: 1e-4, max: 1e-2}\n",
        ["lr=tag(log,interval(0.0001,0.01))"],
    ),
    "lr of the optimizer": ("# @package _global_\noptimizer: {lr: 1.0e-3}\n", ["lr=0.001"]),
    "dotted params": (
        "# @package _global_\nhydra: {sweeper: {params: {optimizer.lr: {type: float, low: 1e-4, high: 1e-2}}}}\n",
        ["lr=tag(log,interval(0.0001,0.01))"],
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_another_sweepers_file_is_answered_in_one_line(name, say, place):
    text, named = FILES[name]
    (place / "sweeps").mkdir()
    (place / "sweeps" / "mine.yaml").write_text(text)
    said = say("sweeps=mine")
    assert (said.code, said.out) == (2, "")
    assert said.err.count("\n") == 1, said.err
    for word in named:
        assert word in said.err
    assert sorted(path.name for path in place.rglob("*")) == ["mine.yaml", "sweeps"]


DISTRIBUTIONS = [
    ("lr", {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}, "lr=tag(log,interval(0.0001,0.01))"),
    ("optimizer.weight_decay", {"min": 0.01, "max": 0.5}, "wd=tag(log,interval(0.01,0.5))"),
    ("wd", {"distribution": "uniform", "min": 0.0, "max": 0.1}, "wd=tag(linear,interval(0,0.1))"),
    ("wd", {"type": "float", "low": 0.0, "high": 0.1, "log": False}, "wd=tag(linear,interval(0,0.1))"),
    ("lr", {"distribution": "log_uniform", "min": 0, "max": 0}, "lr=tag(log,interval(1,1))"),
    ("lr", {"distribution": "log_uniform_values"}, "lr=tag(log,interval(LOW,HIGH))"),
    ("epochs", {"type": "int", "low": 1, "high": 8}, "epochs=range(1,9)"),
    ("epochs", {"distribution": "q_uniform", "min": 2, "max": 8, "q": 2}, "epochs=range(2,9,2)"),
    ("optimizer", {"type": "categorical", "choices": ["adamw", "sgd"]}, "optimizer=adamw,sgd"),
    ("data.mean", {"values": [None, 0.5]}, "data.mean=null,0.5"),
    ("schedule.warmup_epochs", {"min": 0.5, "max": 2.0}, "schedule.warmup_epochs=A,B (only lr and wd are sampled)"),
]


@pytest.mark.parametrize(("key", "given", "written"), DISTRIBUTIONS)
def test_a_distribution_is_written_as_an_override(key, given, written):
    assert distribution(key, given) == written


def test_the_answer_to_a_distribution_is_accepted(say, place):
    """What the error says is accepted, typed as it stands, plans a study."""
    answer = distribution("lr", {"type": "float", "low": 1e-4, "high": 1e-2, "log": True})
    said = say(answer, "samples=2", "sweep.sampler=random", "plan=true")
    assert (said.code, said.err) == (0, "")


@pytest.mark.parametrize(
    "given",
    [
        "lr={type:float,low:1e-4,high:1e-2,log:true}",
        "lr={distribution:log_uniform_values,min:1e-4,max:1e-2}",
    ],
)
@pytest.mark.parametrize("others", [[], ["samples=4"], ["-m"]])
def test_a_distribution_of_a_coordinate_is_answered_where_it_is_typed(given, others, say, place):
    said = say(*others, given)
    assert said.code == 2
    assert "lr=tag(log,interval(0.0001,0.01))" in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert not (place / "runs").exists()
