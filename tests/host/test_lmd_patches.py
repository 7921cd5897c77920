"""Guided passes and attention readers beside other nodes' patches: caches, injected LoRAs, FreeU, attention couples."""

import pytest
import torch
from comfy.ldm.modules.attention import optimized_attention
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.sampling.guidance import GuidanceOptions
from ella_lmd.nodes.host.guidance.attention_recorder import recorded
from ella_lmd.nodes.host.guidance.guide import EnergyTrace, Guide, guidance_target, patch_guidance
from ella_lmd.nodes.host.guidance.step_hooks import add_step_hook
from safetensors.torch import save_file

import nodes

LAYOUT = Layout(
    128,
    128,
    (LayoutObject("a red circle", Box(0.05, 0.3, 0.4, 0.5)), LayoutObject("a blue star", Box(0.55, 0.3, 0.4, 0.5))),
    background="a photo of grass",
)
ONCE = GuidanceOptions(loss_scale=2.0, loss_threshold=0.0, max_index_step=50, max_iter=(1,))


def run(extra_nodes, name, **inputs):
    node = extra_nodes[name]
    out = node.execute(**inputs) if hasattr(node, "define_schema") else getattr(node(), node.FUNCTION)(**inputs)
    return (out.args if hasattr(out, "args") else out)[0]


def sample(model, clip, steps=3, positive=None):
    _, own = guidance_target(clip, LAYOUT, "")
    negative = nodes.CLIPTextEncode().encode(clip, "blurry")[0]
    latent = {"samples": torch.zeros(1, 4, 16, 16)}
    return nodes.common_ksampler(model, 3, steps, 4.0, "euler", "normal", positive or own, negative, latent)[0][
        "samples"
    ]


def looked_at(model, clip, steps=3):
    """A run in which every step is evaluated and none is moved: (result, [(energy, gradient)])."""
    target, _ = guidance_target(clip, LAYOUT, "")
    found = []

    class Look:
        def __init__(self, run):
            self.guide = Guide(run, target, ONCE, EnergyTrace())

        def before_step(self, x, step):
            found.append(self.guide.arguments(step)[1](x))
            return x

        def finish(self, x):
            return x

    patched = model.clone()
    add_step_hook(patched, "look", Look)
    return sample(patched, clip, steps), found


def same(one, other, tolerance=1e-4):
    return all((a - b).norm() <= tolerance * b.norm() and b.norm() > 0 for a, b in zip(one, other))


class Remembers:
    """A pack's wrapper that answers every third call from its memory."""

    def __init__(self):
        self.calls, self.kept = 0, {}

    def __call__(self, apply_model, args):
        self.calls += 1
        if self.calls % 3 == 0 and "out" in self.kept:
            return self.kept["out"] * 1.01
        self.kept["out"] = apply_model(args["input"], args["timestep"], **args["c"])
        return self.kept["out"]


def remembering():
    """The same with everything in a closure."""
    calls, kept = 0, None

    def wrapper(apply_model, args):
        nonlocal calls, kept
        calls += 1
        if calls % 3 == 0 and kept is not None:
            return kept * 1.01
        kept = apply_model(args["input"], args["timestep"], **args["c"])
        return kept

    return wrapper


@pytest.mark.parametrize("kind", ["EasyCache", "LazyCache", "an object", "a closure"])
def test_what_keeps_state_between_calls_does_not_notice_guided_passes(demo, extra_nodes, kind):
    base, clip, _ = demo

    def patched():
        if kind in ("EasyCache", "LazyCache"):
            inputs = {"reuse_threshold": 0.5, "start_percent": 0.1, "end_percent": 0.95, "verbose": False}
            return run(extra_nodes, kind, model=base, **inputs)
        model = base.clone()
        model.set_model_unet_function_wrapper(Remembers() if kind == "an object" else remembering())
        return model

    plain = sample(patched(), clip, 8)
    result, found = looked_at(patched(), clip, 8)
    assert torch.equal(result, plain) and not torch.equal(plain, sample(base, clip, 8))
    assert len(found) == 8 and all(g.norm() > 0 for _, g in found)
    assert same(found[0], looked_at(base, clip, 1)[1][0], 1e-6)
    assert (
        sample(patch_guidance(patched(), guidance_target(clip, LAYOUT, "")[0], ONCE, EnergyTrace()), clip)
        .isfinite()
        .all()
    )


