"""Code for a traced step: rewrites that let more of it fuse, compilation, and a comparison with the operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from stability.training.stack import norms_by_lane

Function = Callable[..., Tensor]
# By what share a compiled step's losses and norms, and its updates, may differ from the step in its parts, in bf16 too.
# AdamW moves weights by lr wherever a gradient is rounded to one side of 0 or the other.
VALUES_DIFFER, UPDATES_DIFFER = 0.05, 0.5


def compile_graph(graph: GraphModule, given: list[Tensor]) -> Function:
    """Return compiled code of traced operations, which returns one tensor."""
    compiled = torch._inductor.compile(separate_biases(graph), list(given))

    return lambda *flat: _tensor(compiled(*flat))


def compare(function: Function, traced: GraphModule, given: Sequence[Tensor], *, trained: int, changing: int) -> None:
    """Take one step with what is compiled and one with the operations that it was compiled from; nothing is changed.

    Compiled code for a device is as good as the compiler is. Members that are about to diverge may differ.

    Args:
        function: what is compiled.
        traced: its operations, which are run one by one.
        given: what both take.
        trained: how many of them, at the beginning, are weights.
        changing: how many of them, at the beginning, are changed.

    Raises:
        RuntimeError: losses, norms or updates of more than a quarter of the members differ by more than rounding.
    """
    before = [one.clone() for one in given[:changing]]

    def taken(step: Function) -> tuple[Tensor, list[Tensor]]:
        try:
            values = _tensor(step(*given)).clone()
            return values, [one - was for one, was in zip(given[:trained], before[:trained], strict=True)]
        finally:
            for one, was in zip(given, before, strict=False):
                one.copy_(was)

    try:
        (values, changes), (wanted, updates) = taken(function), taken(traced)
    except torch.OutOfMemoryError:
        # There is no room for two steps' numbers; one step may have it.
        return
    differ = ((values - wanted).abs() > VALUES_DIFFER * wanted.abs().clamp_min(VALUES_DIFFER)).any(0)
    off = norms_by_lane([one - other for one, other in zip(changes, updates, strict=True)])
    differ |= off > UPDATES_DIFFER * norms_by_lane(updates)
    # Of a member that diverges in this very step there is nothing to compare.
    known = wanted.isfinite().all(0)
    known_differ = (differ | ~values.isfinite().all(0)) & known
    if int(known_differ.sum()) * 4 > int(known.sum()):
        lane = int(known_differ.nonzero()[0])
        found, expected = (" and ".join(f"{one:.4g}" for one in row[:, lane].tolist()) for row in (values, wanted))
        raise RuntimeError(f"compiled, its loss and gradient norm are {found}, in its parts {expected}")


def separate_biases(traced: GraphModule) -> GraphModule:
    """Return the operations with each product that a bias is added to as two. Results differ in their rounding alone.

    The library copies the bias to every row of the output, and the product reads it there. An addition of its own is
    part of the kernel that reads the product next.
    """
    graph = Graph()
    graph.output(graph.graph_copy(traced.graph, {}))
    for node in graph.nodes:
        if node.target is not torch.ops.aten.baddbmm.default or node.kwargs or not _is_broadcast(node):
            continue
        bias, left, right = node.args
        with graph.inserting_before(node):
            product = graph.call_function(torch.ops.aten.bmm.default, (left, right))
            added = graph.call_function(torch.ops.aten.add.Tensor, (product, bias))
        for made in (product, added):
            made.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(added)
        graph.erase_node(node)
    return GraphModule(traced, graph)


def _is_broadcast(node: Node) -> bool:
    bias = node.args[0]
    assert isinstance(bias, Node)
    return bool(bias.meta["val"].numel() < node.meta["val"].numel())


def _tensor(found: Tensor | Sequence[Tensor]) -> Tensor:  # What is compiled returns a list, its graph then too.
    return found if isinstance(found, Tensor) else found[0]
