"""Counts against the published ones, the table that keeps them, and the command that prints them."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stability.errors import UserError
from stability.models import __main__ as command
from stability.models import build_model, table
from stability.models.complexity import count, count_module
from stability.models.named import model_names, read_model
from stability.models.published import AUTHORS_CODE, NEAREST, TABLE_2

# Multiply-adds of the stem alone (M), table 3.
STEM_MULTIPLY_ADDS = {
    "vitp_4gf": 58,
    "vitc_4gf": 435,
    "vit_s1_4gf": 422,
    "vit_s2_4gf": 422,
    "vit_s3_4gf": 458,
    "vit_s4_4gf": 407,
}
IMAGENET = {"image_size": 224, "channels": 3, "num_classes": 1000}


class TestPublished:
    @pytest.mark.parametrize("name", AUTHORS_CODE)
    def test_the_authors_counts_are_met(self, name: str) -> None:
        """Params to 0.01 M, multiply-adds to 0.1 %, activations to 0.5 %."""
        ours, theirs = count(read_model(name), **IMAGENET), AUTHORS_CODE[name]
        assert ours.params / 1e6 == pytest.approx(theirs.params, abs=0.01)
        assert ours.multiply_adds / 1e9 == pytest.approx(theirs.multiply_adds, rel=1e-3)
        assert ours.activations / 1e6 == pytest.approx(theirs.activations, rel=5e-3)

    @pytest.mark.parametrize("name", STEM_MULTIPLY_ADDS)
    def test_the_stems_cost_what_table_3_prints(self, name: str) -> None:
        with torch.device("meta"):
            model = build_model(read_model(name), **IMAGENET)
            assert isinstance(model.stem, nn.Module)
            ours = count_module(model.stem, torch.empty(1, 3, 224, 224)).multiply_adds
        assert ours / 1e6 == pytest.approx(STEM_MULTIPLY_ADDS[name], rel=6e-3)

    @pytest.mark.parametrize("name", [name for name in TABLE_2 if name not in AUTHORS_CODE and name not in NEAREST])
    def test_the_same_architectures_of_timm_cost_what_table_2_prints(self, name: str) -> None:
        model = read_model(name)
        ours = table.lookup(model, *table.usual_inputs(name, model)[0])
        assert ours is not None
        assert ours.params / 1e6 == pytest.approx(TABLE_2[name].params, abs=0.06)
        assert ours.multiply_adds / 1e9 == pytest.approx(TABLE_2[name].multiply_adds, abs=0.06)
        assert ours.activations / 1e6 == pytest.approx(TABLE_2[name].activations, rel=0.02)

    @pytest.mark.parametrize(
        ("name", "blocks"), [("vitp_36gf", 14), ("vitc_36gf", 13), ("vitc_16gf", 47), ("vitc_72gf", 22)]
    )
    def test_blocks(self, name: str, blocks: int) -> None:
        assert count(read_model(name), **IMAGENET).blocks == blocks

    def test_paper_names_and_published_figures_agree(self) -> None:
        assert {*TABLE_2, *AUTHORS_CODE, *STEM_MULTIPLY_ADDS} <= set(model_names())
        assert set(NEAREST) <= set(TABLE_2)


class TestSmallModels:
    @pytest.mark.parametrize("pair", ["nano", "tiny", "small", "base", "deep"])
    @pytest.mark.parametrize(
        "size",
        [{"image_size": 16, "channels": 1}, {"image_size": 16, "channels": 3}, {"image_size": 32, "channels": 3}],
    )
    def test_a_pair_is_equal_in_multiply_adds_within_5_percent(self, pair: str, size: dict[str, int]) -> None:
        patchify, conv = (count(read_model(f"vit{stem}_{pair}"), num_classes=10, **size) for stem in "pc")
        assert conv.multiply_adds == pytest.approx(patchify.multiply_adds, rel=0.05)
        assert patchify.blocks - conv.blocks == 1

    @pytest.mark.parametrize("size", [16, 32])
    def test_the_convolutional_stem_costs_about_one_block_more(self, size: int) -> None:
        costs = {}
        with torch.device("meta"):
            for name in ("vitp_tiny", "vitc_tiny"):
                model = build_model(read_model(name), image_size=size, channels=3, num_classes=10)
                costs[name] = count_module(model.stem, torch.empty(1, 3, size, size)).multiply_adds  # type: ignore[arg-type]
            tokens = torch.empty(1, (size // 4) ** 2 + 1, 64)
            block = count_module(model.blocks[0], tokens).multiply_adds  # type: ignore[index, arg-type]
        assert costs["vitc_tiny"] - costs["vitp_tiny"] == pytest.approx(block, rel=0.1)

    @pytest.mark.parametrize(
        ("name", "like"),
        [
            *((f"regnety_{size}", f"vitp_{size}") for size in ("nano", "tiny", "small", "base")),
            *((f"vit_s{number}_tiny", "vitp_tiny") for number in (1, 2, 3, 4)),
            ("vitp_bn_tiny", "vitp_tiny"),
            ("vitc_ln_tiny", "vitc_tiny"),
        ],
    )
    def test_others_of_a_size_cost_what_its_vit_does_at_32_px(self, name: str, like: str) -> None:
        size = {"image_size": 32, "channels": 3, "num_classes": 10}
        found, vit = count(read_model(name), **size), count(read_model(like), **size)
        assert found.multiply_adds == pytest.approx(vit.multiply_adds, rel=0.05)


class TestCounting:
    def test_by_hand(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 5))
        counts = count_module(model, torch.zeros(1, 3, 8, 8))
        assert counts.params == 108 + 8 + 325
        assert counts.multiply_adds == 27 * 64 + 65 * 5
        assert counts.activations == 64 + 5
        assert model.training

    def test_grouped_convolution_and_its_bias(self) -> None:
        counts = count_module(nn.Conv2d(8, 8, 3, groups=4), torch.zeros(1, 8, 5, 5))
        assert counts[1:3] == (8 * 9 * (2 * 9 + 1), 8 * 9)

    @pytest.mark.parametrize("name", ["vitp_tiny", "vitc_tiny"])
    def test_the_fused_attention_of_the_cpu_counts_like_the_products_on_the_meta_device(self, name: str) -> None:
        size = {"image_size": 16, "channels": 1, "num_classes": 10}
        real = count_module(build_model(read_model(name), **size), torch.zeros(1, 1, 16, 16))
        assert real == count(read_model(name), **size)

    def test_nothing_is_allocated_and_nothing_drawn(self) -> None:
        """A ViT of 3 TB would not fit anywhere."""
        model = read_model("vitp_72gf") | {"hidden_size": 1 << 18, "heads": 1 << 10, "blocks": 1}
        state = torch.get_rng_state()
        assert count(model, **IMAGENET).params > 5e11
        assert torch.equal(torch.get_rng_state(), state)

    def test_a_model_that_cannot_live_on_the_meta_device_is_counted_all_the_same(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "my_real_model.py").write_text(
            "import torch\n"
            "def model(num_classes):\n"
            "    width = int(torch.linspace(0, 8, 2)[1])\n"
            "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, width))\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        state = torch.get_rng_state()
        counts = count({"_target_": "my_real_model.model"}, image_size=16, channels=1, num_classes=10)
        assert counts == (257 * 8, 257 * 8, 8, 0)
        assert torch.equal(torch.get_rng_state(), state)

    def test_what_does_not_fit_is_the_users_to_know(self) -> None:
        with pytest.raises(UserError, match="image_size=20 is no multiple of 16"):
            count(read_model("vitp_1gf"), image_size=20, channels=3, num_classes=10)


class TestTable:
    @pytest.mark.slow
    def test_it_is_up_to_date(self) -> None:
        assert table.count_all() == table.read_rows(), "python -m stability.models.table --write"

    def test_the_named_models_are_found(self) -> None:
        assert table.lookup(read_model("vitp_tiny"), 16, 1, 10) == count(
            read_model("vitp_tiny"), image_size=16, channels=1, num_classes=10
        )

    @pytest.mark.parametrize(
        ("change", "size"),
        [
            ({"blocks": 6}, (224, 3, 1000)),
            ({}, (192, 3, 1000)),
            ({}, (224, 1, 1000)),
            ({}, (224, 3, 100)),
            ({"depth": 2}, (224, 3, 1000)),
        ],
    )
    def test_what_is_overridden_is_not_found(self, change: dict[str, Any], size: tuple[int, int, int]) -> None:
        assert table.lookup(read_model("vitp_4gf") | change, *size) is None

    def test_a_name_or_a_spelling_does_not_matter(self) -> None:
        model = read_model("vitp_4gf")
        same = model | {"name": "mine", "family": "custom", "mlp_ratio": 3.0, "stem_widths": None}
        assert table.lookup(same, 224, 3, 1000) == table.lookup(model, 224, 3, 1000) is not None

    def test_check_and_write(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(table, "PATH", tmp_path / "complexity.csv")
        monkeypatch.setattr(table, "model_names", lambda: ["vitp_tiny"])
        assert table.main([]) == 1
        assert "out of date" in capsys.readouterr().out
        assert table.main(["--write"]) == 0
        assert table.main([]) == 0
        assert table.main(["--wriet"]) == 2


class TestCommand:
    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "stability.models", *arguments]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    def test_csv_is_plain_numbers_of_all_models(self) -> None:
        done = self.run("--csv")
        assert done.returncode == 0, done.stderr
        rows = list(csv.DictReader(io.StringIO(done.stdout)))
        assert list(rows[0]) == ["name", "params", "multiply_adds", "activations", "blocks"]
        assert [row["name"] for row in rows] == model_names()
        counts = {row["name"]: int(row["multiply_adds"]) for row in rows}
        assert counts["vitp_4gf"] == pytest.approx(3.909e9, rel=1e-3)

    def test_the_models_named_at_an_input(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert (
            command.main(["vitp_tiny", "vitc_tiny", "--csv", "--image-size", "16", "--channels", "3", "--classes", "7"])
            == 0
        )
        rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
        expected = count(read_model("vitc_tiny"), image_size=16, channels=3, num_classes=7)
        assert rows[2] == ["vitc_tiny", *map(str, expected)]
        assert len(rows) == 3

    def test_published_figures_stand_beside(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert command.main(["vitc_18gf", "regnety_4gf"]) == 0
        out = capsys.readouterr().out
        assert "published, table 2" in out
        line = next(line for line in out.splitlines() if line.startswith("vitc_18gf")).split()
        assert line[3:] == [
            "81.573",
            "17.7266",
            "24.024",
            "11",
            "81.6",
            "17.7",
            "24.1",
            "11",
            "81.57",
            "17.727",
            "24.02",
        ]
        assert "~22.4" in out

    def test_published_figures_belong_to_their_input(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert command.main(["vitc_18gf", "--image-size", "384"]) == 0
        assert "81.57 " not in capsys.readouterr().out

    def test_unknown_name(self) -> None:
        done = self.run("vitp_4g")
        assert done.returncode == 2
        assert done.stderr.startswith("unknown model 'vitp_4g' (did you mean 'vitp_4gf'?); accepted: ")
        assert done.stderr.count("\n") == 1
        assert not done.stdout

    def test_an_input_that_does_not_fit(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert command.main(["vitp_4gf", "--image-size", "20"]) == 2
        assert "vitp_4gf: image_size=20 is no multiple of 16" in capsys.readouterr().err

    def test_of_all_models_those_that_fit(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(command, "model_names", lambda: ["vitp_4gf", "vitp_tiny"])
        assert command.main(["--csv", "--image-size", "20"]) == 0
        captured = capsys.readouterr()
        assert captured.out.count("\n") == 2
        assert "left out vitp_4gf" in captured.err

    @pytest.mark.parametrize("size", ["0", "-3", "big"])
    def test_a_size_that_is_none(self, size: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            command.main([f"--image-size={size}"])
        assert ended.value.code == 2
        assert "accepted: a whole number" in capsys.readouterr().err
