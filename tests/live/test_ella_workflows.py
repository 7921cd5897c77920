"""ELLA's graphs in a real ComfyUI server over HTTP, with small models under the real names."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ella_lmd.tests import adapter_models, ella_models
from ella_lmd.tools import comfy_server
from ella_lmd.tools.workflows import graph as graphs
from ella_lmd.tools.workflows import make_ella_workflows as ours
from PIL import Image
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]


STEPS, SIZE = 2, 64
CHECKPOINTS = (ours.CHECKPOINT, "awpainting_v12.safetensors", "revAnimated_v11.safetensors")
ENCODERS = (ours.ENCODER, "models--google--flan-t5-xl-text-encoder")


# In a process of its own: this one must stay free of the host's modules.
MAKE_MODELS = """
import sys
host, tests, control = sys.argv[1:]
sys.path[:0] = [host, tests]
sys.argv = ["make-models", "--cpu"]
import comfy.options
comfy.options.enable_args_parsing()
import comfy.cldm.cldm, comfy.ops, models, torch
from safetensors.torch import save_file
config = {k: v for k, v in models.UNETS["sd15"].items() if k not in ("out_channels", "transformer_depth_output")}
net = comfy.cldm.cldm.ControlNet(
    **config, hint_channels=3, device="meta", dtype=torch.float32, operations=comfy.ops.disable_weight_init
)
save_file(models.fill(net, "control_model."), control)
print(models.sdxl_checkpoint())
print(models.sd15_checkpoint())
"""


def small_models(folder: Path) -> dict[str, Path]:
    """{"checkpoints/name": file, ...} of small models; ComfyUI's classes give them their layout."""
    control, lora = folder / "control.safetensors", folder / "lora.safetensors"
    made = subprocess.run(
        [sys.executable, "-c", MAKE_MODELS, str(comfy_server.host_path()), str(ROOT / "tests"), str(control)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    sdxl, checkpoint = map(Path, made.stdout.strip().splitlines()[-2:])
    name = "lora_unet_mid_block_attentions_0_proj_in"
    up, down = torch.ones(320, 1) * 0.1, torch.ones(1, 320)
    save_file({f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}, lora)
    models = {f"checkpoints/{n}": checkpoint for n in CHECKPOINTS}
    models |= {f"loras/{n}": lora for n in (ours.LORA, "blindbox_v1_mix.safetensors")}
    models[f"controlnet/{ours.CONTROLNET}"] = control
    for encoder in ENCODERS:
        ella_models.write(folder, ours.ELLA, encoder)
        models[f"ella_encoder/{encoder}"] = folder / "ella_encoder" / encoder
    adapter_models.write_adapter(folder / "adapter.safetensors")
    adapter_models.write_encoder(folder / ours.GEMMA, "gemma3")
    models[f"checkpoints/{ours.SDXL}"] = sdxl
    models[f"llm_adapters/{ours.ADAPTER}"] = folder / "adapter.safetensors"
    models[f"text_encoders/{ours.GEMMA}"] = folder / ours.GEMMA
    return models | {f"ella/{ours.ELLA}": folder / "ella" / ours.ELLA}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    base = comfy_server.prepare(tmp_path_factory.mktemp("base"), small_models(tmp_path_factory.mktemp("models")))
    Image.new("RGB", (SIZE, SIZE), (120, 60, 30)).save(base / "input" / "example.png")
    with comfy_server.server(base, cpu=True) as running:
        yield running


def small(prompt: dict) -> dict:
    for node in prompt.values():
        inputs = node["inputs"]
        if node["class_type"] in ("EmptyLatentImage", "LLMLayoutPlanner"):
            inputs.update(width=SIZE, height=SIZE)
        if isinstance(inputs.get("steps"), int):
            inputs["steps"] = STEPS
    return prompt


def run(server, workflow: dict, info: dict) -> str:
    """Run a saved graph; returns what the server logged meanwhile."""
    before = len(server.log.read_text())
    prompt = small(graphs.to_api(workflow, info))
    outputs = server.run(prompt)["outputs"]
    shown = {k for k, n in prompt.items() if n["class_type"] in ("SaveImage", "PreviewImage")}  # not a planner's layout
    shown -= {k for k in shown if prompt[k]["_meta"]["title"] == "Guidance energy"}  # a plot
    files = server.files({"outputs": {k: made for k, made in outputs.items() if k in shown}})
    assert files and all(Image.open(f).size == (SIZE, SIZE) for f in files)
    log = server.log.read_text()[before:]
    assert "Traceback" not in log
    return log


@pytest.mark.parametrize("name", ours.GRAPHS)
def test_each_workflow_of_ella_runs_and_follows_the_timestep(server, name):
    workflow = json.loads((ROOT / "workflows" / f"{name}.json").read_text())
    log = run(server, workflow, server.get("/object_info"))
    assert "TimestepAwareConditioning" not in log, "a warning that the conditioning is not followed"


@pytest.mark.parametrize("name", ["workflow_example", "workflow_ella_text_encode", "workflow_lora_positive_ella_only"])
def test_a_graph_of_the_official_pack_runs_after_the_exchange_that_the_server_offers(server, shared, name):
    """The exchange as the front end makes it: from the server's own table of replacements."""
    path = shared / "data" / "official_ella_workflows" / f"{name}.workflow.json"
    workflow = json.loads(path.read_text())
    info, table = server.get("/object_info"), server.get("/node_replacements")
    for node in workflow["nodes"]:
        if node["type"] not in info:
            exchange(node, table[node["type"]][0], info)
    assert "TimestepAwareConditioning" not in run(server, workflow, info)


def test_a_prompt_of_the_official_pack_runs_as_it_is(server, shared):
    """As an API client queues it: old ids, optional inputs left out, no titles."""
    path = shared / "data" / "official_ella_workflows" / "workflow_ella_text_encode.workflow.json"
    workflow = json.loads(path.read_text())
    info, table = server.get("/object_info"), server.get("/node_replacements")
    known = {**workflow, "nodes": [n for n in workflow["nodes"] if n["type"] in info]}
    prompt = graphs.to_api(known, info)
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    for node in workflow["nodes"]:
        if node["type"] not in info:
            inputs = dict(zip(table[node["type"]][0]["old_widget_ids"], node.get("widgets_values", [])))
            inputs |= {s["name"]: links[s["link"]] for s in node.get("inputs", []) if s["link"]}
            prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    assert server.files(server.run(small({k: {x: v[x] for x in ("class_type", "inputs")} for k, v in prompt.items()})))


def exchange(node: dict, replacement: dict, info: dict) -> None:
    by_old = dict(zip(replacement["old_widget_ids"], node.get("widgets_values", [])))
    names = {m["old_id"]: m["new_id"] for m in replacement["input_mapping"]}
    values = {names[old]: value for old, value in by_old.items()}
    node["type"] = replacement["new_node_id"]
    for socket in node.get("inputs", []):
        socket["name"] = names[socket["name"]]
    widgets = graphs.widgets(info[node["type"]], values)
    node["widgets_values"] = [values.get(name, options.get("default")) for name, options in widgets]


def test_a_missing_model_is_refused_with_the_searched_folders(server):
    prompt = {"1": {"class_type": "ELLAModelLoader", "inputs": {"ella_name": "absent.safetensors"}},
              "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}}  # fmt: skip
    status, reply = server.post("/prompt", {"prompt": prompt})
    text = json.dumps(reply)
    assert status == 400
    assert str(server.base / "models" / "ella") in text and ours.ELLA in text
