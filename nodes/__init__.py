"""The registry: every node file ends in a NODES list, and this is the only place that joins them."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import (
    demo,
    ella,
    ella_caption,
    ella_compat,
    ella_look,
    layout_convert,
    layout_editor,
    llm_adapter,
    llm_adapter_compat,
    llm_adapter_lora,
    lmd_compose,
    lmd_guidance,
    lmd_inspect,
    lmd_lora,
    lmd_objects,
    lmd_options,
    lmd_plan,
    lmd_sample,
)
from .host.ella.compat import register_replacements
from .host.lora_files import list_demo_loras

NODES: list[type[io.ComfyNode]] = [
    *lmd_plan.NODES,
    *layout_convert.NODES,
    *layout_editor.NODES,
    *lmd_sample.NODES,
    *lmd_compose.NODES,
    *lmd_guidance.NODES,
    *lmd_objects.NODES,
    *lmd_lora.NODES,
    *lmd_inspect.NODES,
    *lmd_options.NODES,
    *demo.NODES,
    *ella.NODES,
    *ella_caption.NODES,
    *ella_compat.NODES,
    *ella_look.NODES,
    *llm_adapter.NODES,
    *llm_adapter_lora.NODES,
    *llm_adapter_compat.NODES,
]


class EllaLmdExtension(ComfyExtension):
    async def on_load(self) -> None:
        list_demo_loras()
        await register_replacements()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return list(NODES)
