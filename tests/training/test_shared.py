"""One update for members of one kind: to the bit what torch.optim computes for each of them alone."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stability.config import TrialConfig
from stability.training.member import Member
from stability.training.module import StackModule
from stability.training.shared import SharedUpdates, groups
from stability.training.stack import ModelStack
from tests.plain import train_pack

# Of torch.optim, the implementation that is the reference.
PLAIN = {"foreach": False, "fused": False}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {"_target_": "torch.optim.AdamW"},
    "adamw of other betas": {"_target_": "torch.optim.AdamW", "betas": [0.3, 0.95], "eps": 1e-3},
    "adamw of little memory": {"_target_": "torch.optim.AdamW", "betas": [0.1, 0.5]},
    "sgd": {"_target_": "torch.optim.SGD"},
    "momentum": {"_target_": "torch.optim.SGD", "momentum": 0.9},
    "dampening": {"_target_": "torch.optim.SGD", "momentum": 0.7, "dampening": 0.3},
    "nesterov": {"_target_": "torch.optim.SGD", "momentum": 0.9, "nesterov": True},
    "rmsprop": {"_target_": "torch.optim.RMSprop"},
}
MakeTrial = Callable[..., TrialConfig]


class Small(nn.Module):
    """Parameters of several shapes and odd sizes, decayed and not; one has no dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Linear(27, 7), nn.LayerNorm(7), nn.Linear(7, 5))
        self.gain = nn.Parameter(torch.tensor(1.5))


class Pack:
    """Members at the first lanes of a stack, which take steps on drawn gradients at lrs that fall."""

    def __init__(self, configs: Sequence[TrialConfig], dtype: torch.dtype, size: int | None = None) -> None:
        torch.manual_seed(0)
        self.stack = ModelStack([Small().to(dtype) for _ in range(size or len(configs))])
        self.members = [Member(config, steps_per_epoch=10) for config in configs]
        for lane, member in enumerate(self.members):
            member.attach(self.stack, lane)
        self.updates: SharedUpdates | None = None

    def step(self, number: int, absent: str = "none", spoilt: int | None = None) -> None:
        """Take step `number` without a gradient of the parameter `absent`, with infinite ones at the lane `spoilt`."""
        draw = torch.Generator().manual_seed(number)
        self.stack.clear_gradients()
        for name, parameter in Small().named_parameters():
            stacked = self.stack.stacked(name)
            # A draw for each lane, whatever the size of the stack. Some are 0, of either sign.
            drawn = torch.randn(8, *parameter.shape, generator=draw, dtype=torch.float64)
            drawn = torch.where(drawn.abs() < 0.1, drawn * 0.0, drawn)[: self.stack.size].to(stacked.dtype)
            if spoilt is not None:
                drawn[spoilt] = torch.inf
            stacked.grad = None if absent == name else drawn
        for member in self.members:
            for group in member.optimizer.param_groups:
                group["lr"] = member.config.lr / (1 + number)
        if self.updates is not None:
            self.updates.step(self.members)
            return
        self.stack.share_gradients()
        for member in self.members:
            member.optimizer.step()


def packs(
    trial: MakeTrial,
    names: Sequence[str],
    dtype: torch.dtype = torch.float32,
    size: int | None = None,
    wds: Sequence[float] = (0.1, 0.003, 0.7, 0.02, 0.3, 0.05),
) -> tuple[Pack, Pack]:
    """Return a pack that shares updates and, of the same weights, one that does not."""

    def config(place: int, name: str, plain: dict[str, Any]) -> TrialConfig:
        own = {"foreach": False} if name == "rmsprop" else plain
        return trial(lr=0.3 / 3**place, wd=wds[place], optimizer={"name": name, **OPTIMIZERS[name], **own})

    ours, theirs = (
        Pack([config(place, name, plain) for place, name in enumerate(names)], dtype, size) for plain in ({}, PLAIN)
    )
    ours.updates = SharedUpdates(ours.stack)
    return ours, theirs


def use_plain(members: Sequence[Member]) -> None:
    """Let members' own optimizers compute as the reference does: by themselves they take torch's fused updates."""
    for member in members:
        for group in member.optimizer.param_groups:
            group.update(PLAIN)


