"""Replies of language models: the reference's grammar exactly, and the tolerant one that users get."""

import json
import math
from pathlib import Path

import pytest
from ella_lmd.chat.answer import Answer
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.limits import MAX_REPLY
from ella_lmd.lmd.planner import reply as P
from ella_lmd.lmd.planner import reply_lists, reply_shapes
from ella_lmd.lmd.planner.box_filter import fill_canvas, filter_boxes, filter_boxes_exact
from ella_lmd.lmd.planner.literals import LiteralError, read_literal
from hypothesis import given, settings
from hypothesis import strategies as st

KITE = [("a red kite", [60, 40, 120, 110]), ("a grey whale", [200, 250, 280, 160])]


def _same(boxes):
    return [[name, list(box)] for name, box in boxes]


def test_strict_reference_vectors(golden):
    for case in json.loads((golden / "lmd/parse_response.json").read_text())["cases"]:
        wanted = case["expected"]
        if "error" in wanted:
            with pytest.raises(P.ReplyError) as caught:
                P.parse_strict(case["input"]["text"])
            assert caught.value.kind == wanted["error"], case["id"]
        else:
            reply = P.parse_strict(case["input"]["text"])
            assert _same(reply.boxes) == wanted["boxes"], case["id"]
            assert (reply.background, reply.negative) == (wanted["bg_prompt"], wanted["neg_prompt"]), case["id"]


def test_filter_reference_vectors(golden):
    for case in json.loads((golden / "lmd/filter_boxes.json").read_text())["cases"]:
        options = {k: v for k, v in case["input"].items() if k not in ("boxes", "dict_format")}
        assert _same(filter_boxes_exact(case["input"]["boxes"], **options)) == case["expected"]["boxes"], case["id"]


def test_tolerant_parser_agrees_wherever_the_strict_one_reads(golden):
    for case in json.loads((golden / "lmd/parse_response.json").read_text())["cases"]:
        if "error" not in case["expected"] and case["id"] not in ("P04", "P05", "P12"):  # "none" is nothing to a user
            reply = P.parse(case["input"]["text"])
            assert _same(reply.boxes) == case["expected"]["boxes"], case["id"]
            assert reply.background == case["expected"]["bg_prompt"], case["id"]
            assert reply.negative == case["expected"]["neg_prompt"], case["id"]


CHAT_REPLIES = json.loads((Path(__file__).parents[1] / "data" / "chat_replies.json").read_text())


@pytest.mark.parametrize("text", CHAT_REPLIES)
def test_what_chat_models_really_send(text):
    reply = P.parse(text)
    assert [(n, [float(v) for v in b]) for n, b in reply.boxes] == [(n, [float(v) for v in b]) for n, b in KITE]
    assert (reply.background, reply.negative) == ("A beach", "people")


def test_an_apostrophe_in_a_single_quoted_name():
    assert P.parse("[('a chef's knife', [60, 40, 120, 110])]\nBackground prompt: A").boxes[0][0] == "a chef's knife"


def test_our_own_layout_json_comes_back():
    layout = P.to_layout(P.parse_strict(f"{KITE}\nBackground prompt: A\nNegative prompt: b"), 768, 512, "p")
    again = P.to_layout(P.parse(json.dumps(layout.to_json())), 768, 512, "p")
    assert again.notes == ()
    assert [o.phrase for o in again.objects] == [o.phrase for o in layout.objects]
    for a, b in zip(again.objects, layout.objects):
        assert a.box.corners == pytest.approx(b.box.corners, abs=2e-6)


def test_a_layout_for_another_canvas_is_stretched_and_says_so():
    text = '{"canvas": [1024, 512], "objects": [{"name": "a cat", "box": [512, 256, 256, 128]}], "background": "A"}'
    reply = P.parse(text)
    layout = P.to_layout(reply, 512, 768)
    assert layout.objects[0].box.corners == (0.5, 0.5, 0.75, 0.75)
    assert any("1024 x 512" in n and "512 x 768" in n for n in layout.notes)


