"""A trial from its configuration to its record: what it computes, what it reports, what it leaves alone."""

from __future__ import annotations

import copy
import json
import threading
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F

from stability.data import get_data
from stability.study.identity import trial_id
from stability.study.store import to_json
from stability.training import measure, try_first_batch
from stability.training.member import Member
from stability.training.module import StackModule
from stability.training.schedule import Schedule
from stability.training.stack import ModelStack
from stability.training.trial import build, fit
from tests.plain import train
from tests.training.models import own

RESULT = [
    *("top1_error", "top5_error", "best_top1_error", "best_epoch"),
    *("diverged_step", "exception", "epochs_done", "curve"),
]
ROW = [
    *("epoch", "train_loss", "loss", "top1_error", "top5_error"),
    *("ema_loss", "ema_top1_error", "ema_top5_error", "gradient_norm", "lr"),
]


def test_record_has_every_field(trial):
    config = trial("conv", lr=3e-3, wd=0.1, seed=4)
    record = train(config, study="digits")
    assert list(record) == ["id", "study", "cell", "lr", "wd", "seed", "status", "result", "provenance"]
    assert record["id"] == trial_id(config)
    assert (record["study"], record["lr"], record["wd"], record["seed"]) == ("digits", 3e-3, 0.1, 4)
    assert record["cell"] == {"model": "c", "optimizer": "adamw", "epochs": 3}
    assert record["status"] == "completed"
    result = record["result"]
    assert list(result) == RESULT
    assert (result["diverged_step"], result["exception"], result["epochs_done"]) == (None, None, 3)
    assert [row["epoch"] for row in result["curve"]] == [1, 2, 3]
    for row in result["curve"]:
        assert list(row) == ROW
        assert all(row[name] is None for name in ROW if name.startswith("ema_"))
        assert row["gradient_norm"] > 0
    errors = [row["top1_error"] for row in result["curve"]]
    assert result["top1_error"] == errors[-1]
    assert result["best_top1_error"] == min(errors) == errors[result["best_epoch"] - 1]
    assert result["top5_error"] == result["curve"][-1]["top5_error"] < errors[-1]
    assert json.loads(to_json(record))["result"] == result


def test_provenance_says_where_and_how(trial):
    provenance = train(trial(epochs=1))["provenance"]
    assert provenance["seconds"] > 0
    assert provenance["images_per_second"] == pytest.approx(4 * 64 / provenance["seconds"])
    assert (provenance["attempts"], provenance["threads"], provenance["pack_size"]) == (1, 1, 1)
    assert (provenance["device"], provenance["train_images"], provenance["eval_images"]) == ("cpu", 260, 100)
    assert provenance["start"] < provenance["end"]
    assert {"python", "torch", "pytorch-lightning", "stability"} <= set(provenance["versions"])
    # A model that the table of counts does not have.
    assert provenance["parameters"] > 5_000
    assert provenance["multiply_adds"] > provenance["parameters"]


def test_learns_the_digits():
    record = train({"model": "vitc_tiny", "lr": 3e-3, "epochs": 4})
    assert record["result"]["top1_error"] < 30
    assert record["result"]["curve"][-1]["train_loss"] < record["result"]["curve"][0]["train_loss"]


@pytest.mark.parametrize(("optimizer", "lr"), [("adamw", 0.005), ("sgd", 0.05)])
def test_equals_a_loop_written_out(trial, optimizer, lr):
    averaged = {"name": "none", "ema": True}
    config = trial("conv", optimizer={"name": optimizer}, lr=lr, wd=0.1, epochs=6, recipe=averaged)
    data = get_data(config.data, config.recipe, config.batch_size)
    model = build(config, data)
    vectors = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    groups: list[dict[str, Any]] = [
        {"params": others, "weight_decay": 0.1},
        {"params": vectors, "weight_decay": 0.0},
    ]
    step = torch.optim.SGD(groups, momentum=0.9) if optimizer == "sgd" else torch.optim.AdamW(groups)
    # Six epochs of four steps; the warm-up of 0.6 epochs is two steps. The average takes in every step.
    schedule, share = Schedule("cosine", lr, 2, 24), 12.8 / 24
    average = copy.deepcopy(model)
    images, targets = (torch.cat(parts) for parts in zip(*data.eval_batches(), strict=True))
    curve = train(config)["result"]["curve"]
    for epoch, row in enumerate(curve):
        losses = []
        for number, batch in enumerate(data.train_batches(epoch), 4 * epoch):
            for group in step.param_groups:
                group["lr"] = schedule.lr(number)
            step.zero_grad()
            losses.append(F.cross_entropy(model(batch.images), batch.targets))
            losses[-1].backward()
            step.step()
            for mean, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
                mean.copy_(value if number < 2 or not mean.is_floating_point() else (1 - share) * mean + share * value)
        # Fused updates may round differently from the default ones, and tip one image of 100.
        assert row["train_loss"] == pytest.approx(sum(loss.item() for loss in losses) / 4, rel=1e-4)
        assert row["lr"] == schedule.lr(4 * epoch + 3)
        for prefix, evaluated in (("", model), ("ema_", average)):
            logits = copy.deepcopy(evaluated).eval()(images)
            assert row[f"{prefix}loss"] == pytest.approx(F.cross_entropy(logits, targets).item(), rel=1e-4)
            assert abs(row[f"{prefix}top1_error"] - (logits.argmax(1) != targets).sum().item()) <= 1
    # The two are apart, so that one taken for the other would show.
    assert max(abs(row["ema_loss"] / row["loss"] - 1) for row in curve) > 4e-4


