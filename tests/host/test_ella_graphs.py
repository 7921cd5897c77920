"""ELLA conditioning in all kinds of graphs: who is recomputed, who is not, and what stays exactly as it was."""

import gc
import logging
import sys
import weakref

import comfy.cldm.cldm
import comfy.controlnet
import comfy.hooks
import comfy.ops
import folder_paths
import pytest
import torch
from comfy.ldm.modules.attention import optimized_attention
from ella_lmd.ella.timed import sources
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.sampling.guidance import GuidanceOptions
from ella_lmd.nodes.ella import ELLAEncode, ELLAModelLoader, ELLATextEncoderLoader, TimestepAwareConditioning
from ella_lmd.nodes.host.ella.connector import REMEMBERED_TIMESTEPS
from ella_lmd.nodes.host.ella.encode import join
from ella_lmd.nodes.host.guidance.guide import EnergyTrace, guidance_target, patch_guidance
from ella_lmd.tests import ella_models
from ella_lmd.tests.ella_reference import Recorder, naive_connector

import nodes

ALONE = "ELLA only"


@pytest.fixture(scope="module")
def graph(sd15, extra_nodes, tmp_path_factory):
    """What graphs are built from: models, encoded texts, and the nodes of the host."""
    models = ella_models.write(tmp_path_factory.mktemp("models"))
    for key in ("ella", "ella_encoder"):
        folder_paths.add_model_folder_path(key, str(models / key), is_default=True)
    with torch.inference_mode():
        return Graph(sd15, extra_nodes)


class Graph:
    def __init__(self, sd15, host_nodes):
        self.model, self.clip, self.vae = sd15
        self.node = host_nodes
        self.connector = ELLAModelLoader.execute(ella_models.CONNECTOR).args[0]
        self.encoder = ELLATextEncoderLoader.execute(ella_models.ENCODER).args[0]
        self.naive = naive_connector({k: v.half() for k, v in ella_models.connector_state().items()})
        self.patched = TimestepAwareConditioning.execute(self.model).args[0]

    def ella(self, text, mode=ALONE, **more):
        return ELLAEncode.execute(self.connector, self.encoder, text, self.clip, mode, **more).args[0]

    def by_clip(self, text):
        return nodes.CLIPTextEncode().encode(self.clip, text)[0]

    def tokens(self, text, timestep):
        """What the U-Net has to read for a text at a timestep."""
        return self.naive(self.encoder.features(text), timestep)

    def sample(self, positive, negative, model=None, sampler="euler", steps=3, denoise=1.0, size=4, batch=1, **more):
        latent = more.pop("latent", None) or {"samples": torch.zeros(batch, 4, size, size)}
        run = nodes.common_ksampler(
            model or self.patched, more.pop("seed", 7), steps, more.pop("cfg", 4.0), sampler, "normal",
            positive, negative, latent, denoise=denoise, **more,
        )  # fmt: skip
        return run[0]["samples"]


def same(a, b):
    return a.shape == b.shape and torch.allclose(a, b, atol=1e-4)


