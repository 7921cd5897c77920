"""Where a sampler's steps are guided: the host's own, and such as other packs bring, which call the model within steps."""

import logging
import types

import comfy.sample
import comfy.samplers
import pytest
import torch
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.sampling.guidance import GuidanceOptions
from ella_lmd.nodes.host.guidance.guide import EnergyTrace, guidance_target, patch_guidance
from ella_lmd.nodes.host.guidance.sampler_run import SamplerRun
from ella_lmd.nodes.host.guidance.step_driver import drive
from ella_lmd.nodes.host.guidance.step_plan import step_plan

import nodes

SHAPES = Layout(
    128,
    128,
    (LayoutObject("a red circle", Box(0.05, 0.3, 0.4, 0.5)), LayoutObject("a blue star", Box(0.55, 0.3, 0.4, 0.5))),
    background="a photo of grass",
)
SIGMAS = torch.tensor([14.0, 7.0, 3.0, 1.2, 0.4, 0.0])
NO_GUIDANCE = GuidanceOptions(1e-9, 0.0, 50, (1,))


def exponential(order, copies=True, callback_state=True):
    """An exponential Runge-Kutta sampler (res_2s, res_3s) as other packs write it.

    Its state is in double precision, stages and model inputs are copies, and the callback comes at a step's end.
    """

    def sample(model, x, sigmas, extra_args=None, callback=None, disable=None):
        ones, state = x.new_ones(len(x)), x.double() if copies else x
        for i in range(len(sigmas) - 1):
            h = torch.log(sigmas[i] / sigmas[i + 1]) if sigmas[i + 1] > 0 else None
            denoised = [model(state.to(x.dtype) if copies else state, sigmas[i] * ones, **extra_args).double()]
            for c in ([0.5] if order == 2 else [1 / 3, 2 / 3])[: None if h is not None else 0]:
                inner = sigmas[i] * torch.exp(-c * h)
                stage = state * (inner / sigmas[i]) + (1 - inner / sigmas[i]) * denoised[-1]
                denoised.append(model(stage.to(x.dtype), inner * ones, **extra_args).double())
            old, ratio = state, sigmas[i + 1] / sigmas[i]
            state = (state * ratio + (1 - ratio) * denoised[-1]).to(state.dtype)
            told = state if callback_state else old.clone()
            callback({"x": told, "i": i, "sigma": sigmas[i], "sigma_next": sigmas[i + 1], "denoised": denoised[-1]})
        return state.to(x.dtype)

    sample.__name__ = f"sample_res_{order}s"
    return sample


def plan_of(name, sigmas=SIGMAS, model=None):
    sampler = comfy.samplers.sampler_object(name) if isinstance(name, str) else comfy.samplers.KSAMPLER(name)
    extra = {"model_options": {"transformer_options": {}}, "seed": 1}
    return step_plan(sampler.sampler_function, model, sigmas, extra, sampler.extra_options)


def stand_in(demo):
    """What the host gives samplers for a model, as far as they ask."""
    sampling = demo[0].get_model_object("model_sampling")
    inner = types.SimpleNamespace(model_patcher=demo[0], inner_model=types.SimpleNamespace(model_sampling=sampling))
    return types.SimpleNamespace(inner_model=inner)


OPENERS = {
    **dict.fromkeys(
        ("euler", "ddim", "dpmpp_2m", "lms", "lcm", "sa_solver", "euler_ancestral_cfg_pp"), [0, 1, 2, 3, 4]
    ),
    **dict.fromkeys(("heun", "dpm_2", "dpmpp_sde", "seeds_2"), [0, 2, 4, 6, 8]),
    "heunpp2": [0, 3, 6, 9, 11],
    "seeds_3": [0, 3, 6, 9, 12],
    "sa_solver_pece": [0, 2, 4, 6, 8],
}


@pytest.mark.parametrize("sampler", OPENERS)
def test_the_hosts_samplers_are_guided_where_their_state_is(demo, sampler):
    """Inner calls are passed over; the corrected latent counts where a solver evaluates twice."""
    state = torch.random.get_rng_state()
    plan = plan_of(sampler, model=stand_in(demo))
    assert [k for k, _ in sorted(plan.calls.items(), key=lambda c: c[1])] == OPENERS[sampler] and not plan.callbacks
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.allclose(torch.tensor([plan.sigmas[k] for k in OPENERS[sampler]]), SIGMAS[:-1], rtol=1e-4)


