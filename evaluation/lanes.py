"""Lanes of this machine: a worker in this process, and workers in processes of their own that may be killed.

A worker is any object with `do(payload)` and perhaps `close()`. It is named by a `Spec`, so that every process, and
every machine, can build its own.
"""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .spread import LaneDied

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Spec:
    """`place` is "module:Class" within the pack, such as "evaluation.images.here:Executor"."""

    place: str
    arguments: dict = field(default_factory=dict)

    def build(self) -> Any:
        """Imports the worker and creates it."""
        module, _, name = self.place.partition(":")
        package = __name__.split(".")[0]
        return getattr(importlib.import_module(f"{package}.{module}"), name)(**self.arguments)


class Here:
    """A lane in this process."""

    def __init__(self, spec: Spec) -> None:
        self.name, self._spec, self._worker = "this process", spec, None

    def do(self, job: Any) -> Any:
        if self._worker is None:
            self._worker = self._spec.build()
        return self._worker.do(job)

    def revive(self) -> bool:
        self.close()
        return True

    def close(self) -> None:
        if hasattr(self._worker, "close"):
            self._worker.close()
        self._worker = None


class Process:
    """A lane in a process of its own: if it dies, its job is done again elsewhere and a new one is started.

    Messages are pickles, through its standard input and output; both ends are this program.
    """

    def __init__(self, number: int, spec: Spec, environment: dict[str, str] | None = None) -> None:
        self.name, self._spec = f"process {number}", spec
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen | None = None

    @property
    def pid(self) -> int | None:
        """The worker process's id; None while it does not run."""
        return self._process.pid if self._process else None

    def _start(self) -> subprocess.Popen:
        command = [sys.executable, str(ROOT / "tools" / "launch.py"), str(ROOT / "evaluation" / "worker.py")]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self._environment
        )  # standard error stays this one's
        self._process = process
        self._send(self._spec)
        return process

    def _send(self, value: Any) -> None:
        assert self._process and self._process.stdin
        pickle.dump(value, self._process.stdin)
        self._process.stdin.flush()

    def do(self, job: Any) -> Any:
        try:
            process = self._process or self._start()
            self._send(job)
            assert process.stdout
            good, value = pickle.load(process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            raise LaneDied(f"its process ended ({type(error).__name__})") from None
        if good:
            return value
        kind, told = value
        raise (LaneDied if kind == "LaneDied" else RuntimeError)(told)

    def revive(self) -> bool:
        self.close()
        return True

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin:
            process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
