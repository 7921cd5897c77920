"""Graphs saved with the official ComfyUI-ELLA pack open and run with ours, to what they meant."""

import asyncio
import json
import os
import sys

import execution
import folder_paths
import pytest
import torch
from ella_lmd.nodes import NODES, ella_compat
from ella_lmd.nodes.ella import ELLAModelLoader
from ella_lmd.nodes.host.ella.compat import REPLACEMENTS, convert_prompt
from ella_lmd.tests import ella_models
from ella_lmd.tests.ella_reference import Recorder, naive_connector
from safetensors.torch import save_file

import nodes

STEPS, SIZE = 3, 32
PROMPT = "a large, textured green crocodile"
OFFICIAL_FOLDERS = ("models--google--flan-t5-xl--text_encoder", "models--google--flan-t5-xl-text-encoder")


@pytest.fixture(scope="module")
def models(sd15, extra_nodes, tmp_path_factory):
    """Small models under the names that those graphs use, and our nodes in the host's registry."""
    root = tmp_path_factory.mktemp("official")
    for encoder in OFFICIAL_FOLDERS:
        ella_models.write(root, "ella-sd1.5-tsc-t5xl.safetensors", encoder)
    (root / "checkpoints").mkdir()
    (root / "loras").mkdir()
    name = "lora_unet_mid_block_attentions_0_proj_in"
    lora = {f"{name}.lora_up.weight": torch.ones(320, 1) * 0.1, f"{name}.lora_down.weight": torch.ones(1, 320)}
    save_file(lora, root / "loras" / "blindbox_v1_mix.safetensors")
    checkpoint = sys.modules["test_models"].sd15_checkpoint()
    for saved_as in ("awpainting_v12.safetensors", "revAnimated_v11.safetensors"):
        os.symlink(checkpoint, root / "checkpoints" / saved_as)
    for key in ("ella", "ella_encoder", "checkpoints", "loras"):
        folder_paths.add_model_folder_path(key, str(root / key), is_default=True)
    for node in NODES:
        nodes.NODE_CLASS_MAPPINGS[node.GET_SCHEMA().node_id] = node
    return root


def api_prompt(workflow: dict) -> dict:
    """What a front end without the official pack would queue: widget values by the names the replacement lists."""
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        inputs = {i["name"]: links[i["link"]] for i in node.get("inputs", []) if i.get("link") in links}
        for name, value in zip(widget_names(node["type"], inputs), node.get("widgets_values", [])):
            inputs.setdefault(name, value)
        inputs.pop("control_after_generate", None)
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def widget_names(kind: str, linked: dict) -> list[str]:
    if kind in REPLACEMENTS:
        return list(REPLACEMENTS[kind].widgets)
    names, types = [], nodes.NODE_CLASS_MAPPINGS[kind].INPUT_TYPES()
    for name, spec in {**types.get("required", {}), **types.get("optional", {})}.items():
        if isinstance(spec[0], list) or spec[0] in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"):
            names.append(name)
            if name in ("seed", "noise_seed"):
                names.append("control_after_generate")
    return names


def small(prompt: dict) -> dict:
    """The same graph with a small image and few steps; images are kept in the temporary folder."""
    for node in prompt.values():
        inputs = node["inputs"]
        if node["class_type"] == "EmptyLatentImage":
            inputs.update(width=SIZE, height=SIZE)
        if "steps" in inputs:
            inputs["steps"] = STEPS
    return prompt


class Listener:
    """The part of the server that the executor talks to."""

    client_id = None
    last_node_id = None

    def __init__(self):
        self.errors = []

    def send_sync(self, event, data, sid=None):
        if event == "execution_error":
            self.errors.append(data)


def run(prompt: dict) -> list:
    """Validate and execute a prompt with the host's own code; returns the errors."""
    prompt = convert_prompt({"prompt": prompt})["prompt"]
    valid = asyncio.run(execution.validate_prompt("test", prompt, None))
    assert valid[0], (valid[1], valid[3])
    listener = Listener()
    executor = execution.PromptExecutor(
        listener, cache_type=execution.CacheType.CLASSIC, cache_args={"ram": 0, "ram_inactive": 0, "lru": 0}
    )
    executor.execute(prompt, "test", {}, valid[2])
    return [m for m in executor.status_messages if m[0] == "execution_error"]


@pytest.fixture
def watched(models, monkeypatch):
    """Records what U-Net and connector see in whatever models a prompt loads."""
    seen = []
    original = ELLAModelLoader.execute.__func__

    def load(cls, ella_name):
        out = original(cls, ella_name)
        connector = out.args[0].patcher.model
        connector.register_forward_pre_hook(lambda _m, args: seen.append(("connector", int(args[1]))))
        return out

    monkeypatch.setattr(ELLAModelLoader, "execute", classmethod(load))
    sampled = nodes.common_ksampler

    def sample(model, *args, **kwargs):
        class Nothing:
            patcher = type("P", (), {"model": torch.nn.Linear(1, 1)})

        with Recorder(model, Nothing) as record:
            out = sampled(model, *args, **kwargs)
        seen.append(("unet", record))
        return out

    monkeypatch.setattr(nodes, "common_ksampler", sample)
    return seen


