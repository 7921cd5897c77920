"""Which tokens of the prompt are guided: each phrase has its own, however the phrases look."""

import folder_paths
import pytest
import torch
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.prompts import overall_prompt
from ella_lmd.lmd.sampling.tokens import PhraseNotFound
from ella_lmd.nodes.host.guidance.token_positions import guided_objects, offset_in, shifted, token_content, tokenizer
from safetensors.torch import save_file


@pytest.fixture(scope="module")
def clip(sd15, tmp_path_factory):
    """The CLIP with three textual inversions installed; "wide" belongs to another family."""
    folder = tmp_path_factory.mktemp("embeddings")
    generator = torch.Generator().manual_seed(5)
    for name, shape in (("mycat", (3, 768)), ("sks", (1, 768)), ("wide", (2, 512))):
        save_file({"emb_params": torch.randn(*shape, generator=generator)}, folder / f"{name}.safetensors")
    folder_paths.add_model_folder_path("embeddings", str(folder), is_default=True)
    tokenizers = sd15[1].tokenizer.clip_l
    before = tokenizers.embedding_directory
    tokenizers.embedding_directory = folder_paths.get_folder_paths("embeddings")
    yield sd15[1]
    tokenizers.embedding_directory = before


def guided(clip, phrases, prompt="", background="a photo of a park"):
    """Per guided object: (its words in the encoded prompt, its positions, its box's left edge)."""
    boxes = [Box(i / len(phrases), 0.3, 0.9 / len(phrases), 0.5) for i in range(len(phrases))]
    overall = overall_prompt(Layout(128, 128, tuple(map(LayoutObject, phrases, boxes)), background))
    text = prompt or overall.prompt
    vocabulary = clip.tokenizer.clip_l.inv_vocab
    at = {p: vocabulary.get(t, "*").removesuffix("</w>") for p, t in tokenizer(clip)(text)}
    found = guided_objects(overall.groups, text, tokenizer(clip))
    assert all(o.word in o.positions for o in found)
    return [(" ".join(at[p] for p in o.positions), o.positions, o.boxes[0].x) for o in found]


PAIRS = [
    (["a man in a red hat", "a red hat"], ["a man in a red hat", "a red hat"], ""),
    (["a table"], ["a table"], "a kitchen with a table and chairs"),
    (["A cat", "a cat"], ["a cat", "a cat"], ""),
    (["(a red cat:1.3)", "a red cat"], ["a red cat", "a red cat"], ""),
    (['a sign that says "OPEN"', "zebra"], ['a sign that says " open "', "zebra"], ""),
    (["a cat!", "zebra"], ["a cat !", "zebra"], ""),
    (["a cat :)", "(a zebra:1.2)"], ["a zebra", "a cat :)"], ""),
    (["a cat \\(toy\\)", "zebra"], ["a cat ( toy )", "zebra"], "a shop (night"),
    (["a glass 50%", "a clock: 10:30"], ["a clock : 1 0 : 3 0", "a glass 5 0 %"], ""),
    (["a embedding:sks", "a dog"], ["a dog", "a *"], ""),
    (["a embedding:mycat cat", "a embedding:sks cat"], ["a * * * cat", "a * cat"], "a embedding:sks cat cafe"),
]


@pytest.mark.parametrize(("phrases", "words", "background"), PAIRS, ids=[p[0][0] for p in PAIRS])
def test_each_phrase_of_the_packs_own_prompt_has_its_own_tokens(clip, phrases, words, background):
    found = guided(clip, phrases, background=background or "a photo of a park")
    assert [w for w, _, _ in found] == words
    positions = [p for _, own, _ in found for p in own]
    assert len(set(positions)) == len(positions)
    if background:  # the scene stands before the things
        assert min(positions) >= 2 + len(background.split())


@pytest.mark.parametrize("end", ["!", "%", '"', "🐶", "]", ")", "(", ":(", "...", "—", "\\", "ّ", "👨‍👩‍👧", "猫", "の"])
@pytest.mark.parametrize("weight", ["", "(%s:1.2)"])
def test_no_ending_of_a_phrase_is_lost_in_the_comma(clip, end, weight):
    phrase = weight % f"a cat {end}" if weight else f"a cat {end}"
    first, second = guided(clip, [phrase, "zebra"], background="a shop ) (at night")
    assert "a cat" in first[0] and len(first[1]) > 2 and second[0] == "zebra"


def test_positions_run_on_in_the_next_chunk(clip):
    (_, first, _), (_, second, _) = guided(clip, ["a red cat", "a red cat "], background="very " * 90 + "big park")
    assert first[0] > 77 and second[0] > first[-1]