def test_the_recipe_says_which_weights_count(trial):
    averaged = train(trial("conv", recipe={"name": "light", "ema": True}))["result"]
    last = averaged["curve"][-1]
    assert averaged["top1_error"] == last["ema_top1_error"]
    assert averaged["top5_error"] == last["ema_top5_error"]
    assert averaged["best_top1_error"] == min(row["ema_top1_error"] for row in averaged["curve"])
    # The average changes what is evaluated and nothing of the training.
    plain = train(trial("conv"))["result"]
    assert [row["loss"] for row in plain["curve"]] == [row["loss"] for row in averaged["curve"]]


def test_two_runs_agree_and_seeds_differ(trial):
    first, again, other = (train(trial("conv", seed=seed))["result"] for seed in (0, 0, 1))
    assert first == again
    assert first["curve"][0]["train_loss"] != other["curve"][0]["train_loss"]


def test_nobody_elses_generators_are_read_or_moved(trial):
    config = trial(own("Noisy"), epochs=1)
    states, results = [], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        results.append(train(config)["result"])
        try_first_batch(config)
        measure(config, steps=1)
        states.append(torch.equal(before, torch.get_rng_state()))
    assert states == [True, True]
    assert results[0] == results[1]


def test_a_users_own_model_trains(trial):
    record = train(trial(own(width=32), epochs=6))
    assert record["cell"]["model"] == own()["_target_"]
    assert record["result"]["top1_error"] < 60


def test_a_timm_model_trains(trial):
    pytest.importorskip("timm")
    model = {"_target_": "stability.models.cnn.timm_model", "architecture": "resnet10t", "family": "cnn"}
    deep = trial(model, epochs=1, batch_size=32, recipe={"name": "light", "stochastic_depth": 0.5})
    record = train(deep)
    assert record["status"] == "completed"
    assert record["result"] == train(deep)["result"]


def test_bf16_computes_in_bf16_and_keeps_float32_weights(trial, monkeypatch):
    seen = set()
    forward = nn.Linear.forward

    def spy(self, input):
        output = forward(self, input)
        seen.add((self.weight.dtype, output.dtype))
        return output

    monkeypatch.setattr(nn.Linear, "forward", spy)
    record = train(trial("conv", precision="bf16", epochs=1))
    assert seen == {(torch.float32, torch.bfloat16)}
    assert record["result"]["curve"] != train(trial("conv", epochs=1))["result"]["curve"]


