"""The planner's language models: a server by its name, or a text model that ComfyUI itself runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import comfy.model_management

from ....lmd.planner import request as instruct
from ....lmd.planner.dialogue import Messages, NoLayoutError, Outcome, Request, converse
from .client import Client, Patience, SchemaRefused
from .host_model import generate
from .reply_cache import ReplyCache
from .servers import Server, folder

CAPTION_TEMPERATURE = 0.7


@dataclass(frozen=True)
class Decoding:
    """Published defaults: temperature 0.25, 900 tokens."""

    seed: int = 0
    temperature: float = instruct.TEMPERATURE
    max_tokens: int = instruct.MAX_TOKENS


def with_server(
    server: Server,
    request: Request,
    decoding: Decoding,
    show: Callable[[str], None] = lambda text: None,
    patience: Patience | None = None,
    cache: ReplyCache | None = None,
) -> Outcome:
    """A layout from a server, from the cache where it was asked before. To be called outside ComfyUI's own threads.

    Raises ValueError (what the server did, or that no answer could be read) and the host's interrupt.
    """
    client = Client(server, _watch(server, show), patience)
    model = client.model()
    cache = cache or ReplyCache(folder() / "replies")
    forms = {"auto": (True, False), "schema": (True,), "text": (False,)}[server.output]
    for as_json in forms:
        asked: list[str] = []
        form = replace(request, as_json=as_json)
        try:
            return converse(_asking(client, model, form, decoding, cache, asked), form)
        except SchemaRefused:
            if as_json is forms[-1]:
                raise
        except NoLayoutError:
            cache.drop(asked)  # queueing again shall ask again
            raise
    raise AssertionError("the last form returns or raises")


def _asking(client: Client, model: str, request: Request, decoding: Decoding, cache: ReplyCache, asked: list[str]):
    server = client.server
    body = {
        "model": model,
        "temperature": decoding.temperature,
        "max_tokens": decoding.max_tokens,
        "seed": decoding.seed % 2**31,
        "stream": False,
    }
    if request.as_json:
        schema = {"name": "layout", "strict": True, "schema": instruct.schema(request.width, request.height)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    else:
        body["stop"] = [instruct.STOP]

    def ask(messages: Messages) -> str:
        # The messages hold the prompt, the canvas and the instruction; everything that a reply depends on is in the key.
        key = cache.key(server.name, server.address, instruct.VERSION, decoding.seed, {**body, "messages": messages})
        asked.append(key)
        reply = cache.get(key)
        if reply is None:
            reply = client.chat({**body, "messages": messages})
            cache.put(key, reply)
        return reply

    return ask


def _watch(server: Server, show: Callable[[str], None]) -> Callable[[float], None]:
    shown = [-1]

    def watch(seconds: float) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        if int(seconds) != shown[0]:
            shown[0] = int(seconds)
            show(f"waiting for {server.name}: {shown[0]} s")

    return watch


def with_clip(clip, request: Request, decoding: Decoding) -> Outcome:
    """A layout from a text model under the host's memory management. It has no grammar and no stop text, so the
    answer is cut behind its last line. Raises ValueError naming what to load when `clip` can't write.
    """

    def ask(messages: Messages) -> str:
        text = instruct.as_text(messages)
        return first_answer(generate(clip, text, decoding.seed, decoding.max_tokens, decoding.temperature))

    return converse(ask, replace(request, as_json=False))


def first_answer(text: str) -> str:
    """Up to the first blank line behind a list of boxes; models without a stop text go on with captions of their own."""
    text = re.sub(r"<think>.*?(?:</think>|\Z)", "", text, flags=re.S)
    listing = re.search(r"\]\s*\)?\s*\]", text)
    end = re.search(r"\n\s*\n", text[listing.end() :]) if listing else None
    return text[: listing.end() + end.start()] if listing and end else text


def caption_from_server(server: Server, request: str, seed: int, max_tokens: int) -> str:
    """A long caption from a server. To be called outside ComfyUI's own threads; raises ValueError or the host's interrupt."""

    def watch(_seconds: float) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()

    client = Client(server, watch)
    return client.chat(
        {
            "model": client.model(),
            "messages": [{"role": "user", "content": request}],
            "temperature": CAPTION_TEMPERATURE,
            "max_tokens": max_tokens,
            "seed": seed % 2**31,
            "stream": False,
        }
    )
