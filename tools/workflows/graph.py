"""Workflows in the form that the browser saves, converted to and from the form that the server executes.

`object_info` is the server's own description of its nodes; nothing about a node is known here.
"""

from __future__ import annotations

import json
from pathlib import Path

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "BOUNDING_BOXES", "COLORS"}
DYNAMIC = "COMFY_DYNAMICCOMBO_V3"
CONTROL = "fixed"
SKIPPED = {"Note", "MarkdownNote"}


def widgets(info: dict, values: dict) -> list[tuple[str, dict]]:
    """(name, options) of a node's widgets in the order of a saved `widgets_values`, chosen dynamic parts included.

    `values` holds what is known of the widgets so far; it decides which part of a dynamic input is there.
    """
    found = []
    for section in ("required", "optional"):
        for name, spec in info["input"].get(section, {}).items():
            found += _widget(name, spec, values)
    return found


def _widget(name: str, spec: list, values: dict) -> list[tuple[str, dict]]:
    kind, options = spec[0], spec[1] if len(spec) > 1 else {}
    if kind == DYNAMIC:
        found = [(name, {"kind": kind, "default": options["options"][0]["key"]})]
        chosen = values.get(name, options["options"][0]["key"])
        part = next(o for o in options["options"] if o["key"] == chosen)
        for section in ("required", "optional"):
            for child, child_spec in part["inputs"].get(section, {}).items():
                found += _widget(f"{name}.{child}", child_spec, values)
        return found
    if options.get("forceInput") or not (isinstance(kind, list) or kind in WIDGETS):
        return []
    if isinstance(kind, list):
        kind, options = "COMBO", {"options": kind, **options}
    if kind == "COMBO":
        options = {"default": (options.get("options") or [""])[0], **options}
    return [(name, {"kind": kind, **options})]


def _part_socket(info: dict, name: str, values: dict) -> str | None:
    """The type of the socket `name` in the chosen part of a dynamic input; None when there is none."""
    parent, _, child = name.partition(".")
    specs = {k: v for section in ("required", "optional") for k, v in info["input"].get(section, {}).items()}
    if specs.get(parent, [""])[0] != DYNAMIC:
        return None
    part = next(o for o in specs[parent][1]["options"] if o["key"] == values.get(parent))
    found = [part["inputs"].get(section, {}).get(child) for section in ("required", "optional")]
    return next((spec[0] for spec in found if spec), None)


def has_control(options: dict) -> bool:
    """Seed widgets are followed by a "control after generate" value."""
    return bool(options.get("control_after_generate"))


