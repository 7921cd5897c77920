"""The planner's language models against a scripted server: answers, faults, interrupt, cache, and where the key goes."""

import asyncio
import json
import pickle
import sys
import threading
import time
from pathlib import Path

import comfy.model_management
import execution
import folder_paths
import pytest
from ella_lmd.lmd.limits import MAX_BODY
from ella_lmd.lmd.planner.dialogue import NoLayoutError, Request
from ella_lmd.lmd.planner.reply import parse, to_layout
from ella_lmd.nodes import lmd_plan
from ella_lmd.nodes.host.llm import plan as llm_plan
from ella_lmd.nodes.host.llm import servers
from ella_lmd.nodes.host.llm.client import Patience
from ella_lmd.nodes.host.llm.reply_cache import ReplyCache
from ella_lmd.tests.scripted_server import ScriptedServer

import nodes as host_nodes

KEY = "sk-MARKED-8c1f2e77d0"
PROMPT = "a cat to the left of a dog in a park"
BOXES = [{"name": "a cat", "box": [20, 200, 200, 200]}, {"name": "a dog", "box": [290, 190, 210, 230]}]
GOOD = json.dumps({"caption": PROMPT, "objects": BOXES, "background": "A park", "negative": ""})
SWAPPED = GOOD.replace("[20,", "[300,").replace("[290,", "[10,")
TEXT = "Caption: x\nObjects: [('a cat', [20, 200, 200, 200]), ('a dog', [290, 190, 210, 230])]\nBackground prompt: A park\nNegative prompt:"
QUICK = Patience(3, 0.05, 0.5)


@pytest.fixture(autouse=True)
def user(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path / "user"))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    monkeypatch.setenv("TEST_LLM_KEY", KEY)
    monkeypatch.setitem(host_nodes.NODE_CLASS_MAPPINGS, "LLMLayoutPlanner", lmd_plan.LLMLayoutPlanner)
    comfy.model_management.interrupt_current_processing(False)
    return tmp_path / "user"


def configure(*entries) -> Path:
    path = servers.servers_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"servers": list(entries)}))
    return path


def entry(server, **more) -> dict:
    return {"name": "Mine", "address": server.address, "credential": "env:TEST_LLM_KEY", "timeout": 5, **more}


def ask(prompt=PROMPT, seed=0, patience=QUICK, show=lambda text: None, **more):
    return llm_plan.with_server(servers.named("Mine"), Request(prompt, **more), llm_plan.Decoding(seed), show, patience)


def plan(**source):
    """The node as the host runs it, its source expanded from the flat form of a prompt."""
    flat = {f"source.{k}": v for k, v in source.items() if k != "source"} | {"source": source["source"]}
    cls = host_nodes.NODE_CLASS_MAPPINGS["LLMLayoutPlanner"]
    inputs = {"prompt": [PROMPT], "width": [512], "height": [512], **flat}

    async def go():
        data, missing, v3 = execution.get_input_data(
            {k: v[0] if isinstance(v, list) else v for k, v in inputs.items()}, cls, "1"
        )
        assert not missing
        results = await execution._async_map_node_over_list("p", "1", cls(), data, "execute", v3_data=v3)
        return await execution.resolve_map_node_over_list_results(results)

    return asyncio.run(go())[0]


DEFAULTS = {
    "server": "Mine", "seed": 0, "examples": 7, "re_asks": 1, "repair": True, "temperature": 0.25, "max_tokens": 900,
    "instruction": "",
}  # fmt: skip


def test_the_node_asks_a_server_by_its_name():
    with ScriptedServer(SWAPPED, GOOD) as server:
        configure(entry(server, model="big"))
        out = plan(source="language model server", **DEFAULTS)
    layout, *_ = out.args
    assert [o.phrase for o in layout.objects] == ["a cat", "a dog"] and layout.background == "A park"
    assert "asked again: " in out.ui["text"][0] and "reply 2: " in out.ui["text"][0]
    body = server.chats[0]["body"]
    assert (body["model"], body["temperature"], body["max_tokens"], body["stream"]) == ("big", 0.25, 900, False)
    assert body["response_format"]["json_schema"]["schema"]["properties"]["objects"]["maxItems"] == 50
    assert len(body["messages"]) == 16 and server.chats[0]["headers"]["Authorization"] == f"Bearer {KEY}"
    assert "must be left of" in server.chats[1]["body"]["messages"][-1]["content"]


