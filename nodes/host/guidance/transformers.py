"""Attention of the host's diffusion transformers: which calls read the text, which rows are which, and their gradients.

Nothing here knows a family. Every attention call that hands its options to the host's attention functions can be seen
through the override in the transformer options. Three short passes tell what the rows are: with another latent the
image's rows change, with another conditioning the text's. Source: docs/lmd.md, 11.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ....lmd.sampling.energy import AttentionMap
from ....lmd.sampling.guidance import GuidanceOptions
from .attention import LayersDone, UnsupportedModel, differentiable

OVERRIDE = "optimized_attention_override"
PROJECTIONS = 8
CHANGED = 1e-3  # of the largest change of a call's rows: smaller ones are rounding
CLEAR = 1.5  # a row must change so many times as much as the next one to be taken for the changed word's
SOFTMAX = ("text", "joint")

Forward = Callable[[Tensor, Tensor, dict], Any]  # (latent, conditioning, transformer options) -> anything


@dataclass(frozen=True)
class TextCalls:
    """What a forward pass of a transformer looks like from its attention calls.

    `numbers`: the calls, in running order, whose image rows read the text: one per block. `text`: the rows of k that
    hold the conditioning's tokens, in their order; `image`: the rows of q that hold the `height` x `width` patches.
    `lengths`: rows of q and k in these calls. `joint`: text and image are one sequence (else: cross-attention).
    """

    numbers: tuple[int, ...]
    text: tuple[int, ...]
    image: tuple[int, ...]
    height: int
    width: int
    lengths: tuple[int, int]
    joint: bool
    heads: int


@dataclass(frozen=True)
class _Seen:
    """One call's rows as a few numbers each: `q` and `k` [rows, PROJECTIONS]."""

    q: Tensor
    k: Tensor
    heads: int


def is_transformer(model: torch.nn.Module) -> bool:
    """Whether a diffusion model is something else than the host's U-Net class."""
    return not all(hasattr(model, name) for name in ("input_blocks", "middle_block", "output_blocks"))


def by_heads(x: Tensor, heads: int, reshaped: bool) -> Tensor:
    """q, k or v of an attention call as [B, H, rows, D]; `reshaped` (the host's `skip_reshape`): it is so already."""
    return x if reshaped else x.unflatten(-1, (heads, -1)).transpose(1, 2)


def find_text_calls(forward: Forward, latent: Tensor, conditioning: Tensor, name: str) -> TextCalls:
    """Look at one latent [1, C, ..., h, w] and one conditioning [1, L, D] through three passes without gradients.

    Raises UnsupportedModel, naming the model and what does not fit, when the rows cannot be told apart or their
    numbers do not add up: a wrong row would guide another word.
    """
    generator = torch.Generator().manual_seed(0)

    def other(x: Tensor) -> Tensor:
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float32).to(x)
        return x + noise * x.float().std().clamp_min(1e-2).to(x)

    passes = [(latent, conditioning), (other(latent), conditioning), (latent, other(conditioning))]
    calls = _alike([_watch(forward, *inputs) for inputs in passes], name)
    number = _first_that_reads_text(calls, name)
    plain, by_latent, by_text = calls[number]
    image = _changed(plain.q, by_latent.q)
    joint = bool(_changed(plain.k, by_latent.k).any())
    words = _indices(_changed(plain.k, by_text.k) & ~_changed(plain.k, by_latent.k))
    if len(words) != conditioning.shape[1]:  # padding that a text refiner mixes with the words, for example
        words = _by_single_rows(forward, latent, conditioning, number, plain, name)
    grid = _grid(int(image.sum()), latent.shape[-2:])
    if grid is None:
        raise UnsupportedModel(
            f"{int(image.sum())} rows of {name}'s attention follow the latent, which is no grid of its "
            f"{latent.shape[-2]} x {latent.shape[-1]} cells: layout guidance can't tell where they lie"
        )
    lengths = len(plain.q), len(plain.k)
    same = [i for i, (s, _, _) in enumerate(calls) if i >= number and (len(s.q), len(s.k)) == lengths]
    if not joint:  # the text of every block is untouched by the latent, so each call can be asked for itself
        same = [i for i in same if _follows_text(*calls[i])]
    return TextCalls(tuple(same), words, _indices(image), *grid, lengths, joint, plain.heads)


def _alike(passes: list[list[_Seen]], name: str) -> list[tuple[_Seen, ...]]:
    """Each call as the passes saw it. Raises UnsupportedModel for a model that shows no calls, or not the same ones."""
    if len({len(seen) for seen in passes}) > 1:
        raise UnsupportedModel(f"{name} does not make the same attention calls in every pass, so it cannot be guided")
    if not passes[0]:
        raise UnsupportedModel(
            f"the attention of {name} cannot be reached: it does not hand the transformer options on, so layout "
            "guidance has nothing to read. Use the layout with area conditioning (LMD Layout To Conditioning) instead"
        )
    return list(zip(*passes, strict=True))


