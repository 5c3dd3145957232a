"""A stack is its models: alone it is the plain module, together each is as it would be alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from stability.models import build_model
from stability.training.stack import ModelStack, stack_size


def models(trial, kind, count):
    built = []
    for seed in range(count):
        torch.manual_seed(seed)
        built.append(build_model(trial(kind).model, image_size=16, channels=1, num_classes=10).double())
        # The classifier starts at zero: without weights in it every model gives the same logits.
        torch.nn.init.normal_(built[-1].classifier.weight)
    return built


def images(batch=8):
    return torch.rand(batch, 1, 16, 16, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@pytest.mark.parametrize("kind", ["patchify", "conv"])
def test_one_model_is_the_plain_module(trial, kind):
    (model,) = models(trial, kind, 1)
    stack = ModelStack([model])
    assert torch.equal(stack(images())[0], copy.deepcopy(model)(images()))
    assert list(stack.parameters()) == list(model.parameters())
    assert stack.member_tensors(0)["class_token"] is model.class_token


@pytest.mark.parametrize("kind", ["patchify", "conv"])
def test_members_are_as_they_are_alone(trial, kind):
    alone = models(trial, kind, 3)
    stack = ModelStack(copy.deepcopy(alone))
    keep = torch.rand(3, 4, 8, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    logits = stack(images(), keep)
    optimizers = [torch.optim.SGD(parameters(stack.member_tensors(k)), lr=0.1) for k in range(3)]
    logits.square().sum().backward()
    stack.share_gradients()
    for optimizer in optimizers:
        optimizer.step()
    for k, model in enumerate(alone):
        own = model(images(), keep[k])
        torch.testing.assert_close(logits[k], own, rtol=0, atol=1e-12)
        own.square().sum().backward()
        torch.optim.SGD(model.parameters(), lr=0.1).step()
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(stack.member_state(k)[name], tensor, rtol=0, atol=1e-11)


def parameters(tensors):
    return [tensor for tensor in tensors.values() if tensor.requires_grad]


@pytest.mark.parametrize("count", [1, 2])
def test_a_members_state_loads_into_the_plain_model_and_back(trial, count):
    fresh = models(trial, "conv", count)
    stack = ModelStack(copy.deepcopy(fresh))
    stack(images())
    last = count - 1
    plain = copy.deepcopy(fresh[last])
    plain.load_state_dict(stack.member_state(last))
    assert plain.stem[1].num_batches_tracked == 1
    stack.load_member_state(0, fresh[last].state_dict())
    stack.eval(), fresh[last].eval()
    torch.testing.assert_close(stack(images())[0], fresh[last](images()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("count", [1, 3])
def test_other_weights_can_be_put_in_for_a_forward_pass(trial, count):
    stack, others = ModelStack(models(trial, "conv", count)).eval(), models(trial, "conv", 5)[-count:]
    before = stack(images())
    states = [dict(model.named_parameters()) | dict(model.named_buffers()) for model in others]
    logits = stack.call(stack.together(states), images())
    for k, model in enumerate(others):
        torch.testing.assert_close(logits[k], model.eval()(images()), rtol=0, atol=1e-12)
    assert torch.equal(before, stack(images()))


class Tied(torch.nn.Module):
    """Two layers that share their weights."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(256, 256)
        self.second = torch.nn.Linear(256, 256)
        self.second.weight = self.first.weight
        self.register_buffer("scale", torch.tensor(0.5), persistent=False)

    def forward(self, images):
        return self.second(torch.relu(self.first(images.flatten(1)))) * self.scale


def test_layers_that_share_weights_share_them_in_a_stack(trial):
    torch.manual_seed(0)
    alone = [Tied().double() for _ in range(3)]
    stack = ModelStack(copy.deepcopy(alone))
    logits = stack(images())
    logits.sum().backward()
    stack.share_gradients()
    for k, model in enumerate(alone):
        model(images()).sum().backward()
        torch.testing.assert_close(logits[k], model(images()), rtol=0, atol=1e-12)
        gradient = stack.member_tensors(k)["first.weight"].grad
        torch.testing.assert_close(gradient, model.first.weight.grad, rtol=0, atol=1e-10)
    # A member's state is the plain model's, under every name, and loads into it and back.
    plain = Tied().double()
    plain.load_state_dict(stack.member_state(1))
    torch.testing.assert_close(plain(images()), alone[1](images()))
    stack.load_member_state(0, plain.state_dict())
    torch.testing.assert_close(stack(images())[0], alone[1](images()), rtol=0, atol=1e-12)
    last = stack.select([2])
    assert last.model.first.weight is last.model.second.weight
    torch.testing.assert_close(last(images())[0], logits[2], rtol=0, atol=1e-12)


@pytest.mark.parametrize("count", [1, 3])
def test_members_can_be_chosen_and_padded(trial, count):
    stack = ModelStack(models(trial, "conv", 4))
    before = stack(images())
    chosen = stack.select([3, 1, 1][:count])
    assert chosen.size == count
    stack.eval(), chosen.eval()
    expected = stack(images())[[3, 1, 1][:count]]
    torch.testing.assert_close(chosen(images()), expected, rtol=0, atol=1e-12)
    # Tensors of its own: what becomes of one stack is not the other's business.
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.zero_()
    torch.testing.assert_close(chosen(images()), expected, rtol=0, atol=1e-12)
    assert before.isfinite().all()


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_stack_compiles(trial, count):
    # Traced and differentiated as for any backend; generating code needs a compiler, which a machine may not have.
    stack = ModelStack(models(trial, "patchify", count)).eval()
    expected = stack(images())
    compiled = torch.compile(stack, backend="aot_eager")
    torch.testing.assert_close(compiled(images()), expected, rtol=0, atol=1e-10)


def train_half(rank: int, made: list[nn.Module], folder: str) -> None:
    """Take a step in one of two processes, on its half of the images, and write the gradients."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    wrapped = torch.nn.parallel.DistributedDataParallel(ModelStack(made))
    wrapped(images()[4 * rank : 4 * rank + 4]).square().mean().backward()
    torch.save([parameter.grad for parameter in wrapped.parameters()], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_stack_trains_in_two_processes(trial, count, tmp_path):
    made = models(trial, "patchify", count)
    expected = ModelStack(copy.deepcopy(made))
    expected(images()[:8]).square().mean().backward()
    torch.multiprocessing.spawn(train_half, (made, str(tmp_path)), nprocs=2)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        for own, other in zip(found, expected.parameters(), strict=True):
            torch.testing.assert_close(own, other.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("full", "sizes"), [(8, [1, 2, 4, 4, 8, 8, 8, 8]), (5, [1, 2, 3, 5, 5]), (1, [1]), (2, [1, 2])]
)
def test_a_pack_has_few_sizes(full, sizes):
    assert [stack_size(full, members) for members in range(1, full + 1)] == sizes
