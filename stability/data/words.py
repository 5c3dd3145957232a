"""Which words in a name say that a folder, file or split holds training, validation or test images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation"), "test"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
}
# A scikit-learn user's name for a division, which says nothing of which part this is.
DIVISION = re.compile(r"train(?:ing)?[^a-z]*(?:test|val|valid|validation|dev)[^a-z]*split")


# What stands beside a split's word in names, or is glued to it: train_images, test_set, seg_train, val2017, trainset.
BESIDE = {"images", "image", "imgs", "img", "set", "sets", "data", "dataset", "split", "seg"}
LABEL_NAMES = ("label", "labels", "class", "target")
CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
GLUED = re.compile(f"({'|'.join(sorted(SPLIT_WORDS, key=len, reverse=True))})({'|'.join(sorted(BESIDE))})?")
# What numbers the parts of a split, and what names a part by its content.
PART = re.compile(r"(?:part|shard|chunk|batch|file|of|n|c)?\d*")
HASH = re.compile(r"[0-9a-f]{4,}|\w*\d\w*[a-z]\w*|snappy|gzip|zstd")
# A word with a split's glued to something that is not known.
SUSPECT = re.compile(r"(?:train|test|valid)[a-z]*|[a-z]*(?:train|test|valid|val)")
# English words that begin or end like that.
_ENGLISH = """
    trains trained trainer trainers trainee trainees trainable strain restrain constrain distrain
    tested tester testers testament testaments testify testimony testimonial testbed
    latest contest protest attest detest fastest greatest shortest lightest brightest smartest hottest wettest fattest
    fittest flattest cutest whitest quietest sweetest neatest tightest slightest straightest softest politest remotest
    minutest strictest
    invalid validity validator validators validated
    interval retrieval carnival festival arrival survival approval disapproval removal rival naval oval medieval revival
    upheaval primeval serval narval larval
"""
ENGLISH = frozenset(_ENGLISH.split())


def spaced(name: str) -> str:
    """Return a name in lower case, a space between words that only capitals set apart (TrainData)."""
    return CAMEL.sub(" ", name).lower()


def _said(word: str) -> str | None:
    """Return what a word says, alone or glued to one of BESIDE: trainset, testimages."""
    found = GLUED.fullmatch(word)
    return SPLIT_WORDS[found[1]] if found else None


def words_in(name: str) -> set[str]:
    """Return what the words of a name say, whatever their case: of train, test and validation."""
    words = re.split(r"[^a-z]+", DIVISION.sub(" ", spaced(name)))
    # TESTset has its capitals elsewhere.
    words += re.split(r"[^a-z]+", DIVISION.sub(" ", name.lower()))
    return {said for word in words if (said := _said(word))}


def beside_split(name: str) -> str:
    """Return what a file's name says besides its split and the number of its part: cifar of cifar-train-0."""
    if not words_in(name):
        return ""
    tokens = re.split(r"[^a-z0-9]+", DIVISION.sub(" ", spaced(name)))
    split = next((place for place, token in enumerate(tokens) if words_in(token)), 0)
    rest = [re.sub(rf"(?:{GLUED.pattern})\d*$", "", token) if words_in(token) else token for token in tokens]
    own = rest[: split + 1] + [token for token in rest[split + 1 :] if not HASH.fullmatch(token)]
    return "-".join(token for token in own if token and token not in BESIDE and not PART.fullmatch(token))


def suspect(names: Sequence[str]) -> str | None:
    """Return the first name that seems to say a split, in a word that begins or ends like a split's (cifartrain).

    Of several names that differ in a split's word alone (cifartrain, cifartest) each does. One by itself does unless
    it has an English word: latest, strain.
    """
    kinds: dict[tuple[str, ...], set[str]] = {}
    for name in names:
        for form, kind in _forms(name):
            kinds.setdefault(form, set()).add(kind)
    for name in names:
        is_one_of_several = any(len(kinds[form]) > 1 for form, _ in _forms(name))
        words = re.split(r"[^a-z]+", spaced(name))
        if is_one_of_several or any(SUSPECT.fullmatch(word) and word not in ENGLISH for word in words):
            return name
    return None


def _forms(name: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield what is left of a name where a word begins or ends like a split's, with what that split is."""
    words = re.split(r"([^a-z]+)", spaced(name))
    for place, word in enumerate(words):
        for split, kind in SPLIT_WORDS.items():
            if word.startswith(split) and word != split:
                yield (*words[:place], f"*{word.removeprefix(split)}", *words[place + 1 :]), kind
            if word.endswith(split) and word != split:
                yield (*words[:place], f"{word.removesuffix(split)}*", *words[place + 1 :]), kind


def split_word(path: str) -> str | None:
    """Return what a path says: train, test, validation, or None. The last part that says something decides.

    A part that says several things (train_test.parquet) says nothing.
    """
    for part in reversed(Path(path).with_suffix("").parts):
        said = words_in(part)
        if said:
            return said.pop() if len(said) == 1 else None
    return None


def folder_word(name: str) -> str | None:
    """Return what a folder's whole name says, whatever its case: train, test, validation, or None.

    A name that says more (train_station) is a class's.
    """
    for one in (spaced(name), name.lower()):
        words = {word for word in re.split(r"[^a-z]+", one) if word} - BESIDE
        if len(words) == 1 and (said := _said(words.pop())):
            return said
    return None