def bits(tensor: Tensor) -> Tensor:
    return tensor.detach().view({4: torch.int32, 8: torch.int64}[tensor.element_size()])


def content(pack: Pack) -> dict[str, Tensor]:
    """All bits of the stack and of its members' optimizers, by name."""
    found = {name: bits(tensor) for name, tensor in pack.stack.named_parameters()}
    for lane, member in enumerate(pack.members):
        for place, state in member.optimizer.state_dict()["state"].items():
            found |= {f"{lane}.{place}.{name}": bits(tensor) for name, tensor in state.items()}
    return found


def differences(one: Pack, other: Pack) -> list[str]:
    left, right = content(one), content(other)
    assert left.keys() == right.keys()
    return [name for name in left if not torch.equal(left[name], right[name])]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["32", "64"])
@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "rmsprop"])
def test_updates_are_torch_optims_to_the_bit(trial, name, dtype):
    ours, theirs = packs(trial, [name] * 5, dtype)
    for number in range(40):
        ours.step(number)
        theirs.step(number)
        assert differences(ours, theirs) == []
    assert all(ours.updates.covers(member) for member in ours.members)
    assert all(one.isfinite().all() for one in ours.stack.parameters())
    assert not any(torch.equal(one[0], one[1]) for one in ours.stack.parameters() if one[0].numel() > 7)


def by_reciprocal(tensors: list[Tensor], number: float) -> None:
    """Divide as some of a GPU's kernels do."""
    for tensor in tensors:
        tensor.mul_(1 / number)


def divided_first(parameters: list[Tensor], factors: list[Tensor], divisors: list[Tensor]) -> None:
    for parameter, factor, divisor in zip(parameters, factors, divisors, strict=True):
        parameter.add_(factor * divisor.reciprocal())


def by_division(tensors: list[Tensor], number: float) -> None:
    for tensor in tensors:
        tensor.div_(1 / number)


@pytest.mark.parametrize(
    ("name", "operation", "other"),
    [
        ("adamw", "_foreach_div_", by_reciprocal),
        ("adamw", "_foreach_addcdiv_", divided_first),
        ("momentum", "_foreach_mul_", by_division),
    ],
)
def test_another_rounding_is_found(trial, monkeypatch, name, operation, other):
    """What the test above is worth: the same update in exact arithmetic, rounded in another order."""
    ours, theirs = packs(trial, [name] * 3)
    theirs.step(0)
    theirs.step(1)
    monkeypatch.setattr(torch, operation, other)
    ours.step(0)
    ours.step(1)
    assert differences(ours, theirs)
    for one, plain in zip(ours.stack.parameters(), theirs.stack.parameters(), strict=True):
        assert torch.allclose(one, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "momentum"])
def test_members_without_decay_are_left_alone(trial, name):
    ours, theirs = packs(trial, [name] * 4, wds=[0.1, 0.0, 0.0, 0.2])
    assert [len(group) for group in groups(ours.members)] == [2, 2]
    for number in range(5):
        ours.step(number)
        theirs.step(number)
    assert differences(ours, theirs) == []


MIXED = ["adamw", "momentum", "rmsprop", "adamw", "momentum", "adamw"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["32", "64"])
@pytest.mark.parametrize("names", [MIXED, sorted(MIXED), ["momentum", "momentum", "adamw", "sgd"]])
def test_kinds_are_mixed_and_idle_lanes_keep_every_bit(trial, names, dtype):
    ours, theirs = packs(trial, names, dtype, size=8)
    before = [bits(one)[len(names) :].clone() for one in ours.stack.parameters()]
    for number in range(10):
        ours.step(number)
        theirs.step(number)
    assert differences(ours, theirs) == []
    after = [bits(one)[len(names) :] for one in ours.stack.parameters()]
    assert all(map(torch.equal, before, after))
    assert [ours.updates.covers(member) for member in ours.members] == [name != "rmsprop" for name in names]


@pytest.mark.parametrize("name", ["adamw", "momentum"])
def test_what_is_not_finite_stays_in_its_lane(trial, name):
    ours, theirs = packs(trial, [name] * 3)
    for number in range(4):
        ours.step(number, spoilt=1)
        theirs.step(number)
    for one, other in zip(ours.stack.parameters(), theirs.stack.parameters(), strict=True):
        assert not one[1].isfinite().any()
        assert torch.equal(bits(one)[[0, 2]], bits(other)[[0, 2]])