def test_published_replies_all_parse_with_both_parsers_and_396_pass(shared):
    from ella_lmd.evaluation.lmd_benchmark import predicate

    replies = json.loads((shared / "data/lmd_replies_gpt-3.5-turbo.json").read_text())
    for parser, exact in ((P.parse_strict, True), (P.parse, True), (P.parse, False)):
        passed = total = 0
        for prompt, texts in replies.items():
            for text in texts:
                total += 1
                passed += predicate(prompt, P.to_layout(parser(text), 512, 512, exact=exact))
        assert total == 400
        assert passed == 396


def test_the_users_filter_drops_what_cannot_be_drawn():
    kept, notes = filter_boxes(
        [("b", [0, 0, 0, 5]), ("c", [600, 0, 50, 50]), ("d", [0, 0, 600, 400]), ("e.", [1, 1, 5, 5])], 512, 320
    )
    assert kept == [("e", [1, 1, 5, 5])]
    assert ["no area" in notes[0], "outside" in notes[1], "whole canvas" in notes[2]] == [True] * 3


def test_a_layout_that_runs_over_the_canvas_is_shrunk_as_a_whole():
    kept, notes = filter_boxes([("a", [-64, 0, 128, 128]), ("b", [500, 10, 76, 64])], 512, 512)
    assert [b for _, b in kept] == [pytest.approx([0, 0, 102.4, 102.4]), pytest.approx([451.2, 8, 60.8, 51.2])]
    assert "shrunk to 80%" in notes[0]
    kept, notes = filter_boxes([("a", [0, 0, 100, 100]), ("b", [500, 10, 2000, 64])], 512, 512)
    assert kept == [("a", [0, 0, 100, 100]), ("b", [500, 10, 12, 64])] and "clipped" in notes[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("I am sorry, I can't do that.", "no list of boxes"),
        ("Objects: [('a cat', [1, 2, 3, 4]), ('a dog', [5, 6, 7", "never closed"),
        ("Objects: [('a cat', [1, 2, 3+4, 5])]", "no arithmetic"),
        ("[" * 5000 + "1", "no list of boxes"),
        ("x" * 200_000, "characters"),
    ],
)
def test_unparsable_replies_say_why(text, said):
    with pytest.raises(P.ReplyError, match=said):
        P.parse(text)


def test_the_complaint_names_line_and_column():
    with pytest.raises(P.ReplyError, match=r"line 2, column 19"):
        P.parse("Objects:\n[('a cat', [1, 2, 3*4, 5])]\nBackground prompt: A")


def _layout_of(boxes):
    return P.to_layout(P.Reply(boxes, "A"), 512, 512)


def test_a_box_without_area_is_dropped_with_a_note_and_alone_an_error():
    assert "no area" in _layout_of([("a", [1, 1, 0, 9]), *KITE]).notes[0]
    with pytest.raises(P.ReplyError, match=r"none of the 1 boxes.*no area.*left, top, width, height"):
        _layout_of([("a", [1, 1, 0, 9])])


def test_a_box_outside_is_an_error_that_names_it():
    with pytest.raises(P.ReplyError, match=r'"a boat".*outside the 512 x 512 canvas'):
        _layout_of([("a boat", [900, 10, 50, 50])])


def test_sixty_boxes_are_too_many():
    with pytest.raises(P.ReplyError, match="at most 50 objects, the reply has 60"):
        _layout_of([(f"thing {i}", [i, i, 20, 20]) for i in range(60)])


def test_a_reply_that_says_there_are_no_boxes_is_a_background_alone():
    layout = P.to_layout(P.parse("Objects: []\nBackground prompt: A street\nNegative prompt: cars"), 512, 512)
    assert layout.objects == () and layout.negative == "cars" and "no boxes" in layout.notes[0]


@pytest.mark.parametrize("item", [("a", [1, 2, 3]), ("a", "1234"), (3, [1, 2, 3, 4]), "x", ("a", [1, 2, 3, 1e300])])
def test_things_that_are_no_boxes_are_named(item):
    with pytest.raises(P.ReplyError, match="object 1 must be a name and four numbers"):
        _layout_of([item])


