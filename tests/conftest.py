"""Fixtures that more than one package's tests use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the repository: cifar10/ (Parquet) and imagenet-sample/ (class folders)."""
    if not SHARED.is_dir():
        reason = f"no real data beside this clone ({SHARED})"
        if os.environ.get("STABILITY_REQUIRE_DATA"):
            pytest.fail(reason)
        pytest.skip(reason)
    return SHARED
