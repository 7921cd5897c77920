"""LLM adapters in the host's samplers: every naming of their files, LoRA and ControlNet, batches, ranges, areas, caches."""

import comfy.cldm.cldm
import comfy.controlnet
import comfy.ops
import comfy.sd
import execution
import pytest
import test_models
import torch
from ella_lmd.nodes import llm_adapter
from ella_lmd.nodes.llm_adapter import LLMAdapterLoader
from ella_lmd.tests import adapter_models
from ella_lmd.tests.host.test_ella_official import Listener
from ella_lmd.tests.host.test_jina_adapter import jina  # noqa: F401
from ella_lmd.tests.host.test_llm_adapter import adapter, encode, encoders, models, unet  # noqa: F401

import nodes

LORA = "lora_unet_input_blocks_4_1_proj_in"


def draw(model, positive, negative, batch=(0,), steps=1, cfg=4.0):
    latent = {"samples": torch.zeros(len(batch), 4, 8, 8), "batch_index": list(batch)}
    return nodes.common_ksampler(model, 3, steps, cfg, "euler", "normal", positive, negative, latent)[0]["samples"]


def same(a, b) -> bool:
    return torch.equal(a[0][0], b[0][0]) and torch.equal(a[0][1]["pooled_output"], b[0][1]["pooled_output"])


@pytest.fixture(scope="module")
def control():
    """A ControlNet of the small SDXL's layout."""
    config = {**test_models.UNETS["sdxl"], "hint_channels": 3}
    for key in ("out_channels", "transformer_depth_output"):
        config.pop(key)
    module = comfy.cldm.cldm.ControlNet(**config, dtype=torch.float32, operations=comfy.ops.manual_cast)
    for i, p in enumerate(module.parameters()):
        torch.nn.init.normal_(p, std=0.02, generator=torch.Generator().manual_seed(i)).requires_grad_(False)
    return comfy.controlnet.ControlNet(module, load_device=torch.device("cpu"))


@pytest.fixture(scope="module")
def with_lora(unet):  # noqa: F811
    up, down = (torch.randn(s, generator=torch.Generator().manual_seed(2)) * 0.1 for s in ((320, 2), (2, 320)))
    state = {f"{LORA}.lora_up.weight": up, f"{LORA}.lora_down.weight": down}
    with torch.inference_mode():
        return comfy.sd.load_lora_for_models(unet, None, state, 1.0, 0.0)[0]


def controlled(control, positive, negative):
    image = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    return nodes.ControlNetApplyAdvanced().apply_controlnet(positive, negative, control, image, 0.5, 0.0, 1.0)


@pytest.fixture(scope="module")
def prompts(adapter, encoders):  # noqa: F811
    with torch.inference_mode():
        return [encode(adapter, encoders["gemma3"], text) for text in ("a red cat", "", "the hill")]


@pytest.mark.parametrize("naming", ["fused", "turbo"])
def test_every_naming_gives_the_same_conditioning(adapter, encoders, models, prompts, naming):  # noqa: F811
    name = f"{naming}.safetensors"
    adapter_models.write_adapter(models / "llm_adapters" / name, naming=naming)
    other = LLMAdapterLoader.execute(name).args[0]
    (models / "llm_adapters" / name).unlink()
    assert other.config == adapter.config and same(encode(other, encoders["gemma3"], "a red cat"), prompts[0])


@pytest.mark.parametrize("kind", ["resampler", "jina"])
def test_lora_controlnet_and_a_batch_of_four(request, unet, with_lora, control, prompts, kind):  # noqa: F811
    weights = {k: v.clone() for k, v in unet.model.state_dict().items()}
    if kind == "jina":
        positive, negative = (encode(*request.getfixturevalue("jina"), text) for text in ("a red cat", ""))
    else:
        positive, negative = prompts[:2]
    plain = draw(unet, positive, negative)
    lora = draw(with_lora, positive, negative)
    both = controlled(control, positive, negative)
    everything = draw(with_lora, *both)
    assert not torch.allclose(plain, lora, atol=1e-4) and not torch.allclose(everything, lora, atol=1e-4)
    batch = draw(with_lora, *both, batch=range(4), cfg=1.0)
    for i in range(4):
        assert torch.allclose(draw(with_lora, *both, batch=(i,), cfg=1.0), batch[i : i + 1], atol=1e-3)
    draw(unet, positive, negative, cfg=1.0)  # the host takes the LoRA out of the weights when the model runs without it
    assert all(torch.equal(v, weights[k]) for k, v in unet.model.state_dict().items())


class Kept:
    """An output node that keeps what it gets."""

    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE, got = (), "keep", "", True, []

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"conditioning": ("CONDITIONING",)}}

    def keep(self, conditioning):
        self.got.append(conditioning)
        return ()


