"""Nodes that call the U-Net on parts of the latent: each part is guided to its part of the boxes, or refused by name."""

import logging

import pytest
import torch
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.sampling.guidance import GuidanceOptions
from ella_lmd.lmd.sampling.options import LMDOptions
from ella_lmd.nodes.host.guidance import gradients, tiles
from ella_lmd.nodes.host.guidance.attention_recorder import recorded
from ella_lmd.nodes.host.guidance.guide import EnergyTrace, guidance_target, patch_guidance
from ella_lmd.nodes.lmd_sample import BoxGroundedSampler

import nodes

WIDE = Layout(
    256,
    128,
    (LayoutObject("a red circle", Box(0.02, 0.2, 0.3, 0.6)), LayoutObject("a blue star", Box(0.68, 0.2, 0.3, 0.6))),
    background="a photo of grass",
)
TWICE = GuidanceOptions(loss_scale=2.0, loss_threshold=0.0, max_index_step=50, max_iter=(2,))


def halves(apply, args):
    """A tiling node: the left and the right half, one after the other."""
    x, t, c = args["input"], args["timestep"], args["c"]
    return torch.cat([apply(x[..., i : i + 16], t, **c) for i in range(0, x.shape[-1], 16)], -1)


def overlapping(apply, args):
    """A tiling node that takes overlapping tiles as one batch."""
    x, t, c = args["input"], args["timestep"], args["c"]
    starts = (0, 8, 16)
    c = {**c, "c_crossattn": torch.cat([c["c_crossattn"]] * 3)}
    found = apply(torch.cat([x[..., i : i + 16] for i in starts]), torch.cat([t] * 3), **c).chunk(3)
    out, count = torch.zeros_like(x), torch.zeros_like(x)
    for start, tile in zip(starts, found):
        out[..., start : start + 16] += tile
        count[..., start : start + 16] += 1
    return out / count


def mirrored(apply, args):
    """A node that turns the latent around and shows it in halves: no part of it is a tile."""
    x, t, c = args["input"].flip(-1) * 1.01, args["timestep"], args["c"]
    return torch.cat([apply(x[..., i : i + 16], t, **c) for i in range(0, x.shape[-1], 16)], -1).flip(-1)


def tiled(demo, wrapper):
    model = demo[0].clone()
    model.set_model_unet_function_wrapper(wrapper)
    return model


