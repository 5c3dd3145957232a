"""A stack is its models: alone it is the plain module, together each is as it would be alone."""

from __future__ import annotations

import copy

import pytest
import torch

from stability.models import build_model
from stability.training.stack import ModelStack


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
    logits = stack.apply_states(states, images())
    for k, model in enumerate(others):
        torch.testing.assert_close(logits[k], model.eval()(images()), rtol=0, atol=1e-12)
    assert torch.equal(before, stack(images()))
