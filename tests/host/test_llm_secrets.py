"""What a server may repeat, what a workflow may show, and a file of servers with faults in it."""

import asyncio
import base64
import html
import json
import os
import re
import time
from urllib.parse import quote, unquote

import folder_paths
import pytest
from ella_lmd.lmd.limits import MAX_SERVERS_FILE
from ella_lmd.lmd.planner.dialogue import Request
from ella_lmd.nodes import ella_caption, lmd_plan
from ella_lmd.nodes.host.llm import plan as llm_plan
from ella_lmd.nodes.host.llm import servers
from ella_lmd.nodes.host.llm.client import Patience
from ella_lmd.tests.scripted_server import ScriptedServer
from hypothesis import given, settings
from hypothesis import strategies as st

KEY = "sk-MARKED/8c1f+2e77&d0"
GOOD = json.dumps({"objects": [{"name": "a cat", "box": [20, 200, 200, 200]}], "background": "A park", "negative": ""})
SERVER = "language model server"


@pytest.fixture(autouse=True)
def user(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path / "user"))
    monkeypatch.setenv("TEST_LLM_KEY", KEY)
    return tmp_path / "user"


def write(text: str):
    path = servers.servers_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def configure(server, **more):
    entry = {"name": "Mine", "address": server.address, "credential": "env:TEST_LLM_KEY", "timeout": 5, "model": "m"}
    return write(json.dumps({"servers": [{**entry, **more}]}))


def ask():
    return llm_plan.with_server(
        servers.named("Mine"), Request("a cat", reasks=0), llm_plan.Decoding(), patience=Patience(1, 0.05, 0.1)
    )


def base64_at(offset: int) -> str:
    return base64.b64encode(b"Bearer "[:offset] + KEY.encode() + b"\n").decode()


FORMS = {
    "plain": KEY,
    "upper case": KEY.upper(),
    "hexadecimal": KEY.encode().hex(),
    "upper-case hexadecimal": KEY.encode().hex().upper(),
    "hexadecimal with colons": KEY.encode().hex(":"),
    "Python bytes": "".join(f"\\x{b:02x}" for b in KEY.encode()),
    "percent": quote(KEY, safe=""),
    "lower-case percent": re.sub("%..", lambda m: m[0].lower(), quote(KEY, safe="")),
    "all in percent": "".join(f"%{b:02x}" for b in KEY.encode()),
    "percent twice": quote(quote(KEY, safe=""), safe=""),
    "HTML": html.escape(KEY),
    "HTML numbers": "".join(f"&#{ord(c)};" for c in KEY),
    "HTML hexadecimal": "".join(f"&#x{ord(c):04X};" for c in KEY),
    "JSON": json.dumps(KEY)[1:-1],
    "JSON slashes": KEY.replace("/", "\\/"),
    "JSON escapes": "".join(f"\\u{ord(c):04X}" for c in KEY),
    "JSON twice": json.dumps("".join(f"\\u{ord(c):04x}" for c in KEY))[1:-1],
    "base64": base64_at(0),
    "base64 behind one byte": base64_at(1),
    "base64 behind two": base64_at(2),
    "base64 of the header": base64.b64encode(f"Bearer {KEY}".encode()).decode(),
    "base64 for addresses": base64.urlsafe_b64encode(KEY.encode()).decode().rstrip("="),
}


def shows_key(text: str) -> bool:
    """Whether eight characters in a row of the key, or of its base64, can be read from the text by any of the forms."""
    seen = text.lower()
    for undo in (lambda t: t, html.unescape, lambda t: unquote(unquote(t)),
                 lambda t: re.sub(r"\\+(?:u00|x)([0-9a-f]{2})", lambda m: chr(int(m[1], 16)), t),
                 lambda t: t.replace(":", ""), lambda t: t.replace("-", "+").replace("_", "/")):  # fmt: skip
        plain = undo(seen)
        pieces = [KEY.lower(), KEY.encode().hex()] + [base64_at(i).lower() for i in range(3)]
        if any(piece[i : i + 8] in plain for piece in pieces for i in range(3, len(piece) - 8)):
            return True
    return False


@pytest.mark.parametrize("form", FORMS)
def test_a_key_is_hidden_in_every_form(form):
    said = f"bad key x={FORMS[form]} was sent"
    assert shows_key(said)
    hidden = servers.Key(KEY).hide(said)
    assert not shows_key(hidden) and hidden.startswith("bad key ") and hidden.endswith(" was sent")


@pytest.mark.parametrize("form", FORMS)
def test_a_key_in_a_broken_body_or_an_answer_is_hidden(form):
    """The first letters of a body that is no JSON are shown: here the key begins it."""
    told = []
    with ScriptedServer({"body": f"{FORMS[form]} is broken"}) as server:
        configure(server)
        with pytest.raises(ValueError, match="broken JSON, beginning with") as caught:
            ask()
        told.append(str(caught.value))
    echo = GOOD.replace("A park", json.dumps(f"A park {FORMS[form]}")[1:-1])
    with ScriptedServer(echo) as server:
        configure(server)
        told.append(str(ask()))
    assert not any(map(shows_key, told)), told


