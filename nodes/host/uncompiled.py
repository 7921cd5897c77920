"""Passes of a compiled model whose attention is read: they run as plain Python."""

from __future__ import annotations

import contextlib
import sys

import torch


def uncompiled() -> contextlib.AbstractContextManager:
    """Everything that torch.compile has made runs as it was written, whatever node compiled it and which part.

    Compiled code keeps the patches that it saw when it was compiled, so it would go on filling the maps of an earlier
    run. Where nothing is compiled this loads nothing and costs nothing.
    """
    if "torch._dynamo.eval_frame" not in sys.modules:
        return contextlib.nullcontext()
    return torch.compiler.set_stance("force_eager")
