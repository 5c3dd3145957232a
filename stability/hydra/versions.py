"""What differs between the versions of Hydra and OmegaConf that are supported."""

from __future__ import annotations

from collections.abc import Callable


def base() -> dict[str, str]:
    """Return the arguments by which Hydra 1.3 composes as Hydra 1.4 does; 1.4 takes none."""
    import hydra

    return {"version_base": "1.3"} if _numbers(hydra.__version__) < (1, 4) else {}


def register_resolver(name: str, resolver: Callable[..., str]) -> None:
    """Make ${NAME:...} known to every configuration, by the function that this OmegaConf has for it."""
    import omegaconf

    # Up to 2.3, register_resolver is another, older function; from 2.4 on, register_new_resolver is deprecated.
    is_old = _numbers(omegaconf.__version__) < (2, 4)
    register: Callable[..., None] = getattr(
        omegaconf.OmegaConf, "register_new_resolver" if is_old else "register_resolver"
    )
    register(name, resolver, replace=True)


def _numbers(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)
