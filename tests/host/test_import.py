"""Starting ComfyUI with the pack costs next to nothing: what is heavy is loaded when it is first used."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(sys.modules["ella_lmd"].__path__[0])
HOST = Path(sys.modules["folder_paths"].__file__).parent

SCRIPT = """
import asyncio, importlib.util, json, sys, time
sys.argv = ["x", "--cpu"]
sys.path.insert(0, {host!r})
import comfy.options
comfy.options.enable_args_parsing()
import nodes, execution, server
start = time.process_time()
asyncio.run(nodes.init_builtin_extra_nodes())
extra = time.process_time() - start
host = set(sys.modules)
start = time.process_time()
spec = importlib.util.spec_from_file_location("the_pack", {root!r} + "/__init__.py", submodule_search_locations=[{root!r}])
pack = sys.modules["the_pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
extension = asyncio.run(pack.comfy_entrypoint())
found = asyncio.run(extension.get_node_list())
seconds = time.process_time() - start
new = sorted(m for m in set(sys.modules) - host if not m.startswith("the_pack"))
print(json.dumps({{"seconds": seconds, "extra": extra, "new": new, "nodes": len(found)}}))
"""
# Parts of Python itself that are small, and what of the host its own nodes happen not to load.
ALLOWED = {"comfy"}


def test_importing_the_pack_brings_in_nothing_heavy():
    """In a process that has the host and its own nodes: no new library, and a fraction of the time of those nodes."""
    script = SCRIPT.format(host=str(HOST), root=str(ROOT))
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment, cwd=HOST
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["nodes"] > 10
    tops = {m.partition(".")[0] for m in found["new"]} - set(sys.stdlib_module_names) - ALLOWED
    assert not tops, f"importing the pack loads {sorted(tops)}"
    assert not any(m.startswith(("torch.", "torchvision", "scipy", "transformers")) for m in found["new"]), found["new"]
    # Processor time: about 0.2 s where the host's own nodes take seconds; a ratio holds on slow machines too.
    assert found["seconds"] < max(0.3, 0.2 * found["extra"]), found
