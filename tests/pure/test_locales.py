"""The translations can be shown and keep what must be kept; a text that is missing or out of date is a warning."""

import json
import re
import sys
import warnings
from pathlib import Path

import pytest
from ella_lmd.tools import translations

ROOT = Path(sys.modules["ella_lmd"].__path__[0])

LANGUAGES = sorted(p.name for p in (ROOT / "locales").glob("*") if p.is_dir())
ENGLISH = translations.flat(translations.read(translations.ENGLISH))
NODES = translations.read(translations.ENGLISH)["nodeDefs"]
SNAPSHOT = json.loads((ROOT / "tests" / "live" / "object_info.json").read_text(encoding="utf-8"))

SCRIPT = {"zh": r"[\u4e00-\u9fff]", "ja": r"[\u3040-\u30ff\u4e00-\u9fff]", "ko": r"[\uac00-\ud7a3]"}
SENTENCE = {**SCRIPT, "ja": r"[\u3040-\u30ff]"}
FOREIGN = {"zh": r"[\u3040-\u30ff\uac00-\ud7a3]", "ja": r"[\uac00-\ud7a3]", "ko": r"[\u3040-\u30ff]"}
# Names that people in every language write as they are.
KEPT = {"cfg", "clip", "ella", "vae", "sam", "lora", "sigmas", "sigma", "latent", "iou", "json", "x", "y"}
# English abbreviations that have a word of their own elsewhere.
TRANSLATABLE = {"LLM", "ID", "IDs", "JSONs"}


def here(path: tuple) -> str:
    return ".".join(path)


def numbers(text: str) -> set[str]:
    return set(re.findall(r"\d+(?:\.\d+)?", text))


def fixed_words(text: str) -> set[str]:
    """Words that mean themselves: IDs, file and folder names, abbreviations, addresses."""
    words = re.findall(r"[A-Za-z0-9_][\w./:-]*\w", text, re.ASCII)
    odd = {w for w in words if re.search(r"[a-z0-9]_\w|models/|://|\.(?:json|pth|safetensors)$|^[A-Z]\w*[A-Z]", w)}
    return {re.sub(r"(?<=[A-Z])s$", "", w) for w in odd} - TRANSLATABLE


def options_of(path: tuple) -> set[str]:
    """The choices of the input that a text belongs to; they stay as they are in the front end."""
    if len(path) != 5 or path[2] != "inputs":
        return set()
    sections = SNAPSHOT[path[1]]["inputs"].values()
    kind, spec = next((s[path[3]] for s in sections if path[3] in s), ("", {}))
    return {o for o in spec.get("options", ()) if isinstance(o, str) and " " in o}


def test_the_languages_are_there():
    assert set(LANGUAGES) == set(SCRIPT)  # the codes are the front end's own


