"""Which keys of `data` mean something for which source: what would change nothing is refused, not passed over."""

from __future__ import annotations

from dataclasses import fields

from stability.config.schema import DataConfig
from stability.errors import UserError

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
    if data.eval_split is not None and data.val_fraction:
        raise UserError(
            f"data.eval_split={data.eval_split} with data.val_fraction={data.val_fraction:g}, which evaluates part of "
            "the training images; accepted: one of them"
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
