"""Any OpenAI-compatible server with a vision model as a judge. Its key is read from an environment variable."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import time
import urllib.error
import urllib.request

from PIL import Image

from ..benchmarks.base import ASK, COLOUR, PROBABILITY, Question
from ..spread import LaneDied
from .colours import crop
from .vlm import YES_OR_NO, chosen, colour_text, plain

KEY = "EVALUATION_API_KEY"
MOST = 4 * 1024 * 1024
BUSY = (429, 502, 503, 504)
WAITS = (1.0, 4.0, 15.0)
"""Seconds between tries of a server that is busy or can't be reached."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args):
        return None  # a redirect must not carry the key elsewhere


class VisionServer:
    """`address` such as http://127.0.0.1:11434/v1 and the `model` to ask."""

    kinds = frozenset((ASK, PROBABILITY, COLOUR))

    def __init__(self, address: str, model: str, seconds: float = 300) -> None:
        if not address.startswith(("http://", "https://")):
            raise ValueError(f"a vision server's address begins with http:// or https://, got {address!r}")
        self.address, self.model, self.seconds = address.rstrip("/"), model, seconds
        self.name = f"server {model}"
        self._opener = urllib.request.build_opener(_NoRedirect)

    def answer(self, image: Image.Image, question: Question) -> str | float:
        if question.kind == COLOUR:
            said = self._chat(crop(image, question["box"]), colour_text(question))
            return chosen(_content(said), question["colours"])
        if question.kind == ASK:
            return plain(_content(self._chat(image, YES_OR_NO.format(question=question["question"]))))
        said = self._chat(image, question["question"], max_tokens=1, logprobs=True, top_logprobs=20)
        return _probability(said, question["answers"], self.name)

    def _chat(self, image: Image.Image, text: str, **more: object) -> dict:
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "PNG")
        url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
        message = [{"role": "user", "content": content}]
        body = {"model": self.model, "messages": message, "temperature": 0, "max_tokens": 8} | more
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY, ""):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(f"{self.address}/chat/completions", json.dumps(body).encode(), headers)
        for wait in WAITS:
            try:
                return self._once(request, key)
            except LaneDied:
                time.sleep(wait)
        return self._once(request, key)

    def _once(self, request: urllib.request.Request, key: str) -> dict:
        """One try. Raises LaneDied where another may help, ValueError where it won't."""
        try:
            with self._opener.open(request, timeout=self.seconds) as reply:
                return json.loads(reply.read(MOST))
        except urllib.error.HTTPError as error:
            said = error.read(300).decode(errors="replace")
            kind = LaneDied if error.code in BUSY else ValueError
            raise kind(f"{self.name} answers {error.code}: {said.replace(key, '***') if key else said}") from None
        except json.JSONDecodeError:
            raise ValueError(f"{self.name} sends something that is not JSON") from None
        except OSError as error:
            raise LaneDied(f"{self.name} can't be reached ({type(error).__name__})") from None

    def close(self) -> None:
        pass


def _content(said: dict) -> str:
    try:
        return str(said["choices"][0]["message"]["content"] or "")
    except (KeyError, IndexError, TypeError):
        raise ValueError("the vision server's reply holds no answer") from None


def _probability(said: dict, answers: list[str], name: str) -> float:
    try:
        top = said["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        found = {entry["token"]: math.exp(entry["logprob"]) for entry in top}
    except (KeyError, IndexError, TypeError):
        raise ValueError(
            f"{name} gives no logprobs, which a soft score needs: use another server, or a model here"
        ) from None
    return min(1.0, sum(found.get(answer, 0.0) for answer in dict.fromkeys(answers)))
