"""Takes a secret out of texts that may repeat it, in whatever form a server wrote it."""

from __future__ import annotations

import base64
import html.entities
import re
from collections.abc import Callable

_SHORTEST = 4  # a shorter secret would hide parts of ordinary words
HIDDEN = "[key]"
_TOKEN = r"(?=[^\s\"'<>,;(){}\[\]]{0,200}\d)[^\s\"'<>,;(){}\[\]]{8,}"  # long, with a digit: no word of a caption
_BEARER = re.compile(rf"(bearer(?:\s|%20|\+|:|=|\\u0020|&#32;){{1,8}})(?!\[key\]){_TOKEN}", re.I)
_NAMED_ENTITIES = {ord(v): k for k, v in html.entities.html5.items() if len(v) == 1 and k.endswith(";")}


def hider(secret: str) -> Callable[[str], str]:
    """A function that replaces the secret in a text, in linear time.

    Found are: the secret itself in any case; each character of it as it is, percent-encoded (also twice), in JSON's
    and Python's escapes or as an HTML entity; hexadecimal with the usual separators; base64 at every alignment, in
    both alphabets; and any token that follows "Bearer".
    """
    if len(secret) < _SHORTEST:
        return lambda text: text
    forms = [_characters(secret), _hexadecimal(secret.encode()), *_base64(secret.encode())]
    pattern = re.compile("|".join(forms))
    return lambda text: _BEARER.sub(rf"\1{HIDDEN}", pattern.sub(HIDDEN, text))


def _characters(secret: str) -> str:
    return "(?i:" + "".join(map(_character, secret)) + ")"


def _character(c: str) -> str:
    code = ord(c)
    forms = [
        rf"\\{{0,4}}{re.escape(c)}",
        rf"%(?:25){{0,3}}{code:02x}",
        rf"\\{{1,4}}(?:u00|x){code:02x}",
        rf"&(?:amp;)?#(?:0{{0,6}}{code}|x0{{0,6}}{code:x});?",
    ]
    if name := _NAMED_ENTITIES.get(code):
        forms.append(rf"&(?:amp;)?{name}")
    return f"(?:{'|'.join(forms)})"


def _hexadecimal(raw: bytes) -> str:
    return "(?i:" + r"(?:[\s:,-]|0x|\\+x){0,3}".join(f"{b:02x}" for b in raw) + ")"


def _base64(raw: bytes) -> list[str]:
    """The characters that the secret alone decides, with neighbours that it shares with other bytes."""
    forms = []
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw).decode()
        certain = encoded[(before * 8 + 5) // 6 : (before + len(raw)) * 8 // 6]
        letters = "".join({"+": r"(?:[+-]|%2[bB])", "/": r"(?:\\?/|_|%2[fF])"}.get(c, c) for c in certain)
        forms.append(rf"[A-Za-z0-9+/_-]?{letters}[A-Za-z0-9+/_-]?(?:(?:=|%3[dD]){{1,2}})?" if before else
                     rf"{letters}[A-Za-z0-9+/_-]?(?:(?:=|%3[dD]){{1,2}})?")  # fmt: skip
    return forms
