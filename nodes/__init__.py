"""The registry: every node file ends in a NODES list, and this is the only place that joins them."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import ella

NODES: list[type[io.ComfyNode]] = [*ella.NODES]


class EllaLmdExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return list(NODES)
