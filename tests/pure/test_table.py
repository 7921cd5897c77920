"""The paper's table: what is counted, and that a run can stop, go on and be judged again."""

import argparse
import functools
import json
import random

import numpy
import pytest
from ella_lmd.evaluation import demo_benchmark, demo_world
from ella_lmd.tools.bench import table as bench_table
from ella_lmd.tools.bench import table_report, table_rows
from PIL import Image

HOW = (20, table_rows.CFG, table_rows.SAMPLER, table_rows.SCHEDULER)
PROMPT = "A realistic photo of a scene with a red circle and a blue star"


def drawing(prompt: str) -> numpy.ndarray:
    """A clean picture of the true layout."""
    objects = demo_benchmark.true_layout(prompt).objects
    things = [
        demo_world.Thing(o.phrase.split()[2], o.phrase.split()[1], *o.box.centre, o.box.w, o.box.h) for o in objects
    ]
    return numpy.asarray(demo_world.render(demo_world.Scene("grass", tuple(things))))


def record(verdict=True, row="full", number=0, **more):
    same = {"layouts": "truth", "steps": 20, "task": "attribution", "prompt": PROMPT, "seconds": 1.0, "code": "x"}
    return same | {"number": number, "row": row, "verdict": verdict, "detections": [], "picture": ""} | more


def rows(**verdicts):
    return {name: {("attribution", i): record(v) for i, v in enumerate(found)} for name, found in verdicts.items()}


def test_intervals_are_wilsons():
    assert table_report.wilson(8, 10) == pytest.approx((49.0, 94.3), abs=0.1)
    assert table_report.wilson(0, 100)[0] == 0 and table_report.wilson(100, 100)[1] == pytest.approx(100)


def test_the_margin_is_over_the_prompts_that_both_rows_have():
    assert table_report.margin(rows(full=[True, True], plain=[True, False, False, False])) == 50


def test_an_object_is_in_its_box_by_kind_colour_and_centre_and_counts_once():
    layout = demo_benchmark.true_layout(PROMPT)
    circle, star = ([*o.box.corners] for o in layout.objects)
    right = [["circle", "red", circle, 0.9], ["star", "blue", star, 0.9]]
    assert table_report.obeyed(layout, right) == 2
    assert table_report.obeyed(layout, [["circle", "blue", circle, 0.9], ["star", "blue", circle, 0.9]]) == 0
    two = demo_benchmark.true_layout("A realistic photo of a scene with two stars")
    assert table_report.obeyed(two, [["star", "red", [*two.objects[0].box.corners], 0.9]]) == 1


def test_every_beginning_of_the_work_is_a_fair_sample_of_the_tasks():
    order = bench_table.numbered_prompts(10)
    assert len(order) == 40 and order[:8] == bench_table.numbered_prompts(2)
    assert all({t for t, _, _ in order[i : i + 4]} == set(demo_benchmark.TASKS) for i in range(0, 40, 4))


def test_results_survive_a_stop_in_the_middle_of_a_line(tmp_path):
    path = tmp_path / "table.jsonl"
    path.write_text(json.dumps(record()) + "\n" + json.dumps(record(number=1))[:30])
    results = bench_table.Results(path)
    results.add(record(number=1), drawing(PROMPT))
    again = bench_table.Results(path)
    assert [r["number"] for r in again.records] == [0, 1]
    assert again.picture(again.records[1]).size == (128, 128)


def test_pictures_are_judged_again_without_sampling(tmp_path):
    results = bench_table.Results(tmp_path / "table.jsonl")
    results.add(record(verdict=False), drawing(PROMPT))
    assert results.rejudge(1) == 1
    (found,) = bench_table.Results(results.path).records
    assert found["verdict"] and table_report.obeyed(demo_benchmark.true_layout(PROMPT), found["detections"]) == 2


def test_results_of_another_program_are_not_mixed_with_new_ones(tmp_path):
    results = bench_table.Results(tmp_path / "table.jsonl")
    results.records.append(record(code="older"))
    with pytest.raises(SystemExit, match="another state of the code.*--results"):
        bench_table.fill(results, argparse.Namespace())


def test_plain_sampling_belongs_to_every_kind_of_layouts(tmp_path):
    results = bench_table.Results(tmp_path / "table.jsonl")
    results.records += [record(row="plain", layouts="none"), record(row="full", layouts="planner")]
    names = list(table_rows.ROWS)
    assert set(results.rows("planner", HOW, names, range(1))) == {"plain", "full"}
    assert set(results.rows("truth", HOW, names, range(1))) == {"plain"}


def test_pictures_of_another_sampler_are_kept_apart(tmp_path):
    results = bench_table.Results(tmp_path / "table.jsonl")
    results.add(record(), drawing(PROMPT))
    results.add(record(sampler="lcm", scheduler="karras", cfg=1.0), drawing(PROMPT))
    assert len({r["picture"] for r in results.records}) == 2
    for how, sampler in ((HOW, None), ((20, 1.0, "lcm", "karras"), "lcm")):
        (found,) = results.rows("truth", how, ["full"], range(1))["full"].values()
        assert found.get("sampler") == sampler


def test_the_table_and_the_sheet_show_every_row(tmp_path):
    rng, found = random.Random(0), rows(plain=[True, False], full=[True, True])
    for records in found.values():
        for key, r in records.items():
            r["detections"] = [["circle", "red", [0.2, 0.2, 0.4, 0.4], rng.random()]]
            records[key] = r
    layout = functools.partial(table_rows.layout_of, "truth")
    lines = table_report.table(found, demo_benchmark.TASKS, layout).splitlines()
    assert lines[1].split()[:2] == ["plain", "2"] and "50.0" in lines[1] and "-50.0" in lines[1]
    assert "100.0" in lines[2] and "1.0x" in lines[2]
    path, picture = tmp_path / "sheet.png", Image.fromarray(drawing(PROMPT))
    table_report.sheet(path, found, [("attribution", 0), ("attribution", 1)], layout, lambda _: picture)
    sheet = numpy.asarray(Image.open(path).convert("RGB")).reshape(-1, 3).tolist()
    assert [0xC0, 0, 0] in sheet and [0, 0x7A, 0x33] in sheet
