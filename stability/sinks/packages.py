"""Check that an optional package is installed, without importing it."""

from __future__ import annotations

import importlib.util

from stability.errors import UserError


def require(package: str, what: str, extra: str | None = None) -> None:
    """Raise UserError where `package` is not installed.

    Args:
        package: the package to look for.
        what: what needs it, as the user typed it: `logger=wandb`.
        extra: the extra that has it; None: the one of the same name.

    Raises:
        UserError: see above.
    """
    spec = importlib.util.find_spec(package)
    # A folder of that name, such as one that wandb wrote itself, is found as a package without an origin.
    if spec is None or spec.origin is None:
        raise UserError(
            f"{what} needs pip install 'stability[{extra or package}]': the package {package} is not installed"
        )
