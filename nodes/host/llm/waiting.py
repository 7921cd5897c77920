"""Waiting for a server without holding up ComfyUI: work in threads that nobody has to join, and the user's interrupt."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import socket
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import comfy.model_management
from aiohttp import ThreadedResolver

T = TypeVar("T")


async def detached(work: Callable[..., T], *args: Any, **named: Any) -> T:
    """`work` in a thread of its own. When the caller is cancelled the thread goes on, but nothing waits for it: an event
    loop that ends joins the threads of its executor, and a name server that is silent holds those for minutes.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def run() -> None:
        result = error = None
        try:
            result = work(*args, **named)
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=contextvars.copy_context().run, args=(run,), daemon=True).start()
    return await future


async def in_thread(work: Callable[[threading.Event], T]) -> T:
    """`work(stopped)` in a thread; `stopped` is set as soon as the caller is cancelled or done."""
    stopped = threading.Event()
    try:
        return await detached(work, stopped)
    finally:
        stopped.set()


def raise_if_stopped(stopped: threading.Event | None = None) -> None:
    """Raises the host's interrupt when the user wants to stop, or nobody waits any more.

    The host's flag is only looked at. Its usual check takes it back, which would keep the interrupt from the sampler
    and from the other nodes that run at the same time.
    """
    if comfy.model_management.processing_interrupted() or (stopped is not None and stopped.is_set()):
        raise comfy.model_management.InterruptProcessingException()


class _Names:
    """The two look-ups that a resolver wants from an event loop."""

    async def getaddrinfo(self, *args, **named):
        return await detached(socket.getaddrinfo, *args, **named)

    async def getnameinfo(self, *args, **named):
        return await detached(socket.getnameinfo, *args, **named)


def resolver() -> ThreadedResolver:
    """Name resolution that can be given up at once."""
    return ThreadedResolver(loop=_Names())  # type: ignore[arg-type]
