"""A layout as the host's own regional conditioning: what its area, mask and GLIGEN nodes make of it, object by object."""

from __future__ import annotations

from typing import Any

from node_helpers import conditioning_set_values

from ....lmd.convert.masks import to_masks
from ....lmd.convert.regions import pixel_region
from ....lmd.layout import Layout
from ....lmd.prompts import object_prompts, overall_negative, overall_prompt
from ..guidance.token_positions import encode

AREA, MASK, GLIGEN = "area", "mask", "GLIGEN"
PHRASE, IN_SCENE = "phrase", "background with phrase"
MOST_GLIGEN_BOXES = 30  # comfy/gligen.py: max_objs
GLIGEN_LEAST = 8  # pixels: one latent cell


def texts(layout: Layout, kind: str) -> list[str]:
    """What is encoded for each object, in the layout's order: its phrase, or LMD's object prompt with the background."""
    if kind == PHRASE:
        return [o.phrase for o in layout.objects]
    scene = {item.phrase: item.prompt for item in object_prompts(layout)}
    return [scene[o.phrase] for o in layout.objects]


def base_conditioning(clip: Any, layout: Layout, prompt: str = "") -> list:
    """The whole image's prompt, by default the layout's own, as CLIPTextEncode encodes it."""
    return encode(clip, prompt.strip() or overall_prompt(layout).prompt)


def negative_conditioning(clip: Any, layout: Layout) -> list:
    """The conditioning of the layout's negative prompt, with LMD's own list."""
    return encode(clip, overall_negative(layout))


def with_areas(
    clip: Any, layout: Layout, base: list, kind: str, strength: float, base_strength: float, exact: bool = False
) -> list:
    """`base`, and each object in its area: CLIPTextEncode, ConditioningSetArea, ConditioningCombine.

    Areas are in steps of 8 pixels and at least 64 pixels wide and high, as in the host's node. They are written as
    shares of the canvas, as ConditioningSetAreaPercentage does, so that they fit latents of another size too; `exact`
    writes cells instead.
    """
    found = conditioning_set_values(base, {"strength": base_strength})
    for text, o in zip(texts(layout, kind), layout.objects):
        w, h, x, y = pixel_region(o.box, layout.width, layout.height)
        shares = ("percentage", h / layout.height, w / layout.width, y / layout.height, x / layout.width)
        area = (h // 8, w // 8, y // 8, x // 8) if exact else shares
        found += conditioning_set_values(
            encode(clip, text), {"area": area, "strength": strength, "set_area_to_bounds": False}
        )
    return found


def with_masks(
    clip: Any, layout: Layout, base: list, kind: str, strength: float, base_strength: float, soften: int, bounds: bool
) -> list:
    """`base`, and each object in its mask: CLIPTextEncode, ConditioningSetMask, ConditioningCombine.

    `bounds`: each object sees the rectangle around its mask only, instead of the whole image.
    """
    found = conditioning_set_values(base, {"strength": base_strength})
    masks, _ = to_masks(layout, soften)
    for text, mask in zip(texts(layout, kind), masks):
        values = {"mask": mask[None], "set_area_to_bounds": bounds, "mask_strength": strength}
        found += conditioning_set_values(encode(clip, text), values)
    return found


def with_gligen(clip: Any, layout: Layout, base: list, kind: str, model: Any) -> list:
    """`base` with each object as GLIGENTextBoxApply adds it, boxes in steps of 8 pixels."""
    if len(layout.objects) > MOST_GLIGEN_BOXES:
        raise ValueError(
            f"GLIGEN takes at most {MOST_GLIGEN_BOXES} boxes, the layout has {len(layout.objects)}: use fewer, or "
            "the method area or mask"
        )
    positions = []
    for text, o in zip(texts(layout, kind), layout.objects):
        _, pooled = clip.encode_from_tokens(clip.tokenize(text), return_pooled="unprojected")
        w, h, x, y = pixel_region(o.box, layout.width, layout.height, GLIGEN_LEAST)
        positions.append((pooled, h // 8, w // 8, y // 8, x // 8))
    return conditioning_set_values(base, {"gligen": ("position", model, positions)}) if positions else base


def conditioning(clip: Any, layout: Layout, prompt: str, kind: str, method: dict) -> list:
    """The positive conditioning of a layout by `method["method"]` (AREA, MASK or GLIGEN) with that method's inputs."""
    base = base_conditioning(clip, layout, prompt)
    chosen = method["method"]
    if chosen == GLIGEN:
        model = method.get("gligen_textbox_model")
        if model is None:
            raise ValueError("the method GLIGEN needs the input gligen_textbox_model: connect a GLIGENLoader to it")
        return with_gligen(clip, layout, base, kind, model)
    strengths = (method["strength"], method["base_strength"])
    if chosen == MASK:
        return with_masks(clip, layout, base, kind, *strengths, method["soften"], method["crop_to_mask"])
    return with_areas(clip, layout, base, kind, *strengths)
