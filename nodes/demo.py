"""The demo model's node: a complete small model with nothing to download."""

from __future__ import annotations

from comfy_api.latest import io

from .host import demo_model


class LMDDemoModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LMDDemoModel",
            display_name="LMD Demo Model",
            category="LMD",
            description="A tiny text-to-image model that comes with this pack: coloured shapes (circle, square, "
            "triangle, star, heart, cross, ring, moon) on simple backgrounds, 128x128 pixels, seconds per image on a "
            "CPU. It takes the place of Load Checkpoint, for trying out layouts without downloading anything.",
            search_aliases=["LMD checkpoint", "tiny model", "toy model", "test model"],
            inputs=[],
            outputs=[
                io.Model.Output(tooltip="A U-Net of Stable Diffusion 1.5's kind; use it at 128x128 pixels."),
                io.Clip.Output(tooltip="Its text encoder, with Stable Diffusion 1.5's tokenizer."),
                io.Vae.Output(tooltip="Its autoencoder, eight pixels to a latent cell."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(*demo_model.load())


NODES = [LMDDemoModel]
