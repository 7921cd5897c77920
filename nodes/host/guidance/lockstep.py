"""Code written for one thing at a time, run for several in lockstep, so that their expensive calls can be shared.

Every lane is an ordinary function in a thread of its own, but only one of them runs at any time: it goes on until it
asks for something, and once all lanes wait, the server answers some or all of them together. So a sampler that knows
one latent only, with its own noise and its own history, gets its model calls from a batch without knowing.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

import torch

Ask = Callable[[Any], Any]
Lane = Callable[[Ask], Any]
# {lane: its request} of all lanes that wait -> {lane: its answer} for at least one of them.
Serve = Callable[[dict[int, Any]], dict[int, Any]]


class _Cancelled(BaseException):
    """Raised where a lane waits, when another one or the server has failed: it unwinds and is gone."""


def run_lanes(lanes: Sequence[Lane], serve: Serve) -> list[Any]:
    """Run all lanes to their end and return their results in order.

    `serve` runs in the caller's thread, the lanes in threads that share its context and gradient mode. An exception
    from a lane or from `serve`, interrupts included, ends all lanes and is raised here.
    """
    if len(lanes) == 1:
        return [lanes[0](lambda request: serve({0: request})[0])]
    running = [_Thread(lane) for lane in lanes]
    results: list[Any] = [None] * len(running)
    waiting: dict[int, Any] = {}

    def go_on(i: int, answer: Any) -> None:
        waiting.pop(i, None)
        state, value = running[i].go_on(answer)
        if state == "failed":
            raise value
        if state == "asks":
            waiting[i] = value
        else:
            results[i] = value

    try:
        for i in range(len(running)):
            go_on(i, None)
        while waiting:
            for i, answer in serve(dict(waiting)).items():
                go_on(i, answer)
        return results
    finally:
        for i in waiting:
            running[i].cancel()


class _Thread:
    def __init__(self, lane: Lane):
        self._inbox: SimpleQueue = SimpleQueue()
        self._outbox: SimpleQueue = SimpleQueue()
        modes = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run, lane, *modes), daemon=True)
        self._started = False

    def go_on(self, answer: Any) -> tuple[str, Any]:
        if self._started:
            self._inbox.put((False, answer))
        else:
            self._started = True
            self._thread.start()
        return self._outbox.get()

    def cancel(self) -> None:
        self._inbox.put((True, None))
        self._thread.join()

    def _run(self, lane: Lane, inference: bool, grad: bool) -> None:
        try:
            with torch.inference_mode(inference), torch.set_grad_enabled(grad):
                outcome = "done", lane(self._ask)
        except BaseException as error:  # handed to the caller, who raises it
            outcome = "failed", error
        self._outbox.put(outcome)

    def _ask(self, request: Any) -> Any:
        self._outbox.put(("asks", request))
        cancelled, answer = self._inbox.get()
        if cancelled:
            raise _Cancelled
        return answer
