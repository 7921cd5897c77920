"""An LLM adapter under the host's memory management: a text becomes CONDITIONING for SDXL."""

from __future__ import annotations

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import torch

from ....ella.adapter import AdapterConfig, LLMAdapter
from ....ella.adapter_checkpoint import adapter_config, adapter_state, build_adapter
from ....ella.jina_adapter import JinaAdapterConfig
from ....ella.rollout import adapter_rollout
from ....ella.weights import weighted, weighted_rows
from .. import model_files
from . import files
from .places import weights_of
from .text_model import TextModel

REMEDY = (
    "Put the adapter into models/llm_adapters (download it again if it is there), and choose it in LLMAdapterLoader."
)
_STORED = (torch.float16, torch.bfloat16)


class HostedAdapter:
    """An adapter that the host loads, moves and offloads like any other model."""

    def __init__(self, patcher: comfy.model_patcher.ModelPatcher, name: str):
        self.patcher, self.name = patcher, name

    @property
    def config(self) -> AdapterConfig | JinaAdapterConfig:
        """The sizes that were read from the file."""
        return self.patcher.model.config

    def patched(self, patches: dict, strength: float) -> HostedAdapter:
        """This adapter with the host's patches by the name of their weight; itself where they would change nothing."""
        if strength == 0 or not patches:
            return self
        patcher = self.patcher.clone()
        patcher.add_patches(patches, strength)
        return HostedAdapter(patcher, self.name)

    def __call__(self, features: torch.Tensor, end: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (1, L, input_dim) -> tokens (1, T, width) and pooled (1, pooled), float32, where the host keeps
        conditioning; T is the adapter's own number, or L. It computes in float32, as its authors' code does.

        The text stands at the first positions, or, with `end`, at the last ones before that position.
        """
        comfy.model_management.load_models_gpu([self.patcher])
        with torch.no_grad():
            tokens, pooled = self.patcher.model(*self._placed(features, end))
        place = comfy.model_management.intermediate_device()
        return tokens.to(place), pooled.to(place)

    def weighted(
        self, features: torch.Tensor, weights: torch.Tensor, empty: torch.Tensor, real: int, end: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `__call__`, with a weight for each row (1, L); `empty` are the features of the empty text, `real` rows of it,
        followed by pads up to L for an adapter whose tokens are rows of the text."""
        comfy.model_management.load_models_gpu([self.patcher])
        model, weights, (features, mask) = self.patcher.model, self._here(weights), self._placed(features, end)
        with torch.no_grad():
            if isinstance(model, LLMAdapter):
                weights = torch.nn.functional.pad(weights, (features.shape[1] - weights.shape[1], 0), value=1.0)
                empty, empty_mask = self._placed(empty, end)
                tokens, pooled, _ = weighted(model, features, weights, empty, mask, empty_mask)
            else:
                tokens, pooled = model(features)
                empty = self._here(empty)
                mask = (torch.arange(empty.shape[1], device=empty.device) < real)[None]
                tokens = weighted_rows(tokens, weights, model(empty, mask)[0])
        place = comfy.model_management.intermediate_device()
        return tokens.to(place), pooled.to(place)

    def _placed(self, features: torch.Tensor, end: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The rows where the adapter computes, behind masked ones so that they end at `end`; no mask where none is due."""
        features, first = self._here(features), max(0, end - features.shape[1])
        if first == 0:
            return features, None
        mask = torch.arange(end, device=features.device) >= first
        return torch.nn.functional.pad(features, (0, 0, first, 0)), mask[None]

    def text_shares(self, features: torch.Tensor, end: int = 0) -> tuple[torch.Tensor, bool]:
        """Features (1, L, input_dim) -> how much of each token comes from each text row (T, L); is it an estimate?

        Where a token is a row of the text, each comes from its own.
        """
        comfy.model_management.load_models_gpu([self.patcher])
        rows = features.shape[1]
        features, mask = self._placed(features, end)
        if not isinstance(self.patcher.model, LLMAdapter):
            return torch.eye(rows, device=features.device), False
        with torch.no_grad():
            return adapter_rollout(self.patcher.model, features, mask)[0][0][:, -rows:], True

    def _here(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(self.patcher.load_device, torch.float32)


def load_adapter(name: str) -> HostedAdapter:
    """Load an adapter from `models/llm_adapters`, in any of its namings.

    Raises:
        FileNotFoundError: no such file; the message lists the searched folders.
        ValueError: the file holds something else; the message says what it seems to be.
    """
    path = files.adapter_path(name)
    state, metadata = model_files.load(path, REMEDY)
    try:
        state = adapter_state(state)
        config = adapter_config(state, metadata.get("heads"), metadata.get("pooler_heads"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    model_files.check_numbers(path, state, state, REMEDY)
    kinds = {v.dtype for v in state.values()}
    dtype = kinds.pop() if len(kinds) == 1 and kinds <= set(_STORED) else torch.float32
    offload = comfy.model_management.unet_offload_device()
    module = build_adapter(
        config, operations=comfy.ops.manual_cast, cast=comfy.ops.cast_to_input, dtype=dtype, device=offload
    ).eval()
    patcher = comfy.model_patcher.CoreModelPatcher(
        module, load_device=comfy.model_management.get_torch_device(), offload_device=offload
    )
    # A part of a fused matrix is a view of it: copied, so that no part keeps the whole alive.
    weights = {k: v.to(dtype=dtype, copy=True, memory_format=torch.contiguous_format) for k, v in state.items()}
    module.load_state_dict(weights, strict=True, assign=patcher.is_dynamic())
    comfy.model_management.archive_model_dtypes(module)
    return HostedAdapter(patcher, name)


def check_adapter(adapter: object) -> None:
    """Raises ValueError for an adapter that another pack has loaded."""
    if not isinstance(adapter, HostedAdapter):
        raise ValueError(
            f"The adapter is not one of this pack's, but a {type(adapter).__name__}: another pack has a node with the ID "
            "LLMAdapterLoader too, and it was loaded in the place of ours. Switch off one of the two packs."
        )


def check_pair(adapter: HostedAdapter, encoder: TextModel) -> None:
    """Raises ValueError unless the adapter is this pack's, and the text encoder the one that it reads."""
    check_adapter(adapter)
    if encoder.width != adapter.config.input_dim:
        raise ValueError(
            f"The adapter '{adapter.name}' reads text features of width {adapter.config.input_dim}, but the text encoder "
            f"'{encoder.name}' gives width {encoder.width}. Choose the one that the adapter was trained with in "
            "LLMAdapterTextEncoderLoader (width 1152: Gemma-3-1b, 2304: T5Gemma-2b, 1024: Jina CLIP v2)."
        )


def encode(
    adapter: HostedAdapter,
    encoder: TextModel,
    text: str,
    system: str | None = None,
    limit: int | None = None,
    weights: bool = False,
) -> list:
    """CONDITIONING with the adapter's tokens and pooled vector for `text`; sizes are left to the host.

    At most `limit` tokens of the text are used, and never more than the adapter reads. With `weights`, (word:1.2) is a
    prompt weight; otherwise parentheses are text.

    Raises:
        ValueError: the text encoder is not the one that this adapter reads, the adapter is another pack's, or a weight
            is no number.
    """
    check_pair(adapter, encoder)
    longest = min(limit or adapter.config.longest, adapter.config.longest)
    text, given = weights_of(encoder, text, longest, system) if weights else (text, None)
    features = encoder.features(text, longest, system)
    end = longest if encoder.pads_left else 0
    if given is None:
        tokens, pooled = adapter(features, end)
    else:
        rows = features.shape[1] if isinstance(adapter.config, JinaAdapterConfig) else 0
        real = encoder.features("", longest, system).shape[1]
        tokens, pooled = adapter.weighted(features, given, encoder.features("", longest, system, rows), real, end)
    return [[tokens, {"pooled_output": pooled}]]
