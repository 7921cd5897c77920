"""ELLA and LMD in one graph: the composition follows ELLA at every timestep, and the layout guides it."""

import folder_paths
import pytest
import torch
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.sampling.guidance import GuidanceOptions
from ella_lmd.lmd.sampling.options import LMDOptions
from ella_lmd.nodes.ella import ELLAEncode, ELLAModelLoader, ELLATextEncoderLoader, TimestepAwareConditioning
from ella_lmd.nodes.host.lmd import run_cache
from ella_lmd.nodes.lmd_compose import LatentComposer
from ella_lmd.nodes.lmd_sample import BoxGroundedSampler
from ella_lmd.tests import ella_models
from ella_lmd.tests.ella_reference import Recorder, naive_connector

import nodes

LAYOUT = Layout(
    64,
    64,
    (LayoutObject("a red cat", Box(0.05, 0.3, 0.4, 0.6)), LayoutObject("a blue dog", Box(0.55, 0.3, 0.4, 0.6))),
    background="a park",
)
LONG = "in a wide park under an evening sky a red cat with a knitted scarf looks at a blue dog that lies in the grass"
TWICE = LMDOptions(guidance=GuidanceOptions(loss_scale=2.0, loss_threshold=0.0, max_iter=(2,)))
SAMPLING = {"seed": 7, "steps": 4, "cfg": 4.0, "sampler_name": "ddim", "scheduler": "ddim_uniform"}
ALONE, TOGETHER = "ELLA only", "ELLA + CLIP"


@pytest.fixture(autouse=True)
def empty_cache():
    run_cache.OBJECT_RUNS.clear()


@pytest.fixture(scope="module")
def graph(sd15, tmp_path_factory):
    models = ella_models.write(tmp_path_factory.mktemp("models"))
    for key in ("ella", "ella_encoder"):
        folder_paths.add_model_folder_path(key, str(models / key), is_default=True)
    with torch.inference_mode():
        return Graph(sd15)


class Graph:
    """The nodes of the workflow, on the small models."""

    def __init__(self, sd15):
        self.model, self.clip, _ = sd15
        self.connector = ELLAModelLoader.execute(ella_models.CONNECTOR).args[0]
        self.encoder = ELLATextEncoderLoader.execute(ella_models.ENCODER).args[0]
        self.naive = naive_connector({k: v.half() for k, v in ella_models.connector_state().items()})
        self.aware = TimestepAwareConditioning.execute(self.model).args[0]
        self.by_ella = {"ella": self.connector, "text_encoder": self.encoder}

    def ella(self, text, mode=ALONE):
        return ELLAEncode.execute(self.connector, self.encoder, text, self.clip, mode).args[0]

    def objects(self, model, layout=LAYOUT, **more):
        run_cache.OBJECT_RUNS.clear()
        return BoxGroundedSampler.execute(
            model, self.clip, layout, preset="reference", options=TWICE, **SAMPLING, **more
        ).args[0]

    def compose(self, model, objects, **more):
        return LatentComposer.execute(model, self.clip, objects, 0.5, **more).args[0]["samples"]

    def expected(self, text, timestep):
        return self.naive(self.encoder.features(text), timestep)[0]


def same_objects(a, b):
    return all(
        torch.equal(x.latents, y.latents) and torch.equal(x.mask, y.mask) and x.energies[-1][2].equal(y.energies[-1][2])
        for x, y in zip(a.runs, b.runs, strict=True)
    )


def wrong_timesteps(graph, seen, texts, sides):
    """How many rows of the recorded calls start with other tokens than those of one of `texts` at the call's timestep."""
    wrong = 0
    for timestep, context in zip(seen.unet, seen.contexts):
        tokens = [graph.expected(text, timestep) for text in texts]
        rows = [row[:64] for row in context if len(row) != 77]  # rows of 77 tokens are CLIP's own
        wrong += sum(not any(torch.allclose(row, t, atol=1e-4) for t in tokens) for row in rows)
        sides.append(len(rows))
    return wrong


def falls(rows):
    by_step = {s: [e for t, _, e in rows if t == s] for s, _, _ in rows}
    return [bool((v[-1] < v[0]).all()) for v in by_step.values() if len(v) > 1]


