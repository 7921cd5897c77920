"""Contact sheets: every object with its image, mask, attention and energy, and attention over time.

Images are `[B, H, W, 3]` in 0..1, masks `[B, H, W]`; the results are PIL images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..layout import Box
from ..sampling.object_runs import ObjectRuns
from . import fonts
from .attention_record import AttentionRecord, Look, numbers_by_name, object_attention, share_inside
from .layout_picture import PALETTE, ink_on

PAPER, INK, FAINT = "#FBFAF7", "#202020", "#6B6B6B"
GAP, TEXT = 12, 17
LEAST_CELL = 175  # pixels of a row that a narrow tile still takes, so that its caption has room
# Dark blue over green to yellow, in steps of equal lightness: readable in grey and for colour-blind eyes.
_HEAT = torch.tensor(
    [(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], dtype=torch.float32
)  # fmt: skip
ATTENTION_TOLD = (
    "Bright: where the model looks for the phrase while it draws (cross-attention of the guided layers, mean over heads "
    "and words; each row has its own scale). Frame: its boxes. inside: share of that attention in the boxes; in brackets "
    "what even attention would give."
)

ESTIMATE_TOLD = (
    "An estimate. The model reads learned tokens here, not words: its attention to them is followed back to the words "
    "through the attention of the blocks that made them (rollout). Green: the step's mean; bright: more, at least 10 %. "
    "varies: standard deviation over mean. A flat map says nothing about where the phrase is. Guidance never uses this."
)


def colour(number: int) -> str:
    """The colour of the box with this number, from 1, in the layout's picture."""
    return PALETTE[(number - 1) % len(PALETTE)]


def heat(values: Tensor) -> Tensor:
    """Values [h, w] in 0..1 as colours [h, w, 3] in 0..1."""
    at = values.clamp(0, 1) * (len(_HEAT) - 1)
    low = at.floor().long().clamp(max=len(_HEAT) - 2)
    part = (at - low)[..., None]
    return (_HEAT[low] * (1 - part) + _HEAT[low + 1] * part) / 255


def as_pil(image: Tensor):
    """[H, W, 3] in 0..1 -> PIL."""
    from PIL import Image

    data = (image.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).contiguous()
    return Image.frombytes("RGB", (data.shape[1], data.shape[0]), data.numpy().tobytes())


