"""Cells that differ in plain values start from one composition; they must equal what Hydra composes for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stability.hydra import versions
from stability.hydra.compose import CONF, Composer, composition, register_resolvers

CELLS = [
    ("epochs=3", "batch_size=32"),
    ("model=vitc_tiny", "epochs=4", "recipe.mixup=0.2", "data.name=other"),
    ("data.eval_size=50", "schedule.warmup_epochs=null", "recipe.ema=true"),
    # Interpolations are resolved: the model's name is its class.
    ("model=custom", "model._target_=my_package.Net", "epochs=5"),
    # A key of a group's, one to add, one to delete, a list: for Hydra to compose.
    ("+optimizer.amsgrad=true", "epochs=6"),
    ("~training.keep_checkpoints", "epochs=7"),
    ("data.mean=[0.5,0.5,0.5]", "epochs=8"),
]


@pytest.fixture
def composer() -> Iterator[Composer]:
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    register_resolvers()
    with initialize_config_dir(config_dir=str(CONF), **versions.base()):
        loader = GlobalHydra.instance().config_loader()
        yield Composer(loader, loader.load_configuration("config", [], RunMode.MULTIRUN))


@pytest.mark.parametrize("overrides", CELLS, ids=" ".join)
def test_a_cell_is_what_hydra_composes(overrides: tuple[str, ...], composer: Composer) -> None:
    # An earlier cell of the same groups must leave nothing behind.
    composer.compose([one for one in overrides if not one.startswith("epochs=")] + ["epochs=77"])
    found = composer.compose(overrides)
    hydras = composition(composer._loader.load_sweep_config(composer._master, list(overrides)))
    assert found == hydras
    assert type(found.values["epochs"]) is int
