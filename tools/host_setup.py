"""Makes ComfyUI's modules importable in this process. Nothing else in the project touches `sys.path` for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HOME = Path(os.environ.get("ELLA_LMD_HOME") or Path.home() / ".cache" / "ella-lmd")


def host_path() -> Path:
    """The ComfyUI source tree that `run.py` unpacked, or the one that COMFYUI_PATH names."""
    return Path(os.environ.get("COMFYUI_PATH") or HOME / "ComfyUI-0.30.0")


def prepare_host(*arguments: str, device: str = "cpu", threads: int | None = None) -> None:
    """Call it before any module of the host is imported.

    `arguments` are ComfyUI's own (`--reserve-vram 4`), `device` is "cpu" or "cuda", `threads` torch's processor threads.
    """
    host = str(host_path())
    if host not in sys.path:
        sys.path.insert(0, host)
    sys.argv = [sys.argv[0], *(["--cpu"] if device == "cpu" else []), *arguments]
    import comfy.options

    comfy.options.enable_args_parsing()
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
