"""LoRAs for LLM adapters through the host's patcher."""

import logging

import folder_paths
import pytest
import torch
from ella_lmd.nodes.llm_adapter_lora import LLMAdapterLoRA
from ella_lmd.tests.host.test_jina_adapter import jina  # noqa: F401
from ella_lmd.tests.host.test_llm_adapter import adapter, encode, encoders, models, unet  # noqa: F401
from safetensors.torch import save_file

RANK, UNET = 2, "lora_unet_input_blocks_4_1_proj_in"
generator = torch.Generator().manual_seed(5)


def lora(name: str, shape, scale: float = 0.05) -> dict[str, torch.Tensor]:
    up, down = (torch.randn(s, generator=generator) * scale for s in ((shape[0], RANK), (RANK, shape[1])))
    return {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down, f"{name}.alpha": torch.tensor(1.0)}


def linear(hosted) -> dict[str, torch.nn.Module]:
    return {n: m for n, m in hosted.patcher.model.named_modules() if isinstance(m, torch.nn.Linear)}


@pytest.fixture(scope="module")
def loras(models):  # noqa: F811
    with pytest.MonkeyPatch.context() as patch:
        (models / "loras").mkdir()
        known = dict(folder_paths.folder_names_and_paths, loras=([str(models / "loras")], {".safetensors"}))
        patch.setattr(folder_paths, "folder_names_and_paths", known)
        yield models / "loras"


def apply(model, hosted, name, of_model=1.0, of_adapter=1.0):
    with torch.inference_mode():
        return LLMAdapterLoRA.execute(model, hosted, name, of_model, of_adapter).args


def same(a, b) -> bool:
    return torch.equal(a[0][0], b[0][0]) and torch.equal(a[0][1]["pooled_output"], b[0][1]["pooled_output"])


def written(loras, name, state):
    save_file(state, loras / name)
    return name


def merged(hosted, state, strength):
    """What the adapter gives with the products added to its weights by hand; it is put back after that."""
    before = {n: m.weight.detach().clone() for n, m in linear(hosted).items()}

    def run(encoder, text):
        with torch.no_grad():
            for n, m in linear(hosted).items():
                stem = "lora_te_" + n.replace(".", "_")
                if f"{stem}.alpha" in state:
                    delta = state[f"{stem}.lora_up.weight"] @ state[f"{stem}.lora_down.weight"]
                    m.weight.copy_((before[n].float() + strength / RANK * delta).to(m.weight.dtype))
        out = encode(hosted, encoder, text)
        with torch.no_grad():
            for n, m in linear(hosted).items():
                m.weight.copy_(before[n])
        return out

    return run


@pytest.mark.parametrize("family", ["gemma3", "jina"])
def test_a_lora_acts_as_if_merged_and_is_undone(request, adapter, encoders, unet, loras, family):  # noqa: F811
    hosted, encoder = (adapter, encoders[family]) if family != "jina" else request.getfixturevalue("jina")
    state = {}
    for n, m in linear(hosted).items():
        state |= lora("lora_te_" + n.replace(".", "_"), m.weight.shape)
    name = written(loras, f"{family}.safetensors", state)
    plain = encode(hosted, encoder, "a red cat")
    wanted = merged(hosted, state, 0.5)(encoder, "a red cat")
    model, patched = apply(unet, hosted, name, 1.0, 0.5)
    assert model is unet and set(patched.patcher.patches) == {n + ".weight" for n in linear(hosted)}
    found = encode(patched, encoder, "a red cat")
    assert torch.allclose(found[0][0], wanted[0][0], atol=1e-3) and not torch.allclose(
        found[0][0], plain[0][0], atol=0.1
    )
    assert torch.allclose(found[0][1]["pooled_output"], wanted[0][1]["pooled_output"], atol=1e-3)
    assert same(encode(hosted, encoder, "a red cat"), plain) and same(encode(patched, encoder, "a red cat"), found)


def test_strength_zero_changes_no_bit_and_parts_are_independent(adapter, encoders, unet, loras):  # noqa: F811
    state = lora("lora_te_pooled_projection_0", (2048, 2048)) | lora(
        UNET, (unet.model.state_dict()["diffusion_model.input_blocks.4.1.proj_in.weight"].shape)
    )
    name = written(loras, "both.safetensors", state)
    assert apply(unet, adapter, name, 0, 0) == (unet, adapter)
    model, patched = apply(unet, adapter, name, 1.0, 0.0)
    assert patched is adapter and len(model.patches) == 1 and not unet.patches
    model, patched = apply(unet, adapter, name, 0.0, 1.0)
    assert model is unet and len(patched.patcher.patches) == 1 and not adapter.patcher.patches
    twice = apply(unet, patched, name, 0.0, 1.0)[1]
    once, again = (encode(x, encoders["gemma3"], "a cat")[0][1]["pooled_output"] for x in (patched, twice))
    assert not torch.allclose(once, again, atol=1e-3)


def test_fused_names_act_as_split_ones(adapter, encoders, unet, loras):  # noqa: F811
    joined = lora("lora_te_compression_attention_in_proj", (3 * 2048, 2048))
    split = {}
    for i, n in enumerate("qkv"):
        stem = f"lora_te_compression_attention_{n}_proj"
        split[f"{stem}.lora_up.weight"] = joined["lora_te_compression_attention_in_proj.lora_up.weight"][i * 2048 :][
            :2048
        ].clone()
        split |= {
            f"{stem}.{p}": joined[f"lora_te_compression_attention_in_proj.{p}"].clone()
            for p in ("lora_down.weight", "alpha")
        }
    found = [
        encode(apply(unet, adapter, written(loras, f"{len(s)}.safetensors", s))[1], encoders["gemma3"], "a cat")
        for s in (joined, split)
    ]
    assert same(*found) and not same(found[0], encode(adapter, encoders["gemma3"], "a cat"))


def test_an_unknown_lora_says_so(adapter, unet, loras, caplog):  # noqa: F811
    clip = lora("lora_te1_text_model_encoder_layers_0_mlp_fc1", (64, 32))
    with pytest.raises(ValueError, match=r"clip\.safetensors is not a LoRA for this adapter or this model"):
        apply(unet, adapter, written(loras, "clip.safetensors", clip))
    narrow = lora("lora_te_pooled_projection_0", (1024, 2048))
    with pytest.raises(ValueError, match="does not fit the adapter 'adapter.safetensors'.*pooled_projection.0.*1024"):
        apply(unet, adapter, written(loras, "narrow.safetensors", narrow))
    shape = unet.model.state_dict()["diffusion_model.input_blocks.4.1.proj_in.weight"].shape
    with caplog.at_level(logging.WARNING):
        apply(unet, adapter, written(loras, "unet.safetensors", lora(UNET, shape)))
        apply(
            unet, adapter, written(loras, "mixed.safetensors", clip | lora("lora_te_pooled_projection_0", (2048, 2048)))
        )
    assert "holds nothing for the adapter adapter.safetensors; only the model" in caplog.text
    assert "changes 1 layers of the adapter" in caplog.text and "3 tensors are for a text encoder" in caplog.text
    with pytest.raises(ValueError, match="not one of its choices"):
        apply(unet, adapter, "nowhere.safetensors")
