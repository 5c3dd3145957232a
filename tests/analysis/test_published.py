"""Published numbers stand beside the cells that they are of, and beside no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.analysis import analyse
from analysis.paper import published
from analysis.paper.experiments import EXPERIMENTS
from analysis.paper.rows import rows
from analysis.paper.shifted import is_imagenet_v2
from stability.models.named import model_names
from tests.analysis.grids import cells_of, imagenet, make_grid

Change = Callable[[dict[str, Any]], None]


def at(key: str, value: object) -> Change:
    """Return the function that sets a dotted key of a configuration."""

    def change(config: dict[str, Any]) -> None:
        *above, last = key.split(".")
        for name in above:
            config = config[name]
        config[last] = value

    return change


@pytest.fixture
def printed(tmp_path: Path) -> Callable[..., list[float | None]]:
    """Return the function that gives the published numbers beside the cells of a study on ImageNet."""

    def find(experiment: str, *models: str, change: Change = lambda config: None, **more: Any) -> list[float | None]:
        def config_of(factors: dict[str, Any]) -> dict[str, Any]:
            config = imagenet(factors)
            change(config)
            return config

        grid = {name: more.pop(name) for name in ("optimizers", "epochs") if name in more}
        cells = [{**cell, **more.pop("factors", {})} for cell in cells_of(*models, **grid)]
        kept: dict[str, Any] = {"classes": 1000, "lrs": (1e-3,), "wds": (0.24,), "config_of": config_of, **more}
        folder = make_grid(tmp_path / "study", lambda *_: 20.0, cells=cells, **kept)
        return [row.published for row in rows(analyse(folder, shows_all=True), experiment)]

    return find


def test_peaks_are_those_of_table_2(printed: Callable[..., list[float | None]]) -> None:
    assert printed("fig6", "vitp_1gf", "vitc_4gf", epochs=(100, 400)) == [33.2, 27.7, 20.9, 18.6]
    cnns = {"optimizers": ("sgd",), "epochs": (100,), "lrs": (2.54,), "wds": (2.4e-5,)}
    assert printed("table2", "resnet50", "regnety_4gf", **cnns) == [22.5, 19.4]
    # EfficientNets are published at image sizes of their own.
    assert printed("table2", "efficientnet_b4", **cnns) == [None]
    assert printed("table2", "efficientnet_b4", change=at("data.image_size", 380), **cnns) == [18.5]
    # Of half the batch, lr is scaled: still the published one.
    assert printed("fig6", "vitp_1gf", epochs=(100,), change=at("batch_size", 1024)) == [33.2]


@pytest.mark.parametrize(
    "change",
    [
        at("data.name", "digits"),
        at("data.name", "imagenet-21k"),
        at("data.image_size", 384),
        at("data.train_size", 1000),
        at("data.eval_size", 1000),
        at("data.val_fraction", 0.1),
        at("model.init", {"name": "runs/x", "fingerprint": "0"}),
        at("model.blocks", 2),
        at("recipe", {"name": "light"}),
        at("recipe.mixup", 0.0),
        at("recipe.lr_batch", 256),
    ],
)
def test_no_peak_stands_beside_a_cell_trained_otherwise(
    change: Change, printed: Callable[..., list[float | None]]
) -> None:
    assert printed("fig6", "vitp_4gf", epochs=(100,), change=change) == [None]


@pytest.mark.parametrize(
    "more",
    [
        {"lrs": (2e-3,)},
        {"wds": (0.2,)},
        {"optimizers": ("sgd",)},
        {"epochs": (50,)},
        {"classes": 100},
    ],
)
def test_no_peak_stands_beside_other_settings(more: dict[str, Any], printed: Callable[..., list[float | None]]) -> None:
    assert printed("fig6", "vitp_4gf", **{"epochs": (100,), **more}) == [None]
    assert printed("fig6", "vitp_4gf", epochs=(100,)) == [23.3]


def test_figures_2_and_3_print_no_error_of_a_cell(printed: Callable[..., list[float | None]]) -> None:
    for name in ("fig2", "fig3"):
        assert printed(name, "vitp_4gf", "vitc_4gf", epochs=(100, 400)) == [None] * 4


def test_stems_and_norms(printed: Callable[..., list[float | None]]) -> None:
    assert printed("table3", "vitp_4gf", "vit_s1_4gf", optimizers=("adamw", "sgd"), epochs=(50,)) == [
        *(27.7, 33.0),
        *(24.3, 25.1),
    ]
    assert printed("table3", "vitp_4gf", optimizers=("sgd",), epochs=(100,)) == [None]
    assert printed("table3", "vitp_tiny", epochs=(50,)) == [None]
    assert printed("fig7", "vitp_bn_4gf", "vitc_ln_4gf", epochs=(100,)) == [23.3, 21.1]
    assert printed("fig7", "vitp_bn_4gf", epochs=(50,)) == [None]
    assert printed("fig7", "vitp_bn_4gf", epochs=(100,), optimizers=("sgd",)) == [None]


def test_recipes_are_those_of_table_5(printed: Callable[..., list[float | None]]) -> None:
    for recipe, error in (("paper", 23.2), ("deit", 25.4), ("paper_no_ema", 23.0), ("light", None)):
        assert printed("fig10", "vitp_4gf", epochs=(100,), factors={"recipe": recipe}) == [error]


def test_after_pre_training_alone_and_by_image_size(printed: Callable[..., list[float | None]]) -> None:
    def init(config: dict[str, Any]) -> None:
        config["model"] |= {"init": {"name": "runs/imagenet21k", "fingerprint": "0"}}

    def large(config: dict[str, Any]) -> None:
        init(config)
        config["data"] |= {"image_size": 384}

    tuned = {"epochs": (20,), "wds": (0.0,)}
    models = ("vitc_36gf", "vitc_72gf")
    assert printed("imagenet21k", *models, change=init, **tuned) == [14.2, 13.6]
    assert printed("imagenet21k", *models, change=large, **tuned) == [None, 12.6]
    assert printed("imagenet21k", *models, **tuned) == [None, None]
    assert printed("imagenet21k", *models, change=init, epochs=(20,)) == [None, None]
    assert printed("imagenet21k", *models, change=init, epochs=(90,), wds=(0.0,)) == [None, None]


def test_digits_get_no_published_number(tmp_path: Path) -> None:
    folder = make_grid(tmp_path / "bogus", lambda *_: 50.0, cells=cells_of("vitp_4gf", epochs=(20,)), wds=(0.0,))
    analysis = analyse(folder)
    for name in ("imagenet21k", "table2", "table3", "fig6", "fig7", "table5"):
        table = EXPERIMENTS[name].table(analysis)
        assert "published" not in [column.heading for column in table.columns]
        assert "ublished" not in " ".join(table.notes)


def test_published_models_are_models() -> None:
    tables = (
        *(published.PEAKS, published.MINUTES, published.BATCHES, published.STEMS, published.STEM_FLOPS),
        *(published.NORMS, published.RECIPES, published.PRETRAINED, published.PRETRAINED_LARGE),
    )
    for table in tables:
        assert set(table) <= set(model_names())
    assert set(published.PEAKS) == set(published.MINUTES) == set(published.BATCHES)


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("imagenet-v2", True),
        ("imagenetv2-matched-frequency", True),
        ("owner/ImageNet_V2", True),
        ("imagenet-r", False),
        ("digits-tilted", False),
        ("objectnet-v2", False),
    ],
)
def test_names_of_imagenet_v2(name: str, is_one: bool) -> None:
    assert is_imagenet_v2(name) == is_one
