"""Draws graphs on ComfyUI servers: each has one job outstanding, and a dead one's job goes to another."""

from __future__ import annotations

import http.client
import io
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

from PIL import Image

from ..run import Job
from ..spread import LaneDied
from .graphs import graph_of, shared

_GONE = (urllib.error.URLError, OSError, http.client.HTTPException, TimeoutError)


class ServerLane:
    """A ComfyUI server with this pack, at `url` such as http://127.0.0.1:8188.

    Args:
        workflows: gives a kept workflow that a row names.
        seconds: after which a job that is still running is given up.
        pause: the longest time in seconds between two looks at a running job.
    """

    def __init__(self, url: str, workflows: Callable[[str], dict], seconds: float = 3600, pause: float = 0.5) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"a server's address begins with http:// or https://, got {url!r}")
        self.name, self._url, self._workflows = url, url.rstrip("/"), workflows
        self._seconds, self._pause = seconds, pause
        self._about = ""

    def do(self, jobs: list[Job]) -> list[tuple[str, Image.Image, dict]]:
        return [(job.key, *self._draw(graph_of(job, self._workflows))) for job in jobs]

    def _draw(self, graph: dict) -> tuple[Image.Image, dict]:
        self._about = self._about or self._describe()
        start = time.monotonic()
        number = self._post("/prompt", {"prompt": graph})["prompt_id"]
        try:
            entry = self._wait(number, start)
        except LaneDied:
            raise
        except BaseException:
            self._cancel(number)
            raise
        image = self._fetch(graph, entry)
        took = {"seconds": round(_took(entry, time.monotonic() - start), 3), "peak_mib": None, "on": self._about}
        cached = next((d.get("nodes", ()) for e, d in entry["status"]["messages"] if e == "execution_cached"), ())
        return image, took | {"shared": shared(graph, cached)}

    def _wait(self, number: str, start: float) -> dict:
        looks = 0
        while time.monotonic() - start < self._seconds:
            entry = self._get(f"/history/{number}").get(number)
            if entry and entry.get("status", {}).get("completed") is not None:
                for event, data in entry["status"].get("messages", ()):
                    if event in ("execution_error", "execution_interrupted"):
                        raise RuntimeError(
                            f"{data.get('node_type')}: {str(data.get('exception_message', event)).strip()}"
                        )
                return entry
            looks += 1
            if looks % 8 == 0 and not self._knows(number):
                raise LaneDied("it was restarted and knows nothing of its job")
            time.sleep(min(self._pause, 0.02 * 1.5**looks))
        raise RuntimeError(f"the graph did not finish in {self._seconds:.0f} s")

    def _knows(self, number: str) -> bool:
        queue = self._get("/queue")
        listed = [*queue.get("queue_running", ()), *queue.get("queue_pending", ())]
        return any(number in entry for entry in listed) or number in self._get(f"/history/{number}")

    def _fetch(self, graph: dict, entry: dict) -> Image.Image:
        outputs = entry.get("outputs", {})
        ordered = sorted(outputs, key=lambda node: graph.get(node, {}).get("class_type") != "SaveImage")
        files = [file for node in ordered for file in outputs[node].get("images", [])]
        if not files:
            raise RuntimeError("the graph saved no image")
        query = urllib.parse.urlencode({name: files[0][name] for name in ("filename", "subfolder", "type")})
        with Image.open(io.BytesIO(self._read(f"/view?{query}"))) as image:
            return image.convert("RGB")

    def _describe(self) -> str:
        about = self._get("/system_stats")
        system, devices = about.get("system", {}), about.get("devices") or [{}]
        versions = f"torch {system.get('pytorch_version', '?')}, ComfyUI {system.get('comfyui_version', '?')}"
        return f"{versions}, {devices[0].get('name', '?')}"

    def _cancel(self, number: str) -> None:
        try:
            self._post("/queue", {"delete": [number]})
            self._post("/interrupt", {"prompt_id": number})
        except Exception:  # the job's own failure is what is told
            return

    def _get(self, path: str) -> Any:
        return json.loads(self._read(path) or b"{}")

    def _post(self, path: str, data: dict) -> Any:
        return json.loads(self._read(path, json.dumps(data).encode()) or b"{}")

    def _read(self, path: str, data: bytes | None = None) -> bytes:
        """The body of a reply. Raises LaneDied where the server can't be reached, ValueError where it refuses."""
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"} if data else {})
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return reply.read()
        except urllib.error.HTTPError as error:
            said = error.read(3000).decode(errors="replace")
            raise ValueError(f"the server refuses {path.split('?')[0]} ({error.code}): {said}") from None
        except _GONE as error:
            raise LaneDied(f"{type(error).__name__}: {error}") from None

    def revive(self) -> bool:
        try:
            self._get("/queue")
        except (LaneDied, ValueError):
            return False
        return True

    def close(self) -> None:
        pass


def _took(entry: dict, waited: float) -> float:
    """Seconds that the server says the graph ran, else how long it was waited for."""
    times = {event: data.get("timestamp") for event, data in entry["status"].get("messages", ())}
    start, end = times.get("execution_start"), times.get("execution_success")
    return (end - start) / 1000 if start and end else waited
