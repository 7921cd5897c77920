"""The graphs' pictures in the front end's own template browser."""

import pytest
from ella_lmd.tests.live.browser.front_end import FrontEnd
from ella_lmd.tests.live.test_browser import ROOT, SHOTS, WORKFLOWS, page  # noqa: F401  (page is a fixture)
from PIL import Image

OPEN = 'app.extensionManager.command.execute("Comfy.BrowseTemplates");'
CHOOSE = """
const named = [...document.querySelectorAll("[role=dialog] *")].find((e) => !e.children.length && e.textContent.trim() === "ella-lmd");
named?.click();
return !!named;
"""
# The pictures of the cards come when they are scrolled into view.
PICTURE = """
const card = document.querySelector(`[data-testid="template-workflow-${value}"]`);
(card ?? document.querySelector('[data-testid="template-workflows-content"]')?.lastElementChild)?.scrollIntoView();
const image = card?.querySelector("img");
if (!image?.complete || !image.naturalWidth) return null;
const pen = new OffscreenCanvas(image.naturalWidth, image.naturalHeight).getContext("2d");
pen.drawImage(image, 0, 0);
const at = [1, 3, 5, 7].map((i) => i * 64);
return at.map((y) => at.map((x) => [...pen.getImageData(x, y, 1, 1).data.slice(0, 3)]));
"""
PLACES = (64, 192, 320, 448)


def test_every_graph_has_its_picture_in_the_template_browser(page, server):  # noqa: F811
    front = FrontEnd(page, server, "nodes2", SHOTS)
    front.open()
    page.run(OPEN)
    page.wait(CHOOSE, seconds=60)
    for title in WORKFLOWS:
        seen = page.wait(PICTURE, title, seconds=90)
        with Image.open(ROOT / "workflows" / f"{title}.jpg") as picture:
            for y, row in zip(PLACES, seen, strict=True):
                for x, colour in zip(PLACES, row, strict=True):
                    assert colour == pytest.approx(picture.getpixel((x, y)), abs=8), f"{title} at {x}, {y}"
        if title == WORKFLOWS[0]:
            front.shot("template browser")