def test_samplers_of_other_packs_are_guided_where_their_state_is():
    in_place = plan_of(exponential(3, copies=False))
    assert in_place.calls == {0: 0, 3: 1, 6: 2, 9: 3, 12: 4} and not in_place.callbacks
    copies = plan_of(exponential(3))
    assert not copies.calls
    assert {k: i for k, (i, _) in copies.callbacks.items()} == {-1: 0, 0: 1, 1: 2, 2: 3, 3: 4}
    assert [round(s, 3) for _, s in copies.callbacks.values()] == [14, 7, 3, 1.2, 0.4]
    hidden = plan_of(exponential(2, callback_state=False))
    assert hidden.calls == {0: 0, 2: 1, 4: 2, 6: 3, 8: 4} and not hidden.callbacks, "never at a point within a step"


class Model:
    """A guided and a plain run of the demo model with any sampler function."""

    def __init__(self, demo, options):
        self.target, self.positive = guidance_target(demo[1], SHAPES, "")
        self.negative = nodes.CLIPTextEncode().encode(demo[1], "blurry")[0]
        self.trace = EnergyTrace()
        self.model = patch_guidance(demo[0], self.target, options, self.trace)

    def sample(self, sampler, sigmas, seed=3):
        noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(seed))
        if not isinstance(sampler, str):
            sampler = comfy.samplers.KSAMPLER(sampler)
        else:
            sampler = comfy.samplers.sampler_object(sampler)
        args = (self.model, noise, 4.0, sampler, sigmas, self.positive, self.negative, torch.zeros_like(noise))
        return comfy.sample.sample_custom(*args, seed=1)

    def first_energies(self, sampler, sigmas):
        """The mean energy at the first evaluation of every step but the first, over two seeds."""
        found = []
        for seed in (3, 4):
            self.sample(sampler, sigmas, seed)
            firsts = {step: float(e.mean()) for step, _, e in reversed(self.trace.rows)}
            assert set(firsts) == set(range(len(sigmas) - 1))
            found += [e for step, e in firsts.items() if step]
        return sum(found) / len(found)


@pytest.mark.parametrize(
    "sampler",
    ["lcm", "sa_solver", "sa_solver_pece", exponential(2), exponential(3), exponential(2, False), "dpm_adaptive"],
    ids=lambda s: s if isinstance(s, str) else s.__name__,
)
def test_guidance_lasts_from_step_to_step(demo, sampler):
    """At a step's first evaluation the energy is lower than without guidance: earlier steps' moves have lasted."""
    sigmas = comfy.samplers.calculate_sigmas(demo[0].get_model_object("model_sampling"), "karras", 8)
    options = GuidanceOptions(5.0, 0.0, 50, (2,))
    if sampler == "dpm_adaptive":
        guided, plain = Model(demo, options), Model(demo, NO_GUIDANCE)
        means = []
        for model in (guided, plain):
            model.sample(sampler, sigmas)
            firsts = {step: float(e.mean()) for step, _, e in reversed(model.trace.rows)}
            assert len(firsts) > 5
            means.append(sum(firsts.values()) / len(firsts))
        assert means[0] < 0.9 * means[1], means
        return
    guided = Model(demo, options).first_energies(sampler, sigmas)
    plain = Model(demo, NO_GUIDANCE).first_energies(sampler, sigmas)
    # lcm forgets all but the model's answer: bench table --sampler lcm shows what its pictures obey.
    assert guided < (0.95 if sampler == "lcm" else 0.9) * plain, (guided, plain)


def test_an_adaptive_sampler_is_guided_at_its_state_only(demo):
    """Not at the points within a step, and once where it tries a step again."""
    model = Model(demo, GuidanceOptions(2.0, 0.0, 50, (1,)))
    accepted = []
    original = comfy.samplers.KSAMPLER.sample

    def sample(self, model_wrap, sigmas, extra_args, callback, *args, **kwargs):
        def counted(step, x0, x, total):
            accepted.append(x)
            callback(step, x0, x, total) if callback else None

        return original(self, model_wrap, sigmas, extra_args, counted, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comfy.samplers.KSAMPLER, "sample", sample)
        model.sample("dpm_adaptive", torch.tensor([14.0, 1.0, 0.03]))
    states = {id(x) for x in accepted}
    assert [s for s, _, _ in model.trace.rows] == list(range(len(model.trace.rows)))
    assert len(model.trace.rows) <= len(states)


