"""The paper's table: what is counted, and that a run can stop, go on and be judged again."""

import argparse
import functools
import json
import random
from collections import Counter

import numpy
import pytest
from ella_lmd.evaluation import demo_benchmark, demo_world, run, stages
from ella_lmd.evaluation.lanes import Here, Spec
from ella_lmd.lmd.layout import Layout
from ella_lmd.tools.bench import table as bench_table
from ella_lmd.tools.bench import table_report, table_rows
from PIL import Image

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


def arguments(**changes):
    same = {"count": 1, "steps": 20, "cfg": table_rows.CFG, "layouts": ["truth", "planner"], "rows": ["plain", "full"]}
    return argparse.Namespace(model=table_rows.UNET, **same | bench_table.SAMPLING | changes)


def planned(folder, **changes):
    state = run.Run(folder)
    bench_table.plan(state, arguments(**changes))
    return state


def drawn(state, **changes):
    """Every picture of a run as a clean drawing that is right for attribution, judged."""
    for key, job in state.jobs.items():
        picture = drawing(job.prompt) if job.task == "attribution" else numpy.zeros((128, 128, 3), numpy.uint8)
        state.add_image(key, Image.fromarray(picture), seconds=1.0, code=job.code)
    lane = Here(Spec("evaluation.stages:AnswerWorker", {"panel": "demo"}))
    stages.ask(state, "demo", [lane], lambda _: None)
    return state


def test_every_beginning_of_the_work_is_a_fair_sample_of_the_tasks():
    order = [item for _, item in bench_table.items(10)]
    assert len(order) == 40 and order[:8] == [item for _, item in bench_table.items(2)]
    assert all({i.task for i in order[n : n + 4]} == set(demo_benchmark.TASKS) for n in range(0, 40, 4))


def test_plain_sampling_is_drawn_once_and_belongs_to_every_kind_of_layouts(tmp_path):
    state = planned(tmp_path)
    assert Counter(job.row for job in state.jobs.values()) == {"plain": 4, "full": 8}
    groups = bench_table.together(state.missing())
    assert Counter(len(group) for group in groups) == {2: 4, 1: 4}
    assert all([job.row for job in group] == ["plain", "full"] for group in groups if len(group) == 2)
    assert all(job.layout for group in groups for job in group if job.row == "full")
    drawn(state)
    assert all(set(bench_table.rows_of(state, arguments(), kind)) == {"plain", "full"} for kind in ("truth", "planner"))


def test_a_layout_in_the_manifest_is_the_layout_itself(tmp_path):
    for job in planned(tmp_path, count=20, rows=["full"], layouts=["truth"]).jobs.values():
        assert Layout.from_json(json.loads(json.dumps(job.layout))) == demo_benchmark.true_layout(job.prompt)


def test_pictures_are_judged_and_judged_again_without_sampling(tmp_path):
    state = drawn(planned(tmp_path))
    found = bench_table.rows_of(state, arguments(), "truth")["full"]
    assert {task: r["verdict"] for (task, _), r in found.items()} == {
        t: t in ("attribution", "negation") for t in demo_benchmark.TASKS
    }
    prompt, seen = (found["attribution", 0][name] for name in ("prompt", "detections"))
    assert table_report.obeyed(demo_benchmark.true_layout(prompt), seen) == 2
    (tmp_path / "answers.jsonl").write_text(
        (tmp_path / "answers.jsonl").read_text().replace('"answer": [{', '"answer": [], "x": [{')
    )
    again, changed = bench_table.rejudge(run.Run(tmp_path), arguments(workers=1))
    assert changed == 3 and bench_table.rows_of(again, arguments(), "truth")["full"] == found


def test_results_of_another_program_are_not_mixed_with_new_ones(tmp_path):
    state = run.Run(tmp_path)
    state.plan([run.Job("demo", "spatial-000", "spatial", PROMPT, 0, "plain", None, {}, "older")])
    with pytest.raises(ValueError, match="another state of the code"):
        bench_table.plan(state, arguments())


def test_pictures_of_another_sampler_are_kept_apart(tmp_path):
    other = {"sampler": "lcm", "scheduler": "karras", "cfg": 1.0}
    state = planned(tmp_path, **other, rows=["full"], layouts=["truth"])
    bench_table.plan(state, arguments(rows=["full"], layouts=["truth"]))
    assert len(bench_table.together(state.missing())) == len(state.jobs) == 8
    drawn(state)
    for how in ({}, other):
        assert len(bench_table.rows_of(state, arguments(**how), "truth")["full"]) == 4
    assert bench_table.rows_of(state, arguments(steps=3), "truth") == {}


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