def to_api(workflow: dict, object_info: dict) -> dict:
    """The API prompt of a saved workflow, as the browser would send it. Raises ValueError for an unknown node."""
    links = {link[0]: link for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        kind = node["type"]
        if kind in SKIPPED or node.get("mode") in (2, 4):
            continue
        if kind not in object_info:
            raise ValueError(f'node {node["id"]} is of the type "{kind}", which the server does not have')
        inputs: dict = {}
        rest = list(node.get("widgets_values") or [])
        position = 0
        while True:
            names = widgets(object_info[kind], inputs)
            if position >= len(names):
                break
            name, options = names[position]
            position += 1
            if not rest:
                value = options.get("default", "")
                inputs[name] = {"__value__": value} if isinstance(value, list) else value
                continue
            value = rest.pop(0)
            inputs[name] = {"__value__": value} if isinstance(value, list) else value  # a bare list is a link
            if has_control(options):
                rest.pop(0)
        if rest:
            raise ValueError(f"node {node['id']} ({kind}) has {len(rest)} widget values too many: {rest}")
        for socket in node.get("inputs", []):
            if socket.get("link") is not None:
                _, source, slot, *_ = links[socket["link"]]
                inputs[socket["name"]] = [str(source), slot]
        prompt[str(node["id"])] = {"class_type": kind, "inputs": inputs, "_meta": {"title": node.get("title", kind)}}
    return prompt


def without_files(prompt: dict, files: set[str]) -> dict:
    """The part of an API prompt that needs none of these model files: without their loaders and all that hangs on them."""
    left = {k: n for k, n in prompt.items() if not files & {v for v in n["inputs"].values() if isinstance(v, str)}}
    while True:
        hanging = [
            k for k, n in left.items() if any(isinstance(v, list) and v[0] not in left for v in n["inputs"].values())
        ]
        if not hanging:
            return left
        left = {k: n for k, n in left.items() if k not in hanging}


FOOTER = 50  # pixels below a node: the front end says there that a model file is missing
# Pixels of a node that is drawn taller than it was saved, for its picture or its inputs: front end 1.58.1, Nodes 2.0.
GROWN = {"LLMLayoutPlanner": 720, "BoxGroundedSampler": 420, "LMDDemoModel": 160}
_TITLE = 30


def leave_room(nodes: list[dict]) -> None:
    """Move nodes down where one above them would grow over their title."""
    for node in sorted(nodes, key=lambda n: n["pos"][1]):
        lacking = max((room(node) - gap(node, n) for n in below(node, nodes)), default=0)
        if lacking > 0:
            for n in _column(node, nodes):
                n["pos"] = [n["pos"][0], n["pos"][1] + lacking]


def room(node: dict) -> float:
    """Pixels that must be free below a node: for the notice of a missing model file, and for its growth."""
    notice = FOOTER if node["properties"].get("models") else 0
    return max(notice, GROWN.get(node["type"], 0) - node["size"][1])


def gap(node: dict, lower: dict) -> float:
    """Pixels between a node's lower edge and the title of one below it."""
    return lower["pos"][1] - _TITLE - node["pos"][1] - node["size"][1]


def below(node: dict, nodes: list[dict]) -> list[dict]:
    """The nodes that lie lower and partly under it."""
    x, width = node["pos"][0], node["size"][0]
    return [n for n in nodes if n["pos"][1] > node["pos"][1]
            and n["pos"][0] < x + width and x < n["pos"][0] + n["size"][0]]  # fmt: skip


def _column(node: dict, nodes: list[dict]) -> list[dict]:
    """What lies below a node, below that, and so on."""
    found: list[dict] = []
    for n in below(node, nodes):
        found += [m for m in (n, *_column(n, nodes)) if m not in found]
    return found


class Builder:
    """Writes a workflow as the browser saves it: `add` nodes with their inputs, `note` texts, then `save`."""

    def __init__(self, object_info: dict):
        self.info, self.nodes, self.links, self.groups = object_info, [], [], []

    def add(self, kind: str, at: tuple[int, int], size: tuple[int, int], title: str = "", **inputs) -> dict:
        """Add a node; an input is a plain value or `(node, output name or index)`. Dots in names are written `__`."""
        info = self.info[kind]
        node = {
            "id": len(self.nodes) + 1, "type": kind, "pos": list(at), "size": list(size), "flags": {},
            "order": len(self.nodes), "mode": 0, "inputs": [], "outputs": [], "widgets_values": [],
            "properties": {"Node name for S&R": kind},
        }  # fmt: skip
        if title:
            node["title"] = title
        if info.get("python_module", "").startswith("custom_nodes"):
            node["properties"] |= {"cnr_id": "ella-lmd"}
        inputs = {k.replace("__", "."): v for k, v in inputs.items()}
        node["outputs"] = [
            {"name": name, "type": kind_, "links": []}
            for name, kind_ in zip(info["output_name"], info["output"], strict=True)
        ]
        values = {k: v for k, v in inputs.items() if not isinstance(v, tuple)}
        known = widgets(info, values)
        for section in ("required", "optional"):
            for name, spec in info["input"].get(section, {}).items():
                if not any(name == w for w, _ in known):
                    self._socket(node, name, spec[0], inputs.pop(name, None))
        for name, options in known:
            value = inputs.pop(name, options.get("default", ""))
            if isinstance(value, tuple):
                self._socket(node, name, options["kind"], value, widget=True)
                value = options.get("default", "")
            node["widgets_values"].append(value)
            if has_control(options):
                node["widgets_values"].append(CONTROL)
        for name in [n for n in inputs if "." in n]:  # a socket of the chosen dynamic part, such as "source.clip"
            kind_ = _part_socket(info, name, values)
            if kind_ and isinstance(inputs[name], tuple):
                self._socket(node, name, kind_, inputs.pop(name))
        if inputs:
            raise ValueError(f"{kind} has no input {', '.join(inputs)}")
        self.nodes.append(node)
        return node

    def _socket(self, node: dict, name: str, kind, source: tuple | None, widget: bool = False) -> None:
        socket = {"name": name, "type": kind if isinstance(kind, str) else "COMBO", "link": None}
        if widget:
            socket["widget"] = {"name": name}
        if source is not None:
            origin, slot = source
            if isinstance(slot, str):
                slot = next(i for i, o in enumerate(origin["outputs"]) if o["name"] == slot)
            link = len(self.links) + 1
            self.links.append(
                [link, origin["id"], slot, node["id"], len(node["inputs"]), origin["outputs"][slot]["type"]]
            )
            origin["outputs"][slot]["links"].append(link)
            socket["link"] = link
        node["inputs"].append(socket)

    def note(self, text: str, at: tuple[int, int], size: tuple[int, int], title: str = "Note") -> None:
        self.nodes.append(
            {
                "id": len(self.nodes) + 1, "type": "MarkdownNote", "title": title, "pos": list(at), "size": list(size),
                "flags": {}, "order": len(self.nodes), "mode": 0, "inputs": [], "outputs": [], "properties": {},
                "widgets_values": [text], "color": "#432", "bgcolor": "#653",
            }
        )  # fmt: skip

    def workflow(self) -> dict:
        return {
            "revision": 0, "last_node_id": len(self.nodes), "last_link_id": len(self.links), "nodes": self.nodes,
            "links": self.links, "groups": self.groups, "config": {}, "extra": {}, "version": 0.4,
        }  # fmt: skip

    def text(self) -> str:
        """The graph's file, with room below nodes that grow."""
        leave_room(self.nodes)
        return json.dumps(self.workflow(), indent=1, ensure_ascii=False) + "\n"

    def save(self, path: Path) -> None:
        path.write_text(self.text())
