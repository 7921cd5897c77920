"""Guidance goes by the noise level: models whose sigmas are not Stable Diffusion's are guided, and as strongly."""

import logging
import re

import comfy.model_sampling
import comfy.sample
import comfy.samplers
import pytest
import torch
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.sampling.guidance import GuidanceOptions, reference_index, step_scale
from ella_lmd.nodes.host.guidance.guide import EnergyTrace, guidance_target, patch_guidance
from ella_lmd.nodes.host.guidance.sampler_run import SamplerRun

import nodes

SHAPES = Layout(
    128,
    128,
    (LayoutObject("a red circle", Box(0.05, 0.3, 0.4, 0.5)), LayoutObject("a blue star", Box(0.55, 0.3, 0.4, 0.5))),
    background="a photo of grass",
)
TWICE = GuidanceOptions(loss_scale=2.0, loss_threshold=0.0, max_index_step=50, max_iter=(2,))
LEVELS = torch.tensor([9.0, 4.0, 1.5, 0.6, 0.0])  # noise over signal


def guided(demo, model, options=TWICE, **range_of):
    """`(the guided model, its positive conditioning, a negative one, the trace)`."""
    target, positive = guidance_target(demo[1], SHAPES, "", **range_of)
    trace = EnergyTrace()
    negative = nodes.CLIPTextEncode().encode(demo[1], "blurry")[0]
    return patch_guidance(model, target, options, trace), positive, negative, trace


def with_sampling(model, sampling):
    patched = model.clone()
    patched.add_object_patch("model_sampling", sampling)
    return patched


class Frame(torch.nn.Module):
    """The demo model's own process in other latents: x = signal * x0 + noise * n, told by the sampler's sigma."""

    sigma_data = 1.0

    def __init__(self, original):
        super().__init__()
        self.original = original
        self.register_buffer("sigmas", self.sigma_of(original.sigmas.clone()))

    sigma_min = property(lambda self: self.sigmas[0])
    sigma_max = property(lambda self: self.sigmas[-1])

    def calculate_input(self, sigma, x):
        level = self.level(sigma).view(-1, 1, 1, 1)
        return self.original.calculate_input(level.flatten(), x / self.signal(sigma).view(-1, 1, 1, 1))

    def timestep(self, sigma):
        return self.original.timestep(self.level(sigma))

    def calculate_denoised(self, sigma, output, x):
        x0 = self.original.calculate_denoised(self.level(sigma), output, x / self.signal(sigma).view(-1, 1, 1, 1))
        return x0 * self.sigma_data

    def percent_to_sigma(self, percent):
        return float(self.sigma_of(torch.tensor(self.original.percent_to_sigma(percent))))


class Flow(Frame, comfy.model_sampling.CONST):
    calculate_input, calculate_denoised = Frame.calculate_input, Frame.calculate_denoised

    def level(self, t):
        return t / (1 - t)

    def sigma_of(self, level):
        return level / (1 + level)

    def signal(self, t):
        return 1 - t


class Half(Frame, comfy.model_sampling.EDM):
    sigma_data = 0.5
    calculate_input, calculate_denoised = Frame.calculate_input, Frame.calculate_denoised

    def level(self, sigma):
        return sigma / 0.5

    def sigma_of(self, level):
        return level * 0.5

    def signal(self, sigma):
        return torch.full_like(sigma, 0.5)


@pytest.mark.parametrize("frame", [Flow, Half])
def test_the_same_model_in_other_latents_is_guided_to_the_same_picture(demo, frame):
    """Euler's method does not depend on the latents' frame, so any difference is guidance's own."""
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    original = demo[0].get_model_object("model_sampling")
    other = frame(original)

    def sample(model, sigmas):
        model, positive, negative, trace = guided(demo, model)
        sampler, start = comfy.samplers.sampler_object("euler"), torch.zeros_like(noise)
        args = (model, noise, 4.0, sampler, sigmas, positive, negative, start)
        return comfy.sample.sample_custom(*args, seed=1), trace

    expected, rows = sample(demo[0], LEVELS)
    found, other_rows = sample(with_sampling(demo[0], other), other.sigma_of(LEVELS))
    assert [r[:2] for r in other_rows.rows] == [r[:2] for r in rows.rows] and len(rows.rows) == 8
    for (_, _, a), (_, _, b) in zip(rows.rows, other_rows.rows):
        assert torch.allclose(a, b, rtol=2e-3)
    assert torch.allclose(found / other.sigma_data, expected, atol=2e-2)


