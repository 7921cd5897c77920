"""The detector against labels made by eye on pictures it was never tuned on, and the rules of that comparison."""

import json
from collections import Counter
from pathlib import Path

import pytest
from ella_lmd.evaluation import demo_benchmark, demo_detector, demo_labels
from ella_lmd.evaluation.demo_detector import Detection
from PIL import Image

DATA = Path(__file__).parents[1] / "data"
STARS = f"{demo_benchmark.SCENE} with two stars"


def seen(*texts):
    return [demo_labels.parse(text) for text in texts]


def found(colour, kind, x, y):
    return Detection(kind, colour, (x - 0.1, y - 0.1, x + 0.1, y + 0.1), 0.9)


@pytest.fixture(scope="module")
def held_out():
    """[(recipe, labels, detections)] of the held-out pictures."""
    recipes = json.loads((DATA / "held_out_pictures.json").read_text())
    things = [seen(*texts) for texts in json.loads((DATA / "held_out_labels.json").read_text())]
    pictures = demo_labels.pictures(Image.open(DATA / "held_out_pictures.png"))
    return list(zip(recipes, things, map(demo_detector.detect, pictures), strict=True))


def test_an_object_counts_where_it_was_seen():
    assert demo_labels.compare(seen("red star 0.3 0.3"), [found("red", "star", 0.4, 0.3)]) == ([], [])
    missed, errors = demo_labels.compare(seen("red star 0.3 0.3"), [found("red", "star", 0.8, 0.3)])
    assert len(missed) == len(errors) == 1
    missed, errors = demo_labels.compare(seen("red star 0.3 0.3"), [found("pink", "star", 0.3, 0.3)])
    assert len(missed) == len(errors) == 1


def test_an_unclear_object_excuses_one_detection_that_may_be_it():
    star = found("pink", "star", 0.3, 0.3)
    assert demo_labels.compare(seen("? star 0.3 0.3"), []) == ([], [])
    assert demo_labels.compare(seen("? star 0.3 0.3"), [star]) == ([], [])
    assert demo_labels.compare(seen("? moon 0.3 0.3"), [star]) == ([], [star])
    assert demo_labels.compare(seen("? ? 0.3 0.3"), [star, star]) == ([], [star])
    assert demo_labels.compare(seen("? ? 0.3 0.3", "pink star 0.3 0.35"), [star]) == ([], [])


def test_a_verdict_is_open_where_it_depends_on_how_unclear_objects_are_read():
    clear = seen("red star 0.2 0.2", "blue star 0.7 0.7")
    assert demo_labels.verdict(STARS, clear) is True
    assert demo_labels.verdict(STARS, clear[:1]) is False
    assert demo_labels.verdict(STARS, clear + seen("red ? 0.5 0.2")) is None
    assert demo_labels.strict_verdict(STARS, clear + seen("red ? 0.5 0.2")) is True
    assert demo_labels.verdict(STARS, clear + seen("? moon 0.5 0.2")) is True
    both = f"{demo_benchmark.SCENE} with a red star and a blue ring"
    assert demo_labels.verdict(both, seen("red star 0.2 0.2", "blue ? 0.7 0.7")) is None
    assert demo_labels.verdict(both, seen("red star 0.2 0.2", "green ? 0.7 0.7")) is False
    assert demo_labels.verdict(both, seen("? star 0.2 0.2", "? ring 0.7 0.7")) is None


def test_a_verdict_on_places_is_open_where_it_depends_on_which_object_is_meant():
    prompt = f"{demo_benchmark.SCENE} with a star on the left and a ring on the right"
    assert demo_labels.verdict(prompt, seen("red star 0.2 0.5", "red ring 0.7 0.5")) is True
    assert demo_labels.verdict(prompt, seen("red star 0.2 0.5", "red ring 0.7 0.5", "red ring 0.1 0.5")) is None
    assert demo_labels.verdict(prompt, seen("red star 0.2 0.5", "red ring 0.7 0.5", "red ring 0.9 0.5")) is True


def test_the_held_out_set_covers_tasks_methods_and_layouts(held_out):
    recipes = [recipe for recipe, _, _ in held_out]
    tasks, rows = (Counter(r[key] for r in recipes) for key in ("task", "row"))
    assert set(tasks) == {*demo_benchmark.TASKS, "free"} and min(tasks.values()) >= 12
    assert set(rows) == {"plain", "full"} and min(rows.values()) >= 40
    assert len({r["seed"] for r in recipes}) == len(recipes) == 84 and min(r["seed"] for r in recipes) >= 770_000
    asked = {r["prompt"] for r in recipes if r["task"] == "attribution"}
    assert not asked & {prompt for _, prompt in demo_benchmark.prompts(100)}


def test_the_detector_agrees_with_the_labels_on_pictures_it_was_never_tuned_on(held_out):
    """The numbers of demo/README.md, less a little. A worse detector fails here; a better one may raise the bounds, but
    no bound and no constant of the detector may be chosen by looking at which of these pictures it gets wrong."""
    counts = Counter()
    for recipe, things, detections in held_out:
        counts += demo_labels.tally(None if recipe["task"] == "free" else recipe["prompt"], things, detections)
    assert (counts["clear"], counts["unclear"], counts["verdicts"] + counts["open"]) == (148, 43, 72)
    assert counts["found"] >= 0.97 * counts["clear"], counts
    assert counts["found"] >= 0.88 * (counts["found"] + counts["extra"]), counts
    assert counts["verdicts"] >= 55 and counts["agreeing"] >= 0.96 * counts["verdicts"], counts
    assert counts["strict"] >= 0.92 * (counts["verdicts"] + counts["open"]), counts
