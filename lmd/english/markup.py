"""What prompt boxes of image tools understand besides English, taken away so that the English can be read.

Weights `(x:1.3)`, `[x]`, `{a|b}`, `<lora:...>`, `BREAK`, `score_9`, `embedding:name`, `--ar 16:9`, sampler settings, booru counts.
The prompt that is encoded keeps all of it.
"""

from __future__ import annotations

import re

_DROPPED = re.compile(
    r"<[^<>]{0,200}>"
    r"|\bembedding:[\w./-]+"
    r"|--\w+(?: [\w.:/]+)?"
    r"|\b(?:score_\d\w*|source_\w+|rating[:_ ]\w+|artist:\s?[\w ]+)"
    r"|\b(?:steps|sampler|cfg(?: scale)?|seed|size|model(?: hash)?|clip skip|denoising strength|negative prompt)\s?:\s?[\w. +]+"
    r"|https?://\S+"
    r"|\b\d+other(?:s\b|\b)",
    re.I,
)
_ALTERNATIVES = re.compile(r"\{([^{}|]*)(?:\|[^{}]*)?\}")
_SCHEDULED = re.compile(r"\[([^\[\]:|]*)(?:[:|][^\[\]]*)?\]")
_WEIGHT = re.compile(r":\s?-?\d*\.?\d+(?=\s*[),\]]|\s*$)")
_BOORU = re.compile(r"\b(\d{1,2})\+?(girl|boy|man|woman|cat|dog|horse|dragon)s?\b", re.I)
_SPACED = re.compile(r"(?<![\w.])(\d(?: \d)+)(?= ?(?:mm|k|d|p|px|c m|fps|x)?\b)")
_UNITS = re.compile(r"(?<!\w)(\d+(?:\.\d+)?)[ -](mm|k|d|p|px|fps)\b(?! ?&)", re.I)
_APERTURE = re.compile(r"\bf ?/ ?\d(?: ?\. ?\d)?|\bISO ?\d+", re.I)
_RATIO = re.compile(r"\b\d+ ?: ?\d+\b")
_TITLES = re.compile(r"\b(dr|mr|mrs|ms|st|prof|vs)\.(?= \w)", re.I)
_OLD = re.compile(r"\b(?:no more|no less|not more|not less|no fewer|no later) than\b", re.I)


def plain_english(prompt: str) -> str:
    """The prompt without its markup, for reading only."""
    text = prompt.replace("\\(", "(").replace("\\)", ")").replace("’", "'").replace("`", "'")
    text = re.sub(r"\bBREAK\b|\bAND\b(?= [a-z(])", ",", text)
    text = _DROPPED.sub(" ", text)
    text = _WEIGHT.sub(" ", text)
    for _ in range(4):
        text, before = _SCHEDULED.sub(r"\1", _ALTERNATIVES.sub(r"\1", text)), text
        if text == before:
            break
    text = _SPACED.sub(lambda m: m[1].replace(" ", ""), _APERTURE.sub(" ", text))
    text = _RATIO.sub(" ", _UNITS.sub(r"\1\2", text))
    text = re.sub(r"\bd ?(?:&|n) ?d\b", "dnd", text, flags=re.I)
    text = _BOORU.sub(_counted, text)
    text = _OLD.sub("about", _TITLES.sub(r"\1", text))
    if len(re.findall(r"[a-z]_[a-z]", text)) > 1:  # booru tags
        text = text.replace("_", " ")
    return _brackets(text)


def _counted(match: re.Match[str]) -> str:
    one, many = match[2].lower(), {"man": "men", "woman": "women"}.get(match[2].lower(), match[2].lower() + "s")
    return f"{match[1]} {one if match[1] == '1' else many}"


def _brackets(text: str) -> str:
    """Emphasis goes; a bracket behind a word ("bow (weapon)") is an aside and becomes one of its own."""
    return re.sub(r"[(\[{]+", ", ", re.sub(r"[)\]}]+", " , ", text)) if re.search(r"[(\[{)\]}]", text) else text
