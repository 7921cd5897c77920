"""The lowest versions that requirements.txt allows work beside everything else of the environment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(sys.modules["ella_lmd"].__path__[0])
HOME = Path(os.environ.get("ELLA_LMD_HOME") or Path.home() / ".cache" / "ella-lmd")
OLDEST = HOME / f"oldest-py{sys.version_info[0]}.{sys.version_info[1]}" / "bin" / "python"
VERSIONS = "from importlib.metadata import version; print(version('inflect'), version('pydantic'))"


def oldest(*args: object) -> str:
    result = subprocess.run([OLDEST, *args], capture_output=True, text=True, cwd=HOME)  # no checkout on its path
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_planner_reads_and_writes_english_with_the_lowest_versions():
    if not OLDEST.exists():
        pytest.skip(f"no {OLDEST}: `python run.py test pure` builds it")
    lowest = next(x for x in (ROOT / "requirements.txt").read_text().split() if x.startswith("inflect"))
    inflect, pydantic = oldest("-c", VERSIONS).split()
    assert inflect.startswith(lowest.split(">=")[1]) and int(pydantic.split(".")[0]) >= 2
    oldest("-c", "import segment_anything.modeling")
    oldest(
        "-m", "pytest", "-q", ROOT / "tests" / "pure" / "test_offline.py", ROOT / "tests" / "pure" / "test_prompts.py"
    )
