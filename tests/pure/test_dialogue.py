"""The talk with a language model: what is asked, asked again, chosen, repaired and kept."""

import json

import pytest
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.planner import request
from ella_lmd.lmd.planner.dialogue import NoLayoutError, Request, converse
from ella_lmd.lmd.planner.keep_unspoken import keep_unspoken
from ella_lmd.lmd.planner.reply import parse, to_layout

GOOD = "Objects: [('a cat', [20, 200, 200, 200]), ('a dog', [290, 190, 210, 230])]\nBackground prompt: A park\nNegative prompt:"
SWAPPED = GOOD.replace("[20,", "[300,").replace("[290,", "[10,")
PROMPT = "a cat to the left of a dog in a park"


def scripted(*replies):
    """A model that says these things in order, and what it was asked."""
    asked = []

    def ask(messages):
        asked.append([dict(m) for m in messages])
        return replies[len(asked) - 1]

    return ask, asked


def test_a_good_answer_is_asked_once():
    ask, asked = scripted(GOOD)
    out = converse(ask, Request(PROMPT))
    assert len(asked) == 1 and out.asked == out.repaired == out.left == ()
    assert [o.phrase for o in out.layout.objects] == ["a cat", "a dog"] and out.layout.notes == ()
    assert "reply 1: Objects:" in out.report[0]


def test_a_faulty_answer_is_asked_once_more_with_its_faults_named():
    ask, asked = scripted(SWAPPED, GOOD)
    out = converse(ask, Request(PROMPT))
    assert len(asked) == 2 and asked[1][-2] == {"role": "assistant", "content": SWAPPED}
    assert '"a cat" must be left of "a dog"' in asked[1][-1]["content"]
    assert out.repaired == () and out.first.objects[0].box.x > 0.5 > out.layout.objects[0].box.x
    assert [line.split(":")[0] for line in out.report] == ["reply 1", "asked again", "reply 2"]


def test_geometry_that_stays_wrong_is_mended_and_said():
    ask, _ = scripted(SWAPPED, SWAPPED)
    out = converse(ask, Request(PROMPT))
    assert out.layout.objects[0].box.x < out.layout.objects[1].box.x and out.left == ()
    assert out.repaired and out.layout.notes[0].startswith("repaired: ")
    ask, _ = scripted(SWAPPED, SWAPPED)
    out = converse(ask, Request(PROMPT, repair=False))
    assert out.layout.objects[0].box.x > out.layout.objects[1].box.x
    assert out.left and out.layout.notes[0].startswith("still wrong: ")


def test_a_missing_thing_is_never_invented_by_the_repair():
    only = "Objects: [('a cat', [20, 200, 200, 200])]\nBackground prompt: A park\nNegative prompt:"
    ask, _ = scripted(only, only)
    out = converse(ask, Request(PROMPT))
    assert [o.phrase for o in out.layout.objects] == ["a cat"]
    assert "dog is missing" in out.left[0] and "still wrong" in out.layout.notes[0]


def test_the_better_of_two_answers_is_taken():
    worse = "Objects: []\nBackground prompt: A park\nNegative prompt:"
    ask, _ = scripted(SWAPPED, worse)
    assert len(converse(ask, Request(PROMPT, repair=False)).layout.objects) == 2


def test_an_answer_that_cannot_be_read_is_asked_again_and_at_last_an_error_that_shows_it():
    ask, asked = scripted("I would rather talk about boats.", GOOD)
    out = converse(ask, Request(PROMPT))
    assert out.first is None and "can't be read" in asked[1][-1]["content"] and len(out.layout.objects) == 2
    ask, _ = scripted("I would rather talk about boats.", "")
    with pytest.raises(NoLayoutError, match="reply is empty"):
        converse(ask, Request(PROMPT))
    ask, _ = scripted("", "talk about boats")
    with pytest.raises(NoLayoutError, match="talk about boats.*larger model"):
        converse(ask, Request(PROMPT))


@pytest.mark.parametrize("reasks", [0, 3])
def test_the_number_of_re_asks_is_kept(reasks):
    ask, asked = scripted(*[SWAPPED] * 4)
    converse(ask, Request(PROMPT, reasks=reasks))
    assert len(asked) == reasks + 1


