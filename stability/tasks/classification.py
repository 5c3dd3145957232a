"""Image classification: cross-entropy, top-1 and top-5 error."""

from __future__ import annotations

from stability.study.metrics import Metric, Metrics

METRICS = Metrics(
    [
        Metric("top1_error", "top-1 error", "%", is_primary=True),
        Metric("top5_error", "top-5 error", "%"),
        Metric("loss", "loss", digits=4, is_final=False),
    ]
)
