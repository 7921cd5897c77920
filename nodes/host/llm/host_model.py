"""Text from the host's own language models: any CLIP object that can generate, under its memory management."""

from __future__ import annotations

GENERATING = "Gemma 2 or 3, Qwen 3, Qwen 2.5 VL, Qwen 3 VL or Ministral 3"


def generate(clip, request: str, seed: int, max_tokens: int, temperature: float = 0.7) -> str:
    """The model's answer to `request`. Raises ValueError for a text encoder that cannot generate."""
    if clip is None or not hasattr(clip, "generate"):
        raise ValueError(
            f"No text model is connected. Load one that can write ({GENERATING}) with Load CLIP and connect it to `clip`."
        )
    tokens = clip.tokenize(request, min_length=1, skip_template=False, thinking=False)
    try:
        ids = clip.generate(
            tokens, do_sample=True, max_length=max_tokens, temperature=temperature, top_k=64, top_p=0.95, min_p=0.05,
            repetition_penalty=1.0, presence_penalty=0.0, seed=seed,
        )  # fmt: skip
    except AttributeError as error:  # encoders without an output head lack the method deep inside
        name = type(clip.cond_stage_model).__name__
        raise ValueError(
            f"The connected text model ({name}) cannot write text. Load one that can ({GENERATING}) with Load CLIP and "
            "connect it to `clip`."
        ) from error
    return clip.decode(ids)
