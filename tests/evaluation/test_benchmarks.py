"""The benchmarks' formats, questions and scores."""

import csv
import json
import math

import pytest
from ella_lmd.evaluation import layouts, lmd_benchmark
from ella_lmd.evaluation.benchmarks import BENCHMARKS, benchmark, geneval, lmd
from ella_lmd.evaluation.benchmarks.base import ASK, COLOUR, DETECT, PROBABILITY, Item, Question
from ella_lmd.lmd.layout import Box, Layout

DPG_HEADER = ["item_id", "text", "keywords", "proposition_id", "dependency", "category_broad", "category_detailed", "tuple",
              "question_natural_language"]  # fmt: skip


def seen(label, box, score=0.9, by="owlvit"):
    return {"label": label, "score": score, "box": box, "by": by}


def answered(item, name, reply):
    """Answers to everything that the benchmark asks, by `reply(question)`; how many rounds of questions it took."""
    answers, rounds = {}, 0
    while new := [q for q in benchmark(name).questions(item, answers) if q not in answers]:
        answers |= {q: reply(q) for q in new}
        rounds += 1
    return answers, rounds


# ------------------------------------------------------------------------------------------------------- LMD


def test_lmds_detector_path_reproduces_the_reference(shared):
    """The predicates from detections, and the filter, as the published evaluation has them."""
    for case in json.loads((shared / "golden/lmd/benchmark_eval.json").read_text())["cases"]:
        given, wanted = case["input"], case["expected"]
        if given["op"] == "nms" and given["class_aware"]:
            rows = zip(given["labels"], given["boxes_xyxy_norm"], given["scores"], strict=True)
            found = lmd.kept([seen(*row) for row in rows], 0.0, given["threshold"])
            assert [d["score"] for d in found] == wanted["scores"] and [d["label"] for d in found] == wanted["labels"]
            assert [d["box"] for d in found] == [pytest.approx(b, abs=1e-9) for b in wanted["boxes"]]
        elif given["op"] == "predicate":
            item = Item("0", wanted["type"], given["prompt"])
            (question,) = BENCHMARKS["lmd"].questions(item, {})
            assert question["queries"] == wanted["detector_queries"]
            # A detection bears its query's text, so only boxes that are named as the query says can be detected.
            queries = [q.removeprefix("a photo of ") for q in question["queries"]]
            named = [(name, Box(*(v / 512 for v in box))) for name, box in given["boxes"]]
            if all(name in queries for name, _ in named):
                apart = all(a.iou(b) < 0.15 for i, (_, a) in enumerate(named) for _, b in named[:i])
                detections = [seen(queries.index(n), list(b.corners), 0.9 - i / 100) for i, (n, b) in enumerate(named)]
                if apart:
                    verdict = BENCHMARKS["lmd"].verdict(item, {question: detections}, "x")
                    assert bool(verdict.score) is wanted["success"], case["id"]


def test_lmd_counts_detections_above_the_threshold_without_doubles():
    item = Item("0", "numeracy", "A realistic photo of a scene with two cups")
    (question,) = BENCHMARKS["lmd"].questions(item, {})
    two = [seen(0, [0.1, 0.1, 0.3, 0.3]), seen(0, [0.6, 0.6, 0.9, 0.9], 0.2)]
    noise = [seen(0, [0.11, 0.1, 0.31, 0.3], 0.5), seen(0, [0.4, 0.1, 0.5, 0.2], 0.14)]
    assert BENCHMARKS["lmd"].verdict(item, {question: two + noise}, "x").score == 1
    assert BENCHMARKS["lmd"].verdict(item, {question: two[:1] + noise}, "x").score == 0


def test_published_replies_become_the_published_layouts(shared):
    """396 of GPT-3.5's 400 are right, as published; a repeated prompt takes its next reply."""
    source = layouts.layout_source(f"replies:{shared / 'data/lmd_replies_gpt-3.5-turbo.json'}")
    right, last = 0, {}
    for item in BENCHMARKS["lmd"].items(None):
        layout = source(item, 512, 512)
        assert Layout.from_json(json.loads(json.dumps(layouts.exact_json(layout)))) == layout
        right += lmd_benchmark.predicate(item.prompt, layout)
        last[item.prompt] = item
    assert right == 396
    with pytest.raises(ValueError, match="has 10 replies to this prompt, this is the 11th"):
        source(next(iter(last.values())), 512, 512)