_PIECES = st.lists(
    st.sampled_from(
        ["[", "]", "(", ")", "{", "}", "'", '"', ",", ":", "a cat", "1", "-", "0.5", "1e999", "\n", "Objects: ",
         "Objects:", "Background prompt:", "Negative prompt:", "None", "__import__('os')", "*", "#",
         "\\", "name", "box", "\u201c", "%"]
    ),
    max_size=60,
).map("".join)  # fmt: skip


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.one_of(st.text(max_size=200), _PIECES))
def test_any_text_gives_a_layout_or_a_reply_error(text):
    for parser in (P.parse, P.parse_strict):
        try:
            P.to_layout(parser(text), 512, 512)
        except ValueError as error:
            assert str(error)


@pytest.mark.parametrize(
    "text", ["[" * 100_00, "(" * 90_000, "-" * 20_000 + "1", "{'a':" * 5000, "1+" * 20_000 + "1", "[[]," * 9000]
)
def test_deep_nesting_is_an_ordinary_error(text):
    for parser in (P.parse, P.parse_strict):
        with pytest.raises(P.ReplyError):
            parser(text + "Background prompt: A")


def test_nothing_is_executed(tmp_path):
    mark = tmp_path / "mark"
    attack = f"[(open({str(mark)!r}, 'w'), [1, 2, 3, 4])]\nBackground prompt: A\nNegative prompt:"
    for parser in (P.parse, P.parse_strict):
        with pytest.raises(P.ReplyError):
            parser(attack)
    assert not mark.exists()


def test_literal_reader_stops_behind_the_value():
    assert read_literal("x [1, 2] y", 2) == ([1, 2], 8)
    with pytest.raises(LiteralError):
        read_literal("[1 2]", 0)


TWO = [("a cat", [20, 200, 200, 200]), ("a dog", [290, 190, 210, 230])]
_LIST = str(TWO)
_JSON = json.dumps({"objects": [{"name": n, "box": b} for n, b in TWO]})
_COW = "[('a cow', [1, 2, 30, 40])]"
_SINGLES = [f"('{n}', {b})" for n, b in TWO]
_JSON_LINES = [json.dumps({"name": n, "box": b}) for n, b in TWO]
_EXTRA = "\nBackground prompt: A park"


@pytest.mark.parametrize(
    "text",
    [
        f"Draft: {_COW}\nFinal:\n{_LIST}{_EXTRA}",
        f"Objects: {_COW}\n\nBetter:\nObjects: {_LIST}{_EXTRA}",
        f"```json\n{json.dumps({'objects': [{'name': 'a cow', 'box': [1, 2, 3, 4]}]})}\n```\nFinal:\n```json\n{_JSON}\n```",
        f"Draft: [('a cow', [1, 2, 30) hm. Final:\n{_LIST}{_EXTRA}",
        f"Objects: {_LIST}{_EXTRA}\n\nHere [('a dog', [290, 190, 210, 230])] stands on the right.",
        f"Objects: {_LIST}{_EXTRA}\n\nCaption: a boat\nObjects: {_COW}",
        f"{_SINGLES[0]} is on the left, {_SINGLES[1]} on the right.",
    ],
)
def test_the_final_list_counts_and_a_note_says_that_there_were_others(text):
    reply = P.parse(text)
    assert [(n, list(b)) for n, b in reply.boxes] == TWO
    assert reply.notes


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(_SINGLES), ", ".join(_SINGLES), "\n".join(f"{i}. {s}" for i, s in enumerate(_SINGLES, 1)),
        "\n".join(f"- {s}" for s in _SINGLES), "\n".join(f"[{s}]" for s in _SINGLES), "\n".join(_JSON_LINES),
        "\n".join(f"{i}) {s}" for i, s in enumerate(_JSON_LINES, 1)), f"Object 1: {_SINGLES[0]}\nObject 2: {_SINGLES[1]}",
        "{\n\n" + _JSON, "{" + _JSON + "}", json.dumps({"answer": _JSON}), json.dumps([json.loads(_JSON)]),
        json.dumps({"function": {"name": "layout", "arguments": _JSON}}),
        _JSON.replace("20,", '"20px",').replace("[290, 190, 210, 230]", '"290, 190, 210, 230"'),
        json.dumps([{"label": n, "bbox_2d": [x, y, x + w, y + h]} for n, (x, y, w, h) in TWO]),
        _JSON.replace("objects", "\u7269\u4f53").replace("name", "\u540d\u79f0").replace("box", "\u8fb9\u754c\u6846"),
        _JSON.replace('"', "&quot;"),
    ],
)  # fmt: skip
def test_all_of_several_boxes_are_read_in_every_shape(text):
    assert [(n, [float(v) for v in b]) for n, b in P.parse(text).boxes] == TWO