def test_both_forms_of_the_request_are_consistent():
    for as_json in (False, True):
        messages = Request(PROMPT, 768, 512, 7, as_json=as_json).messages()
        assert len(messages) == 16 and "English" in messages[0]["content"]
        for user, answer, example in zip(messages[1::2], messages[2::2], request.EXAMPLES):
            layout = to_layout(parse(answer["content"]), 768, 512)
            assert len(layout.objects) == len(example.objects) and layout.notes == ()
            assert (layout.background, layout.negative) == (example.background, example.negative)
            assert example.caption in user["content"] and example.caption in answer["content"]
    assert json.loads(answer["content"]).keys() == request.schema()["properties"].keys()
    assert list(request.schema()["properties"])[0] == "caption"
    assert "The form of the answer" in Request(PROMPT, examples=0).messages()[0]["content"]


@pytest.mark.parametrize(
    "prompt",
    ["\u4e00\u53ea\u732b\u5728\u72d7\u7684\u5de6\u8fb9", "\u72ac\u306e\u5de6\u306b\u732b", "\uac1c \uc67c\ucabd\uc5d0 \uace0\uc591\uc774", "eine Katze links neben einem Hund", "un gato a la izquierda de un perro"],
)  # fmt: skip
def test_any_language_gives_an_english_layout_without_false_alarms(prompt):
    ask, asked = scripted(GOOD)
    out = converse(ask, Request(prompt))
    assert prompt in asked[0][-1]["content"] and "in English, whatever language" in asked[0][0]["content"]
    assert len(asked) == 1 and [o.phrase for o in out.layout.objects] == ["a cat", "a dog"]
    assert out.layout.prompt == prompt and "not in English" in out.layout.notes[0]


def before() -> Layout:
    things = [("a cat", 300, 200, 150, 151), ("a dog", 30.3, 180, 180, 201), ("a blue ball", 200, 400, 61, 60)]
    return Layout(
        512, 512, tuple(LayoutObject(n, Box(*(v / 512 for v in b))) for n, *b in things), "A park", "people", "pets"
    )


EDITED = (
    "Objects: [('a dog', [310, 182, 180, 200]), ('a cat', [20, 200, 150, 150]), ('a blue ball', [100, 100, 90, 90]), "
    "('a red ball', [220, 410, 70, 70])]\nBackground prompt: A garden\nNegative prompt: cars"
)


def test_a_change_keeps_what_it_does_not_speak_of_box_for_box():
    ask, asked = scripted(EDITED)
    change = "move the dog to the right of the cat, add a red ball"
    out = converse(ask, Request("", 512, 512, previous=before(), change=change))
    got = {o.phrase: o.box for o in out.layout.objects}
    assert list(got) == ["a cat", "a dog", "a blue ball", "a red ball"]
    assert got["a blue ball"] == before().objects[2].box, "the blue ball was not spoken of"
    assert got["a dog"].x == pytest.approx(310 / 512)
    assert (out.layout.background, out.layout.negative) == ("A park", "people")
    assert out.layout.prompt == f"pets; {change}"
    assert change in asked[0][-1]["content"] and "a blue ball" in asked[0][-2]["content"]


def test_a_change_that_is_not_done_is_asked_again():
    ask, asked = scripted(EDITED, EDITED)
    out = converse(ask, Request("", previous=before(), change="move the dog to the left of the cat"))
    assert '"a dog" must be left of "a cat"' in asked[1][-1]["content"] and out.repaired == ()


def test_what_a_change_takes_away_is_gone_and_what_the_model_forgot_comes_back():
    reply = "Objects: [('a dog', [30, 180, 180, 201])]\nBackground prompt: A park at night\nNegative prompt: people"
    new = keep_unspoken(before(), to_layout(parse(reply), 512, 512), "remove the cat and make it night")
    assert [o.phrase for o in new.objects] == ["a dog", "a blue ball"]
    assert new.objects[0] == before().objects[1], "rounding to whole pixels is undone"
    assert new.background == "A park at night"


def test_a_change_in_another_language_or_of_everything_is_left_to_the_model():
    new = to_layout(parse(EDITED), 512, 512)
    for change in ("\u628a\u72d7\u79fb\u5230\u53f3\u8fb9", "make everything smaller"):
        assert keep_unspoken(before(), new, change).objects == new.objects


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ("add a second dog", {"a cat", "a dog", "a blue ball"}),
        ("make the kitten larger", {"a dog", "a blue ball"}),
        ("move the blue ball up and add a cat", {"a cat", "a dog"}),
        ("paint the ball red", {"a cat", "a dog"}),
    ],
)
def test_what_a_change_speaks_of(change, kept):
    moved = [LayoutObject(o.phrase, Box(0.7, 0.7, 0.2, 0.2)) for o in before().objects]
    new = keep_unspoken(before(), Layout(512, 512, tuple(moved)), change)
    old = {o.phrase: o.box for o in before().objects}
    assert {o.phrase for o in new.objects if o.box == old[o.phrase]} == kept