# ------------------------------------------------------------------------------------------------------- DPG


def dpg_rows(case):
    """A golden case's rows and its answers, with every question's text made its own item's."""
    return [dict(zip(case["csv_header"], row, strict=True)) for row in case["csv_rows"]]


def write_dpg(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def test_dpg_scores_are_the_references(shared, tmp_path):
    for case in json.loads((shared / "golden/ella/dpg_scoring.json").read_text())["cases"]:
        path = tmp_path / f"{case['name']}.csv"
        write_dpg(path, case["csv_header"], case["csv_rows"])
        items = {item.id: item for item in BENCHMARKS["dpg"].items(path)}
        found = {
            name: [
                {q: case["answers"][q["question"]][tile] for q in BENCHMARKS["dpg"].questions(item, {})}
                for tile in range(case["pic_num"])
            ]
            for name, item in items.items()
        }
        told = BENCHMARKS["dpg"].further(found, items)
        per_item = case["expected"]["per_item"]
        scores = [entry["score"] for entry in per_item.values()]
        assert told["DPG score, as the released scorer"] == pytest.approx(100 * sum(scores) / len(scores)), case["name"]
        for name, entry in per_item.items():
            if any(name == row[0] for row in case["csv_rows"][:1]):
                continue  # its first question is lost in the released scorer
            verdicts = [BENCHMARKS["dpg"].verdict(items[name], answers, "x").score for answers in found[name]]
            assert verdicts == pytest.approx(entry["per_image"]), (case["name"], name)


def dpg_file(tmp_path):
    rows = [
        ["a1", "A red cat, long told", "", "1", "0", "", "", "entity - whole (cat)", "Is there a cat?"],
        ["a1", "A red cat, long told", "", "2", "1", "", "", "attribute - color (cat, red)", "Is it red?"],
        ["b2", "", "", "1", "0", "", "", "entity - whole (dog)", "Is there a dog?"],
    ]
    write_dpg(tmp_path / "dpg_bench.csv", DPG_HEADER, rows)
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "b2.txt").write_text("A dog from its own file\n")
    return rows


def test_dpg_reads_its_files_and_applies_the_dependencies(tmp_path):
    rows = dpg_file(tmp_path)
    first, second = BENCHMARKS["dpg"].items(tmp_path)
    assert (first.prompt, second.prompt) == ("A red cat, long told", "A dog from its own file")
    assert [q["question"] for q in BENCHMARKS["dpg"].questions(first, {})] == ["Is there a cat?", "Is it red?"]
    answers, _ = answered(first, "dpg", lambda q: "yes" if q["question"] == "Is it red?" else "no")
    verdict = BENCHMARKS["dpg"].verdict(first, answers, "x")
    assert verdict.score == 0 and verdict.parts == (("entity", 0.0), ("attribute", 1.0))  # categories are raw
    as_json = [dict(zip(DPG_HEADER, row, strict=True)) for row in rows[:2]]
    (tmp_path / "x.json").write_text(json.dumps(as_json))
    assert BENCHMARKS["dpg"].items(tmp_path / "x.json") == [first]


def test_dpg_files_that_cant_be_read_are_named(tmp_path):
    with pytest.raises(ValueError, match="--source"):
        BENCHMARKS["dpg"].items(None)
    write_dpg(tmp_path / "dpg_bench.csv", DPG_HEADER[:-1], [["x"] * 8])
    with pytest.raises(ValueError, match="question_natural_language"):
        BENCHMARKS["dpg"].items(tmp_path)
    write_dpg(tmp_path / "dpg_bench.csv", DPG_HEADER, [["x"] * 8])
    with pytest.raises(ValueError, match="row 2, has 8 columns"):
        BENCHMARKS["dpg"].items(tmp_path)


