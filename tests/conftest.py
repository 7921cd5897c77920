"""Tests import the pack as `ella_lmd.…`; see tools/pack.py for why the checkout is not on `sys.path`."""

import importlib.util
import random
from pathlib import Path

import pytest
import torch

_PACK = Path(__file__).resolve().parents[1] / "tools" / "pack.py"
_spec = importlib.util.spec_from_file_location("ella_lmd_pack", _PACK)
pack = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pack)
pack.register()

SHARED = pack.ROOT.parent / "shared"


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test draws the same numbers in every run, alone or after others."""
    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The reference vectors: what the published implementations computed, see the README there."""
    return Path(__file__).resolve().parent / "data" / "golden"


@pytest.fixture(scope="session")
def shared() -> Path:
    """A folder beside some checkouts, with published data that is not this project's to pass on."""
    if not SHARED.is_dir():
        pytest.skip(f"the folder of published data is not here: {SHARED}")
    return SHARED
