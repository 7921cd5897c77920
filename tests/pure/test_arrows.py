"""Which folder may import which, lazy imports included, and no circle among modules: the rule of docs/architecture.md."""

import sys
from pathlib import Path

import pytest

from .test_structure import imports

ROOT = Path(sys.modules["ella_lmd"].__path__[0])
# A room is a folder or a single file; each may import itself and what stands behind it, nothing else of the pack.
GROUND = {"lmd", "lmd/checks", "lmd/layout", "lmd/limits", "lmd/object_settings"}
MAY = {
    "chat": set(),
    "lmd": {"lmd/layout"},
    "lmd/checks": set(),
    "lmd/limits": {"lmd/checks"},
    "lmd/object_settings": {"lmd/checks", "lmd/limits"},
    "lmd/layout": {"lmd/checks", "lmd/limits", "lmd/object_settings"},
    "lmd/english": GROUND,
    "lmd/prompts": GROUND | {"lmd/english"},
    "lmd/planner": GROUND | {"chat", "lmd/english", "lmd/prompts"},
    "lmd/sampling": GROUND | {"lmd/english", "lmd/prompts"},
    "lmd/convert": GROUND | {"lmd/english", "lmd/prompts", "lmd/planner", "lmd/sampling"},
    "lmd/pictures": GROUND | {"lmd/english", "lmd/prompts", "lmd/planner", "lmd/sampling"},
    "ella": {"chat"},
    "demo": set(),
}
ALGORITHMS = set(MAY)
SHARED = {"nodes/host", "nodes/host/choices", "nodes/host/lora_files", "nodes/host/model_files", "nodes/host/ui"}
MAY |= {
    **{room: ALGORITHMS | SHARED for room in SHARED},
    "nodes/host/demo_model": ALGORITHMS | SHARED,
    "nodes/host/guidance": ALGORITHMS | SHARED,
}
HOST = {"nodes/host/lmd", "nodes/host/ella", "nodes/host/llm"}
MAY |= {room: ALGORITHMS | SHARED | {"nodes/host/guidance"} for room in HOST}
MAY["nodes"] = set(MAY)
MAY["__init__"] = {"nodes"}
PRODUCT = set(MAY)
MAY["evaluation"] = PRODUCT | {"tools"}
MAY["tools"] = PRODUCT | {"evaluation", "tests"}
FILES = sorted(
    p for top in ("chat", "lmd", "ella", "demo", "nodes", "evaluation", "tools") for p in (ROOT / top).rglob("*.py")
)


def module_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").as_posix().removesuffix("/__init__")


MODULES = {module_of(p) for p in FILES}


def room_of(module: str) -> str:
    """The longest room that the module lies in."""
    return max((r for r in MAY if module == r or module.startswith(r + "/")), key=len)


def targets(path: Path, runs: bool = False) -> set[str]:
    """The modules of the pack that a file imports anywhere in it; `runs` leaves out what only a type checker sees."""
    found = set()
    for name in imports(path, runs):
        parts = name.split(".")
        if parts[0] == "ella_lmd":
            known = ["/".join(parts[1:n]) for n in range(len(parts), 1, -1)]
            found |= set([k for k in known if k in MODULES][:1])
    return found - {module_of(path)}


GRAPH = {module_of(p): targets(p) for p in FILES}


@pytest.mark.parametrize("room", sorted(set(MAY) - {"__init__"}))
def test_a_room_imports_only_what_stands_below_it(room):
    for module, found in GRAPH.items():
        if room_of(module) == room:
            for target in found:
                assert room_of(target) in MAY[room] | {room}, f"{module} imports {target}"


def test_no_modules_import_each_other_in_a_circle():
    graph = {module_of(p): targets(p, runs=True) for p in FILES}
    state: dict[str, int] = {}

    def visit(module: str, trail: list[str]) -> None:
        state[module] = 1
        for target in sorted(graph[module]):
            assert state.get(target) != 1, f"a circle: {' -> '.join([*trail, module, target])}"
            if target not in state:
                visit(target, [*trail, module])
        state[module] = 2

    for module in sorted(graph):
        if module not in state:
            visit(module, [])


def test_lazy_imports_count():
    """Were they left out, a hidden circle would pass: this one is inside a function."""
    assert "lmd/planner/offline" in GRAPH["tools/plan"]
