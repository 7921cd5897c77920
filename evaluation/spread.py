"""Shares work among lanes (processes, servers, actors): one outstanding job each, nothing lost, nothing twice."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

TRIES = 3
"""How often a job is tried, on whatever lanes, before it is given up with its reason."""


class LaneDied(Exception):
    """The lane, not the job, is at fault: a server that is gone, a process that was killed."""


class Lane(Protocol):
    """Something that does one job at a time. `do` raises LaneDied, or any other exception when the job itself fails."""

    name: str

    def do(self, job: Any) -> Any:
        """Does one job and returns its result; LaneDied if the worker is gone."""

    def revive(self) -> bool:
        """Try to bring the lane back after it died."""
        ...

    def close(self) -> None:
        """Ends the worker and frees what it holds."""


@dataclass
class _State:
    waiting: deque
    done: Callable[[Any, Any, str], None]
    failed: Callable[[Any, str], None]
    busy: int = 0
    dead: dict[str, str] = field(default_factory=dict)
    tries: dict[int, int] = field(default_factory=dict)
    error: BaseException | None = None
    change: threading.Condition = field(default_factory=threading.Condition)


def spread(
    jobs: Sequence[Any],
    lanes: Sequence[Lane],
    done: Callable[[Any, Any, str], None],
    failed: Callable[[Any, str], None],
    patience: float = 60.0,
    pause: float = 2.0,
) -> None:
    """Do every job once.

    Args:
        done: called with a job, its result and the lane's name, one call at a time.
        failed: called with a job that failed TRIES times, and why.
        patience: seconds for which all lanes may be dead before RuntimeError is raised; what was done is kept.
        pause: seconds between attempts to bring a dead lane back.
    """
    state = _State(deque(jobs), done, failed)
    threads = [threading.Thread(target=_serve, args=(state, lane, pause), daemon=True) for lane in lanes]
    for thread in threads:
        thread.start()
    try:
        _watch(state, threads, len(lanes), patience)
    finally:
        with state.change:
            state.waiting.clear()
            state.change.notify_all()
        for lane in lanes:
            lane.close()
    if state.error:
        raise state.error


def _watch(state: _State, threads: list[threading.Thread], lanes: int, patience: float) -> None:
    since = None
    while any(thread.is_alive() for thread in threads):
        with state.change:
            state.change.wait(0.2)
            if state.error:
                return
            all_dead = len(state.dead) == lanes and bool(state.waiting)
        since = (since or time.monotonic()) if all_dead else None
        if since and time.monotonic() - since > patience:
            told = "; ".join(f"{name}: {why}" for name, why in state.dead.items())
            raise RuntimeError(f"nothing is left to work with ({told}); start it again and repeat the command to go on")


def _serve(state: _State, lane: Lane, pause: float) -> None:
    while (job := _next(state)) is not None:
        try:
            result = lane.do(job)
        except LaneDied as died:
            _give_back(state, job, f"{lane.name} died: {died}")
            if not _revived(state, lane, str(died), pause):
                return
        except Exception as error:
            _give_back(state, job, f"{lane.name}: {type(error).__name__}: {error}")
        else:
            _finish(state, job, result, lane.name)


def _next(state: _State) -> Any:
    """The next job, or None when there is and will be none."""
    with state.change:
        while not state.waiting and state.busy and not state.error:
            state.change.wait(0.5)
        if not state.waiting or state.error:
            state.change.notify_all()
            return None
        state.busy += 1
        return state.waiting.popleft()


def _finish(state: _State, job: Any, result: Any, name: str) -> None:
    with state.change:
        try:
            state.done(job, result, name)
        except BaseException as error:  # a full disk ends the run, it is no fault of the job
            state.error = error
        state.busy -= 1
        state.change.notify_all()


def _give_back(state: _State, job: Any, why: str) -> None:
    with state.change:
        state.busy -= 1
        tries = state.tries[id(job)] = state.tries.get(id(job), 0) + 1
        if tries < TRIES:
            state.waiting.append(job)
        else:
            try:
                state.failed(job, why)
            except BaseException as error:
                state.error = error
        state.change.notify_all()


def _revived(state: _State, lane: Lane, why: str, pause: float) -> bool:
    """Wait until the lane is back; False when the work ended meanwhile."""
    with state.change:
        state.dead[lane.name] = why
    while True:
        with state.change:
            if not (state.waiting or state.busy) or state.error:
                return False
        if lane.revive():
            with state.change:
                del state.dead[lane.name]
            return True
        with state.change:
            state.change.wait(pause)
