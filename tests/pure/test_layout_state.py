"""The layout editor's JavaScript that needs no page, by node's own test runner."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def test_the_editors_state_functions():
    node = shutil.which("node")
    if node is None:
        if os.environ.get("CI"):
            pytest.fail("node is not installed")
        pytest.skip(
            "node is not installed: the layout editor's JavaScript was not tested (install nodejs, 20 or newer)"
        )
    file = Path(__file__).with_name("layout_state.test.mjs")
    ran = subprocess.run([node, "--test", str(file)], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]
    assert "# pass 17" in ran.stdout and "# fail 0" in ran.stdout
