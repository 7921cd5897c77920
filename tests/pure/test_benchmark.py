"""The benchmark's prompts, predicates and detection filter against the reference."""

import json

import pytest
from ella_lmd.evaluation import lmd_benchmark
from ella_lmd.lmd.layout import Box


def _boxes(raw):
    return [(name, Box(*(v / 512 for v in box))) for name, box in raw]


def test_reference_vectors(golden):
    for case in json.loads((golden / "lmd/benchmark_eval.json").read_text())["cases"]:
        given, wanted = case["input"], case["expected"]
        if given["op"] == "predicate":
            query = lmd_benchmark.query(given["prompt"])
            assert query.task == wanted["type"], case["id"]
            assert query.detector_queries == wanted["detector_queries"], case["id"]
            assert lmd_benchmark.succeeds(query, _boxes(given["boxes"])) is wanted["success"], case["id"]
        else:
            boxes = [Box.from_corners(*b) for b in given["boxes_xyxy_norm"]]
            keep = lmd_benchmark.nms(boxes, given["scores"], given["labels"], given["threshold"], given["class_aware"])
            got = [given["boxes_xyxy_norm"][i] for i in keep]
            assert got == [pytest.approx(b, abs=1e-9) for b in wanted["boxes"]], case["id"]
            assert [given["scores"][i] for i in keep] == wanted["scores"], case["id"]
            assert [given["labels"][i] for i in keep] == wanted["labels"], case["id"]


def test_prompts_are_the_published_ones(shared):
    published = json.loads((shared / "data/lmd_benchmark_prompts.json").read_text())["prompts"]
    assert lmd_benchmark.prompts() == [(p["task"], p["prompt"]) for p in published]
    for p in published:
        assert lmd_benchmark.query(p["prompt"]).detector_queries == p["detector_queries"]


def test_other_texts_are_no_benchmark_prompts():
    for text in ("a cat", "A realistic photo of a scene with six cats", "A realistic photo of a scene"):
        with pytest.raises(ValueError, match="not a prompt of the LMD benchmark"):
            lmd_benchmark.query(text)
