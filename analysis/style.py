"""How cells look in every figure: a colour, line and marker each, distinct for the colour-blind and in grey."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from matplotlib.typing import LineStyleType, RcKeyType

T = TypeVar("T", bound=Hashable)

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


class CurveStyle(NamedTuple):
    """A curve's colour, line and marker."""

    colour: str
    line: LineStyleType
    marker: str


# Of the shipped models of a family: their names up to the first underscore.
FAMILIES = {
    "vitp": CurveStyle(VERMILION, (0, (4, 1.2)), "o"),
    "vitc": CurveStyle(BLUE, "-", "D"),
    "regnety": CurveStyle(GREEN, (0, (4, 1, 1, 1)), "s"),
    "resnet": CurveStyle(PURPLE, (0, (1, 1)), "^"),
    "regnetz": CurveStyle(SKY, (0, (6, 1, 1, 1, 1, 1)), "v"),
    "efficientnet": CurveStyle(ORANGE, (0, (2, 1)), "P"),
}
SPARE = (
    CurveStyle(BLACK, (0, (1, 1)), "X"),
    CurveStyle(PURPLE, (0, (6, 1, 1, 1, 1, 1)), "^"),
    CurveStyle(SKY, (0, (2, 1)), "v"),
    CurveStyle(ORANGE, (0, (4, 1, 1, 1)), "P"),
    CurveStyle(GREEN, (0, (3, 2)), "s"),
)
COLOURS = (VERMILION, BLUE, GREEN, PURPLE, SKY, ORANGE, BLACK)
LINES: tuple[LineStyleType, ...] = (
    "-",
    (0, (4, 1.2)),
    (0, (1, 1)),
    (0, (4, 1, 1, 1)),
    (0, (6, 1, 1, 1, 1, 1)),
    (0, (2, 1)),
)
MARKERS = ("o", "D", "s", "^", "v", "P", "X", "<", ">", "p", "*")
# Every colour with every line: 7 and 6 have no common divisor.
ROUNDS = tuple(
    CurveStyle(COLOURS[k % len(COLOURS)], LINES[k % len(LINES)], MARKERS[k % len(MARKERS)])
    for k in range(len(COLOURS) * len(LINES))
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


def looks(models: Sequence[str], wanted: Iterable[CurveStyle] = SPARE) -> dict[str, CurveStyle]:
    """Return a look for each model: its family's for the first of a shipped family, one of `wanted` for the others.

    No two have the same colour and line, up to as many models as there are such pairs.
    """
    firsts: dict[str, str] = {}
    for model in models:
        head = model.split("_", 1)[0]
        if head in FAMILIES and not _is_path(model):
            firsts.setdefault(head, model)
    known = {model: FAMILIES[head] for head, model in firsts.items()}
    others = _distinct([model for model in models if model not in known], wanted, list(known.values()))
    return {model: known.get(model) or others[model] for model in models}


def value_looks(values: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], CurveStyle]:
    """Return a look for each value of one or several factors.

    Of several factors the first decides the colour and the others the line and the marker, where there are enough of
    them.
    """
    firsts = list(dict.fromkeys(one[0] for one in values if one))
    rests = list(dict.fromkeys(one[1:] for one in values))
    colours = {first: look.colour for first, look in looks(firsts, FAMILIES.values()).items()}
    # Where colours are used again, they have other lines.
    rounds = {
        first: [colours[one] for one in firsts[:place]].count(colours[first]) for place, first in enumerate(firsts)
    }
    if min(len(firsts), len(rests)) < 2 or (1 + max(rounds.values())) * len(rests) > len(LINES):
        return _distinct(values, FAMILIES.values())
    places = {one: rounds[one[0]] * len(rests) + rests.index(one[1:]) for one in values}
    return {one: CurveStyle(colours[one[0]], LINES[place], MARKERS[place]) for one, place in places.items()}


def _distinct(
    names: Sequence[T], wanted: Iterable[CurveStyle], taken: Sequence[CurveStyle] = ()
) -> dict[T, CurveStyle]:
    """Return looks of unused colours first, then of those used least and longest ago, no colour twice with one line."""
    every = [*wanted, *SPARE, *FAMILIES.values(), *ROUNDS]
    used = list(taken)
    found: dict[T, CurveStyle] = {}
    for name in names:
        pairs = {(look.colour, look.line) for look in used}
        markers = Counter((look.colour, look.marker) for look in used)
        colours, last = Counter(look.colour for look in used), {look.colour: place for place, look in enumerate(used)}
        free = [look for look in every if (look.colour, look.line) not in pairs] or every
        found[name] = min(
            free, key=lambda look: (colours[look.colour], markers[look.colour, look.marker], last.get(look.colour, -1))
        )
        used.append(found[name])
    return found


def family(model: str) -> str | None:
    """Return the key in FAMILIES of a shipped model's family: resnet of resnet50. None of any other model."""
    head = "" if _is_path(model) else model.partition("_")[0].rstrip("0123456789")
    return head if head in FAMILIES else None


def model_name(model: str) -> str:
    """Return a model's name as the field writes it: vitc_4gf is ViT_C-4GF."""
    head, _, rest = model.partition("_")
    if depth := re.fullmatch(r"(resnet)(\d+)", head):
        head, rest = depth[1], "_".join(filter(None, [depth[2], rest]))
    if head not in NAMES or _is_path(model):
        # A user's own model is named by its dotted path: its last part is the class.
        return plain(model.rsplit(".", 1)[-1])
    parts, name = [part for part in rest.split("_") if part], NAMES[head]
    if head == "vit" and parts and re.fullmatch(r"s\d", parts[0]):
        name = f"ViT$_{{{parts.pop(0).upper()}}}$"
    return "-".join([name, *(plain(part.upper() if _is_code(part) else part) for part in parts)])


def _is_code(part: str) -> bool:
    """Return whether a part of a model's name is written in capitals: 4gf, b2, bn, ln."""
    return re.fullmatch(r"\d+gf|b\d|bn|ln", part) is not None


def _is_path(model: str) -> bool:
    """Return whether a model is named by the dotted path of its class."""
    return "." in model


def model_names(models: Iterable[str]) -> dict[str, str]:
    """Return each model's name as the field writes it; in full where two models would have the same."""
    names = {model: model_name(model) for model in models}
    counts = Counter(names.values())
    return {model: name if counts[name] == 1 else plain(model) for model, name in names.items()}


def optimizer_name(optimizer: str) -> str:
    """Return an optimizer's name as the field writes it."""
    return OPTIMIZERS.get(optimizer, plain(optimizer))


def plain(text: str) -> str:
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
