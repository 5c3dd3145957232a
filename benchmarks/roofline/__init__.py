"""What a training step and an evaluation cost a GPU, counted without one, and the time that this allows.

python -m benchmarks.roofline [--cases vitp_tiny:64:128,vitp_1gf:16:64] [--precision bf16] [--calls 10] [...]
"""

from __future__ import annotations
