"""How the graphs in workflows/ lie on the canvas."""

import json
import sys
from pathlib import Path

import pytest
from ella_lmd.tools.workflows.graph import below, gap, room

ROOT = Path(sys.modules["ella_lmd"].__path__[0])
GRAPHS = sorted((ROOT / "workflows").glob("*.json"))


@pytest.mark.parametrize("path", GRAPHS, ids=lambda p: p.stem)
def test_no_node_grows_over_the_next_one(path):
    """The front end adds a missing model file's notice below a node, and makes room for a picture that has come."""
    nodes = json.loads(path.read_text(encoding="utf-8"))["nodes"]
    for node in nodes:
        for lower in below(node, nodes):
            assert gap(node, lower) >= room(node), f"{node['type']} and {lower['type']}"
