"""The command line: what works, and what is refused in one line before anything is written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stability.execute.worker import first_batch_problem, refuse_cells

# A command line, and what its one line of complaint names: what was given, what is accepted, the nearest match.
MISTAKES = [
    ("lrr=1e-3", ["'lrr'", "did you mean 'lr'", "accepted", "epochs"]),
    ("optimiser=adamw", ["'optimiser'", "did you mean 'optimizer'"]),
    ("model=vitp_tny", ["'vitp_tny'", "did you mean 'vitp_tiny'", "vitc_1gf"]),
    ("-m model=vitp_tiny,vitc_tny", ["'vitc_tny'", "did you mean 'vitc_tiny'"]),
    ("model.blcks=3", ["'model.blcks'", "did you mean 'model.blocks'", "model.heads"]),
    ("model=vitc_tiny model.stem_width=8", ["did you mean 'model.stem_widths'"]),
    ("+model.foo=1 plan=true", ["'foo'", "blocks"]),
    ("+new=1", ["'new'", "epochs", "samples"]),
    ("+epochs=3", ["epochs", "leave out the +"]),
    ("recipe.flop=true", ["did you mean 'recipe.flip'"]),
    ("model.name=vitc_tiny plan=true", ["model.name=vitc_tiny with model=vitp_tiny", "model=vitc_tiny, or a name of"]),
    ("optimizer.name=sgd plan=true", ["optimizer.name=sgd with optimizer=adamw"]),
    ("-m recipe=light,none recipe.name=paper", ["recipe.name=paper with recipe=light"]),
    ("pool.threads=1000 plan=true", ["pool.threads=1000", "1 to"]),
    ("recipe=lite", ["'lite'", "did you mean 'light'"]),
    ("sweeps=quik", ["sweep 'quik'", "did you mean 'quick'"]),
    ("sweep=quick", ["sweeps=NAME"]),
    ("hydra/launcher=jobli", ["did you mean 'joblib'", "pool"]),
    ("hydra/launcher=rya", ["'rya'", "pool"]),
    ("hydra/lancher=basic", ["did you mean 'hydra/launcher'"]),
    ("hydra.verbos=true", ["did you mean 'hydra.verbose'"]),
    ("epochs=eight", ["epochs='eight'", "a whole number"]),
    ("epochs=2.5", ["epochs=2.5", "a whole number"]),
    ("epochs=0", ["epochs=0", "at least 1"]),
    ("epochs=8,0", ["epochs=0", "at least 1"]),
    ("epochs=null", ["epochs=None"]),
    ("seed=-1", ["seed=-1", "at least 0"]),
    ("batch_size=0", ["batch_size=0", "at least 1"]),
    ("lr=0", ["lr=0;", "above 0"]),
    ("lr=nan", ["lr=nan", "finite"]),
    ("lr=inf", ["lr=inf", "finite"]),
    ("lr=abc", ["lr='abc'", "a number"]),
    ("lr=1e-3,abc", ["lr='abc'", "a number"]),
    ("lr=1e-3,-1", ["lr=-1", "above 0"]),
    ("wd=-1", ["wd=-1;", "at least 0"]),
    ("data.val_fraction=1", ["data.val_fraction=1;", "below 1"]),
    ("data.mean=[a]", ["data.mean[0]='a'", "a number"]),
    ("schedule.warmup_epochs=9", ["schedule.warmup_epochs=9", "epochs=8"]),
    ("plan=tru", ["plan='tru'", "measure"]),
    ("pack.size=0", ["pack.size=0", "at least 1"]),
    ("pack.size=big", ["pack.size='big'", "auto"]),
    ("training.compile=aut", ["training.compile='aut'", "did you mean 'auto'", "true, false, auto, null"]),
    ("training.compile=2", ["training.compile=2", "true or false or a word"]),
    ("pool=2", ["pool=2", "size"]),
    ("pool.size=0", ["pool.size=0"]),
    ("sweep.sampler=sobl", ["did you mean 'sobol'"]),
    ("samples=0", ["samples=0", "at least 1"]),
    ("samples=2.5", ["samples=2.5", "a whole number"]),
    ("samples=4,8", ["samples=4,8", "one value"]),
    ("samples=16 lr=1e-3 wd=0.1", ["nothing to sample", "interval(low,high)"]),
    ("lr=interval(1e-4,1e-2)", ["samples is not set"]),
    ("lr=interval(1e-2,1e-4) samples=4", ["upside down", "did you mean 0.0001, 0.01"]),
    ("lr=tag(log,interval(1e-2,1e-4)) samples=4", ["upside down"]),
    ("lr=tag(lin,interval(1e-4,1e-2)) samples=2", ["'lin'", "log"]),
    ("lr=interval(0,0.1) samples=2", ["above 0"]),
    ("wd=interval(-0.1,0.1) samples=2", ["above 0", "wd=tag(linear,interval(0,0.1))"]),
    ("lr=tag(linear,interval(0,0.1)) samples=2", ["lr is above 0"]),
    ("wd=tag(log,interval(0,0.1)) samples=2", ["above 0"]),
    ("wd=tag(linear,interval(-1,0.1)) samples=2", ["at least 0"]),
    ("wd=tag(linear,log,interval(0,0.1)) samples=2", ["one scale"]),
    ("samples=1000000000000", ["at most 1,000,000"]),
    ("lr=1e-3 seed=range(0,100000000)", ["more than 100,000 values"]),
    ("lr=1e-3 seed=range(0,90000) wd=range(1,100)", ["8,910,000 trials", "1,000,000"]),
    ("batch_size=range(1,100000) epochs=range(1,100000)", ["9,999,800,001 cells", "10,000"]),
    ("lr=1e-3,2e-3 epochs=99999999999999999999", ["at most 1,000,000"]),
    ("lr=1e-3,2e-3 seed=99999999999999999999", ["at most"]),
    ("lr=1e-3,2e-3 pool.size=100000", ["at most 1,024"]),
    ("seed=interval(0,4) samples=3", ["whole numbers", "range(0,16)"]),
    ("epochs=interval(1,4) samples=3", ["interval() samples lr and wd"]),
    ("optimizer.search.tiny.lr=[1e-2,1e-3] samples=2", ["optimizer.search.tiny.lr", "upside down"]),
    ("optimizer.search.tiny.lr=3 samples=2", ["optimizer.search.tiny.lr=3", "[low, high]"]),
    ("model.family=vti samples=2", ["'vti'", "tiny", "interval(low,high)"]),
    ("-m", ["nothing to vary", "samples=16"]),
    ("-m lr=1e-3", ["nothing to vary"]),
    ("epochs=range(5,1)", ["range(5,1)", "holds no value"]),
    ("lr=[]", ["holds no value"]),
    ("epochs=shuffle(1,2)", ["shuffle()"]),
    ("lr=1e-3,0.001", ["0.001 twice"]),
    ("-m model=vitp_tiny,vitp_tiny", ["'vitp_tiny' twice"]),
    ("model.name=x model=vitp_tiny,vitc_tiny", ["two cells are called"]),
    ("-m model.family=tiny,custom lr=1e-3 wd=0.1", ["the same trial", "model.family=custom"]),
    ("model=glob(xx*)", ["matches nothing", "vitp_tiny"]),
    ("epochs=glob(*)", ["matches nothing", "no group of choices"]),
    ("device=cpu,cuda", ["decides no trial's result"]),
    ("data.workers=1,2", ["decides no trial's result"]),
    ("data.seed=0,1", ["one data.seed"]),
    ("sweeps=quick,quick", ["one value"]),
    ("runs=a,b", ["one value"]),
    ("data.seed=${seed} samples=2", ["data.seed=${seed}", "differs from point to point"]),
    ("epochs=${nope}", ["${nope}", "no key nope"]),
    ("study=a/b", ["study='a/b'", "letters"]),
    ("study=..", ["study='..'"]),
    ("study=.hidden", ["study='.hidden'"]),
    ("study=2021", ["study=2021"]),
    ("model=custom", ["model._target_", "has no value"]),
    ("model=timm", ["model.architecture", "has no value"]),
    ("model._target_=", ["model._target_=''", "dotted path"]),
    ("model=5", ["'5'", "vitp_tiny"]),
    ("model=null", ["a trial has one model"]),
    ("model=[vitp_tiny]", ["a trial has one model"]),
    ("model={a:1}", ["a trial has one model"]),
    ("~model", ["no trial without its model"]),
    ("~recipe.crop", ["the schema's default", "recipe.crop=VALUE"]),
    ("--package foo", ["--package foo", "--cfg"]),
    (
        "-m optimizer=adamw,sgd optimizer.betas=[0.9,0.99]",
        ["of some of the compared choices", "+optimizer.betas=VALUE"],
    ),
    ("-m model=vitp_tiny,glob(vitc*) lr=1e-3", ["'model=vitp_tiny,glob(vitc*)'", "model=A,B"]),
    ("-m lr=choice(1e-3,1e-2),1e-4", ["'lr=choice(1e-3,1e-2),1e-4'", "lr=A,B"]),
    ("-m epochs=choice(5,6),7", ["epochs=A,B"]),
    ("batch_size=99999 plan=true", ["batch_size=99999", "1437 training images"]),
    ("data.train_size=9999 plan=true", ["data.train_size=9999", "1437 images"]),
    ("~lrr", ["~lrr", "nothing to delete"]),
    ("model@foo=vitp_tiny", ["'model@foo'", "did you mean 'model'"]),
    ("foo", ["'foo'", "gives no value", "key=value"]),
    ("=3", ["'=3'", "names no key"]),
    ("lr=1e-3,,", ["'lr=1e-3,,'", "key=a,b"]),
    ("hydra.sweep.dir=x", ["hydra.sweep.dir=x", "runs=FOLDER study=NAME"]),
    ("hydra.sweep.subdir=x", ["hydra.sweep.subdir=x"]),
    ("hydra.run.dir=x", ["hydra.run.dir=x", "runs=FOLDER"]),
    ("hydra.mode=RUN", ["hydra.mode=RUN"]),
    ("hydra/sweeper=basic", ["hydra/sweeper=basic", "stability"]),
    ("hydra.sweeper.pack=nonsense", ["hydra.sweeper.pack", "pack.size=N"]),
    ("hydra.sweeper.pack={attempt:1,alone:true,members:[]}", ["hydra.sweeper.pack", "pack.size=N"]),
    ("hydra.verbose=true,false", ["take one value"]),
    ("hydra.job.chdir=true", ["hydra.job.chdir=true", "false"]),
    ("hydra.searchpath=[file:///nonexistent]", ["/nonexistent"]),
    ("hydra.searchpath=foo", ["list of strings", "foo"]),
    ("+hydra.callbacks.x._target_=nope.Nope", ["nope"]),
    ("--foo", ["--foo", "accepted"]),
    ("--hepl", ["--hepl", "did you mean '--help'"]),
    ("--cfg", ["--cfg"]),
    ("--cfg jb", ["'jb'", "job"]),
    ("--cfg job lr=1,2", ["lr=1,2", "one value"]),
    ("--cfg job model=vitp_tny", ["did you mean 'vitp_tiny'"]),
    ("--cfg job -p nope", ["nope"]),
    ("--info foo", ["'foo'", "searchpath"]),
    ("-cn nope", ["'nope'", "--config-name"]),
    ("-cd nope", ["nope", "not found"]),
    ("-cp /nope", ["/nope"]),
    ("--experimental-rerun x", ["--experimental-rerun"]),
    ("optimizer.betas=[0.9] plan=true", ["optimizer.betas=[0.9]", "(0.9, 0.999)"]),
    ("optimizer.betas=[0.9,a] plan=true", ["optimizer.betas=[0.9, 'a']", "(0.9, 0.999)"]),
    ("+optimizer.eps=inf plan=true", ["optimizer.eps=inf", "a finite number"]),
    ("+model.width=nan", ["model.width=nan", "a finite number"]),
    ("logger=csv logger.csv.folder=null", ["logger.csv.folder", "the name of a folder"]),
]


@pytest.mark.parametrize(("line", "named"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_mistake_is_one_line_and_writes_nothing(line, named, say, place):
    said = say(*line.split())
    assert said.code == 2
    assert said.err.count("\n") == 1, said.err
    for word in named:
        assert word in said.err
    assert not said.out
    assert list(place.parent.rglob("*")) == [place]


@pytest.mark.parametrize("line", ["data.image_size=17", "model._target_=nope.Model", "+model.foo=1", "batch_size=2000"])
def test_mistake_that_shows_in_the_first_batch_writes_nothing(line, say, place, pretence, monkeypatch):
    _try_in_this_process(pretence, monkeypatch)
    said = say(line)
    assert said.code == 2
    assert re.match(r"error: (vitp_tiny|nope.Model) adamw epochs=8: ", said.err)
    assert said.err.count("\n") == 1
    assert list(place.rglob("*")) == []


def test_what_is_wrong_with_all_cells_names_none_of_them(say, place, pretence, monkeypatch):
    _try_in_this_process(pretence, monkeypatch)
    said = say("-m", "optimizer=adamw,sgd", "data=imagefolder", "data.path=nowhere", "data.image_size=16", "samples=2")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert said.err.startswith("error: data.path=nowhere")
    assert list(place.rglob("*")) == []


def _try_in_this_process(pretence, monkeypatch):
    def try_cells(tasks):
        refuse_cells(tasks, [first_batch_problem(task) for task in tasks])

    monkeypatch.setattr(pretence, "try_cells", try_cells)


def test_a_plan_checks_an_optimizer_of_the_users_own(say, place):
    folder = place / "own" / "optimizer"
    folder.mkdir(parents=True)
    search = "search: {tiny: {lr: [1e-3, 1e-2], wd: [1e-3, 1e-2]}}\n"
    mistakes = {
        "_target_: torch.optim.AdamWW\n": "did you mean 'AdamW'",
        "_target_: nowhere.Nothing\n": "no module 'nowhere'",
        "_target_: torch.optim.SGD\nmomentun: 0.9\n": "did you mean 'momentum'",
        "_target_: torch.optim.SGD\nmomentum: -1\n": "momentum",
        "_target_: torch.optim.AdamW\nbetas: [0.9]\n": "optimizer.betas=[0.9]; accepted: a value like (0.9, 0.999)",
    }
    for text, words in mistakes.items():
        (folder / "own.yaml").write_text(f"name: own\n{text}{search}")
        said = say("--config-dir", "own", "optimizer=adamw,own", "samples=2", "plan=true")
        assert (said.code, said.err.count("\n")) == (2, 1), said.err
        assert said.err.startswith("error: model=vitp_tiny, optimizer=own")
        assert words in said.err
    (folder / "own.yaml").write_text(f"name: own\n_target_: torch.optim.AdamW\neps: .inf\n{search}")
    said = say("--config-dir", "own", "optimizer=adamw,own", "samples=2", "plan=true")
    assert (said.code, said.err) == (2, "error: optimizer.eps=inf; accepted: a finite number\n")
    (folder / "own.yaml").write_text(f"name: own\n_target_: torch.optim.RMSprop\n{search}")
    assert say("--config-dir", "own", "optimizer=adamw,own", "samples=2", "plan=true").code == 0


WORKING = [
    "plan=true",
    "-m model=vitp_tiny,vitc_tiny optimizer=adamw,sgd lr=1e-3,3e-3 plan=true",
    "-m optimizer=adamw,sgd samples=16 plan=true",
    "-m lr=tag(log,interval(1e-4,1e-2)) samples=16 plan=true",
    "-m sweeps=quick plan=true",
    "sweeps=quick plan=true",
    "-m optimizer=adamw,sgd lr=1e-3,1e-2 plan=true",
    "--multirun lr=[1e-3,3e-3] plan=true",
    "epochs=1 -m plan=true seed=0,1",
    "-m lr=range(1e-3,3e-3,1e-3) epochs=sort(4,2) model=choice(vitp_tiny) plan=true",
    "model=glob(vit*_tiny) plan=true",
    "+lr=1e-3 ++wd=0.1 ~data.mean plan=true",
    "sweeps=null logger=null plan=true",
    "sweeps=quick ~samples plan=true",
    "+sweeps=quick ++model=vitp_tiny,vitc_small plan=true",
    "hydra/launcher=basic plan=true",
    "hydra/job_logging=disabled hydra/hydra_logging=none plan=true",
    "hydra.verbose=true hydra.output_subdir=null +hydra.job.env_set.A=b plan=true",
    "-cn config plan=true",
    "--cfg job",
    "--cfg hydra -p hydra.sweep",
    "--cfg job sweeps=quick --resolve",
    "--info searchpath",
    "--hydra-help",
    "--help",
    "--version",
]


@pytest.mark.parametrize("line", WORKING)
def test_what_hydra_users_know_works_and_writes_nothing(line, say, place):
    said = say(*line.split())
    assert (said.code, said.err) == (0, "")
    assert list(place.parent.rglob("*")) == [place]


def test_own_studies_and_models_are_found(say, place, pretence):
    (place / "sweeps").mkdir()
    (place / "elsewhere" / "model").mkdir(parents=True)
    (place / "sweeps" / "mine.yaml").write_text("# @package _global_\nsamples: 2\nlr: 2e-3\n")
    own = "name: own\nfamily: tiny\n_target_: stability.models.vit.VisionTransformer\n"
    (place / "elsewhere" / "model" / "own.yaml").write_text(own)
    assert "study mine in runs/mine: 2 points a cell" in say("sweeps=mine", "plan=true").out
    for found in (["--config-dir", "elsewhere"], ["hydra.searchpath=[elsewhere]"]):
        said = say("sweeps=mine", "model=vitp_tiny,own", *found)
        assert said.code == 0, said.err
        assert {task.factors["model"] for task in pretence.launched[-1]} == {"vitp_tiny", "own"}
        assert {task.config.lr for task in pretence.launched[-1]} == {0.002}
        (place / "runs" / "mine").rename(place / f"done{len(pretence.launched)}")


def test_a_launcher_that_is_not_installed_is_named_with_its_package(say, place, monkeypatch):
    from stability.hydra.explain import LAUNCHERS

    # One that no environment of ours holds.
    monkeypatch.setitem(LAUNCHERS, "rq", "pip install hydra-rq-launcher")
    said = say("hydra/launcher=rq")
    assert said.code == 2
    assert "pip install hydra-rq-launcher" in said.err
    assert said.err.count("\n") == 1


def test_folders_of_the_working_directory_are_no_config_groups(say, place):
    for name in ("runs", "study", "samples", "model", "data", "epochs"):
        (place / name).mkdir()
        (place / name / "vitp_tiny.yaml").write_text("broken: [")
    said = say("runs=elsewhere", "study=x", "samples=2", "epochs=3", "plan=true")
    assert (said.code, said.err) == (0, "")
    assert "study x in elsewhere/x" in said.out


def test_broken_yaml_of_a_user_is_named(say, place):
    (place / "sweeps").mkdir()
    (place / "sweeps" / "mine.yaml").write_text("# @package _global_\nsamples: [2\n")
    said = say("sweeps=mine")
    assert said.code == 2
    assert "no YAML" in said.err
    assert said.err.count("\n") == 1


def _run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cwd / "cache")}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("arguments", [["--help"], ["-m", "sweeps=fig4", "plan=true"]])
def test_questions_are_answered_in_any_directory(arguments, tmp_path):
    done = _run("-m", "stability.run", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_plan_of_named_models_needs_neither_torch_nor_data(tmp_path):
    code = "import sys; from stability.run import main; assert main(['sweeps=fig4', 'plan=true']) == 0; "
    heavy = "[name for name in ('torch', 'timm', 'lightning', 'pandas', 'sklearn', 'optuna') if name in sys.modules]"
    done = _run("-c", f"{code} print({heavy})", cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_shims_import_nothing_heavy(tmp_path):
    code = "import sys, hydra_plugins.stability_plugins; print(*sorted(m for m in sys.modules if m.startswith('stab')))"
    done = _run("-c", code, cwd=tmp_path)
    assert done.stdout == "\n", done.stdout + done.stderr
