"""Waiting for a server: the user's interrupt reaches everybody, and nobody waits for what is given up."""

import asyncio
import json
import socket
import threading
import time

import comfy.model_management
import folder_paths
import pytest
from ella_lmd.nodes import ella_caption, lmd_plan
from ella_lmd.nodes.host.llm import servers
from ella_lmd.tests.scripted_server import ScriptedServer

SERVER = "language model server"
SOURCE = {"source": SERVER, "server": "Mine", "seed": 0, "examples": 7, "re_asks": 0, "repair": True, "temperature": 0.25,
          "max_tokens": 900, "instruction": ""}  # fmt: skip
SLOW = {"seconds": 60}
Interrupted = comfy.model_management.InterruptProcessingException


@pytest.fixture(autouse=True)
def user(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path / "user"))
    comfy.model_management.interrupt_current_processing(False)
    yield
    comfy.model_management.interrupt_current_processing(False)


def configure(address: str):
    path = servers.servers_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"servers": [{"name": "Mine", "address": address, "timeout": 60, "model": "m"}]}))


def press(seconds: float) -> None:
    threading.Timer(seconds, comfy.model_management.interrupt_current_processing).start()


def planner(seed: int = 0):
    cls = lmd_plan.LLMLayoutPlanner.PREPARE_CLASS_CLONE(None)
    return cls.execute("a cat", 512, 512, {**SOURCE, "seed": seed})


def test_ten_planners_and_a_caption_need_one_press_and_leave_it_to_the_sampler():
    async def together():
        caption = ella_caption.ELLALongCaption.PREPARE_CLASS_CLONE(None)
        work = [planner(i) for i in range(10)] + [caption.execute("a cat", SOURCE)]
        return await asyncio.gather(*work, return_exceptions=True)

    with ScriptedServer(SLOW) as server:
        configure(server.address)
        press(1)
        start = time.monotonic()
        results = asyncio.run(together())
        assert time.monotonic() - start < 5
    assert [type(r) for r in results] == [Interrupted] * 11
    assert comfy.model_management.processing_interrupted()
    with pytest.raises(Interrupted):  # a sampler's own check, which takes it back
        comfy.model_management.throw_exception_if_processing_interrupted()


def test_a_cancelled_node_closes_its_request_and_stops_its_watch(monkeypatch):
    watched = []
    monkeypatch.setattr(lmd_plan, "show_text", lambda cls, text: watched.append(text))

    async def cancelled():
        task = asyncio.ensure_future(planner())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with ScriptedServer(SLOW) as server:
        configure(server.address)
        before = threading.active_count()
        asyncio.run(cancelled())
        assert server.closed.wait(2), "the server must see that nobody waits any more"
        seen, limit = len(watched), time.monotonic() + 3
        while threading.active_count() > before and time.monotonic() < limit:
            time.sleep(0.05)
        assert threading.active_count() <= before
        time.sleep(1.2)
    assert seen and len(watched) == seen


def test_a_silent_name_server_delays_nobody(monkeypatch):
    """The look-up itself can't be given up, so it must be nobody's to wait for."""
    asked = threading.Event()
    free = threading.Event()

    def silent(*args, **named):
        asked.set()
        free.wait(30)
        raise socket.gaierror("no answer")

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    configure("https://far.example/v1")
    start = time.monotonic()
    press(0.5)
    try:
        with pytest.raises(Interrupted):
            asyncio.run(planner())
        assert asked.is_set() and time.monotonic() - start < 4
    finally:
        free.set()


def test_an_unknown_name_is_an_ordinary_error():
    configure("http://no-such-host.invalid/v1")
    with pytest.raises(ValueError, match="nothing answers at http://no-such-host.invalid/v1"):
        asyncio.run(planner())


@pytest.mark.parametrize(
    "source", [None, {}, {"source": "offline"}, {"source": None}, "offline planner", ["offline planner"]]
)
@pytest.mark.parametrize("node", [lmd_plan.LLMLayoutPlanner, ella_caption.ELLALongCaption])
def test_an_unknown_source_is_refused_in_words(node, source):
    given = ("a cat", 512, 512) if node is lmd_plan.LLMLayoutPlanner else ("a cat",)
    with pytest.raises(ValueError, match="`source` is missing or unknown.*choose one of .*language model server"):
        asyncio.run(node.execute(*given, source))


def test_a_server_source_without_its_inputs_is_refused_in_words():
    with pytest.raises(ValueError, match="lacks source.seed, source.examples"):
        asyncio.run(lmd_plan.LLMLayoutPlanner.execute("a cat", 512, 512, {"source": SERVER}))
    with pytest.raises(ValueError, match="no language model server named ''"):
        asyncio.run(ella_caption.ELLALongCaption.execute("a cat", {"source": SERVER}))
