"""How the offline planner takes prompts as people type them: the measures that `bench planner` prints by kind of prompt."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict

from ella_lmd.lmd.english.nouns import head
from ella_lmd.lmd.english.style_words import STYLE, WEAK
from ella_lmd.lmd.english.vocabulary import kind, speech
from ella_lmd.lmd.layout import Layout
from ella_lmd.lmd.planner.offline import plan
from ella_lmd.tools.bench import free_judge, prompt_judge

P50, P99 = 0.005, 0.060  # seconds


def invented(layout: Layout) -> bool:
    """Has a box a head that is no noun, or a style word?"""
    heads = [head(o.phrase) for o in layout.objects]
    return any((speech(h) and "n" not in speech(h)) or (h in STYLE - WEAK and kind(h) in ("", "idea")) for h in heads)


def measure() -> bool:
    """Prints a row a kind of prompt; True when the goals for the time hold."""
    layouts: dict[str, list[Layout]] = defaultdict(list)
    times: list[float] = []
    right: dict[str, int] = defaultdict(int)
    plan("a cat")  # the tables are read once
    cases = [(c["kind"], c["prompt"], c["expect"]) for c in prompt_judge.load()]
    cases += [("captions", c["prompt"], None) for c in free_judge.load()]
    for name, prompt, expect in cases:
        start = time.perf_counter()
        layout = plan(prompt)
        times.append(time.perf_counter() - start)
        layouts[name].append(layout)
        right[name] += expect is not None and not prompt_judge.complaints(layout, expect)
    print(
        f"{'':28}"
        + "".join(f"{t:>12}" for t in ("prompts", "as expected", "invented", "left out", "with note", "boxes"))
    )
    for name, found in layouts.items():
        n = len(found)
        left = sum(any(note.startswith("left to") for note in x.notes) for x in found)
        boxes = statistics.mean(len(x.objects) for x in found)
        expected = f"{right[name] / n:.2f}" if name != "captions" else "-"
        shares = "".join(
            f"{v / n:>12.2f}" for v in (sum(map(invented, found)), left, sum(bool(x.notes) for x in found))
        )
        print(f"{name:28}{n:>12}{expected:>12}{shares}{boxes:>12.1f}")
    times.sort()
    p50, p99 = (times[int(len(times) * q)] for q in (0.5, 0.99))
    print(f"time: p50 {p50 * 1e3:.1f} ms (goal {P50 * 1e3:.0f}), p99 {p99 * 1e3:.1f} ms (goal {P99 * 1e3:.0f})")
    return p50 <= P50 and p99 <= P99
