"""Plans mutated prompts: no text may raise anything but the error for an empty prompt.

    python run.py bench fuzz [NUMBER]      200,000 prompts if not given; prints what broke and the times

The mutations are drawn by hypothesis in the tests' style and by a seeded generator here, so that a number is repeatable.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterable, Iterator

from ella_lmd.lmd.planner.offline import plan
from ella_lmd.tools.bench import free_judge, prompt_judge

MARKS = (
    "200 no each one it them ( ) [ ] { | } :1.2 \" ' BREAK of , . as 0 999999 without with between and or <lora:a:1> 8 k's and/or -- "
    "the_other on-the-left in_the_background"
).replace("_", " ").split()  # fmt: skip
SLOW = 0.5  # seconds


def mutated(number: int, seed: int) -> Iterator[str]:
    """Prompts with words dropped, moved, doubled, cut and replaced."""
    prompts = [c["prompt"] for c in (*prompt_judge.load(), *free_judge.load())]
    words = [w for p in prompts for w in p.split()] + list(MARKS) * 20
    rng = random.Random(seed)
    for _ in range(number):
        text = rng.choice(prompts).split()
        for _ in range(rng.randint(1, 6)):
            _mutate(text, words, rng)
        yield " ".join(text) or "cat"


def _mutate(text: list[str], words: list[str], rng: random.Random) -> None:
    at, how = rng.randrange(len(text) + 1), rng.random()
    if how < 0.5 or at >= len(text):
        text.insert(at, rng.choice(words))
    elif how < 0.7:
        del text[at]
    elif how < 0.8:
        text[:] = text[at:] + text[:at]
    else:
        word = text[at]
        text[at] = word[: rng.randint(0, len(word))] + chr(rng.randint(33, 0x3000)) + word[rng.randint(0, len(word)) :]


def broken(prompts: Iterable[str], times: list[float] | None = None) -> list[str]:
    """What a prompt broke: exceptions, boxes that are too small or outside."""
    found = []
    for prompt in prompts:
        start = time.perf_counter()
        try:
            layout = plan(prompt)
        except Exception as error:  # whatever it is, it is a fault
            found.append(f"{type(error).__name__}: {error}: {prompt!r}")
            continue
        if times is not None:
            times.append(time.perf_counter() - start)
        for o in layout.objects:
            x0, y0, x1, y1 = o.box.corners
            if o.box.area < 0.0039 or min(x0, y0) < -1e-6 or max(x1, y1) > 1 + 1e-6:
                found.append(f"box {o.box} of {o.phrase!r}: {prompt!r}")
    return found


def main() -> int:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    times: list[float] = []
    plan("a cat")  # the tables are read once
    found = broken(mutated(number, seed=1), times)
    print("\n".join(found[:20]))
    times.sort()
    p50, p99, p999 = (times[int(len(times) * q)] for q in (0.5, 0.99, 0.999))
    print(f"{number} mutated prompts: {len(found)} broken; p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms, "
          f"p99.9 {p999 * 1e3:.1f} ms, slowest {times[-1] * 1e3:.0f} ms")  # fmt: skip
    return int(bool(found) or p999 >= SLOW)
