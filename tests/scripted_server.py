"""An OpenAI-compatible server on loopback that does what a test tells it, and remembers every request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading

from aiohttp import web


class ScriptedServer:
    """`script` holds what the next chat requests get, the last entry for ever: a text, a dict with status, headers and
    body, or a function of the request. Use as a context manager.
    """

    def __init__(self, *script, models=("tiny",)) -> None:
        self.script, self.models = list(script), models
        self.requests: list[dict] = []
        self.closed = threading.Event()  # a client went away before its answer

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        ready = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self.thread.start()
        assert ready.wait(10)
        self.address = f"http://127.0.0.1:{self.port}/v1"
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    @property
    def chats(self) -> list[dict]:
        return [r for r in self.requests if r["method"] == "POST"]

    def _run(self, ready) -> None:
        asyncio.set_event_loop(self.loop)
        app = web.Application(client_max_size=10**8)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, handler_cancellation=True)
        self.loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self.loop.run_until_complete(site.start())
        self.port = site._server.sockets[0].getsockname()[1]
        ready.set()
        self.loop.run_forever()
        self.loop.run_until_complete(runner.cleanup())
        self.loop.close()

    async def _answer(self, request: web.Request):
        body = await request.text()
        self.requests.append(
            {
                "method": request.method,
                "path": request.path,
                "headers": dict(request.headers),
                "body": json.loads(body) if body else None,
            }
        )
        if request.method == "GET":
            return web.json_response({"data": [{"id": m} for m in self.models]})
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        try:
            return await self._do(step, request)
        except asyncio.CancelledError:
            self.closed.set()
            raise

    async def _do(self, step, request):
        if callable(step):
            step = step(self.requests[-1])
        if asyncio.iscoroutine(step):
            step = await step
        if step == "drop":
            request.transport.close()
            raise asyncio.CancelledError
        if isinstance(step, dict):
            with contextlib.suppress(KeyError):
                await asyncio.sleep(step["seconds"])
            return web.Response(
                status=step.get("status", 200), headers=step.get("headers"), text=step.get("body", ""),
                content_type=step.get("type", "application/json"),
            )  # fmt: skip
        return web.json_response({"choices": [{"message": {"role": "assistant", "content": step}}]})