def test_a_server_without_schemas_is_asked_in_plain_text_with_the_stop():
    refusal = {"status": 400, "body": '{"error": {"message": "response_format is not supported"}}'}
    with ScriptedServer(refusal, TEXT) as server:
        configure(entry(server))
        assert len(ask().layout.objects) == 2
    first, second = (r["body"] for r in server.chats)
    assert second["stop"] == ["\n\n"] and "response_format" not in second and first["model"] == "tiny"
    assert second["messages"][2]["content"].startswith("Caption: ")


def test_parameters_that_a_server_refuses_are_left_out():
    def picky(request):
        body = request["body"]
        for name, word in (("max_tokens", "max_tokens"), ("temperature", "temperature"), ("stop", "'stop'")):
            if name in body:
                return {"status": 400, "body": json.dumps({"error": {"message": f"Unsupported parameter: {word}"}})}
        return GOOD

    with ScriptedServer(picky) as server:
        configure(entry(server))
        assert len(ask().layout.objects) == 2
    last = server.chats[-1]["body"]
    assert last["max_completion_tokens"] == 900 and "temperature" not in last and "response_format" in last


def test_a_model_that_thinks_is_asked_without_the_stop():
    with ScriptedServer("<think>First", "<think>First\n\nthen</think>" + TEXT) as server:
        configure(entry(server, output="text"))
        assert len(ask().layout.objects) == 2
    assert "stop" not in server.chats[1]["body"]


