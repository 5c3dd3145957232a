"""What OmegaConf and Hydra's parser hold, as plain values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stability.values import Value

if TYPE_CHECKING:
    from hydra.conf import HydraConf
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig


def contents(config: DictConfig | HydraConf, *, resolve: bool = False) -> dict[str, Value]:
    """Return a configuration as nested dictionaries and lists.

    Args:
        config: a whole configuration, or a node of one.
        resolve: put the values in place of interpolations, and raise where a mandatory value is missing.

    Raises:
        omegaconf.errors.OmegaConfBaseException: an interpolation leads nowhere, or a value is missing.
    """
    from omegaconf import OmegaConf

    found = OmegaConf.to_container(config, resolve=resolve, throw_on_missing=resolve, enum_to_str=True)
    assert isinstance(found, dict), type(found)
    return {str(key): value for key, value in found.items()}


def value_of(override: Override) -> Value:
    """Return an override's value; of a sweep, which has several, the text as it was written."""
    from hydra.core.override_parser.types import Glob, Sweep

    value = override.value()
    return override.get_value_string() if isinstance(value, (Sweep, Glob)) else value
