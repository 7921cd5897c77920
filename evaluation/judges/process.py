"""A judge in a process of its own, for models whose libraries live in another environment (mPLUG's, say).

The protocol is a JSON object a line. The process first writes {"ready": true, "name": NAME, "kinds": ["ask"]}. Then
for every line {"id": N, "kind": "ask", "image": PATH, "about": {"question": TEXT}} on its standard input it writes
{"id": N, "answer": ANSWER} or {"id": N, "error": TEXT}. Other lines are ignored, its standard error is passed through.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import tempfile
import threading
from collections import deque
from pathlib import Path
from typing import Any

from PIL import Image

from ..benchmarks.base import Question
from ..spread import LaneDied


class ProcessJudge:
    """A judge in its own process, spoken to in lines of JSON, for models that need another environment."""

    def __init__(self, command: str, seconds: float = 600) -> None:
        self.command, self.seconds, self._id = command, seconds, 0
        self._folder = tempfile.TemporaryDirectory(prefix="judge-")
        self._shown: tuple[Image.Image | None, Path] = (None, Path(self._folder.name) / "image.png")
        self._process = subprocess.Popen(
            shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        self._lines: deque[str | None] = deque()
        self._arrived = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()
        hello = self._wait(lambda record: record.get("ready"))
        self.name = str(hello.get("name") or "process")
        self.kinds = frozenset(hello.get("kinds") or ("ask",))

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._put(line)
        self._put(None)

    def _put(self, line: str | None) -> None:
        with self._arrived:
            self._lines.append(line)
            self._arrived.notify_all()

    def _wait(self, fits) -> dict:
        """The next record that fits. Raises LaneDied when the process ends or says nothing for `seconds`."""
        while True:
            with self._arrived:
                if not self._lines and not self._arrived.wait(self.seconds):
                    raise LaneDied(f"the judge {self.command!r} has said nothing for {self.seconds:.0f} s")
                line = self._lines.popleft()
            if line is None:
                self._put(None)
                raise LaneDied(f"the judge {self.command!r} has ended")
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and fits(record):
                return record

    def answer(self, image: Image.Image, question: Question) -> Any:
        if self._shown[0] is not image:
            image.convert("RGB").save(self._shown[1])
            self._shown = (image, self._shown[1])
        self._id += 1
        about = json.loads(question.about)
        asked = {"id": self._id, "kind": question.kind, "image": str(self._shown[1]), "about": about}
        try:
            assert self._process.stdin
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise LaneDied(f"the judge {self.command!r} has ended: {error}") from None
        said = self._wait(lambda record: record.get("id") == self._id)
        if "error" in said or "answer" not in said:
            raise ValueError(f"{self.name}: {said.get('error', 'no answer')}")
        return said["answer"]

    def close(self) -> None:
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._folder.cleanup()
