"""Which factor is a column, a row or a colour: the user's choice, or what the study varies. Nothing is merged."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.analysis import Analysis, analyse
from analysis.edf import main
from analysis.facets import MOST_COLUMNS, Facets, facets
from analysis.figures import edf
from analysis.figures.layout import panels
from analysis.figures.text import glued, text_width, wrapped
from analysis.style import model_names
from stability.errors import UserError
from stability.study.schema import Contrast

MakeStudy, Analysed = Callable[..., Path], Callable[..., Analysis]
TWO = ("vitp_tiny", "vitc_tiny")
NINE = tuple(f"{family}_{size}" for size in ("1gf", "4gf", "16gf") for family in ("vitp", "vitc", "regnety"))


def titles(analysis: Analysis) -> list[list[str]]:
    return [[panel.title.replace("\u00a0", " ") for panel in row] for row in panels(analysis)]


def names(analysis: Analysis) -> list[list[str]]:
    """Return the curves' names of each panel."""
    return [[one.name.replace("\u00a0", " ") for one in panel.shown] for row in panels(analysis) for panel in row]


def test_options_of_the_command_place_factors(study: MakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Analysis] = []
    monkeypatch.setattr("analysis.figures.drawn", lambda name, draw, analysis: drawn.append(analysis))
    monkeypatch.setattr("analysis.figures.rendered", lambda figure, kind: b"")
    folder = study(epochs=(2, 8), samples=4)
    assert main([str(folder), "--columns", "optimizer", "--rows", "epochs", "--color", "model"]) == 0
    assert titles(drawn[0]) == [["AdamW, epochs 2", "SGD, epochs 2"], ["AdamW, epochs 8", "SGD, epochs 8"]]
    assert names(drawn[0]) == [["ViT$_P$-tiny", "ViT$_C$-tiny"]] * 4


@pytest.mark.parametrize("given", ["optimizer,epochs", ["optimizer", "epochs"], ["optimizer,epochs"]])
def test_several_factors_in_a_list_or_with_commas(analysed: Analysed, given: str | list[str]) -> None:
    analysis = analysed({"rows": given}, epochs=(2, 8), samples=2)
    assert analysis.facets == Facets((), ("optimizer", "epochs"), ("model",))
    # The first factor varies slowest.
    assert titles(analysis) == [["AdamW, epochs 2"], ["AdamW, epochs 8"], ["SGD, epochs 2"], ["SGD, epochs 8"]]


@pytest.mark.parametrize(
    ("varied", "expected"),
    [
        ({}, Facets(("optimizer",), (), ("model",))),
        ({"optimizers": ("adamw",)}, Facets((), (), ("model",))),
        (
            {"epochs": (2, 8), "smoothings": (0.0, 0.1)},
            Facets(("optimizer",), ("epochs", "label_smoothing"), ("model",)),
        ),
        ({"models": ("one",), "epochs": (2, 8)}, Facets((), ("epochs",), ("optimizer",))),
        ({"models": ("one",), "optimizers": ("adamw",), "epochs": (2, 8)}, Facets((), (), ("epochs",))),
        ({"models": ("one",), "optimizers": ("adamw",)}, Facets((), (), ("model",))),
        ({"optimizers": tuple(f"o{n}" for n in range(MOST_COLUMNS + 1))}, Facets((), ("optimizer",), ("model",))),
    ],
)
def test_the_default_is_what_the_study_varies(analysed: Analysed, varied: dict[str, object], expected: Facets) -> None:
    assert analysed(samples=2, **varied).facets == expected


def test_what_a_study_was_made_to_compare_is_told_apart_by_colour(analysed: Analysed) -> None:
    cells = [
        dataclasses.replace(cell, contrast=Contrast("optimizer", ("adamw", "sgd")))
        for cell in analysed(samples=2).cells
    ]
    assert facets(cells) == Facets(("model",), (), ("optimizer",))


@pytest.mark.parametrize(
    "lists", list(itertools.product([(), "model", "epochs"], [(), "optimizer"], [(), "label_smoothing"]))
)
def test_no_two_cells_are_merged_whatever_is_given(analysed: Analysed, lists: tuple[str, str, str]) -> None:
    options = dict(zip(("columns", "rows", "color"), lists, strict=True))
    analysis = analysed(options, epochs=(2, 8), smoothings=(0.0, 0.1), samples=2)
    assert sorted(analysis.facets.all) == ["epochs", "label_smoothing", "model", "optimizer"]
    curves = [
        (title, name)
        for title, own in zip(itertools.chain(*titles(analysis)), names(analysis), strict=True)
        for name in own
    ]
    assert len(set(curves)) == len(curves) == 16