def tile_size(canvas: tuple[int, int], long_edge: int) -> tuple[int, int]:
    """A tile of the canvas's shape; its short edge is at least a quarter of the long one."""
    width, height = canvas
    scale = long_edge / max(width, height)
    return max(round(width * scale), long_edge // 4), max(round(height * scale), long_edge // 4)


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """[H, W, C] on (width, height) pixels; small pictures stay sharp-edged."""
    grow = size[0] >= image.shape[1]
    mode, corners = ("bilinear", False) if grow else ("area", None)
    pixels = image.float().cpu().movedim(-1, 0)[None]
    return F.interpolate(pixels, size=size[::-1], mode=mode, align_corners=corners)[0].movedim(0, -1)


def over(image: Tensor | None, values: Tensor, size: tuple[int, int]):
    """Attention [h, w] in 0..1 as a heat picture over a dimmed grey image [H, W, 3]; a PIL tile."""
    warm = heat(resized(values[..., None], size)[..., 0])
    if image is None:
        return as_pil(warm)
    grey = resized(image, size).mean(-1, keepdim=True).expand(-1, -1, 3)
    strength = resized(values[..., None], size).clamp(0, 1)
    return as_pil(grey * (0.55 - 0.4 * strength) + warm * (0.45 + 0.4 * strength))


def framed(tile, boxes: Sequence[Box], tint: str):
    """The tile with the boxes on it: a coloured frame with a white rim, seen on any picture."""
    from PIL import ImageDraw

    pen = ImageDraw.Draw(tile)
    line = max(2, max(tile.size) // 100)
    for box in boxes:
        x0, y0, x1, y1 = box.corners
        frame = [x0 * tile.width, y0 * tile.height, x1 * tile.width - 1, y1 * tile.height - 1]
        frame = [min(max(frame[0], 0), tile.width - 2), min(max(frame[1], 0), tile.height - 2),
                 max(min(frame[2], tile.width - 1), 1), max(min(frame[3], tile.height - 1), 1)]  # fmt: skip
        if frame[2] <= frame[0] or frame[3] <= frame[1]:
            continue
        pen.rectangle(frame, outline="#FFFFFF", width=line + 2)
        pen.rectangle([frame[0] + 1, frame[1] + 1, frame[2] - 1, frame[3] - 1], outline=tint, width=line)
    return tile


def masked(image: Tensor, mask: Tensor, size: tuple[int, int], tint: str):
    """The image with everything outside the mask dimmed and the mask's edge in colour."""
    picture = resized(image, size)
    inside = F.interpolate(mask[None, None].float().cpu(), size=size[::-1], mode="nearest")[0, 0]
    dim = picture.mean(-1, keepdim=True) * 0.3 + 0.62
    around = F.max_pool2d(inside[None, None], 5, stride=1, padding=2)[0, 0]
    shrunk = -F.max_pool2d(-inside[None, None], 3, stride=1, padding=1)[0, 0]
    edge = ((around - shrunk) > 0)[..., None].float()
    rgb = torch.tensor([int(tint[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    shown = picture * inside[..., None] + dim * (1 - inside[..., None])
    return as_pil(shown * (1 - edge) + rgb * edge)


def curve(energies: Sequence[tuple[int, int, Tensor]], image: int, threshold: float, size: tuple[int, int], tint: str):
    """A small energy curve of one image of the batch, with the threshold."""
    from PIL import Image, ImageDraw

    tile = Image.new("RGB", size, "#FFFFFF")
    pen = ImageDraw.Draw(tile)
    values = [float(e[image]) for _, _, e in energies]
    small = TEXT - 3
    left, top, right, bottom = 8, small + 12, size[0] - 8, size[1] - small - 12
    pen.rectangle([0, 0, size[0] - 1, size[1] - 1], outline="#DDDDDD")
    if not values:
        fonts.write(pen, (size[0] / 2, size[1] / 2), "not guided", small, FAINT, "mm")
        return tile
    low, high = min([*values, threshold]), max([*values, threshold])
    span = max(high - low, 1e-6)

    def at(i: int, value: float) -> tuple[float, float]:
        x = left + (right - left) * (i / (len(values) - 1) if len(values) > 1 else 0.5)
        return x, bottom - (bottom - top) * (value - low) / span

    y = at(0, threshold)[1]
    for x in range(left, right, 8):
        pen.line([(x, y), (x + 4, y)], fill=FAINT)
    points = [at(i, v) for i, v in enumerate(values)]
    if len(points) > 1:
        pen.line(points, fill=tint, width=3, joint="curve")
    for x, y in points if len(points) < 30 else points[:: max(len(points) // 15, 1)]:
        pen.ellipse([x - 3, y - 3, x + 3, y + 3], fill=tint)
    fonts.write(pen, (left, 4), f"{values[0]:.2f}", small, INK, "lt")
    fonts.write(pen, (right, 4), f"{values[-1]:.2f}", small, INK, "rt")
    told = fonts.shortened(f"{len(values)} iterations", small, size[0] - 16)
    fonts.write(pen, (left, size[1] - 5), told, small, FAINT, "ls")
    return tile


def cell(width: int) -> int:
    """The room that a tile of this width takes in a row, its caption and the gap included."""
    return max(width, LEAST_CELL) + GAP


class Sheet:
    """Rows of tiles under captions, written from the top down."""

    def __init__(self, width: int):
        self.width, self.rows = width, []

    def text(self, text: str, size: int = TEXT, fill: str = INK, most: int = 4) -> None:
        """Adds text, wrapped to the sheet's width, in at most `most` lines."""
        for line in fonts.wrapped(text, size, self.width - 2 * GAP, most):
            self.rows.append(("text", line, size, fill))

    def plate(self, numbers: Sequence[int], phrase: str, told: str = "") -> None:
        """A bar in the object's colour with its numbers and phrase, and a remark at the right."""
        listed = ", ".join(map(str, numbers))
        self.rows.append(("plate", f"{listed} {phrase}", told, colour(numbers[0])))

    def tiles(self, tiles: Sequence, captions: Sequence[str] = (), left: int = GAP) -> None:
        """Adds a row of pictures with captions below."""
        self.rows.append(("tiles", list(tiles), list(captions), left))

    def gap(self, height: int = GAP // 2) -> None:
        """Adds empty space of this many pixels."""
        self.rows.append(("gap", height))

    def height_of(self, row) -> int:
        """The height of a row in pixels."""
        if row[0] == "gap":
            return row[1]
        if row[0] == "text":
            return round(row[2] * 1.45)
        if row[0] == "plate":
            return round(TEXT * 1.7)
        return max((t.height for t in row[1]), default=0) + (round(TEXT * 1.35) if row[2] else 0) + GAP // 2

    def image(self):
        """The sheet as a PIL image."""
        from PIL import Image, ImageDraw

        out = Image.new("RGB", (self.width, sum(map(self.height_of, self.rows)) + 2 * GAP), PAPER)
        pen, y = ImageDraw.Draw(out), GAP
        for row in self.rows:
            height = self.height_of(row)
            if row[0] == "text":
                fonts.write(pen, (GAP, y + height / 2), row[1], row[2], row[3])
            elif row[0] == "plate":
                pen.rectangle([GAP, y, self.width - GAP, y + height - 5], fill=row[3])
                room = self.width - 4 * GAP - (fonts.length(row[2], TEXT - 2) + GAP if row[2] else 0)
                ink = ink_on(row[3])
                middle = y + (height - 5) / 2
                fonts.write(pen, (GAP + 8, middle), fonts.shortened(row[1], TEXT, room), TEXT, ink)
                if row[2]:
                    fonts.write(pen, (self.width - GAP - 8, middle), row[2], TEXT - 2, ink, "rm")
            elif row[0] == "tiles":
                x = row[3]
                for i, tile in enumerate(row[1]):
                    out.paste(tile, (x, y))
                    if i < len(row[2]):
                        said = fonts.shortened(row[2][i], TEXT - 3, cell(tile.width) - GAP / 2)
                        fonts.write(pen, (x, y + tile.height + TEXT * 0.7), said, TEXT - 3, FAINT)
                    x += cell(tile.width)
            y += height
        return out


def contact_sheet(objects: ObjectRuns, images: Tensor | None, image: int, final: Tensor | None = None):
    """One image of the batch: per object its own picture, mask, attention and energy.

    `images` [N * B, H, W, 3]: the objects' own, None where there are no objects.
    `final` [H, W, 3] is the composed picture, shown with all boxes.
    """
    layout, batch = objects.layout, objects.settings.batch
    size = tile_size((layout.width, layout.height), 240 if len(objects.runs) <= 8 else 160)
    plot = (max(size[0], 150), max(min(size[1], 240), 110))
    sheet = Sheet(max(3 * cell(size[0]) + cell(plot[0]) + GAP, 620))
    numbers, pictures = numbers_by_name(objects.layout), [] if images is None else list(images)
    if final is not None:
        boxed = as_pil(resized(final, size))
        for number, run in zip(numbers, objects.runs):
            boxed = framed(boxed, [run.item.box], colour(number))
        sheet.tiles([as_pil(resized(final, size)), boxed], ["composed", "with the boxes"])
        sheet.gap()
    for number, i in sorted(zip(numbers, range(len(numbers)))):
        run, tint = objects.runs[i], colour(number)
        own = pictures[i * batch + image]
        attention = object_attention(run)[:, image]
        first, last = (share_inside(attention[k], (run.box,)) for k in (0, -1))
        mean = attention.mean(0)
        sheet.plate([number], run.item.phrase, f"attention in its box: {first:.0%} at first, {last:.0%} at the end")
        tiles = [
            framed(as_pil(resized(own, size)), [run.box], tint),
            masked(own, run.mask[image], size, tint),
            framed(over(own, scaled(mean, mean), size), [run.box], tint),
            curve(run.energies, image, objects.options.guidance.loss_threshold, plot, tint),
        ]
        covered = float(run.mask[image].float().mean())
        sheet.tiles(tiles, ["alone, with its box", f"mask: {covered:.0%} of the image", "attention, mean of the steps",
                            "guidance energy"])  # fmt: skip
        sheet.gap()
    if not objects.runs:
        sheet.text("The layout has no objects.")
    return sheet.image()


def scaled(values: Tensor, by: Tensor) -> Tensor:
    """Values as shares of the range of `by`; the top half per cent counts as the highest."""
    flat = by.flatten().float()
    low, high = flat.min(), flat.kthvalue(max(round(flat.numel() * 0.995), 1)).values
    return ((values - low) / (high - low).clamp_min(1e-9)).clamp(0, 1)


def about_mean(values: Tensor, least: float = 0.1) -> Tensor:
    """Values as shares of a range about their mean: two standard deviations, or `least` of the mean for flatter ones."""
    mean = values.mean().clamp_min(1e-12)
    reach = (2 * values.std(correction=0) / mean).clamp_min(least)
    return ((values / mean - 1) / reach * 0.5 + 0.5).clamp(0, 1)


def attention_sheet(record: AttentionRecord, images: Tensor | None, image: int, columns: int):
    """One image of the batch: a row per phrase, its attention at `columns` steps; `images` as `picture_of` says."""
    looks = record.chosen(columns)
    size = tile_size(record.canvas, 224 if len(record.phrases) <= 8 else 150)
    sheet = Sheet(max(len(looks) * cell(size[0]) + GAP, 620))
    if not looks or not record.phrases:
        sheet.text("Nothing was recorded: connect the image that was sampled with the recording model, and run again.")
        return sheet.image()
    for p in record.in_order():
        every = torch.stack([look.maps[image, p] for look in record.looks])
        sheet.plate(record.numbers[p], record.phrases[p])
        sheet.tiles(
            [_tile(record, look, image, p, images, size, every) for look in looks],
            [f"step {look.step}/{record.steps}: {_told(record, look, image, p)}" for look in looks],
        )
        sheet.gap()
    sheet.text(ESTIMATE_TOLD if record.estimate else ATTENTION_TOLD, TEXT - 2, FAINT, 6)
    return sheet.image()


def attention_frame(record: AttentionRecord, look: Look, images: Tensor | None, image: int):
    """One step as a frame of a film: every phrase beside the other, at most four in a row."""
    size = tile_size(record.canvas, 224)
    across = min(len(record.phrases), 4)
    sheet = Sheet(max(across * cell(size[0]) + GAP, 300))
    sheet.text(f"step {look.step} of {record.steps}" + (", an estimate" if record.estimate else ""))
    for start in range(0, len(record.phrases), across):
        some = record.in_order()[start : start + across]
        tiles = []
        for p in some:
            every = torch.stack([one.maps[image, p] for one in record.looks])
            tiles.append(_tile(record, look, image, p, images, size, every))
        sheet.tiles(tiles, [f"{_short(record, look, image, p)}: {record.phrases[p]}" for p in some])
    return sheet.image()


def picture_of(record: AttentionRecord, images: Tensor | None, image: int, phrase: int) -> Tensor | None:
    """The picture under a phrase's attention: its own one if the batch has one per phrase, else the batch image's."""
    if images is None or not len(images):
        return None
    batch = len(record.looks[0].maps)
    if record.own_image and len(images) == batch * len(record.phrases):
        return images[phrase * batch + image]
    return images[min(image, len(images) - 1)]


def _tile(record, look: Look, image: int, phrase: int, images: Tensor | None, size, every: Tensor):
    below = picture_of(record, images, image, phrase)
    values = look.maps[image, phrase]
    return framed(
        over(below, about_mean(values) if record.estimate else scaled(values, every), size),
        record.boxes[phrase],
        colour(record.numbers[phrase][0]),
    )


def _told(record: AttentionRecord, look: Look, image: int, phrase: int) -> str:
    if record.estimate or not record.boxes[phrase]:
        return _short(record, look, image, phrase)
    return f"inside {record.share_inside(look, image, phrase):.0%} ({record.area(phrase):.0%})"


def _short(record: AttentionRecord, look: Look, image: int, phrase: int) -> str:
    if record.estimate or not record.boxes[phrase]:
        return f"varies {record.contrast(look, image, phrase):.1%}"
    return f"{record.share_inside(look, image, phrase):.0%} inside"
