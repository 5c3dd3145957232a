"""Rewrites of a traced step compute what the step does, in operations that a compiler fuses."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from stability.training.compiled_graph import separate_biases
from stability.training.stacked import layers


def traced(function: Any, *given: Tensor) -> GraphModule:
    return make_fx(function, tracing_mode="fake")(*given)


def names(graph: GraphModule) -> list[str]:
    return [node.target.overloadpacket.__name__ for node in graph.graph.nodes if node.op == "call_function"]


def test_a_bias_of_every_row_is_added_after_the_product() -> None:
    torch.manual_seed(1)
    rows, weight, bias = torch.randn(3, 8, 4), torch.randn(3, 5, 4), torch.randn(3, 5)
    graph = traced(lambda *given: layers.linear(*given, torch.float32), rows, weight, bias)
    before = graph(rows, weight, bias)
    assert "baddbmm" in names(graph)
    other = separate_biases(graph)
    assert "baddbmm" in names(graph), "compared with what is compiled"
    graph = other
    assert [name for name in names(graph) if name in ("baddbmm", "bmm", "add")] == ["bmm", "add"]
    torch.testing.assert_close(graph(rows, weight, bias), before, rtol=1e-6, atol=1e-6)


def test_products_that_are_added_to_rows_of_their_own_stay() -> None:
    graph = traced(torch.baddbmm, torch.randn(3, 8, 5), torch.randn(3, 8, 4), torch.randn(3, 4, 5))
    assert names(separate_biases(graph)) == ["baddbmm"]


def test_rows_beside_their_margin_are_the_same_bits_traced_and_not() -> None:
    """One operation joins both parts where a compiler follows; else each is written where it belongs."""
    normed = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(2))
    for to in (torch.float32, torch.bfloat16):
        graph = traced(partial(layers._with_margin, to=to), normed)
        assert "cat" in names(graph)
        found = layers._with_margin(normed, to)
        assert found.dtype == to
        assert torch.equal(graph(normed), found)
        assert torch.equal(found[..., 5:], torch.full((2, 6, layers.MARGIN), 1 / layers.MARGIN, dtype=to))
