"""`lr=logspace(LOW,HIGH,N)`: a list of N values at equal steps of the logarithm, both ends included.

Hydra's grammar has no such function. The list takes its place before Hydra reads an override, so that Hydra, its
launchers and the files in .hydra/ only meet lists and numbers.
"""

from __future__ import annotations

import math
import re

from stability.errors import UserError

# Each value is written out in the study's command.
MOST = 1000
# Significant digits of the values between the ends; more where the steps are so fine that these would show.
DIGITS = 3
_CALL = re.compile(r"(?P<key>[^=]*)=\s*logspace\s*\((?P<arguments>[^()]*)\)\s*")
_ACCEPTED = "accepted: logspace(LOW,HIGH,N), as logspace(1e-4,1e-1,7)"


def expanded(line: str) -> str:
    """Return an override with a list in the place of logspace(); any other override as it is.

    Raises UserError where the arguments are not two numbers and a count, or where logspace() does not stand alone.
    """
    match = _CALL.fullmatch(line)
    if match:
        return f"{match['key']}={','.join(map(_text, _values(line, match['arguments'])))}"
    # In quotes it is text, which is no business of this module.
    if re.search(r"\blogspace\s*\(", line) and not re.search(r"['\"]", line):
        raise UserError(f"{line!r}: logspace() stands alone after KEY=; {_ACCEPTED}")
    return line


def logspace(low: float, high: float, count: int) -> list[float]:
    """Return `count` values from low to high at equal steps of the logarithm.

    The ends are exact. The values between them have three significant digits, or as many as keep the rounding below a
    twentieth of a step; powers of ten that the grid meets are exact.

    Args:
        low: the first value, above 0.
        high: the last value, above low.
        count: at least 2.
    """
    step = max(1e-15, math.log(high) - math.log(low)) / (count - 1)
    digits = min(15, max(DIGITS, math.ceil(2 - math.log10(step))))
    between = (math.exp(math.log(low) + place * step) for place in range(1, count - 1))
    return [low, *(float(f"{value:.{digits - 1}e}") for value in between), high]


def _values(line: str, arguments: str) -> list[float]:
    words = [one.strip() for one in arguments.split(",")]
    if len(words) != 3:
        raise UserError(f"{line!r}: logspace() takes three arguments, not {len(words)}; {_ACCEPTED}")
    low, high = (_number(line, word) for word in words[:2])
    if low <= 0:
        powers = f" (did you mean logspace(1e{low:g},1e{high:g},{words[2]})?)" if _are_exponents(low, high) else ""
        raise UserError(f"{line!r}: steps of the logarithm need a lower end above 0{powers}; {_ACCEPTED}")
    if low >= high:
        turned = f" (did you mean logspace({words[1]},{words[0]},{words[2]})?)" if low > high else ""
        raise UserError(f"{line!r}: LOW must be below HIGH{turned}; {_ACCEPTED}")
    count = int(words[2]) if re.fullmatch(r"\d{1,9}", words[2]) else 0
    if not 2 <= count <= MOST:
        raise UserError(f"{line!r}: N = {words[2]}; accepted: a whole number from 2 to {MOST:,}")
    return logspace(low, high, count)


def _number(line: str, word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{line!r}: {word!r} is no finite number; {_ACCEPTED}")
    return value


def _are_exponents(low: float, high: float) -> bool:
    """Tell whether the ends are powers of ten, as numpy.logspace takes them."""
    return low.is_integer() and high.is_integer() and -300 < low < high < 300


def _text(value: float) -> str:
    return repr(value).removesuffix(".0")
