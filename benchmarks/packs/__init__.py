"""Packs against trials one after another: trial-images per second, MFU, memory, decodes, and where a step's time goes.

python -m benchmarks.packs [--only MODELS] [--sizes 1,2,4] [--seconds 1] [--rounds 3] [--budget MINUTES] [...]
"""

from __future__ import annotations

# Model -> side of its images in pixels, and how many classes they are of.
MODELS = {
    "vitp_tiny": (32, 10),
    "vitc_tiny": (32, 10),
    "vitp_1gf": (224, 1000),
    "vitp_4gf": (224, 1000),
    "vitc_1gf": (224, 1000),
    "resnet50": (224, 1000),
}
# Packs whose images are decoded from JPEG files, beside those models.
JPEGS = "jpegs"
