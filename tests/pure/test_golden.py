"""The reference vectors, through the same functions that the nodes use."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECK = Path(__file__).resolve().parents[1] / "golden" / "check.py"


@pytest.mark.parametrize("name", ["lmd"])
def test_reference_vectors(golden, name):
    result = subprocess.run([sys.executable, CHECK, golden / name], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.strip().splitlines()[-1].startswith("passed ")
