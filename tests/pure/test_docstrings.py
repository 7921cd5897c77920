"""Whoever reads a public name finds at least one sentence about it."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(sys.modules["ella_lmd"].__path__[0])
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def public(body: list[ast.stmt], owner: ast.ClassDef | None = None) -> Iterator[tuple[Definition, ast.ClassDef | None]]:
    for node in body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node, owner
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, node)


@pytest.mark.parametrize("folder", ["lmd", "ella", "chat", "nodes/host", "evaluation"])
def test_everything_public_has_a_docstring(folder):
    """Not repeated: torch's `forward`, and what a class or protocol of the folder says of a method of the same name."""
    found = {
        path: list(public(ast.parse(path.read_text(encoding="utf-8")).body))
        for path in sorted((ROOT / folder).rglob("*.py"))
    }
    assert sum(map(len, found.values())) > 5
    named = [pair for pairs in found.values() for pair in pairs]
    bases = {base.split(".")[-1] for _, o in named if o is not None for base in map(ast.unparse, o.bases)}
    told = {(o.name, node.name) for node, o in named if o is not None and ast.get_docstring(node)}
    protocols = {o.name for _, o in named if o is not None and "Protocol" in map(ast.unparse, o.bases)}
    described = {"forward"} | {method for owner, method in told if owner in bases | protocols}
    bare = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path, pairs in found.items()
        for node, owner in pairs
        if not ast.get_docstring(node) and not (owner is not None and node.name in described)
    ]
    assert not bare, "\n".join(bare)
