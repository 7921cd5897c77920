"""LoRAs for LLM adapters: which layer a name means, and fused projections."""

import pytest
import torch
from ella_lmd.ella.adapter import AdapterConfig, LLMAdapter
from ella_lmd.ella.adapter_lora import adapter_lora
from ella_lmd.ella.jina_adapter import JinaAdapter, JinaAdapterConfig

RANK = 2
SMALL = LLMAdapter(AdapterConfig(32, 24, 16, 12, 20, 64), device="meta")
JINA = JinaAdapter(JinaAdapterConfig(32, 24, 20, 64, 2, 4, positions=14), device="meta")


def layers(module, kind=torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {n: tuple(m.weight.shape) for n, m in module.named_modules() if hasattr(m, "weight") and isinstance(m, kind)}


def lora(shapes: dict) -> dict[str, torch.Tensor]:
    out = {}
    for name, (rows, columns) in shapes.items():
        out |= {
            f"{name}.lora_up.weight": torch.randn(rows, RANK),
            f"{name}.lora_down.weight": torch.randn(RANK, columns),
        }
        out[f"{name}.alpha"] = torch.tensor(1.0)
    return out


@pytest.mark.parametrize("module", [SMALL, JINA])
@pytest.mark.parametrize("prefix", ["lora_te_", "lora_te1_", "lora_te_llm_adapter_"])
def test_every_linear_layer_is_reached_by_the_trainers_name(module, prefix):
    linear = layers(module, torch.nn.Linear)
    state = lora({prefix + n.replace(".", "_"): shape for n, shape in linear.items()})
    own, rest = adapter_lora(state, layers(module))
    assert not rest and {k.partition(".lora_up")[0] for k in own if "lora_up" in k} == set(linear)
    assert all(torch.equal(v, state[prefix + n.replace(".", "_") + "." + part])
               for k, v in own.items() for n in linear for part in [k[len(n) + 1 :]]
               if k in {f"{n}.{p}" for p in ("alpha", "lora_up.weight", "lora_down.weight")})  # fmt: skip


def test_flat_names_and_whole_paths_are_the_same_layers():
    names = {
        "lora_te_compression_q_proj": "compression_attention.q_proj",
        "lora_te_pooling_out_proj": "pooling_attention.out_proj",
        "lora_te_wide_attention_blocks_1_v_proj": "wide_attention_blocks.1.attn.v_proj",
        "lora_te_narrow_attention_blocks_0_attn_o_proj": "narrow_attention_blocks.0.attn.out_proj",
        "narrow_attention_blocks.2.attn.k_proj": "narrow_attention_blocks.2.attn.k_proj",
        "base_model.model.pooled_projection.4": "pooled_projection.4",
    }
    shapes = layers(SMALL)
    for name, layer in names.items():
        own, rest = adapter_lora(lora({name: shapes[layer]}), shapes)
        assert not rest and set(own) == {f"{layer}.{p}" for p in ("lora_up.weight", "lora_down.weight", "alpha")}
    peft = {
        f"wide_attention_blocks.0.mlp.2.lora_{x}.weight": v
        for x, v in zip("AB", (torch.zeros(2, 64), torch.zeros(32, 2)))
    }
    assert set(adapter_lora(peft, shapes)[0]) == set(peft)


def test_a_lora_of_a_fused_matrix_is_split_with_the_same_product():
    state = lora({"lora_te_wide_attention_blocks_0_attn_in_proj": (96, 32)})
    own, rest = adapter_lora(state, layers(SMALL))
    up, down, alpha = state.values()
    stems = [f"wide_attention_blocks.0.attn.{n}_proj" for n in "qkv"]
    parts = [own[f"{s}.lora_up.weight"] @ own[f"{s}.lora_down.weight"] for s in stems]
    assert not rest and len(own) == 9 and torch.allclose(torch.cat(parts), up @ down, atol=1e-5)
    assert all(own[f"{s}.alpha"] is alpha for s in stems)
    with pytest.raises(ValueError, match="'hada_w1_a' for the joined projections of pooling_attention can't be split"):
        adapter_lora({"lora_te_pooling_attention_in_proj.hada_w1_a": torch.zeros(96, 2)}, layers(SMALL))


def test_what_is_not_the_adapters_is_left_and_what_does_not_fit_is_named():
    foreign = lora(
        {"lora_te1_text_model_encoder_layers_0_mlp_fc1": (64, 32), "lora_unet_input_blocks_1_1_proj_in": (4, 4)}
    )
    foreign |= lora({"lora_te_wide_attention_blocks_7_mlp_0": (64, 32)}) | {"odd": torch.zeros(1)}
    own, rest = adapter_lora(foreign, layers(SMALL))
    assert not own and rest.keys() == foreign.keys()
    for rows, columns, size in ((48, 32, "48 numbers, where the adapter has 64"), (64, 40, "40 numbers.* has 32")):
        with pytest.raises(ValueError, match=rf"wide_attention_blocks\.0\.mlp\.0 is made for {size}"):
            adapter_lora(lora({"lora_te_wide_attention_blocks_0_mlp_0": (rows, columns)}), layers(SMALL))