def test_the_recorded_texts_and_the_snapshot_speak_of_the_same_nodes():
    """They are recorded together by a live test: delete tests/live/object_info.json for that."""

    def keys(sections: dict, prefix: str = "") -> set[str]:
        out = set()
        for section in sections.values():
            for name, (kind, spec) in section.items():
                out.add(f"{prefix}{name}".replace(".", "_"))
                for option in spec["options"].values() if kind == "COMFY_DYNAMICCOMBO_V3" else ():
                    out |= keys(option, f"{prefix}{name}.")
        return out

    assert {n: set(t["inputs"]) for n, t in NODES.items()} == {n: keys(i["inputs"]) for n, i in SNAPSHOT.items()}
    assert {n: [o["name"] for o in t["outputs"].values()] for n, t in NODES.items()} == {
        n: [o[0] for o in i["outputs"]] for n, i in SNAPSHOT.items()
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_translation_that_is_missing_or_out_of_date_is_a_warning(language):
    """The front end shows English for what is missing, so a better wording need not wait for its translations."""
    missing, changed, gone = translations.outstanding(language)
    told = f"`python3 tools/translations.py todo {language}` lists what to translate"
    for what, paths in (("lacks", missing), ("has an older wording of", changed), ("has texts of nothing:", gone)):
        if paths:
            warnings.warn(f"{language} {what} {', '.join(here(p) for p in paths)}; {told}", stacklevel=1)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_files_are_in_the_order_of_the_nodes(language):
    have = translations.load(language)
    assert [p for p in have if p in ENGLISH] == [p for p in ENGLISH if p in have]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_in_its_language(language):
    wrong = []
    for path, text in translations.load(language).items():
        short = path[-1] == "name" and text.lower() in KEPT
        needed = SENTENCE if path[-1] in ("description", "tooltip") else SCRIPT
        said = text == text.strip() and (short or re.search(needed[language], text))
        if not said or re.search(FOREIGN[language], text):
            wrong.append((here(path), text))
        elif language == "zh" and (odd := [c for c in text if not encodable(c, "gb2312")]):
            wrong.append((here(path), f"{''.join(odd)} is not Simplified Chinese"))
    assert not wrong


def encodable(character: str, encoding: str) -> bool:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


@pytest.mark.parametrize("language", LANGUAGES)
def test_numbers_names_and_choices_are_kept(language):
    """A word that means itself stays. The name of a node or an input may be the one that this language gives it."""
    have, wrong = translations.load(language), []
    changed = translations.outstanding(language)[1]
    for path in [p for p in have if p in ENGLISH and p not in changed]:
        text, source = have[path], ENGLISH[path]
        lost = numbers(source) - numbers(text)
        if path[-1] in ("description", "tooltip"):
            names = {n: have.get(("nodeDefs", n, "display_name"), n) for n in NODES}
            names |= {t["display_name"]: names[n] for n, t in NODES.items()}
            inputs = {k: have.get((*path[:2], "inputs", k, "name"), k) for k in NODES[path[1]]["inputs"]}
            spoken = {n for n in names if re.search(rf"(?<!\w){re.escape(n)}(?!\w)", source)}
            spoken = {n for n in spoken if not any(n != m and n in m for m in spoken)}
            rest = re.sub("|".join(map(re.escape, spoken)) or "$^", " ", source)
            lost |= {n for n in spoken if n not in text and names[n] not in text}
            lost |= {w for w in fixed_words(rest) if w not in text and inputs.get(w, w) not in text}
            lost |= {o for o in options_of(path) if o in source and o not in text}
        if lost:
            wrong.append((here(path), sorted(lost), text))
    assert not wrong


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_front_end_shows_every_text_as_it_is(language):
    """Names and descriptions go through its message compiler, where these characters mean something else."""
    have = translations.load(language)
    assert not [(here(p), t) for p, t in have.items() if p[-1] != "tooltip" and re.search(r"[{}@|]", t)]
    assert not [here(p) for p in have if any(re.search(r"[.\[\]]", key) for key in p)]


def test_a_changed_a_new_and_a_removed_text_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(translations, "ENGLISH", tmp_path / "english.json")
    monkeypatch.setattr(translations, "LOCALES", tmp_path / "locales")
    monkeypatch.setattr(translations, "TRANSLATED", tmp_path / "translated")
    translations.write(translations.ENGLISH, {"nodeDefs": {"A": {"display_name": "One", "description": "Two"}}})
    assert len(translations.outstanding("zh")[0]) == 2
    translations.fill("zh", {"nodeDefs": {"A": {"description": "二", "display_name": "一"}}})
    assert translations.outstanding("zh") == ({}, {}, [])
    assert list(translations.load("zh").values()) == ["一", "二"]
    translations.write(translations.ENGLISH, {"nodeDefs": {"A": {"display_name": "1", "tooltip": "Three"}}})
    missing, changed, stale = (["".join(p[-1:]) for p in found] for found in translations.outstanding("zh"))
    assert (missing, changed, stale) == (["tooltip"], ["display_name"], ["description"])
    with pytest.raises(SystemExit, match="B"):
        translations.fill("zh", {"nodeDefs": {"B": {"description": "五"}}})