def test_boxes_on_a_grid_of_a_thousand_say_so():
    text = json.dumps([{"box_2d": [250, 500, 750, 1000], "label": "a cat"}])
    layout = P.to_layout(P.parse(text), 512, 768)
    assert layout.objects[0].box.corners == (0.5, 0.25, 1.0, 0.75) and "scale of 0 to 1000" in layout.notes[0]


def _keyed(key, boxes, canvas=(512, 512)):
    named = [{"label": n, key: b} for n, b in zip(("a cat", "a dog"), boxes)]
    layout = P.to_layout(P.parse(json.dumps(named)), *canvas)
    pixels = [[round(v * s, 3) for v, s in zip(o.box.corners, canvas * 2)] for o in layout.objects]
    return pixels, [n for n in layout.notes if "were read as" in n]


@pytest.mark.parametrize("key", ["bbox", "bounding_box", "BBox", "coordinates"])
@pytest.mark.parametrize("scale", [1, 1 / 512])
def test_corners_are_told_from_sizes_by_what_fits_the_canvas(key, scale):
    corners = [[20, 200, 220, 400], [290, 190, 500, 420]]
    boxes, notes = _keyed(key, [[v * scale for v in box] for box in corners])
    assert boxes == corners and len(notes) == 1 and "[left, top, right, bottom]," in notes[0]
    sizes = [[x * scale, y * scale, (right - x) * scale, (bottom - y) * scale] for x, y, right, bottom in corners]
    assert _keyed(key, sizes) == (corners, [])


def test_boxes_that_fit_as_corners_and_as_sizes_stay_sizes_with_a_note_where_it_matters():
    boxes, notes = _keyed("bbox", [[100, 100, 200, 300]])
    assert boxes == [[100, 100, 300, 400]] and len(notes) == 1 and "fit too" in notes[0]
    assert _keyed("bbox", [[0, 0, 200, 300]]) == ([[0, 0, 200, 300]], [])
    assert _keyed("bbox", [[10, 10, 400, 300]]) == ([[10, 10, 410, 310]], [])


def test_boxes_that_fit_neither_way_or_say_that_they_are_sizes_are_not_taken_for_corners():
    outside = [[20, 200, 220, 400], [290, 190, 600, 420]]
    assert _keyed("bbox", outside)[1] == []
    corners = [[20, 200, 220, 400], [290, 190, 500, 420]]
    for key in ("box", "xywh"):
        assert _keyed(key, corners) == _keyed("box", corners) and _keyed(key, corners)[1] == []
    mapping = [dict(zip(("x", "y", "width", "height"), box)) for box in corners]
    assert _keyed("bbox", mapping) == _keyed("box", corners)


def test_boxes_one_by_one_are_told_together():
    text = "\n".join(
        json.dumps({"label": n, "bbox": b}) for n, b in (("a cat", [20, 20, 120, 130]), ("a dog", [290, 190, 500, 420]))
    )
    layout = P.to_layout(P.parse(text), 512, 512)
    assert [round(o.box.corners[2] * 512) for o in layout.objects] == [120, 500]


@pytest.mark.parametrize(
    "text",
    ['{"box": [1, 2, 30, 40]}', '[{"bbox": [1, 2, 30, 40]}]', '{"nom": "a cat", "boite": [1, 2, 30, 40]}',
     '{"coordinates": [1, 2, 30, 40], "size": [1, 2, 3, 4]}', "[('box', [1, 2, 30, 40])]"],
)  # fmt: skip
def test_the_word_for_a_field_is_never_a_name(text):
    with pytest.raises(P.ReplyError, match="no list of boxes"):
        P.parse(text)


