"""Which words in a name say that a folder, file or split holds training, validation or test images."""

from __future__ import annotations

import re
from pathlib import Path

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation"), "test"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
}
# A scikit-learn user's name for a division, which says nothing of which part this is.
DIVISION = re.compile(r"train(?:ing)?[^a-z]*(?:test|val|valid|validation|dev)[^a-z]*split")


def words_in(name: str) -> set[str]:
    """Return what the words of a name say, whatever their case: of train, test and validation."""
    return {SPLIT_WORDS[word] for word in re.split(r"[^a-z]+", DIVISION.sub(" ", name.lower())) if word in SPLIT_WORDS}


def split_word(path: str) -> str | None:
    """Return what a path says: train, test, validation, or None. The last part that says something decides.

    A part that says several things (train_test.parquet) says nothing.
    """
    for part in reversed(Path(path.lower()).with_suffix("").parts):
        said = words_in(part)
        if said:
            return said.pop() if len(said) == 1 else None
    return None


LABEL_NAMES = ("label", "labels", "class", "target")
# What stands beside a split's word in the names of folders: train_images, test_set, seg_train, val2017.
BESIDE = {"images", "image", "imgs", "img", "set", "data", "dataset", "split", "seg"}


def folder_word(name: str) -> str | None:
    """Return what a folder's whole name says, whatever its case: train, test, validation, or None.

    A name that says more (train_station) is a class's.
    """
    words = {word for word in re.split(r"[^a-z]+", name.lower()) if word} - BESIDE
    return SPLIT_WORDS.get(words.pop()) if len(words) == 1 else None
