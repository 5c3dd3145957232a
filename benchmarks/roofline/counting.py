"""What every call of torch costs a GPU: kernels, bytes, floating-point operations, and the time that these allow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

# Calls that allocate or describe, and compute nothing.
FREE = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "device", "lift_fresh"})
# Kernels of calls that launch more than one, as in torch's CUDA sources.
KERNELS = {
    "native_layer_norm_backward": 3,
    "native_batch_norm": 3,
    "_native_batch_norm_legit": 3,
    "native_batch_norm_backward": 2,
    "_scaled_dot_product_efficient_attention_backward": 2,
    "_scaled_dot_product_cudnn_attention_backward": 3,
    "_scaled_dot_product_flash_attention_backward": 3,
    "constant_pad_nd": 2,
    "slice_backward": 2,
    "select_backward": 2,
    "convolution_backward": 2,
    # The bias is copied to where the product is added to it.
    "baddbmm": 2,
}
# Calls that write without reading what was there, as all do that are told where their output goes.
WRITING = frozenset({"copy_", "zero_", "fill_", "_foreach_copy_", "_foreach_zero_"})
# Calls that read of a tensor no more than its type and device.
MAKING = frozenset({"new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like"})
# Of one launch of a multi-tensor kernel: elements of a block, blocks, and tensors by how many lists are read.
CHUNK, BLOCKS = 65_536, 320
TENSORS = {1: 110, 2: 64, 3: 48, 4: 36}
# Tensors that one launch puts together.
CONCATENATED = 128


@dataclass(frozen=True)
class Device:
    """What a GPU can do: bytes and operations a second, the shares of these that kernels reach, seconds of a launch."""

    bandwidth: float = 4.8e12
    flops: float = 788e12
    bandwidth_share: float = 0.85
    flops_share: float = 0.55
    # Of convolutions in as many groups as members; in bfloat16 there is no fast kernel for these.
    grouped_flops: float = 30e12
    launch: float = 2e-6

    def seconds(self, call: Call) -> float:
        """Return the time of a call: the largest of what its bytes, its operations and its launches take."""
        flops = self.grouped_flops if call.is_grouped else self.flops * self.flops_share
        return max(call.bytes / (self.bandwidth * self.bandwidth_share), call.flops / flops, call.kernels * self.launch)


@dataclass(frozen=True)
class Call:
    """One call of torch that computes something."""

    name: str
    phase: str
    kernels: int
    bytes: int
    flops: int
    is_grouped: bool = False


@dataclass
class Totals:
    """Sums over calls."""

    calls: int = 0
    kernels: int = 0
    bytes: int = 0
    flops: int = 0
    seconds: float = 0.0

    def add(self, call: Call, device: Device) -> None:
        """Take in a call."""
        self.__iadd__(Totals(1, call.kernels, call.bytes, call.flops, device.seconds(call)))

    def __iadd__(self, other: Totals) -> Totals:
        """Take in what other sums have."""
        self.calls += other.calls
        self.kernels += other.kernels
        self.bytes += other.bytes
        self.flops += other.flops
        self.seconds += other.seconds
        return self


@dataclass
class Trace:
    """All calls of a step or an evaluation, in their order."""

    calls: list[Call] = field(default_factory=list)

    def totals(self, device: Device) -> dict[str, Totals]:
        """Return sums by phase, in the order in which phases began."""
        found: dict[str, Totals] = {}
        for call in self.calls:
            found.setdefault(call.phase, Totals()).add(call, device)
        return found

    def total(self, device: Device) -> Totals:
        """Return sums over all phases."""
        found = Totals()
        for call in self.calls:
            found.add(call, device)
        return found

    def by_name(self, device: Device) -> dict[str, Totals]:
        """Return sums by the call's name, those that move most bytes first."""
        found: dict[str, Totals] = {}
        for call in self.calls:
            found.setdefault(call.name, Totals()).add(call, device)
        return dict(sorted(found.items(), key=lambda item: -item[1].bytes))


