"""A user's own edits of a layout, kept as text beside the layout that they were made from.

The text is JSON: `{"upstream": fingerprint, "layout": {...}}`, where "layout" is `Layout`'s wire form and "upstream" the
fingerprint of the layout that was edited ("" for one drawn from scratch). While the layout that arrives still has that
fingerprint, the edits stand for it; a new one replaces them. Without "upstream", or as a layout's bare wire form, the
edits always win: that is what a program sends that knows the boxes it wants.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace

from ..layout import Layout, json_in
from ..limits import readable
from ..object_settings import rejoined

_NUMBER = (int, float)


@dataclass(frozen=True)
class Edits:
    """An edited layout, and the fingerprint of the one it was made from; None stands for any."""

    layout: Layout
    upstream: str | None = None


@dataclass(frozen=True)
class Edited:
    """What the editor gives out, and whether edits were set aside because a new layout had arrived."""

    layout: Layout
    replaced: bool = False


def fingerprint(layout: Layout | None) -> str:
    """16 hexadecimal digits that are equal for equal wire forms; "" without a layout."""
    if layout is None:
        return ""
    text = json.dumps(layout.to_json(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read(text: str) -> Edits | None:
    """The edits in `text`, None for an empty one. Raises ValueError naming what is wrong and where."""
    if not text.strip():
        return None
    data = json_in(text)
    if not isinstance(data, dict):
        raise ValueError(f'expected a JSON object with "layout", got {_shown(data)}')
    bare = "layout" not in data
    layout = data if bare else data["layout"]
    if not isinstance(layout, dict) or not isinstance(layout.get("objects"), list):
        raise ValueError(f'"layout" must be an object with "canvas" and a list "objects", got {_shown(layout)}')
    upstream = None if bare else data.get("upstream")
    if not (upstream is None or isinstance(upstream, str)):
        raise ValueError(f'"upstream" must be the text that the editor wrote there, got {_shown(upstream)}')
    for i, item in enumerate(layout["objects"]):
        box = item.get("box") if isinstance(item, dict) else None
        if not (isinstance(box, list) and len(box) == 4 and all(isinstance(v, _NUMBER) for v in box)):
            raise ValueError(
                f'object {i} must be {{"phrase": text, "box": [x, y, w, h] in fractions}}, got {_shown(item)}'
            )
    return Edits(Layout.from_json(layout), upstream)


def apply(upstream: Layout | None, text: str, default: tuple[int, int] = (512, 512)) -> Edited:
    """The layout to go on with. `text` holds the edits, empty for none; `default` is an unedited canvas's size.

    Without edits `upstream` itself is returned, and what the edits leave alone keeps its exact numbers. Raises
    ValueError for edits that can't be read.
    """
    edits = read(text)
    if edits is None:
        return Edited(upstream if upstream is not None else Layout(*default))
    if upstream is None:
        return Edited(edits.layout)
    if edits.upstream is not None and edits.upstream != fingerprint(upstream):
        return Edited(upstream, replaced=True)
    return Edited(_exact(edits.layout, upstream))


def _exact(edited: Layout, upstream: Layout) -> Layout:
    """The wire form rounds: objects that differ by nothing else are `upstream`'s own; it also holds no tensors."""
    if edited == upstream or fingerprint(edited) == fingerprint(upstream):
        return upstream
    known = {_wire(upstream, i): o for i, o in enumerate(upstream.objects)}
    own = [o.settings for o in upstream.objects]
    return replace(
        edited,
        objects=tuple(
            known.get(_wire(edited, i)) or replace(o, settings=rejoined(o.settings, own))
            for i, o in enumerate(edited.objects)
        ),
    )


def _wire(layout: Layout, i: int) -> str:
    return json.dumps(replace(layout, objects=layout.objects[i : i + 1]).to_json()["objects"])


def _shown(value: object) -> str:
    text = repr(value) if not isinstance(value, (dict, list)) else json.dumps(value, ensure_ascii=False)
    return readable(text if len(text) <= 120 else text[:117] + "...")
