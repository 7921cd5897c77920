"""Loading files of weights: what can't be used is refused with its path, what it seems to be, and what to do.

Every loader of this pack comes through here. Nothing but tensors is read, so no code in a file ever runs.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import zipfile
from collections.abc import Iterable, Mapping

import comfy.utils
import torch
from torch import Tensor

from ...ella.checkpoint import describe

_SAFETENSORS = (".safetensors", ".sft")
_ITEM_SIZE = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "U8": 1, "I8": 1}
_LARGEST_HEADER = 100 * 1024**2  # as in the safetensors library
_PLAIN_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def load(path: str, remedy: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file by name, and its metadata.

    Args:
        path: a .safetensors file, or a PyTorch file with nothing but tensors in it.
        remedy: the sentence that ends every message: which file belongs there, and in which node it is chosen.

    Raises:
        ValueError: the file is empty, cut off, of another kind, or its numbers can't be weights.
    """
    try:
        odd = _first_look(path)
    except OSError as error:
        raise refused(path, f"can't be read ({error.strerror or error})", remedy) from error
    if odd:
        raise refused(path, odd, remedy)
    content, metadata = _read(path, remedy)
    if isinstance(content, dict) and isinstance(content.get("model"), dict):  # saved beside a training's optimizer
        content = content["model"]
    state = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if odd := _odd_content(state):
        raise refused(path, odd, remedy)
    return state, metadata or {}


def _read(path: str, remedy: str) -> tuple[object, dict[str, str] | None]:
    try:
        content, metadata = comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
        return content, metadata
    except MemoryError:
        raise
    except OSError as error:
        raise refused(path, f"can't be read ({error.strerror or error})", remedy) from error
    except pickle.UnpicklingError as error:
        what = "is damaged, or holds Python objects beside its tensors, which this pack never runs"
        raise refused(path, what, remedy) from error
    except Exception as error:  # what the libraries raise on damaged bytes is of many types
        raise refused(path, f"is damaged or holds no named weights ({_first_line(error)})", remedy) from error


def check_numbers(path: str, state: Mapping[str, Tensor], keys: Iterable[str], remedy: str) -> None:
    """Refuse weights under these keys that are no floating-point numbers, or not finite.

    Raises:
        ValueError: names the first such tensor.
    """
    for key in keys:
        weights = state[key]
        if not weights.is_floating_point():
            raise refused(path, f"has '{key}' as {_short(weights.dtype)} instead of floating-point numbers", remedy)
        if weights.numel():
            plain = weights if weights.dtype in _PLAIN_FLOATS else weights.half()  # 8-bit floats have no aminmax
            low, high = torch.aminmax(plain)
            if not bool(torch.isfinite(low) & torch.isfinite(high)):
                raise refused(path, f"is damaged: '{key}' holds NaN or infinity", remedy)


def refused(path: str, what: str, remedy: str) -> ValueError:
    """`path` `what`. `remedy`"""
    return ValueError(f"The file {path} {what}. {remedy}")


def wrong_kind(path: str, state: Mapping[str, Tensor], wanted: str, remedy: str) -> ValueError:
    """The error for a sound file of another kind: says which kind it seems to be."""
    return refused(path, f"is not {wanted}: it seems to be {describe(state)}", remedy)


def _first_look(path: str) -> str | None:
    """What the first bytes say about a file that holds no weights, or not all of them."""
    size = os.path.getsize(path)
    if size == 0:
        return "is empty (0 bytes): the download did not begin or was interrupted"
    with open(path, "rb") as file:
        head = file.read(512)
    if odd := _other_kind(head):
        return odd
    if not path.lower().endswith(_SAFETENSORS):
        return None if zipfile.is_zipfile(path) else _not_pytorch(head)
    if head[:2] == b"PK":
        return "is called .safetensors but is a PyTorch (.pt) file, or a zip archive: rename or convert it"
    return _safetensors_fault(path, size)


def _other_kind(head: bytes) -> str | None:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer, not the file itself: run `git lfs pull`, or download the file from its web page"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "is a web page, not a file of weights: the download gave an error or log-in page"
    if head[:4] == b"GGUF":
        return "is a GGUF file, which only language model programs and GGUF nodes read"
    if text.startswith((b"{", b"[")) or all(c in b"\t\r\n" or 32 <= c < 127 for c in head):
        return f"is a text file, not a file of weights; it begins with {head[:40].decode('utf-8', 'replace')!r}"
    return None


def _not_pytorch(head: bytes) -> str | None:
    if head[:2] == b"PK":
        return "is cut off: its end, where a PyTorch file lists its contents, is missing"
    if head[8:10] in (b'{"', b"{ "):
        return "is a safetensors file under another name: call it .safetensors"
    return None if head[:1] == b"\x80" else "is not a file of weights: it is neither safetensors nor a PyTorch file"


def _safetensors_fault(path: str, size: int) -> str | None:
    """Compares the header with the file's size."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > _LARGEST_HEADER:
            return "is not a safetensors file, although it is called so"
        if 8 + length > size:
            return f"is cut off: it has {size:,} bytes, and its list of tensors alone has {8 + length:,}"
        try:
            needed = 8 + length + max(_ends(json.loads(file.read(length))), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return "is not a safetensors file, although it is called so: its list of tensors makes no sense"
    return f"is cut off: it has {size:,} of {needed:,} bytes" if size < needed else None


def _ends(header: dict) -> list[int]:
    """Where each tensor ends, in bytes; ValueError for one whose shape and place do not agree."""
    ends = []
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            size = _ITEM_SIZE.get(entry["dtype"])
            if not 0 <= start <= end or (size is not None and math.prod(entry["shape"]) * size != end - start):
                raise ValueError(name)
            ends.append(end)
    return ends


def _odd_content(state: Mapping[str, Tensor]) -> str | None:
    if not state:
        return "holds no named weights"
    for key, value in state.items():
        stored = 0 if value.is_meta or value.layout != torch.strided else value.untyped_storage().nbytes()
        if value.numel() * value.element_size() > stored:
            return f"claims {value.numel():,} numbers for '{key}' but does not hold them"
    return None


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
