"""Layouts for a benchmark's prompts: from the built-in planner, a language model's server, files, or the benchmark."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from ..lmd.layout import Layout
from ..lmd.planner import offline
from ..lmd.planner.reply import parse, parse_strict, to_layout
from .benchmarks.base import Item, json_lines

HELP = """\
given            the benchmark's own layouts (7Bench), on the canvas that the row names
truth            a layout that is right (the demo benchmark)
offline          the planner that comes with the pack
server:NAME      a language model server of ComfyUI's user folder, by name (docs/planner.md)
replies:FILE     replies of a language model: JSON {prompt: [reply, ...]}, or lines {"prompt", "reply"};
                 repeated prompts take successive replies, read by the published grammar
tolerant:FILE    the same, read as the planner node reads a pasted reply
layouts:FILE     lines as `python run.py plan --stdin` writes them, by their prompt"""
Source = Callable[[Item, int, int], Layout]
"""(item, width, height) -> its layout. Raises ValueError where there is none."""


def layout_source(text: str) -> Source:
    """A source by its written form."""
    kind, _, name = text.partition(":")
    if kind == "given":
        return _given
    if kind == "truth":
        from .benchmarks.demo import true_layout

        return lambda item, width, height: true_layout(item).on_canvas(width, height)
    if kind == "offline":
        return lambda item, width, height: offline.plan(item.prompt, width, height)
    if kind == "server" and name:
        return _server(name)
    if kind in ("replies", "tolerant") and name:
        return _replies(Path(name), strict=kind == "replies")
    if kind == "layouts" and name:
        return _layouts(Path(name))
    raise ValueError(f"{text!r} names no source of layouts; sources are\n{HELP}")


def exact_json(layout: Layout) -> dict:
    """The wire form with unrounded boxes, so that a layout read from a manifest is the layout that was written."""
    boxes = [{"phrase": o.phrase, "box": [o.box.x, o.box.y, o.box.w, o.box.h]} for o in layout.objects]
    return layout.to_json() | {"objects": boxes}


def _given(item: Item, width: int, height: int) -> Layout:
    if not item.layout:
        raise ValueError("the benchmark gives no layout")
    return Layout.from_json(item.layout).on_canvas(width, height)


def _replies(path: Path, strict: bool) -> Source:
    replies: dict[str, list[str]] = defaultdict(list)
    if path.suffix == ".json":
        data = json.loads(path.read_text(encoding="utf-8"))
        if not (isinstance(data, dict) and all(isinstance(v, list) for v in data.values())):
            raise ValueError(f"{path} must hold {{prompt: [reply, ...]}}")
        replies |= data
    else:
        for record in json_lines(path):
            replies[record.get("prompt", "")].append(record.get("reply", ""))
    asked: dict[str, int] = defaultdict(int)

    def source(item: Item, width: int, height: int) -> Layout:
        number = asked[item.prompt]
        asked[item.prompt] += 1
        have = replies.get(item.prompt, [])
        if number >= len(have):
            raise ValueError(f"{path.name} has {len(have)} replies to this prompt, this is the {number + 1}th time")
        reply = (parse_strict if strict else parse)(have[number])
        return to_layout(reply, width, height, item.prompt, exact=strict)

    return source


def _layouts(path: Path) -> Source:
    found: dict[str, list[dict]] = defaultdict(list)
    for record in json_lines(path):
        found[record.get("prompt", "")].append(record)
    asked: dict[str, int] = defaultdict(int)

    def source(item: Item, width: int, height: int) -> Layout:
        have, number = found.get(item.prompt, []), asked[item.prompt]
        asked[item.prompt] += 1
        if not have:
            raise ValueError(f"{path.name} has no layout for this prompt")
        record = have[min(number, len(have) - 1)]  # one layout serves every repetition
        if "error" in record:
            raise ValueError(str(record["error"]))
        return Layout.from_json(record).on_canvas(width, height)

    return source


def _server(name: str) -> Source:
    from ..tools.host_setup import prepare_host

    prepare_host()
    from ..lmd.planner.dialogue import Request
    from ..nodes.host.llm import plan, servers

    server = servers.named(name)
    seeds: dict[str, int] = defaultdict(int)

    def source(item: Item, width: int, height: int) -> Layout:
        seeds[item.prompt] += 1  # a repeated prompt is asked again, not answered from the cache
        decoding = plan.Decoding(seed=seeds[item.prompt] - 1)
        return plan.with_server(server, Request(item.prompt, width, height), decoding).layout

    return source
