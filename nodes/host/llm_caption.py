"""A long caption from one of the planner's language model servers."""

from __future__ import annotations

import comfy.model_management

from .llm_client import Client
from .llm_servers import Server

TEMPERATURE = 0.7


def from_server(server: Server, request: str, seed: int, max_tokens: int) -> str:
    """The server's answer. To be called outside ComfyUI's own threads; raises ValueError or the host's interrupt."""

    def watch(_seconds: float) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()

    client = Client(server, watch)
    return client.chat(
        {
            "model": client.model(),
            "messages": [{"role": "user", "content": request}],
            "temperature": TEMPERATURE,
            "max_tokens": max_tokens,
            "seed": seed % 2**31,
            "stream": False,
        }
    )
