"""Weights that trials keep: whose they are, when they are written, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import stability
from stability.data.overrides import data_overrides
from stability.errors import UserError
from stability.evaluate import main as evaluate
from stability.study.evaluations import read_evaluations
from stability.study.identity import trial_id
from stability.study.weights import FILE, KEY, fingerprint, read_header
from stability.training.checkpoint_file import NAME
from stability.training.evaluated import evaluated_data
from stability.training.weights import load_weights, read_tensors
from tests.plain import train, train_pack
from tests.trained import TINY, TINY_C, tiny, trained_study
from tests.training.cuts import cutting, ends_in_a_cut, rewritten, writing_every

HELD_OUT = {"name": "digits", "train_size": 260, "eval_size": 60, "val_fraction": 0.2}
EMA = {"name": "light", "ema": True}


def error_on_its_own_set(folder: Path, identifier: str) -> float:
    """Return the error of a trial's weights on the images that the trial was evaluated on."""
    seed = {"data.seed=0"}
    assert evaluate([str(folder), identifier, *seed]) == 0
    (found,) = read_evaluations(folder / "trials" / identifier).values()
    error = found.value("top1_error")
    assert error is not None
    return error


def test_what_is_kept_decides_no_result_and_no_id():
    assert trial_id(tiny(keep="none")) == trial_id(tiny(keep="last"))
    assert trial_id(tiny(keep="best", data=HELD_OUT)) == trial_id(tiny(keep="none", data=HELD_OUT))


def test_last_is_what_the_trial_ended_with(tmp_path):
    config = tiny(TINY_C, training={"keep_weights": "last", "keep_checkpoints": True})
    record = train(config, directory=tmp_path)
    assert record["files"][KEY] == FILE
    assert record["provenance"][KEY] == {"epoch": 2, "kept": "last", "averaged": False}
    state, found = torch.load(tmp_path / NAME, weights_only=True)["model"], read_tensors(tmp_path / FILE)
    assert state.keys() == found.keys()
    assert all(torch.equal(state[name], found[name]) for name in found)


def test_the_averaged_weights_are_kept_where_the_result_is_of_these(tmp_path):
    config = tiny(
        TINY_C, recipe=EMA, epochs=3, batch_size=16, training={"keep_weights": "last", "keep_checkpoints": True}
    )
    record = train(config, directory=tmp_path)
    assert record["provenance"][KEY]["averaged"] is True
    info = read_header(tmp_path / FILE).info
    assert info is not None
    assert (info.averaged, info.epoch, info.num_classes) == (True, 3, 10)
    content, found = torch.load(tmp_path / NAME, weights_only=True), read_tensors(tmp_path / FILE)
    assert all(torch.equal(content["ema"][name], found[name]) for name in found)
    assert not all(torch.equal(content["model"][name], found[name]) for name in found)


@pytest.mark.parametrize(("keep", "data"), [("last", None), ("best", HELD_OUT)])
def test_each_member_of_a_pack_keeps_its_own(keep, data, tmp_path):
    changes = {"data": data} if data else {}
    # The lr of the second is too large: its best epoch is not its last.
    configs = [
        tiny(TINY_C, keep=keep, lr=lr, seed=seed, epochs=3, recipe=recipe, batch_size=16, **changes)
        for lr, seed, recipe in ((3e-3, 1, "none"), (0.5, 2, "none"), (1e-2, 3, {"name": "none", "ema": True}))
    ]
    study = trained_study(tmp_path / "study", configs, together=True)
    prints = set()
    for identifier in study:
        folder = tmp_path / "study" / "trials" / identifier
        record = json.loads((folder / "record.json").read_text())
        wanted = record["result"]["top1_error" if keep == "last" else "best_top1_error"]
        assert error_on_its_own_set(tmp_path / "study", identifier) == wanted
        epoch = record["provenance"][KEY]["epoch"]
        assert epoch == (3 if keep == "last" else record["result"]["best_epoch"])
        prints.add(fingerprint(folder / FILE))
    assert len(prints) == 3


def test_precise_statistics_are_kept(tmp_path):
    """The recipe computes them before every evaluation: the weights are those that were evaluated."""
    recipe = {"name": "none", "ema": True, "precise_bn": 128}
    (identifier,) = trained_study(tmp_path / "study", [tiny(TINY_C, recipe=recipe, batch_size=16)])
    wanted = json.loads((tmp_path / "study" / "trials" / identifier / "record.json").read_text())["result"]
    assert error_on_its_own_set(tmp_path / "study", identifier) == wanted["top1_error"]


@pytest.mark.parametrize("at", [6, 13])
def test_the_best_epoch_survives_a_cut(at, tmp_path, monkeypatch):
    # At this lr the first epoch is the best one, long before the cut.
    config = tiny(TINY_C, keep="best", data=HELD_OUT, lr=0.3, epochs=4)
    whole = train(config, directory=tmp_path / "whole")
    assert whole["result"]["best_epoch"] == 1
    with monkeypatch.context() as patch:
        writing_every(patch, 2)
        cutting(patch, at)
        assert ends_in_a_cut(lambda: train(config, directory=tmp_path / "cut"))
    assert not (tmp_path / "cut" / FILE).exists()
    assert train(config, directory=tmp_path / "cut")["result"] == whole["result"]
    assert fingerprint(tmp_path / "cut" / FILE) == fingerprint(tmp_path / "whole" / FILE)


