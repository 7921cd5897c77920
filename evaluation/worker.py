"""The other end of `lanes.Process`: builds its worker from the first message, then answers one message at a time."""

from __future__ import annotations

import os
import pickle
import sys
from typing import Any


def main() -> int:
    """Builds the worker that comes in first and runs the jobs that follow, until stdin is closed."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not stand between the messages
    try:
        spec = pickle.load(sys.stdin.buffer)
    except EOFError:
        return 0
    worker: Any = None
    while True:
        try:
            job = pickle.load(sys.stdin.buffer)
        except EOFError:
            break
        try:
            worker = worker or spec.build()
            said = True, worker.do(job)
        except Exception as error:
            said = False, (type(error).__name__, f"{type(error).__name__}: {error}")
        pickle.dump(said, out)
        out.flush()
    if hasattr(worker, "close"):
        worker.close()
    return 0
