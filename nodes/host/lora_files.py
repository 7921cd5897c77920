"""The files in models/loras: their list, and one of them read and checked."""

from __future__ import annotations

import folder_paths
from torch import Tensor

from ...demo import model
from . import choices, model_files


def lora_files() -> list[str]:
    """The files in models/loras, as the host lists them."""
    return folder_paths.get_filename_list("loras")


def list_demo_loras() -> None:
    """Lets ComfyUI's own lists of LoRAs hold those of the demo model, behind the user's."""
    folder_paths.add_model_folder_path("loras", str(model.LORAS["band"].parent))


def remedy(node: str) -> str:
    """The sentence that ends a message about a LoRA that was chosen in `node`."""
    return f"Choose a LoRA for this model in the input lora_name of {node}; such files are in models/loras."


def read(name: str, node: str) -> tuple[str, dict[str, Tensor]]:
    """The path and the tensors of one of `lora_files`, chosen in `node`. Raises ValueError for one that can't be used."""
    path = folder_paths.get_full_path_or_raise("loras", choices.one_of(name, lora_files(), "lora_name", node))
    state, _ = model_files.load(path, remedy(node))
    model_files.check_numbers(path, state, [k for k, v in state.items() if v.is_floating_point()], remedy(node))
    return path, state