def records(watched):
    (record,) = (r for kind, r in watched if kind == "unet")
    return record


def texts_of(prompt):
    return [
        node["inputs"]["text"]
        for node in prompt.values()
        if node["class_type"] in ("T5TextEncode #ELLA", "EllaTextEncode")
    ]


@pytest.mark.parametrize("name", ["workflow_example", "workflow_ella_text_encode", "workflow_lora_positive_ella_only"])
def test_a_saved_graph_runs_to_what_it_meant(shared, watched, name):
    path = shared / "data" / "official_ella_workflows" / f"{name}.workflow.json"
    prompt = small(api_prompt(json.loads(path.read_text())))
    texts = texts_of(prompt)
    assert texts
    assert run(prompt) == []
    seen = records(watched)
    assert len(seen.unet) >= STEPS and max(seen.rows) <= 2
    naive = naive_connector({k: v.half() for k, v in ella_models.connector_state().items()})
    from ella_lmd.nodes.host.ella.t5 import load_text_encoder

    encoder = load_text_encoder(OFFICIAL_FOLDERS[0])
    for text in texts:
        at = set()
        for timestep, context in zip(seen.unet, seen.contexts):
            wanted = naive(encoder.features(text), timestep)[0]
            if any(torch.allclose(row[:64], wanted, atol=1e-4) for row in context):
                at.add(timestep)
        assert at == set(seen.unet), f"the text {text[:30]!r} was not served at every timestep"


def test_a_prompt_without_its_optional_inputs_is_converted():
    prompt = {
        "1": {"class_type": "EllaTextEncode", "inputs": {"ella": ["2", 0], "text": "x", "text_encoder": ["3", 0]}}
    }
    (node,) = convert_prompt({"prompt": prompt})["prompt"].values()
    assert node == {
        "class_type": "ELLACompatEncodeText",
        "inputs": {"ella": ["2", 0], "text": "x", "text_encoder": ["3", 0]},
    }


def test_nothing_is_converted_where_the_official_pack_is_installed(monkeypatch):
    monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, "EllaEncode", object)
    prompt = {"1": {"class_type": "EllaEncode", "inputs": {"ella": ["2", 0]}}}
    assert convert_prompt({"prompt": prompt})["prompt"]["1"]["class_type"] == "EllaEncode"


def test_every_replacement_names_inputs_and_outputs_that_exist():
    schemas = {node.GET_SCHEMA().node_id: node.GET_SCHEMA() for node in NODES}
    for old, r in REPLACEMENTS.items():
        schema = schemas[r.new]
        assert old not in schemas, "ids of the official pack are never registered"
        ours = {name for _, name in r.inputs}
        assert {i.id for i in schema.inputs if not i.optional} <= ours <= {i.id for i in schema.inputs}
        assert set(r.widgets) <= {theirs for theirs, _ in r.inputs}
        assert not r.all_widgets or [w for w in r.all_widgets if w in r.widgets] == list(r.widgets)
        assert len(schema.outputs) == r.outputs
    assert {node.GET_SCHEMA().node_id for node in ella_compat.NODES} <= {r.new for r in REPLACEMENTS.values()}


def test_combined_clip_embeds_reach_the_model(models, sd15):
    from ella_lmd.nodes.host.ella.connector import load_connector
    from ella_lmd.nodes.host.ella.t5 import load_text_encoder

    model, clip, _ = sd15
    connector = load_connector("ella-sd1.5-tsc-t5xl.safetensors")
    encoder = load_text_encoder(OFFICIAL_FOLDERS[0], default_length=128)
    embeds = ella_compat.ELLACompatTextEncode.execute("one", encoder).args[0]
    by_clip = nodes.CLIPTextEncode().encode(clip, "two")[0]
    both = ella_compat.ELLACompatCombineClip.execute(by_clip, embeds).args[0]
    also = ella_compat.ELLACompatCombineEmbeds.execute(
        embeds, ella_compat.ELLACompatFromConditioning.execute(by_clip).args[0]
    ).args[0]
    assert embeds.features.shape[1] == 128
    for combined in (both, also):
        out = ella_compat.ELLACompatApply.execute(model, connector, combined, combined)
        tokens = out.args[1][0][0]
        assert tokens.shape[1] == 141
        assert torch.equal(torch.Tensor(tokens[:, 64:]), by_clip[0][0])
    with pytest.raises(ValueError, match="no text for ELLA"):
        only = ella_compat.ELLACompatFromConditioning.execute(by_clip).args[0]
        ella_compat.ELLACompatEncode.execute(connector, only)
