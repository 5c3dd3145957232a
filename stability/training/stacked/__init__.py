"""Layers of K models at once: functions on weights with a leading member axis, for the project's own models.

A pack's step is a few batched products where each layer of the model has a rule here. `torch.vmap` serves the others.
"""

from __future__ import annotations

from stability.training.stacked.encoder import Products, has_rules, logits, prepared

__all__ = ["Products", "has_rules", "logits", "prepared"]
