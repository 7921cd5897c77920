"""The guided pass under everything that people run their models with: short memory, streamed and quantized weights,
compiled models, attention functions without a gradient. The gradient must be the plain one."""

import contextlib
import json
from dataclasses import replace

import comfy.model_management as mm
import comfy.samplers
import comfy.sd
import pytest
import test_models
import torch
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.sampling.guidance import GuidanceOptions
from ella_lmd.nodes.host.guidance import attention as attention_module
from ella_lmd.nodes.host.guidance import gradients
from ella_lmd.nodes.host.guidance import memory_plan as economy_module
from ella_lmd.nodes.host.guidance.guide import EnergyTrace, Guide, guidance_target, patch_guidance
from ella_lmd.nodes.host.guidance.memory_plan import Economy, GuidanceOutOfMemory
from ella_lmd.nodes.host.guidance.step_hooks import add_step_hook

import nodes

LAYOUT = Layout(
    128,
    128,
    (LayoutObject("a red cat", Box(0.05, 0.3, 0.4, 0.6)), LayoutObject("a blue dog", Box(0.55, 0.3, 0.4, 0.6))),
    background="a park",
)
EVERY_STEP = GuidanceOptions(loss_scale=2.0, loss_threshold=0.0, max_index_step=50, max_iter=(1,))


class Stop(BaseException):
    pass


