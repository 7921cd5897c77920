"""The LoRAs of a layout's objects: everywhere in an object's own run, and where the object is in the composition."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from typing import Any

import comfy.lora
import comfy.lora_convert

from ....lmd.layout import Layout
from ....lmd.object_settings import ObjectLora
from ....lmd.sampling import tokens
from ....lmd.sampling.energy import GuidedObject
from ....lmd.sampling.regions import region_of
from .. import lora_files, model_files
from ..guidance.masked_lora import MaskedLora, Words, load_deltas, patched
from ..guidance.token_positions import encode, tokenizer
from .run_cache import signature

NODE = "LMD Object Settings"
log = logging.getLogger(__name__)


def with_loras(model: Any, clip: Any, loras: Sequence[ObjectLora]) -> tuple[Any, Any, Hashable]:
    """Clones of MODEL and CLIP with the LoRAs, as the host's own loader makes them, and what is equal for equal LoRAs.

    Raises ValueError for a file that can't be used, or is for another model.
    """
    found: list[Hashable] = []
    model, clip = model.clone(), clip.clone()  # once: the host finds its way back from a clone to what it was made of
    for lora in loras:
        path, state = lora_files.read(lora.file, NODE)
        found.append((signature(state), lora.strength, lora.clip_strength))
        keys = comfy.lora.model_lora_keys_unet(model.model, {})
        keys = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, keys)
        loaded = comfy.lora.load_lora(comfy.lora_convert.convert_lora(state), keys, log_missing=False)
        if not loaded:
            raise model_files.wrong_kind(path, state, "a LoRA for this model", lora_files.remedy(NODE))
        if lora.strength:
            model.add_patches(loaded, lora.strength)
        if lora.clip_strength:
            clip.add_patches(loaded, lora.clip_strength)
    return model, clip, tuple(found)


def in_composition(
    model: Any, clip: Any, layout: Layout, text: str, positive: list, guided: Sequence[GuidedObject]
) -> tuple[Any, list]:
    """A clone of MODEL and the positive CONDITIONING for the composition, with each object's LoRAs where the object is.

    In the U-Net they act in the object's box, in the text encoder on the rows of its words in `text`, which `positive`
    is the encoding of and `guided` says the places in. Raises ValueError for a format that can't be masked, and for a
    model that is no U-Net.
    """
    owners: dict[tuple[ObjectLora, ...], list[int]] = {}
    for number, item in enumerate(layout.objects, 1):
        if item.settings.loras:
            owners.setdefault(item.settings.loras, []).append(number)
    rows = {loras: _rows(clip, layout, numbers, text, guided) for loras, numbers in owners.items()}
    for loras, positions in rows.items():
        positive = _with_text_rows(positive, model, clip, loras, text, positions)
    masked: list[MaskedLora] = []
    for loras, numbers in owners.items():
        words = Words(positive[0][0].detach().cpu(), rows[loras]) if rows[loras] else None
        for lora in loras:
            if lora.strength and (deltas := load_deltas(model, lora.file, lora.strength, NODE, required=False)):
                masked.append(MaskedLora(lora.file, deltas, region_of(layout, tuple(numbers)), words))
    canvas = layout.width, layout.height
    return patched(model, masked, canvas) if masked else model.clone(), positive


def _rows(
    clip: Any, layout: Layout, numbers: Sequence[int], text: str, guided: Sequence[GuidedObject]
) -> tuple[int, ...]:
    """The rows of the objects' phrases in the text's encoding, and of their own words behind them."""
    tokenize = tokenizer(clip)
    pieces, found = tokenize(text), set()
    for item in guided:
        if not set(item.numbers) <= set(numbers):
            if set(item.numbers) & set(numbers):
                log.warning('the boxes of "%s" have different LoRAs, so the words go without them', item.phrase)
            continue
        found |= set(item.positions)
        for words in {layout.objects[n - 1].settings.words for n in item.numbers} - {""}:
            behind = [p for p in tokens.places(pieces, tokenize(words)) if pieces[p[0]][0] > max(item.positions)]
            found |= {position for position, _ in pieces[slice(*behind[0])]} if behind else set()
    return tuple(sorted(found))


def _with_text_rows(
    positive: list, model: Any, clip: Any, loras: Sequence[ObjectLora], text: str, positions: tuple[int, ...]
) -> list:
    if not positions or not any(lora.clip_strength for lora in loras):
        return positive
    own = encode(with_loras(model, clip, loras)[1], text)
    if len(own) != 1 or len(positive) != 1 or own[0][0].shape != positive[0][0].shape:
        raise ValueError(
            f"the LoRA {loras[0].file} can't act on single words of a text encoder with a schedule of hooks: set "
            f"strength_clip in {NODE} to 0"
        )
    features, rows = positive[0][0].clone(), list(positions)
    features[:, rows] = own[0][0][:, rows]
    return [[features, positive[0][1]]]