def test_a_token_that_follows_bearer_is_hidden_whosever_it_is():
    hide = servers.Key(KEY).hide
    for said in ("Authorization: Bearer other-token-1234", "bearer%20other-token-1234", '"BEARER  other-token-1234"'):
        assert "other-token" not in hide(said) and "[key]" in hide(said)
    for said in ("the bearer of a hat", "a torch bearer walking, a standard bearer: well-dressed"):
        assert hide(said) == said


def test_hiding_is_linear_and_leaves_other_text_alone():
    hide = servers.Key(KEY).hide
    text = "A park with 2 cats, 100 % of them &amp; \\u0063ute, Zm9vYmFy 6162 "
    assert hide(text) == text and servers.Key("abc").hide("abc") == "abc"
    for piece in ("s", "sk-", "\\", "&", "%25", "73:", "c2st", "bearer ", "&#0", "\\\\"):
        times = []
        for n in (20_000, 80_000):
            flood = (piece * n)[:n]
            best = min(_seconds(hide, flood) for _ in range(3))
            times.append(best)
        assert times[1] < max(0.2, 8 * times[0]), (piece, times)


def _seconds(work, *given) -> float:
    start = time.process_time()
    work(*given)
    return time.process_time() - start


def test_a_fingerprint_shows_nothing_and_changes_with_the_server():
    with ScriptedServer(GOOD) as server:
        seen = []
        for more in ({}, {"model": "other"}, {"credential": ""}, {}):
            configure(server, **more)
            for node in (lmd_plan.LLMLayoutPlanner, ella_caption.ELLALongCaption):
                seen.append(node.fingerprint_inputs(source={"source": SERVER, "server": "Mine"}))
    assert len(set(seen)) == 3 and seen[0] == seen[1] == seen[-1]
    assert all(re.fullmatch("[0-9a-f]{32}", s) for s in seen)
    import hashlib

    known = repr(servers.named("Mine")).encode()
    assert seen[-1] not in (hashlib.sha256(known).hexdigest()[:32], hashlib.md5(known).hexdigest())


# the file


LINES = [
    "{",
    ' "servers": [',
    '  {"name": "A", "address": "http://127.0.0.1:1/v1"},',
    '  {"name": "B", "address": "http://127.0.0.1:2/v1", "model": "b"},',
    '  {"name": "C", "address": "http://127.0.0.1:3/v1"}',
    " ]",
    "}",
]


def _broken(line: int, old: str, new: str) -> str:
    lines = list(LINES)
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new, 1)
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "kept", "line"),
    [
        ("\n".join(LINES), "ABC", None),
        (_broken(4, '"model": "b"', '"modell": "b"'), "AC", 4),
        (_broken(4, '"model": "b"', '"model": 5'), "AC", 4),
        (_broken(4, "http://127.0.0.1:2/v1", "127.0.0.1"), "AC", 4),
        (_broken(4, '"B"', '"A"'), "AC", 4),
        (_broken(4, '"B",', '"B"'), "AC", 4),
        (_broken(4, '"B",', '"B,'), "AC", 4),
        (_broken(4, '"model": "b"', '"model": b'), "AC", 4),
        (_broken(3, "},", "}"), "ABC", 4),
        (_broken(4, "},", ","), "AC", 5),
        (_broken(5, "}", "},"), "ABC", 6),
        (_broken(6, "]", ""), "ABC", 7),
        (_broken(4, '"model": "b"', '"model": {"x": 1'), "AC", 5),
        (_broken(4, '"model": "b"', '"timeout": 1e400'), "AC", 4),
    ],
)
def test_a_typo_costs_its_entry_alone_and_is_named_with_its_line(text, kept, line):
    path = write(text)
    found = servers.listed()
    assert sorted(set(found.servers) - {"Ollama", "LM Studio", "llama.cpp", "vLLM"}) == list(kept)
    assert bool(found.faults) == (line is not None)
    assert line is None or f"line {line} of {path}: " in found.faults[0]


def test_a_fault_in_the_file_is_shown_on_the_node_that_asks_another_server():
    with ScriptedServer(GOOD) as server:
        entry = {"name": "Mine", "address": server.address, "model": "m"}
        write(json.dumps({"servers": [entry, {"name": "Odd", "adress": "x"}]}, indent=1))
        source = {"source": SERVER, "server": "Mine", "seed": 0, "examples": 7, "re_asks": 0, "repair": True,
                  "temperature": 0.25, "max_tokens": 900, "instruction": ""}  # fmt: skip
        cls = lmd_plan.LLMLayoutPlanner.PREPARE_CLASS_CLONE(None)
        out = asyncio.run(cls.execute("a cat", 512, 512, source))
        assert "line 8 of" in out.ui["text"][0] and "adress" in out.ui["text"][0]
        cls = ella_caption.ELLALongCaption.PREPARE_CLASS_CLONE(None)
        out = asyncio.run(cls.execute("a cat", {"source": SERVER, "server": "Mine", "seed": 0}))
        assert "line 8 of" in out.ui["text"][0]
        with pytest.raises(ValueError, match="no language model server named 'Odd'.*line 8 of.*adress"):
            servers.named("Odd")


