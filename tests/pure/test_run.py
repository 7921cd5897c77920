"""run.py: what is downloaded is compared with its hash before any of it runs."""

import hashlib
import importlib.util
import io
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(sys.modules["ella_lmd"].__path__[0])
MARK = "ran.txt"


@pytest.fixture
def run(monkeypatch):
    spec = importlib.util.spec_from_file_location("ella_lmd_run", ROOT / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ENV", Path(sys.prefix))
    return module


@pytest.fixture
def package(tmp_path, monkeypatch) -> str:
    """The hash of a source package in a folder that pip looks into; its set-up code leaves a mark when it runs."""
    files = {
        "setup.py": f"open({str(tmp_path / MARK)!r}, 'w').close()\nfrom setuptools import setup\nsetup()\n",
        "pyproject.toml": '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "marked"\nversion = "1.0"\n',
        "PKG-INFO": "Metadata-Version: 2.1\nName: marked\nVersion: 1.0\n",
    }
    index = tmp_path / "index"
    index.mkdir()
    path = index / "marked-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(f"marked-1.0/{name}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_source_package_of_another_hash_is_refused_before_its_code_runs(run, package, tmp_path):
    wanted, folder = tmp_path / "source.txt", tmp_path / "out"
    wanted.write_text(f"marked==1.0 --hash=sha256:{package[::-1]}\n")
    with pytest.raises(SystemExit, match="failed"):
        run.fetch_source(wanted, folder)
    assert not (tmp_path / MARK).exists()
    wanted.write_text(f"marked==1.0 --hash=sha256:{package}\n")
    assert run.fetch_source(wanted, folder).name == "marked-1.0.tar.gz"
    assert (tmp_path / MARK).exists()  # so the first half of this test could have failed


def test_every_package_that_is_installed_has_an_exact_version(run):
    names = {line.split(">=")[0].split("==")[0].split("~=")[0].lower().replace("_", "-")
             for path in run.REQUIREMENTS for line in path.read_text().splitlines() if line and line[0] != "#"}  # fmt: skip
    for path in (run.VERSIONS, run.RECIPES / "packer.txt"):
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        assert all("==" in line for line in lines), path
    pinned = {line.split("==")[0] for line in run.VERSIONS.read_text().splitlines()}
    assert names <= pinned, names - pinned
    assert all("--hash=sha256:" in x for x in (run.RECIPES / "source.txt").read_text().splitlines() if x[0] != "#")