class Counting(TorchDispatchMode):
    """Notes every call of torch while it is on; `phase` names what they are of."""

    def __init__(self) -> None:
        super().__init__()
        self.trace = Trace()
        self._phases = ["other"]

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Note the calls inside as those of a phase; phases may be nested."""
        self._phases.append(name)
        try:
            yield
        finally:
            self._phases.pop()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        """Call a function, and note it where it computes something on the GPU."""
        made = function(*arguments, **(keywords or {}))
        name = function.overloadpacket.__name__
        before, after = _tensors((arguments, keywords)), _tensors(made)
        if name in FREE or (function.is_view and not function._schema.is_mutable) or not _is_on_gpu((*before, *after)):
            return made
        # `_to_copy` and `_unsafe_view` of what needs no change return their input.
        if before and all(any(one is other for other in before) for one in after) and not _is_mutable(function):
            return made
        if name in ("_unsafe_view", "detach", "alias"):
            return made
        is_grouped = name.startswith("convolution") and arguments[9 if name.endswith("backward") else 8] > 1
        self.trace.calls.append(
            Call(
                name,
                self._phases[-1],
                kernels_of(name, arguments),
                bytes_of(function, arguments, keywords or {}, made),
                flops_of(function, arguments, keywords or {}, made),
                is_grouped,
            )
        )
        return made


def kernels_of(name: str, arguments: Any) -> int:
    """Return how many kernels a call launches."""
    if name == "native_layer_norm_backward" and arguments[5] is None:
        # Without weights there is no gradient of them.
        return 1
    if name == "cat":
        return -(-len(arguments[0]) // CONCATENATED)
    if not name.startswith("_foreach"):
        return KERNELS.get(name, 1)
    lists = [one for one in arguments if isinstance(one, (list, tuple)) and one and isinstance(one[0], Tensor)]
    first = lists[0]
    if not _takes_fast_path(lists, mixes_types=name == "_foreach_copy_"):
        return len(first)
    chunks = sum(-(-one.numel() // CHUNK) for one in first)
    # The norms of chunks are summed in a kernel of their own.
    more = name == "_foreach_norm"
    return max(-(-len(first) // TENSORS.get(len(lists), 30)), -(-chunks // BLOCKS)) + more


def _takes_fast_path(lists: list[Any], mixes_types: bool) -> bool:
    """Tell whether a multi-tensor kernel takes these lists: sizes, strides and types are alike and nothing overlaps."""
    for alike in zip(*lists, strict=True):
        first = alike[0]
        for one in alike:
            is_dense = torch.ops.aten.is_non_overlapping_and_dense(one)
            has_type = mixes_types or one.dtype == first.dtype
            if one.shape != first.shape or one.stride() != first.stride() or not (has_type and is_dense):
                return False
    return True


def bytes_of(function: Any, arguments: Any, keywords: Mapping[str, Any], made: Any) -> int:
    """Return the bytes that a call reads and writes, each element of each tensor once."""
    name = function.overloadpacket.__name__
    read = _tensors((arguments, keywords))
    if _is_mutable(function):
        written = _written(function, arguments, keywords)
        is_only_written = name in WRITING or function._overloadname.endswith("out")
        read = [one for one in read if not (is_only_written and any(one is other for other in written))]
    else:
        written = _tensors(made)
    if name in MAKING:
        read = []
    total = sum(map(_size, _distinct(read))) + sum(map(_size, _distinct(written)))
    # The copy of the bias is written, and read again.
    return total + 2 * _size(made) if name == "baddbmm" else total


def flops_of(function: Any, arguments: Any, keywords: Mapping[str, Any], made: Any) -> int:
    """Return the floating-point operations of a call's matrix products; of anything else bytes decide the time."""
    if function.overloadpacket is torch.ops.aten.convolution_backward:
        # torch's own formula does not know groups. As much as forward, for the input and for the weights.
        gradient, _, weight = arguments[:3]
        wanted = sum(arguments[-1][:2])
        return wanted * 2 * gradient.numel() * weight[0].numel()
    packet = function.overloadpacket
    formula = flop_registry.get(torch.ops.aten.baddbmm if packet is torch.ops.aten.baddbmm_ else packet)
    return 0 if formula is None else int(formula(*arguments, **keywords, out_val=made))


def _is_mutable(function: Any) -> bool:
    return bool(function._schema.is_mutable)


def _written(function: Any, arguments: Any, keywords: Mapping[str, Any]) -> list[Tensor]:
    """Return the arguments that a call writes to."""
    found = []
    for place, argument in enumerate(function._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = arguments[place] if place < len(arguments) else keywords.get(argument.name)
            found += _tensors(given)
    return found


def _tensors(values: Any) -> list[Tensor]:
    return [one for one in tree_leaves(values) if isinstance(one, Tensor)]


def _is_on_gpu(tensors: Iterable[Tensor]) -> bool:
    return any(one.device.type == "cuda" for one in tensors)


def _distinct(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Return tensors without those that are another's elements once more."""
    found: dict[Any, Tensor] = {}
    for one in tensors:
        place = (one.untyped_storage()._cdata, one.storage_offset(), one.shape, one.stride())
        found.setdefault(place, one)
    return list(found.values())


def _size(tensor: Tensor) -> int:
    """Return a tensor's bytes; what is expanded is read once."""
    if not tensor.numel():
        return 0
    elements = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        elements *= size if stride else 1
    return elements * tensor.element_size()
