"""The reader of the marks that the demo world's two LoRAs give circles, on drawings whose marks are known."""

import itertools
import random

from ella_lmd.evaluation import demo_marks, demo_world
from PIL import ImageFilter

KINDS_OF_MARKS = ((), ("band",), ("pink",), ("band", "pink"))


def test_every_mark_is_read_on_every_colour_and_background_sharp_or_blurred():
    rng, wrong = random.Random(3), []
    for marks, colour, ground in itertools.product(KINDS_OF_MARKS, demo_marks.COLOURS, demo_world.BACKGROUNDS):
        size = rng.uniform(0.26, 0.46)
        x, y = (rng.uniform(size / 2 + 0.02, 0.98 - size / 2) for _ in range(2))
        thing = demo_world.Thing(demo_marks.KIND, colour, x, y, size, size)
        picture = demo_marks.render(demo_world.Scene(ground, (thing,), rng.uniform(0.93, 1.05)), (marks,))
        for seen in (picture, picture.filter(ImageFilter.GaussianBlur(1.5))):
            if demo_marks.marks_in(seen, thing.box) != frozenset(marks):
                wrong.append((marks, colour, ground, demo_marks.marks_in(seen, thing.box)))
    assert not wrong, wrong


def test_two_objects_are_read_apart_and_an_empty_place_is_none():
    left, right = (demo_world.Thing("circle", c, x, 0.5, 0.4, 0.4) for c, x in (("red", 0.26), ("blue", 0.74)))
    picture = demo_marks.render(demo_world.Scene("grass", (left, right)), (("band",), ("pink",)))
    assert [demo_marks.marks_in(picture, t.box) for t in (left, right)] == [{"band"}, {"pink"}]
    alone = demo_marks.render(demo_world.Scene("grass", (left,)), (("band",),))
    assert demo_marks.marks_in(alone, (0.6, 0.3, 0.9, 0.7)) is None
