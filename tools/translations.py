"""The translations in `locales/`: what is missing or out of date, and how to bring translated texts in.

    python3 tools/translations.py todo zh > todo.json    the English texts that zh does not have yet, or that changed since
    (translate the values of todo.json)
    python3 tools/translations.py fill zh todo.json      put them in place; texts of nodes that are gone are dropped

The English texts come from `tests/live/node_texts.json`, which a live test records from the running nodes and keeps up
to date. Each language remembers in `tests/data/translated/` which English text it translated, so that a changed tooltip
is noticed. The shape is that of the front end's own translations (`nodeDefs.<id>.inputs.<name>.tooltip`, dots in names
as underscores); what it shows as a message, names and descriptions, must be free of `{ } @ |`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENGLISH = ROOT / "tests" / "live" / "node_texts.json"
LOCALES = ROOT / "locales"
TRANSLATED = ROOT / "tests" / "data" / "translated"
PROPER_NAMES = {"ELLA", "LMD"}  # categories that are the same in every language


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write(path: Path, data: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _add(out: dict, key: str, name: str, tooltip: str) -> None:
    """One key serves inputs of the same name behind several choices; where they say different things, it says both."""
    known = out.setdefault(key, {"name": name, "tooltip": tooltip})
    if tooltip not in known["tooltip"]:
        known["tooltip"] += f" / {tooltip}"


def _inputs(sections: dict, prefix: str = "") -> dict:
    """`{key: {"name", "tooltip"}}` of the inputs, those behind the choices of a dynamic combo included."""
    out: dict[str, dict] = {}
    for section in ("required", "optional"):
        for name, (kind, *rest) in sections.get(section, {}).items():
            options, full = rest[0] if rest else {}, f"{prefix}{name}"
            _add(out, full.replace(".", "_"), options.get("display_name") or name, options.get("tooltip") or "")
            if kind == "COMFY_DYNAMICCOMBO_V3":
                for option in options["options"]:
                    for key, text in _inputs(option["inputs"], f"{full}.").items():
                        _add(out, key, **text)
    return out


def english(info: dict) -> dict:
    """The texts of the nodes in an `/object_info` answer, in the shape of a `/i18n` answer for one language."""
    nodes = {
        node: {
            "display_name": i["display_name"],
            "description": i["description"],
            "inputs": _inputs(i["input"]),
            "outputs": {
                str(n): {"name": name, "tooltip": tooltip}
                for n, (name, tooltip) in enumerate(zip(i["output_name"], i["output_tooltips"]))
            },
        }
        for node, i in sorted(info.items())
    }
    categories = sorted({part for i in info.values() for part in i["category"].split("/")} - PROPER_NAMES)
    return {"nodeCategories": {c: c for c in categories}, "nodeDefs": nodes}


def flat(texts: dict, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], str]:
    """`{("nodeDefs", "LatentComposer", "description"): text}`"""
    out = {}
    for key, value in texts.items():
        out.update(flat(value, (*path, key)) if isinstance(value, dict) else {(*path, key): value})
    return out


def nested(texts: dict[tuple[str, ...], str]) -> dict:
    out: dict = {}
    for path, text in texts.items():
        place = out
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = text
    return out


def load(language: str) -> dict[tuple[str, ...], str]:
    """One language's translations, as the server merges them."""
    folder = LOCALES / language
    return flat({**read(folder / "main.json"), "nodeDefs": read(folder / "nodeDefs.json")})


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def outstanding(language: str) -> tuple[dict, dict, list]:
    """What is missing, what was translated from another English text, and what no node has any more."""
    source, have = flat(read(ENGLISH)), load(language)
    made_from = read(TRANSLATED / f"{language}.json")
    missing = {k: text for k, text in source.items() if k not in have}
    changed = {k: text for k, text in source.items() if k in have and made_from.get(".".join(k)) != digest(text)}
    return missing, changed, [k for k in have if k not in source]


def fill(language: str, texts: dict) -> None:
    """Bring translated texts in, in the order of the nodes, and remember which English they stand for."""
    source, new = flat(read(ENGLISH)), flat(texts)
    if unknown := [".".join(k) for k in new if k not in source]:
        raise SystemExit(f"no node has these texts: {', '.join(unknown)}")
    have = load(language) | new
    path = TRANSLATED / f"{language}.json"
    made_from = read(path) | {".".join(k): digest(source[k]) for k in new}
    main = nested({k: have[k] for k in source if k in have})
    write(LOCALES / language / "nodeDefs.json", main.pop("nodeDefs", {}))
    write(LOCALES / language / "main.json", main)
    write(path, {k: made_from[k] for k in map(".".join, source) if k in made_from})


def main() -> int:
    argv = sys.argv[1:]
    if len(argv) == 2 and argv[0] == "todo":
        missing, changed, stale = outstanding(argv[1])
        sys.stdout.write(json.dumps(nested(missing | changed), indent=2, ensure_ascii=False) + "\n")
        print(f"{len(missing)} missing, {len(changed)} changed, {len(stale)} stale", file=sys.stderr)
        return 0
    if len(argv) == 3 and argv[0] == "fill":
        fill(argv[1], json.loads(Path(argv[2]).read_text(encoding="utf-8")))
        return 0
    print(__doc__)
    return 2