def _folder(path):
    path.mkdir(parents=True)


def _loop(path):
    path.parent.mkdir(parents=True)
    path.symlink_to(path)


def _file_for_folder(path):
    path.parent.parent.mkdir(parents=True)
    path.parent.write_text("")


def _text(raw):
    def make(path):
        path.parent.mkdir(parents=True)
        path.write_bytes(raw)

    return make


DISKS = {
    "a folder": _folder, "a link to itself": _loop, "no folder": _file_for_folder, "deep": _text(b"[" * 100_000),
    "deep entries": _text(b'{"servers": [' + b'{"name":' * 20_000), "huge": _text(b" " * (MAX_SERVERS_FILE + 1)),
    "no text": _text(b"\xff\xfe\x00\xd8"), "null": _text(b"null"), "a number": _text(b"1e400"), "half": _text(b'{"servers"'),
    "a long number": _text(b"9" * 6000), "an odd list": _text(b'{"servers": [null, 5, "x", [], {}, {"name": {}}]}'),
    "half a character": _text(b'{"servers": [{"name": "\\ud800", "address": "http://127.0.0.1/v1"}]}'),
}  # fmt: skip


@pytest.mark.parametrize("disk", DISKS)
def test_no_state_of_the_disk_takes_the_nodes_away(disk):
    DISKS[disk](servers.servers_file())
    for node in (lmd_plan.LLMLayoutPlanner, ella_caption.ELLALongCaption):
        assert node.INPUT_TYPES()
        node.fingerprint_inputs(source={"source": SERVER, "server": "Ollama"})
    assert "Ollama" in servers.names()
    assert bool(servers.listed().faults) == (disk not in ("no folder", "half a character"))


@pytest.mark.skipif(
    os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="an administrator may read everything"
)
def test_a_folder_that_may_not_be_read():
    path = write("{}")
    path.parent.chmod(0)
    try:
        assert "Ollama" in servers.names() and "permissions" in servers.listed().faults[0]
    finally:
        path.parent.chmod(0o700)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.lists(st.sampled_from(["{", "}", "[", "]", '"', ",", ":", "name", "address", '"servers": [', "1e400", "\n", "\\u",
                                 '{"name": "A", "address": "http://127.0.0.1/v1"}', "http://[::1", "null", "\x00"]), max_size=25)
       .map("".join))  # fmt: skip
def test_any_file_of_servers_is_read_or_explained(text):
    write(text)
    found = servers.listed()
    assert set(found.servers) >= {"Ollama", "vLLM"} and all(isinstance(f, str) for f in found.faults)


@pytest.mark.parametrize(
    "address", ["http://[::1", "http://exa mple/v1", "http://a\\b/v1", "http://" + "a" * 70 + "/v1", "http://h:99999/v1",
                "http://\u0130\u0307.\ud800/v1", "//h/v1", "http://.../v1", ""]
)  # fmt: skip
def test_a_bad_address_is_refused_in_words(address):
    write(json.dumps({"servers": [{"name": "Mine", "address": address, "timeout": 2, "model": "m"}]}))
    with pytest.raises(ValueError, match="address"):
        ask()


@pytest.mark.parametrize(
    "target", ["http://[::1", "", "//", "\\\\", "http://" + "a" * 70000, "javascript:x", "http://h:x/"]
)
def test_a_redirect_to_no_address_is_refused_in_words(target):
    with ScriptedServer({"status": 302, "headers": {"Location": target[:8000]}}) as server:
        configure(server)
        with pytest.raises(ValueError, match="redirects to"):
            ask()


@pytest.mark.parametrize(
    "body", ["[" * 100_000, "5", "[]", '{"choices": 5}', '{"choices": [5]}', '{"choices": [{"message": 5}]}', "1e400",
             '{"choices": [{"message": {"content": 5}}]}', '{"choices": [{"message": {"tool_calls": 5}}]}', '"x"',
             '{"error": ' + "[" * 100_000, '{"choices": [{"message": {"content": "\\ud800"}}]}']
)  # fmt: skip
@pytest.mark.parametrize("status", [200, 400, 500])
def test_any_body_of_a_server_is_an_ordinary_error(body, status):
    with ScriptedServer({"status": status, "body": body}) as server:
        configure(server)
        with pytest.raises(ValueError, match="Mine|language model") as caught:
            ask()
        str(caught.value).encode()


@pytest.mark.parametrize("body", ["5", '{"data": 5}', '{"data": [5, {"id": 5}]}', '{"data": null}'])
def test_any_list_of_models_is_an_ordinary_error(body, monkeypatch):
    from aiohttp import web

    monkeypatch.setattr(web, "json_response", lambda data: web.Response(text=body, content_type="application/json"))
    with ScriptedServer(GOOD) as server:
        configure(server, model="")
        with pytest.raises(ValueError, match="lists no model"):
            ask()
