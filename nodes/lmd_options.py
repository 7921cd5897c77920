"""All parameters of LMD in one options node, so that the sampling nodes show only the few that matter."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from ..lmd.sampling.energy import ENERGIES
from ..lmd.sampling.guidance import parse_iterations
from ..lmd.sampling.options import PLACEMENTS, PRESETS, LMDOptions
from .types import OptionsType

CATEGORY = "LMD"


class LMDOptionsNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        o = PRESETS["reference"]
        g, e = o.guidance, o.guidance.energy
        return io.Schema(
            node_id="LMDOptions",
            display_name="LMD Options",
            category=CATEGORY,
            description="Every parameter of layout guidance and of the two LMD stages. Connect it to Box Grounded "
            "Sampler (the composer takes it from there) or to Layout Guidance. The defaults are the published ones.",
            search_aliases=["guidance options", "attention guidance settings", "LLM-grounded diffusion options"],
            inputs=[
                io.Float.Input("loss_scale", default=g.loss_scale, min=0.0, max=100.0, step=0.5,
                               tooltip="Strength of guidance: how far the latent moves per iteration. 0 switches it off."),
                io.Float.Input("loss_threshold", default=g.loss_threshold, min=0.0, max=100.0, step=0.1,
                               tooltip="Guidance ends for good once the energy is at or below this. Tuned for 8 "
                               "attention heads (SD1.5); models with more heads have higher energies."),
                io.String.Input("iterations", default="4x5, 3x5, 2x10, 1x10",
                                tooltip="Iterations per step, written count x steps, counted in fiftieths of the noise "
                                "schedule whatever your step count. The paper's schedule is 5x5, 4x5, 3x5, 2x5, 1x10."),
                io.Int.Input("last_guided_step", default=g.max_index_step, min=0, max=50,
                             tooltip="Guidance ends here, in fiftieths of the noise schedule: 30 = the first 60 percent."),
                io.Float.Input("fg_weight", default=e.fg_weight, min=0.0, max=50.0, step=0.1,
                               tooltip="How much attention inside the box counts."),
                io.Float.Input("bg_weight", default=e.bg_weight, min=0.0, max=50.0, step=0.1,
                               tooltip="How much attention outside the box is punished."),
                io.Float.Input("reference_weight", default=e.reference_weight, min=0.0, max=50.0, step=0.1,
                               tooltip="Attention transfer in the composition: how much an object's attention should "
                               "look like in its own image. 0 switches it off."),
                io.Float.Input("fg_top_p", default=e.fg_top_p, min=0.0, max=1.0, step=0.01, advanced=True,
                               tooltip="Share of the box's cells, the strongest ones, that the energy looks at."),
                io.Float.Input("bg_top_p", default=e.bg_top_p, min=0.0, max=1.0, step=0.01, advanced=True,
                               tooltip="Share of the cells outside the box, the strongest ones, that it looks at."),
                io.Combo.Input("energy", options=list(ENERGIES), default="top", advanced=True,
                               tooltip="top = LMD. For comparisons: ratio = Backward Guidance (with loss_scale 30, "
                               "loss_threshold 0.2, iterations 5, last_guided_step 10), boxdiff = BoxDiff (with 20, 0, "
                               "1 and 25); both without objects of their own and with reference_weight 0."),
                io.String.Input("layers", default=o.layers, advanced=True,
                                tooltip="Guided layers: auto (the middle and the deepest output blocks), or a list "
                                "such as middle.0, output.3, output.4."),
                io.Float.Input("blending_ratio", default=o.blending_ratio, min=0.0, max=1.0, step=0.01, advanced=True,
                               tooltip="How much of its own noise an object gets in its box; the rest is shared."),
                io.Boolean.Input("centre", default=o.centre, advanced=True,
                                 tooltip="Draw each object in the middle of its own image; it is shifted later."),
                io.Boolean.Input("horizontal_only", default=o.horizontal_only, advanced=True,
                                 tooltip="Centre objects horizontally only, keeping their height in the picture."),
                io.Combo.Input("placement", options=list(PLACEMENTS), default=o.placement, advanced=True,
                               tooltip="Where a centred object stands in its own image: on a floor, or in the middle."),
                io.Float.Input("floor_padding", default=o.floor_padding, min=0.0, max=1.0, step=0.01, advanced=True,
                               tooltip="Free space below a centred object, as a share of the canvas."),
                io.Boolean.Input("align", default=o.align, advanced=True,
                                 tooltip="Shift each object's mask to the centre of its box before composing."),
                io.Boolean.Input("align_horizontal_only", default=o.align_horizontal_only, advanced=True,
                                 tooltip="Shift objects sideways only; use it together with horizontal_only."),
                io.Boolean.Input("fast_schedule", default=o.fast_schedule, advanced=True,
                                 tooltip="Skip every second step of an object's run once only its mask depends on it: "
                                 "faster, with almost the same result."),
                io.Boolean.Input("reference_seeds", default=o.reference_seeds, advanced=True,
                                 tooltip="Number objects by their place in the name order, as published. Otherwise by "
                                 "their name: adding or renaming one then leaves the others as they are."),
                io.Boolean.Input("use_background", default=o.use_background, advanced=True,
                                 tooltip="Put the background prompt into each object's prompt."),
                io.Boolean.Input("use_negative", default=o.use_negative, advanced=True,
                                 tooltip="Put the layout's negative prompt into the negative prompts."),
                io.Boolean.Input("stop_early", default=o.stop_early, optional=True, advanced=True,
                                 tooltip="End an object's run where the composition needs no more of it: faster still. "
                                 "Its own picture is then the model's estimate, and its mask comes from fewer steps. "
                                 "Takes the place of fast_schedule."),
                io.Int.Input("objects_at_once", default=o.objects_at_once, min=0, max=64, optional=True, advanced=True,
                             tooltip="How many objects are generated in one batch: 0 = as many as fit the free memory. "
                             "It changes the speed, not the result; 1 needs the least memory."),
                io.Boolean.Input("catch_up", default=g.catch_up, optional=True, advanced=True,
                                 tooltip="For runs of fewer than 50 steps: each step also does the iterations of the "
                                 "fiftieths of the schedule that it passes over, so guidance costs as much as with 50. "
                                 "The preset few steps has it on; it helps runs of 6 to 8 steps."),
                io.Boolean.Input("guide_objects", default=True, optional=True, advanced=True,
                                 tooltip="Guide the objects' own runs as the composition. Off in the preset lmd+, where "
                                 "GLIGEN places them."),
                io.Float.Input("gligen_share", default=o.gligen_share, min=0.0, max=1.0, step=0.01, optional=True,
                               advanced=True,
                               tooltip="For which share of a run's steps GLIGEN's adapter sees the boxes, where a node has "
                               "a gligen connection. 0 leaves it out."),
            ],
            outputs=[OptionsType.Output(display_name="options", tooltip="For Box Grounded Sampler or Layout Guidance.")],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, iterations: str) -> bool | str:
        try:
            parse_iterations(iterations)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls, loss_scale, loss_threshold, iterations, last_guided_step, fg_weight, bg_weight, reference_weight,
        fg_top_p, bg_top_p, energy, catch_up=False, guide_objects=True, **stage,
    ) -> io.NodeOutput:  # fmt: skip
        published = PRESETS["reference"].guidance
        energy = replace(
            published.energy, fg_top_p=fg_top_p, bg_top_p=bg_top_p, fg_weight=fg_weight,
            bg_weight=bg_weight, reference_weight=reference_weight, kind=energy,
        )  # fmt: skip
        guidance = replace(
            published, loss_scale=loss_scale, loss_threshold=loss_threshold, energy=energy,
            max_iter=parse_iterations(iterations), max_index_step=last_guided_step, catch_up=catch_up,
        )  # fmt: skip
        own = None if guide_objects else PRESETS["lmd+"].object_guidance
        return io.NodeOutput(LMDOptions(guidance=guidance, object_guidance=own, **stage))


NODES = [LMDOptionsNode]
