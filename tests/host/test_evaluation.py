"""Rows as graphs in the host's own executor: the pictures are the table's, in a process that may be killed."""

import os
import signal

import numpy
import pytest
import torch
from ella_lmd.evaluation import spread
from ella_lmd.evaluation.benchmarks.demo import Demo, true_layout
from ella_lmd.evaluation.images import graphs
from ella_lmd.evaluation.lanes import Process, Spec
from ella_lmd.evaluation.layouts import exact_json
from ella_lmd.evaluation.run import Job
from ella_lmd.nodes.host.lmd.run_cache import OBJECT_RUNS
from ella_lmd.tools.bench import table_rows

ITEM = next(item for item in Demo().items(None) if item.task == "attribution")
STEPS, SEED = 3, 3


def job(row, **settings):
    own = graphs.DEFAULTS | graphs.OWN.get(graphs.ROWS[row].own, {}) | {"base": row}
    own |= {"checkpoint": "demo", "width": 128, "height": 128, "steps": STEPS} | settings
    layout = exact_json(true_layout(ITEM)) if graphs.ROWS[row].layout else None
    return Job("demo", ITEM.id, ITEM.task, ITEM.prompt, SEED, row, layout, own)


ROWS = {"plain": "plain", "backward guidance": "backward guidance", "lmd": "full", "no transfer": "no transfer"}


@pytest.fixture(scope="module")
def drawn():
    """Every row's picture from one process, which is killed in the middle and has its job done by the next."""
    lane = Process(0, Spec("evaluation.images.here:Executor", {"workflows": {}, "device": "cpu", "threads": 1}))
    found, names = {}, [*ROWS, "area"]

    def done(jobs, made, _lane):
        found[jobs[0].row] = made
        if len(found) == 2:
            os.kill(lane.pid, signal.SIGKILL)

    failed = {}
    spread.spread([[job(name)] for name in names], [lane], done, lambda jobs, why: failed.__setitem__(jobs[0].row, why))
    assert failed == {} and set(found) == set(names)
    return found


@pytest.mark.parametrize("name", ROWS)
def test_a_graph_row_is_the_tables_row(demo, drawn, name):
    ((key, image, took),) = drawn[name]
    OBJECT_RUNS.clear()
    model, clip, vae = demo
    case = table_rows.Case(model, clip, true_layout(ITEM), SEED, STEPS)
    latent = table_rows.ROWS[ROWS[name]](case)
    picture = (vae.decode(latent["samples"])[0].numpy() * 255).round().astype(numpy.uint8)
    difference = numpy.abs(numpy.asarray(image).astype(int) - picture.astype(int))
    assert key == job(name).key and image.size == (128, 128)
    assert difference.max() <= 1, "SaveImage cuts where the table rounds"
    assert took["seconds"] > 0 and took["peak_mib"] > 100 and "ComfyUI 0." in took["on"]


def test_area_conditioning_is_a_row_too(drawn):
    assert numpy.asarray(drawn["area"][0][1]).std() > 5
    assert torch.is_inference_mode_enabled()