def test_a_factor_without_a_place_joins_the_colour(analysed: Analysed) -> None:
    analysis = analysed({"columns": "optimizer", "rows": "model"}, epochs=(2, 8), samples=2)
    assert analysis.facets.color == ("epochs",)
    options = {"columns": [], "rows": "optimizer", "color": "model", "cells": ["epochs=8"]}
    assert analysed(options, epochs=(2, 8), samples=2).facets == Facets((), ("optimizer",), ("model",))
    options = {"columns": "optimizer", "rows": "epochs", "color": "model"}
    analysis = analysed(options, epochs=(2, 8), smoothings=(0.0, 0.1), samples=2)
    assert names(analysis)[0][:2] == ["ViT$_P$-tiny, label_smoothing 0.0", "ViT$_P$-tiny, label_smoothing 0.1"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--rows", "optimzer"], "unknown factor in --rows 'optimzer' (did you mean 'optimizer'?); accepted: epochs, "),
        (["--color", "lr"], "unknown factor in --color 'lr'"),
        (["--columns", "model,"], "unknown factor in --columns ''"),
        (
            ["--rows", "model", "--color", "epochs,model"],
            "--color model: --rows names it already; accepted: each factor once",
        ),
        (
            ["--rows", "model,model"],
            "--rows model: --rows names it already; accepted: each factor once, of epochs, model, optimizer",
        ),
        (["--colour", "model"], "did you mean '--color'?"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(study: MakeStudy, options: list[str], words: str) -> None:
    folder = study(samples=2)
    with pytest.raises(UserError) as caught:
        main([str(folder), *options])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (folder / "analysis").exists()


@pytest.mark.parametrize(
    "models", [("S1", "S2", "S3", "S4", "S5"), tuple(f"my_package.models.{letter}" for letter in "ABCDEF"), NINE]
)
def test_models_share_a_panel_whatever_they_are_called(analysed: Analysed, models: tuple[str, ...]) -> None:
    analysis = analysed(models=models, samples=2)
    assert [len(panel.shown) for row in panels(analysis) for panel in row] == [len(models)] * 2
    assert len(set(names(analysis)[0])) == len(models)


def test_models_of_one_class_name_are_named_in_full() -> None:
    assert model_names(["my.A", "your.A", "my.B"]) == {"my.A": "my.A", "your.A": "your.A", "my.B": "B"}


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize("color", ["model", "model,optimizer"])
def test_every_curve_of_a_panel_has_its_own_line_and_label(analysed: Analysed, color: str) -> None:
    twelve = tuple(f"net{number}" for number in range(12))
    models = twelve if color == "model" else NINE
    found = edf.draw(analysed({"color": color}, models=models, samples=4, sampler="sobol"))
    curves = 12 if color == "model" else 18
    for axes in found.axes:
        legend = axes.get_legend()
        assert legend is not None
        entries = {(line.get_color(), str(line._dash_pattern), line.get_linestyle()) for line in legend.get_lines()}  # type: ignore[attr-defined]
        drawn = {(line.get_color(), str(line._dash_pattern), line.get_linestyle()) for line in axes.get_lines()}  # type: ignore[attr-defined]
        assert len(entries) == len({text.get_text() for text in legend.get_texts()}) == curves
        assert drawn == entries


def test_of_two_factors_one_is_the_colour_and_the_other_the_line(analysed: Analysed) -> None:
    ((panel,),) = panels(analysed({"color": "model,optimizer"}, samples=2))
    colours, lines = ([getattr(one.look, field) for one in panel.shown] for field in ("colour", "line"))
    assert colours[0] == colours[1] != colours[2] == colours[3]
    assert lines[0] == lines[2] != lines[1] == lines[3]


@pytest.mark.usefixtures("style")
def test_a_panel_without_cells_says_so(study: MakeStudy, tmp_path: Path) -> None:
    study("all/one", optimizers=("adamw",), samples=2)
    study("all/two", optimizers=("sgd",), models=("vitp_tiny",), samples=2)
    found = edf.draw(analyse(tmp_path / "all", columns="optimizer", rows="model"))
    assert [[text.get_text() for text in axes.texts] for axes in found.axes][-1] == ["SGD, ViT$_C$-tiny", "no cells"]


@pytest.mark.usefixtures("style")
def test_ranges_are_told_by_the_factor_that_decides_them(analysed: Analysed) -> None:
    found = edf.draw(analysed({"color": "model,optimizer"}, models=NINE, samples=4))
    notes = [text.get_text() for text in found.axes[0].texts][1:3]
    assert notes == ["AdamW: lr 1e-4 to 0.03, wd 5e-3 to 0.5", "SGD: lr 0.01 to 3, wd 1e-5 to 1e-3"]


@pytest.mark.parametrize("text", ["x" * 200, "a_long_name.of.parts-" * 9, "a $ of words " * 9, r"ViT$_P$-a\$b" * 9, ""])
def test_lines_fit_their_room_and_no_letter_is_lost(text: str) -> None:
    lines = wrapped(text, 1.5, 7).split("\n")
    assert max(text_width(line, 7) for line in lines) <= 1.5
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    # A formula stays whole.
    assert all(line.replace(r"\$", "").count("$") % 2 == 0 for line in lines) or "a $" in text


def test_a_line_ends_between_words_that_belong_together_only_where_it_must() -> None:
    assert wrapped(f"AdamW, {glued('epochs 8')}", 0.9, 9) == "AdamW,\nepochs 8"
    assert wrapped(f"AdamW, {glued('epochs 8')}", 9, 9) == "AdamW, epochs 8"