def _first_that_reads_text(calls: list[tuple[_Seen, ...]], name: str) -> int:
    """The number of the first call in which rows that follow the latent read rows that follow the text alone."""
    for number, (plain, by_latent, by_text) in enumerate(calls):
        text = _changed(plain.k, by_text.k) & ~_changed(plain.k, by_latent.k)
        if text.any() and _changed(plain.q, by_latent.q).any():
            return number
    raise UnsupportedModel(f"no attention call of {name} lets image rows read text rows, so there is nothing to guide")


def _by_single_rows(
    forward: Forward, latent: Tensor, conditioning: Tensor, number: int, plain: _Seen, name: str
) -> tuple[int, ...]:
    """The rows of k that hold the conditioning's tokens, found by changing its first and its last row alone."""
    places = []
    for row in (0, conditioning.shape[1] - 1):
        changed = conditioning.clone()
        changed[:, row] += changed[:, row].flip(-1) + changed.float().std().to(changed)
        found = _difference(plain.k, _watch(forward, latent, changed)[number].k)
        first, second = found.topk(2).values.tolist()
        places.append(int(found.argmax()) if first > CLEAR * second else None)
    first, last = places
    if first is None or last is None or last - first != conditioning.shape[1] - 1:
        raise UnsupportedModel(
            f"which rows of {name}'s attention hold the {conditioning.shape[1]} rows of the conditioning is not certain, "
            "so layout guidance does not guess"
        )
    return tuple(range(first, last + 1))


def _watch(forward: Forward, latent: Tensor, conditioning: Tensor) -> list[_Seen]:
    seen: list[_Seen] = []

    def override(function: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, *args: Any, **kwargs: Any) -> Tensor:
        reshaped = bool(kwargs.get("skip_reshape"))
        rows_q, rows_k = (_numbers(by_heads(x, heads, reshaped)) for x in (q, k))
        seen.append(_Seen(rows_q, rows_k, heads))
        return function(q, k, v, heads, *args, **kwargs)

    with torch.no_grad():
        forward(latent, conditioning, {OVERRIDE: override})
    return seen


def _numbers(x: Tensor) -> Tensor:
    """[1, H, rows, D] -> a few numbers per row [rows, PROJECTIONS], on the CPU; equal rows give equal numbers."""
    first = x[0].float().transpose(0, 1).flatten(1)
    places = torch.arange(first.shape[1], device=x.device, dtype=torch.float32)
    waves = torch.stack([torch.sin(places * (0.7 + 0.37 * i)) for i in range(PROJECTIONS)], 1)
    return (first @ waves).cpu()


def _difference(a: Tensor, b: Tensor) -> Tensor:
    """How much each row differs [rows]; infinite where the rows are not as many."""
    return torch.full((len(a),), math.inf) if a.shape != b.shape else (a - b).norm(dim=1)


def _changed(a: Tensor, b: Tensor) -> Tensor:
    """Which rows differ [rows], beyond rounding."""
    difference = _difference(a, b)
    return difference > max(CHANGED * float(difference.max()), 1e-6 * float(a.norm(dim=1).max()))


def _follows_text(plain: _Seen, by_latent: _Seen, by_text: _Seen) -> bool:
    return bool(_changed(plain.k, by_text.k).any() and not _changed(plain.k, by_latent.k).any())


def _indices(mask: Tensor) -> tuple[int, ...]:
    return tuple(mask.nonzero()[:, 0].tolist())


def _grid(rows: int, cells: Sequence[int]) -> tuple[int, int] | None:
    """Height and width in patches of so many image rows, for the patch size with which they cover the latent's cells."""
    height, width = cells
    for patch in (1, 2, 4, 8, 16, 32):
        grid = math.ceil(height / patch), math.ceil(width / patch)
        if grid[0] * grid[1] == rows:
            return grid
    return None


