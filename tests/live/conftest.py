"""The live ring: one real ComfyUI server for all tests, with the small test checkpoint under a name that users have."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ella_lmd.tests.scripted_server import ScriptedServer

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import comfy_server  # noqa: E402

CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"
LAYOUT = json.dumps(
    {
        "canvas": [512, 512],
        "objects": [
            {"name": "a red cat", "box": [40, 200, 190, 210]},
            {"name": "a blue dog", "box": [280, 180, 200, 240]},
        ],
        "background": "A realistic photo of a park",
        "negative": "",
    }
)

# In a process of its own: this one must stay free of the host's modules.
MAKE_MODEL = """
import sys
host, tests = sys.argv[1:]
sys.path[:0] = [host, tests]
sys.argv = ["make-model", "--cpu"]
import comfy.options
comfy.options.enable_args_parsing()
import models
print(models.sd15_checkpoint())
"""


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    made = subprocess.run(
        [sys.executable, "-c", MAKE_MODEL, str(comfy_server.host_path()), str(ROOT / "tests")],
        capture_output=True, text=True, env=dict(os.environ),
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    model = Path(made.stdout.strip().splitlines()[-1])
    base = comfy_server.prepare(tmp_path_factory.mktemp("comfyui"), {f"checkpoints/{CHECKPOINT}": model})
    with ScriptedServer(LAYOUT) as scripted:  # stands in for the local servers that the workflows name
        folder = base / "user" / "__ella_lmd"
        folder.mkdir(parents=True)
        entry = {"name": "Ollama", "address": scripted.address}
        (folder / "servers.json").write_text(json.dumps({"servers": [entry]}))
        with comfy_server.server(base, cpu=True) as running:
            yield running


@pytest.fixture(scope="session")
def object_info(server):
    return server.get("/object_info")
