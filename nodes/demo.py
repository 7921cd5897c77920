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
            inputs=[
                io.Combo.Input("architecture", options=list(demo_model.MODELS), default=demo_model.UNET_MODEL,
                               optional=True,
                               tooltip="U-Net: of Stable Diffusion 1.5's kind. transformer: of the kind of Lumina 2 and "
                               "Z-Image, to try layouts on that; sample it with euler and simple."),
            ],
            outputs=[
                io.Model.Output(tooltip="The U-Net or the transformer; use it at 128x128 pixels."),
                io.Clip.Output(tooltip="Its text encoder, with Stable Diffusion 1.5's tokenizer."),
                io.Vae.Output(tooltip="Its autoencoder, eight pixels to a latent cell."),
                io.Gligen.Output(tooltip="Its GLIGEN adapter, for LMD+ and the stock GLIGEN nodes. It fits the U-Net only."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, architecture=demo_model.UNET_MODEL) -> io.NodeOutput:
        return io.NodeOutput(*demo_model.load(kind=architecture), demo_model.load_gligen())


NODES = [LMDDemoModel]
