"""A real ComfyUI server with this pack in it, in a scratch folder, for demos and live tests."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from ella_lmd.tools.host_setup import host_path

ROOT = Path(__file__).resolve().parent.parent
PACK = "ella-lmd"
START_SECONDS = 180


def cpu_arguments() -> list[str]:
    """`--cpu` where torch finds no accelerator."""
    import torch

    accelerated = torch.cuda.is_available() or torch.backends.mps.is_available()
    return [] if accelerated else ["--cpu"]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def prepare(base: Path, models: dict[str, Path] | None = None) -> Path:
    """Lay out a ComfyUI base folder: this checkout as a custom node, and `{"checkpoints/name": file}` as links."""
    for name in ("custom_nodes", "input", "output", "temp", "user", "models"):
        (base / name).mkdir(parents=True, exist_ok=True)
    link = base / "custom_nodes" / PACK
    if not link.exists():
        link.symlink_to(ROOT, target_is_directory=True)
    for name, file in (models or {}).items():
        target = base / "models" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            target.symlink_to(file)
    return base


class Server:
    """The HTTP side of a running server."""

    def __init__(self, port: int, base: Path, log: Path):
        self.url, self.base, self.log = f"http://127.0.0.1:{port}", base, log

    def get(self, path: str) -> dict:
        with urllib.request.urlopen(self.url + path, timeout=60) as reply:
            return json.load(reply)

    def post(self, path: str, data: dict) -> tuple[int, dict]:
        """(HTTP status, JSON body, {} for none); an error status is returned, not raised."""
        request = urllib.request.Request(
            self.url + path, json.dumps(data).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return reply.status, json.loads(reply.read() or "{}")
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def run(self, prompt: dict, seconds: float = 600, client: str = "") -> dict:
        """Queue an API-format graph, wait, and return its history entry. Raises RuntimeError on rejection or failure."""
        status, reply = self.post("/prompt", {"prompt": prompt, "client_id": client})
        if status != 200:
            raise RuntimeError(f"the server refused the graph ({status}): {json.dumps(reply, indent=1)[:4000]}")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            entry = self.get(f"/history/{reply['prompt_id']}").get(reply["prompt_id"])
            if entry and entry.get("status", {}).get("completed") is not None:
                failed = [
                    m for m in entry["status"]["messages"] if m[0] in ("execution_error", "execution_interrupted")
                ]
                if failed:
                    detail = failed[0][1]
                    raise RuntimeError(f"{detail.get('node_type')}: {detail.get('exception_message', failed[0][0])}")
                return entry
            time.sleep(0.25)
        raise RuntimeError(f"the graph did not finish in {seconds:.0f} s")

    def files(self, entry: dict) -> list[Path]:
        """The image files that a finished graph saved or previewed."""
        found = []
        for output in entry["outputs"].values():
            for image in output.get("images", []):
                folder = {"output": "output", "temp": "temp", "input": "input"}[image["type"]]
                found.append(self.base / folder / image["subfolder"] / image["filename"])
        return found


@contextlib.contextmanager
def server(base: Path, *arguments: str, cpu: bool = False) -> Iterator[Server]:
    """Start the server in `base` and stop it at the end. Raises RuntimeError with the log's end if it does not start."""
    port, log = free_port(), base / "server.log"
    command = [sys.executable, str(host_path() / "main.py"), "--port", str(port), "--base-directory", str(base)]
    command += ["--database-url", "sqlite:///:memory:", "--disable-api-nodes", *arguments]
    command += ["--cpu"] if cpu else cpu_arguments()
    if root := os.environ.get("ELLA_LMD_FRONT_END"):  # another one than ComfyUI's own requirement
        command += ["--front-end-root", root]
    env = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0", **os.environ}
    with open(log, "w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=base, env=env)
    running = Server(port, base, log)
    try:
        end = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError):
                running.get("/queue")
                break
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"ComfyUI did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.2)
        yield running
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
