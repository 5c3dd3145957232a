"""Which studies come before a study, by its manifest alone and beside the manifests of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stability.study.earlier import EarlierStudy, earlier_studies
from stability.study.schema import Cell, Manifest
from stability.study.store import write_manifest

RUN = "python -m stability.run -m"


def planned(study: str, *commands: str, **model: Any) -> Manifest:
    """Return the manifest of a study of one cell."""
    cell = Cell(factors={"model": "vitp_tiny"}, ranges={}, config={"model": {"name": "vitp_tiny", **model}})
    return Manifest(study=study, commands=commands, cells=(cell,), trials=())


def begins_with(name: str) -> dict[str, str]:
    """Return what a manifest has of the weights of a trial."""
    return {"name": name, "fingerprint": "780654ccf3c5b508", "trial": "5bc8a73458b1"}


@pytest.mark.parametrize(
    ("words", "first"),
    [
        ("sweeps=fig2 scale=digits", "sweeps=tune scale=digits"),
        ("sweeps=fig2 scale=digits runs='my runs'", "sweeps=tune scale=digits runs='my runs'"),
        ("sweeps=fig2 scale=digits lr=1e-3", "sweeps=tune scale=digits"),
        ("sweeps=fig4 scale=digits wd=tuned", "sweeps=tune scale=digits"),
        ("sweeps=fig6 scale=digits", "sweeps=tune scale=digits"),
        # Both given; drawn; from a table of the scale, of the file or of the command; of a file that is not there.
        ("sweeps=fig2 scale=digits lr=1e-3 wd=0.1", None),
        ("sweeps=fig4 scale=digits", None),
        ("sweeps=fig2", None),
        ("sweeps=fig6", None),
        ("sweeps=cifar10_length scale=cifar10", None),
        ("sweeps=fig2 scale=digits scale.settings=mine", None),
        ("sweeps=../../fig2 scale=digits", None),
        ("model=vitp_tiny lr=1e-3", None),
        # Written by hand: a quote that is not closed.
        ("sweeps=fig2 scale=digits runs='my runs", None),
    ],
)
def test_tuned_settings_come_from_the_study_that_finds_them(words: str, first: str | None, tmp_path: Path) -> None:
    found = earlier_studies(planned("fig2-digits", f"{RUN} {words}"), tmp_path)
    assert [one.commands for one in found] == ([(f"{RUN} {first}",)] if first else [])
    assert all(one.has_settings and one.later == "fig2-digits" for one in found)


@pytest.mark.parametrize("behind", ["", "/vitc_tiny", "/5bc8"])
def test_weights_come_from_a_study_which_has_one_before_it_too(behind: str, tmp_path: Path) -> None:
    command = f"{RUN} sweeps=imagenet21k_tune scale=digits"
    manifest = planned("last", command, init=begins_with(f"runs/imagenet21k-digits{behind}"))
    tune = EarlierStudy("tune-digits", "imagenet21k-digits", True, (f"{RUN} sweeps=tune scale=digits",))
    weights = EarlierStudy("imagenet21k-digits", "last", False, (f"{RUN} sweeps=imagenet21k scale=digits",))
    assert earlier_studies(manifest, tmp_path) == [tune, weights]
    # A study that is there has commands of its own.
    own = f"{RUN} sweeps=imagenet21k scale=digits lr=1e-3 wd=0.1"
    write_manifest(tmp_path / "imagenet21k-digits", planned("imagenet21k-digits", own))
    assert earlier_studies(manifest, tmp_path) == [weights._replace(commands=(own,))]
    # One that cannot be read is as one that is not there.
    (tmp_path / "imagenet21k-digits" / "study.yaml").write_text("[")
    assert earlier_studies(manifest, tmp_path) == [tune, weights]


def test_a_study_of_an_unknown_command_is_named_and_a_file_is_none(tmp_path: Path) -> None:
    command = f"{RUN} model=vitp_tiny"
    found = earlier_studies(planned("last", command, init=begins_with("runs/mine")), tmp_path)
    assert found == [EarlierStudy("mine", "last", False, ())]
    file = {"name": "weights.safetensors", "fingerprint": "780654ccf3c5b508"}
    assert earlier_studies(planned("last", command, init=file), tmp_path) == []
    # An argument of a model of one's own.
    assert earlier_studies(planned("last", command, init={"gain": 1.0}), tmp_path) == []
