"""ELLA done naively, to compare with: every model call computes every text's tokens again, from scratch.

It works one level below the pack's own wrapper (at the call of the U-Net, with its batched rows) and shares nothing
with it but the connector's formula, here with torch's own layers and float32 weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from ella_lmd.ella import TimestepAwareConnector, connector_config


@dataclass
class Side:
    """What one of the two prompts is made of: text features for ELLA or none, tokens of CLIP or none."""

    features: torch.Tensor | None
    clip: torch.Tensor | None = None

    def placeholder(self) -> list:
        length = (64 if self.features is not None else 0) + (self.clip.shape[1] if self.clip is not None else 0)
        return [[torch.zeros(1, length, 768), {}]]


def naive_connector(state: dict[str, torch.Tensor]) -> TimestepAwareConnector:
    module = TimestepAwareConnector(connector_config(state))
    module.load_state_dict({k: v.float() for k, v in state.items()}, strict=True)
    return module.requires_grad_(False)


def context(connector: TimestepAwareConnector, side: Side, timestep: int) -> torch.Tensor:
    parts = [] if side.features is None else [connector(side.features, timestep)]
    return torch.cat([*parts, *([] if side.clip is None else [side.clip])], dim=1)


def brute_force(model, connector: TimestepAwareConnector, positive: Side, negative: Side):
    """A clone of the host's MODEL whose every U-Net call gets freshly computed conditioning."""
    sides = (positive, negative)

    def call(apply_model, args):
        rows = args["input"].shape[0] // len(args["cond_or_uncond"])
        timestep = int(model.model.model_sampling.timestep(args["timestep"][:1]))
        parts = [context(connector, sides[i], timestep).repeat(rows, 1, 1) for i in args["cond_or_uncond"]]
        return apply_model(args["input"], args["timestep"], **{**args["c"], "c_crossattn": torch.cat(parts)})

    model = model.clone()
    model.set_model_unet_function_wrapper(call)
    return model


@dataclass
class Seen:
    """What really happened in a run: at the U-Net, and in the connector."""

    unet: list[int] = field(default_factory=list)  # timestep of every call
    rows: list[int] = field(default_factory=list)  # batch rows of every call
    contexts: list[torch.Tensor] = field(default_factory=list)
    connector: list[int] = field(default_factory=list)  # timestep of every evaluation


class Recorder:
    """Records calls of the U-Net and of a connector by hooks on the modules themselves."""

    def __init__(self, model, connector):
        self.modules = (model.model.diffusion_model, connector.patcher.model)

    def __enter__(self) -> Seen:
        seen = Seen()

        def unet(_module, args, kwargs):
            seen.unet.append(int(args[1][0]))
            seen.rows.append(args[0].shape[0])
            seen.contexts.append(kwargs["context"].clone())

        unet_module, connector = self.modules
        self.hooks = [
            unet_module.register_forward_pre_hook(unet, with_kwargs=True),
            connector.register_forward_pre_hook(lambda _m, args: seen.connector.append(int(args[1]))),
        ]
        return seen

    def __exit__(self, *exc) -> None:
        for hook in self.hooks:
            hook.remove()
