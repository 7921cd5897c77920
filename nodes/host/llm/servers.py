"""The language model servers of this machine: one file in ComfyUI's user directory, keys elsewhere.

    user/__ella_lmd/servers.json
    {"servers": [{"name": "OpenAI", "address": "https://api.openai.com/v1", "model": "gpt-4.1-mini",
                  "credential": "env:OPENAI_API_KEY"}]}

The folder is one of ComfyUI's system folders, which its web server neither reads nor writes. A workflow holds a
server's name and nothing else, so it can neither choose an address nor read a key.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import folder_paths

log = logging.getLogger(__name__)
OUTPUTS = ("auto", "schema", "text")
_FIELDS = {"name", "address", "model", "credential", "timeout", "output"}
_SHORTEST_HIDDEN = 4


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

    def __repr__(self) -> str:
        return "Key(hidden)" if self._value else "Key()"

    def __reduce__(self):
        raise TypeError("a key is never stored")

    @property
    def header(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._value}"} if self._value else {}

    def hide(self, text: str) -> str:
        """`text` without the key, as it is or in the usual encodings. Servers do repeat what they were sent."""
        if len(self._value) >= _SHORTEST_HIDDEN:
            raw = self._value.encode()
            for form in (
                self._value,
                json.dumps(self._value)[1:-1],
                quote(self._value, safe=""),
                base64.b64encode(raw).decode(),
                base64.b64encode(raw).decode().rstrip("="),
                raw.hex(),
            ):
                text = text.replace(form, "[key]")
        return text


def folder() -> Path:
    return Path(folder_paths.get_system_user_directory("ella_lmd"))


def servers_file() -> Path:
    return folder() / "servers.json"


def load() -> dict[str, Server]:
    """All servers by name: those of the file, and the local ones that it does not redefine. Raises ValueError."""
    path = servers_file()
    found: dict[str, Server] = {}
    if path.exists():
        try:
            data = json.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            raise ValueError(f"the file of language model servers can't be read: {error}: mend {path}") from None
        entries = data.get("servers") if isinstance(data, dict) else data
        if not isinstance(entries, list):
            raise ValueError(f'{path} must hold {{"servers": [...]}}, got {type(entries).__name__} instead of a list')
        for i, entry in enumerate(entries):
            try:
                server = _server(entry)
                if server.name in found:
                    raise ValueError(f'there are two servers named "{server.name}"')
            except ValueError as error:
                raise ValueError(f"server {i + 1} in {path}: {error}") from None
            found[server.name] = server
    return found | {s.name: s for s in LOCAL if s.name not in found}


def names() -> list[str]:
    """For the node's list; a broken file is reported when a server is used."""
    try:
        return list(load())
    except ValueError as error:
        log.warning("%s", error)
        return [s.name for s in LOCAL]


def named(name: str) -> Server:
    servers = load()
    if name not in servers:
        raise ValueError(
            f'there is no language model server named "{name}" on this machine, only {", ".join(servers)}: choose one '
            f"in LLM Layout Planner, or add it to {servers_file()}"
        )
    return servers[name]


def fingerprint(name: str) -> str:
    """Changes when the server behind a name does; holds no key, for there is none in a `Server`."""
    try:
        return repr(named(name))
    except ValueError:
        return ""


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
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError('address must be like "http://127.0.0.1:11434/v1"')
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("address must hold no name, password, ? or #; a key belongs into credential")
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
        raise ValueError(f'the key of "{server.name}" has characters that no key has: set {server.credential} anew')
    return Key(value)


def _from_keyring(name: str) -> str:
    try:
        import keyring
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