@pytest.mark.parametrize(
    ("escaped", "name"),
    [(r"a caf\u00e9", "a caf\u00e9"), (r"a \ud83d\udc31", "a \U0001f431"), (r"a \ud83d!", "a \ufffd!"), (r"a\nb", "a\nb"),
     (r"a \"b\"", 'a "b"'), (r"\xe9", "\xe9"), (r"\u12", "u12"), (r"a\u0000b", "a b")],
)  # fmt: skip
def test_escapes_in_names_are_decoded(escaped, name):
    layout = P.to_layout(P.parse(f'{{"objects": [{{"name": "{escaped}", "box": [1, 2, 30, 40]}}]}}'), 512, 512)
    assert layout.objects[0].phrase == name


def test_a_list_that_is_cut_off_is_never_read_in_part():
    whole = _JSON.replace('"', '"')
    for end in range(whole.index("box") + 3, len(whole) - 2, 7):
        with pytest.raises(P.ReplyError):
            P.parse(whole[:end])
    for end in range(8, len(_LIST) - 1, 5):
        with pytest.raises(P.ReplyError):
            P.parse("Objects: " + _LIST[:end])


@pytest.mark.parametrize(
    "text",
    ["5", "{}", "'x'", "{1: 2}", "[('a', [1, 2, 1e-300, 1e-300])]", "[('a', 5)]", "[5]", "(1, 2)", "[('a', [1, 2, 1e400, 3])]",
     "[('a', [1, 2, True, None])]", "b'x'", "...", "[[[1]]]", "[('a', [1, 2, 3, 10**9])]"],
)  # fmt: skip
def test_the_strict_parser_has_errors_of_its_own_for_any_literal(text):
    for exact in (True, False):
        try:
            P.to_layout(P.parse_strict(f"Objects: {text}\nBackground prompt: A"), 512, 512, exact=exact)
        except P.ReplyError as error:
            assert str(error)


def test_limits_on_a_reply_are_told():
    long = "x" * 1001
    with pytest.raises(P.ReplyError, match="1001 characters, at most 1000"):
        _layout_of([(long, [1, 2, 30, 40])])
    with pytest.raises(P.ReplyError, match="background prompt has 20001 characters"):
        P.to_layout(P.Reply(KITE, "x" * 20_001), 512, 512)


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ([100, 100, 100, 100], [0, 212, 300, 300]),  # at most three times as large, then up to the canvas's bottom
        ([100, 10, 100, 10], [0, 30, 300, 30]),
        ([100, 0.2, 100, 10], [0, 1, 300, 30]),
        ([0, 512, 10, 10], [0, 482, 30, 30]),
        ([-1e20, 0, 1, 1], None),
        ([0, -1e20, 1, 1], None),
    ],
)
def test_the_exact_filter_enlarges_and_moves_unless_told_otherwise(box, kept):
    assert filter_boxes_exact([("a", box)]) == ([("a", kept)] if kept else [])
    assert filter_boxes_exact(None) == []


@pytest.mark.parametrize("box", [[0, 0, 100, 100], [412, 412, 100, 100], [7, 7, 1, 1]])
def test_the_exact_filter_leaves_boxes_on_the_canvas_where_they_are(box):
    assert filter_boxes_exact([("a", box)], scale_boxes=False) == [("a", box)]


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ([0, 0, 5, 0], "no area"),
        ([0, 0, 995, 995], "whole canvas"),
        ([1000, 0, 50, 50], "outside"),
        ([0, 1000, 50, 50], "outside"),
        ([-50, 10, 50, 50], "outside"),
        ([10, -50, 50, 50], "outside"),
        ([0, 0, 100, 1000], ""),
        ([0, 0, 1000, 100], ""),
    ],
)
def test_the_users_filter_at_its_limits(box, said):
    kept, notes = filter_boxes([("a", box)], 1000, 1000)
    assert bool(kept) == (not said) and said in "".join(notes)