FAULTS = {
    "rate limit": ({"status": 429, "headers": {"Retry-After": "0"}, "body": "{}"}, "too many requests", 3),
    "rate limit for an hour": ({"status": 429, "headers": {"Retry-After": "3600"}}, "asks to wait 3600 s", 1),
    "broken inside": ({"status": 503, "body": '{"error": "loading model"}'}, r"failed \(503\).*loading model", 3),
    "wrong key": (
        {"status": 401, "body": json.dumps({"error": {"message": f"bad key {KEY} sk-MARK****"}})},
        r"refuses the key \(401\); key: env:TEST_LLM_KEY",
        1,
    ),
    "a key in escapes": (
        {"status": 409, "body": '{"error": {"message": "bad \\u0073' + KEY[1:] + '"}}'},
        r"refuses the request \(409\).*bad \[key\]",
        1,
    ),
    "no such page": ({"status": 404, "body": "not found"}, "usually ends in /v1", 1),
    "HTML": ({"body": "<!doctype html><p>Welcome</p>", "type": "text/html"}, "a web page instead of JSON", 1),
    "broken JSON": ({"body": '{"choices": [{"mess'}, "broken JSON, beginning with", 1),
    "another API": ({"body": '{"result": 5}'}, "not in the form of the chat completions API", 1),
    "null": ({"body": "null"}, "not in the form of the chat completions API", 1),
    "error in 200": ({"body": '{"error": {"message": "no model loaded"}}'}, "reports an error.*no model loaded", 1),
    "1 MB": ({"body": " " * 10**6}, "more than 512 KiB", 1),
    "dropped": ("drop", "dropped the connection", 3),
    "slow": ({"seconds": 20}, "did not answer within 1 s", 1),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_has_a_message_of_its_own(fault):
    step, said, requests = FAULTS[fault]
    with ScriptedServer(step) as server:
        configure(entry(server, timeout=1, model="m"))
        with pytest.raises(ValueError, match=said) as caught:
            ask()
    assert KEY not in str(caught.value) + repr(caught.value) and "MARK" not in str(caught.value)
    assert len(server.chats) == requests
    assert "Mine" in str(caught.value)


def test_a_busy_server_is_asked_again_after_the_time_it_names():
    busy = {"status": 429, "headers": {"Retry-After": "0.4"}, "body": "{}"}
    with ScriptedServer(busy, {"status": 500}, GOOD) as server:
        configure(entry(server, model="m"))
        start = time.monotonic()
        assert len(ask().layout.objects) == 2 and len(server.chats) == 3
    assert time.monotonic() - start > 0.4


def test_nothing_at_the_address():
    configure({"name": "Mine", "address": "http://127.0.0.1:9/v1", "model": "m"})
    with pytest.raises(ValueError, match="nothing answers at http://127.0.0.1:9/v1: start the server Mine"):
        ask()


def test_interrupt_ends_the_request_within_a_second_and_waiting_is_shown():
    shown = []
    with ScriptedServer({"seconds": 60}) as server:
        configure(entry(server, model="m", timeout=60))
        threading.Timer(1.3, comfy.model_management.interrupt_current_processing).start()
        start = time.monotonic()
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            ask(show=shown.append)
        assert time.monotonic() - start < 2.3
        assert server.closed.wait(1), "the server must see that nobody waits any more"
    assert shown == ["waiting for Mine: 0 s", "waiting for Mine: 1 s"]


# the key


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_is_not_followed(status):
    with ScriptedServer(GOOD) as thief:
        step = {"status": status, "headers": {"Location": f"http://127.0.0.1:{thief.port}/v1/chat/completions"}}
        with ScriptedServer(step) as server:
            configure(entry(server, model="m"))
            with pytest.raises(ValueError, match="redirects to .*is not followed"):
                ask()
    assert thief.requests == [] and len(server.chats) == 1


def test_proxies_and_netrc_of_the_environment_get_nothing(monkeypatch, tmp_path):
    with ScriptedServer(GOOD) as thief, ScriptedServer(GOOD) as server:
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password stolen\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{thief.port}")
        configure(entry(server, model="m", credential=""))
        ask()
    assert thief.requests == [] and "Authorization" not in server.chats[0]["headers"]


def test_a_servers_key_goes_to_that_server_only(monkeypatch):
    monkeypatch.setenv("OTHER_KEY", "other-key-value")
    with ScriptedServer(GOOD) as a, ScriptedServer(GOOD) as b, ScriptedServer(GOOD) as c:
        configure(
            entry(a, model="m"), entry(b, name="B", model="m", credential="env:OTHER_KEY"),
            entry(c, name="C", model="m", credential=""),
        )  # fmt: skip
        for name in ("Mine", "B", "C"):
            llm_plan.with_server(servers.named(name), Request(PROMPT), llm_plan.Decoding())
    assert KEY in str(a.requests) and "other-key-value" not in str(a.requests)
    assert "other-key-value" in str(b.requests) and KEY not in str(b.requests)
    assert "Authorization" not in str(c.requests)


def test_an_attackers_workflow_can_name_a_server_and_nothing_else():
    """Every place in which a workflow can put a value gets an address, a credential and a model."""
    with ScriptedServer(GOOD) as thief, ScriptedServer(GOOD) as server:
        configure(entry(server, model="mine"))
        evil = {
            "address": thief.address, "base_url": thief.address, "url": thief.address, "model": "evil",
            "credential": "env:HOME", "api_key": "x", "headers": {"Authorization": "x"}, "source": thief.address,
        }  # fmt: skip
        plan(**{**DEFAULTS, **evil, "source": "language model server"})
        assert thief.requests == [] and server.chats[0]["body"]["model"] == "mine"
        for name in (thief.address, "env:TEST_LLM_KEY", "../servers", "Mine\nX", "", entry(thief), [thief.address]):
            with pytest.raises(Exception) as caught:
                plan(source="language model server", **DEFAULTS | {"server": name, "seed": 9})
            assert KEY not in str(caught.value)
        assert thief.requests == [] and len(server.chats) == 1


def test_the_host_refuses_names_that_are_not_in_the_list():
    with ScriptedServer(GOOD) as server:
        configure(entry(server))
        names = {"Mine", "Ollama", "LM Studio", "llama.cpp", "vLLM"}
        assert set(servers.names()) == names
        flat = {f"source.{k}": v for k, v in DEFAULTS.items()} | {"source": "language model server"}
        prompt = {
            "1": {"class_type": "LLMLayoutPlanner", "inputs": {"prompt": "a cat", "width": 512, "height": 512, **flat}}
        }
        check = lambda: asyncio.run(execution.validate_inputs("p", prompt, "1", {}))  # noqa: E731
        assert check()[0]
        prompt["1"]["inputs"]["source.server"] = "http://evil.example/v1"
        valid, errors, _ = check()
        assert not valid and "value_not_in_list" in str(errors)


def test_no_key_in_objects_errors_or_pickles(capsys):
    with ScriptedServer(GOOD) as server:
        configure(entry(server))
        record = servers.named("Mine")
        key = servers.key_of(record)
        client = llm_plan.Client(record, lambda seconds: None)
    for thing in (record, key, client, [key], {"key": key}, f"{key} {key!r}", vars(client)):
        assert KEY not in str(thing) + repr(thing)
    with pytest.raises(TypeError, match="never stored"):
        pickle.dumps(key)
    assert KEY not in servers.fingerprint("Mine")


def test_a_server_that_repeats_the_key_does_not_bring_it_into_the_layout_or_the_cache(user):
    import base64

    echo = GOOD.replace("A park", f"A park {KEY} {base64.b64encode(KEY.encode()).decode()}")
    with ScriptedServer(echo) as server:
        configure(entry(server, model="m"))
        outcome = ask()
    assert "[key]" in outcome.layout.background
    assert KEY not in str(outcome) + "".join(p.read_text() for p in user.rglob("*.json"))
    assert base64.b64encode(KEY.encode()).decode() not in str(outcome)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"api_key": "sk-secret"}, "A key never stands in this file"),
        ({"address": "http://user:sk-secret@127.0.0.1/v1"}, "must hold no name, password"),
        ({"address": "https://h.example/v1?key=sk-secret"}, "must hold no name, password"),
        ({"address": "http://h.example/v1", "credential": "env:TEST_LLM_KEY"}, "unprotected over http"),
        ({"address": "file:///etc/passwd"}, "address must be like"),
        ({"credential": "sk-secret"}, "credential is"),
        ({"timeout": "soon"}, "timeout is a number"),
        ({"output": "xml"}, "output is one of"),
        ({"name": " "}, "the name is not empty"),
    ],
)
def test_a_faulty_servers_file_is_explained_and_the_node_still_opens(broken, said):
    path = configure({"name": "Mine", "address": "http://127.0.0.1/v1", **broken})
    with pytest.raises(ValueError, match=said) as caught:
        servers.named("Mine")
    assert str(path) in str(caught.value) and "sk-secret" not in str(caught.value)
    assert "Ollama" in servers.names() and lmd_plan.LLMLayoutPlanner.INPUT_TYPES()


