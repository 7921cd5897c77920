"""The demo world: what is drawn lies in its box, and captions say only what is there."""

import random
import re

import numpy
import pytest
import torch
from ella_lmd.demo import latents
from ella_lmd.evaluation import demo_world
from ella_lmd.evaluation.demo_world import COLOURS, KINDS, NUMBERS, PLURALS, Scene, Thing

SINGULAR = {plural: kind for kind, plural in PLURALS.items()} | {kind: kind for kind in KINDS}


def scenes(count, seed=0):
    rng = random.Random(seed)
    return [demo_world.sample_scene(rng) for _ in range(count)]


def pixels(scene, size=128):
    return numpy.asarray(demo_world.render(scene, size)).astype(int)


def test_the_same_seed_gives_the_same_pictures_and_captions():
    first, second = scenes(5), scenes(5)
    assert first == second
    assert all((pixels(a) == pixels(b)).all() for a, b in zip(first, second, strict=True))
    assert [demo_world.caption(s, random.Random(1)) for s in first] == [
        demo_world.caption(s, random.Random(1)) for s in second
    ]
    assert scenes(5, seed=1) != first


def test_objects_are_apart_and_on_the_canvas():
    for scene in scenes(400):
        assert 1 <= len(scene.things) <= 5
        for i, a in enumerate(scene.things):
            assert 0 < a.box[0] < a.box[2] < 1 and 0 < a.box[1] < a.box[3] < 1
            for b in scene.things[:i]:
                assert a.box[2] < b.box[0] or b.box[2] < a.box[0] or a.box[3] < b.box[1] or b.box[3] < a.box[1]


def test_every_number_kind_colour_and_background_occurs():
    found = scenes(2000)
    assert {len(s.things) for s in found} == {1, 2, 3, 4, 5}
    assert {t.kind for s in found for t in s.things} == set(KINDS)
    assert {t.colour for s in found for t in s.things} == set(COLOURS)
    assert {s.background for s in found} == set(demo_world.BACKGROUNDS)


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_fills_its_box_and_nothing_else(kind):
    thing = Thing(kind, "red", 0.4, 0.55, 0.5, 0.4)
    changed = numpy.abs(pixels(Scene("snow", (thing,)), 256) - pixels(Scene("snow", ()), 256)).max(-1) > 24
    rows, columns = numpy.flatnonzero(changed.any(1)), numpy.flatnonzero(changed.any(0))
    drawn = numpy.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    margin = 0.18 * 256 * thing.w if kind == "moon" else 0.06 * 256 * thing.w  # a moon is the left part of its circle
    assert numpy.abs(drawn - 256 * numpy.array(thing.box)).max() <= margin
    assert drawn[0] >= 256 * thing.box[0] - 4 and drawn[2] <= 256 * thing.box[2] + 4
    assert 0.2 < changed[rows[0] : rows[-1], columns[0] : columns[-1]].mean() <= 1


def test_kinds_look_different():
    drawn = [pixels(Scene("sky", (Thing(k, "red", 0.5, 0.5, 0.4, 0.4),))) for k in KINDS]
    for i, a in enumerate(drawn):
        assert all(numpy.abs(a - b).max(-1).mean() > 3 for b in drawn[:i])


def said(caption):
    """[(number or None, colour or None, kind, plural)] of every object phrase in a caption."""
    numbers, colours = "|".join(NUMBERS[1:]), "|".join(COLOURS)
    names = "|".join(sorted(SINGULAR, key=len)[::-1])
    pattern = rf"(?:({numbers}|an?) )?(?:({colours}) )?\b({names})\b"
    return [(n, c, SINGULAR[k], k in PLURALS.values()) for n, c, k in re.findall(pattern, caption)]


def test_captions_are_true():
    rng = random.Random(5)
    for scene in scenes(1500, seed=7):
        text = demo_world.caption(scene, rng)
        assert said(text), text
        for number, colour, kind, plural in said(text):
            alike = [t for t in scene.things if t.kind == kind and (not colour or t.colour == colour)]
            every = [t for t in scene.things if t.kind == kind]
            if plural:
                assert alike == every and len(every) > 1, (text, scene)
            assert alike, (text, scene)
            if number in NUMBERS:
                assert len(alike) == NUMBERS.index(number), (text, scene)


def test_relations_in_captions_are_true():
    rng, seen = random.Random(6), 0
    for scene in scenes(3000, seed=8):
        text = demo_world.caption(scene, rng)
        if not re.search(r"\b(left|right|above|below|top|bottom)\b", text):
            continue
        seen += 1
        (_, _, a, _), (_, _, b, _) = said(text)
        first, second = (next(t for t in scene.things if t.kind == k) for k in (a, b))
        word = re.search(r"\b(left|right|above|below|top|bottom)\b", text)[1]
        holds = {
            "left": first.x < second.x,
            "right": first.x > second.x,
            "above": first.y < second.y,
            "top": first.y < second.y,
            "below": first.y > second.y,
            "bottom": first.y > second.y,
        }
        assert holds[word], (text, scene)
    assert seen > 100


def test_captions_come_in_the_benchmarks_manner_and_freer():
    rng = random.Random(0)
    texts = [demo_world.caption(s, rng) for s in scenes(1000)]
    manner = sum(t.startswith("A realistic photo of a scene with ") for t in texts)
    assert 250 < manner < 450 and len(set(texts)) > 800


def test_latents_have_unit_scale_and_give_back_the_block_colours():
    images = numpy.stack([pixels(s) for s in scenes(200)])
    images = torch.from_numpy(images).movedim(-1, 1).float() / 127.5 - 1
    found = latents.of_images(images)
    assert found.shape == (200, 4, 16, 16)
    assert found.mean((0, 2, 3)).abs().max() < 0.2 and (found.std((0, 2, 3)) - 1).abs().max() < 0.15
    colours = latents.block_colours(found)
    torch.testing.assert_close(colours, torch.nn.functional.avg_pool2d(images, 8), atol=1e-3, rtol=0)
