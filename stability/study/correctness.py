"""Which of the evaluated images a trial got right: packed bits in a file beside its record.

Trials of a study are evaluated on the same images, so that their errors share what is peculiar to those images. With
these bits an analysis can say how much that is (`analysis.compute.contrasts.image_error`).
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stability.errors import UserError
from stability.files import write_text

if TYPE_CHECKING:
    import numpy as np

# Its name in a record's `files`, and the file's.
KEY = "correct"
FILE = "correct.json"


@dataclass(frozen=True, eq=False)
class Correctness:
    """Which images a trial got right.

    Attributes:
        fingerprint: of the evaluated images, in their order: bits of other images are not to be compared.
        right: bool (images,).
    """

    fingerprint: str
    right: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """Which images it got wrong, bool (images,)."""
        return ~self.right


def write_correctness(directory: Path, found: Correctness) -> None:
    """Write the bits into a trial's folder; 50,000 images take 8 kB."""
    import numpy as np

    bits = base64.b64encode(np.packbits(found.right).tobytes()).decode()
    directory.mkdir(parents=True, exist_ok=True)
    values = {"fingerprint": found.fingerprint, "images": len(found.right), "bits": bits}
    write_text(directory / FILE, json.dumps(values) + "\n")


def read_correctness(directory: Path, name: str = FILE) -> Correctness:
    """Read what `write_correctness` wrote. Raises UserError where the file is not there or holds something else."""
    import numpy as np

    path = directory / name
    try:
        values = json.loads(path.read_text())
        packed = np.frombuffer(base64.b64decode(values["bits"], validate=True), dtype=np.uint8)
        images = int(values["images"])
        if len(packed) != -(-images // 8):
            raise ValueError(f"{len(packed)} bytes of bits for {images} images")
        return Correctness(str(values["fingerprint"]), np.unpackbits(packed, count=images).astype(bool))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise UserError(f"{path} holds no bits of images; accepted: what a trial wrote") from error
