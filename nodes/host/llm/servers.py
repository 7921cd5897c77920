"""The language model servers of this machine: one file in ComfyUI's user directory, keys elsewhere.

    user/__ella_lmd/servers.json
    {"servers": [{"name": "OpenAI", "address": "https://api.openai.com/v1", "model": "gpt-4.1-mini",
                  "credential": "env:OPENAI_API_KEY"}]}

The folder is one of ComfyUI's system folders, which its web server neither reads nor writes. A workflow holds a
server's name and nothing else, so it can neither choose an address nor read a key.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import logging
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import folder_paths

from ....lmd.limits import MAX_SERVERS_FILE
from .hiding import hider

log = logging.getLogger(__name__)
OUTPUTS = ("auto", "schema", "text")
_FIELDS = {"name", "address", "model", "credential", "timeout", "output"}
_DIGEST_KEY = secrets.token_bytes(32)  # new in every process: nothing can be guessed from a digest


@dataclass(frozen=True)
class Server:
    """One OpenAI-compatible server. `model` "" means the first one that it lists; `credential` is "", "env:NAME" or
    "keyring:NAME"; `timeout` in seconds for one answer; `output`: JSON by a schema, plain text, or what it can do.
    """

    name: str
    address: str
    model: str = ""
    credential: str = ""
    timeout: float = 300.0
    output: str = "auto"


# Where a node's answer comes from.
REPLY, SERVER, MODEL = "reply text", "language model server", "host text generation"

# What runs on this machine without a key works without a file.
LOCAL = (
    Server("Ollama", "http://127.0.0.1:11434/v1"),
    Server("LM Studio", "http://127.0.0.1:1234/v1"),
    Server("llama.cpp", "http://127.0.0.1:8080/v1"),
    Server("vLLM", "http://127.0.0.1:8000/v1"),
)


class Key:
    """A secret that shows itself nowhere: it has no text form, and it can be taken out of other texts."""

    def __init__(self, value: str = "") -> None:
        self._value = value
        self._hide = hider(value)

    def __repr__(self) -> str:
        return "Key(hidden)" if self._value else "Key()"

    def __reduce__(self):
        raise TypeError("a key is never stored")

    @property
    def header(self) -> dict[str, str]:
        """The HTTP header that carries the key; empty without one."""
        return {"Authorization": f"Bearer {self._value}"} if self._value else {}

    def hide(self, text: str) -> str:
        """`text` without the key, in whatever form it is written. Servers do repeat what they were sent."""
        return self._hide(text)


@dataclass(frozen=True)
class Listed:
    """The servers by name, and what is wrong in their file, a sentence for each place."""

    servers: dict[str, Server]
    faults: tuple[str, ...] = ()


def folder() -> Path:
    """The pack's folder in ComfyUI's system user directory, which its server does not serve."""
    return Path(folder_paths.get_system_user_directory("ella_lmd"))


def servers_file() -> Path:
    """Where the servers are listed."""
    return folder() / "servers.json"


def listed() -> Listed:
    """All servers: those of the file that can be used, and the local ones that it does not redefine. Never raises."""
    found: dict[str, Server] = {}
    faults: list[str] = []
    for line, entry, fault in _entries():
        where = f"line {line}" if line else "the file"
        if not fault:
            try:
                server = _server(entry)
                if server.name in found:
                    raise ValueError(f'there are two servers named "{server.name}"')
                found[server.name] = server
                continue
            except ValueError as error:
                fault = str(error)
        faults.append(f"{where} of {servers_file()}: {fault}")
    return Listed(found | {s.name: s for s in LOCAL if s.name not in found}, tuple(dict.fromkeys(faults)))


def _entries() -> Iterator[tuple[int, object, str]]:
    """Each entry of the file with its line, or a fault with its line; line 0 is the whole file."""
    path = servers_file()
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_SERVERS_FILE + 1)
        text = raw.decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        yield 0, None, f"it can't be read ({type(error).__name__}); correct it or its permissions"
        return
    if len(raw) > MAX_SERVERS_FILE:
        yield 0, None, f"it has more than {MAX_SERVERS_FILE // 1024} KiB"
        return
    try:
        data = json.loads(text)
        entries = data.get("servers") if isinstance(data, dict) else data
    except RecursionError:
        yield 0, None, "it is nested too deeply"
        return
    except ValueError as error:
        yield getattr(error, "lineno", 0), None, f"{getattr(error, 'msg', error)}; what stands there was left out"
        yield from ((line, entry, "") for line, entry in _objects(text) if {"name", "address"} & entry.keys())
        return
    if not isinstance(entries, list):
        yield 0, None, f'it must hold {{"servers": [...]}}, got {type(entries).__name__} instead of a list'
        return
    lines = (line for line, _ in _objects(text))
    for entry in entries:
        yield (next(lines, 0) if isinstance(entry, dict) else 0), entry, ""


def _objects(text: str) -> Iterator[tuple[int, dict]]:
    """The objects in the list of servers that are sound by themselves, with their lines."""
    listing = re.search(r'"servers"\s{0,40}:\s{0,40}\[', text) or re.search(r"\[", text)
    at, decoder = (listing.end() if listing else 0), json.JSONDecoder()
    while (at := text.find("{", at)) >= 0:
        try:
            entry, end = decoder.raw_decode(text, at)
            yield text.count("\n", 0, at) + 1, entry
            at = end
        except json.JSONDecodeError as error:
            at = max(at + 1, error.pos)
        except (ValueError, RecursionError):
            return


def names() -> list[str]:
    """For the nodes' lists; what is wrong in the file is also shown on the node that asks a server."""
    found = listed()
    for fault in found.faults:
        log.warning("language model servers: %s", fault)
    return list(found.servers)


