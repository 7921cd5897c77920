"""What a layout node shows in itself: the picture below its widgets and the planner's notes as text."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from comfy_api.latest import io, ui

from ...lmd.convert.user_edits import Edited, fingerprint
from ...lmd.layout import Layout

REPLACED = "A new layout has arrived: it is used in place of the edits, which were made for the former one."

log = logging.getLogger(__name__)


def text_view(cls: type[io.ComfyNode], notes: Sequence[str]) -> dict | None:
    """The UI output of a node that has nothing but notes to show; they go to the log too. None without notes."""
    text = "\n".join(notes)
    if not text:
        return None
    log.info("%s: %s", cls.__name__, "; ".join(notes))
    show_text(cls, text)
    return {"text": (text,)}


def view(cls: type[io.ComfyNode], picture: torch.Tensor, notes: Sequence[str]) -> dict:
    """The node's UI output for a picture `[1, H, W, 3]` and notes; the notes also go to the log and into the node."""
    return ui.PreviewImage(picture, cls=cls).as_dict() | (text_view(cls, notes) or {"text": ("",)})


def editor_view(cls: type[io.ComfyNode], upstream: Layout | None, edited: Edited, image: torch.Tensor | None) -> dict:
    """What the layout editor's canvas shows: the layout that arrived with its fingerprint, and the picture behind it.

    `image` is an IMAGE batch `[B, H, W, 3]` or None; its first picture is kept as a preview is. The keys are the canvas's
    own, so that the host draws no second picture below it.
    """
    told = REPLACED if edited.replaced else ""
    if told:
        log.info("%s: %s", cls.__name__, told)
    arrived = {
        "layout": upstream.to_json() if upstream is not None else None,
        "fingerprint": fingerprint(upstream),
        "replaced": edited.replaced,
        "told": told,
    }
    behind = ui.PreviewImage(image[:1], cls=cls).as_dict()["images"] if image is not None else []
    return {"lmd_upstream": [arrived], "lmd_backdrop": list(behind)}


def show_text(cls: type[io.ComfyNode], text: str) -> None:
    """The host's own text line in a node; there is no server when a node is called from a script."""
    from server import PromptServer

    server = getattr(PromptServer, "instance", None)
    node_id = cls.hidden.unique_id if cls.hidden is not None else None
    if server is not None and node_id is not None:
        server.send_progress_text(text, node_id)
