"""The largest sizes that a model is built with, far above any that is trained: more is a slip, and takes minutes."""

MOST_BLOCKS = 1_000
MOST_CHANNELS = 1_000_000
MOST_MLP_RATIO = 100
MOST_PIXELS = 16_384
