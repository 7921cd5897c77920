"""Makes the checkout importable as the package `ella_lmd`, whatever its folder is called.

Its `__init__` is not run. The checkout itself must never be on `sys.path`: its `nodes/` would hide the `nodes.py`
of ComfyUI.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = "ella_lmd"


def register() -> None:
    """Register a bare package module whose `__path__` is the checkout (idempotent)."""
    if NAME not in sys.modules:
        module = types.ModuleType(NAME)
        module.__path__ = [str(ROOT)]
        sys.modules[NAME] = module