def test_a_layout_of_one_and_a_half_canvases_is_the_largest_that_is_shrunk():
    kept, _ = filter_boxes([("a", [10, -64, 128, 128]), ("b", [10, 500, 64, 76])], 512, 512)
    assert [b for _, b in kept] == [pytest.approx([8, 0, 102.4, 102.4]), pytest.approx([8, 451.2, 51.2, 60.8])]
    kept, notes = filter_boxes([("a", [0, 0, 768, 96])], 512, 512)
    assert kept == [("a", pytest.approx([0, 0, 512, 64]))] and "shrunk to 67%" in notes[0]
    wide = [("a", [-300, 10, 350, 40]), ("b", [500, 20, 524, 64]), ("c", [30, -700, 40, 750]), ("d", [20, 500, 64, 99])]
    kept, notes = filter_boxes(wide, 512, 512)
    assert [b for _, b in kept] == [[0, 10, 50, 40], [500, 20, 12, 64], [30, 0, 40, 50], [20, 500, 64, 12]]
    assert "clipped" in notes[0] and "clipped" in filter_boxes([("a", [0, 0, 1024, 96])], 512, 512)[1][0]


def test_a_layout_is_enlarged_to_the_nearer_side_and_at_most_three_times():
    def enlarged(*boxes):
        layout = Layout(512, 512, tuple(LayoutObject("a cat", Box(*b)) for b in boxes))
        return [(o.box.x, o.box.y, o.box.w, o.box.h) for o in fill_canvas(layout).objects]

    assert enlarged((0.4, 0.2, 0.1, 0.1)) == [pytest.approx((0, 0.6, 0.3, 0.3))]
    first, second = enlarged((0.1, 0.1, 0.2, 0.1), (0.6, 0.1, 0.2, 0.1))
    assert first == pytest.approx((0, 1 / 7, 2 / 7, 1 / 7)) and second == pytest.approx((5 / 7, 1 / 7, 2 / 7, 1 / 7))


def test_a_box_of_less_than_a_rounding_error_is_not_enlarged():
    at = next(x for x in (0.67 + i / 1000 for i in range(300)) if x * 768 == math.nextafter(x, 1) * 768)
    side = math.nextafter(at, 1) - at
    for box in (Box(at, at, side, 0.1), Box(at, at, 0.1, side)):
        layout = Layout(768, 768, (LayoutObject("a cat", box),))
        assert fill_canvas(layout) == layout


def test_the_strict_parser_reads_forty_levels_and_says_where_it_stops():
    body = "\nBackground prompt: A"
    assert P.parse_strict("[" * 40 + "]" * 40 + body).boxes
    with pytest.raises(P.ReplyError, match="nested too deeply"):
        P.parse_strict("[" * 41 + "]" * 41 + body)
    for text in ("Objects: [('a', $)]" + body, "[\n('a', $)]" + body):
        with pytest.raises(P.ReplyError) as caught:
            P.parse_strict(text)
        assert caught.value.position == text.index("$")
    with pytest.raises(P.ReplyError) as caught:
        P.parse_strict("[]")
    assert caught.value.position == 0
    assert "(line 2, column 1, near ' ab')" in str(P.ReplyError("m", "\nab", 1))
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ01234567"
    assert f"near {letters[5:55]!r})" in str(P.ReplyError("m", letters, 30))
    assert f"near {letters[:35]!r})" in str(P.ReplyError("m", letters, 10))


def test_a_reply_may_be_as_long_as_the_limit_and_an_answer_no_longer():
    text = "Objects: []\nBackground prompt: A"
    assert P.parse_strict(text.ljust(MAX_REPLY)).background == "A"
    with pytest.raises(P.ReplyError, match="characters, more than"):
        P.parse(Answer("x" * (MAX_REPLY + 1)))
    with pytest.raises(P.ReplyError, match="got 'hello there'"):
        P.parse("hello there")


