"""Image classification data: where it comes from, how it is augmented, and the batches that training sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stability.data.datamodule import Batch, DataInfo, DataModule, get_data
    from stability.data.sources import fingerprint

__all__ = ["Batch", "DataInfo", "DataModule", "fingerprint", "get_data"]


def __getattr__(name: str) -> object:
    """Import a part when it is first used: torch and Lightning take seconds."""
    if name == "fingerprint":
        from stability.data.sources import fingerprint

        return fingerprint
    if name in __all__:
        from stability.data import datamodule

        return getattr(datamodule, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