def run(demo, model, batch=1, steps=3, options=TWICE, layout=WIDE):
    """`(latent, trace)` of a guided run."""
    target, positive = guidance_target(demo[1], layout, "")
    negative = nodes.CLIPTextEncode().encode(demo[1], "blurry")[0]
    trace = EnergyTrace()
    latent = {"samples": torch.zeros(batch, 4, layout.height // 8, layout.width // 8)}
    guided = patch_guidance(model, target, options, trace)
    args = (guided, 3, steps, 4.0, "euler", "normal", positive, negative, latent)
    return nodes.common_ksampler(*args)[0]["samples"], trace


def falls(trace):
    steps = {s: [float(e.mean()) for t, _, e in trace.rows if t == s] for s, _, _ in trace.rows}
    return [values[-1] < values[0] for values in steps.values()]


@pytest.fixture
def seen(monkeypatch):
    """The gradients of all guided passes."""
    found = []
    original = gradients._one_pass

    def keeping(*args):
        result = original(*args)
        found.extend(result)
        return result

    monkeypatch.setattr(gradients, "_one_pass", keeping)
    return found


@pytest.mark.parametrize("wrapper", [halves, overlapping])
def test_every_tile_is_guided_to_its_part_of_the_boxes(demo, wrapper, seen):
    _, trace = run(demo, tiled(demo, wrapper))
    assert all(falls(trace)) and len(trace.rows) == 6
    for found in seen:
        columns = found.gradient.abs().mean((0, 1, 2)).split(4)
        assert all(float(c.mean()) > 0 for c in columns), "no part of the canvas is left out"
    left, right = (e.mean(-1) for e in trace.parts[0])  # each phrase has energy of its own
    assert float(left) > 0 and float(right) > 0


def test_one_tile_over_the_whole_canvas_is_the_pass_without_tiles(demo):
    square = Layout(128, 128, WIDE.objects, WIDE.background)
    plain, expected = run(demo, demo[0], layout=square)
    found, trace = run(demo, tiled(demo, halves), layout=square)
    assert torch.equal(plain, found)
    assert all(torch.equal(a[2], b[2]) for a, b in zip(expected.rows, trace.rows))


def test_what_is_no_tile_is_named_and_guided_as_a_whole(demo, caplog, seen):
    with caplog.at_level(logging.WARNING):
        _, trace = run(demo, tiled(demo, mirrored))
    assert "mirrored gives the U-Net something else" in caplog.text
    assert all(falls(trace)) and all(float(f.gradient.abs().min(-1).values.max()) > 0 for f in seen)


@pytest.mark.parametrize(("dim", "length", "batch"), [(3, 16, 1), (0, 2, 4)], ids=["of columns", "of images"])
def test_context_windows_are_guided(demo, extra_nodes, dim, length, batch, seen):
    node = extra_nodes["ContextWindowsManual"]
    model = node.execute(
        model=demo[0], context_length=length, context_overlap=0, context_schedule="standard_static", context_stride=1,
        closed_loop=False, fuse_method="flat", dim=dim, freenoise=False, cond_retain_index_list="",
        split_conds_to_windows=False,
    ).args[0]  # fmt: skip
    result, trace = run(demo, model, batch=batch, steps=2)
    assert all(falls(trace)) and torch.isfinite(result).all()
    assert all(float(f.gradient.abs().mean((0, 1, 2)).min()) > 0 for f in seen)
    if dim == 0:
        expected, whole = run(demo, demo[0], batch=batch, steps=2)
        assert torch.allclose(result, expected, atol=1e-3)
        assert all(torch.allclose(a[2], b[2], atol=1e-3) for a, b in zip(trace.rows, whole.rows))


def test_the_objects_own_runs_refuse_tiles_by_name(demo):
    options = LMDOptions(guidance=TWICE)
    args = (tiled(demo, halves), demo[1], WIDE, 1, 2, 4.0, "ddim", "ddim_uniform", "reference")
    with pytest.raises(
        ValueError, match="Box Grounded Sampler needs.*32 x 16 latent cells.*part of 16 x 16.*before that"
    ):
        BoxGroundedSampler.execute(*args, options=options)


def test_tiles_are_placed_by_their_content():
    canvas = torch.randn(2, 4, 12, 20, generator=torch.Generator().manual_seed(1))
    rows, columns = torch.tensor([3, 4, 5, 6]), torch.tensor([18, 19, 0, 1])
    found = tiles.place(canvas, canvas[:, :, rows][..., columns])
    assert torch.equal(found[0], rows) and torch.equal(found[1], columns)
    for wrong in (canvas[:, :, :4, :4] * 1.01, canvas[:1, :, :4, :4], canvas[:, :, :4, :4].flip(-1) + 1):
        with pytest.raises(tiles.NotATile):
            tiles.place(canvas, wrong)


def test_the_recorder_says_that_it_cannot_record_tiles(demo, caplog):
    model, positive, record = recorded(tiled(demo, halves), demo[1], WIDE)
    latent = {"samples": torch.zeros(1, 4, 16, 32)}
    with caplog.at_level(logging.WARNING):
        nodes.common_ksampler(model, 3, 2, 4.0, "euler", "normal", positive, positive, latent)
    told = [r.getMessage() for r in caplog.records if "attention is not recorded" in r.getMessage()]
    assert len(told) == 1 and "a part of 16 x 16 latent cells of 32 x 16" in told[0] and not record.looks
