"""Reference vectors of stage 1: replies, box filter, prompts, benchmark. Handlers raise when a case does not hold."""

from __future__ import annotations

from ella_lmd.evaluation import lmd_benchmark
from ella_lmd.lmd import prompts
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.planner.box_filter import filter_boxes_exact
from ella_lmd.lmd.planner.reply import ReplyError, parse_strict


def same(got: object, wanted: object) -> None:
    if got != wanted:
        raise AssertionError(f"got {got!r}, wanted {wanted!r}")


def near(got, wanted, tolerance: float) -> None:
    if len(got) != len(wanted) or any(abs(a - b) > tolerance for a, b in zip(got, wanted)):
        raise AssertionError(f"got {got!r}, wanted {wanted!r}")


def parse_response(given: dict, wanted: dict, _tensors: dict) -> None:
    try:
        reply = parse_strict(given["text"])
    except ReplyError as error:
        return same(error.kind, wanted.get("error"))
    same("error" in wanted, False)
    same([[name, list(box)] for name, box in reply.boxes], wanted["boxes"])
    return same((reply.background, reply.negative), (wanted["bg_prompt"], wanted["neg_prompt"]))


def filter_boxes(given: dict, wanted: dict, _tensors: dict) -> None:
    options = {k: v for k, v in given.items() if k not in ("boxes", "dict_format")}
    boxes = filter_boxes_exact(given["boxes"], **options)
    same([[name, box] for name, box in boxes], wanted["boxes"])


def convert_spec(given: dict, wanted: dict, _tensors: dict) -> None:
    w, h = given["width"], given["height"]
    objects = tuple(LayoutObject(n, Box(b[0] / w, b[1] / h, b[2] / w, b[3] / h)) for n, b in given["gen_boxes"])
    layout = Layout(w, h, objects, given["bg_prompt"])
    items = prompts.object_prompts(layout)
    same([(i.prompt, i.phrase, i.word) for i in items],
         [(o["prompt"], o["phrase"], o["word"]) for o in wanted["per_object"]])  # fmt: skip
    for item, o in zip(items, wanted["per_object"]):
        near(item.box.corners, o["box"], 1e-12)
    overall = prompts.overall_prompt(layout, given["include_counts"], exact=True)
    same(overall.prompt, wanted["overall_prompt"])
    same([(g.phrase, g.word) for g in overall.groups], [(g["phrase"], g["word"]) for g in wanted["overall"]])
    for group, g in zip(overall.groups, wanted["overall"]):
        same(len(group.boxes), len(g["boxes"]))
        for box, b in zip(group.boxes, g["boxes"]):
            near(box.corners, b, 1e-12)


def benchmark_eval(given: dict, wanted: dict, _tensors: dict) -> None:
    if given["op"] == "predicate":
        query = lmd_benchmark.query(given["prompt"])
        boxes = [(name, Box(*(v / 512 for v in box))) for name, box in given["boxes"]]
        same((query.task, query.detector_queries), (wanted["type"], wanted["detector_queries"]))
        return same(lmd_benchmark.succeeds(query, boxes), wanted["success"])
    boxes = [Box.from_corners(*b) for b in given["boxes_xyxy_norm"]]
    keep = lmd_benchmark.nms(boxes, given["scores"], given["labels"], given["threshold"], given["class_aware"])
    for name in ("scores", "labels"):
        near([given[name][i] for i in keep], wanted[name], 1e-9)
    same(len(keep), len(wanted["boxes"]))
    for i, b in zip(keep, wanted["boxes"]):
        near(given["boxes_xyxy_norm"][i], b, 1e-9)
    return None


HANDLERS = {f.__name__: f for f in (parse_response, filter_boxes, convert_spec, benchmark_eval)}
