"""A run's files: damaged lines, resuming, merging, and states of the code that must not be mixed."""

import json
from dataclasses import replace

import pytest
from ella_lmd.evaluation import lines, stages
from ella_lmd.evaluation.benchmarks.base import DETECT, Item, Question
from ella_lmd.evaluation.run import GIVEN, Job, Run, code_state, merge
from PIL import Image

ITEM = Item("000", "negation", "A realistic photo of a scene without cups")
RED, BLUE = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")


def job(seed=0, row="plain", code="a"):
    return Job("lmd", ITEM.id, ITEM.task, ITEM.prompt, seed, row, None, {"steps": 2}, code)


def planned(folder, *jobs):
    run = Run(folder)
    run.keep_items("lmd", [ITEM])
    run.plan(jobs)
    return run


def test_a_damaged_line_costs_that_line(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\n\xff\xfe{"b"\n[1]\n{"a": 2}\n{"a": 3')
    found = lines.Lines(path)
    assert [r["a"] for r in found.records] == [1, 2] and found.damaged == 3
    found.add({"a": 4})
    again = lines.Lines(path)
    assert [r["a"] for r in again.records] == [1, 2, 4] and again.damaged == 3


def test_equal_pixels_have_one_file_and_one_hash(tmp_path):
    run = planned(tmp_path, job(0), job(1), job(2))
    for key, image in zip(run.jobs, (RED, RED.copy(), BLUE), strict=True):
        run.add_image(key, image)
    assert len(list((tmp_path / "images").iterdir())) == 2
    assert run.images.records[0]["sha"] == run.images.records[1]["sha"] != run.images.records[2]["sha"]


def test_only_what_is_missing_is_drawn(tmp_path):
    run = planned(tmp_path, job(0), job(1), job(2))
    first, second, _ = run.jobs
    run.add_image(first, RED)
    run.add_failure(second, "no memory")
    again = Run(tmp_path)
    assert [j.seed for j in again.missing()] == [1, 2] and again.failures() == {second: "no memory"}
    again.file(again.drawn()[first]["sha"]).unlink()
    assert [j.seed for j in Run(tmp_path).missing()] == [0, 1, 2]


def test_planning_again_adds_only_what_is_new(tmp_path):
    run = planned(tmp_path, job(0))
    assert run.plan([job(0), job(1)]) == 1 and len(Run(tmp_path).jobs) == 2


def test_states_of_the_code_are_not_mixed(tmp_path):
    run = planned(tmp_path, job(0))
    run.require_code("a")
    with pytest.raises(ValueError, match="another state of the code.*name another folder"):
        run.require_code("b")
    other = planned(tmp_path / "other", job(1, code="b"))
    with pytest.raises(ValueError, match="different states of the code and can't be merged"):
        merge(Run(tmp_path), [other])


def test_images_from_elsewhere_go_with_every_state(tmp_path):
    given = planned(tmp_path / "given", replace(job(5, row="theirs"), code=GIVEN))
    given.add_image(next(iter(given.jobs)), RED, code=GIVEN)
    run = planned(tmp_path / "own", job(0))
    merge(run, [given])
    run.require_code("a")
    assert len(run.drawn()) == 1 and [j.row for j in run.missing()] == ["plain"]


def test_two_runs_are_merged(tmp_path):
    one, two = planned(tmp_path / "1", job(0), job(1)), planned(tmp_path / "2", job(1), job(2))
    question = Question.of(DETECT, queries=["a photo of a cup"])
    for run, image in ((one, RED), (two, BLUE)):
        for key in run.jobs:
            run.add_image(key, image, code="a")
            sha = run.drawn()[key]["sha"]
            run.answers.add({"sha": sha, "question": question.text, "judge": "owlvit x", "answer": []})
        run.keep_panel("lmd", ["owlvit x"])
    target = Run(tmp_path / "both")
    for _ in range(2):
        merge(target, [Run(tmp_path / "1"), Run(tmp_path / "2")])
    again = Run(tmp_path / "both")
    assert len(again.jobs) == 3 and len(again.drawn()) == 3 and not again.missing() and again.damaged == 0
    assert len(again.answers.records) == 2 and len(again.panels.records) == 1 and len(again.item_lines.records) == 1
    assert list(stages.open_questions(again, "owlvit x=owlvit")) == []
    assert len(list(stages.open_questions(again, "another=owlvit"))) == 2


def test_a_key_depends_on_all_that_is_drawn_and_on_nothing_else():
    assert job().key == job(code="b").key == Job.read(json.loads(json.dumps(job().__dict__))).key
    assert len({job().key, job(1).key, job(row="lmd").key, replace(job(), settings={"steps": 3}).key}) == 4


def test_a_folder_beside_the_weights_is_looked_into(tmp_path):
    (tmp_path / "weights" / "loras").mkdir(parents=True)
    before = code_state(["weights/**/*"], tmp_path)
    (tmp_path / "weights" / "loras" / "one.safetensors").write_bytes(b"1")
    assert code_state(["weights/**/*"], tmp_path) != before
