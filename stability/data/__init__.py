"""Image classification data: where it comes from, how it is augmented, and the batches that training sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stability.lazy import lazily

if TYPE_CHECKING:
    from stability.data.datamodule import Batch, DataInfo, DataModule, get_data
    from stability.data.sources import fingerprint

__all__ = ["Batch", "DataInfo", "DataModule", "fingerprint", "get_data"]

__getattr__ = lazily(__name__, dict.fromkeys(__all__, "datamodule") | {"fingerprint": "sources"})
