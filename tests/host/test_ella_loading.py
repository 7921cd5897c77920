"""Finding, recognising and loading ELLA's files, and what the text encoder makes of a text."""

import asyncio
import dataclasses
import json
import logging
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import comfy.sd
import folder_paths
import pytest
import torch
from comfy.text_encoders import anima
from ella_lmd.nodes.ella import ELLAEncode, ELLAModelLoader, ELLATextEncoderLoader
from ella_lmd.nodes.ella_caption import ELLALongCaption
from ella_lmd.nodes.host.ella import files
from ella_lmd.nodes.host.ella.connector import load_connector
from ella_lmd.nodes.host.ella.t5 import KEY, REMEMBERED_TEXTS, load_text_encoder
from ella_lmd.nodes.host.llm import servers
from ella_lmd.tests import ella_models
from safetensors.torch import save_file

import nodes

FP8 = torch.float8_e4m3fn


def long_caption(*args, **kwargs):
    return asyncio.run(ELLALongCaption.execute(*args, **kwargs))


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Empty `ella`, `ella_encoder` and `text_encoders` folders, the only ones that are searched."""
    known = dict(folder_paths.folder_names_and_paths)
    for key in ("ella", "ella_encoder", "text_encoders"):
        (tmp_path / key).mkdir()
        known[key] = ([str(tmp_path / key)], set(folder_paths.supported_pt_extensions))
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", known)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


@pytest.fixture(scope="module")
def t5():
    with torch.inference_mode(False):
        return ella_models.t5_state()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, t5):
    folder = tmp_path_factory.mktemp("encoder")
    save_file({k: v.half() for k, v in t5.items()}, folder / "flan.safetensors")
    known = dict(folder_paths.folder_names_and_paths)
    folder_paths.folder_names_and_paths["text_encoders"] = ([str(folder)], set(folder_paths.supported_pt_extensions))
    try:
        with torch.inference_mode():
            return load_text_encoder("flan.safetensors")
    finally:
        folder_paths.folder_names_and_paths.update(known)


def test_folders_that_a_user_has_configured_come_first_and_stay(monkeypatch):
    mine = ({"/mine"}, set())
    monkeypatch.setattr(
        folder_paths, "folder_names_and_paths",
        {"ella": (["/mine/ella"], set()), "ella_encoder": (["/other"], (".bin",)), "loras": mine},
    )  # fmt: skip
    files.register_folders()
    files.register_folders()
    paths, extensions = folder_paths.folder_names_and_paths["ella"]
    assert paths[0] == "/mine/ella" and len(paths) == 2 and paths[1].endswith("ella")
    assert ".safetensors" in extensions
    paths, extensions = folder_paths.folder_names_and_paths["ella_encoder"]
    assert paths[0] == "/other" and {".bin", ".safetensors"} <= set(extensions)
    assert folder_paths.folder_names_and_paths["loras"] is mine


@pytest.mark.parametrize("loader, argument", [(ELLAModelLoader, "ella_name"), (ELLATextEncoderLoader, "encoder_name")])
def test_when_nothing_is_found_every_searched_path_and_the_right_file_are_named(folders, loader, argument):
    message = loader.validate_inputs(**{argument: "absent.safetensors"})
    searched = ["ella"] if argument == "ella_name" else ["ella_encoder", "text_encoders"]
    assert all(str(folders / key) in message for key in searched)
    assert ("ella-sd1.5-tsc-t5xl.safetensors" if argument == "ella_name" else "FLAN-T5-XL") in message
    with pytest.raises(FileNotFoundError, match="absent"):
        loader.execute(**{argument: "absent.safetensors"})


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", ""])
def test_names_cannot_leave_the_folders(folders, name):
    save_file({"x": torch.zeros(1)}, folders / "secret.safetensors")
    assert "was not found" in ELLAModelLoader.validate_inputs(name)


def test_a_windows_path_in_a_saved_graph_is_found(folders):
    (folders / "ella" / "sub").mkdir()
    save_file(ella_models.connector_state(), folders / "ella" / "sub" / "c.safetensors")
    assert ELLAModelLoader.validate_inputs("sub\\c.safetensors") is True


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_connector_of_any_precision_loads(folders, dtype):
    save_file({k: v.to(dtype) for k, v in ella_models.connector_state().items()}, folders / "ella" / "c.safetensors")
    connector = load_connector("c.safetensors")
    assert connector.dtype == torch.float32, "on the CPU nothing is computed in half precision"
    assert connector([torch.randn(1, 3, ella_models.T5_WIDTH)], 5).dtype == torch.float32


def test_a_wrong_connector_says_what_it_seems_to_be(folders, t5):
    save_file(t5, folders / "ella" / "t5.safetensors")
    with pytest.raises(ValueError, match="t5.safetensors.*seems to be a T5 model"):
        load_connector("t5.safetensors")


def formats(t5):
    whole = {**t5, "lm_head.weight": t5["shared.weight"].clone(), "decoder.embed_tokens.weight": torch.zeros(2, 2)}
    linear = {
        k: k.endswith(("q.weight", "k.weight", "v.weight", "o.weight", "wi_0.weight", "wi_1.weight", "wo.weight"))
        for k in t5
    }
    scaled = {"scaled_fp8": torch.zeros(2, dtype=FP8)}
    for k, v in t5.items():
        scaled[k] = (v * 4).to(FP8) if linear[k] else v
        if linear[k]:
            scaled[k.replace(".weight", ".scale_weight")] = torch.tensor(0.25)
    return {
        "fp32": (t5, 2e-3),
        "fp16": ({k: v.half() for k, v in t5.items()}, 2e-3),
        "bf16": ({k: v.bfloat16() for k, v in t5.items()}, 5e-2),
        "whole model": (whole, 2e-3),
        "embedding in the encoder": (
            {("encoder.embed_tokens.weight" if k == "shared.weight" else k): v for k, v in t5.items()}, 2e-3
        ),
        "fp8": ({k: v.to(FP8) if linear[k] else v.half() for k, v in t5.items()}, 0.3),
        "fp8 throughout": ({k: v.to(FP8) for k, v in t5.items()}, 0.3),
        "scaled fp8": (scaled, 0.3),
    }  # fmt: skip


@pytest.mark.parametrize(
    "form", ["fp32", "fp16", "bf16", "whole model", "embedding in the encoder", "fp8", "fp8 throughout", "scaled fp8"]
)
def test_every_form_of_the_encoder_loads_and_agrees(folders, t5, form):
    save_file(t5, folders / "text_encoders" / "exact.safetensors")
    exact = load_text_encoder("exact.safetensors", "float32").features("a red cube on a table")
    state, tolerance = formats(t5)[form]
    save_file({k: v.contiguous() for k, v in state.items()}, folders / "ella_encoder" / "t5.safetensors")
    features = load_text_encoder("t5.safetensors").features("a red cube on a table")
    assert features.dtype == torch.float32 and features.isfinite().all()
    assert float((features - exact).norm() / exact.norm()) < tolerance


@pytest.mark.parametrize("layout", ["plain", "parts", "download cache", "pytorch"])
def test_every_kind_of_model_folder_loads(folders, t5, layout):
    folder = folders / "ella_encoder" / "models--google--flan-t5-xl"
    inner = folder / "snapshots" / "abc" if layout == "download cache" else folder
    inner.mkdir(parents=True)
    (inner / "config.json").write_text("{}")
    if layout == "parts":
        keys = list(t5)
        save_file({k: t5[k] for k in keys[:5]}, inner / "model-00001-of-00002.safetensors")
        save_file({k: t5[k] for k in keys[5:]}, inner / "model-00002-of-00002.safetensors")
        (inner / "model.safetensors.index.json").write_text("{}")
    elif layout == "pytorch":
        torch.save(t5, inner / "pytorch_model.bin")
    else:
        save_file(t5, inner / "model.safetensors")
        save_file({k: v.half() for k, v in t5.items()}, inner / "model.fp16.safetensors")
    names = files.encoder_names()
    assert any(n.startswith("models--google--flan-t5-xl") for n in names)
    assert load_text_encoder("models--google--flan-t5-xl").config.num_layers == 2


def test_a_folder_without_weights_says_so(folders):
    (folders / "ella_encoder" / "empty").mkdir()
    (folders / "ella_encoder" / "empty" / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        load_text_encoder("empty")


def test_an_encoder_with_a_missing_tensor_is_refused(folders, t5):
    broken = {k: v for k, v in t5.items() if "block.1.layer.1.DenseReluDense.wo" not in k}
    save_file(broken, folders / "ella_encoder" / "t5.safetensors")
    with pytest.raises(ValueError, match="not a whole T5"):
        load_text_encoder("t5.safetensors")


def test_an_encoder_of_another_width_is_refused_by_the_connector(folders, encoder):
    save_file(ella_models.connector_state(input_dim=32), folders / "ella" / "c.safetensors")
    with pytest.raises(ValueError, match="width 32.*width 64"):
        ELLAEncode.execute(load_connector("c.safetensors"), encoder, "x", mode="ELLA only")


def test_weights_move_the_features_from_the_empty_text_as_the_host_does_it(encoder):
    plain = encoder.features("a red cube")
    weighted = encoder.features("a (red:1.5) cube")
    empty = encoder.clip.cond_stage_model.flan_t5([[1, 0, 0, 0, 0, 0]])[0]
    ids = [i for i, _ in encoder.tokens("a red cube")]
    (position,) = [n for n, (_, w) in enumerate(encoder.tokens("a (red:1.5) cube")) if w == 1.5]
    assert len(ids) == 6
    expected = plain.clone()
    expected[:, position] = (plain[:, position] - empty[:, position]) * 1.5 + empty[:, position]
    assert torch.allclose(weighted, expected, atol=1e-4)


def test_escaped_parentheses_are_text(encoder):
    assert [w for _, w in encoder.tokens("a \\(red\\) cube")] == [1.0] * len(encoder.tokens("a \\(red\\) cube"))


def test_padding_is_hidden_from_the_text_but_present_for_the_connector(encoder):
    flexible, fixed = encoder.features("a red cube"), encoder.features("a red cube", 128)
    assert flexible.shape[1] == 6 and fixed.shape[1] == 128
    assert torch.allclose(flexible, fixed[:, :6], atol=1e-4)
    assert fixed[:, 6:].abs().max() > 0.1


def own(caplog) -> list[logging.LogRecord]:
    """What this pack logged; the host warns of its own affairs meanwhile."""
    return [r for r in caplog.records if r.name.startswith("ella_lmd")]


def test_a_longer_text_is_whole_when_flexible_and_cut_with_a_warning_when_fixed(encoder, caplog):
    text = "one two three four five six seven eight nine ten " * 20
    with caplog.at_level(logging.WARNING):
        length = encoder.features(text).shape[1]
    assert length > 200 and not own(caplog)
    with caplog.at_level(logging.WARNING):
        pairs = encoder.tokens(text, 128)
    assert len(pairs) == 128 and pairs[-1][0] == 1
    (record,) = own(caplog)
    assert "flexible" in record.getMessage() and "ten" in record.getMessage()


def test_features_are_computed_once_for_each_text(encoder):
    calls = []
    hook = getattr(encoder.clip.cond_stage_model, KEY).register_forward_pre_hook(lambda *a: calls.append(1))
    first = encoder.features("never seen before")
    assert encoder.features("never seen before") is first and len(calls) == 1
    for i in range(REMEMBERED_TEXTS + 5):
        encoder.features(f"text number {i}")
    assert len(encoder._features) == REMEMBERED_TEXTS
    hook.remove()


def test_the_order_of_tokens_and_the_modes(folders, encoder, sd15):
    _, clip, _ = sd15
    save_file(ella_models.connector_state(), folders / "ella" / "c.safetensors")
    connector = load_connector("c.safetensors")
    by_clip = nodes.CLIPTextEncode().encode(clip, "a cat")[0]
    ((alone, extra),) = ELLAEncode.execute(connector, encoder, "a cat", mode="ELLA only").args[0]
    assert alone.shape == (1, 64, 768) and extra == {}
    ((both, extra),) = ELLAEncode.execute(connector, encoder, "a cat", clip).args[0]
    assert torch.equal(both[:, :64], alone) and torch.equal(torch.Tensor(both[:, 64:]), by_clip[0][0])
    assert torch.equal(extra["pooled_output"], by_clip[0][1]["pooled_output"])
    ((tagged, _),) = ELLAEncode.execute(connector, encoder, "a cat", clip, clip_text="chibi " * 90).args[0]
    assert tagged.shape[1] == 64 + 154, "two chunks of CLIP"
    with pytest.raises(ValueError, match="ELLA only"):
        ELLAEncode.execute(connector, encoder, "a cat")


def test_a_model_of_another_family_is_refused_by_name(folders, encoder):
    from ella_lmd.nodes.ella import TimestepAwareConditioning

    save_file(ella_models.connector_state(), folders / "ella" / "c.safetensors")
    positive = ELLAEncode.execute(load_connector("c.safetensors"), encoder, "x", mode="ELLA only").args[0]
    sd2 = comfy.sd.load_diffusion_model(str(sys.modules["test_models"].diffusion_model("sd2")))
    model = TimestepAwareConditioning.execute(sd2).args[0]
    with pytest.raises(ValueError, match="1.5 only"):
        nodes.common_ksampler(
            model, 1, 1, 1.0, "euler", "normal", positive, positive, {"samples": torch.zeros(1, 4, 4, 4)}
        )


def test_a_short_prompt_becomes_the_caption_of_a_reply_and_a_long_one_stays():
    source = {"source": "reply text", "reply": "Long: a red cube stands left of a blue ball."}
    caption, instruction = long_caption("red cube, blue ball", source).args
    assert caption == "a red cube stands left of a blue ball."
    assert instruction.endswith("Short: red cube, blue ball\nLong:")
    long = "word " * 30
    assert long_caption(long, source).args[0] == long
    assert long_caption(long, source, short_only=False).args[0] != long


def test_a_clip_that_cannot_write_is_refused_with_what_to_load(sd15):
    _, clip, _ = sd15
    with pytest.raises(ValueError, match="Gemma"):
        long_caption("a cat", {"source": "host text generation", "clip": clip, "seed": 1})


def test_a_text_model_of_the_host_writes_the_caption():
    """Random weights: what it writes is noise, but the whole way through the host's generation is real."""

    class Target:
        params: dict = {}
        clip = anima.AnimaTEModel
        tokenizer = anima.AnimaTokenizer

    sizes = {"num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2,
             "num_key_value_heads": 1}  # fmt: skip
    clip = comfy.sd.CLIP(Target, model_options={"qwen3_06b_model_config": sizes})
    for i, p in enumerate(clip.cond_stage_model.parameters()):
        torch.nn.init.normal_(p, std=0.1, generator=torch.Generator().manual_seed(i))
    source = {"source": "host text generation", "clip": clip, "seed": 1}
    caption = long_caption("a cat", source).args[0]
    assert caption and caption != "a cat"
    assert long_caption("a cat", source).args[0] == caption
    assert long_caption("a cat", {**source, "seed": 2}).args[0] != caption


def test_a_server_of_the_planners_list_writes_the_caption(monkeypatch):
    asked = []

    class Scripted(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            reply = {
                "choices": [{"message": {"content": "Long: a grey cat sits on a red mat."}, "finish_reason": "stop"}]
            }
            body = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args): ...

    listener = HTTPServer(("127.0.0.1", 0), Scripted)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{listener.server_port}/v1"
    server = dataclasses.replace(servers.LOCAL[0], name="scripted", address=address, model="tiny")
    monkeypatch.setattr(servers, "listed", lambda: servers.Listed({"scripted": server}))
    source = {"source": "language model server", "server": "scripted", "seed": 3}
    assert long_caption("a cat", source).args[0] == "a grey cat sits on a red mat."
    listener.shutdown()
    (body,) = asked
    assert body["model"] == "tiny" and body["messages"][0]["content"].endswith("Short: a cat\nLong:")