def test_a_prompts_file_is_looked_for_in_its_folder_only(tmp_path):
    (tmp_path / "secret.txt").write_text("not a prompt")
    write_dpg(tmp_path / "dpg_bench.csv", DPG_HEADER, [["../secret", "", "", "1", "0", "", "", "entity", "Is it?"]])
    with pytest.raises(ValueError, match="the prompt of ../secret"):
        BENCHMARKS["dpg"].items(tmp_path)


# ---------------------------------------------------------------------------------------------------- GenEval


def geneval_item(tmp_path, **record):
    path = tmp_path / "evaluation_metadata.jsonl"
    path.write_text(json.dumps({"tag": "x", "prompt": "a photo", "include": []} | record) + "\n")
    (item,) = BENCHMARKS["geneval"].items(tmp_path)
    return item


LEFT, RIGHT = [0.1, 0.4, 0.3, 0.6], [0.7, 0.4, 0.9, 0.6]


def geneval_score(item, detections, colour="red", rounds=None):
    def reply(question):
        return detections if question.kind == DETECT else colour

    answers, took = answered(item, "geneval", reply)
    assert rounds is None or took == rounds
    return BENCHMARKS["geneval"].verdict(item, answers, "x").score


def test_geneval_counts_with_what_is_excluded(tmp_path):
    item = geneval_item(
        tmp_path, tag="counting", include=[{"class": "apple", "count": 2}], exclude=[{"class": "apple", "count": 3}]
    )
    assert BENCHMARKS["geneval"].questions(item, {})[0]["queries"] == ["a photo of a apple"]
    apples = [seen(0, [x, 0.1, x + 0.2, 0.3]) for x in (0.0, 0.4, 0.8)]
    assert [geneval_score(item, apples[:n]) for n in range(4)] == [0, 0, 1, 0]


def test_genevals_own_detector_keeps_its_published_thresholds(tmp_path):
    item = geneval_item(tmp_path, tag="counting", include=[{"class": "apple", "count": 1}])
    assert geneval_score(item, [seen(0, LEFT, 0.8)]) == 1
    assert geneval_score(item, [seen(0, LEFT, 0.8, by="mask2former")]) == 0
    assert geneval_score(item, [seen(0, LEFT, 0.95, by="mask2former")]) == 1


def test_geneval_asks_for_the_colours_of_what_was_found(tmp_path):
    item = geneval_item(tmp_path, tag="colors", include=[{"class": "cup", "count": 1, "color": "red"}])
    assert geneval_score(item, [seen(0, LEFT)], "red", rounds=2) == 1
    assert geneval_score(item, [seen(0, LEFT)], "blue", rounds=2) == 0
    assert geneval_score(item, [], rounds=1) == 0
    (_, colour) = BENCHMARKS["geneval"].questions(item, {BENCHMARKS["geneval"].questions(item, {})[0]: [seen(0, LEFT)]})
    assert colour.kind == COLOUR and colour["box"] == LEFT and "red" in colour["colours"]


def test_geneval_positions_are_seen_from_the_other_object(tmp_path):
    include = [{"class": "cup", "count": 1}, {"class": "dog", "count": 1, "position": ["right of", 0]}]
    item = geneval_item(tmp_path, tag="position", include=include)
    assert geneval_score(item, [seen(0, LEFT), seen(1, RIGHT)]) == 1
    assert geneval_score(item, [seen(0, RIGHT), seen(1, LEFT)]) == 0
    assert geneval_score(item, [seen(1, RIGHT)]) == 0


def test_geneval_relations_leave_near_objects_alone():
    assert geneval.relations(LEFT, RIGHT) == {"left of"}
    assert geneval.relations([0.4, 0.0, 0.6, 0.2], [0.4, 0.8, 0.6, 1.0]) == {"above"}
    assert geneval.relations(LEFT, LEFT) == geneval.relations([0.11, 0.4, 0.31, 0.6], LEFT) == set()
    assert geneval.relations([0.6, 0.6, 0.9, 0.9], [0.0, 0.0, 0.3, 0.3]) == {"right of", "below"}


def test_a_geneval_line_that_lacks_something_is_named(tmp_path):
    with pytest.raises(ValueError, match="line 1, lacks what GenEval needs: KeyError"):
        geneval_item(tmp_path, include=[{"class": "cup"}])


# -------------------------------------------------------------------------------------------- GenEval 2, 7Bench


