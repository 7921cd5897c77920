"""The request to a language model: complete for any canvas, and its own examples are flawless answers."""

import json

import pytest
from ella_lmd.lmd.planner import quality, reply, request


@pytest.mark.parametrize("size", [(512, 512), (768, 512), (512, 1024), (1344, 768)])
@pytest.mark.parametrize("example", request.EXAMPLES, ids=lambda e: e.caption[:20])
def test_every_example_is_a_flawless_answer_on_any_canvas(example, size):
    layout = reply.to_layout(reply.parse_strict(request.answer(example, *size)), *size, example.caption)
    assert layout.notes == () and len(layout.objects) == len(example.objects)
    assert (layout.background, layout.negative) == (example.background, example.negative)
    assert quality.wanted_in_negative(layout) == [] and quality.boxed_in_background(layout) == []
    assert quality.overlapping(layout) == [] and not quality.uniform(layout)
    for o in layout.objects:
        assert o.phrase.startswith(("a ", "an "))
        assert o.box.x >= 0 and o.box.x + o.box.w <= 1 and o.box.y >= 0 and o.box.y + o.box.h <= 1


def test_an_answer_says_in_words_where_a_thing_is_before_its_numbers():
    box = list(request.schema()["properties"]["objects"]["items"]["properties"])
    assert box == ["name", "place", "box"]
    for wide, as_json in ((512, True), (1024, True), (512, False)):
        answers = [m["content"] for m in request.messages("a cat", wide, 512, 7, as_json) if m["role"] == "assistant"]
        for example, text in zip(request.EXAMPLES, answers, strict=True):
            places = []
            for _, (x, y, w, h) in example.objects:
                column, row = (("left", "", "right"), ("top", "", "bottom"))
                middle = column[int((x + w / 2) * 3 / 512)], row[int((y + h / 2) * 3 / 512)]
                places.append(f"{middle[1]} {middle[0]}".strip() or "middle")
            if as_json:
                said = [o["place"] for o in json.loads(text)["objects"]]
            else:
                line = text.split("\nPlaces: ")[1].split("\nObjects: ")[0]
                said = [part.split(": ")[1] for part in line.split("; ")]
            assert said == places


def test_the_examples_cover_what_small_models_get_wrong():
    captions = " ".join(e.caption for e in request.EXAMPLES)
    assert len(request.EXAMPLES) == 7
    for word in ("under", "above", "behind", "left of", "on top of", "without", "no ", "Two", "three"):
        assert word in captions, word
    assert sum(bool(e.negative) for e in request.EXAMPLES) == 3


@pytest.mark.parametrize("count", range(8))
def test_text_has_the_wanted_number_of_examples_and_ends_in_the_label(count):
    text = request.text("A cat on a mat. ", 768, 512, count)
    assert text.count("Caption: ") == count + 1
    assert text.endswith("Caption: A cat on a mat\nObjects:")
    assert "[768, 512]" in text and "Negative prompt:" in text


def test_messages_alternate_and_end_with_the_caption():
    messages = request.messages("a cat", 512, 512, 3)
    assert [m["role"] for m in messages] == ["system", *["user", "assistant"] * 3, "user"]
    assert messages[-1]["content"] == "Caption: a cat"


def test_an_empty_prompt_and_eight_examples_are_errors():
    with pytest.raises(ValueError, match="the prompt is empty.*write what the image should show"):
        request.text(" . ")
    with pytest.raises(ValueError, match="0 to 7 examples, got 8"):
        request.text("a cat", examples=8)