@pytest.mark.parametrize("names", [["adamw"] * 4, ["momentum"] * 4, ["adamw", "momentum", "adamw", "momentum"]])
def test_members_leave_and_move(trial, names):
    ours, theirs = packs(trial, names)
    for number in range(9):
        if number == 3:
            gone = ours.members.pop(1), theirs.members.pop(1)
            kept = {name: tensor.clone() for name, tensor in ours.stack.member_tensors(1).items()}
            state = {name: one.clone() for name, one in gone[0].optimizer.state_dict()["state"][0].items()}
        if number == 6:
            assert all(torch.equal(one, kept[name]) for name, one in ours.stack.member_tensors(1).items())
            last = gone[0].optimizer.state_dict()["state"][0]
            assert all(torch.equal(last[name], tensor) for name, tensor in state.items())
            for pack in (ours, theirs):
                places = [member.index for member in pack.members]
                pack.stack = pack.stack.select([*places, places[-1]])
                for lane, member in enumerate(pack.members):
                    member.move(pack.stack, lane)
            ours.updates = SharedUpdates(ours.stack)
        ours.step(number)
        theirs.step(number)
        assert differences(ours, theirs) == []


def test_a_member_that_moved_out_goes_on_by_its_own_optimizer(trial):
    """Its state is views into what was shared: none may be counted, or changed, for another parameter."""
    ours, theirs = packs(trial, ["adamw"] * 3)
    for pack in (ours, theirs):
        pack.step(0)
        pack.step(1)
        model = pack.stack.select([1])
        member = pack.members[1]
        member.move(model, 0)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        use_plain([member])
        member.optimizer.step()
        member.optimizer.step()
        assert {float(state["step"]) for state in member.optimizer.state.values()} == {4.0}
    assert differences(ours, theirs) == []


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file)


@pytest.mark.parametrize("resumed_shares", [False, True], ids=["to own", "to shared"])
@pytest.mark.parametrize("written_shares", [False, True], ids=["from own", "from shared"])
@pytest.mark.parametrize("names", [["adamw"] * 3, ["nesterov", "adamw", "nesterov"], ["sgd"] * 3])
def test_states_are_torch_optims(trial, names, written_shares, resumed_shares):
    """A checkpoint does not tell how its steps were made, and both ways go on from it."""
    whole = packs(trial, names)[1]
    written = packs(trial, names)[not written_shares]
    resumed = packs(trial, names)[not resumed_shares]
    for number in range(3):
        written.step(number)
        # What the resumed ones did before is forgotten.
        resumed.step(number + 50)
    for old, new in zip(written.members, resumed.members, strict=True):
        new._stack.load_member_state(new.index, written.stack.member_state(old.index))
        state = through_a_file(old.optimizer.state_dict())
        for group, mine in zip(state["param_groups"], new.optimizer.state_dict()["param_groups"], strict=True):
            group |= {name: mine[name] for name in PLAIN}
        new.optimizer.load_state_dict(state)
    for number in range(6):
        whole.step(number)
    for number in range(3, 6):
        resumed.step(number)
    assert differences(resumed, whole) == []


def test_members_at_different_steps_are_each_corrected_for_their_own(trial):
    ours, theirs = packs(trial, ["adamw"] * 4)
    for pack in (ours, theirs):
        everyone, pack.members = pack.members, pack.members[:2]
        for number in range(3):
            pack.step(number)
        pack.members = everyone
        for number in range(3, 8):
            pack.step(number)
    assert differences(ours, theirs) == []
    assert [float(member.optimizer.state_dict()["state"][0]["step"]) for member in ours.members] == [8, 8, 5, 5]


@pytest.mark.parametrize(("name", "shared"), [("adamw", [0, 1]), ("momentum", [0, 1, 3, 4])])
def test_parameters_without_a_gradient_take_no_step(trial, name, shared):
    """As in torch.optim. Whose parameters are not at one step shares no more; of SGD only the first step is special."""
    ours, theirs = packs(trial, [name] * 3)
    for number, absent in enumerate(["gain", "gain", "layers.1.weight", "none", "none"]):
        if number == 2:
            # By their own optimizers from here on, which would be torch's fused ones.
            use_plain(ours.members)
        ours.step(number, absent)
        theirs.step(number, absent)
        assert differences(ours, theirs) == []
        assert ours.updates.covers(ours.members[0]) == (number in shared)


