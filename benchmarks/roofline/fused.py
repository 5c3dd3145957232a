"""The bytes of a compiled training step: inductor plans its kernels on a GPU that is not there, and makes none.

The library's own function of a whole step is traced and handed to inductor, which decomposes, fuses and schedules it as
for an H100 or H200. What each of its kernels reads and writes is counted by inductor's own rule: the inputs and outputs
of each fused node, each buffer once. Calls of libraries (products, attention) are nodes of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._inductor import config
from torch._inductor.fx_passes import joint_graph
from torch._inductor.graph import GraphLowering
from torch._inductor.ir import ExternKernelOut
from torch._inductor.scheduler import BaseSchedulerNode, ForeachKernelSchedulerNode, FusedSchedulerNode
from torch.fx import GraphModule

from benchmarks.roofline.counting import Call, Device, Totals, Trace
from benchmarks.roofline.fake import CAPABILITY, GPU, fake_gpu
from benchmarks.roofline.tracing import pack_on_gpu
from stability.training import whole
from stability.training.compiled_graph import separate_biases

# Of an H200, as far as inductor asks.
PROPERTIES = SimpleNamespace(
    name="NVIDIA H200",
    major=CAPABILITY[0],
    minor=CAPABILITY[1],
    multi_processor_count=132,
    total_memory=141 * 2**30,
    regs_per_multiprocessor=65_536,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    warp_size=32,
    shared_memory_per_block=49_152,
    shared_memory_per_block_optin=232_448,
    L2_cache_size=50 * 2**20,
    gcnArchName="",
)
CPU = torch.device("cpu")
# What inductor would compute or measure on the device itself.
UNMEASURED: dict[str, Any] = {"joint_graph_constant_folding": False, "shape_padding": False, "fx_graph_cache": False}


@dataclass(frozen=True)
class Fused:
    """The kernels of a compiled step, calls of libraries among them."""

    calls: tuple[Call, ...]

    @property
    def kernels(self) -> int:
        """How many move bytes."""
        return len(self.calls)

    @property
    def bytes(self) -> int:
        """What all of them move."""
        return sum(call.bytes for call in self.calls)

    def total(self, device: Device) -> Totals:
        """Return sums over all kernels."""
        return Trace(list(self.calls)).total(device)

    def by_kind(self, device: Device) -> dict[str, Totals]:
        """Return sums by what kernels hold, those that move most bytes first."""
        return Trace(list(self.calls)).by_name(device)


class _Planned(Exception):
    """Ends a compilation once the kernels are known."""

    def __init__(self, found: Fused) -> None:
        super().__init__()
        self.found = found


def count_compiled_step(model: str, size: int, batch_size: int, precision: str) -> Fused:
    """Return what a compiled training step moves; the averages are updated outside of it.

    Args:
        model: a name of `benchmarks.packs.MODELS`.
        size: the number of members, more than 1.
        batch_size: images.
        precision: bf16 or float32.
    """
    with fake_gpu():
        module, batch = pack_on_gpu(model, size, batch_size, precision)
        traced: list[tuple[GraphModule, list[Tensor]]] = []

        def keep(graph: GraphModule, given: list[Tensor]) -> Any:
            traced.append((graph, given))
            return graph

        module.compiler.is_on = True
        # There are no numbers to compare.
        idle = patch.object(whole, "compare", lambda *given, **counts: None)
        with patch.object(whole, "compile_graph", keep), patch.object(whole, "_COMPILED", {}), idle:
            module.whole.take(batch, module.members)
        assert module.whole.refusal is None, module.whole.refusal
        graph, given = separate_biases(traced[0][0]), traced[0][1]
        _without_scalar_lerp(graph)
        with torch.no_grad():
            return planned_by(lambda: torch._inductor.compile(graph, list(given)))


def planned_by(compile_: Callable[[], object]) -> Fused:
    """Return what a compilation would make, which ends before it writes code. Call it with `fake_gpu` on."""
    with _planning():
        try:
            compile_()
        except Exception as error:
            found = _planned(error)
            if found is None:
                raise
            return found
    raise AssertionError("inductor has planned nothing")


def _planned(error: BaseException | None) -> Fused | None:
    """Return what ended a compilation, which inductor may have wrapped."""
    while error is not None:
        if isinstance(error, _Planned):
            return error.found
        error = error.__cause__ or error.__context__
    return None


def _without_scalar_lerp(graph: GraphModule) -> None:
    """Write lerp with a number as a difference and a sum: inductor's own rule puts the number on the device."""
    for node in graph.graph.nodes:
        if node.target is not torch.ops.aten._foreach_lerp_.Scalar:
            continue
        before, after, share = node.args
        with graph.graph.inserting_before(node):
            difference = graph.graph.call_function(torch.ops.aten._foreach_sub.List, (after, before))
            graph.graph.call_function(torch.ops.aten._foreach_add_.List, (before, difference), {"alpha": share})
        graph.graph.erase_node(node)
    graph.recompile()


def _call_of(node: BaseSchedulerNode) -> Call | None:
    """Return what a node of inductor's plan costs; None where it moves nothing."""
    moved = node.get_read_write_buffers_sizes() + _copied(node)
    # Of products. Inductor does not know those of attention, which bytes bind.
    flops = node.estimate_flops() if node.is_extern() else 0
    return Call(_kind_of(node), "compiled", 1, moved, flops or 0) if moved else None


def _kind_of(node: BaseSchedulerNode) -> str:
    if node.is_extern():
        return "products, attention"
    if isinstance(node, ForeachKernelSchedulerNode):
        return "of many tensors"
    return "of several operations" if isinstance(node, FusedSchedulerNode) else "of one operation"


def _copied(node: BaseSchedulerNode) -> int:
    """Return the bytes by which a product with a bias exceeds inductor's count: the bias is copied to the output."""
    made = node.node
    if not isinstance(made, ExternKernelOut) or made.op_overload is not torch.ops.aten.baddbmm.out:
        return 0
    return 2 * int(made.get_numel()) * made.get_dtype().itemsize


@contextmanager
def _planning() -> Iterator[None]:
    """Have inductor believe that there is a GPU, and stop where it would write code for it."""

    def stop(self: GraphLowering) -> None:
        self.init_wrapper_code()
        self._update_scheduler()
        raise _Planned(Fused(tuple(filter(None, map(_call_of, self.scheduler.nodes)))))

    with ExitStack() as stack:
        for target, name, stand_in in (
            (GraphLowering, "compile_to_module", stop),
            # Patterns are traced with tensors of the device; the CPU's serve as well.
            (joint_graph, "lazy_init", lambda device, initialise=joint_graph.lazy_init: initialise(CPU)),
            (torch.cuda, "is_available", lambda: True),
            (torch.cuda, "device_count", lambda: 1),
            (torch.cuda, "current_device", lambda: GPU.index),
            (torch.cuda, "set_device", lambda device: None),
            (torch.cuda, "_exchange_device", lambda device: GPU.index),
            (torch.cuda, "_maybe_exchange_device", lambda device: GPU.index),
            (torch.cuda, "_lazy_init", lambda: None),
            (torch.cuda, "synchronize", lambda device=None: None),
            (torch.cuda, "get_rng_state", lambda device=None: torch.get_rng_state()),
            (torch.cuda, "set_rng_state", lambda *state: None),
            (torch.cuda, "get_device_properties", lambda device=None: PROPERTIES),
            (torch.cuda, "_get_device_properties", lambda device=None: PROPERTIES),
        ):
            stack.enter_context(patch.object(target, name, stand_in, create=True))
        stack.enter_context(config.patch(UNMEASURED))
        yield
