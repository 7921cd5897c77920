"""Whole runs: every benchmark from its files to its report, killed at random moments, and over servers that die."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import scripted_comfy as scripted
import small_models
from ella_lmd.evaluation.run import GIVEN, Run
from ella_lmd.tools import evaluate
from PIL import Image

ROOT = Path(evaluate.__file__).resolve().parents[1]
DEMO = [
    "--benchmark",
    "demo",
    "--layouts",
    "truth",
    "--checkpoint",
    "demo",
    "--width",
    "128",
    "--height",
    "128",
    "--steps",
    "4",
    "--device",
    "cpu",
]


def command(*args):
    return [sys.executable, str(ROOT / "tools/launch.py"), str(ROOT / "tools/evaluate.py"), *map(str, args)]


def evaluated(monkeypatch, *args, status=0):
    """The front in this process; what it told in report.json."""
    monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, args)])
    assert evaluate.main() == status
    path = Path(args[1]) / "report.json"
    return json.loads(path.read_text()) if path.exists() else {}


# ------------------------------------------------------------------------------------------- every benchmark


def dpg(folder):
    (folder / "dpg_bench.csv").write_text(
        "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,question_natural_language\n"
        "a,A red cat,,1,0,,,entity - whole (cat),Is there a cat?\na,A red cat,,2,1,,,attribute - color (red),Is it red?\n"
        "b,A dog,,1,0,,,entity - whole (dog),Is there a dog?\n"
    )


def geneval(folder):
    lines = [
        {"tag": "colors", "prompt": "a photo of a red cup", "include": [{"class": "cup", "count": 1, "color": "red"}]},
        {"tag": "counting", "prompt": "a photo of two dogs", "include": [{"class": "dog", "count": 2}]},
    ]
    (folder / "evaluation_metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def geneval2(folder):
    line = {"prompt": "two toys", "atom_count": 3, "vqa_list": [["How many toys are there?", "two"], ["Toys?", "Yes"]]}
    (folder / "geneval2_data.jsonl").write_text(json.dumps(line | {"skills": ["count", "object"]}) + "\n")


def seven(folder):
    (folder / "7bench.csv").write_text(
        'id,category,prompt,obj1,bbox1\n000,object_binding,A rose,rose,"17,10,347,430"\n'
    )


MODELS = {"owlvit": small_models.owl, "owlv2": small_models.owl, "clip": small_models.clip, "vlm": small_models.vlm}
WHOLE = {
    "lmd": (None, ["owlvit", "owlv2"], "offline", 4, 1),
    "dpg": (dpg, ["vlm"], "offline", 1, 4),
    "geneval": (geneval, ["owlvit+clip", "owlv2+vlm"], "offline", 2, 4),
    "geneval2": (geneval2, ["vlm"], "offline", 1, 1),
    "7bench": (seven, ["owlv2"], "given", 1, 2),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("models"), {}

    def judge(panel):
        for kind in panel.split("+"):
            if kind not in made:
                more = (kind,) if kind.startswith("owl") else ()
                made[kind] = MODELS[kind](folder / kind, *more)
        return "+".join(f"{kind}:{made[kind]}" for kind in panel.split("+"))

    return judge


@pytest.mark.parametrize("name", WHOLE)
def test_every_benchmark_runs_from_its_files_to_its_report(name, comfy, models, tmp_path, monkeypatch):
    write, panels, layouts, prompts, images = WHOLE[name]
    if write:
        write(tmp_path)
    judges = [arg for panel in panels for arg in ("--judge", models(panel))]
    args = ["--benchmark", name, "--source", tmp_path, "--count", "1", "--images", images, "--layouts", layouts]
    args += ["--servers", comfy().url, *judges, "--row", "plain", "--row", "guidance", "--row", "quick=lmd,preset=fast"]
    told = evaluated(monkeypatch, "run", tmp_path / "run", *args)
    assert len(told["tables"]) == len(panels) and told["images"] == told["jobs"] == 3 * prompts * images
    for table, panel in zip(told["tables"], panels, strict=True):
        assert all(kind in table["judge"] for kind in panel.split("+"))
        assert [row["row"] for row in table["rows"]] == ["plain", "guidance", "quick"]
        for row in table["rows"]:
            low, high = row["interval"]
            assert row["judged"] == prompts * images and row["prompts"] == prompts and not row["missing"]
            assert 0 <= low <= high <= 100 and 0 <= row["overall"] <= 100
        assert table["rows"][1]["against plain"]["prompts"] == prompts
    if name == "dpg":
        assert told["tables"][0]["rows"][0]["further"]["images per prompt"] == 4
    text = (tmp_path / "run" / "report.md").read_text()
    assert "judged by" in text and "preset fast" in text and "scripted" in text
    assert list((tmp_path / "run").glob("sheet-*.png"))
    # Asking and reporting again changes nothing.
    before = Run(tmp_path / "run").answers.records
    assert evaluated(monkeypatch, "run", tmp_path / "run", *args) == told
    assert Run(tmp_path / "run").answers.records == before


# ------------------------------------------------------------------------------------------------ kill -9


def what_counts(folder):
    """A run without what no two runs share: which lane drew an image, and how long it took."""
    run = Run(folder)
    told = json.loads((folder / "report.json").read_text())
    for table in told["tables"]:
        for row in table["rows"]:
            row.pop("seconds per image")
    told.pop("damaged lines")
    drawn = Counter(r["key"] for r in run.images.records)
    answers = {(r["sha"], r["question"], r["judge"]): r["answer"] for r in run.answers.records}
    return {k: r["sha"] for k, r in run.drawn().items()}, drawn, answers, told


def progress(folder):
    return sum(len(p.read_bytes().splitlines()) for p in folder.glob("*s.jsonl") if p.name != "items.jsonl")


def test_a_run_killed_at_random_moments_ends_as_one_that_never_stopped(comfy, tmp_path):
    rng = random.Random(os.getpid())
    args = [*DEMO, "--count", "3", "--row", "plain", "--row", "lmd", "--judge", "demo", "--servers", comfy(0.02).url]
    subprocess.run(command("run", tmp_path / "whole", *args), check=True, capture_output=True)
    for stop in (rng.randint(25, 46), rng.randint(49, 70)):  # while it draws, and while it asks
        process = subprocess.Popen(
            command("run", tmp_path / "killed", *args), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and progress(tmp_path / "killed") < stop:
            time.sleep(0.002)
        time.sleep(rng.random() / 50)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command("run", tmp_path / "killed", *args), check=True, capture_output=True)
    whole, killed = what_counts(tmp_path / "whole"), what_counts(tmp_path / "killed")
    assert killed == whole and len(whole[0]) == 24 and set(whole[1].values()) == {1}


# ------------------------------------------------------------------------------------------------ servers


def test_of_two_servers_one_is_killed_and_nothing_is_lost_or_done_twice(comfy, tmp_path):
    one, two = comfy(0.05), comfy(0.05)
    args = [*DEMO, "--count", "5", "--row", "plain", "--row", "lmd", "--servers", one.url, two.url]
    subprocess.run(command("plan", tmp_path / "run", *args[:-3]), check=True, capture_output=True)
    process = subprocess.Popen(
        command("draw", tmp_path / "run", "--device", "cpu", "--servers", one.url, two.url), stderr=subprocess.PIPE
    )
    while len(two.prompts) < 5:
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.01)
    two.kill()
    assert process.wait(60) == 0, process.stderr.read().decode()
    run = Run(tmp_path / "run")
    assert Counter(r["key"] for r in run.images.records) == dict.fromkeys(run.jobs, 1) and len(run.jobs) == 40
    by = Counter(r["lane"] for r in run.images.records)
    assert by[two.url] >= 4 and by[one.url] + by[two.url] == 40
    for server in (one, two):
        assert all(json.loads(line)["busy"] == 0 for line in server.prompts), "one outstanding job each"


def test_a_killed_server_that_is_started_again_works_on(comfy, tmp_path):
    server = comfy(0.02)
    args = [*DEMO, "--count", "2", "--servers", server.url]
    process = subprocess.Popen(
        command("run", tmp_path / "run", *args, "--judge", "demo"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    while len(server.prompts) < 3:
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.01)
    server.kill()
    time.sleep(0.5)
    server.start()
    assert process.wait(60) == 0, process.stderr.read().decode()
    run = Run(tmp_path / "run")
    assert len(run.drawn()) == 8 and max(Counter(r["key"] for r in run.images.records).values()) == 1


def test_a_graph_that_a_server_refuses_is_told_and_tried_again_later(comfy, tmp_path, monkeypatch, capsys):
    workflow = {"1": {"class_type": "Broken", "inputs": {"text": ""}}}
    (tmp_path / "mine.json").write_text(json.dumps(workflow))
    args = [
        "run",
        tmp_path / "run",
        *DEMO,
        "--tasks",
        "numeracy",
        "--count",
        "1",
        "--row",
        f"mine={tmp_path}/mine.json,prompt=1.text",
    ]
    told = evaluated(monkeypatch, *args, "--row", "plain", "--judge", "demo", "--servers", comfy().url, status=1)
    assert "no such node" in capsys.readouterr().err
    mine, plain = told["tables"][0]["rows"]
    assert mine["judged"] == 0 and "no such node" in next(iter(mine["missing"])) and plain["judged"] == 1
    assert [job.row for job in Run(tmp_path / "run").missing()] == ["mine"]


# ------------------------------------------------------------------------------------------------ rows, imports


def test_a_workflow_gets_its_named_inputs(comfy, tmp_path, monkeypatch, capsys):
    workflow = {
        "3": {"class_type": "KSampler", "inputs": {"seed": 5, "steps": 20, "positive": ["6", 0]}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "x"}, "_meta": {"title": "Positive"}},
        "7": {"class_type": "LayoutEditor", "inputs": {"edits": ""}},
    }
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(workflow))
    row = f"mine={path},prompt=Positive.text,seed=KSampler.seed,layout=7.edits,steps=3.steps"
    server = comfy()
    args = [*DEMO, "--tasks", "spatial", "--count", "1", "--row", row, "--judge", "demo", "--servers", server.url]
    evaluated(monkeypatch, "run", tmp_path / "run", *args)
    run = Run(tmp_path / "run")
    ((key, job),) = run.jobs.items()
    filled = json.loads(path.read_text())
    filled["6"]["inputs"]["text"], filled["3"]["inputs"]["seed"] = job.prompt, job.seed
    filled["3"]["inputs"]["steps"], filled["7"]["inputs"]["edits"] = 4, json.dumps(job.layout)
    with Image.open(run.file(run.drawn()[key]["sha"])) as image:
        drawn = image.tobytes()
    assert drawn == Image.open(io.BytesIO(scripted.picture(filled))).tobytes()
    for wrong, told in (("prompt=Nobody.text", "no node 'Nobody'"), ("prompt=6.words", "no input 'words'")):
        mine = [
            "run",
            tmp_path / told[-5:-1],
            *DEMO,
            "--tasks",
            "spatial",
            "--count",
            "1",
            "--row",
            f"m={path},{wrong}",
        ]
        evaluated(monkeypatch, *mine, "--servers", server.url, "--judge", "demo", status=1)
        assert told in capsys.readouterr().err


def test_images_from_elsewhere_are_judged_beside_ours(tmp_path, monkeypatch):
    dpg(tmp_path)
    grid = Image.new("RGB", (64, 64), "red")
    grid.paste("blue", (32, 0, 64, 32))
    (tmp_path / "theirs").mkdir()
    grid.save(tmp_path / "theirs" / "a.png")
    args = ["--benchmark", "dpg", "--source", tmp_path, "--row", "theirs", tmp_path / "theirs", "--grid"]
    evaluated(monkeypatch, "import", tmp_path / "run", *args)
    evaluated(monkeypatch, "import", tmp_path / "run", *args)
    run = Run(tmp_path / "run")
    assert len(run.jobs) == len(run.images.records) == 4 and {j.code for j in run.jobs.values()} == {GIVEN}
    with Image.open(run.file(run.images.records[1]["sha"])) as tile:
        assert tile.size == (32, 32) and tile.getpixel((5, 5)) == (0, 0, 255)
    assert not run.missing()