def test_the_nth_box_has_the_nth_mention_in_a_users_prompt(clip):
    prompt = "a cat on the left, a red car, and another cat, with a cat on the right"
    found = guided(clip, ["a cat", "a cat", "a red car"], prompt)
    assert found == [("a cat", (1, 2), 0.0), ("a cat", (16, 17), 1 / 3), ("a red car", (7, 8, 9), 2 / 3)]
    one = guided(clip, ["a cat", "a cat"], "a cat in a park")
    assert one == [("a cat", (1, 2), 0.0)], "both boxes share the only mention"
    assert [f[0] for f in guided(clip, ["a cat", "a cat"], "two cats, a cat")] == ["two cats"]


def test_a_phrase_inside_another_one_takes_its_own_mention(clip, caplog):
    hats = ["a red hat", "a man in a red hat"]
    by_words = {w: p for w, p, _ in guided(clip, hats, "a man in a red hat beside a red hat")}
    assert by_words == {"a man in a red hat": (1, 2, 3, 4, 5, 6), "a red hat": (8, 9, 10)}
    assert [p[0] for _, p, _ in guided(clip, ["A cat", "a cat"], "a cat and a cat")] == [1, 4]
    assert "shares its words" not in caplog.text
    guided(clip, hats, "a man in a red hat")
    assert '"a red hat" shares its words' in caplog.text


def test_textual_inversions_are_compared_by_what_they_hold(clip):
    """By identity they would be found, not found, or taken for another one, as memory happens to be used."""
    for _ in range(5):
        assert guided(clip, ["a embedding:sks"], "a park with a embedding:sks")[0][1] == (4, 5)
        with pytest.raises(PhraseNotFound):
            guided(clip, ["a embedding:sks"], "a park with a embedding:mycat")


def test_a_textual_inversion_that_the_host_leaves_out_moves_nothing(clip):
    with_it = guided(clip, ["a cat"], background="a embedding:wide park")
    assert with_it == guided(clip, ["a cat"], background="a park")
    with pytest.raises(PhraseNotFound, match="not installed or belongs to another model"):
        guided(clip, ["embedding:wide", "a cat"])


def test_a_longer_phrase_chooses_before_one_that_it_contains(clip, caplog):
    found = guided(clip, ["a hat", "a hat box"], "a hat box and a hat")
    assert [(w, positions[0]) for w, positions, _ in found] == [("a hat", 5), ("a hat box", 1)]
    assert "shares its words" not in caplog.text


def cats(clip, count, prompt):
    """The guided objects of a layout of `count` cats in a user's prompt."""
    boxes = tuple(LayoutObject("a cat", Box(i / count, 0.3, 0.2, 0.5)) for i in range(count))
    groups = overall_prompt(Layout(128, 128, boxes, "a photo of a park")).groups
    return guided_objects(groups, prompt, tokenizer(clip))


def test_a_group_with_one_mention_keeps_its_phrase_and_its_boxes(clip):
    (found,) = cats(clip, 2, "two cats in a park with two cats")
    assert found.phrase == "two cats" and found.positions == (1, 2) and len(found.boxes) == 2


def test_boxes_beyond_the_last_mention_share_it(clip):
    first, second = cats(clip, 3, "a cat beside a cat")
    assert (first.positions, second.positions) == ((1, 2), (4, 5))
    moved = shifted((first,), 64)[0]
    assert moved.positions == (65, 66) and moved.word == first.word + 64 == 66
    assert [b.x for b in first.boxes] == [0] and [round(b.x, 2) for b in second.boxes] == [0.33, 0.67]


def test_tokens_are_compared_by_content_whatever_they_are():
    assert token_content([1, 2]) == token_content([1, 2]) != token_content([1, 3])
    assert {token_content([1, 2]), token_content({"a": torch.ones(2)}), token_content(7)}


def test_an_encoding_is_found_at_its_own_place_or_not_at_all():
    own, other = torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 4, 8)
    twice = own.expand(2, -1, -1)
    assert offset_in(own, own) == 0
    assert offset_in(torch.cat([other, twice], 1), own) == 4
    assert offset_in(torch.cat([other, twice, other], 1), own) == 4
    assert offset_in(other, own) is None and offset_in(own[:, :2], own) is None
    assert offset_in(torch.cat([twice[:1], other[1:, :3]]), own) is None  # not in every row
    assert offset_in(own[..., :1].expand(-1, -1, 4), own[..., :1].expand(-1, -1, 8)) is None  # another width
