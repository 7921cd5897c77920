"""The planner on prompts as people type them into image tools: tags, styles, paragraphs, and generated short captions."""

import random
import re
import time

import pytest
from ella_lmd.lmd.english import inflection
from ella_lmd.lmd.english.markup import plain_english
from ella_lmd.lmd.english.reader import read
from ella_lmd.lmd.planner.offline import plan
from ella_lmd.tools.bench import fuzz, prompt_judge

NUMBERS = ["one", "two", "three", "four"]
THINGS = ["person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "suitcase", "frisbee", "snowboard", "kite", "skateboard", "surfboard", "bottle", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "carrot", "pizza", "donut", "cake", "chair", "couch", "bed", "toilet", "laptop", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "toothbrush"] + [
    "traffic light", "fire hydrant", "stop sign", "parking meter", "sports ball", "baseball bat", "tennis racket", "wine glass",
    "hot dog", "potted plant", "dining table", "computer mouse", "tv remote", "computer keyboard", "cell phone", "teddy bear",
]  # fmt: skip
COLOURS = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white"]


@pytest.mark.parametrize("case", prompt_judge.load(), ids=lambda c: c["prompt"][:50])
def test_user_prompts(case):
    layout = plan(case["prompt"])
    assert prompt_judge.complaints(layout, case["expect"]) == []
    assert all(o.box.area >= 0.0039 for o in layout.objects)
    if not case["expect"].get("count"):
        assert len(layout.objects) <= 8


def captions():
    """(caption, {phrase: number}, relation): counts, colours and positions in the manner of GenEval."""
    rng = random.Random(0)
    for thing in THINGS:
        other = rng.choice([t for t in THINGS if t.split()[-1] != thing.split()[-1]])
        a, b = inflection.with_article(thing), inflection.with_article(other)
        number = rng.randint(2, 4)
        red, blue = rng.sample([c for c in COLOURS if c not in (thing, other)], 2)
        many = f"{NUMBERS[number - 1]} {inflection.plural(thing)}"
        yield f"a photo of {a}", {a: 1}, ""
        yield f"a photo of {a} and {b}", {a: 1, b: 1}, ""
        yield f"a photo of {many}", {a: number}, ""
        first, second = inflection.with_article(f"{red} {thing}"), inflection.with_article(f"{blue} {other}")
        yield f"a photo of {first} and {second}", {first: 1, second: 1}, ""
        relation = rng.choice(["left of", "right of", "above", "below"])
        yield f"a photo of {a} {relation} {b}", {a: 1, b: 1}, relation


def test_generated_captions_of_counts_colours_and_positions():
    found = list(captions())
    assert len(found) >= 300
    wrong = []
    for caption, wanted, relation in found:
        layout = plan(caption)
        have = {p: sum(o.phrase == p for o in layout.objects) for p in wanted}
        good = have == wanted and len(layout.objects) == sum(wanted.values()) and not layout.negative
        if relation and good:
            (ax, ay), (bx, by) = (o.box.centre for o in layout.objects)
            good = {"left of": ax < bx, "right of": ax > bx, "above": ay < by, "below": ay > by}[relation]
        if not good:
            wrong.append((caption, [o.phrase for o in layout.objects]))
    assert wrong == []


@pytest.mark.parametrize(
    ("prompt", "plain"),
    [
        ("(red car:1.3), [old] <lora:x:0.7>", "red car , old"),
        ("score_9, a cat BREAK a dog", "a cat , a dog"),
        ("embedding:bad-hands, {red|blue} hat", "red hat"),
        ("[cat:dog:0.5] on a mat --ar 16:9", "cat on a mat"),
        ("1girl, 2boys", "1 girl, 2 boys"),
        ("2 0 0 mm lens, 8 k, 3 d", "200mm lens, 8k, 3d"),
    ],
)
def test_markup_is_taken_off_for_reading_only(prompt, plain):
    assert [w for w in re.split(r"[\s,]+", plain_english(prompt)) if w] == [w for w in re.split(r"[\s,]+", plain) if w]
    assert plan(prompt).prompt == prompt


def test_what_is_left_out_is_said_once_with_what_helps():
    layout = plan(
        "A brown dog sleeps on a rug. The rolling hills shimmer. The old trees sway. The passengers wait and the lanterns glow."
    )
    said = [n for n in layout.notes if n.startswith("left to the overall prompt")]
    assert len(said) == 1 and "language model" in said[0] and "layout editor" in said[0]


def test_a_long_list_without_a_number_word_gets_few_boxes():
    layout = plan(
        "a cup, a fork, a knife, a spoon, a plate, a bowl, a bottle, a vase, a lamp, a book, a clock and a radio"
    )
    assert len(layout.objects) == 8 and any("radio" in n for n in layout.notes)


def test_two_hundred_things_are_a_crowd_and_a_note():
    layout = plan("200 sheep on a hill next to a barn")
    assert [o.phrase for o in layout.objects if "sheep" in o.phrase] == ["a large group of sheep"]
    assert any("far more than fit" in n for n in layout.notes)


@pytest.mark.parametrize("size", [(512, 512), (768, 512), (512, 896), (64, 64), (2048, 256)])
def test_forty_in_a_narrow_place_keep_boxes_of_a_size_that_can_be_drawn(size):
    layout = plan("forty people on the right and a tree", *size)
    tree = [o.box for o in layout.objects if o.phrase == "a tree"]
    assert len(layout.objects) == 41 and tree[0].area > 0.012
    assert all(o.box.area >= 0.0039 for o in layout.objects)


def test_a_thing_on_a_surface_lies_inside_it_and_the_scene_says_so():
    (relation,) = read("a logo on a mug").relations
    assert relation.kind == "in" and relation.flat
    (relation,) = read("a cat on a mat").relations
    assert relation.kind == "on" and not relation.flat


def test_no_mutated_prompt_breaks_the_planner():
    assert fuzz.broken(fuzz.mutated(1500, seed=0)) == []


def test_time_grows_with_the_length_of_a_prompt_at_most_linearly():
    words = " ".join(c["prompt"] for c in prompt_judge.load()).split()
    plan("a cat")

    def seconds(n: int) -> float:
        text = " ".join((words * (n // len(words) + 1))[:n])
        start = time.perf_counter()
        plan(text)
        return time.perf_counter() - start

    assert seconds(20000) < 2.5 + 10 * seconds(2000)
