"""Sets that are made of the embedded digits: turned by right angles, or tilted. They stand for sets that are elsewhere.

Turned, with the angle as a part of the class, they are a set of more classes to begin with (as ImageNet-21k is for
ImageNet). Tilted, they are images that a model was not trained on (as ImageNet-V2 is), though the same digits.
"""

from __future__ import annotations

import numpy

from stability.data.digits import every, rows_of
from stability.errors import UserError


class TurnedDigits:
    """The digits of a split as a data set of (uint8 image (16, 16), label).

    Args:
        split: train or test; the same digits as in data=digits.
        quarters: at how many right angles each class comes, 1 to 4. Digit n at angle k is class n * quarters + k; each
            digit has one of the angles, drawn from a fixed seed.
        tilt: the largest angle in degrees that each digit is tilted by, to the left or the right; at least half of it.
    """

    def __init__(self, split: str, quarters: int = 1, tilt: float = 0.0) -> None:
        if split not in ("train", "test"):
            raise UserError(f"split={split!r}; accepted: train, test")
        if quarters not in (1, 2, 3, 4):
            raise UserError(f"data.quarters={quarters!r}; accepted: 1 to 4")
        if not 0 <= tilt <= 45:
            raise UserError(f"data.tilt={tilt!r}; accepted: 0 to 45 degrees")
        pixels, labels, _ = every()
        rows = rows_of(labels)[split == "test"]
        chance = numpy.random.default_rng(0)
        # Of all digits, so that one has the same angles whatever the split is.
        angles = chance.integers(0, quarters, len(labels))
        tilts = chance.uniform(tilt / 2, tilt, len(labels)) * chance.choice([-1, 1], len(labels))
        self.labels = labels[rows] * quarters + angles[rows]
        self._images = [_tilted(numpy.rot90(pixels[row], angles[row]), tilts[row]) for row in rows]
        if quarters > 1:
            self.classes = [f"{digit} at {90 * angle}" for digit in range(10) for angle in range(quarters)]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[numpy.ndarray, int]:
        return self._images[index], int(self.labels[index])


def _tilted(image: numpy.ndarray, degrees: float) -> numpy.ndarray:
    if not degrees:
        return image.copy()
    from scipy.ndimage import rotate

    return rotate(image, degrees, reshape=False, order=1, mode="constant", cval=0)
