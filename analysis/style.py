"""How models look in every figure: a colour, line and marker each, distinct for the colour-blind and in grey."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.typing import LineStyleType, RcKeyType

# Width of a panel in inches: a column of a two-column page.
COLUMN = 3.3
BLACK, GREY = "#000000", "#666666"

# Okabe and Ito's palette (2008), without its yellow, which does not print.
VERMILION, BLUE, GREEN, PURPLE, SKY, ORANGE = "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"

SETTINGS: dict[RcKeyType, str | float | bool] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "lines.linewidth": 1.4,
    # Subscripts in the font of the words around them: one font less to embed.
    "mathtext.default": "regular",
    # TrueType, which every publisher accepts and every editor can select.
    "pdf.fonttype": 42,
    "savefig.dpi": 300,
}


class Look(NamedTuple):
    """A curve's colour, line and marker."""

    colour: str
    line: LineStyleType
    marker: str


# By family: a model's name up to its first underscore.
FAMILIES = {
    "vitp": Look(VERMILION, (0, (4, 1.2)), "o"),
    "vitc": Look(BLUE, "-", "D"),
    "regnety": Look(GREEN, (0, (4, 1, 1, 1)), "s"),
    "resnet": Look(PURPLE, (0, (1, 1)), "^"),
    "regnetz": Look(SKY, (0, (6, 1, 1, 1, 1, 1)), "v"),
    "efficientnet": Look(ORANGE, (0, (2, 1)), "P"),
}
SPARE = (
    Look(BLACK, (0, (1, 1)), "X"),
    Look(PURPLE, (0, (6, 1, 1, 1, 1, 1)), "^"),
    Look(SKY, (0, (2, 1)), "v"),
    Look(ORANGE, (0, (4, 1, 1, 1)), "P"),
    Look(GREEN, (0, (3, 2)), "s"),
)
NAMES = {
    "vitp": "ViT$_P$",
    "vitc": "ViT$_C$",
    "vit": "ViT",
    "regnety": "RegNetY",
    "regnetz": "RegNetZ",
    "resnet": "ResNet",
    "efficientnet": "EfficientNet",
}
OPTIMIZERS = {"adamw": "AdamW", "sgd": "SGD"}


def family(model: str) -> str:
    """Return the part of a model's name that it shares with its other sizes."""
    return model.split("_", 1)[0]


def looks(models: Sequence[str]) -> dict[str, Look]:
    """Return a look for each model: its family's, paler for each further size of the family."""
    found: dict[str, Look] = {}
    sizes: dict[str, int] = {}
    spare = iter(SPARE * (1 + len(models) // len(SPARE)))
    for model in models:
        kin = family(model)
        look = FAMILIES.get(kin) or next(spare)
        if kin in FAMILIES:
            look = look._replace(colour=_paler(look.colour, 0.3 * sizes.get(kin, 0)))
            sizes[kin] = sizes.get(kin, 0) + 1
        found[model] = look
    return found


def _paler(colour: str, share: float) -> str:
    """Mix a colour with white."""
    share = min(share, 0.6)
    channels = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "#" + "".join(f"{round(channel + (255 - channel) * share):02X}" for channel in channels)


def model_name(model: str) -> str:
    """Return a model's name as the field writes it: vitc_4gf is ViT_C-4GF."""
    head, _, size = model.partition("_")
    if head not in NAMES:
        # A user's own model is named by its dotted path: its last part is the class.
        return _plain(model.rsplit(".", 1)[-1])
    size = size.upper() if size.endswith("gf") else size
    return NAMES[head] + (f"-{_plain(size)}" if size else "")


def optimizer_name(optimizer: str) -> str:
    """Return an optimizer's name as the field writes it."""
    return OPTIMIZERS.get(optimizer, _plain(optimizer))


def _plain(text: str) -> str:
    """Return a name that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")


def number(value: float) -> str:
    """Return a learning rate or weight decay in few characters: 0.03, 3e-4."""
    if value == 0 or 0.01 <= abs(value) < 1000:
        return f"{value:.3g}"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def scientific(value: float) -> str:
    """Return a tick's label on a log axis, as 3 × 10⁻⁴, in plain letters: they are drawn faster than formulas."""
    mantissa, _, exponent = f"{value:.0e}".partition("e")
    power = "10" + str(int(exponent)).translate(SUPERSCRIPT)
    return power if mantissa == "1" else f"{mantissa} × {power}"
