"""From text to CONDITIONING: ELLA's tokens, alone or followed by CLIP's."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .connector import EllaConnector, EllaText
from .t5 import TRAINED_LENGTH, EllaTextEncoder

LENGTHS = {"flexible": 0, f"fixed {TRAINED_LENGTH}": TRAINED_LENGTH}
TOGETHER, ALONE = "ELLA + CLIP", "ELLA only"
MODES = (TOGETHER, ALONE)


def encode_clip(clip, text: str) -> list:
    """As the host's CLIPTextEncode does it."""
    if clip is None:
        raise ValueError(
            "ELLA and CLIP together need a CLIP, but none is connected (or the checkpoint has none). Connect one to the "
            "`clip` input of ELLAEncode, or set its mode to 'ELLA only'."
        )
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def join(ella_tokens: torch.Tensor, clip_conditioning: list) -> list:
    """ELLA's tokens (1, N, W) before those of every CLIP entry; the entries keep what else they carry.

    Raises:
        ValueError: CLIP's tokens have another width, so the CLIP belongs to another kind of model.
    """
    for tokens, _ in clip_conditioning:
        if tokens.shape[-1] != ella_tokens.shape[-1]:
            raise ValueError(
                f"ELLA's tokens have width {ella_tokens.shape[-1]}, but those of the connected CLIP have width "
                f"{tokens.shape[-1]}: it is not the CLIP of a Stable Diffusion 1.5 model, and ELLA's weights were "
                "released for those only. Connect an SD1.5 checkpoint's CLIP to ELLAEncode (and its model to "
                "TimestepAwareConditioning), or use CLIPTextEncode for this one."
            )
    return [
        [torch.cat([ella_tokens, tokens.to(ella_tokens)], dim=1), dict(extra)] for tokens, extra in clip_conditioning
    ]


def encode(
    connector: EllaConnector,
    text_encoder: EllaTextEncoder,
    text: str,
    length: int = 0,
    clip_conditioning: list | None = None,
) -> list:
    """CONDITIONING with ELLA's tokens for `text`, before those of `clip_conditioning` if there is one."""
    tokens = EllaText(connector, text_encoder.features(text, length)).conditioning_tokens()
    return [[tokens, {}]] if clip_conditioning is None else join(tokens, clip_conditioning)


def conditioner(connector: EllaConnector | None, text_encoder: EllaTextEncoder | None) -> Callable | None:
    """A function `(text, CLIP's conditioning of it)` -> ELLA's tokens before CLIP's; None if neither is given.

    Raises:
        ValueError: one of the two is missing.
    """
    if connector is None and text_encoder is None:
        return None
    if connector is None or text_encoder is None:
        given, absent, loader = (
            ("text_encoder", "ella", "ELLAModelLoader") if connector is None
            else ("ella", "text_encoder", "ELLATextEncoderLoader")
        )  # fmt: skip
        raise ValueError(
            f"The input {given} is connected, but {absent} is not: ELLA needs both. Connect {loader} to {absent}, or "
            f"disconnect {given}, and CLIP alone reads the prompts."
        )
    return lambda text, by_clip: encode(connector, text_encoder, text, clip_conditioning=by_clip)