def test_geneval2_takes_the_geometric_mean_of_its_atoms(tmp_path):
    record = {
        "prompt": "two metal toys", "atom_count": 3, "skills": ["count", "attribute", "object"],
        "vqa_list": [["How many toys are in the image?", "two"], ["Are the toys metal?", "Yes"], ["Are there any toys?", "Yes"]],
    }  # fmt: skip
    (tmp_path / "geneval2_data.jsonl").write_text(json.dumps(record) + "\n")
    (item,) = BENCHMARKS["geneval2"].items(tmp_path)
    count, metal, _ = BENCHMARKS["geneval2"].questions(item, {})
    assert count.kind == PROBABILITY and count["question"] == "How many toys are in the image? Answer in one word."
    assert set(count["answers"]) == {"two", " two", "Two", " Two", "2", " 2"}
    assert set(metal["answers"]) == {"Yes", " Yes", "yes", " yes"}
    values = iter((0.5, 0.8, 1.0))
    answers, _ = answered(item, "geneval2", lambda q: next(values))
    verdict = BENCHMARKS["geneval2"].verdict(item, answers, "x")
    assert verdict.score == pytest.approx(math.prod((0.5, 0.8, 1.0)) ** (1 / 3)) and item.task == "atoms 3"
    assert verdict.parts == (("count", 0.5), ("attribute", 0.8), ("object", 1.0))


SEVEN = """id,category,prompt,obj1,bbox1,obj2,bbox2,obj3,bbox3,obj4,bbox4
008,object_binding,A red spider and a clock,spider,"256,256,512,512",clock,"(0, 0, 256, 256)",,,,
"""


def test_sevenbench_gives_its_layout_and_scores_overlap(tmp_path):
    (tmp_path / "7bench.csv").write_text(SEVEN)
    (item,) = BENCHMARKS["7bench"].items(tmp_path)
    layout = Layout.from_json(item.layout)
    assert [(o.phrase, o.box.corners) for o in layout.objects] == [
        ("a red spider", (0.5, 0.5, 1, 1)), ("a clock", (0, 0, 0.5, 0.5)),
    ]  # fmt: skip
    (question,) = BENCHMARKS["7bench"].questions(item, {})
    assert question["queries"] == ["a photo of a red spider", "a photo of a clock"]

    def score(*found):
        return BENCHMARKS["7bench"].verdict(item, {question: list(found)}, "x").score

    exact, half = seen(0, [0.5, 0.5, 1, 1]), seen(1, [0, 0, 0.25, 0.5])
    assert score() == 0 and score(exact) == pytest.approx(0.5)
    assert score(exact, half, seen(1, [0.8, 0.8, 0.9, 0.9])) == pytest.approx((9 / 9 + 5 / 9) / 2)
    (tmp_path / "7bench.csv").write_text(SEVEN.replace("256,256,512,512", "256,256,256,256"))
    (dot,) = BENCHMARKS["7bench"].items(tmp_path)
    assert [o["phrase"] for o in dot.layout["objects"]] == ["a clock"]
    (question,) = BENCHMARKS["7bench"].questions(dot, {})
    clock = {question: [seen(0, [0, 0, 0.5, 0.5])]}
    assert BENCHMARKS["7bench"].verdict(dot, clock, "x").score == 0.5, "an empty box counts as missed"
    with pytest.raises(ValueError, match="row 2: a box needs four numbers"):
        (tmp_path / "7bench.csv").write_text(SEVEN.replace("256,256,512,512", "256,256,512"))
        BENCHMARKS["7bench"].items(tmp_path)


def test_the_demo_benchmark_begins_with_a_fair_sample():
    items = BENCHMARKS["demo"].items(None)
    assert len(items) == 400 and {i.task for i in items[:4]} == {i.task for i in items}
    assert [BENCHMARKS["demo"].seed(i, 0, 0) for i in (0, 3, 4, 399)] == [0, 0, 1, 99]


def test_a_question_is_the_same_whatever_the_order_of_its_parts():
    one, two = Question.of(ASK, a=1, b=2), Question(ASK, '{"a":1,"b":2}')
    assert one == two and {one: 3}[two] == 3 and one["b"] == 2
