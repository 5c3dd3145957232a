"""Check that an optional package is installed, without importing it."""

from __future__ import annotations

import importlib.util

from stability.errors import UserError


def require(package: str, what: str) -> None:
    """Raise UserError where `package`, an extra of the same name, is not installed.

    Args:
        package: the package to look for.
        what: what needs it, as the user typed it: `logger=wandb`.
    """
    spec = importlib.util.find_spec(package)
    # A folder of that name, such as one that wandb wrote itself, is found as a package without an origin.
    if spec is None or spec.origin is None:
        raise UserError(f"{what} needs pip install 'stability[{package}]': the package {package} is not installed")
