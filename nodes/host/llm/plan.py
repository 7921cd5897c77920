"""The planner's language models: a server by its name, or a text model that ComfyUI itself runs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from ....chat.answer import Answer, answer_in
from ....lmd.planner.dialogue import Messages, NoLayoutError, Outcome, Request, converse
from ....lmd.planner.request import MAX_TOKENS, STOP, TEMPERATURE, VERSION, as_text, schema
from .client import Client, Patience, SchemaRefused
from .host_model import generate
from .reply_cache import ReplyCache
from .servers import Server, folder
from .waiting import raise_if_stopped

CAPTION_TEMPERATURE = 0.7
THINKING_TOKENS = 4096


@dataclass(frozen=True)
class Decoding:
    """Published defaults: temperature 0.25, 900 tokens."""

    seed: int = 0
    temperature: float = TEMPERATURE
    max_tokens: int = MAX_TOKENS


def with_server(
    server: Server,
    request: Request,
    decoding: Decoding,
    show: Callable[[str], None] = lambda _text: None,
    patience: Patience | None = None,
    cache: ReplyCache | None = None,
    stopped: threading.Event | None = None,
) -> Outcome:
    """A layout from a server, from the cache where it was asked before. To be called outside ComfyUI's own threads;
    `stopped` ends it from there.

    Raises ValueError (what the server did, or that no answer could be read) and the host's interrupt.
    """
    client = Client(server, _watch(server, show, stopped), patience)
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
        form = {"name": "layout", "strict": True, "schema": schema(request.width, request.height)}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
    else:
        body["stop"] = [STOP]

    def ask(messages: Messages) -> Answer:
        # The messages hold the prompt, the canvas and the instruction; everything that a reply depends on is in the key.
        key = cache.key(server.name, server.address, VERSION, decoding.seed, {**body, "messages": messages})
        asked.append(key)
        if (kept := cache.get(key)) is not None:
            return Answer(**json.loads(kept))
        answer = client.chat({**body, "messages": messages})
        if answer.text and not answer.cut:
            cache.put(key, json.dumps(asdict(answer)))
        return answer

    return ask


def _watch(server: Server, show: Callable[[str], None], stopped: threading.Event | None) -> Callable[[float], None]:
    shown = [-1]

    def watch(seconds: float) -> None:
        raise_if_stopped(stopped)
        if int(seconds) != shown[0]:
            shown[0] = int(seconds)
            show(f"waiting for {server.name}: {shown[0]} s")

    return watch


def with_clip(clip, request: Request, decoding: Decoding) -> Outcome:
    """A layout from a text model under the host's memory management. Raises ValueError naming what to load when `clip`
    can't write.
    """

    def ask(messages: Messages) -> Answer:
        text = as_text(messages)
        return answer_in(generate(clip, text, decoding.seed, decoding.max_tokens, decoding.temperature))

    return converse(ask, replace(request, as_json=False))


def caption_from_server(
    server: Server, request: str, seed: int, max_tokens: int, stopped: threading.Event | None = None
) -> Answer:
    """A long caption from a server; a model that only thinks in `max_tokens` is asked again with room for more.

    To be called outside ComfyUI's own threads; raises ValueError or the host's interrupt.
    """
    client = Client(server, lambda _seconds: raise_if_stopped(stopped))
    body = {
        "model": client.model(),
        "messages": [{"role": "user", "content": request}],
        "temperature": CAPTION_TEMPERATURE,
        "max_tokens": max_tokens,
        "seed": seed % 2**31,
        "stream": False,
    }
    answer = client.chat(body)
    if answer.cut and not answer.text:
        answer = client.chat({**body, "max_tokens": max(max_tokens, THINKING_TOKENS)})
    return answer