def test_a_missing_key_says_where_it_belongs(monkeypatch):
    configure({"name": "Mine", "address": "https://h.example/v1", "credential": "env:NOT_SET"})
    with pytest.raises(ValueError, match="set the environment variable NOT_SET before ComfyUI starts"):
        ask()
    monkeypatch.setenv("NOT_SET", "two\nlines")
    with pytest.raises(ValueError, match="no key has") as caught:
        ask()
    assert "two" not in str(caught.value)


def test_a_key_from_the_keyring(monkeypatch):
    import types

    fake = types.SimpleNamespace(get_password=lambda service, name: {("ella-lmd", "openai"): KEY}.get((service, name)))
    monkeypatch.setitem(sys.modules, "keyring", fake)
    with ScriptedServer(GOOD) as server:
        configure(entry(server, model="m", credential="keyring:openai"))
        ask()
        assert server.chats[0]["headers"]["Authorization"] == f"Bearer {KEY}"
        configure(entry(server, model="m", credential="keyring:other"))
        with pytest.raises(ValueError, match="keyring set ella-lmd other"):
            ask()
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(ValueError, match="keyring is not installed"):
        ask()


# the cache


def test_the_same_question_is_asked_once_and_another_seed_anew(user):
    with ScriptedServer(GOOD) as server:
        configure(entry(server, model="m"))
        for seed in (0, 0, 1, 0):
            ask(seed=seed)
        assert len(server.chats) == 2
        ask(width=768)
        ask("two dogs", reasks=0)
        configure(entry(server, model="other"))
        ask()
        assert len(server.chats) == 5
    assert len(list((user / "__ella_lmd" / "replies").glob("*.json"))) == 5


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"\xff\xfe\x00", b"[1]", b'{"reply": 5, "sha256": 1}', b"[" * 100_000, "swap"]
)
def test_a_damaged_cache_costs_a_new_question_never_an_error(user, damage):
    with ScriptedServer(GOOD) as server:
        configure(entry(server, model="m"))
        ask()
        (file,) = (user / "__ella_lmd" / "replies").glob("*.json")
        file.write_bytes(file.read_bytes().replace(b"a cat", b"a rat") if damage == "swap" else damage)
        assert ask().layout.objects[0].phrase == "a cat"
        assert len(server.chats) == 2
        ask()
        assert len(server.chats) == 2, "the new reply is kept again"


def test_a_cache_that_cannot_be_written_is_no_error(user):
    (user / "__ella_lmd").mkdir(parents=True)
    (user / "__ella_lmd" / "replies").write_text("a file where the folder should be")
    with ScriptedServer(GOOD) as server:
        configure(entry(server, model="m"))
        assert len(ask().layout.objects) == 2


