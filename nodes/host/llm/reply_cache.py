"""Replies of language models on disk: one small file each, bounded, and worth nothing once damaged."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ....lmd.limits import MAX_KEPT_REPLY

log = logging.getLogger(__name__)
MOST = 1000


class ReplyCache:
    """`folder` holds at most `most` replies; the oldest go first. No method raises for what is on the disk."""

    def __init__(self, folder: Path, most: int = MOST) -> None:
        self.folder, self.most = folder, most

    @staticmethod
    def key(*parts: object) -> str:
        """The name of an entry: a hash over everything that the reply depends on."""
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()

    def get(self, key: str) -> str | None:
        """The reply, or None when there is none or its file is damaged."""
        path = self.folder / f"{key}.json"
        try:
            if path.stat().st_size > 4 * MAX_KEPT_REPLY:
                return None
            entry = json.loads(path.read_text(encoding="utf-8"))
            reply = entry["reply"]
            if entry["sha256"] != _digest(key, reply):
                return None
        except (OSError, ValueError, TypeError, KeyError, RecursionError, AttributeError):
            return None
        return reply

    def put(self, key: str, reply: str) -> None:
        """Keeps a reply, unless it is too long; a folder that can't be written is only logged."""
        if len(reply) > MAX_KEPT_REPLY:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self.folder, suffix=".tmp")
            with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
                json.dump({"reply": reply, "sha256": _digest(key, reply)}, file)
            os.replace(temporary, self.folder / f"{key}.json")
            self._bound()
        except (OSError, ValueError) as error:
            log.warning("a reply could not be kept in %s: %s", self.folder, type(error).__name__)

    def drop(self, keys: Sequence[str]) -> None:
        """Removes kept replies."""
        for key in keys:
            try:
                (self.folder / f"{key}.json").unlink(missing_ok=True)
            except OSError:
                log.warning("a reply could not be removed from %s", self.folder)

    def _bound(self) -> None:
        files = [(e.stat().st_mtime, e.path) for e in os.scandir(self.folder) if e.is_file()]
        for _, path in sorted(files)[: max(0, len(files) - self.most)]:
            os.unlink(path)


def _digest(key: str, reply: str) -> str:
    return hashlib.sha256(f"{key}\n{reply}".encode("utf-8", "replace")).hexdigest()
