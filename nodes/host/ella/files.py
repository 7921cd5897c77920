"""Where ELLA's model files lie: folders that ComfyUI and the user already have are extended, never replaced."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import folder_paths

CONNECTORS = "ella"
ENCODERS = "ella_encoder"
TEXT_ENCODERS = "text_encoders"
ADAPTERS = "llm_adapters"
LANGUAGE_MODELS = ("llm", "LLM")  # where the packs before this one keep them
CONNECTOR_FILE = "ella-sd1.5-tsc-t5xl.safetensors"
ENCODER_FILE = "the encoder of FLAN-T5-XL (one .safetensors file, or a folder with config.json and model.safetensors)"
ADAPTER_FILE = "an LLM adapter for SDXL (one .safetensors file)"
TEXT_MODEL = (
    "Gemma-3-1b, the encoder of T5Gemma-2b or Jina CLIP v2 (a folder as on Hugging Face, or one .safetensors file)"
)
WEIGHTS = (".safetensors", ".sft", ".bin", ".pt", ".pth", ".ckpt")


def register_folders() -> None:
    """Make this pack's folders under `models` known, after the folders that a user has configured."""
    for key in (CONNECTORS, ENCODERS, ADAPTERS, *LANGUAGE_MODELS):
        folder_paths.add_model_folder_path(key, os.path.join(folder_paths.models_dir, key))
        paths, extensions = folder_paths.folder_names_and_paths[key]
        if isinstance(extensions, set):
            extensions |= folder_paths.supported_pt_extensions
        else:  # another pack has put a list or tuple there
            extensions = set(extensions) | folder_paths.supported_pt_extensions
            folder_paths.folder_names_and_paths[key] = (paths, extensions)


def connector_names() -> list[str]:
    """The files in `models/ella`."""
    return folder_paths.get_filename_list(CONNECTORS)


def encoder_names() -> list[str]:
    """Model folders and single files under `ella_encoder`, then single files under `text_encoders`."""
    return _names([ENCODERS], [ENCODERS, TEXT_ENCODERS])


def adapter_names() -> list[str]:
    """The files in `models/llm_adapters`."""
    return folder_paths.get_filename_list(ADAPTERS)


def text_model_names() -> list[str]:
    """Model folders and single files under `text_encoders`, `llm` and `LLM`."""
    return _names([TEXT_ENCODERS, *LANGUAGE_MODELS], [TEXT_ENCODERS, *LANGUAGE_MODELS])


def _names(folders: Iterable[str], singles: Iterable[str]) -> list[str]:
    """Model folders under the first keys, then the files under the others that are no part of such a folder."""
    names = {}
    for base in (b for key in folders for b in folder_paths.get_folder_paths(key)):
        for root, _, files in os.walk(base, followlinks=True):
            if root != base and _is_model_folder(files):
                names[_slashed(os.path.relpath(root, base))] = None
    inside = tuple(n + "/" for n in names)
    for key in singles:
        names.update((n, None) for n in folder_paths.get_filename_list(key) if not _slashed(n).startswith(inside))
    return list(names)


def connector_path(name: str) -> str:
    """Full path of a connector file.

    Raises:
        FileNotFoundError: nothing of that name; the message says where was looked and what belongs there.
        ValueError: the name is not one of the loader's list.
    """
    return _find(name, connector_names(), [CONNECTORS], CONNECTOR_FILE, os.path.isfile)


def encoder_files(name: str) -> list[str]:
    """Weight files of a text encoder: one, or the parts of a folder. Errors as for connectors."""
    path = _find(name, encoder_names(), [ENCODERS, TEXT_ENCODERS], ENCODER_FILE, os.path.exists)
    return _weights(
        path,
        "Put model.safetensors of FLAN-T5-XL's encoder into it, or choose another encoder in ELLATextEncoderLoader.",
    )


def adapter_path(name: str) -> str:
    """Full path of an LLM adapter. Errors as for connectors."""
    return _find(name, adapter_names(), [ADAPTERS], ADAPTER_FILE, os.path.isfile)


def text_model_files(name: str) -> list[str]:
    """Weight files of an LLM adapter's text encoder: one, or the parts of a folder. Errors as for connectors."""
    path = _find(name, text_model_names(), [TEXT_ENCODERS, *LANGUAGE_MODELS], TEXT_MODEL, os.path.exists)
    return _weights(path, f"Put {TEXT_MODEL} there, or choose another in LLMAdapterTextEncoderLoader.")


def _weights(path: str, remedy: str) -> list[str]:
    """The file itself, or the parts of the one model in a folder."""
    if os.path.isfile(path):
        return [path]
    for root, _, files in os.walk(path, followlinks=True):  # a download cache nests the files in snapshots/<hash>/
        weights = sorted(f for f in files if f.endswith(WEIGHTS))
        for kind in ((".safetensors", ".sft"), (".bin", ".pt", ".pth", ".ckpt")):
            chosen = [f for f in weights if f.endswith(kind)]
            if chosen:
                return [os.path.join(root, f) for f in _one_model(chosen)]
    raise FileNotFoundError(f"The folder '{path}' holds no weights. {remedy}")


def missing(name: str | None, kind: str) -> str | None:
    """None when the file of that kind (a key of `_FINDERS`) is there, else what to tell the user.

    A name that comes through a link is not known before the graph runs (None).
    """
    if name is None:
        return None
    try:
        _FINDERS[kind](name)
    except (FileNotFoundError, ValueError) as error:
        return str(error)
    return None


_FINDERS: dict[str, Callable] = {
    "connector": connector_path,
    "encoder": encoder_files,
    "adapter": adapter_path,
    "text model": text_model_files,
}


def _find(name: object, names: Iterable[str], keys: Iterable[str], belongs: str, exists: Callable) -> str:
    if not isinstance(name, str):
        raise ValueError(f"The loader was given {name!r} instead of the name of a file. Choose one from its list.")
    listed = _slashed(name) in {_slashed(n) for n in names}
    searched = []
    for key in keys:
        for base in folder_paths.get_folder_paths(key):
            searched.append(base)
            path = os.path.abspath(os.path.join(base, *_slashed(name).split("/")))
            if name and path.startswith(os.path.abspath(base) + os.sep) and exists(path):
                if not listed and not os.path.isdir(path):  # graphs of the official pack name the outer folder
                    raise ValueError(
                        f"'{name}' is in {base}, but is no file of weights. Choose {belongs} in the loader."
                    )
                return path
    places = "\n".join(f"  {p}" for p in searched)
    raise FileNotFoundError(
        f"'{name}' was not found. These folders were searched:\n{places}\nPut {belongs} into the first of them, press "
        "R to refresh the lists, and choose it in the loader. Nothing is downloaded automatically."
    )


def _is_model_folder(files: list[str]) -> bool:
    return "config.json" in files or any(
        f.startswith(("model", "pytorch_model")) and f.endswith(WEIGHTS) for f in files
    )


def _one_model(files: list[str]) -> list[str]:
    """The parts of one model where a folder holds several forms of it (whole, in parts, in half precision)."""
    for stem in ("model.", "pytorch_model."):
        if whole := [f for f in files if f.startswith(stem) and f.count(".") == 1]:
            return whole
    parts = [f for f in files if "-of-" in f and ".fp16" not in f]
    return parts or files[:1]


def _slashed(name: str) -> str:
    return name.replace("\\", "/")