@pytest.mark.parametrize("recipe", [{"label_smoothing": 0.3}, {"mixup": 1.0}, {"cutmix": 1.0, "label_smoothing": 0.1}])
def test_label_smoothing_and_mixing_reach_the_loss_once(trial, recipe):
    # With an lr of nothing the epoch's loss is that of the initial weights.
    config = trial(epochs=1, lr=1e-30, recipe={"name": "none", **recipe})
    data = get_data(config.data, config.recipe, config.batch_size)
    model, smoothing, losses = build(config, data), recipe.get("label_smoothing", 0), []
    nn.init.normal_(model.classifier.weight)
    state = model.state_dict()
    for batch in data.train_batches(0):
        shares = F.one_hot(batch.targets, 10).float() if batch.targets.ndim == 1 else batch.targets
        target = shares * (1 - smoothing) + smoothing / 10
        losses.append(-(target * model(batch.images).log_softmax(1)).sum(1).mean().item())
    member = Member(config, data.steps_per_epoch)
    stack = ModelStack([build(config, data)])
    stack.load_member_state(0, state)
    module = StackModule(stack, [member], data)
    fit(module, torch.device("cpu"))
    assert member.progress.curve[0]["train_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_stochastic_depth_drops_branches_in_training_only(trial, monkeypatch):
    from stability.models.vit import VisionTransformer

    seen = []
    forward = VisionTransformer.forward
    monkeypatch.setattr(
        VisionTransformer,
        "forward",
        lambda self, images, keep=None: (seen.append((self.training, keep)), forward(self, images, keep))[1],
    )
    train(trial(epochs=1, recipe={"name": "light", "stochastic_depth": 0.5}))
    assert [training for training, _ in seen] == [True] * 4 + [False] * 2
    assert all(keep is None for training, keep in seen if not training)
    masks = [keep for training, keep in seen if training]
    assert all(
        keep.shape == (4, 64) and (keep[:2] == 1).all() and set(keep[2:].unique().tolist()) == {0, 2} for keep in masks
    )
    assert not torch.equal(masks[0], masks[1])


def test_top5_needs_six_classes():
    from stability.training.evaluation import evaluate

    targets = torch.tensor([0, 1, 2, 3])
    for classes, expected in ((5, None), (6, 25.0)):
        logits = torch.arange(classes, dtype=torch.float32).flip(0).expand(1, 4, classes).clone()
        # The last image's class is the least likely of six.
        logits[0, 3, 3] = -1.0
        (score,) = evaluate(lambda images: logits, [(torch.zeros(4, 1), targets)], torch.device("cpu"))  # noqa: B023
        assert (score["top1_error"], score["top5_error"]) == (75.0, expected)


def test_scores_sum_over_uneven_batches():
    from stability.training.evaluation import evaluate

    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(2, 10, 7, generator=generator), torch.randint(7, (10,), generator=generator)
    batches = [(torch.arange(0, 8), targets[:8]), (torch.arange(8, 10), targets[8:])]
    scores = evaluate(lambda images: logits[:, images], batches, torch.device("cpu"))
    for score, one in zip(scores, logits, strict=True):
        assert score["loss"] == pytest.approx(F.cross_entropy(one, targets).item())
        assert score["top1_error"] == (one.argmax(1) != targets).sum().item() * 10
        inside = (one.topk(5).indices == targets[:, None]).any(1)
        assert score["top5_error"] == (~inside).sum().item() * 10


def test_events_tell_epochs_and_progress(trial, monkeypatch):
    monkeypatch.setattr("stability.training.writer.PROGRESS_SECONDS", 0)
    events = []
    record = train(trial(epochs=2), on_event=lambda *event: events.append(event))
    epochs = [values for kind, values in events if kind == "epoch"]
    assert [(one["id"], one["epoch"], one["epochs"]) for one in epochs] == [(record["id"], 1, 2), (record["id"], 2, 2)]
    assert epochs[1]["loss"] == record["result"]["curve"][1]["loss"]
    progress = [(values["step"], values["steps"]) for kind, values in events if kind == "progress"]
    assert progress == [(step, 8) for step in range(1, 9)]


def test_lightning_counts_steps_and_epochs(trial, monkeypatch, tmp_path):
    seen = []
    fit = pl.Trainer.fit
    monkeypatch.setattr(
        pl.Trainer,
        "fit",
        lambda self, *a, **k: (fit(self, *a, **k), seen.append((self.current_epoch, self.global_step)))[0],
    )
    train(trial())
    assert seen == [(3, 12)]


def test_trains_outside_the_main_thread(trial):
    records = []
    thread = threading.Thread(target=lambda: records.append(train(trial())))
    thread.start()
    thread.join()
    assert records[0]["result"] == train(trial())["result"]


def test_writes_nothing_where_no_folder_is_given(trial, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    train(trial(epochs=1, training={"checkpoint_seconds": 0}))
    assert list(tmp_path.iterdir()) == []
    # Nor anywhere on the screen.
    assert capfd.readouterr() == ("", "")


def test_a_record_tells_the_peak_lr_where_it_is_scaled() -> None:
    values = {"data": {"name": "digits", "train_size": 260}, "epochs": 1, "lr": 0.01, "batch_size": 64}
    recipe = {"recipe": {"name": "light", "lr_batch": 2048}}
    scaled, plain = train({**values, **recipe}), train({**values, "batch_size": 32})
    assert scaled["peak_lr"] == 0.01 * 64 / 2048
    assert scaled["result"]["curve"][0]["lr"] < scaled["peak_lr"]
    assert "peak_lr" not in plain
