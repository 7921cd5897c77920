"""Files of weights that can't be used: every loader says which file, what it seems to be, and what to do."""

import json
import struct
import sys
from pathlib import Path

import folder_paths
import pytest
import torch
from ella_lmd.nodes.ella import ELLAEncode, ELLAModelLoader, ELLATextEncoderLoader, TimestepAwareConditioning
from ella_lmd.nodes.ella_compat import ELLACompatTextEncoderLoader
from ella_lmd.nodes.host import demo_model, model_files
from ella_lmd.nodes.host.ella.connector import load_connector
from ella_lmd.nodes.host.ella.t5 import load_text_encoder
from ella_lmd.nodes.host.lmd import sam
from ella_lmd.tests import ella_models
from safetensors.torch import save, save_file

import nodes

NAME = "odd.safetensors"
FINE = save({"a.weight": torch.ones(4, 4), "b.weight": torch.ones(4)})
LOADERS = {
    "connector": (lambda path: load_connector(path.name), "ella", "ELLAModelLoader"),
    "t5": (lambda path: load_text_encoder(path.name), "ella_encoder", "ELLATextEncoderLoader"),
    "sam": (lambda path: sam.load(path.name), "sams", "LMDSAMLoader"),
    "demo": (demo_model.load, "demo", "install the pack again"),
}


def header(entries: dict, data: bytes = b"") -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


ODD = {
    "empty": (b"", "is empty"),
    "cut off": (FINE[:-8], "is cut off"),
    "cut off in the header": (FINE[:60], "is cut off"),
    "web page": (b"\n<!DOCTYPE html><html><body>404", "is a web page"),
    "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n", "git-lfs pointer"),
    "json": (b'{"error": "Invalid credentials"}', "is a text file.*Invalid cred"),
    "gguf": (b"GGUF\x03\x00\x00\x00" + bytes(40), "GGUF"),
    "zip": (b"PK\x03\x04" + bytes(200), "PyTorch"),
    "zeros": (bytes(4096), "not a safetensors file|no named weights"),
    "noise": (bytes(range(128, 256)) * 9, "not a safetensors file"),
    "no tensors": (header({"__metadata__": {"format": "pt"}}), "no named weights"),
    "absurd shape": (header({"x": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4]}}, bytes(4)),
                     "makes no sense"),
    "negative place": (header({"x": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}), "makes no sense"),
    "deep header": (struct.pack("<Q", 40000) + b"[" * 40000, "makes no sense"),
    "lora": (save({"lora_unet_x.lora_down.weight": torch.ones(4, 4)}), "seems to be a LoRA"),
    "peft lora": (save({"base_model.model.q.lora_A.weight": torch.ones(4, 4)}), "seems to be a LoRA"),
    "clip": (save({"text_model.encoder.layers.0.mlp.fc1.weight": torch.ones(4, 4)}), "seems to be a CLIP text encoder"),
    "open clip": (save({"transformer.resblocks.0.ln_1.weight": torch.ones(4)}), "seems to be a CLIP text encoder"),
    "checkpoint": (save({"model.diffusion_model.out.2.weight": torch.ones(4, 4)}), "seems to be a whole Stable"),
    "unknown": (FINE, "seems to be a file of an unknown kind"),
}  # fmt: skip


@pytest.fixture
def folders(tmp_path, monkeypatch):
    known = dict(folder_paths.folder_names_and_paths)
    for key in ("ella", "ella_encoder", "text_encoders", "sams", "demo"):
        (tmp_path / key).mkdir()
        known[key] = ([str(tmp_path / key)], set(folder_paths.supported_pt_extensions))
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", known)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("kind", ODD)
def test_an_odd_file_is_called_what_it_is(folders, loader, kind):
    load, folder, remedy = LOADERS[loader]
    path = folders / folder / NAME
    path.write_bytes(ODD[kind][0])
    with pytest.raises(ValueError, match=ODD[kind][1]) as caught:
        load(path)
    message = str(caught.value)
    assert str(path) in message and remedy in message and "weights_only" not in message


class Trap:
    def __reduce__(self):
        return print, ("ran",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"x": Trap()}, "Python objects"),
        ([torch.ones(1)], "no named weights"),
        (torch.ones(1), "no named weights"),
        ({"a": 1, "b": 2}, "no named weights"),
        ({"a": torch.zeros(1).expand(10**6, 10**6), "b": torch.zeros(1)}, "does not hold them"),
    ],
    ids=["code", "list", "tensor", "numbers", "absurd"],
)
def test_a_pytorch_file_without_weights_is_refused(folders, content, words):
    path = folders / "ella" / "odd.pt"
    torch.save(content, path)
    with pytest.raises(ValueError, match=words) as caught:
        load_connector("odd.pt")
    assert str(path) in str(caught.value) and "weights_only" not in str(caught.value)


def test_a_file_under_the_wrong_name_is_told(folders):
    (folders / "ella" / "odd.pt").write_bytes(FINE)
    with pytest.raises(ValueError, match="call it .safetensors"):
        load_connector("odd.pt")
    torch.save({"a": torch.ones(1)}, folders / "ella" / "whole.pt")
    (folders / "ella" / "cut.pt").write_bytes((folders / "ella" / "whole.pt").read_bytes()[:-100])
    with pytest.raises(ValueError, match="cut off"):
        load_connector("cut.pt")


def spoiled(state: dict, key: str, value: torch.Tensor) -> dict:
    return {**{k: v.half() for k, v in state.items()}, key: value}


