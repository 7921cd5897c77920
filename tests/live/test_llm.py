"""The planner's language models in a real ComfyUI server: where the key is not, what a stranger's workflow can't do, and
a real language model (llama.cpp with SmolLM2-135M) behind a real OpenAI-compatible server.
"""

import base64
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from ella_lmd.tests.scripted_server import ScriptedServer
from ella_lmd.tools import comfy_server, small_llm

ROOT = Path(__file__).resolve().parents[2]

KEY = "sk-MARKED-live-5d1e9a60b2"
BOXES = [{"name": "a cat", "box": [20, 200, 200, 200]}, {"name": "a dog", "box": [290, 190, 210, 230]}]
GOOD = json.dumps({"caption": "x", "objects": BOXES, "background": "A park", "negative": ""})


@pytest.fixture(scope="module")
def small():
    """The address of the real small server, downloaded at its first use; without a network the tests skip, not in CI."""
    try:
        small_llm.fetch()
    except subprocess.CalledProcessError as e:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no small language model, and it could not be downloaded: {e}")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tools" / "launch.py"), str(ROOT / "tools" / "small_llm.py"), "--threads", "2"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0", **os.environ},
    )  # fmt: skip
    try:
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:")
        yield address
    finally:
        process.stdin.close()
        process.wait(20)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A ComfyUI server whose environment holds a marked key, a scripted server that may get it, one that may not."""
    with ScriptedServer(GOOD) as mine, ScriptedServer(GOOD) as thief:
        base = comfy_server.prepare(tmp_path_factory.mktemp("comfyui-llm"))
        folder = base / "user" / "__ella_lmd"
        folder.mkdir(parents=True)
        entry = {"name": "Mine", "address": mine.address, "model": "m", "credential": "env:MARKED_KEY", "timeout": 30}
        (folder / "servers.json").write_text(json.dumps({"servers": [entry]}))
        os.environ["MARKED_KEY"] = KEY
        try:
            with comfy_server.server(base, cpu=True) as server:
                yield server, mine, thief
        finally:
            del os.environ["MARKED_KEY"]


def graph(server="Mine", seed=0, prompt="a cat to the left of a dog in a park", **more) -> dict:
    source = {
        "server": server, "seed": seed, "examples": 1, "re_asks": 0, "repair": True, "temperature": 0.25,
        "max_tokens": 900, "instruction": "", **more,
    }  # fmt: skip
    inputs = {"prompt": prompt, "width": 512, "height": 512, "source": "language model server"}
    inputs |= {f"source.{k}": v for k, v in source.items()}
    save = {"images": ["1", 5], "filename_prefix": "layout"}
    return {
        "1": {"class_type": "LLMLayoutPlanner", "inputs": inputs},
        "2": {"class_type": "SaveImage", "inputs": save},
    }


def shown(entry) -> str:
    return entry["outputs"]["1"]["text"][0]


def everything(server) -> dict[str, bytes]:
    """Every file of the base folder, the log, and what the server tells over HTTP."""
    found = {str(p): p.read_bytes() for p in server.base.rglob("*") if p.is_file() and ROOT not in p.resolve().parents}
    for page in (
        "/history",
        "/object_info",
        "/queue",
        "/internal/logs",
        "/internal/logs/raw",
        "/userdata?dir=.&recurse=true",
        "/settings",
    ):
        try:
            with urllib.request.urlopen(server.url + page, timeout=30) as reply:
                found[page] = reply.read()
        except urllib.error.HTTPError as error:
            found[page] = error.read()
    return found


def test_the_key_is_nowhere_after_good_bad_and_echoing_runs(world):
    server, mine, thief = world
    encoded = base64.b64encode(KEY.encode()).decode()
    mine.script[:] = [GOOD]
    entry = server.run(graph(seed=1))
    assert "reply 1: {" in shown(entry)
    mine.script[:] = [GOOD.replace("A park", f"A park {KEY} {encoded}")]
    assert "[key]" in shown(server.run(graph(seed=2)))
    for step in (
        {"status": 401, "body": json.dumps({"error": {"message": f"Incorrect API key: {KEY}"}})},
        {"body": f"<html>{KEY}</html>"},
        {"body": f"{KEY} is no JSON"},
        {"status": 302, "headers": {"Location": f"http://127.0.0.1:{thief.port}/{KEY}"}},
        {"status": 400, "headers": {"X-Echo": KEY}, "body": f"temperature {KEY}"},
        "drop",
        f"I only say {KEY}",
    ):
        mine.script[:] = [step]
        with pytest.raises(RuntimeError) as caught:
            server.run(graph(seed=3))
        assert KEY not in str(caught.value)
    assert all(r["headers"]["Authorization"] == f"Bearer {KEY}" for r in mine.requests) and thief.requests == []
    found = everything(server)
    assert any(name.endswith(".png") for name in found) and b"refuses the key" in found["/history"]
    assert any("replies" in name for name in found), "the cache was written"
    for name, data in found.items():
        assert KEY.encode() not in data and encoded.encode() not in data, name


def test_a_strangers_workflow_reaches_no_other_address_and_no_file(world):
    server, mine, thief = world
    mine.script[:] = [GOOD]
    file = server.base / "user" / "__ella_lmd" / "servers.json"
    before = file.read_bytes()
    for name in (thief.address, "../servers", "env:MARKED_KEY", ""):
        status, _ = server.post("/prompt", {"prompt": graph(name)})
        assert status == 400, name
    evil = {"address": thief.address, "base_url": thief.address, "credential": "env:HOME", "model": "evil"}
    server.run(graph(seed=11, **evil))
    assert mine.requests[-1]["body"]["model"] == "m"
    poisoned = before.replace(mine.address.encode(), thief.address.encode())
    for path in (
        "__ella_lmd%2Fservers.json",
        "..%2F__ella_lmd%2Fservers.json",
        "..%2F..%2Fuser%2F__ella_lmd%2Fservers.json",
    ):
        for method, data in (("POST", poisoned), ("GET", None), ("DELETE", None)):
            for headers in ({}, {"comfy-user": "__ella_lmd"}):
                request = urllib.request.Request(f"{server.url}/userdata/{path}", data, headers, method=method)
                try:
                    with urllib.request.urlopen(request, timeout=30) as reply:
                        told = reply.read()
                except urllib.error.HTTPError as error:
                    told = error.read()
                assert mine.address.encode() not in told, "the list of servers is not for the web"
    assert file.read_bytes() == before and thief.requests == []


def interrupted(server, prompt: dict) -> float:
    """Queue, wait until it runs, interrupt; the seconds from the interrupt to the entry in the history."""
    _, body = server.post("/prompt", {"prompt": prompt})
    while not server.get("/queue")["queue_running"]:
        time.sleep(0.05)
    time.sleep(1.5)
    begin = time.monotonic()
    server.get("/queue")
    assert time.monotonic() - begin < 1, "the web server answers while a language model is asked"
    begin = time.monotonic()
    urllib.request.urlopen(urllib.request.Request(f"{server.url}/interrupt", b"{}", method="POST"), timeout=10)
    while body["prompt_id"] not in (history := server.get("/history")):
        assert time.monotonic() - begin < 10
        time.sleep(0.02)
    messages = [m[0] for m in history[body["prompt_id"]]["status"]["messages"]]
    assert "execution_interrupted" in messages
    return time.monotonic() - begin


def test_interrupt_ends_the_wait_within_a_second_and_the_next_run_works(world):
    server, mine, _ = world
    mine.script[:] = [{"seconds": 25}]
    mine.closed = threading.Event()
    assert interrupted(server, graph(seed=21)) < 1 and mine.closed.wait(1)
    mine.script[:] = [GOOD]
    assert "reply 1" in shown(server.run(graph(seed=22)))


def test_a_server_that_was_configured_anew_is_asked_anew(world):
    server, mine, _ = world
    file = server.base / "user" / "__ella_lmd" / "servers.json"
    before = file.read_text()
    server.run(graph(seed=31))
    asked = len(mine.chats)
    server.run(graph(seed=31))
    assert len(mine.chats) == asked, "the same question is answered from what is kept"
    file.write_text(before.replace('"model": "m"', '"model": "m2"'))
    server.run(graph(seed=31))
    assert len(mine.chats) == asked + 1 and mine.chats[-1]["body"]["model"] == "m2"
    file.write_text(before)


def test_a_real_language_model_answers_by_the_schema_and_can_be_interrupted(world, small):
    server, *_ = world
    file = server.base / "user" / "__ella_lmd" / "servers.json"
    servers = json.loads(file.read_text())
    servers["servers"] = [s for s in servers["servers"] if s["name"] == "Mine"]
    servers["servers"].append({"name": "Small", "address": f"{small}/v1", "timeout": 300})
    file.write_text(json.dumps(servers))
    german = "Eine rote Katze links neben einem blauen Hund auf einer Wiese"
    for seed, prompt in enumerate(("a red apple and a green pear on a table", german), 1):
        answer = json.loads(shown(server.run(graph("Small", seed, prompt), seconds=300)).split("reply 1: ", 1)[1])
        assert list(answer) == ["caption", "objects", "background", "negative"]
        for thing in answer["objects"]:
            assert isinstance(thing["name"], str) and [type(v) for v in thing["box"]] == [int] * 4
    assert interrupted(server, graph("Small", 9, "many different animals on a farm, all with names")) < 1
    begin = time.monotonic()
    urllib.request.urlopen(f"{small}/v1/models", timeout=10)
    assert time.monotonic() - begin < 5, "the language model's server is free again"
