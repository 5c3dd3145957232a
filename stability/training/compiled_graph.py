"""Code for a traced step: rewrites that let more of it fuse, compilation, and a comparison with the operations."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from stability.devices import is_short_of_memory

Function = Callable[..., Tensor]
log = logging.getLogger("stability.training")
# By what share a compiled step's losses and norms, and what it changes, may differ from the step in its parts, in bf16
# too. AdamW moves weights by lr wherever a gradient is rounded to one side of 0 or the other.
VALUES_DIFFER, CHANGES_DIFFER = 0.2, 1.0
# Of a member that is not about to diverge; that of a guess among 1,000 classes is 6.9.
MOST_LOSS = 100.0


def compile_graph(graph: GraphModule, given: list[Tensor]) -> Function:
    """Return compiled code of traced operations, which returns one tensor."""
    compiled = torch._inductor.compile(separate_biases(graph), list(given))

    return lambda *flat: _tensor(compiled(*flat))


def compare(function: Function, traced: GraphModule, given: Sequence[Tensor], *, trained: int, changing: int) -> None:
    """Take one step with what is compiled and one with the operations that it was compiled from; nothing is changed.

    Compiled code for a device is as good as the compiler is. Members that are about to diverge, by their own losses or
    updates, are not compared. Where memory does not suffice for both steps' numbers a line says that none is.

    Args:
        function: what is compiled.
        traced: its operations, which are run one by one.
        given: what both take.
        trained: how many of them, at the beginning, are weights, (K, ...) each.
        changing: how many of them, at the beginning, are changed: weights, then buffers and states of optimizers.

    Raises:
        RuntimeError: the loss, the gradient norm or the changes of a member differ by more than rounding makes them.
    """
    before = [one.clone() for one in given[:changing]]
    lanes = len(given[0])
    # States of members that lie scattered have fewer rows; counters of steps are whole numbers.
    others = [place for place in range(trained, changing) if len(given[place].shape) > 1 and len(given[place]) == lanes]

    def taken(step: Function) -> tuple[Tensor, list[Tensor]]:
        """Return losses and gradient norms (2, lanes), and what is changed of weights and of the rest, (lanes, n)."""
        try:
            values = _tensor(step(*given)).clone()
            changes = [
                torch.cat([(given[place] - before[place]).flatten(1).float() for place in places], dim=1)
                for places in (range(trained), others)
                if places
            ]
            return values, changes
        finally:
            for one, was in zip(given, before, strict=False):
                one.copy_(was)

    try:
        (values, changes), (wanted, updates) = taken(function), taken(traced)
    except Exception as error:
        if not is_short_of_memory(error):
            raise
        log.warning("the compiled training step is not compared with its operations: memory does not suffice for both")
        return
    norms = [torch.linalg.vector_norm(one, dim=1) for one in updates]
    off = [torch.linalg.vector_norm(one - other, dim=1) for one, other in zip(changes, updates, strict=True)]
    fits = ((values - wanted).abs() <= VALUES_DIFFER * wanted.abs().clamp_min(VALUES_DIFFER)).all(0)
    is_sound = wanted.isfinite().all(0) & (wanted[0] < MOST_LOSS)
    for own, difference in zip(norms, off, strict=True):
        fits &= difference <= CHANGES_DIFFER * own
        is_sound &= own.isfinite()
    wrong = (is_sound & ~fits).nonzero().flatten().tolist()
    if wrong:
        lane = wrong[0]
        found, expected = (" and ".join(f"{one:.4g}" for one in row[:, lane].tolist()) for row in (values, wanted))
        shares = ", ".join(f"{float(one[lane] / own[lane]):.2g}" for one, own in zip(off, norms, strict=True))
        raise RuntimeError(
            f"{len(wrong)} of {lanes} members differ, member {lane} with loss and gradient norm {found}, in parts "
            f"{expected}; its changes by {shares} of themselves"
        )


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


def _tensor(found: Tensor | Sequence[Tensor]) -> Tensor:
    # What is compiled returns a list, and its graph does too then.
    return found if isinstance(found, Tensor) else found[0]
