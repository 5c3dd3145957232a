"""Processes that train one trial together: each computes a share of every batch, and all take the same step.

Every process (rank) draws the whole stream of batches and computes the gradient of its rows; DistributedDataParallel
averages the gradients, so that weights, optimizer and averages are equal in all of them. What is read to decide
something (losses, errors) is summed over the ranks first, so that all decide alike.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric.plugins.environments import ClusterEnvironment, LightningEnvironment
from torch import Tensor, distributed

ADDRESS = "127.0.0.1"


@dataclass(frozen=True)
class Ranks:
    """One of the processes that train a trial together.

    Attributes:
        rank: its number, from 0; the first writes checkpoints and the record.
        count: how many there are.
        port: where the first one waits for the others.
    """

    rank: int = 0
    count: int = 1
    port: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes what is written."""
        return self.rank == 0

    def rows(self, images: int) -> slice:
        """Return the rows of a batch of so many images that this rank computes."""
        return slice(self.rank * images // self.count, (self.rank + 1) * images // self.count)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over the ranks of a tensor that each of them has."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values

    def evaluates(self, batches: int) -> Ranks:
        """Return how an evaluation of so many batches is shared: where there are too few, every rank computes all."""
        return self if batches >= self.count else ALONE

    def joined(self, parts: Sequence[Tensor], batch_size: int, images: int) -> Tensor:
        """Return what every rank found of its batches, (models, B) each, as one tensor (models, images).

        Args:
            parts: of the batches of this rank: those of numbers rank, rank + count, ...
            batch_size: images of a batch.
            images: of all batches.
        """
        if self.count == 1:
            return torch.cat(list(parts), dim=1)
        whole = parts[0].new_zeros((len(parts[0]), images), dtype=torch.uint8)
        for place, part in enumerate(parts):
            start = (self.rank + place * self.count) * batch_size
            whole[:, start : start + part.shape[1]] = part
        return self.sum(whole).to(parts[0].dtype)

    def broadcast(self, values: Tensor, source: int) -> None:
        """Give every rank the values of one of them, in place."""
        distributed.broadcast(values, source)

    def trainer_options(self, device: torch.device) -> dict[str, Any]:
        """Return the options of Lightning's Trainer: how many processes there are, and how they find each other.

        Named in any case, so that Slurm, MPI or torchrun around this process is not taken for a training of its own.
        """
        if self.count == 1:
            return {"plugins": [LightningEnvironment()]}
        from pytorch_lightning.strategies import DDPStrategy

        backend = "nccl" if device.type == "cuda" else "gloo"
        # A user's model may have parameters that a step does not use; alone that is no error either.
        strategy = DDPStrategy(process_group_backend=backend, find_unused_parameters=True)
        # Each process sees one device: a node of one, to Lightning.
        return {
            "plugins": [_Environment(self)],
            "strategy": strategy,
            "num_nodes": self.count,
            "sync_batchnorm": device.type == "cuda",
            "use_distributed_sampler": False,
        }

    @contextlib.contextmanager
    def joined_processes(self) -> Iterator[None]:
        """Leave the group of processes afterwards, and what Lightning puts into the environment for it."""
        if self.count == 1:
            yield
            return
        names = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")
        before = {name: os.environ.get(name) for name in names}
        try:
            yield
        finally:
            if distributed.is_initialized():
                distributed.destroy_process_group()
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    def notes(self, model: torch.nn.Module, device: torch.device) -> dict[str, Any]:
        """Return what a record says of a trial that several processes trained: how many, and what batch norms saw."""
        if self.count == 1:
            return {}
        kind = torch.nn.modules.batchnorm._BatchNorm
        if not any(isinstance(layer, kind) for layer in model.modules()):
            return {"processes": self.count}
        seen = (
            f"statistics synchronised over {self.count} processes"
            if device.type == "cuda"
            else f"statistics of each process's share, 1 of {self.count}; those of the first are kept"
        )
        return {"processes": self.count, "batch_norm": seen}


ALONE = Ranks()


class _Environment(ClusterEnvironment):
    """Tells Lightning which rank this process is: the others have been started already."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self._ranks = ranks

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return ADDRESS

    @property
    def main_port(self) -> int:
        return self._ranks.port

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self._ranks.count

    def set_world_size(self, size: int) -> None:
        assert size == self._ranks.count, size

    def global_rank(self) -> int:
        return self._ranks.rank

    def set_global_rank(self, rank: int) -> None:
        assert rank == self._ranks.rank, rank

    def local_rank(self) -> int:
        return 0

    def node_rank(self) -> int:
        return self._ranks.rank
