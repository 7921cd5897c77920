"""DPG-Bench scores without the released scorer's defects, beside those with them."""

import pytest
from ella_lmd.evaluation import dpg_bench

HEADER = ["item_id", "text", "keywords", "proposition_id", "dependency", "category_broad", "category_detailed", "tuple",
          "question_natural_language"]  # fmt: skip


def row(item, number, parents, category, question):
    return [item, "", "", str(number), parents, "", "", f"{category} (x)", question]


ROWS = dpg_bench.questions(
    HEADER,
    [
        row("a", 1, "0", "entity - whole", "a1"),
        row("a", 2, "3", "attribute - color", "a2"),
        row("a", 3, "1", "relation - spatial", "a3"),
    ],
)


def answers(table):
    return lambda question, tile: table[question][tile]


def test_zeros_cascade_whatever_the_order_of_the_rows():
    given = answers({"a1": ["no"], "a2": ["yes"], "a3": ["yes"]})
    assert dpg_bench.score(ROWS, given, 1).items == {"a": 0.0}


def test_the_reference_loses_the_first_row_and_fails_where_it_is_a_parent():
    given = answers({"a1": ["yes"], "a2": ["yes"], "a3": ["yes"]})
    assert dpg_bench.score(ROWS, given, 1).mean == 1.0
    assert dpg_bench.score(ROWS, given, 1, reference=True).failed == {"a": "question 1 is missing"}


def test_categories_are_pooled_over_all_tiles():
    given = answers({"a1": ["yes", "no"], "a2": ["yes", "no"], "a3": ["no", "no"]})
    report = dpg_bench.score(ROWS, given, 2)
    assert report.detailed == {"entity - whole": 0.5, "attribute - color": 0.5, "relation - spatial": 0.0}
    assert report.broad == {"entity": 0.5, "attribute": 0.5, "relation": 0.0}
    assert report.tiles == {"a": [1 / 3, 0.0]}


def test_only_an_exact_yes_counts():
    given = answers({"a1": ["Yes."], "a2": ["yes"], "a3": ["yes"]})
    assert dpg_bench.score(ROWS, given, 1).items["a"] == 0.0


def test_a_missing_column_is_named():
    with pytest.raises(ValueError, match="dependency"):
        dpg_bench.questions([h for h in HEADER if h != "dependency"], [])
