"""The bytes of a compiled evaluation, which the library does not have: whether it would pay."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten, tree_unflatten

from benchmarks.roofline.fake import fake_gpu
from benchmarks.roofline.fused import Fused, planned_by
from benchmarks.roofline.tracing import pack_on_gpu
from stability.training.compiled_graph import compile_graph
from stability.training.contexts import autocast
from stability.training.stack import States


def count_compiled_pass(model: str, size: int, batch_size: int, precision: str) -> Fused:
    """Return what a pass over a batch would move as one compiled function, of the weights or of the averages.

    Args:
        model: a name of `benchmarks.packs.MODELS`.
        size: the number of members, more than 1.
        batch_size: images.
        precision: bf16 or float32.
    """
    with fake_gpu(), torch.no_grad():
        module, batch = pack_on_gpu(model, size, batch_size, precision)
        stack = module.stack.eval()
        with autocast(module.device, module.autocast_type):
            prepared = stack.prepared(stack.states())
            given, form = tree_flatten((prepared.parts, prepared.products))
            given = [*(one.detach() for one in given), batch.images]

            def compute(*flat: Tensor) -> Tensor:
                parts, products = tree_unflatten(list(flat[:-1]), form)
                return stack.call(States(parts, True, products), flat[-1])

            graph = make_fx(compute, tracing_mode="fake", _allow_non_fake_inputs=True)(*given)
        return planned_by(lambda: compile_graph(graph, given))
