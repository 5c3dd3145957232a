"""Fixtures that more than one package's tests use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parsed_once import parsed_once

# A thread for each test process: those that run side by side would wait for each other's.
os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared" / "data"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute on one CPU thread: the number of threads may show in the last bit."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the repository: cifar10/ (Parquet) and imagenet-sample/ (class folders)."""
    if not SHARED.is_dir():
        reason = f"no real data beside this clone ({SHARED})"
        if os.environ.get("STABILITY_REQUIRE_DATA"):
            pytest.fail(reason)
        pytest.skip(reason)
    return SHARED


@pytest.fixture(scope="session")
def yaml_once() -> Iterator[None]:
    """Read each YAML file once, not at every composition: that is a fifth of the time of the tests of commands."""
    from omegaconf import OmegaConf

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OmegaConf, "load", staticmethod(parsed_once(OmegaConf.load)))
        yield