@pytest.mark.parametrize(
    ("text", "background"),
    [
        ("Background prompt: A street\nObjects: none", "A street"),
        ("Background prompt: A street\nThere are no objects.", "A street There are no objects."),
        (f"Background prompt: A park\nObjects: {TWO}", "A park"),
        (f"Background prompt: a draft\nObjects: {TWO}\nBackground prompt: A park", "A park"),
        (f"It is empty.\nObjects: []{_EXTRA}", "A park"),
        (f"{_SINGLES[0]} is left, {_SINGLES[1]} right.\nBackground: draft\nand ('a cow', [9, 9, 30, 40]).{_EXTRA}", "A park"),
    ],
)  # fmt: skip
def test_the_background_stands_behind_the_list_or_before_it(text, background):
    assert P.parse(text).background == background


def test_an_empty_list_in_a_sentence_is_no_answer():
    with pytest.raises(P.ReplyError, match="no list of boxes"):
        P.parse("A list such as [] holds nothing.")


def test_notes_name_boxes_beside_the_list_but_none_of_a_draft_that_broke_off():
    assert 'beside the list were left out, such as "a bird"' in str(P.parse(f"('a bird', [1, 2, 3, 4]). {TWO}").notes)
    assert P.parse(_SINGLES[0]).notes == ()
    draft = P.parse(f"Draft: [('a bird', [1, 2, 30, 40]), ('a cow', [1, 2, 30) hm. Final:\n{TWO}")
    assert "can't be read" in str(draft.notes) and "beside" not in str(draft.notes)


def test_the_exact_filter_has_the_references_canvas_whatever_the_nodes_is():
    boxes = [("a", [128, 128, 128, 128]), ("thin", [10, 10, 0.3, 50]), ("flat", [10, 10, 50, 0.3])]
    layout = P.to_layout(P.Reply(boxes, "A"), 1024, 768, exact=True)
    assert [o.box.corners for o in layout.objects] == [(0.25, 0.25, 0.5, 0.5)]


def test_a_box_without_area_beside_one_for_the_background_is_still_an_error():
    with pytest.raises(P.ReplyError, match=r"none of the 2 boxes.*no area"):
        _layout_of([("a sky", [0, 0, 512, 512]), ("a", [1, 1, 0, 9])])
    assert _layout_of([("a sky", [0, 0, 512, 512])]).objects == ()


@pytest.mark.parametrize(("text", "start"), [
    ("[]\nBackground prompt: a park", 0),
    ("Here is the layout.\n[]\n" + "words " * 40, 20),
    ("\n[]", 1),
    ("words " * 30 + "\nObjects: []", 190),
    ("words " * 30 + "Objects: []", 189),
    ("words " * 30 + "[]", None),
    ("x [] y", None),
])  # fmt: skip
def test_an_empty_list_counts_alone_on_its_line_or_behind_its_label(text, start):
    found = reply_lists.chosen(text)
    assert (found and found.start) == start
    if found:
        assert found.stop == start + 2 and found.found.boxes == []


def test_lists_of_one_box_each_are_one_list_from_the_first_to_the_last():
    text = (
        "Objects: ('a cat', [1, 2, 30, 40])\n2. ('a dog', [50, 2, 30, 40])\n3. ('a cow', [90, 2, 30, 41])\nThat is all"
    )
    found = reply_lists.chosen(text)
    assert text[found.start :].startswith("('a cat'") and text[: found.stop].endswith(" 41])")
    assert [name for name, _ in found.found.boxes] == ["a cat", "a dog", "a cow"] and found.notes == ()


def test_boxes_with_talk_between_them_are_taken_together_and_it_says_so():
    text = "I put ('a cat', [1, 2, 30, 40]) there, and then ('a dog', [50, 2, 30, 41]) beside it"
    found = reply_lists.chosen(text)
    assert text[found.start :].startswith("('a cat'") and text[: found.stop].endswith(" 41])")
    assert found.notes == ("the reply has no list; the 2 boxes in its sentences were taken together",)


@pytest.mark.parametrize("remark", ["['cat' and 3 more", "('a cat'", "[cat 3, 4"])
def test_a_remark_in_brackets_behind_the_list_hides_nothing(remark):
    assert reply_shapes.looks_like_boxes(remark) and not reply_shapes.looks_like_boxes(remark, surely=True)
    found = reply_lists.chosen(f"Objects: [('a cat', [1, 2, 30, 40])]\n{remark}")
    assert isinstance(found, reply_lists.Listing) and found.notes == ()
