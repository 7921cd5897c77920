"""One chat request to an OpenAI-compatible server. Never follows a redirect, never shows a key.

Built on aiohttp, which ComfyUI itself ships and runs on: no further dependency, and a cancelled request closes its
connection, which ends the generation on the server.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from ....chat.answer import Answer, answer_of
from ....lmd.limits import MAX_BODY
from .servers import Key, Server, key_of, servers_file
from .waiting import resolver

_POLL = 0.1
_NO_CHAT = re.compile(r"embed|rerank|whisper|tts|moderation", re.I)  # models that such servers list too
_DROPPABLE = ("stop", "seed", "temperature", "max_tokens")


@dataclass(frozen=True)
class Patience:
    """How often and how long to wait for a busy server, in seconds."""

    attempts: int = 4
    first: float = 1.0
    longest: float = 60.0


class ServerError(ValueError):
    """What a server did instead of answering, without any secret; `again` when another try may help."""

    def __init__(self, message: str, again: bool = False, after: float | None = None) -> None:
        super().__init__(message)
        self.again, self.after = again, after


class SchemaRefused(ServerError):
    """The server takes no JSON schema: ask for plain text."""


class ParameterRefused(ServerError):
    """The server refuses one optional parameter."""

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message)
        self.name = name


class Client:
    """Asks one server. `watch(seconds waited)` is called about ten times a second and may raise to stop the request.

    The key is read once and leaves this object only in the header of requests to `server.address`.
    """

    def __init__(self, server: Server, watch: Callable[[float], None], patience: Patience | None = None) -> None:
        self.server, self.watch, self.patience = server, watch, patience or Patience()
        self._key: Key = key_of(server)

    def model(self) -> str:
        """The model to ask: the configured one, else the first that the server lists."""
        if self.server.model:
            return self.server.model
        data = asyncio.run(self._patiently("GET", "/models", None))
        listed = data.get("data") if isinstance(data, dict) else None
        models = listed if isinstance(listed, list) else []
        names = [m["id"] for m in models if isinstance(m, dict) and isinstance(m.get("id"), str)]
        if not names:
            raise ServerError(
                f'"{self.server.name}" lists no model: load one there, or name one in "model" in {servers_file()}'
            )
        return next((name for name in names if not _NO_CHAT.search(name)), names[0])

    def chat(self, body: dict) -> Answer:
        """The answer. `body` as in the chat completions API; parameters that the server refuses are left out."""
        body = dict(body)
        while True:
            try:
                data = asyncio.run(self._patiently("POST", "/chat/completions", body))
            except ParameterRefused as refused:
                value = body.pop(refused.name)
                if refused.name == "max_tokens":
                    body["max_completion_tokens"] = value
                continue
            answer = self._answer(data)
            if "stop" in body and not answer.text and not answer.cut:  # the blank line came inside the thinking
                del body["stop"]
                continue
            return answer

    async def _patiently(self, method: str, path: str, body: dict | None) -> dict:
        task = asyncio.ensure_future(self._retrying(method, path, body))
        started = asyncio.get_running_loop().time()
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=_POLL)
                if not task.done():
                    self.watch(asyncio.get_running_loop().time() - started)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        return task.result()

    async def _retrying(self, method: str, path: str, body: dict | None) -> dict:
        for attempt in range(1, self.patience.attempts + 1):
            try:
                return await self._once(method, path, body)
            except ServerError as error:
                if not error.again or attempt == self.patience.attempts:
                    raise
                pause = self.patience.first * 2 ** (attempt - 1) * random.uniform(0.75, 1.25)
                if error.after is not None:
                    if error.after > self.patience.longest:
                        raise
                    pause = error.after
                await asyncio.sleep(min(pause, self.patience.longest))
        raise AssertionError("the last attempt raises")

    async def _once(self, method: str, path: str, body: dict | None) -> dict:
        server = self.server
        timeout = aiohttp.ClientTimeout(total=server.timeout, connect=min(10.0, server.timeout))
        said = f'the language model server "{server.name}" ({server.address})'
        try:
            # No proxies, no .netrc, no cookies: nothing from the environment may add or redirect a secret.
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(resolver=resolver()),
                    timeout=timeout,
                    trust_env=False,
                    cookie_jar=aiohttp.DummyCookieJar(),
                ) as session,
                session.request(
                    method, server.address + path, json=body, headers=self._key.header, allow_redirects=False
                ) as reply,
            ):
                raw = await self._read(reply, said)
                return self._judge(reply, raw, said, body)
        except asyncio.TimeoutError:
            raise ServerError(
                f'{said} did not answer within {server.timeout:g} s: raise "timeout" in {servers_file()}, or use a '
                "smaller model"
            ) from None
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError):
            raise ServerError(
                f"{said} shows no valid certificate: correct its address in {servers_file()}, or its certificate"
            ) from None
        except aiohttp.ClientConnectorError:
            raise ServerError(
                f"nothing answers at {server.address}: start the server {server.name}, or correct its address in "
                f"{servers_file()}"
            ) from None
        except (aiohttp.InvalidURL, UnicodeError):
            raise ServerError(f"{said} has an address that is none: correct it in {servers_file()}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise ServerError(
                f"{said} dropped the connection ({type(error).__name__}): see its own log", again=True
            ) from None

    async def _read(self, reply: aiohttp.ClientResponse, said: str) -> str:
        raw = bytearray()
        async for chunk in reply.content.iter_chunked(65536):
            raw += chunk
            if len(raw) > MAX_BODY:
                raise ServerError(f"{said} sent more than {MAX_BODY // 1024} KiB, which is no layout: choose another")
        return self._key.hide(raw.decode("utf-8", "replace"))

    def _judge(self, reply: aiohttp.ClientResponse, raw: str, said: str, body: dict | None) -> dict:  # noqa: C901 (a branch per status)
        status = reply.status
        detail = self._key.hide(_detail(raw))  # again, for JSON may spell the key in escapes
        if 300 <= status < 400:
            target = self._key.hide(_host_of(reply.headers.get("Location", "")))
            raise ServerError(
                f"{said} redirects to {target[:100]}, which is not followed, for a key goes to its own address only: "
                f"write the final address into {servers_file()}"
            )
        if status == 429:
            after = _seconds(reply.headers.get("Retry-After"))
            wait = f" It asks to wait {after:g} s." if after is not None else ""
            raise ServerError(
                f"{said} says that there were too many requests or that a quota is used up (429).{wait} Wait, then "
                f"queue again. {detail}", again=True, after=after,
            )  # fmt: skip
        if status in (401, 403):  # the server's own words are left out: they tend to hold parts of the key
            need = self.server.credential or 'none is configured: add "credential" to its entry'
            raise ServerError(f"{said} refuses the key ({status}); key: {need}. Set it again and restart ComfyUI")
        if status >= 500 and body is not None and "response_format" in body and re.search("grammar|schema", raw):
            raise SchemaRefused(f"{said} takes no JSON schema ({status}). {detail}")
        if status >= 500:
            raise ServerError(f"{said} failed ({status}): see its own log. {detail}", again=True)
        if status in (400, 422) and body is not None:
            refused = next((n for n in _DROPPABLE if n in body and re.search(rf"\b{n}\b", raw)), None)
            if "response_format" in body and (refused is None or re.search("schema|response_format|grammar", raw)):
                raise SchemaRefused(f"{said} takes no JSON schema ({status}). {detail}")
            if refused is not None:
                raise ParameterRefused(f"{said} refuses {refused}", refused)
        if status >= 400:
            hint = (
                "the address usually ends in /v1, and the model must be one that the server has"
                if status == 404
                else "correct the model or the address"
            )
            raise ServerError(f"{said} refuses the request ({status}): {hint}, in {servers_file()}. {detail}")
        if raw.lstrip()[:1] == "<":
            raise ServerError(
                f"{said} sent a web page instead of JSON: the address usually ends in /v1; correct it in "
                f"{servers_file()}"
            )
        try:
            data = json.loads(raw)
        except (ValueError, RecursionError):
            raise ServerError(
                f"{said} sent broken JSON, beginning with {raw[:80]!r}: queue again, or see its log"
            ) from None
        if isinstance(data, dict) and data.get("error"):
            raise ServerError(f"{said} reports an error: {detail}")
        return data

    def _answer(self, data: Any) -> Answer:
        try:
            answer = answer_of(data["choices"][0])
        except (TypeError, KeyError, IndexError, ValueError):
            raise ServerError(
                f'"{self.server.name}" answered, but not in the form of the chat completions API: correct its address '
                f"in {servers_file()}"
            ) from None
        hide = self._key.hide  # again, for JSON may spell the key in escapes
        return Answer(hide(answer.text), tuple(map(hide, answer.notes)), hide(answer.why), answer.cut)


def _host_of(address: str) -> str:
    try:
        return urlsplit(address).netloc or "another page"
    except ValueError:
        return "an address that is none"


def _seconds(header: str | None) -> float | None:
    try:
        seconds = float(header) if header else math.nan
    except ValueError:
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _detail(raw: str) -> str:
    """The server's own words about an error, shortened."""
    try:
        error = json.loads(raw).get("error")
        text = error.get("message") if isinstance(error, dict) else error
    except (ValueError, AttributeError, RecursionError):
        text = "" if raw.lstrip()[:1] == "<" else raw
    return f"It says: {' '.join(str(text).split())[:300]}" if text else ""
