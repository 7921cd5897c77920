"""A real browser's page for the live tests, through driver.mjs."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path

DRIVER = Path(__file__).with_name("driver.mjs")


class Page:
    """One page in one browser; `close` ends both. Coordinates are the window's, in CSS pixels."""

    def __init__(self, modules: Path, browser: Path, seconds: float = 300):
        self.seconds, self._count = seconds, 0
        self._process = subprocess.Popen(
            ["node", str(DRIVER), str(modules), str(browser)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def _ask(self, act: str, **rest):
        self._count += 1
        self._process.stdin.write(json.dumps({"id": self._count, "do": act, **rest}) + "\n")
        self._process.stdin.flush()
        guard = threading.Timer(self.seconds, self._process.kill)
        guard.start()
        try:
            line = self._process.stdout.readline()
        finally:
            guard.cancel()
        if not line:
            raise RuntimeError(
                f"the browser ended or did not answer within {self.seconds:.0f} s: {act} {str(rest)[:200]}"
            )
        reply = json.loads(line)
        if "error" in reply:
            raise RuntimeError(f"{act}: {reply['error']}")
        return reply["value"]

    def open(self, url: str, width: int = 1600, height: int = 1100, scale: float = 1, touch: bool = False) -> None:
        """A fresh context, so nothing of an earlier page is left; `scale` is the device pixel ratio."""
        self._ask("open", url=url, width=width, height=height, scale=scale, touch=touch)

    def run(self, code: str, argument=None):
        """The value that the body `code` of an async function of `value` returns in the page."""
        return self._ask("run", code=code, argument=argument)

    def wait(self, code: str, argument=None, seconds: float = 20):
        """As `run`, again and again until the value is true."""
        return self._ask("wait", code=code, argument=argument, seconds=seconds)

    def click(self, x: float, y: float, count: int = 1) -> None:
        self._ask("input", steps=[["mouse", "click", x, y, {"clickCount": count, "delay": 20}]])

    def drag(self, start: tuple, end: tuple, hold: str = "", button: str = "left") -> None:
        """Press at `start`, move to `end` in several steps, release; `hold` is a key that is down meanwhile."""
        press, release = ["mouse", "down", {"button": button}], ["mouse", "up", {"button": button}]
        steps = [["mouse", "move", *start], press, ["mouse", "move", *end, {"steps": 8}], release]
        if hold:
            steps = [steps[0], ["keyboard", "down", hold], *steps[1:], ["keyboard", "up", hold]]
        self._ask("input", steps=steps)

    def move(self, x: float, y: float) -> None:
        self._ask("input", steps=[["mouse", "move", x, y]])

    def wheel(self, dx: float, dy: float) -> None:
        self._ask("input", steps=[["mouse", "wheel", dx, dy]])

    def press(self, *keys: str) -> None:
        """Keys or combinations, such as "Delete" or "Control+Shift+Z"."""
        self._ask("input", steps=[["keyboard", "press", key] for key in keys])

    def type(self, text: str) -> None:
        self._ask("input", steps=[["keyboard", "type", text]])

    def touch(self, start: tuple, end: tuple) -> None:
        """One finger from `start` to `end`."""
        points = [[a + (b - a) * i / 4 for a, b in zip(start, end)] for i in range(5)]
        self._ask("touch", points=points)

    def screenshot(self, path: Path, clip: dict | None = None) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._ask("screenshot", path=str(path), clip=clip)
        return path

    def told(self) -> list[str]:
        """Errors and warnings of the page since it was opened."""
        return self._ask("told")

    def close(self) -> None:
        try:
            self._ask("close")
            self._process.wait(20)
        except (RuntimeError, OSError, subprocess.TimeoutExpired):
            self._process.kill()
        self._process.stdin.close()
        self._process.stdout.close()