def reads(seen, wanted):
    """At every timestep the U-Net read, in some row of some call, what `wanted` gives for it.

    The host repeats a shorter context to batch it with a longer one, which changes nothing for cross-attention.
    """

    def read_at(timestep):
        target = wanted(timestep)
        rows = (row[None] for t, c in zip(seen.unet, seen.contexts) if t == timestep for row in c)
        return any(same(row, target.repeat(1, max(1, row.shape[1] // target.shape[1]), 1)) for row in rows)

    return bool(seen.unet) and all(read_at(t) for t in set(seen.unet))


EDITS = {
    "concat, ELLA first": (
        lambda g: g.node["ConditioningConcat"]().concat(g.ella("one"), g.by_clip("two"))[0],
        lambda g, t: torch.cat([g.tokens("one", t), g.by_clip("two")[0][0]], 1),
    ),
    "concat, ELLA last": (
        lambda g: g.node["ConditioningConcat"]().concat(g.by_clip("two"), g.ella("one"))[0],
        lambda g, t: torch.cat([g.by_clip("two")[0][0], g.tokens("one", t)], 1),
    ),
    "concat of two ELLA texts": (
        lambda g: g.node["ConditioningConcat"]().concat(g.ella("one"), g.ella("two"))[0],
        lambda g, t: torch.cat([g.tokens("one", t), g.tokens("two", t)], 1),
    ),
    "average of two ELLA texts": (
        lambda g: g.node["ConditioningAverage"]().addWeighted(g.ella("one"), g.ella("two"), 0.25)[0],
        lambda g, t: 0.25 * g.tokens("one", t) + 0.75 * g.tokens("two", t),
    ),
    "average with CLIP": (
        lambda g: g.node["ConditioningAverage"]().addWeighted(g.ella("one"), g.by_clip("two"), 0.5)[0],
        lambda g, t: 0.5 * g.tokens("one", t) + 0.5 * g.by_clip("two")[0][0][:, :64],
    ),
    "average of CLIP with ELLA": (
        lambda g: g.node["ConditioningAverage"]().addWeighted(g.by_clip("two"), g.ella("one"), 0.5)[0],
        lambda g, t: torch.cat(
            [
                0.5 * g.by_clip("two")[0][0][:, :64] + 0.5 * g.tokens("one", t),
                0.5 * g.by_clip("two")[0][0][:, 64:],
            ],
            1,
        ),
    ),
    "zeroed": (
        lambda g: g.node["ConditioningZeroOut"]().zero_out(g.ella("one"))[0],
        lambda g, t: torch.zeros(1, 64, 768),
    ),
    "area": (
        lambda g: g.node["ConditioningSetArea"]().append(g.ella("one"), 32, 32, 0, 0, 1.0)[0],
        lambda g, t: g.tokens("one", t),
    ),
    "mask": (
        lambda g: g.node["ConditioningSetMask"]().append(g.ella("one"), torch.ones(1, 32, 32), "default", 1.0)[0],
        lambda g, t: g.tokens("one", t),
    ),
    "mask bounds": (
        lambda g: g.node["ConditioningSetMask"]().append(g.ella("one"), torch.ones(1, 32, 32), "mask bounds", 1.0)[0],
        lambda g, t: g.tokens("one", t),
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_node_that_edits_conditioning_is_followed(graph, name):
    build, wanted = EDITS[name]
    with Recorder(graph.patched, graph.connector) as seen:
        graph.sample(build(graph), graph.ella("negative"), sampler="heun")
    assert reads(seen, lambda t: wanted(graph, t))
    assert reads(seen, lambda t: graph.tokens("negative", t))


@pytest.mark.parametrize("side", ["positive", "negative"])
def test_one_side_alone(graph, side):
    conds = {"positive": graph.by_clip("p"), "negative": graph.by_clip("n"), side: graph.ella("one")}
    with Recorder(graph.patched, graph.connector) as seen:
        graph.sample(conds["positive"], conds["negative"], sampler="dpmpp_2m")
    mine = [c for c in seen.contexts if c.shape[1] == 64]
    theirs = [c for c in seen.contexts if c.shape[1] == 77]
    assert len(mine) == len(theirs) == 3
    assert sum(seen.rows) == 6, "no more U-Net rows than plain guidance"
    for timestep, read in zip(list(dict.fromkeys(seen.unet)), mine):
        assert same(read, graph.tokens("one", timestep))
    other = graph.by_clip("n" if side == "positive" else "p")[0][0]
    assert all(torch.equal(read, other) for read in theirs)


def test_combined_prompts_each_follow_their_own_text(graph):
    both = graph.node["ConditioningCombine"]().combine(graph.ella("one"), graph.ella("two"))[0]
    both = graph.node["ConditioningCombine"]().combine(both, graph.by_clip("three"))[0]
    with Recorder(graph.patched, graph.connector) as seen:
        graph.sample(both, graph.ella(""))
    for text in ("one", "two", ""):
        at = [t for t, c in zip(seen.unet, seen.contexts) if any(same(r[None], graph.tokens(text, t)) for r in c)]
        assert len(set(at)) == 3
    assert any(c.shape[1] == 77 and torch.equal(c[0], graph.by_clip("three")[0][0][0]) for c in seen.contexts)


def test_an_area_does_not_put_the_tokens_on_the_other_side(graph):
    part = graph.node["ConditioningSetArea"]().append(graph.ella("one"), 16, 16, 0, 0, 1.0)[0]
    with Recorder(graph.patched, graph.connector) as seen:
        graph.sample(part + graph.by_clip("whole"), graph.by_clip("negative"), size=8)
    clip = [graph.by_clip(t)[0][0][0] for t in ("whole", "negative")]
    for timestep, context in zip(seen.unet, seen.contexts):
        for row in context:
            if row.shape[0] == 77:
                assert any(torch.equal(row, c) for c in clip)
            else:
                assert same(row[None], graph.tokens("one", timestep))


def test_a_timestep_range_means_what_it_says(graph):
    node = graph.node["ConditioningSetTimestepRange"]()
    early = node.set_range(graph.ella("one"), 0.0, 0.5)[0]
    late = node.set_range(graph.ella("two"), 0.5, 1.0)[0]
    with Recorder(graph.patched, graph.connector) as seen:
        graph.sample(early + late, graph.ella(""), steps=4)
    assert seen.rows == [2] * 4
    for timestep, context in zip(seen.unet, seen.contexts):
        text = "one" if timestep > 499.5 else "two"
        assert any(same(r[None], graph.tokens(text, timestep)) for r in context)
    evaluated = sorted(len(t._tokens) for tokens, _ in early + late for t in sources(tokens))
    assert evaluated == [3, 3], "2 steps and the fixed timestep each: nothing is computed for the inactive one"


def test_partial_denoise_chained_samplers_and_sub_ranges(graph):
    positive, negative = graph.ella("one"), graph.ella("")
    with Recorder(graph.patched, graph.connector) as seen:
        first = graph.sample(positive, negative, denoise=0.5)
        graph.sample(positive, negative, denoise=0.3, latent={"samples": first}, sampler="dpm_2")
        graph.sample(positive, negative, steps=6, start_step=2, last_step=4, force_full_denoise=True)
    assert max(seen.unet) < 700
    assert reads(seen, lambda t: graph.tokens("one", t))
    assert reads(seen, lambda t: graph.tokens("", t))


def test_an_inpaint_mask(graph):
    latent = {"samples": torch.randn(1, 4, 4, 4), "noise_mask": torch.tensor([[0.0, 1.0], [0.0, 1.0]])[None]}
    with Recorder(graph.patched, graph.connector) as seen:
        graph.sample(graph.ella("one"), graph.ella(""), latent=latent, sampler="heun")
    assert reads(seen, lambda t: graph.tokens("one", t))


def test_custom_sampling_with_a_dual_guider(graph):
    n = graph.node
    sigmas = n["KarrasScheduler"].execute(3, 14.6, 0.03, 7.0).args[0]
    guider = (
        n["DualCFGGuider"]
        .execute(graph.patched, graph.ella("one"), graph.ella("two"), graph.by_clip(""), 3.0, 2.0, "regular")
        .args[0]
    )
    with Recorder(graph.patched, graph.connector) as seen:
        n["SamplerCustomAdvanced"].execute(
            n["RandomNoise"].execute(3).args[0], guider, n["KSamplerSelect"].execute("dpmpp_sde").args[0], sigmas,
            {"samples": torch.zeros(1, 4, 4, 4)},
        )  # fmt: skip
    with_ella = [(t, c) for t, c in zip(seen.unet, seen.contexts) if c.shape[1] == 64]
    assert len({t for t, _ in with_ella}) == 5
    for text in ("one", "two"):
        assert all(any(same(r[None], graph.tokens(text, t)) for r in c) for t, c in with_ella)


def test_a_lora_hook_on_one_prompt(graph):
    name = "lora_unet_mid_block_attentions_0_proj_in"
    lora = {f"{name}.lora_up.weight": torch.ones(320, 1), f"{name}.lora_down.weight": torch.ones(1, 320)}
    plain = graph.sample(graph.ella("one"), graph.ella(""))
    group = comfy.hooks.create_hook_lora(lora, 1.0, 0.0)
    hooked = comfy.hooks.set_hooks_for_conditioning(graph.ella("one"), group)
    with Recorder(graph.patched, graph.connector) as seen:
        changed = graph.sample(hooked, graph.ella(""))
    for text in ("one", ""):
        at = [t for t, c in zip(seen.unet, seen.contexts) if any(same(r[None], graph.tokens(text, t)) for r in c)]
        assert len(at) == 3
    assert not torch.equal(plain, changed)
    assert torch.equal(plain, graph.sample(graph.ella("one"), graph.ella("")))


def test_a_controlnet_reads_the_recomputed_tokens(graph):
    config = {**sys.modules["test_models"].UNETS["sd15"], "hint_channels": 3}
    config.pop("out_channels")
    config.pop("transformer_depth_output")
    control_model = comfy.cldm.cldm.ControlNet(**config, dtype=torch.float32, operations=comfy.ops.manual_cast)
    for i, p in enumerate(control_model.parameters()):
        torch.nn.init.normal_(p, std=0.02, generator=torch.Generator().manual_seed(i))
    read = []
    control_model.register_forward_pre_hook(
        lambda _m, _a, kw: read.append((int(kw["timesteps"][0]), kw["context"].clone())), with_kwargs=True
    )
    control = comfy.controlnet.ControlNet(control_model, load_device=torch.device("cpu"))
    image = torch.rand(1, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    # ELLA on the positive side alone, as in the workflow: the ControlNet runs once for each kind of conditioning
    positive, negative = graph.node["ControlNetApplyAdvanced"]().apply_controlnet(
        graph.ella("one"), graph.by_clip(""), control, image, 0.5, 0.0, 1.0
    )
    with Recorder(graph.patched, graph.connector) as seen:
        controlled = graph.sample(positive, negative)
    mine = [(t, c) for t, c in read if c.shape[1] == 64]
    assert [t for t, _ in mine] == list(dict.fromkeys(seen.unet))
    assert all(same(c, graph.tokens("one", t)) for t, c in mine)
    assert not torch.equal(controlled, graph.sample(graph.ella("one"), graph.by_clip("")))


def test_an_attention_patch_of_another_pack_sees_the_recomputed_tokens(graph):
    read = []
    model = graph.patched.clone()

    def replace(q, k, v, extra_options):
        read.append(k.shape)
        return optimized_attention(q, k, v, extra_options["n_heads"]) * 0.5

    model.set_model_attn2_replace(replace, "input", 1)
    model.set_model_attn2_patch(lambda n, context, value, extra: (n, context * 1.0, value))
    with Recorder(model, graph.connector) as seen:
        graph.sample(graph.ella("one"), graph.ella(""), model=model)
    assert read and reads(seen, lambda t: graph.tokens("one", t))


def test_four_images_at_once_are_the_four_single_ones(graph):
    positive, negative = graph.ella("one", "ELLA + CLIP"), graph.ella("", "ELLA + CLIP")
    latent = torch.randn(4, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    zero = dict(seed=7, disable_noise=True)
    together = graph.sample(positive, negative, latent={"samples": latent}, **zero)
    for i in range(4):
        single = graph.sample(positive, negative, latent={"samples": latent[i : i + 1]}, **zero)
        assert (together[i : i + 1] - single).abs().max() <= 1e-5 * max(1.0, float(single.abs().max()))


def test_a_second_run_is_the_first_bit_for_bit_and_computes_nothing_anew(graph):
    positive, negative = graph.ella("one"), graph.ella("")
    first = graph.sample(positive, negative, sampler="dpmpp_sde")
    with Recorder(graph.patched, graph.connector) as seen:
        second = graph.sample(positive, negative, sampler="dpmpp_sde")
    assert torch.equal(first, second)
    assert seen.connector == []


def test_without_ella_conditioning_the_node_changes_no_bit(graph):
    positive, negative = graph.by_clip("a cat"), graph.by_clip("")
    assert torch.equal(
        graph.sample(positive, negative, model=graph.model), graph.sample(positive, negative, model=graph.patched)
    )


@pytest.mark.parametrize("options", [{"strength": 0.0}, {"start_percent": 0.5, "end_percent": 0.5}])
def test_strength_0_and_an_empty_range_are_the_model_without_the_node(graph, options):
    positive, negative = graph.ella("one"), graph.ella("")
    neutral = TimestepAwareConditioning.execute(graph.model, **options).args[0]
    assert torch.equal(
        graph.sample(positive, negative, model=graph.model), graph.sample(positive, negative, model=neutral)
    )


def test_half_strength_is_half_way_between_the_fixed_and_the_current_tokens(graph):
    half = TimestepAwareConditioning.execute(graph.model, 0.5).args[0]
    with Recorder(half, graph.connector) as seen:
        graph.sample(graph.ella("one"), graph.ella(""), model=half)
    assert reads(seen, lambda t: (graph.tokens("one", t) + graph.tokens("one", 500)) / 2)


def test_patching_twice_is_patching_once(graph):
    twice = TimestepAwareConditioning.execute(TimestepAwareConditioning.execute(graph.model, 0.3).args[0]).args[0]
    positive, negative = graph.ella("one"), graph.ella("")
    assert torch.equal(graph.sample(positive, negative, model=twice), graph.sample(positive, negative))


def test_without_the_node_the_tokens_are_fixed_finite_and_a_warning_names_the_node(graph, caplog):
    with caplog.at_level(logging.WARNING), Recorder(graph.model, graph.connector) as seen:
        out = graph.sample(graph.ella("one"), graph.ella(""), model=graph.model)
    assert out.isfinite().all()
    assert reads(seen, lambda t: graph.tokens("one", 500))
    assert [r for r in caplog.records if "TimestepAwareConditioning" in r.getMessage()]


def test_with_the_node_there_is_no_warning(graph, caplog):
    with caplog.at_level(logging.WARNING):
        graph.sample(graph.ella("one"), graph.by_clip(""))
    assert not [r for r in caplog.records if "TimestepAware" in r.getMessage()]


def test_a_distilled_model_sampling_is_asked_for_its_own_timestep(graph):
    distilled = graph.node["ModelSamplingDiscrete"]().patch(graph.model, "lcm", False)[0]
    model = TimestepAwareConditioning.execute(distilled).args[0]
    with Recorder(model, graph.connector) as seen:
        graph.sample(graph.ella("one"), graph.ella(""), model=model, sampler="lcm")
    assert reads(seen, lambda t: graph.tokens("one", t))


def test_a_continuous_model_sampling_is_refused_with_the_reason(graph):
    continuous = graph.node["ModelSamplingContinuousEDM"]().patch(graph.model, "v_prediction", 120.0, 0.002)[0]
    model = TimestepAwareConditioning.execute(continuous).args[0]
    with pytest.raises(ValueError, match="0 to 999 of Stable Diffusion 1.5"):
        graph.sample(graph.ella("one"), graph.ella(""), model=model)


def test_remembered_timesteps_are_bounded_and_freed_with_the_conditioning(graph):
    positive = graph.ella("one")
    (text,) = sources(positive[0][0])
    for timestep in range(REMEMBERED_TIMESTEPS + 10):
        text.at(timestep)
    assert len(text._tokens) == REMEMBERED_TIMESTEPS
    alive = weakref.ref(text)
    del text, positive
    gc.collect()
    assert alive() is None


def test_gradients_of_the_latent_can_be_taken_with_ella_conditioning(graph):
    """What LMD's guidance does: a call of the model with gradients, outside inference mode."""
    positive = graph.ella("one", "ELLA + CLIP")
    gradients = []

    def guided(executor, model, conds, x, sigma, model_options):
        with torch.inference_mode(False), torch.enable_grad():
            latent = x.clone().requires_grad_(True)
            read = []
            executor(model, [[{**c, "model_conds": dict(c["model_conds"])} for c in conds[0]]], latent, sigma.clone(), {
                **model_options, "model_function_wrapper": lambda f, a: read.append(a["c"]["c_crossattn"]) or a["input"],
            })  # fmt: skip
            (latent * read[0].mean()).sum().backward()
            gradients.append(latent.grad is not None and not read[0].is_inference())
        return executor(model, conds, x, sigma, model_options)

    model = graph.patched.clone()
    wrappers = model.wrappers["calc_cond_batch"]
    mine = wrappers.pop("ella_lmd_timestep_aware")
    model.add_wrapper_with_key("calc_cond_batch", "guidance", guided)
    wrappers["ella_lmd_timestep_aware"] = mine
    assert graph.sample(positive, graph.ella("", "ELLA + CLIP"), model=model).isfinite().all()
    assert gradients == [True] * 3


@pytest.mark.parametrize("order", ["guidance first", "ELLA first"])
def test_layout_guidance_and_ella_on_one_model(graph, order):
    box = Box(0.1, 0.1, 0.6, 0.6)
    target, by_clip = guidance_target(graph.clip, Layout(64, 64, (LayoutObject("a red cat", box),), "a park"), "")
    options = GuidanceOptions(loss_scale=2.0, loss_threshold=0.0, max_index_step=50, max_iter=(1,))
    trace = EnergyTrace()
    model = graph.model if order == "guidance first" else graph.patched
    model = patch_guidance(model, target, options, trace)
    model = TimestepAwareConditioning.execute(model).args[0] if order == "guidance first" else model
    (one,) = graph.ella("a red cat in a park")
    positive = join(one[0], by_clip)
    with Recorder(model, graph.connector) as seen:
        out = graph.sample(positive, graph.ella("", "ELLA + CLIP"), model=model, size=8)
    assert out.isfinite().all()
    assert set(seen.unet) == set(seen.connector)
    assert reads(seen, lambda t: torch.cat([graph.tokens("a red cat in a park", t), by_clip[0][0]], 1))
    with_gradients = [c for c in seen.contexts if c.shape[0] == 1]
    assert len(with_gradients) >= 3, "the guided calls run the positive side alone"
