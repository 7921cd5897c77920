"""The table of English words in `data/words.gz`, which `tools/lexicon.py` builds from WordNet and Brill's lexicon."""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_name("data") / "words.gz"


@cache
def table() -> dict[str, tuple[str, str]]:
    """Lower-case word -> (its parts of speech, likeliest first: n v j r c; its kind as a noun, or "").

    Two-word nouns have an underscore ("traffic_light").
    """
    found: dict[str, tuple[str, str]] = {}
    with gzip.open(_FILE, "rt", encoding="utf-8") as lines:
        for line in lines:
            key, _, words = line.rstrip("\n").partition("\t")
            speech, _, kind = key.partition("/")
            found.update(dict.fromkeys(words.split(" "), (speech, kind)))
    return found
