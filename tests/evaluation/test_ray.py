"""Ray: two local actors, one of which is killed in the middle. Skipped, saying so, where ray is not installed."""

import os
import signal
from collections import Counter

import pytest

ray = pytest.importorskip("ray", reason="ray is not installed: pip install ray, and these tests run")

from ella_lmd.evaluation import ray_lanes, stages  # noqa: E402
from ella_lmd.evaluation.benchmarks import benchmark  # noqa: E402
from ella_lmd.evaluation.lanes import Spec  # noqa: E402
from ella_lmd.evaluation.run import Job, Run  # noqa: E402
from ella_lmd.evaluation.spread import spread  # noqa: E402
from PIL import Image  # noqa: E402


@pytest.fixture(scope="module")
def cluster():
    ray_lanes.connect()
    yield ray_lanes.connect()  # one program draws and asks
    ray.shutdown()


def test_answers_come_from_two_actors_and_a_killed_ones_jobs_are_not_lost(cluster, tmp_path):
    run, demo = Run(tmp_path), benchmark("demo")
    items = demo.items(None)[:24]
    run.keep_items("demo", items)
    run.plan(Job("demo", i.id, i.task, i.prompt, n, "plain", None, {}, "a") for n, i in enumerate(items))
    for n, key in enumerate(run.jobs):
        run.add_image(key, Image.new("RGB", (128, 128), (n, 160, 60)), code="a")
    spec = Spec("evaluation.stages:AnswerWorker", {"panel": "demo", "device": "cpu"})
    lanes = [ray_lanes.RayLane(cluster, number, spec) for number in range(2)]
    told = []

    def progress(count):
        told.append(count)
        if len(told) == 6:
            os.kill(lanes[0].pid, signal.SIGKILL)

    assert stages.ask(run, "demo", lanes, progress) == {}
    again = Run(tmp_path)
    assert len(told) == 24 and Counter(r["sha"] for r in again.answers.records) == dict.fromkeys(
        (r["sha"] for r in again.images.records), 1
    )
    assert list(stages.open_questions(again, "demo")) == []


def test_a_jobs_own_error_is_told_and_not_taken_for_a_dead_actor(cluster):
    failed = {}
    lane = ray_lanes.RayLane(cluster, 0, Spec("evaluation.stages:AnswerWorker", {"panel": "nobody"}))
    spread(["job"], [lane], lambda *_: None, failed.__setitem__, patience=20)
    assert "names no judge" in failed["job"]
