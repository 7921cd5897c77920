"""Every sampler of the host x {ELLA positive only, both, ELLA + CLIP}: the right timestep at every call, to the image.

Compared with a brute-force sampler that recomputes everything naively at each call of the U-Net.
"""

import comfy.samplers
import folder_paths
import pytest
import torch
from ella_lmd.nodes.ella import ELLAEncode, ELLAModelLoader, ELLATextEncoderLoader, TimestepAwareConditioning
from ella_lmd.tests import ella_models
from ella_lmd.tests.ella_reference import Recorder, Side, brute_force, context, naive_connector

import nodes

PROMPT, NEGATIVE = "a red cube left of a blue ball", "blurry"
STEPS, SEED, CFG = 3, 5, 4.0


@pytest.fixture(scope="module")
def ella(tmp_path_factory):
    """(connector, text encoder, naive connector) from files, through the loader nodes."""
    models = ella_models.write(tmp_path_factory.mktemp("models"))
    for key in ("ella", "ella_encoder"):
        folder_paths.add_model_folder_path(key, str(models / key), is_default=True)
    with torch.inference_mode():
        connector = ELLAModelLoader.execute(ella_models.CONNECTOR).args[0]
        encoder = ELLATextEncoderLoader.execute(ella_models.ENCODER).args[0]
        naive = naive_connector({k: v.half() for k, v in ella_models.connector_state().items()})
    return connector, encoder, naive


@pytest.fixture(scope="module")
def setups(sd15, ella):
    """kind -> (positive, negative, the same two for the reference)."""
    _, clip, _ = sd15
    connector, encoder, _ = ella
    with torch.inference_mode():

        def ours(text, mode):
            return ELLAEncode.execute(connector, encoder, text, clip, mode).args[0]

        by_clip = {t: nodes.CLIPTextEncode().encode(clip, t)[0] for t in (PROMPT, NEGATIVE)}
        features = {t: encoder.features(t).clone() for t in (PROMPT, NEGATIVE)}
        alone, together = "ELLA only", "ELLA + CLIP"
        return {
            "positive only": (
                ours(PROMPT, alone), by_clip[NEGATIVE],
                Side(features[PROMPT]), Side(None, by_clip[NEGATIVE][0][0]),
            ),
            "both": (ours(PROMPT, alone), ours(NEGATIVE, alone), Side(features[PROMPT]), Side(features[NEGATIVE])),
            "ELLA + CLIP": (
                ours(PROMPT, together), ours(NEGATIVE, together),
                Side(features[PROMPT], by_clip[PROMPT][0][0]), Side(features[NEGATIVE], by_clip[NEGATIVE][0][0]),
            ),
        }  # fmt: skip


def sample(model, positive, negative, sampler, scheduler="normal"):
    latent = {"samples": torch.zeros(1, 4, 4, 4)}
    return nodes.common_ksampler(model, SEED, STEPS, CFG, sampler, scheduler, positive, negative, latent)[0]["samples"]


@pytest.mark.parametrize("kind", ["positive only", "both", "ELLA + CLIP"])
@pytest.mark.parametrize("sampler", comfy.samplers.KSampler.SAMPLERS)
def test_every_call_of_every_sampler_gets_the_tokens_of_its_own_timestep(sd15, ella, setups, sampler, kind):
    model, _, _ = sd15
    connector, _, naive = ella
    positive, negative, side_p, side_n = setups[kind]
    patched = TimestepAwareConditioning.execute(model).args[0]
    for tokens, _ in positive + (negative if kind != "positive only" else []):
        forget(tokens)
    with Recorder(patched, connector) as seen:
        ours = sample(patched, positive, negative, sampler)

    assert list(dict.fromkeys(seen.unet)) == list(dict.fromkeys(seen.connector)), "another timestep than the U-Net's"
    assert len(seen.connector) == len(set(seen.unet)), "one evaluation, of all texts, for each distinct timestep"
    for timestep, rows, read in zip(seen.unet, seen.rows, seen.contexts):
        assert rows == (1 if kind == "positive only" else 2)
        wanted = [context(naive, side, timestep) for side in (side_p, side_n)]
        for row in read:
            assert any(w.shape[1:] == row.shape and torch.allclose(w[0], row, atol=1e-4) for w in wanted)

    reference = brute_force(model, naive, side_p, side_n)
    naively = sample(reference, side_p.placeholder(), side_n.placeholder(), sampler)
    assert ours.isfinite().all()
    assert (ours - naively).abs().max() <= 1e-5 * max(1.0, float(naively.abs().max()))


def forget(tokens) -> None:
    """Drop the remembered timesteps, so that every evaluation of the run is seen."""
    from ella_lmd.ella.timed import sources

    for text in sources(tokens):
        text._tokens.clear()
