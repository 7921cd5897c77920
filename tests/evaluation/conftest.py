"""Fixtures of the evaluation's tests: scripted ComfyUI servers, each a process that can be killed."""

import contextlib
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # small_models.py
SCRIPT = Path(__file__).with_name("scripted_comfy.py")


class Comfy:
    def __init__(self, folder: Path, seconds: float) -> None:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.url, self.log, self.seconds = f"http://127.0.0.1:{self.port}", folder / f"{self.port}.log", seconds
        self.log.touch()
        self.start()

    def start(self) -> None:
        command = [sys.executable, str(SCRIPT), str(self.port), str(self.seconds), str(self.log)]
        self.process = subprocess.Popen(command)
        for _ in range(100):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.url}/queue", timeout=5).close()
                return
            time.sleep(0.1)
        raise RuntimeError("the scripted server did not start")

    @property
    def prompts(self) -> list[str]:
        return self.log.read_text().splitlines()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def comfy(tmp_path):
    """`comfy(seconds per image)` starts a server."""
    started = []

    def start(seconds: float = 0.0) -> Comfy:
        started.append(Comfy(tmp_path, seconds))
        return started[-1]

    yield start
    for server in started:
        server.kill()
