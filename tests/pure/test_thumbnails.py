"""Every graph has a picture for the template browser, which looks for `<title>.jpg` beside it and for nothing else."""

import hashlib
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageStat

FOLDER = Path(sys.modules["ella_lmd"].__path__[0]) / "workflows"
TITLES = sorted(p.stem for p in FOLDER.glob("*.json"))
MOST_BYTES = 60_000


def test_every_picture_has_a_graph_and_its_own_contents():
    pictures = sorted(p for p in FOLDER.iterdir() if p.suffix != ".json")
    assert [p.name for p in pictures] == sorted(f"{title}.jpg" for title in TITLES)
    assert len({hashlib.sha256(p.read_bytes()).digest() for p in pictures}) == len(pictures)


@pytest.mark.parametrize("title", TITLES)
def test_the_picture_is_a_square_jpeg_that_shows_something(title):
    path = FOLDER / f"{title}.jpg"
    assert 8_000 < path.stat().st_size < MOST_BYTES
    with Image.open(path) as image:
        image.load()
        assert image.format == "JPEG" and image.mode == "RGB"
        assert image.size == (512, 512), "the browser's card is a square of up to 256 CSS pixels"
        assert min(ImageStat.Stat(image).stddev) > 20, "nearly one colour"