@pytest.mark.parametrize(
    ("change", "count"),
    [
        ({}, 2),
        ({"eps": 1e-8}, 2),
        ({"eps": 1e-7}, 1),
        ({"betas": [0.9, 0.95]}, 1),
        ({"_target_": "torch.optim.SGD", "momentum": 0.9}, 1),
        # None of these shares at all.
        ({"amsgrad": True}, 0),
        ({"maximize": True}, 0),
        ({"fused": False}, 0),
        ({"foreach": True}, 0),
        ({"_target_": "torch.optim.Adam"}, 0),
        ({"_target_": "torch.optim.NAdam"}, 0),
    ],
)
def test_who_can_share(trial, change, count):
    """How many are in the group of one whose optimizer differs by `change` from AdamW's defaults."""
    base = {"name": "one", "_target_": "torch.optim.AdamW"}
    one, other = Pack(
        [trial(lr=0.1, optimizer=base), trial(lr=0.2, wd=0.3, optimizer=base | change)], torch.float32
    ).members
    found = groups([one, other])
    assert sum(len(group) for group in found if other in group) == count
    assert any(one in group for group in found)


def test_half_precision_is_not_shared(trial):
    configs = [trial(lr=0.1), trial(lr=0.2)]
    assert groups(Pack(configs, torch.bfloat16).members) == []
    assert len(groups(Pack(configs, torch.float64).members)) == 1


def records_of(pack: Sequence[TrialConfig], **options: Any) -> list[Any]:
    return [record["result"] for record in train_pack(list(pack), **options)]


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("model", ["patchify", "conv"])
def test_a_pack_that_shares_updates_trains_to_the_same_bits(trial, monkeypatch, model, compact):
    """Also when members diverge, end, are clipped and averaged, and the stack shrinks."""
    recipe = {"name": "light", "ema": True, "stochastic_depth": 0.3}

    def pack(plain: dict[str, Any]) -> list[TrialConfig]:
        adamw, sgd = ({"name": name, **OPTIMIZERS[name], **plain} for name in ("adamw", "momentum"))
        return [
            trial(model, lr=1e-3, wd=0.1, seed=1, optimizer=adamw, recipe=recipe),
            trial(model, lr=0.05, wd=1e-3, seed=2, optimizer=sgd, recipe={**recipe, "clip_norm": 0.5}),
            trial(model, lr=1e20, seed=3, optimizer=sgd, recipe=recipe),
            trial(model, lr=3e-3, wd=0.3, seed=4, optimizer=adamw, epochs=1, recipe={**recipe, "clip_norm": 0.5}),
            trial(model, lr=2e-3, wd=0.3, seed=5, optimizer=adamw, epochs=2, recipe={**recipe, "ema": False}),
            trial(model, lr=0.02, wd=1e-4, seed=6, optimizer=sgd, recipe=recipe),
        ]

    monkeypatch.setattr(StackModule, "share_updates", True)
    shared = records_of(pack({}), compact=compact)
    assert [result["epochs_done"] for result in shared] == [3, 3, 0, 1, 2, 3]
    assert shared == records_of(pack(PLAIN), compact=compact)
    # Updates are not shared where an implementation is named, nor with share_updates off.
    monkeypatch.setattr(StackModule, "share_updates", False)
    assert shared == records_of(pack(PLAIN), compact=compact)


def test_a_checkpoint_holds_one_members_tensors(trial, tmp_path, monkeypatch):
    """Also where they are views into tensors of all members."""
    monkeypatch.setattr(StackModule, "share_updates", True)
    sizes = []
    for count in (2, 8):
        pack = [trial(seed=seed, training={"keep_checkpoints": True}) for seed in range(count)]
        folders = [tmp_path / f"{count}-{place}" for place in range(count)]
        train_pack(pack, directories=folders)
        sizes.append(sum(file.stat().st_size for file in folders[0].iterdir()))
    assert sizes[0] > 1000
    assert sizes[1] == pytest.approx(sizes[0], rel=0.01)