def gradient(loaded, model=None, economy=None, batch=1, negative_too=False):
    """(energy [B], gradient) at the first step of a run of the host's sampler, under inference mode."""
    base, clip, _ = loaded
    target, positive = guidance_target(clip, LAYOUT, "")
    found, runs = [], []

    class Hook:
        def __init__(self, run):
            runs.append(run)
            run = run if economy is None else replace(run, economy=economy)
            self.guide = Guide(run, target, EVERY_STEP, EnergyTrace())

        def before_step(self, x, step):
            found.append(self.guide.arguments(step)[1](x))
            raise Stop

    patched = (model or base).clone()
    add_step_hook(patched, "test", Hook)
    noise = torch.randn(batch, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    sigmas = torch.tensor([8.0, 4.0, 0.0])
    sampler = comfy.samplers.sampler_object("euler")
    with contextlib.suppress(Stop):
        comfy.samplers.sample(
            patched, noise, positive, positive, 4.0, patched.load_device, sampler, sigmas,
            model_options=patched.model_options, latent_image=torch.zeros_like(noise), seed=1,
        )  # fmt: skip
    assert not runs[0].economy.aliases._known, "the weights' memory is held beyond the run"
    return found[0]


def assert_equal(a, b, tolerance=1e-6):
    for one, other in zip(a, b):
        assert ((one - other).norm() / other.norm()).item() < tolerance
    assert b[1].norm() > 0


def counted(monkeypatch) -> list[tuple[int, bool]]:
    """(images, checkpointing) of every guided pass from now on."""
    seen = []
    original = gradients._one_pass

    def counting(guider, images, model_options, layers, economy):
        seen.append((len(images), economy.checkpoint))
        return original(guider, images, model_options, layers, economy)

    monkeypatch.setattr(gradients, "_one_pass", counting)
    return seen


# ------------------------------------------------------------------------------------------------ short of memory


@pytest.mark.parametrize("loaded", ["demo", "sd15"])
def test_the_gradient_with_checkpointing_and_image_by_image_is_the_plain_one(loaded, request):
    loaded = request.getfixturevalue(loaded)
    plain = gradient(loaded, batch=2)
    assert_equal(gradient(loaded, economy=Economy(2, True), batch=2), plain)
    assert_equal(gradient(loaded, economy=Economy(1, False), batch=2), plain, 1e-5)
    assert_equal(gradient(loaded, economy=Economy(1, True), batch=2), plain, 1e-5)


def test_checkpointing_keeps_what_blocks_saw_when_they_ran(sd15):
    """A patch of another pack on one block alone acts on that block in the second computation too."""
    model = sd15[0].clone()
    model.set_model_attn1_replace(lambda q, k, v, extra: v * 0.5, "input", 4)
    plain = gradient(sd15, model)
    assert not torch.allclose(plain[1], gradient(sd15)[1], rtol=1e-3)
    assert_equal(gradient(sd15, model, Economy(1, True)), plain)


def test_checkpointing_keeps_less_and_leaves_the_blocks_as_they_were(sd15):
    def kept(economy):
        sizes = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            sizes[storage._cdata] = storage.nbytes(), storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            gradient(sd15, economy=economy)
        return sum(n for n, _ in sizes.values())

    weights = mm.module_size(sd15[0].model)  # the hooks see the weights too
    whole, lean = kept(Economy(1, False)), kept(Economy(1, True))
    assert lean < whole and weights > 0
    assert not any("forward" in m.__dict__ for m in sd15[0].model.modules())


def short_of(monkeypatch, loaded, gigabytes):
    patcher = type(loaded[0])
    monkeypatch.setattr(patcher, "get_free_memory", lambda self, device: gigabytes * 2**30)


def test_the_hosts_free_memory_decides(demo, monkeypatch):
    plain = gradient(demo, batch=4)
    seen = counted(monkeypatch)
    one = economy_module.pass_memory(demo[0].model, (1, 4, 16, 16)) / 2**30
    for free, expected in (
        (1000.0, [(4, False)]),
        (one * economy_module.GRADIENT_SHARE * 2.5, [(2, False), (2, False)]),
        (one * economy_module.GRADIENT_SHARE * 0.99, None),
        (0.0, [(1, True)] * 4),
    ):
        seen.clear()
        short_of(monkeypatch, demo, free)
        assert_equal(gradient(demo, batch=4), plain, 1e-5)
        assert seen == expected if expected else all(checkpoint for _, checkpoint in seen)


def test_out_of_memory_in_a_guided_pass_tries_again_leaner(demo, monkeypatch):
    """The host's own error at the last guided layer of the first passes: fewer images, then checkpointing."""
    plain = gradient(demo, batch=4)
    seen = counted(monkeypatch)
    original, failures = gradients.grad_ready, [3]

    def short(*roots, **options):
        if failures[0]:
            failures[0] -= 1
            raise mm.OOM_EXCEPTION("CUDA out of memory. Tried to allocate 1.00 GiB")
        return original(*roots, **options)

    monkeypatch.setattr(gradients, "grad_ready", short)
    assert_equal(gradient(demo, batch=4), plain, 1e-5)
    assert seen == [(4, False), (2, False), (1, False)] + [(1, True)] * 4


def test_a_run_that_became_leaner_stays_so(demo, monkeypatch):
    model, clip, _ = demo
    target, positive = guidance_target(clip, LAYOUT, "")
    patched = patch_guidance(model, target, EVERY_STEP, EnergyTrace())
    latent = {"samples": torch.zeros(2, 4, 16, 16)}

    def sample():
        return nodes.common_ksampler(patched, 1, 3, 4.0, "euler", "normal", positive, positive, latent)[0]["samples"]

    plain = sample()
    seen = counted(monkeypatch)
    original, failures = gradients.grad_ready, [1]

    def short(*roots, **options):
        if failures[0]:
            failures[0] -= 1
            raise mm.OOM_EXCEPTION("CUDA out of memory")
        return original(*roots, **options)

    monkeypatch.setattr(gradients, "grad_ready", short)
    assert torch.allclose(sample(), plain, atol=1e-3)
    assert seen == [(2, False)] + [(1, False)] * 6


def test_when_nothing_helps_the_message_says_what_would(demo, monkeypatch):
    before = {k: v.clone() for k, v in demo[0].model.state_dict().items()}
    seen = counted(monkeypatch)

    def full(*args, **kwargs):
        raise mm.OOM_EXCEPTION("CUDA out of memory. Tried to allocate 1.00 GiB")

    monkeypatch.setattr(comfy.samplers, "calc_cond_batch", full)
    with pytest.raises(GuidanceOutOfMemory, match=r"smaller.*--lowvram[\s\S]*Tried to allocate 1.00 GiB") as error:
        model, clip, _ = demo
        target, positive = guidance_target(clip, LAYOUT, "")
        patched = patch_guidance(model, target, EVERY_STEP, EnergyTrace())
        nodes.common_ksampler(
            patched, 1, 2, 4.0, "euler", "normal", positive, positive, {"samples": torch.zeros(1, 4, 16, 16)}
        )
    assert mm.is_oom(error.value) and seen == [(1, False), (1, True)]
    assert all(torch.equal(v, before[k]) for k, v in demo[0].model.state_dict().items())


def test_other_errors_are_not_taken_for_a_full_memory(demo, monkeypatch):
    seen = counted(monkeypatch)

    def broken(*roots, **options):
        raise RuntimeError("something else")

    monkeypatch.setattr(gradients, "grad_ready", broken)
    with pytest.raises(RuntimeError, match="something else"):
        model, clip, _ = demo
        target, positive = guidance_target(clip, LAYOUT, "")
        patched = patch_guidance(model, target, EVERY_STEP, EnergyTrace())
        nodes.common_ksampler(
            patched, 1, 2, 4.0, "euler", "normal", positive, positive, {"samples": torch.zeros(1, 4, 16, 16)}
        )
    assert len(seen) == 1


# ------------------------------------------------------------------------------- how the host holds and runs weights


def diff_patch(model) -> dict:
    generator = torch.Generator().manual_seed(9)
    return {
        k: ("diff", (torch.randn(w.shape, generator=generator) * 0.3 * w.float().std(),))
        for k, w in model.model.state_dict().items()
        if "attn2.to_k.weight" in k or "ff.net.2.weight" in k
    }


def test_low_vram_with_a_lora(sd15, monkeypatch):
    """The host's partial loading, told that there is little memory: weights are cast and patched layer by layer."""
    patched = sd15[0].clone()
    patched.add_patches(diff_patch(sd15[0]), 0.8)
    plain = gradient(sd15, patched)
    mm.unload_all_models()
    with monkeypatch.context() as patch:
        patch.setattr(mm, "vram_state", mm.VRAMState.LOW_VRAM)
        patch.setattr(mm, "is_device_cpu", lambda device: False)
        patch.setattr(mm, "get_free_memory", lambda *a, **k: 60 * 2**20)
        patch.setattr(mm, "free_memory", lambda *a, **k: [])
        streamed = gradient(sd15, patched)
        modules = list(patched.model.diffusion_model.modules())
        assert any(getattr(m, "comfy_cast_weights", False) for m in modules), "the host has loaded all of it"
        assert any(getattr(m, "weight_function", []) for m in modules)
    mm.unload_all_models()
    assert_equal(streamed, plain, 1e-5)
    assert_equal(gradient(sd15, patched), plain)


def test_a_buffer_that_is_used_again_for_the_next_layers_weights(sd15, monkeypatch):
    """As with dynamic VRAM: every layer's weight is a view of one buffer, which the next layer overwrites."""
    import comfy.ops

    plain = gradient(sd15)
    original = comfy.ops.cast_bias_weight
    buffer = torch.empty(64 * 2**20)

    def streamed(s, input=None, *args, **kwargs):
        functions, s.weight_function = s.weight_function, []
        try:
            weight, bias, *rest = original(s, input, *args, **kwargs)
        finally:
            s.weight_function = functions
        shared = buffer[: weight.numel()].view(weight.shape)
        shared.data.copy_(weight)
        out = torch.as_strided(torch.from_numpy(buffer.numpy()), weight.shape, shared.stride())  # no version counter
        for function in functions:
            out = function(out)
        return out, bias, *rest

    monkeypatch.setattr(comfy.ops, "cast_bias_weight", streamed)
    model = sd15[0].model.diffusion_model
    layers = [m for m in model.modules() if hasattr(m, "comfy_cast_weights") and getattr(m, "weight", None) is not None]
    for m in layers:
        monkeypatch.setattr(m, "comfy_cast_weights", True, raising=False)
    assert_equal(gradient(sd15), plain, 1e-5)
    assert_equal(gradient(sd15, economy=Economy(1, True)), plain, 1e-5)


def quantized(path, target):
    """A checkpoint of the host's own fp8 format: a scale per weight and a note on what it is."""
    from safetensors.torch import load_file, save_file

    state = load_file(path)
    plain = {}
    for key in [k for k in state if k.endswith(("to_q.weight", "to_k.weight", "net.2.weight", "to_out.0.weight"))]:
        weight = state.pop(key).float()
        scale = weight.abs().max() / 448
        state[key] = (weight / scale).to(torch.float8_e4m3fn)
        state[key.replace(".weight", ".weight_scale")] = scale
        note = json.dumps({"format": "float8_e4m3fn"}).encode()
        state[key.replace(".weight", ".comfy_quant")] = torch.tensor(list(note), dtype=torch.uint8)
        plain[key] = state[key].float() * scale
    save_file(state, target)
    return plain


def test_a_quantized_checkpoint_gives_the_gradient_of_its_dequantized_weights(sd15, tmp_path):
    source = test_models.diffusion_model("sd15")
    plain = quantized(source, tmp_path / "fp8.safetensors")
    model = comfy.sd.load_diffusion_model(str(tmp_path / "fp8.safetensors"))
    assert any(hasattr(p, "_qdata") for p in model.model.parameters()), "the host has not kept it quantized"
    reference = comfy.sd.load_diffusion_model(str(source))
    for key, weight in plain.items():
        module = reference.model.diffusion_model.get_submodule(key.removesuffix(".weight"))
        module.weight.data.copy_(weight)
    assert_equal(gradient(sd15, model), gradient(sd15, reference), 1e-3)


def test_fp8_matrix_multiplication_of_fast_is_left_out_of_the_guided_pass(sd15, monkeypatch):
    """The option --fast multiplies in fp8 without a gradient; the guided pass takes the host's ordinary way."""
    import comfy.ops

    called = []

    def fp8_linear(self, input):
        assert not torch.is_grad_enabled(), "the guided pass must not multiply in fp8"
        called.append(1)

    monkeypatch.setattr(comfy.ops, "fp8_linear", fp8_linear)
    monkeypatch.setattr(comfy.ops, "pick_operations", lambda *a, **k: comfy.ops.fp8_ops)
    name = test_models.diffusion_model("sd15").name
    fast = nodes.UNETLoader().load_unet(name, "fp8_e4m3fn")[0]
    assert any(isinstance(m, comfy.ops.fp8_ops.Linear) for m in fast.model.modules())
    monkeypatch.undo()
    plain = nodes.UNETLoader().load_unet(name, "fp8_e4m3fn")[0]
    monkeypatch.setattr(comfy.ops, "fp8_linear", fp8_linear)
    assert_equal(gradient(sd15, fast), gradient(sd15, plain))


def test_another_matrix_multiplication_of_fast_is_left_out_too(sd15, monkeypatch):
    """As the option cublas_ops: Linear layers that multiply outside autograd, resident or cast."""
    import comfy.ops

    class Fast(comfy.ops.manual_cast):
        class Linear(comfy.ops.manual_cast.Linear):
            def forward_comfy_cast_weights(self, input):
                with torch.no_grad():
                    return super().forward_comfy_cast_weights(input)

            def forward(self, *args, **kwargs):
                if self.comfy_cast_weights or self.weight_function or self.bias_function:
                    return self.forward_comfy_cast_weights(*args, **kwargs)
                with torch.no_grad():
                    return torch.nn.Linear.forward(self, *args, **kwargs)

    Fast.Linear.forward_comfy_cast_weights.__module__ = "comfy.ops"  # where the host's own are
    source = str(test_models.diffusion_model("sd15"))
    with monkeypatch.context() as patch:
        patch.setattr(comfy.ops, "pick_operations", lambda *a, **k: Fast)
        fast = comfy.sd.load_diffusion_model(source)
    plain = comfy.sd.load_diffusion_model(source)
    linears = [m for m in fast.model.modules() if isinstance(m, Fast.Linear)]
    for cast in (True, False):
        for m in linears:
            m.comfy_cast_weights = cast
        assert_equal(gradient(sd15, fast), gradient(sd15, plain))
        assert not any("forward_comfy_cast_weights" in m.__dict__ for m in linears)


def test_weights_that_another_packs_layers_unpack(sd15, monkeypatch):
    """As GGUF loaders do: the weight is a tensor of a class of their own, which knows its scale."""
    import comfy.ops

    class Packed(torch.nn.Parameter):
        scale = 1.0

    class Unpacking(comfy.ops.manual_cast):
        class Linear(comfy.ops.manual_cast.Linear):
            def forward_comfy_cast_weights(self, input):
                weight = self.weight.to(input.dtype)
                if isinstance(self.weight, Packed):
                    weight = weight.as_subclass(torch.Tensor) * self.weight.scale
                return torch.nn.functional.linear(
                    input, weight, None if self.bias is None else self.bias.to(input.dtype)
                )

    source = str(test_models.diffusion_model("sd15"))
    with monkeypatch.context() as patch:
        patch.setattr(comfy.ops, "pick_operations", lambda *a, **k: Unpacking)
        packed = comfy.sd.load_diffusion_model(source)
    plain = comfy.sd.load_diffusion_model(source)
    for name, module in packed.model.diffusion_model.named_modules():
        if isinstance(module, Unpacking.Linear) and name.endswith(("to_q", "to_k", "net.2")):
            scale = module.weight.float().abs().max() / 127
            weight = Packed((module.weight.float() / scale).round().to(torch.int8), requires_grad=False)
            weight.scale = scale
            module.weight = weight
            plain.model.diffusion_model.get_submodule(name).weight.data.copy_(weight.as_subclass(torch.Tensor) * scale)
    assert sum(isinstance(p, Packed) for p in packed.model.parameters()) > 20
    assert_equal(gradient(sd15, packed), gradient(sd15, plain), 1e-3)


# ------------------------------------------------------------------------------------------- attention and compiling


def no_gradient(function, *args, **kwargs):
    """An attention function without a backward pass, as SageAttention's and others are."""
    with torch.no_grad():
        return function(*args, **kwargs)


def test_an_attention_override_without_a_gradient(sd15):
    model = sd15[0].clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = no_gradient
    assert_equal(gradient(sd15, model), gradient(sd15))


def test_few_keys_take_plain_products_on_a_cpu_and_many_the_fused_attention(sd15, monkeypatch):
    calls = []

    def counting(function):
        def counted(q, k, *args, **kwargs):
            calls.append((function.__name__, k.shape[-2]))
            return function(q, k, *args, **kwargs)

        return counted

    for name in ("attention_basic", "attention_pytorch"):
        monkeypatch.setattr(attention_module, name, counting(getattr(attention_module, name)))
    monkeypatch.setattr(attention_module, "FEW_KEYS", 100)
    mixed = gradient(sd15)
    plain, fused = ({keys for n, keys in calls if n == name} for name in ("attention_basic", "attention_pytorch"))
    assert plain and fused and max(plain) <= 100 < min(fused)
    monkeypatch.setattr(attention_module, "FEW_KEYS", 0)
    calls.clear()
    assert_equal(gradient(sd15), mixed, 1e-5)
    assert {name for name, _ in calls} == {"attention_pytorch"}


def test_a_model_whose_gradient_is_cut_off_is_refused_by_name(demo):
    model = demo[0].clone()
    model.set_model_attn2_patch(lambda q, k, v, extra: (q.detach(), k, v))
    model.set_model_unet_function_wrapper(lambda apply, a: apply(a["input"].detach(), a["timestep"], **a["c"]))
    target, positive = guidance_target(demo[1], LAYOUT, "")
    patched = patch_guidance(model, target, EVERY_STEP, EnergyTrace())
    with pytest.raises(ValueError, match="no gradient.*--fast"):
        nodes.common_ksampler(
            patched, 1, 2, 4.0, "euler", "normal", positive, positive, {"samples": torch.zeros(1, 4, 16, 16)}
        )


def test_an_attention_that_cannot_be_replaced_is_refused_and_not_passed_by(sd15, monkeypatch):
    """Put into the host's module by another pack: the residual path alone would give a wrong gradient."""
    import comfy.ldm.modules.attention as attention

    original = attention.attention_pytorch
    monkeypatch.setattr(attention, "optimized_attention", lambda *a, **k: no_gradient(original, *a, **k))
    with pytest.raises(ValueError, match=r"no gradient in the attention of block \('input', 1\)"):
        gradient(sd15)


def test_a_patch_without_a_backward_pass_is_refused(sd15):
    @torch.library.custom_op("ella_lmd_test::twice", mutates_args=())
    def twice(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    model = sd15[0].clone()
    model.set_model_attn1_replace(lambda q, k, v, extra: twice(v), "input", 4)
    with pytest.raises(ValueError, match="no gradient.*ella_lmd_test.twice.*attention or quantization node"):
        gradient(sd15, model)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_model_that_the_host_has_compiled(demo, backend):
    """TorchCompileModel's own patch, with a backend that needs no compiler: gradient, objects and images as without."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper
    from comfy_extras.nodes_torch_compile import skip_torch_compile_dict
    from ella_lmd.lmd.sampling.options import LMDOptions, SamplingSettings
    from ella_lmd.nodes.host.lmd import run_cache
    from ella_lmd.nodes.host.lmd.object_stage import sample_objects
    from ella_lmd.nodes.host.lmd.overall_stage import compose_and_sample

    options = {"guard_filter_fn": skip_torch_compile_dict}
    compiled = demo[0].clone(disable_dynamic=True)
    set_torch_compile_wrapper(model=compiled, backend=backend, options=options)
    assert_equal(gradient(demo, compiled), gradient(demo))
    settings = SamplingSettings(3, 3, 4.0, "euler", "normal")
    results = []
    for model in (demo[0], compiled, compiled):
        for at_once in (1, 2):
            run_cache.OBJECT_RUNS.clear()
            objects = sample_objects(model, demo[1], LAYOUT, settings, LMDOptions(EVERY_STEP, objects_at_once=at_once))
            results.append((objects, compose_and_sample(model, demo[1], objects)[0]))
    for objects, latent in results[1:]:
        assert torch.allclose(latent, results[0][1], atol=1e-3)
        for a, b in zip(results[0][0].runs, objects.runs):
            for name in a.attention:
                assert torch.allclose(a.attention[name], b.attention[name], atol=1e-4)


@pytest.mark.parametrize(
    "names",
    [["diffusion_model"], ["diffusion_model.middle_block.1.transformer_blocks.0",
                           "diffusion_model.input_blocks.3.1.transformer_blocks.0"]],
    ids=["whole", "blocks"],
)  # fmt: skip
def test_a_model_that_another_pack_has_compiled(demo, names):
    """As an object patch, the whole of it or single blocks."""
    compiled = demo[0].clone()
    for name in names:
        compiled.add_object_patch(name, torch.compile(demo[0].get_model_object(name), backend="eager"))
    plain = gradient(demo)
    assert_equal(gradient(demo, compiled), plain)
    assert_equal(gradient(demo, compiled, Economy(1, True)), plain)
