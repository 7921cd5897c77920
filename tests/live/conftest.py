"""The live ring: one real ComfyUI server for all tests, with the small test checkpoint under a name that users have."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ella_lmd.tests.scripted_server import ScriptedServer
from ella_lmd.tools import comfy_server
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]

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


@contextlib.contextmanager
def running(folder: Path, models: dict[str, Path]):
    """A server with these models and a scripted server for the local ones that the workflows name."""
    base = comfy_server.prepare(folder, models)
    with ScriptedServer(LAYOUT) as scripted:
        settings = base / "user" / "__ella_lmd"
        settings.mkdir(parents=True)
        entry = {"name": "Ollama", "address": scripted.address}
        (settings / "servers.json").write_text(json.dumps({"servers": [entry]}))
        with comfy_server.server(base, cpu=True) as server:
            yield server


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    made = subprocess.run(
        [sys.executable, "-c", MAKE_MODEL, str(comfy_server.host_path()), str(ROOT / "tests")],
        capture_output=True, text=True, env=dict(os.environ),
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return Path(made.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="session")
def server(tmp_path_factory, checkpoint):
    with running(tmp_path_factory.mktemp("comfyui"), {f"checkpoints/{CHECKPOINT}": checkpoint}) as server:
        yield server


@pytest.fixture(scope="module")
def every_model(tmp_path_factory):
    """A server with small models under all names of the workflows, except the text models that write."""
    from ella_lmd.tests.live.test_ella_workflows import SIZE, small_models

    models = small_models(tmp_path_factory.mktemp("models"))
    models[f"checkpoints/{CHECKPOINT}"] = next(v for k, v in models.items() if k.startswith("checkpoints/"))
    with running(tmp_path_factory.mktemp("comfyui-browser"), models) as server:
        Image.new("RGB", (SIZE, SIZE), (120, 60, 30)).save(server.base / "input" / "example.png")
        yield server


@pytest.fixture(scope="session")
def object_info(server):
    return server.get("/object_info")
