"""Nodes as ComfyUI's executor runs them."""

import asyncio

import execution

import nodes as host_nodes


def run(name, **inputs):
    """One node as the executor runs it: its inputs expanded from a prompt's flat form, its outputs collected."""
    cls = host_nodes.NODE_CLASS_MAPPINGS[name]
    data, missing, v3_data = execution.get_input_data(inputs, cls, "1")
    assert not missing
    out, ui, *_ = asyncio.run(execution.get_output_data("p", "1", cls(), data, v3_data=v3_data))
    return [o[0] for o in out], ui