def run_of(name, sigmas, **steps):
    """`drive` on a denoiser that answers 0, with a hook that adds `steps[f"at{i}"]`; the latents that the hook saw."""
    seen = {}

    class Hook:
        def before_step(self, x, step):
            seen[step.index] = (x.clone(), float(step.sigma.flatten()[0]))
            move = steps.get(f"at{step.index}")
            return x if move is None else x + move

        def finish(self, x):
            return x

    sampler = comfy.samplers.sampler_object(name) if isinstance(name, str) else comfy.samplers.KSAMPLER(name)
    function = sampler.sampler_function
    run = SamplerRun(None, None, sigmas, {}, function.__name__)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    extra = {"model_options": {}, "seed": 1, "denoise_mask": None}
    # UniPC begins with unit noise times sqrt(1 + sigma^2), all others with sigma times noise.
    scale = (1 + sigmas[0] ** 2).sqrt() if "uni_pc" in str(name) else sigmas[0]
    out = drive(function, Hook(), run, lambda x, s, **_: x * 0, noise * scale, extra, lambda d: None, True, {})
    return noise, seen, out


@pytest.mark.parametrize("name", ["uni_pc", "uni_pc_bh2", "euler", "heun", exponential(3)])
def test_the_hook_sees_the_latent_of_its_sigma_and_writes_into_it(name):
    """With a denoiser that answers 0 the latent is proportional to sigma, in the frame that guidance's steps are for.

    UniPC's own latent is divided by sqrt(sigma^2 + 1): the hook must not see that, and its move must be scaled back.
    """
    sigmas = torch.tensor([10.0, 6.0, 3.0, 1.5, 0.7, 0.2])
    noise, seen, plain = run_of(name, sigmas)
    assert set(seen) >= {0, 1, 2, 3}
    first = seen[0][0] / seen[0][1]
    for x, sigma in seen.values():
        assert sigma in [pytest.approx(float(s)) for s in sigmas] and torch.allclose(x / sigma, first, rtol=1e-3)
    _, _, moved = run_of(name, sigmas, at2=1.0)
    expected = seen[2][0].new_full((), float(sigmas[-1]) / seen[2][1])
    assert torch.allclose((moved - plain).mean(), expected, rtol=0.05)


def test_a_sampler_that_leaves_its_plan_is_named_and_guided_by_its_sigmas(caplog):
    """Its steps depend on what the model answers, so no dry run can foresee them."""

    def wandering(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for i in range(len(sigmas) - 1):
            denoised = model(x, sigmas[i] * x.new_ones(len(x)), **extra_args)
            if float(x.std()) < 5.0 * float(sigmas[i]) and len(x) and float(x.std()) > 0.1:
                denoised = model(x * 0.9, 0.9 * sigmas[i] * x.new_ones(len(x)), **extra_args)
            callback({"x": x, "i": i, "sigma": sigmas[i], "denoised": denoised})
            x = denoised + (x - denoised) * sigmas[i + 1] / sigmas[i]
        return x

    sigmas = torch.tensor([10.0, 6.0, 3.0, 0.0])
    with caplog.at_level(logging.WARNING):
        _, seen, _ = run_of(wandering, sigmas)
    assert "wandering calls the model at other points than foreseen" in caplog.text
    assert [round(s, 3) for _, s in seen.values()] == [10.0, 6.0, 3.0]


def test_a_sampler_that_no_dry_run_fits_is_named_and_guided_by_its_sigmas(caplog):
    def particular(model, x, sigmas, extra_args=None, callback=None, disable=None):
        if float(x.std()) == 0:
            raise ZeroDivisionError("no noise")
        return comfy.samplers.sampler_object("euler").sampler_function(model, x, sigmas, extra_args, callback, disable)

    with caplog.at_level(logging.WARNING):
        _, seen, _ = run_of(particular, torch.tensor([10.0, 6.0, 3.0, 0.0]))
    assert "particular cannot be foreseen (ZeroDivisionError: no noise)" in caplog.text
    assert [round(s, 3) for _, s in seen.values()] == [10.0, 6.0, 3.0]
