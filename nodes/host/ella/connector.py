"""The connector under the host's memory management, and texts whose tokens are computed for any timestep and kept."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import torch

from ....ella.checkpoint import connector_config, connector_state
from ....ella.connector import TimestepAwareConnector
from ....ella.rollout import connector_rollout
from ....ella.schedule import STATIC_TIMESTEP
from ....ella.timed import TimedTokens
from .. import model_files
from . import files

log = logging.getLogger(__name__)

# One entry is 64 x 768 numbers; the samplers that ask most (dpm_adaptive, 50 steps of dpmpp_sde) need about 100.
REMEMBERED_TIMESTEPS = 128
REMEDY = (
    f"Put {files.CONNECTOR_FILE} into models/ella (download it again if it is there), and choose it in ELLAModelLoader."
)


class EllaConnector:
    """A connector that the host loads, moves and offloads like any other model."""

    def __init__(self, patcher: comfy.model_patcher.ModelPatcher, dtype: torch.dtype, name: str):
        self.patcher, self.dtype, self.name = patcher, dtype, name

    @property
    def config(self):
        """The connector's shape, as read from its file."""
        return self.patcher.model.config

    def load(self) -> None:
        """Moves the weights to the compute device."""
        comfy.model_management.load_models_gpu([self.patcher])

    def __call__(self, features: list[torch.Tensor], timestep: int) -> torch.Tensor:
        """Features of n texts, (1, L, input_dim) each -> tokens (n, latents, width) on the load device."""
        device = self.patcher.load_device
        features = [x.to(device=device, dtype=self.dtype) for x in features]
        with torch.no_grad():  # also where the caller takes gradients of the latent
            return self.patcher.model(features, torch.tensor([timestep], device=device))

    def text_shares(self, features: torch.Tensor, timestep: int) -> torch.Tensor:
        """Features (1, L, input_dim) -> how much of each token comes from each text row (latents, L): an estimate."""
        features = features.to(device=self.patcher.load_device, dtype=self.dtype)
        with torch.no_grad():
            return connector_rollout(self.patcher.model, features, timestep)[0][0]


def load_connector(name: str) -> EllaConnector:
    """Load a connector from `models/ella`.

    Raises:
        FileNotFoundError: no such file; the message lists the searched folders.
        ValueError: the file holds something else; the message says what it seems to be.
    """
    path = files.connector_path(name)
    state, metadata = model_files.load(path, REMEDY)
    try:
        state = connector_state(state)
        config = connector_config(state, heads=metadata.get("heads"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    model_files.check_numbers(path, state, state, REMEDY)
    device = comfy.model_management.get_torch_device()
    # Half precision where it is fast (as the connector was trained); elsewhere no weight is cast at every call.
    dtype = torch.float16 if comfy.model_management.should_use_fp16(device) else torch.float32
    offload = comfy.model_management.unet_offload_device()
    module = TimestepAwareConnector(
        config, operations=comfy.ops.manual_cast, cast=comfy.ops.cast_to_input, dtype=dtype, device=offload
    ).eval()
    patcher = comfy.model_patcher.CoreModelPatcher(module, load_device=device, offload_device=offload)
    module.load_state_dict({k: v.to(dtype) for k, v in state.items()}, strict=True, assign=patcher.is_dynamic())
    comfy.model_management.archive_model_dtypes(module)
    return EllaConnector(patcher, dtype, name)


def misfit(width: int, wanted: int) -> str:
    """What to tell when a model reads conditioning of another width than ELLA's."""
    return (
        f"ELLA's tokens have width {width}, but this model reads width {wanted}. ELLA's weights were released for "
        "Stable Diffusion 1.5 only: connect an SD1.5 model to TimestepAwareConditioning, or use CLIPTextEncode for "
        "this one."
    )


class EllaText:
    """The features of one text and the connector that turns them into tokens; the origin of `TimedTokens`.

    Tokens are kept for the latest timesteps (a bounded number) for as long as some conditioning refers to this text.
    """

    def __init__(self, connector: EllaConnector, features: torch.Tensor):
        if features.shape[-1] != connector.config.input_dim:
            raise ValueError(
                f"The connector '{connector.name}' reads text features of width {connector.config.input_dim}, but the "
                f"text encoder gives width {features.shape[-1]}. Choose FLAN-T5-XL's encoder in ELLATextEncoderLoader."
            )
        self.connector, self.features = connector, features
        self._tokens: OrderedDict[int, torch.Tensor] = OrderedDict()
        self._warned = False

    def at(self, timestep: int) -> torch.Tensor:
        """Tokens (1, latents, width) for a timestep 0..999, on the connector's device."""
        compute([self], timestep)
        self._tokens.move_to_end(timestep)
        return self._tokens[timestep]

    def keep(self, timestep: int, tokens: torch.Tensor) -> None:
        """Keeps the tokens of a timestep (0..999); the oldest are dropped."""
        self._tokens[timestep] = tokens
        while len(self._tokens) > REMEMBERED_TIMESTEPS:
            self._tokens.popitem(last=False)

    def has(self, timestep: int) -> bool:
        """True if the tokens of a timestep (0..999) are kept."""
        return timestep in self._tokens

    def conditioning_tokens(self) -> TimedTokens:
        """Tokens for CONDITIONING: those of the middle of the schedule, able to become those of any timestep."""
        self.connector.load()
        fixed = self.at(STATIC_TIMESTEP).to(device=comfy.model_management.intermediate_device(), dtype=torch.float32)
        return TimedTokens.wrap(fixed.clone(), self, self._read_unresolved)

    def _read_unresolved(self, width: int, wanted: int) -> None:
        """Called when a layer of input width `wanted` reads these tokens as they are."""
        if width != wanted:
            raise ValueError(misfit(width, wanted))
        if not self._warned:
            self._warned = True
            log.warning(
                "ELLA: the model reads the ELLA conditioning as it was at timestep %d, at every step. Put the node "
                "TimestepAwareConditioning between the model and the sampler, so that it follows the timestep.",
                STATIC_TIMESTEP,
            )


def compute(texts: Iterable[EllaText], timestep: int) -> None:
    """Have the tokens of all these texts ready for a timestep; texts of one connector share a single evaluation."""
    missing: dict[EllaConnector, list[EllaText]] = {}
    for text in texts:
        if not text.has(timestep):
            missing.setdefault(text.connector, []).append(text)
    for connector, group in missing.items():
        for text, tokens in zip(group, connector([text.features for text in group], timestep).split(1)):
            text.keep(timestep, tokens.clone())
