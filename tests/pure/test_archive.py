"""What the registry's own packer puts into the archive: all that users need, and nothing else."""

import ast
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from .test_structure import imports

ROOT = Path(sys.modules["ella_lmd"].__path__[0])
HOME = Path(os.environ.get("ELLA_LMD_HOME") or Path.home() / ".cache" / "ella-lmd")
PACKER = HOME / f"packer-py{sys.version_info[0]}.{sys.version_info[1]}" / "bin" / "python"
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> set[str]:
    if not PACKER.exists():
        pytest.skip(f"no comfy-cli in {PACKER.parent}: `python run.py test pure` installs it")
    path = tmp_path_factory.mktemp("archive") / "node.zip"
    code = f"from comfy_cli.file_utils import zip_files; zip_files({str(path)!r})"
    subprocess.run([PACKER, "-c", code], cwd=ROOT, check=True, capture_output=True)
    return set(zipfile.ZipFile(path).namelist())


def test_every_help_page_picture_and_translation_is_in_it(archive):
    for folder in ("web", "locales", "workflows", "demo/weights"):
        files = {p.relative_to(ROOT).as_posix() for p in (ROOT / folder).rglob("*") if p.is_file()}
        assert files and files <= archive, sorted(files - archive)


def test_what_no_user_needs_is_not(archive):
    assert {name.split("/")[0] for name in archive} == {
        "LICENSE", "README.md", "__init__.py", "chat", "demo", "ella", "lmd", "locales", "nodes", "pyproject.toml",
        "requirements.txt", "web", "workflows",
    }  # fmt: skip
    assert not [name for name in archive if "__pycache__" in name or name.endswith((".pyc", "samples.jpg"))]


def test_the_code_in_it_imports_only_what_is_in_it(archive):
    modules = {"ella_lmd." + n.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for n in archive}
    for name in sorted(n for n in archive if n.endswith(".py") and n != "__init__.py"):
        for module in imports(ROOT / name):
            parts = module.split(".")
            inside = parts[0] != "ella_lmd" or {".".join(parts[: n + 1]) for n in range(1, len(parts))} & modules
            assert inside, f"{name} imports {module}, which is not in the archive"


def test_texts_in_it_send_nobody_to_a_file_that_is_not(archive):
    """README.md is read on the web, where its links to docs/ work."""
    for name in sorted(n for n in archive if n.endswith((".md", ".json")) and n not in ("README.md", "demo/README.md")):
        text = (ROOT / name).read_text(encoding="utf-8")
        linked = [m for m in LINK.findall(text) if name.endswith(".md") and not m.startswith("http")]
        text = re.sub(r"\[[^\]]*\]\(http", "", text)  # a link to the web may be called after a file
        bare = re.findall(r"(?<![\w/])(?:docs|demo|tools|evaluation|tests)/[\w/]+\.(?:md|py)", text)
        assert not bare and not linked, f"{name}: {bare + linked}"


def test_texts_of_the_nodes_name_no_file_that_is_not_in_it(archive):
    for name in sorted(n for n in archive if n.startswith("nodes/") and n.endswith(".py")):
        tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
        notes = {d.value for n in ast.walk(tree) if (d := docstring(n))}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in notes:
                assert not re.search(r"(?<![\w/])docs/\w+\.md", node.value), f"{name}:{node.lineno}: {node.value}"


def docstring(node: ast.AST) -> ast.Expr | None:
    body = getattr(node, "body", None)
    first = body[0] if isinstance(body, list) and body else None
    return first if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) else None