def test_the_cache_is_bounded(tmp_path):
    cache = ReplyCache(tmp_path / "c", most=5)
    for i in range(12):
        cache.put(cache.key(i), f"reply {i}")
        time.sleep(0.01)
    assert len(list((tmp_path / "c").iterdir())) == 5
    assert cache.get(cache.key(11)) == "reply 11" and cache.get(cache.key(0)) is None
    cache.put(cache.key("big"), "x" * 10**6)
    assert cache.get(cache.key("big")) is None


def test_replies_that_cannot_be_read_are_not_kept():
    with ScriptedServer("no", "no", GOOD) as server:
        configure(entry(server, model="m"))
        with pytest.raises(NoLayoutError):
            ask()
        assert len(ask().layout.objects) == 2 and len(server.chats) == 3


def test_a_body_at_the_limit_is_read():
    whole = json.dumps({"choices": [{"message": {"content": GOOD}}]})
    with ScriptedServer({"body": whole + " " * (MAX_BODY - len(whole))}) as server:
        configure(entry(server, model="m"))
        assert len(ask().layout.objects) == 2


# changing a layout, and the host's own text generation


def test_the_node_changes_a_previous_layout():
    with ScriptedServer(GOOD, GOOD.replace("[290, 190", "[250, 280")) as server:
        configure(entry(server, model="m"))
        first = plan(source="language model server", **DEFAULTS).args[0]
        changed = plan(
            source="language model server", **DEFAULTS | {"instruction": "move the dog down"}, previous=first
        ).args[0]
        assert changed.objects[0] == first.objects[0] and changed.objects[1].box.y > first.objects[1].box.y
        same = plan(source="language model server", **DEFAULTS, previous=first).args[0]
    assert same == first and len(server.chats) == 2


def test_a_text_encoder_that_cannot_write_is_an_error_that_says_what_to_load(sd15):
    source = {"source": "host text generation", **{k: v for k, v in DEFAULTS.items() if k != "server"}}
    for clip in (sd15[1], None):
        with pytest.raises(ValueError, match="Load one that can.*with Load CLIP"):
            plan(**source, clip=clip)


def test_a_host_model_that_goes_on_is_cut_at_the_blank_line():
    ramble = "<think>hm</think>\n" + TEXT + "\n\nCaption: a boat\nObjects: [('a boat', [1, 2, 30, 40])]"
    layout = to_layout(parse(ramble), 512, 512)
    assert [o.phrase for o in layout.objects] == ["a cat", "a dog"] and "other captions" in layout.notes[0]


@pytest.fixture(scope="module")
def writer():
    """A CLIP of the host's that can write: Qwen3 with two layers and random weights."""
    import comfy.sd
    import torch
    from comfy.text_encoders.llama import Qwen3_06BConfig

    config = {"num_hidden_layers": 2, "hidden_size": 1024, "intermediate_size": 256}
    sizes = Qwen3_06BConfig(**config)
    heads, pairs = sizes.num_attention_heads * sizes.head_dim, sizes.num_key_value_heads * sizes.head_dim
    shapes = {"model.embed_tokens.weight": (sizes.vocab_size, 1024), "model.norm.weight": (1024,)}
    for i in range(2):
        layer = {
            "self_attn.q_proj": (heads, 1024), "self_attn.k_proj": (pairs, 1024), "self_attn.v_proj": (pairs, 1024),
            "self_attn.o_proj": (1024, heads), "self_attn.q_norm": (128,), "self_attn.k_norm": (128,),
            "mlp.gate_proj": (256, 1024), "mlp.up_proj": (256, 1024), "mlp.down_proj": (1024, 256),
            "input_layernorm": (1024,), "post_attention_layernorm": (1024,),
        }  # fmt: skip
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    torch.manual_seed(0)
    weights = {k: torch.randn(*shape, dtype=torch.bfloat16) * 0.02 for k, shape in shapes.items()}
    return comfy.sd.load_text_encoder_state_dicts(
        [weights], model_options={"qwen3_06b_model_config": config, "dtype": torch.bfloat16}
    )


def test_the_hosts_own_text_model_is_asked_under_its_memory_management(writer):
    source = {k: v for k, v in DEFAULTS.items() if k != "server"} | {"examples": 0, "max_tokens": 12}
    with pytest.raises(NoLayoutError, match=r"could be read \(2 received\)"):  # its weights are random
        plan(source="host text generation", clip=writer, **source)
    assert any(m.model is writer.patcher for m in comfy.model_management.current_loaded_models)
