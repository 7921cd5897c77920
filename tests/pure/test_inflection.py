"""Number in English: every plural that a caption is likely to hold has its singular, and back."""

import pytest
from ella_lmd.lmd.english import inflection

PAIRS = """
    cat cats, bus buses, glass glasses, lens lenses, canvas canvases, gas gases, box boxes, dress dresses, wolf wolves,
    leaf leaves, loaf loaves, knife knives, chef chefs, roof roofs, dove doves, glove gloves, olive olives, hive hives,
    beehive beehives, cave caves, wave waves, stove stoves, archive archives, cookie cookies, movie movies, pie pies,
    tie ties, brownie brownies, zombie zombies, selfie selfies, hoodie hoodies, smoothie smoothies, fairy fairies,
    lady ladies, axe axes, shoe shoes, horseshoe horseshoes, toe toes, canoe canoes, vase vases, purse purses,
    goose geese, mouse mice, child children, man men, woman women, foot feet, tooth teeth, potato potatoes,
    tomato tomatoes, photo photos, piano pianos
"""


@pytest.mark.parametrize("pair", [p.split() for p in PAIRS.replace("\n", " ").split(",")], ids=lambda p: p[0])
def test_singular_and_plural_are_each_others_inverse(pair):
    one, many = pair
    assert inflection.singular(many) == one and inflection.plural(one) == many
    assert inflection.singular(one) is None


@pytest.mark.parametrize(("many", "one"), [("cacti", "cactus"), ("octopi", "octopus"), ("oxen", "ox"), ("dice", "die")])
def test_learned_plurals_are_read(many, one):
    assert inflection.singular(many) == one


@pytest.mark.parametrize("word", ["sheep", "deer", "scissors", "jeans", "bus", "tennis", "walrus", "princess", "cat's"])
def test_what_looks_like_a_plural_and_is_none(word):
    assert inflection.singular(word) is None