def resolve_blocks(text: str, count: int) -> tuple[int, ...]:
    """ "auto", or "3, 4, 5" -> indices of the blocks to guide, rising. Raises ValueError naming what the model has.

    "auto" is the later half, at most `AUTO_BLOCKS` of it in even steps (docs/lmd.md, 11).
    """
    if text.strip().lower() in ("", "auto"):
        half = range(count // 2, count)
        step = max(1, math.ceil(len(half) / AUTO_BLOCKS))
        return tuple(half[::step])
    blocks = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        if not part.isdecimal() or int(part) >= count:
            raise ValueError(
                f'guided layer {part!r} does not exist in this transformer: write "auto" or numbers from 0 to {count - 1}'
            )
        blocks.append(int(part))
    return tuple(sorted(set(blocks)))


def mask_block(count: int) -> int:
    """The block of so many whose attention shows the object best: the first of the later half."""
    return count // 2


AUTO_BLOCKS = 8
HEADS = 8  # maps are scaled to so many, those of the model that the published strength belongs to
STRENGTH = 3.0  # times the published strength, which bends too little here (docs/lmd.md, 11)


def transformer_options(options: GuidanceOptions) -> GuidanceOptions:
    """A U-Net's guidance options as a transformer needs them: stronger, and never stopped by the energy's height.

    The energy falls little although the picture obeys, so a threshold chosen on a U-Net says nothing here. Raises
    ValueError for an energy that is defined on CLIP's words only.
    """
    if options.energy.all_words:
        raise ValueError(
            f"the energy {options.energy.kind} compares the words of CLIP in a U-Net's attention, and this model is a "
            "transformer: set the energy of LMD Options to top or ratio, or choose another preset of Layout Guidance"
        )
    return replace(options, loss_scale=options.loss_scale * STRENGTH, loss_threshold=0.0)


@dataclass(frozen=True)
class Blocks:
    """The guided blocks of a transformer, as indices into the calls that read its text: what layers are to a U-Net."""

    calls: TextCalls
    indices: tuple[int, ...]
    softmax: str = "text"

    def __post_init__(self) -> None:
        if self.softmax not in SOFTMAX:
            raise ValueError(f"softmax must be one of {', '.join(SOFTMAX)}, got {self.softmax!r}")

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def names(self) -> tuple[str, ...]:
        """The blocks by name, as saved attention is kept under."""
        return tuple(self.name(b) for b in self.indices)

    @staticmethod
    def name(block: int) -> str:
        """The name of a block."""
        return f"block.{block}"

    def block_at(self, number: int) -> int | None:
        """The block of this selection that makes attention call `number`, if one does."""
        return next((b for b in self.indices if self.calls.numbers[b] == number), None)


def guided_blocks(text: str, calls: TextCalls, mask: bool = False) -> Blocks:
    """The blocks that `layers` of LMD Options means: "auto" or numbers, and "joint" for the softmax over all keys.

    With `mask`, the block that masks are read from comes first.
    """
    words = text.replace(",", " , ").split()
    softmax = "joint" if "joint" in map(str.lower, words) else "text"
    count = len(calls.numbers)
    blocks = resolve_blocks(" ".join(w for w in words if w.lower() != "joint"), count)
    return Blocks(calls, tuple(dict.fromkeys([*([mask_block(count)] if mask else []), *blocks])), softmax)


def text_probabilities(blocks: Blocks, q: Tensor, k: Tensor, call: dict, columns: Sequence[int]) -> Tensor:
    """Attention [B, H, S, P] of the image's rows to rows `columns` of the conditioning, in float32, scaled to HEADS.

    `q` and `k` [B, H, rows, D]; `call` holds what else the attention call was given. The softmax is over the text
    rows, which compares with a U-Net's cross-attention, or over all keys ("joint").
    """
    calls, joint = blocks.calls, blocks.softmax == "joint"
    if (q.shape[2], k.shape[2]) != calls.lengths:
        raise UnsupportedModel(
            f"an attention call has {q.shape[2]} and {k.shape[2]} rows where it had {calls.lengths[0]} and "
            f"{calls.lengths[1]}: another node changes the sequence while sampling. Take it out of the graph"
        )
    q, rows = q[:, :, list(calls.image)].float(), list(calls.text)
    keys = (k if joint else k[:, :, rows]).float()
    if keys.shape[1] != q.shape[1]:
        keys = keys.repeat_interleave(q.shape[1] // keys.shape[1], 1)
    scores = q @ keys.transpose(-1, -2) * call.get("scale", q.shape[-1] ** -0.5)
    if call.get("mask") is not None:
        scores = scores + _added(call["mask"], calls, scores, joint)
    wanted = [rows[c] for c in columns] if joint else list(columns)
    return scores.softmax(-1)[..., wanted] * (HEADS / q.shape[1])


def _added(mask: Tensor, calls: TextCalls, scores: Tensor, joint: bool) -> Tensor:
    """An attention mask of a call as something to add to the scores of image rows and the chosen keys."""
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, -math.inf)
    while mask.ndim < 4:
        mask = mask.unsqueeze(1) if mask.ndim == 3 else mask.unsqueeze(0)
    if mask.shape[-2] > 1:
        mask = mask[..., list(calls.image), :]
    return mask if joint else mask[..., list(calls.text)]


class TextCapture:
    """Collects the chosen token columns of some blocks in one forward pass with gradients, then ends it.

    `columns` index the conditioning's rows.
    """

    def __init__(self, blocks: Blocks, columns: Sequence[int]):
        self.blocks, self.columns = blocks, list(columns)
        self.maps: dict[Any, AttentionMap] = {}
        self.number = -1

    def override(self, function: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, *args, **kwargs) -> Tensor:
        """The attention call's result; reads the maps of the chosen calls. LayersDone once all are read."""
        self.number += 1
        block = self.blocks.block_at(self.number)
        if block is not None:
            self._read(block, q, k, heads, {"mask": args[0] if args else None, **kwargs})
            if len(self.maps) == len(self.blocks):
                raise LayersDone
        return differentiable(function, q, k, v, heads, *args, **kwargs)

    def _read(self, block: int, q: Tensor, k: Tensor, heads: int, call: dict) -> None:
        q, k = (by_heads(x, heads, bool(call.get("skip_reshape"))) for x in (q, k))
        probs = text_probabilities(self.blocks, q, k, call, self.columns)
        self.maps[block] = AttentionMap(probs, self.blocks.calls.height, self.blocks.calls.width)