def test_a_checkpoint_without_the_best_weights_starts_afresh(tmp_path, monkeypatch, caplog):
    config = tiny(TINY_C, keep="best", data=HELD_OUT, epochs=3)
    with monkeypatch.context() as patch:
        writing_every(patch, 2)
        cutting(patch, 9)
        assert ends_in_a_cut(lambda: train(config, directory=tmp_path))

    def forget(content):
        # As in a file of before this key.
        assert content.pop("best")

    rewritten(tmp_path, forget)
    caplog.clear()
    train(config, directory=tmp_path)
    assert "without the weights of its best epoch" in caplog.text


def test_a_diverged_trial_keeps_none(tmp_path):
    record = train(tiny(TINY_C, lr=1e20, optimizer="sgd", recipe="light"), directory=tmp_path)
    assert record["status"] == "diverged"
    assert "files" not in record
    assert not (tmp_path / FILE).exists()


def test_what_is_refused():
    with pytest.raises(UserError, match=r"accepted: data\.val_fraction=0\.1 with it, or training\.keep_weights=last"):
        tiny(keep="best")
    with pytest.raises(UserError, match="did you mean 'best'"):
        tiny(keep="bst")
    with pytest.raises(UserError, match="no folder for the weights; accepted: directory=FOLDER"):
        train_pack([tiny()])


def test_a_model_is_loaded_with_its_weights(tmp_path):
    (identifier,) = trained_study(tmp_path / "study", [tiny(TINY_C)])
    model = stability.load_model(tmp_path / "study", identifier[:6])
    assert not model.training
    found = read_tensors(tmp_path / "study" / "trials" / identifier / FILE)
    assert all(torch.equal(one, found[name]) for name, one in model.state_dict().items())
    # Chance is left as it was.
    torch.manual_seed(0)
    before = torch.rand(1)
    torch.manual_seed(0)
    stability.load_model(tmp_path, identifier)
    assert torch.equal(torch.rand(1), before)


def test_a_trial_without_weights_says_which_command_trains_it_again(tmp_path):
    (bare,) = trained_study(tmp_path / "study", [tiny(keep="none")])
    with pytest.raises(UserError) as caught:
        stability.load_model(tmp_path / "study", bare)
    text = str(caught.value)
    assert "\n" not in text
    assert "it ended without training.keep_weights; this trains it again, in a study of its own: " in text
    assert text.endswith(" training.keep_weights=last")
    assert "python -m stability.run model=custom" in text


def test_nothing_that_only_a_study_names_is_run(tmp_path):
    (identifier,) = trained_study(tmp_path / "study", [tiny()])
    folder = tmp_path / "study" / "trials" / identifier
    path = folder / FILE
    content = path.read_bytes()
    target = b"stability.models.vit.VisionTransformer"
    strange = b"tests.data.test_absent.Model".ljust(len(target), b"x")
    assert content.count(target) == 1
    path.write_bytes(content.replace(target, strange))
    with pytest.raises(UserError, match=r"a study's folder may come from anybody; accepted: trust_files=True"):
        stability.load_model(tmp_path / "study", identifier)
    with pytest.raises(UserError, match=r"model\._target_="):
        stability.load_model(tmp_path / "study", identifier, trust_files=True)


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_file_that_is_none_of_a_trial_is_refused_in_a_line(content, tmp_path):
    path = tmp_path / FILE
    path.write_bytes(content)
    with pytest.raises(UserError, match=FILE) as caught:
        load_weights(path)
    assert "\n" not in str(caught.value)


def test_weights_of_another_code_are_refused(tmp_path):
    from safetensors.torch import save_file

    (identifier,) = trained_study(tmp_path / "study", [tiny(TINY)])
    path = tmp_path / "study" / "trials" / identifier / FILE
    info, tensors = read_header(path).info, read_tensors(path)
    assert info is not None
    save_file({name: one for name, one in tensors.items() if name != "norm.bias"}, path, info.metadata)
    with pytest.raises(UserError, match=r"holds weights of another model: norm\.bias does not fit"):
        stability.load_model(tmp_path / "study", identifier)


def test_a_fingerprint_is_of_the_tensors_alone(tmp_path):
    from safetensors.torch import save_file

    one, two = torch.arange(6.0), torch.ones(2, 2, dtype=torch.bfloat16)
    save_file({"a": one, "b": two}, tmp_path / "1", {"note": "x"})
    save_file({"b": two, "a": one.clone()}, tmp_path / "2")
    save_file({"b": two, "a": one + 1}, tmp_path / "3")
    save_file({"b": two, "c": one}, tmp_path / "4")
    prints = [fingerprint(tmp_path / str(number)) for number in (1, 2, 3, 4)]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def test_data_of_ones_own_that_only_the_study_names_needs_trust():
    config = tiny(
        data={
            "source": "torch",
            "_target_": "my_module.Bars",
            "image_size": 16,
            "mirror": False,
            "train_size": None,
            "eval_size": None,
            "val_fraction": None,
            "seed": 0,
        }
    )
    with pytest.raises(UserError, match=r"or training\.trust_files=true to run that code"):
        evaluated_data(config, data_overrides(["data.eval_size=10"]))
    assert evaluated_data(config, data_overrides(["data.eval_size=10"]), trust_files=True).eval_size == 10