@pytest.mark.parametrize("mode", [ALONE, TOGETHER])
def test_ella_conditions_the_composition_and_the_layout_guides_it(graph, mode, monkeypatch):
    from ella_lmd.nodes.host.lmd import overall_stage

    traces = []
    kept = overall_stage.EnergyTrace.begin
    monkeypatch.setattr(
        overall_stage.EnergyTrace, "begin", lambda self, *args: traces.append(self) or kept(self, *args)
    )
    weights = {k: v.clone() for k, v in graph.model.model.state_dict().items()}
    objects = graph.objects(graph.aware)
    positive, negative = graph.ella(LONG, mode), graph.ella("blurry", mode)
    plain = graph.compose(graph.aware, objects)
    traces.clear()
    with Recorder(graph.aware, graph.connector) as seen:
        latent = graph.compose(graph.aware, objects, positive_override=positive, negative_override=negative)
    rows = []
    assert wrong_timesteps(graph, seen, (LONG, "blurry"), rows) == 0
    assert len(set(seen.unet)) == SAMPLING["steps"] and sum(rows) >= 2 * SAMPLING["steps"]
    assert latent.isfinite().all() and not torch.allclose(latent, plain, atol=1e-3)
    (trace,) = traces
    assert len(falls(trace.rows)) == 2 and all(falls(trace.rows))
    first = next(e for _, _, e in trace.rows)
    assert all(torch.equal(v, weights[k]) for k, v in graph.model.model.state_dict().items())
    traces.clear()
    graph.compose(graph.aware, objects)
    assert torch.allclose(first, next(e for _, _, e in traces[0].rows), rtol=1e-4)


@pytest.mark.parametrize("at_once", [1, 8])
def test_objects_by_ella_read_its_tokens_at_every_timestep(graph, at_once, monkeypatch):
    from dataclasses import replace

    monkeypatch.setitem(globals(), "TWICE", replace(TWICE, objects_at_once=at_once))
    by_clip = graph.objects(graph.aware)
    with Recorder(graph.aware, graph.connector) as seen:
        by_ella = graph.objects(graph.aware, negative="blurry", **graph.by_ella)
    rows, prompts = [], {run.item.prompt for run in by_ella.runs}
    assert wrong_timesteps(graph, seen, (*prompts, "blurry"), rows) == 0
    assert all(rows), "every call reads ELLA's tokens"
    for a, b in zip(by_clip.runs, by_ella.runs):
        assert not torch.allclose(a.result, b.result, atol=1e-3) and b.result.isfinite().all()
        assert len(falls(b.energies)) == 2 and all(falls(b.energies))
        assert a.attention.keys() == b.attention.keys()
    assert graph.compose(graph.aware, by_ella, positive_override=graph.ella(LONG)).isfinite().all()


def test_an_objects_mask_is_read_at_its_own_word_behind_ellas_tokens(graph, monkeypatch):
    from ella_lmd.nodes.host.lmd import object_stage

    columns = []
    original = object_stage.WordAttention
    monkeypatch.setattr(
        object_stage, "WordAttention", lambda layers, found: columns.append(found) or original(layers, found)
    )
    graph.objects(graph.aware)
    graph.objects(graph.aware, **graph.by_ella)
    by_clip, by_ella = columns
    assert by_ella == [c + 64 for c in by_clip]


def test_objects_by_ella_are_cached_apart_from_those_by_clip(graph, monkeypatch):
    from ella_lmd.nodes.host.lmd import object_stage

    sampled = []
    original = object_stage.ObjectStage._together
    monkeypatch.setattr(
        object_stage.ObjectStage, "_together", lambda self, jobs: sampled.append(len(jobs)) or original(self, jobs)
    )
    first = graph.objects(graph.aware, **graph.by_ella)
    again = BoxGroundedSampler.execute(
        graph.aware, graph.clip, LAYOUT, preset="reference", options=TWICE, **SAMPLING, **graph.by_ella
    ).args[0]
    assert sum(sampled) == 2 and same_objects(first, again)
    BoxGroundedSampler.execute(graph.aware, graph.clip, LAYOUT, preset="reference", options=TWICE, **SAMPLING)
    assert sum(sampled) == 4


def test_lmd_without_ella_is_bit_identical_on_the_patched_model(graph):
    plain, aware = graph.objects(graph.model), graph.objects(graph.aware)
    assert same_objects(plain, aware)
    assert torch.equal(graph.compose(graph.model, plain), graph.compose(graph.aware, aware))


def test_ella_without_a_layout_is_bit_identical_to_the_stock_sampler(graph):
    positive, negative = graph.ella(LONG), graph.ella("blurry")
    empty = graph.objects(graph.aware, Layout(64, 64, (), background="a park"))
    latent = graph.compose(graph.aware, empty, positive_override=positive, negative_override=negative)
    stock = nodes.common_ksampler(
        graph.aware, SAMPLING["seed"], SAMPLING["steps"], SAMPLING["cfg"], "ddim", "ddim_uniform", positive, negative,
        {"samples": torch.zeros(1, 4, 8, 8)},
    )[0]["samples"]  # fmt: skip
    assert torch.equal(latent, stock)


@pytest.mark.parametrize("given, absent", [("ella", "text_encoder"), ("text_encoder", "ella")])
def test_half_of_ella_is_refused_by_the_name_of_the_missing_input(graph, given, absent):
    with pytest.raises(ValueError, match=f"{given} is connected, but {absent} is not"):
        graph.objects(graph.aware, **{given: graph.by_ella[given]})
