"""`python run.py server [ARGS]`: ComfyUI with this pack on http://127.0.0.1:8188, ready in the browser.

Models are read from $COMFYUI_MODELS (a ComfyUI models folder) if that is set, else from the cache folder's own.
Further arguments go to ComfyUI, for example `--port 8200 --listen`.
"""

from __future__ import annotations

import os
import subprocess
import sys

from ella_lmd.tools import comfy_server as harness
from ella_lmd.tools.host_setup import HOME, host_path


def main() -> int:
    base = harness.prepare(HOME / "server")
    link = base / "custom_nodes" / harness.PACK
    if link.resolve() != harness.ROOT:  # another clone used the folder last
        link.unlink()
        harness.prepare(base)
    command = [sys.executable, str(host_path() / "main.py"), "--base-directory", str(base)]
    command += ["--disable-api-nodes", *sys.argv[1:], *harness.cpu_arguments()]
    if models := os.environ.get("COMFYUI_MODELS"):
        command += ["--models-directory", models]
    print(f"[ella-lmd] files are in {base}; models go into {models or base / 'models'}", flush=True)
    try:
        return subprocess.call(command, cwd=base)
    except KeyboardInterrupt:
        return 0
