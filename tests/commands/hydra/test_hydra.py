"""What ties the project to Hydra's versions: entry points, the search path's source, and no private modules."""

from __future__ import annotations

import importlib
import inspect
import re
import tomllib
import warnings
from pathlib import Path

import pytest
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigSource
from hydra.plugins.plugin import Plugin

from stability.hydra import versions

ROOT = Path(__file__).parents[3]
ENTRY_POINTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["hydra.plugins"]


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_an_entry_point_is_a_concrete_plugin_class(name):
    """Else every program of the environment prints a warning under Hydra 1.4."""
    module, _, attribute = ENTRY_POINTS[name].partition(":")
    found = getattr(importlib.import_module(module), attribute)
    assert inspect.isclass(found)
    assert issubclass(found, Plugin)
    assert not inspect.isabstract(found)


def test_entry_points_name_every_plugin_of_ours():
    module = importlib.import_module("hydra_plugins.stability_plugins")
    own = {name for name, one in vars(module).items() if inspect.isclass(one) and one.__module__ == module.__name__}
    assert {target.partition(":")[2] for target in ENTRY_POINTS.values()} == own


@pytest.mark.parametrize("folder", ["stability", "hydra_plugins", "analysis"])
def test_no_private_module_of_hydra_is_imported(folder):
    for path in (ROOT / folder).rglob("*.py"):
        assert not re.search(r"\bhydra\._internal\b", path.read_text()), path


def test_resolvers_and_version_base_are_given_without_a_warning():
    from hydra import initialize_config_dir

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        versions.register_resolver("test_versions", lambda: "x")
        with initialize_config_dir(config_dir=str(ROOT / "conf"), **versions.base()):
            pass


@pytest.fixture
def source(tmp_path):
    (tmp_path / "sweeps" / "vit" / "__pycache__").mkdir(parents=True)
    (tmp_path / "runs").mkdir()
    (tmp_path / "sweeps" / "a.yaml").write_text("# @package _global_\nlr: 1e-3\n")
    (tmp_path / "sweeps" / "vit" / "b.yaml").write_text("")
    (tmp_path / "sweeps" / "notes.txt").write_text("")
    (kind,) = [one for one in Plugins.instance().discover(ConfigSource) if one.scheme() == "sweeps"]
    return kind("test", f"sweeps://{tmp_path}")


def test_a_search_path_of_sweeps_shows_nothing_else_of_its_folder(source):
    assert source.list("", None) == ["sweeps"]
    assert source.list("", ObjectType.CONFIG) == source.list("runs", None) == []
    assert source.list("sweeps", None) == ["a", "vit"]
    assert source.list("sweeps", ObjectType.CONFIG) == ["a"]
    assert source.list("sweeps/vit", None) == ["b"]
    assert (source.is_group("sweeps/vit"), source.is_group("runs"), source.is_group("sweeps/a")) == (True, False, False)
    assert source.is_config("sweeps/a")
    assert not source.is_config("sweeps/notes")


def test_a_study_is_loaded_with_its_package(source):
    loaded = source.load_config("sweeps/a")
    assert (dict(loaded.config), loaded.header["package"]) == ({"lr": 1e-3}, "_global_")
    assert dict(source.load_config("sweeps/vit/b").config) == {}
    with pytest.raises(ConfigLoadError, match="not found"):
        source.load_config("sweeps/nope")
