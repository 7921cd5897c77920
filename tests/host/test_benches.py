"""The measurements of tools/ on a tiny U-Net: that they run, agree with what they compare to, and judge rightly."""

import argparse
import importlib

import pytest
import torch


@pytest.fixture(scope="module")
def tools():
    """The modules of tools/bench by name."""
    names = (
        "random_models",
        "measure",
        "naive_guidance",
        "naive_image",
        "guidance",
        "image",
        "scaling",
        "reference",
        "chart",
    )
    return argparse.Namespace(**{n: importlib.import_module(f"ella_lmd.tools.bench.{n}") for n in names})


@pytest.fixture(scope="module")
def tiny(tools):
    with torch.inference_mode():
        return tools.random_models.unet("sd15", torch.float32, width=32)


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_the_naive_iteration_has_the_engines_energy_and_gradient(tools, tiny, family, capsys):
    """SDXL's layout needs 64 channels a head, so its tiny version is wider and seen at a smaller latent."""
    model = tiny if family == "sd15" else tools.random_models.unet(family, torch.float32, width=64)
    target, positive = tools.guidance.target_and_conditioning(family)
    figures = tools.guidance.probe(
        model, target, positive, 16, 1, lambda *found: tools.guidance.compare(*found, rounds=1, device="cpu")
    )
    assert figures.energies["engine"] == pytest.approx(figures.energies["naive"], abs=1e-4)
    assert max(figures.difference.values()) < 1e-4
    assert 0.3 < figures.floor < 0.9
    assert all(len(times) == 1 and times[0] > 0 for times in figures.times.values())
    good, line = tools.guidance.report(family, figures, "fp32")
    assert line.startswith(f"{family}: time ") and "engine" in capsys.readouterr().out
    figures.times["engine"] = [t / 100 for t in figures.times["naive"]]
    figures.memory["engine"] = figures.memory["naive"] // 100
    assert tools.guidance.report(family, figures, "fp32")[0]
    figures.difference["engine"] = 1.0
    assert not tools.guidance.report(family, figures, "fp32")[0]


def test_the_published_schedule_of_work_makes_the_nodes_image(tools, tiny):
    """Two objects, five steps: the same latent, from as many guided iterations."""
    from ella_lmd.lmd.sampling.options import LMDOptions, SamplingSettings
    from ella_lmd.nodes.host.lmd.object_stage import sigmas_of
    from ella_lmd.nodes.host.lmd.run_cache import OBJECT_RUNS

    clip = tools.random_models.clip_l()
    settings, options = SamplingSettings(1, 5, 7.5, "ddim", "ddim_uniform"), LMDOptions()
    layout = tools.image.layout_of(2, 16)
    OBJECT_RUNS.clear()
    latent, iterations = tools.image.by_nodes(tiny, clip, layout, settings, options)
    naive, work = tools.naive_image.naive_image(tiny, clip, layout, settings, options, sigmas_of(tiny, settings))
    assert work.passes == 15
    assert iterations == work.iterations > 3
    torch.testing.assert_close(latent, naive, rtol=1e-3, atol=1e-3)
    assert OBJECT_RUNS._entries
    OBJECT_RUNS.clear()


def test_the_floor_of_an_image_is_the_arithmetic_of_its_schedule(tools, tiny):
    """Four objects, 50 steps: 325 iterations. With stop_early an object has 30 passes, with fast 25 and 30 iterations."""
    bench = tools.image
    naive, least = bench.arithmetic(tiny, 16)
    assert 1 < naive < 3 and 0.5 < least < naive
    args = argparse.Namespace(objects=4, steps=50, ways=list(bench.WAYS))
    work = {bench.PUBLISHED: 325, bench.WHOLE: 325, bench.EARLY: 325, bench.FAST: 150}
    found = bench.floors(args, 1.5, 1.0, work)
    published = 5 * (100 + 65 * 1.5)
    costs = [
        published, 5 * 165, 2 * 165, 4 * 125 + 165, 125 + 165, 4 * 80 + 130, 80 + 130
    ]  # fmt: skip
    assert list(found.values()) == pytest.approx([c / published for c in costs])


def test_layouts_of_the_measurements_hold_as_many_objects_as_asked_for(tools):
    for count in (1, 2, 4, 8, 16):
        layout = tools.image.layout_of(count, 32)
        assert len({o.phrase for o in layout.objects}) == count
        assert all(o.box.x + o.box.w <= 1 and o.box.y + o.box.h <= 1 for o in layout.objects)


def test_scaling_measures_every_size_and_batch(tools, tiny, tmp_path):
    found = tools.scaling.per_step(tiny, 16, 2, rounds=1, device="cpu")
    assert found["guided iteration"] > 0 and found["CFG pass"] > 0 and found["memory"] >= 0
    images = {"nodes": [(1, 1.0), (16, 7.0)], "published": [(1, 2.0)]}
    sizes = {(64, 1): found, (64, 2): found, (128, 1): found}
    tools.scaling.draw(images, sizes, 5, 32, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 2000


def test_every_weight_has_its_published_name(tools, tiny, tmp_path):
    weights = tools.reference.published_weights(tiny, 32)
    assert len(weights) == len(tiny.model.diffusion_model.state_dict()) == 686
    assert "no checkout" in tools.reference.missing(tmp_path, tmp_path / "packages")


def test_memory_of_a_call_is_its_peak(tools):
    def call():
        a = torch.ones(2**24)  # 64 MiB
        b = a + 1
        del a
        return b.sum()

    call()
    assert 100 * 2**20 < tools.measure.peak_bytes(call) < 180 * 2**20


def test_ratios_are_taken_round_by_round(tools):
    times = {"a": [1.0, 2.0, 9.0], "b": [2.0, 4.0, 3.0]}
    assert tools.measure.ratio(times, "a", "b") == (0.5, 0.5, 3.0)
    assert tools.measure.flops(lambda: torch.ones(2, 3) @ torch.ones(3, 4)) == 2 * 2 * 3 * 4


def test_an_adapters_cost_is_measured_and_judged(monkeypatch, capsys):
    """Both ways of encoding agree, and either ratio above its goal fails; the times are those of tiny models."""
    from ella_lmd.ella import adapter
    from ella_lmd.tools.bench import ella_adapters as bench

    small = adapter.AdapterConfig(width=64, input_dim=24, positions=32, tokens=12, pooled=8, mlp=64, heads=4)
    monkeypatch.setattr(adapter, "AdapterConfig", lambda: small)
    assert all(t > 0 for times in bench.encode_times(5, 2, "cpu").values() for t in times)
    assert 1.02 < bench.arithmetic(128) < 1.03 < bench.arithmetic(64) < 1.1
    monkeypatch.setattr(bench, "arithmetic", lambda size: 1.0)
    for encode, step, failed in ((0.6, 1.02, 0), (0.61, 1.0, 1), (0.5, 1.03, 1)):
        monkeypatch.setattr(bench, "encode_times", lambda *_, r=encode: {bench.OURS: [r], bench.PADDED: [1.0]})
        monkeypatch.setattr(bench, "step_times", lambda _, r=step: {bench.ADAPTER: [r], bench.CLIP: [1.0]})
        assert bench.main(["--adapters"]) == failed
    assert "step 1.0300 (at most 1.02)" in capsys.readouterr().out