@pytest.mark.parametrize(
    ("make", "key", "value", "words"),
    [
        ("connector", "connector.latents", torch.full((64, 768), torch.nan), "NaN"),
        ("connector", "connector.latents", torch.ones(64, 768, dtype=torch.int32), "int32"),
        ("connector", "connector.latents", torch.ones(64), "damaged: connector.latents"),
        ("connector", "connector.latents", torch.ones(0, 768), "damaged: connector.latents"),
        ("connector", "connector.perceiver_blocks.999999999.x", torch.ones(1), "does not belong"),
        ("t5", "encoder.final_layer_norm.weight", torch.full((64,), torch.inf), "NaN or infinity"),
        ("t5", "encoder.final_layer_norm.weight", torch.ones(64, dtype=torch.int64), "int64"),
        ("t5", "encoder.final_layer_norm.weight", torch.ones(63), "shape"),
        ("t5", "shared.weight", torch.ones(64), "damaged: shared.weight"),
        ("t5", "encoder.block.999999999.x", torch.ones(1), "not understood"),
    ],
)
def test_numbers_that_cannot_be_weights_are_refused(folders, make, key, value, words):
    load, folder, _ = LOADERS[make]
    state = ella_models.connector_state() if make == "connector" else ella_models.t5_state()
    path = folders / folder / NAME
    save_file(spoiled(state, key, value), path)
    with pytest.raises(ValueError, match=words) as caught:
        load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("heads", ["eight", "0", "7", "99999999999", "-8"])
def test_absurd_numbers_of_heads_are_refused(folders, heads):
    save_file(ella_models.connector_state(), folders / "ella" / NAME, metadata={"heads": heads})
    with pytest.raises(ValueError, match="attention heads"):
        load_connector(NAME)


@pytest.mark.parametrize("value", [None, 3, True, ["a"], {"a": 1}, "notes.txt", "../secret.safetensors", ""])
def test_a_name_that_is_not_in_the_list_is_refused(folders, value):
    for key in ("ella", "ella_encoder"):
        (folders / key / "notes.txt").write_text("mine")
    save_file({"x": torch.zeros(1)}, folders / "secret.safetensors")
    loaders = ((ELLAModelLoader, "ella_name"), (ELLATextEncoderLoader, "encoder_name"))
    for loader, argument in (*loaders, (ELLACompatTextEncoderLoader, "name")):
        with pytest.raises((ValueError, FileNotFoundError), match="list|was not found|no file of weights"):
            loader.execute(**{argument: value})
        if value is not None:  # the host also says None for a link
            assert isinstance(loader.validate_inputs(**{argument: value}), str)


def test_choices_that_come_through_a_link_are_checked(folders):
    models = ella_models.write(folders)
    assert models == folders
    connector, encoder = load_connector(ella_models.CONNECTOR), load_text_encoder(ella_models.ENCODER)
    for inputs in ({"mode": "CLIP"}, {"length": "fixed 64"}):
        with pytest.raises(ValueError, match="not one of its choices"):
            ELLAEncode.execute(connector, encoder, "a cat", **{"mode": "ELLA only", **inputs})
    with pytest.raises(ValueError, match="precision"):
        ELLATextEncoderLoader.execute(ella_models.ENCODER, "float16")
    with pytest.raises(ValueError, match="dtype"):
        ELLACompatTextEncoderLoader.execute(ella_models.ENCODER, 0, "BF16")


def test_a_model_or_clip_of_another_family_is_refused_in_this_packs_words(folders, sd15):
    ella_models.write(folders)
    connector, encoder = load_connector(ella_models.CONNECTOR), load_text_encoder(ella_models.ENCODER)
    alone = ELLAEncode.execute(connector, encoder, "a cat", mode="ELLA only").args[0]
    by_clip = nodes.CLIPTextEncode().encode(sd15[1], "a cat")[0]
    for family in ("sd2", "sdxl"):
        file = sys.modules["test_models"].diffusion_model(family)
        model = nodes.UNETLoader().load_unet(Path(file).name, "default")[0]
        patched = TimestepAwareConditioning.execute(model).args[0]
        cases = [(patched, alone, alone), (patched, alone, by_clip)] + (
            [(model, alone, alone)] if family == "sd2" else []
        )
        for model, positive, negative in cases:
            with pytest.raises(ValueError, match="released for Stable Diffusion 1.5 only"):
                nodes.common_ksampler(
                    model, 1, 1, 2.0, "euler", "normal", positive, negative, {"samples": torch.zeros(1, 4, 8, 8)}
                )


def test_a_clip_of_another_width_is_refused_by_the_encoder(folders, sd15):
    ella_models.write(folders)
    connector, encoder = load_connector(ella_models.CONNECTOR), load_text_encoder(ella_models.ENCODER)

    class Wide:
        tokenize = sd15[1].tokenize

        def encode_from_tokens_scheduled(self, tokens):
            return [[t.repeat(1, 1, 2), extra] for t, extra in sd15[1].encode_from_tokens_scheduled(tokens)]

    with pytest.raises(ValueError, match="not the CLIP of a Stable Diffusion 1.5 model"):
        ELLAEncode.execute(connector, encoder, "a cat", Wide())


def test_sound_files_of_every_form_load_as_they_are(folders):
    state = {"a": torch.randn(3), "b": torch.randn(2, 2).half()}
    save_file(state, folders / "ella" / "x.safetensors", metadata={"heads": "8"})
    torch.save({"model": state, "optimizer": {"step": 3}}, folders / "ella" / "x.pt")
    torch.save({"state_dict": state}, folders / "ella" / "y.ckpt")
    torch.save(state, folders / "ella" / "z.bin", _use_new_zipfile_serialization=False)
    for name in ("x.safetensors", "x.pt", "y.ckpt", "z.bin"):
        loaded, metadata = model_files.load(str(folders / "ella" / name), "")
        assert loaded.keys() == state.keys() and all(torch.equal(loaded[k], state[k]) for k in state)
    assert metadata == {}
