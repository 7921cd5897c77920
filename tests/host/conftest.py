"""The host ring: real ComfyUI classes in this process, on the CPU, under inference mode as in ComfyUI's executor."""

import asyncio
import importlib.util
import os
import sys
from pathlib import Path

import pytest

HOST = Path(os.environ.get("COMFYUI_PATH") or Path.home() / ".cache" / "ella-lmd" / "ComfyUI-0.30.0")
if not (HOST / "main.py").exists():
    pytest.exit(f"ComfyUI is not in {HOST}: run these tests with `python run.py test host`", returncode=3)
sys.path.insert(0, str(HOST))
sys.argv = ["ella-lmd-tests", "--cpu"]

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()
import folder_paths  # noqa: E402
import torch  # noqa: E402

_spec = importlib.util.spec_from_file_location("test_models", Path(__file__).resolve().parents[1] / "models.py")
test_models = importlib.util.module_from_spec(_spec)
sys.modules["test_models"] = test_models
_spec.loader.exec_module(test_models)

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # small models gain more from files side by side than from threads

for key in ("checkpoints", "diffusion_models"):
    folder_paths.add_model_folder_path(key, str(test_models.folder()))


@pytest.fixture(autouse=True)
def inference_mode():
    """ComfyUI runs every node inside inference mode; gradients that work only outside it would pass unseen."""
    with torch.inference_mode():
        yield


@pytest.fixture(scope="session")
def sd15():
    """(MODEL, CLIP, VAE) of the small SD1.5-layout checkpoint, loaded by the host's own CheckpointLoaderSimple."""
    import nodes

    with torch.inference_mode():
        return nodes.CheckpointLoaderSimple().load_checkpoint(test_models.sd15_checkpoint().name)


@pytest.fixture(scope="session")
def extra_nodes():
    """The host's NODE_CLASS_MAPPINGS with its comfy_extras nodes loaded."""
    import nodes

    asyncio.run(nodes.init_builtin_extra_nodes())
    return nodes.NODE_CLASS_MAPPINGS


@pytest.fixture(scope="session")
def demo():
    """The pack's own trained model: small, so the long tables below stay affordable."""
    from ella_lmd.nodes.host import demo_model

    with torch.inference_mode():
        return demo_model.load()