@pytest.fixture(scope="module")
def lora_file(demo, tmp_path_factory):
    import folder_paths

    lora = {}
    for key, w in demo[0].model.state_dict().items():
        if any(
            x in key for x in ("attn2.to_k.weight", "attn1.to_q.weight", "attn2.to_q.weight", "attn1.to_out.0.weight")
        ):
            generator = torch.Generator().manual_seed(len(key))
            name = "lora_unet_" + key[len("diffusion_model.") : -len(".weight")].replace(".", "_")
            lora[f"{name}.lora_down.weight"] = torch.randn(4, w.shape[1], generator=generator) * 0.1
            lora[f"{name}.lora_up.weight"] = torch.randn(w.shape[0], 4, generator=generator) * 0.1
            lora[f"{name}.alpha"] = torch.tensor(4.0)
    folder = tmp_path_factory.mktemp("loras")
    save_file(lora, folder / "injected.safetensors")
    folder_paths.add_model_folder_path("loras", str(folder), is_default=True)
    return "injected.safetensors"


def test_an_injected_lora_gives_the_gradient_of_a_baked_one(demo, extra_nodes, lora_file):
    base, clip, _ = demo
    inputs = {"model": base, "lora_name": lora_file, "strength_model": 1.0}
    baked = looked_at(run(extra_nodes, "LoraLoaderModelOnly", **inputs), clip, 1)[1][0]
    injected = looked_at(run(extra_nodes, "LoraLoaderBypassModelOnly", **inputs), clip, 1)[1][0]
    assert same(injected, baked) and not same(baked, looked_at(base, clip, 1)[1][0], 1e-2)


def test_freeu_takes_part_in_the_guided_pass_and_costs_one_call(demo, extra_nodes, monkeypatch, caplog):
    base, clip, _ = demo
    inputs = {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}
    freeu = run(extra_nodes, "FreeU_V2", model=base, **inputs)
    calls = [0]
    unet = base.model.diffusion_model
    original = unet.forward

    def counted(*args, **kwargs):
        calls[0] += 1
        return original(*args, **kwargs)

    monkeypatch.setattr(unet, "forward", counted)
    result, found = looked_at(freeu, clip, 3)
    assert calls[0] == 2 * 3 and "guiding without" not in caplog.text
    monkeypatch.undo()
    assert torch.equal(result, sample(freeu, clip, 3))
    assert same(found[0], looked_at(base, clip, 1)[1][0], 10) and not same(
        found[0], looked_at(base, clip, 1)[1][0], 1e-2
    )


def test_the_gradient_through_a_patch_that_writes_in_place_is_that_of_the_same_patch_without(demo):
    base, clip, _ = demo

    def in_place(h, skip, extra_options):
        half = h.shape[1] // 2
        h[:, :half] = h[:, :half].mul_(1.1) * h.mean(1, keepdim=True).sigmoid()
        return h, skip.mul_(0.9)

    def out_of_place(h, skip, extra_options):
        half = h.shape[1] // 2
        h = torch.cat([h[:, :half] * 1.1, h[:, half:]], 1)
        return torch.cat([h[:, :half] * h.mean(1, keepdim=True).sigmoid(), h[:, half:]], 1), skip * 0.9

    found = []
    for patch in (in_place, out_of_place):
        model = base.clone()
        model.set_model_output_block_patch(patch)
        found.append(looked_at(model, clip, 1)[1][0])
    assert same(*found, 1e-5)


def test_a_mask_that_a_node_made_can_be_multiplied_with(demo):
    """Under inference mode, as a node runs: PyTorch would not save it for the backward pass."""
    base, clip, _ = demo
    mask = torch.linspace(0.5, 1.0, 64 * 64).view(1, -1, 1)
    model = base.clone()
    model.set_model_attn1_output_patch(lambda n, extra: n * mask[:, : n.shape[1]])
    assert mask.is_inference()
    found = looked_at(model, clip, 1)[1][0]
    assert found[1].norm() > 0 and not same(found, looked_at(base, clip, 1)[1][0], 1e-3)