SAMPLINGS = {
    "continuous EDM": ("ModelSamplingContinuousEDM", {"sampling": "v_prediction", "sigma_max": 120.0, "sigma_min": 0.002}),
    "EDM": ("ModelSamplingContinuousEDM", {"sampling": "edm", "sigma_max": 120.0, "sigma_min": 0.002}),
    "Cosmos": ("ModelSamplingContinuousEDM", {"sampling": "cosmos_rflow", "sigma_max": 80.0, "sigma_min": 0.002}),
    "continuous V": ("ModelSamplingContinuousV", {"sampling": "v_prediction", "sigma_max": 500.0, "sigma_min": 0.03}),
    "Stable Cascade": ("ModelSamplingStableCascade", {"shift": 2.0}),
    "SD3": ("ModelSamplingSD3", {"shift": 3.0}),
    "AuraFlow": ("ModelSamplingAuraFlow", {"shift": 1.73}),
    "Flux": ("ModelSamplingFlux", {"max_shift": 1.15, "base_shift": 0.5, "width": 1024, "height": 1024}),
    "LCM": ("ModelSamplingDiscrete", {"sampling": "lcm", "zsnr": False}),
    "zero terminal SNR": ("ModelSamplingDiscrete", {"sampling": "eps", "zsnr": True}),
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLINGS)
def test_every_model_sampling_of_the_host_is_guided(demo, extra_nodes, name):
    """All steps in the first 60 percent of the noise schedule are guided, whatever the model calls its timesteps."""
    node, inputs = SAMPLINGS[name]
    node = extra_nodes[node]()
    model = getattr(node, node.FUNCTION)(model=demo[0], **inputs)[0]
    model, positive, negative, trace = guided(demo, model, GuidanceOptions(2.0, 0.0, 30, (1,)))
    latent = {"samples": torch.zeros(1, 4, 16, 16)}
    result = nodes.common_ksampler(model, 3, 6, 4.0, "euler", "simple", positive, negative, latent)[0]["samples"]
    assert torch.isfinite(result).all() and trace.rows
    run = SamplerRun(type("Guider", (), {"inner_model": model.model})(), None, torch.zeros(2), {}, "")
    original, run.guider.inner_model.model_sampling = (
        model.model.model_sampling,
        model.get_model_object("model_sampling"),
    )
    try:
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 6)[:-1]
        indices = [reference_index(run.timestep(s)) for s in sigmas.split(1)]
    finally:
        model.model.model_sampling = original
    assert [i for _, i, _ in trace.rows] == [i for i in indices if i < 30]


def test_stable_diffusions_own_schedule_is_counted_as_the_host_counts_it(demo):
    """By noise level, a sigma of an ordinary model has the host's timestep, bit for bit, between two timesteps too."""
    sampling = demo[0].get_model_object("model_sampling")
    guider = type("Guider", (), {"inner_model": type("Model", (), {"model_sampling": sampling})})
    run = SamplerRun(guider, None, torch.zeros(2), {}, "")
    between = torch.rand(500, generator=torch.Generator().manual_seed(1)) * 999
    for t in [*(torch.arange(0, 998, 1.5)), *between]:
        sigma = sampling.sigma(t).view(1)
        assert run.timestep(sigma) == float(sampling.timestep(sigma)[0])
        assert run.step_scale(sigma, "top") == step_scale(1, float(sigma)) and run.frame(sigma) == (1, float(sigma))


@pytest.mark.parametrize(
    ("denoise", "range_of", "why"),
    [
        (0.2, {}, r"3 steps \(sample_euler, .*\) begin at 4\d fiftieths.*ends at 30: raise denoise"),
        (1.0, {"start_percent": 0.4, "end_percent": 0.41}, "start_percent and end_percent"),
    ],
    ids=["too little noise", "no step in the range"],
)
def test_a_run_without_a_guided_step_says_why(demo, caplog, denoise, range_of, why):
    options = GuidanceOptions(2.0, 0.0, 30, (1,))
    model, positive, negative, trace = guided(demo, demo[0], options, **range_of)
    latent = {"samples": torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))}
    with caplog.at_level(logging.WARNING):
        nodes.common_ksampler(model, 3, 3, 4.0, "euler", "normal", positive, negative, latent, denoise=denoise)
    (message,) = [r.getMessage() for r in caplog.records if "did nothing" in r.getMessage()]
    assert not trace.rows and re.search(why, message), message
