"""How the graphs in workflows/ lie on the canvas."""

import json
import sys
from pathlib import Path

import pytest
from ella_lmd.tools.workflows.graph import FOOTER, below, gap

ROOT = Path(sys.modules["ella_lmd"].__path__[0])
GRAPHS = sorted((ROOT / "workflows").glob("*.json"))


@pytest.mark.parametrize("path", GRAPHS, ids=lambda p: p.stem)
def test_a_missing_model_files_notice_covers_no_other_node(path):
    """The front end adds it below the node; and no node covers the next one's title."""
    nodes = json.loads(path.read_text(encoding="utf-8"))["nodes"]
    for node in nodes:
        room = FOOTER if node["properties"].get("models") else 0
        for lower in below(node, nodes):
            assert gap(node, lower) >= room, f"{node['type']} and {lower['type']}"