def test_a_second_run_is_cached_and_another_text_loads_nothing_again(models, adapter, monkeypatch):  # noqa: F811
    for node in llm_adapter.NODES:
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, node.GET_SCHEMA().node_id, node)
    monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, "Kept", Kept)
    prompt = {
        "1": {"class_type": "LLMAdapterLoader", "inputs": {"adapter_name": "adapter.safetensors"}},
        "2": {"class_type": "LLMAdapterTextEncoderLoader", "inputs": {"encoder_name": "gemma"}},
        "3": {
            "class_type": "LLMAdapterEncode",
            "inputs": {"adapter": ["1", 0], "text_encoder": ["2", 0], "text": "a cat"},
        },
        "4": {"class_type": "Kept", "inputs": {"conditioning": ["3", 0]}},
    }
    listener = Listener()
    executor = execution.PromptExecutor(
        listener, cache_type=execution.CacheType.CLASSIC, cache_args={"ram": 0, "ram_inactive": 0, "lru": 0}
    )

    def cached() -> set[str]:
        executor.execute(prompt, "test", {}, ["4"])
        assert listener.errors == []
        return next(set(told["nodes"]) for event, told in executor.status_messages if event == "execution_cached")

    assert cached() == set() and cached() == {"1", "2", "3", "4"}
    prompt["3"]["inputs"]["text"] = "a dog"
    assert cached() == {"1", "2"} and len(Kept.got) == 2 and not same(*Kept.got)


class Contexts:
    """What the U-Net reads in every call: `(rows, context, input's shape)`."""

    def __init__(self, model):
        self.calls = []
        self.model = model.clone()
        self.model.set_model_unet_function_wrapper(self)

    def __call__(self, apply, arguments):
        context = arguments["c"]["c_crossattn"]
        self.calls.append((len(arguments["input"]), context.clone(), arguments["input"].shape))
        return apply(arguments["input"], arguments["timestep"], **arguments["c"])


@pytest.mark.parametrize(("length", "calls"), [(77, [2]), (154, [2]), (231, [2]), (385, [1, 1])])
def test_a_negative_prompt_of_clip_shares_the_call_where_the_host_can(unet, prompts, length, calls):  # noqa: F811
    watched = Contexts(unet)
    draw(watched.model, prompts[0], [[torch.randn(1, length, 2048), {"pooled_output": torch.randn(1, 1280)}]])
    assert [rows for rows, *_ in watched.calls] == calls


def test_a_joined_and_an_averaged_prompt_are_what_they_say(unet, prompts):  # noqa: F811
    (positive, negative, hill), by_clip = prompts, [[torch.randn(1, 77, 2048), {"pooled_output": torch.randn(1, 1280)}]]
    joined = nodes.ConditioningConcat().concat(positive, by_clip)[0]
    by_hand = [[torch.cat([positive[0][0], by_clip[0][0]], 1), positive[0][1]]]
    assert same(joined, by_hand) and torch.equal(draw(unet, joined, negative), draw(unet, by_hand, negative))
    mean = nodes.ConditioningAverage().addWeighted(positive, hill, 0.25)[0]
    assert torch.equal(mean[0][0], positive[0][0] * 0.25 + hill[0][0] * 0.75)
    pooled = (c[0][1]["pooled_output"] for c in (positive, hill))
    assert torch.allclose(mean[0][1]["pooled_output"], next(pooled) * 0.25 + next(pooled) * 0.75)
    assert draw(unet, mean, negative).isfinite().all()


def test_timestep_ranges_take_turns(unet, prompts, extra_nodes):  # noqa: F811
    positive, negative, hill = prompts
    limit = extra_nodes["ConditioningSetTimestepRange"]().set_range
    watched = Contexts(unet)
    draw(watched.model, limit(positive, 0.0, 0.5)[0] + limit(hill, 0.5, 1.0)[0], negative, steps=2)
    read = [next(name for name, c in (("cat", positive), ("hill", hill)) if (context == c[0][0]).all(-1).all(-1).any())
            for _, context, _ in watched.calls]  # fmt: skip
    assert read == ["cat", "hill"]


def test_an_area_has_its_own_prompt(unet, prompts):  # noqa: F811
    positive, negative, hill = prompts
    area = nodes.ConditioningSetArea().append(hill, 32, 64, 32, 0, 1.0)[0]
    watched = Contexts(unet)
    drawn = draw(watched.model, positive + area, negative)
    plain = draw(unet, positive, negative)
    (inside,) = (
        context for _, context, shape in watched.calls if shape[-1] == 4
    )  # the host gives the negative an area too
    assert sorted([torch.equal(row, c[0][0][0]) for c in (hill, negative)] for row in inside) == [
        [False, True],
        [True, False],
    ]
    changed = (drawn - plain).abs().amax((0, 1, 2))
    assert (changed[:4] == 0).all() and (changed[4:] > 0).all()
