"""JSON Lines that a killed program can't ruin: a record is one appended line, and a damaged line costs that line alone."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path


def canonical(value: object) -> str:
    """One text for equal values, whatever the order of their keys."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def digest(value: object) -> str:
    """16 hexadecimal digits of a JSON value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


class Lines:
    """The records of a file, in order; `damaged` counts the lines that could not be read."""

    def __init__(self, path: Path) -> None:
        self.path, self.damaged = path, 0
        self.records: list[dict] = []
        raw = path.read_bytes() if path.exists() else b""
        for line in raw.split(b"\n"):
            if line.strip():
                self._read(line)
        self._cut = bool(raw) and not raw.endswith(b"\n")

    def _read(self, line: bytes) -> None:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # a cut line, or bytes that are no text
            record = None
        if isinstance(record, dict):
            self.records.append(record)
        else:
            self.damaged += 1

    def add(self, record: dict) -> None:
        """Append a record; it is on the disk when this returns."""
        text = ("\n" if self._cut else "") + json.dumps(record, ensure_ascii=False) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        self._cut = False
        self.records.append(record)

    def extend(self, records: list[dict]) -> None:
        """Append many records that can be written again if they are lost."""
        if records:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(
                    (
                        ("\n" if self._cut else "") + "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
                    ).encode()
                )
            self._cut = False
            self.records += records
