"""Every node has a help page, and every help page a node."""

import re
import sys
from pathlib import Path

ROOT = Path(sys.modules["ella_lmd"].__path__[0])


def test_help_pages_and_nodes_match():
    ids = {i for p in (ROOT / "nodes").rglob("*.py") for i in re.findall(r'node_id="(\w+)"', p.read_text())}
    pages = {p.stem for p in (ROOT / "web" / "docs").glob("*.md")}
    missing = {i for i in ids - pages}
    assert not missing, f"no web/docs page for {sorted(missing)}"
    for page in pages:
        text = (ROOT / "web" / "docs" / f"{page}.md").read_text()
        assert text.startswith("# ") and len(text) > 60