def named(name: str) -> Server:
    """The server of this name. Raises ValueError that says which there are, and what is wrong in the file."""
    found = listed()
    if not isinstance(name, str) or name not in found.servers:
        faults = f". Not usable: {'; '.join(found.faults)}" if found.faults else ""
        raise ValueError(
            f"there is no language model server named {str(name)[:80]!r} on this machine, only "
            f"{', '.join(found.servers)}: choose one on the node, or add it to {servers_file()}{faults}"
        )
    return found.servers[name]


def fingerprint(name: str) -> str:
    """Changes when the server behind a name does. A keyed digest, for the host writes it into images and histories."""
    try:
        server = repr(named(name))
    except ValueError:
        return ""
    return hmac.new(_DIGEST_KEY, server.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:32]


def source_fingerprint(source: object) -> str:
    """The fingerprint of the server in a node's `source`; empty for other sources, which the host compares itself."""
    if isinstance(source, dict) and source.get("source") == SERVER:
        return fingerprint(source.get("server") or "")
    return ""


def known_source(source: object, kinds: Sequence[str]) -> dict:
    """A node's `source` with the inputs of its kind. Raises ValueError for one that the host did not know: it drops
    a choice that is not in the list, and the inputs below it.
    """
    if isinstance(source, dict) and source.get("source") in kinds:
        return source
    got = f", got {str(source.get('source'))[:60]!r}" if isinstance(source, dict) else ""
    raise ValueError(f"the input `source` is missing or unknown{got}: choose one of {', '.join(kinds)}")


def _server(entry: object) -> Server:
    if not isinstance(entry, dict):
        raise ValueError("it must be an object with a name and an address")
    if unknown := sorted(set(map(str, entry)) - _FIELDS):
        raise ValueError(
            f"it has the unknown field {unknown[0][:40]!r}; there are {', '.join(sorted(_FIELDS))}. A key never stands "
            'in this file: put it into an environment variable and write "credential": "env:ITS_NAME"'
        )
    text = {k: entry.get(k, "") for k in ("name", "address", "model", "credential")}
    if not all(isinstance(v, str) for v in text.values()) or not text["name"].strip():
        raise ValueError("name, address, model and credential are texts, and the name is not empty")
    timeout, output = entry.get("timeout", Server.timeout), entry.get("output", "auto")
    if not isinstance(timeout, (int, float)) or isinstance(timeout, bool) or not 1 <= timeout <= 3600:
        raise ValueError("timeout is a number of seconds from 1 to 3600")
    if output not in OUTPUTS:
        raise ValueError(f"output is one of {', '.join(OUTPUTS)}")
    if text["credential"] and not re.fullmatch(r"(env|keyring):[\w.@ -]+", text["credential"]):
        raise ValueError('credential is "env:NAME" for an environment variable or "keyring:NAME" for the keyring')
    address = _address(text["address"], bool(text["credential"]))
    return Server(text["name"].strip(), address, text["model"].strip(), text["credential"], float(timeout), output)


def _address(address: str, has_key: bool) -> str:
    try:
        parts = urlsplit(address.strip())
        host, _ = parts.hostname, parts.port
        sound = (host or "").encode("idna").isascii() and not re.search(r"[\s\x00-\x1f\\]", address.strip())
    except ValueError:  # UnicodeError too
        host, parts, sound = None, urlsplit(""), False
    if parts.scheme not in ("http", "https") or not host or not sound:
        raise ValueError('address must be like "http://127.0.0.1:11434/v1"')
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("address must hold no name, password, ? or #; a key belongs in credential")
    if has_key and parts.scheme == "http" and not _own_network(host):
        raise ValueError("a key would travel unprotected over http:// : write https://")
    return address.strip().rstrip("/").removesuffix("/chat/completions")


def _own_network(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    return ip.is_loopback or ip.is_private


def key_of(server: Server) -> Key:
    """The server's key from the environment or the system's keyring. Raises ValueError when it is not there."""
    if not server.credential:
        return Key()
    place, _, name = server.credential.partition(":")
    value = os.environ.get(name, "") if place == "env" else _from_keyring(name)
    value = value.strip()
    if not value:
        where = (
            f"set the environment variable {name} before ComfyUI starts"
            if place == "env"
            else f'store it with "keyring set ella-lmd {name}"'
        )
        raise ValueError(f'the server "{server.name}" needs a key, and there is none: {where}')
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError(f'the key of "{server.name}" has characters that no key has: set {server.credential} again')
    return Key(value)


def _from_keyring(name: str) -> str:
    try:
        import keyring  # pyright: ignore[reportMissingImports] (an extra of the user's)
    except ImportError:
        raise ValueError(
            f'the key "{name}" is in the system keyring, but the Python package keyring is not installed: install it, '
            f'or use an environment variable and write "credential": "env:NAME" in {servers_file()}'
        ) from None
    try:
        return keyring.get_password("ella-lmd", name) or ""
    except Exception as error:  # every keyring has its own errors, and their texts are not ours to show
        raise ValueError(
            f'the system keyring did not give the key "{name}" ({type(error).__name__}): unlock it'
        ) from None
