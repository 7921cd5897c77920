"""The arrows of the architecture: algorithm packages know no host and not each other; workflows and metadata are sound."""

import ast
import functools
import json
import sys
from collections.abc import Iterator

import pytest

ROOT = sys.modules["ella_lmd"].__path__[0]
from pathlib import Path  # noqa: E402

ROOT = Path(ROOT)
ALLOWED = {"torch", "einops", "numpy", "scipy", "PIL", "inflect"}


def imports(path: Path, runs: bool = False) -> set[str]:
    """Every module that a file imports, relative ones resolved to `ella_lmd.…`; see `nodes_of` for `runs`."""
    package = ["ella_lmd", *path.relative_to(ROOT).parent.parts]
    found = set()
    for node in nodes_of(parsed(path), runs):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{module}.{a.name}" for a in node.names} if node.level else {module}
    return found


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def nodes_of(tree: ast.AST, runs: bool) -> Iterator[ast.AST]:
    """Everything in a module; with `runs`, without what stands under `if TYPE_CHECKING`."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if not (runs and isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from nodes_of(child, runs)


@pytest.mark.parametrize(("name", "below"), [("lmd", "chat"), ("ella", "chat"), ("chat", None)])
def test_the_algorithm_imports_neither_the_host_nor_the_other_algorithm(name, below):
    """Both algorithms read the answers of chat models, and `chat` knows what an answer is; it needs nobody."""
    for path in sorted((ROOT / name).rglob("*.py")):
        for module in imports(path):
            top, own = module.split(".")[0], module.split(".")[:2] in (["ella_lmd", name], ["ella_lmd", below])
            assert own or top in ALLOWED or top in sys.stdlib_module_names, f"{path.name} imports {module}"


def test_only_the_adapter_imports_the_hosts_internals():
    """Nodes may use the public node API and name the host's samplers; everything else goes through nodes/host."""
    for path in sorted((ROOT / "nodes").glob("*.py")):
        host = {
            m for m in imports(path) if m.split(".")[0] in ("comfy", "folder_paths", "execution", "server", "nodes")
        }
        assert host <= {"comfy.samplers"}, f"{path.name} imports {host}"


def test_no_file_evaluates_text_or_loads_pickles():
    banned = {"eval", "exec", "compile", "__import__"}
    for path in sorted(ROOT.rglob("*.py")):
        if {"tests", ".git", "output"} & set(path.relative_to(ROOT).parts):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in banned, f"{path.name}:{node.lineno} calls {node.func.id}"


@pytest.mark.parametrize("path", sorted((ROOT / "workflows").glob("*.json")), ids=lambda p: p.stem)
def test_workflows_are_saved_by_the_browser_and_hold_no_secret(path):
    text = path.read_text(encoding="utf-8")
    workflow = json.loads(text)
    assert {"nodes", "links", "version"} <= workflow.keys(), "UI format: an API prompt opens as an empty graph"
    assert not any(word in text.lower() for word in ("api_key", "bearer ", "sk-"))


def test_requirements_and_metadata_agree():
    tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    assert project["project"]["dependencies"] == wanted
    shipped = {"torch", "torchvision", "torchsde", "numpy", "einops", "transformers", "tokenizers", "sentencepiece",
               "safetensors", "aiohttp", "pyyaml", "pillow", "scipy", "tqdm", "psutil", "pydantic"}  # fmt: skip
    names = {line.split(">")[0].split("=")[0].strip().lower() for line in wanted}
    assert not names & shipped, "ComfyUI ships these itself"
    assert project["project"]["name"] == "ella-lmd" and project["tool"]["comfy"]["DisplayName"] == "ELLA + LMD"
