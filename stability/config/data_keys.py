"""Which keys of `data` mean something for which source: what would change nothing is refused, not passed over."""

from __future__ import annotations

from dataclasses import fields

from stability.config.published import published_size
from stability.config.schema import DataConfig
from stability.errors import UserError
from stability.shipped import read

# Keys that a source does not read.
UNREAD = {
    "digits": (
        "path",
        "subset",
        "train_split",
        "eval_split",
        "image_column",
        "label_column",
        "exif",
        "missing_classes",
        "on_error",
        "unreadable",
    ),
    "imagefolder": ("subset", "image_column"),
    "torch": ("subset", "image_column", "label_column", "exif", "on_error", "unreadable"),
    "hf": (),
}
# The only set of data.source=digits.
DIGITS = "digits"


def check_source(data: DataConfig) -> None:
    """Raise UserError where a key means nothing for the source, or two keys contradict each other."""
    if data.source == "digits" and data.name not in (None, DIGITS):
        raise UserError(
            f"data.name={data.name} with data.source=digits, which is no such set; accepted: data=hf "
            f"data.name={data.name} for the set of that name on the hub, or data.name={DIGITS}"
        )
    _check_digits(data)
    check_channels(data)
    defaults = {item.name: item.default for item in fields(DataConfig)}
    for name in UNREAD.get(data.source, ()):
        value = getattr(data, name)
        if value != defaults[name]:
            readers = " or ".join(f"data={source}" for source, unread in UNREAD.items() if name not in unread)
            shown = repr(value) if value == "" else str(value).lower() if isinstance(value, bool) else value
            raise UserError(
                f"data.{name}={shown} means nothing for data.source={data.source}; accepted: {readers}, or leave it out"
            )
    if data.unreadable is not None and data.on_error != "skip":
        raise UserError(
            f"data.unreadable={data.unreadable} means nothing for data.on_error={data.on_error}; "
            "accepted: data.on_error=skip with it, or leave it out"
        )
    if data.eval_split is not None and data.val_fraction:
        raise UserError(
            f"data.eval_split={data.eval_split} with data.val_fraction={data.val_fraction:g}, which evaluates part of "
            "the training images; accepted: one of them"
        )


def _check_digits(data: DataConfig) -> None:
    """Raise UserError where another source was given to the digits: their name and statistics would stay."""
    stated = read("data", DIGITS)
    found = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(data).items()}
    if data.source != DIGITS and all(found[name] == stated[name] for name in ("name", "channels", "mean", "std")):
        raise UserError(
            f"data.source={data.source} with the name, channels, mean and std of the digits; "
            f"accepted: data={data.source}, which has its own{' (data.path stays)' if data.path else ''}"
        )


def check_classes(data: DataConfig, classes: int) -> None:
    """Raise UserError where a set goes by the name of a published one that has another number of classes.

    Class folders may be a part of ImageNet.
    """
    published = published_size(data.name)
    if published is None or classes == published.classes:
        return
    is_part = published.has_parts and data.source == "imagefolder" and classes < published.classes
    if not is_part:
        where = data.path or data._target_ or data.source
        path = f" data.path={data.path}" if data.path else ""
        raise UserError(
            f"{where} has {classes} classes, and data.name={data.name} has {published.classes}: it is another set; "
            f"accepted: data={data.source}{path} data.name=NAME of its own"
        )


def check_channels(data: DataConfig) -> None:
    """Raise UserError where the channels' statistics are not of as many channels, or there is no such image."""
    if data.channels not in (1, 3):
        raise UserError(f"data.channels={data.channels}; accepted: 1 (grey), 3 (RGB)")
    for name, values in (("mean", data.mean), ("std", data.std)):
        if values and len(values) != data.channels:
            raise UserError(
                f"data.{name} has {len(values)} numbers; accepted: one for each of data.channels={data.channels}"
            )
        if values and min(values) <= 0 and name == "std":
            raise UserError(f"data.std={list(values)}; accepted: numbers above 0")