def test_a_wrapper_without_a_gradient_is_named(demo, caplog):
    base, clip, _ = demo
    model = base.clone()

    def cuts_off(apply_model, args):
        return apply_model(args["input"].detach(), args["timestep"], **args["c"])

    model.set_model_unet_function_wrapper(cuts_off)
    found = looked_at(model, clip, 3)[1]
    assert len(found) == 3 and caplog.text.count("guiding without") == 1 and "cuts_off" in caplog.text

    def refuses(q, k, v, extra):
        return optimized_attention(q, k, v, extra["n_heads"]).detach()

    model.set_model_attn1_replace(refuses, "middle", 0)
    with pytest.raises(ValueError, match=r"no gradient.*refuses"):
        looked_at(model, clip, 1)


# ------------------------------------------------------------------------------------------- readers of attention


class Extendable:
    """How packs like IPAdapter keep their patch: the next node adds to the object that it finds."""

    def __init__(self, function):
        self.functions = [function]

    def add(self, function):
        self.functions.append(function)

    def __call__(self, q, k, v, extra):
        return sum(f(q, k, v, extra) for f in self.functions)


def halving(model, key):
    model = model.clone()
    to = model.model_options["transformer_options"] = {**model.model_options["transformer_options"]}
    slots = to["patches_replace"] = {**to.get("patches_replace", {})}
    attn2 = slots["attn2"] = {**slots.get("attn2", {})}
    half = lambda q, k, v, extra: optimized_attention(q, k, v * 0.5, extra["n_heads"])  # noqa: E731
    if key in attn2:
        attn2[key].add(half)
    else:
        attn2[key] = Extendable(half)
    return model


@pytest.mark.parametrize("key", [("output", 1), ("output", 1, 0)])
def test_a_patch_set_after_the_recorder_is_the_one_that_runs(demo, key):
    base, clip, _ = demo
    alone = sample(halving(base, key), clip)
    recording, _, record = recorded(base, clip, LAYOUT)
    assert torch.equal(sample(halving(recording, key), clip), alone) and len(record.looks) == 3
    assert torch.equal(
        sample(halving(halving(recording, key), key), clip), sample(halving(halving(base, key), key), clip)
    )
    assert not torch.equal(alone, sample(base, clip))


def coupled(model, extra_rows):
    """An attention couple: `extra_rows` more regions for each row, with texts of their own, in front of its own text."""
    texts = torch.randn(extra_rows, 77, 1, generator=torch.Generator().manual_seed(2))

    def attn2(n, context, value, extra):
        count = extra_rows + 1
        more = [(texts[i : i + 1] * 0.1).expand(len(n), -1, context.shape[-1]).to(n) for i in range(extra_rows)]
        rows = torch.stack([*more, context], 1).flatten(0, 1)
        return n.repeat_interleave(count, 0), rows, rows

    def output(n, extra):
        return n.unflatten(0, (-1, extra_rows + 1)).mean(1)

    model = model.clone()
    model.set_model_attn2_patch(attn2)
    model.set_model_attn2_output_patch(output)
    return model


def test_an_attention_couple_is_read_in_the_rows_of_the_prompt(demo):
    """The layer before the first guided one decides what all rows attend with, so only that one is compared."""
    base, clip, _ = demo
    maps = []
    for model in (base, coupled(base, 2)):
        recording, _, record = recorded(model, clip, LAYOUT, layers="input.3")
        sample(recording, clip, 1)
        maps.append(record.looks[0].maps)
    assert torch.allclose(*maps, atol=1e-6)
    _, found = looked_at(coupled(base, 2), clip, 1)
    assert found[0][0].shape == (1,) and found[0][1].norm() > 0


def test_rows_that_hide_the_prompt_are_reported(demo, caplog):
    base, clip, _ = demo
    model = base.clone()
    model.set_model_attn2_patch(lambda n, c, v, e: (n.repeat(2, 1, 1), c.repeat(2, 1, 1) * 0.5, v.repeat(2, 1, 1)))
    model.set_model_attn2_output_patch(lambda n, extra: n.chunk(2)[0])
    recording, _, record = recorded(model, clip, LAYOUT)
    sample(recording, clip, 2)
    assert not record.looks and caplog.text.count("changes the rows of the batch") == 1
    with pytest.raises(ValueError, match="attention couple.*Take that node out"):
        looked_at(model, clip, 1)
