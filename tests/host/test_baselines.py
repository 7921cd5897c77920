"""The methods that LMD was compared with, as choices of the nodes: Backward Guidance and BoxDiff."""

from dataclasses import replace

import pytest
import torch
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.sampling.options import BASELINES
from ella_lmd.nodes.host.guidance.attention import resolve_layers
from ella_lmd.nodes.host.guidance.guide import EnergyTrace, guidance_target, patch_guidance
from ella_lmd.nodes.lmd_compose import LatentComposer
from ella_lmd.nodes.lmd_guidance import LayoutGuidance
from ella_lmd.nodes.lmd_options import LMDOptionsNode
from ella_lmd.nodes.lmd_sample import BoxGroundedSampler

import nodes

LAYOUT = Layout(
    128, 128,
    (LayoutObject("a red circle", Box(0.05, 0.3, 0.4, 0.4)), LayoutObject("a blue star", Box(0.55, 0.3, 0.4, 0.4))),
    background="a scene",
)  # fmt: skip
BOXDIFF = BASELINES["boxdiff"].guidance.energy


def chosen(**changes):
    """The options of an LMD Options node, as the browser gives them."""
    inputs = LMDOptionsNode.define_schema().inputs
    return LMDOptionsNode.execute(**{i.id: i.default for i in inputs} | changes).args[0]


def sample(demo, model, positive, steps=10, seed=3):
    latent, negative = {"samples": torch.zeros(1, 4, 16, 16)}, nodes.CLIPTextEncode().encode(demo[1], "")[0]
    how = (model, seed, steps, 7.5, "ddim", "ddim_uniform", positive, negative, latent)
    return nodes.common_ksampler(*how)[0]["samples"]


def test_boxdiff_reads_every_layer_of_one_grid(demo, sd15):
    def names(model, text="auto", energy=BOXDIFF):
        return [str(x) for x in resolve_layers(text, model.model.diffusion_model, energy)]

    assert names(sd15[0]) == ["input.7", "input.8", "output.3", "output.4", "output.5"]
    assert names(sd15[0], energy=replace(BOXDIFF, kind="ratio")) == ["middle.0", "output.3", "output.4", "output.5"]
    assert names(sd15[0], "output.4") == ["output.4"]


@pytest.mark.parametrize(("preset", "most"), [("backward guidance", 5), ("boxdiff", 1)])
def test_a_baseline_is_a_preset_and_a_set_of_options(demo, preset, most):
    """With the published iterations: those of the first 10 fiftieths of the schedule, or one in each of the first 25."""
    model, clip, _ = demo
    written = {
        "backward guidance": chosen(
            energy="ratio", loss_scale=30.0, loss_threshold=0.2, iterations="5", last_guided_step=10
        ),
        "boxdiff": chosen(energy="boxdiff", loss_scale=20.0, loss_threshold=0.0, iterations="1", last_guided_step=25),
    }[preset]
    found = []
    for how, options in ((preset, None), ("reference", written)):
        guided, positive, trace = LayoutGuidance.execute(model, clip, LAYOUT, "", 1.0, 0.0, 1.0, how, options).args
        found.append(sample(demo, guided, positive))
        steps = [step for step, _, _ in trace.rows]
        last = BASELINES[preset].guidance.max_index_step
        assert {i for _, i, _ in trace.rows} == {4 + 5 * k for k in range(last // 5)}
        assert all(steps.count(step) <= most for step in steps) and steps.count(0) == most
    assert torch.equal(*found)
    assert not torch.equal(found[0], sample(demo, model, positive))


def test_boxdiffs_energy_falls(demo):
    model, clip, _ = demo
    target, positive = guidance_target(clip, LAYOUT, "")
    options = replace(BASELINES["boxdiff"].guidance, max_iter=(4,), loss_scale=5.0)
    trace = EnergyTrace()
    sample(demo, patch_guidance(model, target, options, trace), positive, steps=2)
    energies = [float(e) for step, _, e in trace.rows if step == 0]
    assert len(energies) == 4 and energies[-1] < energies[0]
    assert trace.parts[0] is not None
    assert float(trace.parts[0].mean(0)) == pytest.approx(energies[0], rel=1e-5)


def test_boxdiff_in_both_stages(demo):
    model, clip, _ = demo
    options = chosen(energy="boxdiff", loss_scale=20.0, loss_threshold=0.0, iterations="1", last_guided_step=25)
    objects = BoxGroundedSampler.execute(
        model, clip, LAYOUT, 1, 4, 7.5, "ddim", "ddim_uniform", "reference", options=options
    ).args[0]
    assert all(run.energies for run in objects.runs)
    assert torch.isfinite(LatentComposer.execute(model, clip, objects, 0.5).args[0]["samples"]).all()


def test_layers_of_several_grids_are_refused(sd15):
    model, clip, _ = sd15
    target, positive = guidance_target(clip, LAYOUT, "", "middle.0, output.3")
    guided = patch_guidance(model, target, BASELINES["boxdiff"].guidance, EnergyTrace())
    with pytest.raises(ValueError, match="boxdiff needs guided layers on one grid, got grids of 2x2, 4x4 cells"):
        sample(sd15, guided, positive, steps=2)
