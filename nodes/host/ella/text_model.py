"""Gemma 3, T5Gemma and Jina CLIP v2 on the host's own classes, as the text encoders of LLM adapters.

Ids go through the host's CLIP object, so memory management, offloading and dtypes are its own. Nothing is padded: the
models and adapters give the same without padding.
"""

from __future__ import annotations

import json
import logging
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import comfy.ops
import comfy.sd
import comfy.utils
import torch
from comfy import sd1_clip
from comfy.text_encoders import jina_clip_2, llama, sa3

from ....ella.adapter_checkpoint import differences, text_model_config, text_model_state
from .. import model_files
from . import files
from .tokenizers import load_tokenizer, padding_side

log = logging.getLogger(__name__)

KEY = "llm_adapter_text"
SYSTEM = (  # as the adapters were trained, with its grammar
    "You are expert in understanding of user prompts for image generations. Create an image according to the prompt "
    "from user."
)
REMEMBERED_TEXTS = 32
_QUANTIZATION_KEYS = (".weight_scale", ".input_scale", ".comfy_quant")
_EIGHT_BITS = (torch.float8_e4m3fn, torch.float8_e5m2)
REMEDY = f"Put {files.TEXT_MODEL} into models/text_encoders, and choose it in LLMAdapterTextEncoderLoader."


class Gemma3(llama.BaseLlama, torch.nn.Module):
    """The host's Gemma 3 of any size, without its output head."""

    def __init__(self, config_dict, dtype, device, operations):
        super().__init__()
        config = llama.Gemma3_4B_Config(
            **{k: v for k, v in config_dict.items() if k in llama.Gemma3_4B_Config.__dataclass_fields__}
        )
        config.head_dim = config_dict["head_dim"]
        config.rope_scale = [config_dict["rope_scale"], 1.0]
        config.sliding_attention = [config_dict["sliding_window"]] * 5 + [False]
        self.num_layers, self.dtype = config.num_hidden_layers, dtype
        self.model = llama.Llama2_(config, device=device, dtype=dtype, ops=operations)


class T5Gemma(sa3.T5GemmaModel):
    """The host's T5Gemma encoder, whose own class knows one size only."""

    def __init__(self, config_dict, dtype, device, operations):
        torch.nn.Module.__init__(self)
        config = sa3.T5GemmaEncoderConfig()
        for name, value in config_dict.items():
            setattr(config, name, value)
        config.layer_types = [
            "sliding_attention" if i % 2 == 0 else "full_attention" for i in range(config.num_hidden_layers)
        ]
        self.num_layers, self.dtype = config.num_hidden_layers, dtype
        self.model = sa3.T5GemmaBody(config, device, dtype, operations)


_CLASSES: dict[str, Any] = {"gemma3": Gemma3, "t5gemma": T5Gemma, "jina": jina_clip_2.XLMRobertaModel}
_SPECIAL_IDS = {"gemma3": {"start": 2, "pad": 0}, "t5gemma": {"start": 2, "pad": 0}, "jina": {"start": 0, "pad": 1}}


@dataclass(frozen=True)
class Prompt:
    """The ids of a text, how many of their rows, at the front, are not the adapter's, and how many ids end every text."""

    ids: list[int]
    skipped: int = 0
    ending: int = 0

    def cut(self, limit: int) -> list[int]:
        """Ids that give at most `limit` rows; those that end every text stay."""
        whole = self.skipped + limit
        if len(self.ids) <= whole:
            return self.ids
        kept = min(self.ending, limit)
        return self.ids[: whole - kept] + self.ids[len(self.ids) - kept :]


class TextModel:
    """A text encoder under the host's memory management; remembers the features of the latest texts."""

    def __init__(
        self,
        clip: comfy.sd.CLIP,
        family: str,
        width: int,
        tokenize: Callable[[str], list[int]],
        name: str,
        sizes: dict[str, Any] | None = None,
        pads_left: bool = False,
    ):
        self.clip, self.family, self.width, self.tokenize, self.name = clip, family, width, tokenize, name
        self.sizes = sizes or {}  # under the names of a config.json
        self.pads_left = pads_left  # as the adapter was trained: a text stands at the last positions, not the first
        self._features: OrderedDict[tuple[str, int, str, int], torch.Tensor] = OrderedDict()

    @property
    def patcher(self):
        """For the host, which tracks models by this name."""
        return self.clip.patcher

    def prompt(self, text: str, system: str | None = None) -> Prompt:
        """Ids as the adapters' authors make them; Gemma reads the text in its chat template, whose start is counted."""
        if self.family == "jina":
            start, end = self.tokenize("<s>"), self.tokenize("</s>")
            return Prompt([*start, *self.tokenize(text), *end], ending=len(end))
        if self.family == "t5gemma":
            return Prompt(self.tokenize(text + "<eos>"))
        start = f"<bos><start_of_turn>user\n{SYSTEM if system is None else system}\n\n"
        ids = self.tokenize(f"{start}{text.strip()}<end_of_turn>\n<start_of_turn>model\n")
        before = self.tokenize(start)
        same = (i for i, (a, b) in enumerate(zip(ids, before)) if a != b)
        return Prompt(ids, next(same, len(before)))

    def features(self, text: str, limit: int, system: str | None = None, rows: int = 0) -> torch.Tensor:
        """Features (1, L, width), float32, L at most `limit`; what is cut off is told in the log.

        Up to `rows` rows, those of pads follow, which read the text but are not read themselves.
        The result is shared between calls: do not write into it.
        """
        prompt = self.prompt(text, system)
        key = (text, limit, SYSTEM if system is None else system, rows)
        lost = len(prompt.ids) - prompt.skipped - limit
        if lost > 0:
            log.warning(
                "LLM adapter: the text has %d tokens, the adapter reads %d; %d at its end are not used.",
                lost + limit, limit, lost,
            )  # fmt: skip
        if key not in self._features:
            ids = prompt.cut(limit)
            ids = ids + [_SPECIAL_IDS[self.family]["pad"]] * (prompt.skipped + rows - len(ids))
            encoded = cast(torch.Tensor, self.clip.encode_from_tokens({KEY: [[(i, 1.0) for i in ids]]}))
            self._features[key] = encoded[:, prompt.skipped :].clone()
            while len(self._features) > REMEMBERED_TEXTS:
                self._features.popitem(last=False)
        self._features.move_to_end(key)
        return self._features[key]


def load_text_model(name: str) -> TextModel:
    """Load Gemma 3, T5Gemma or Jina CLIP v2 from a folder or a single file, with its tokenizer.

    Raises:
        FileNotFoundError: nothing of that name; the message lists the searched folders.
        ValueError: the file holds something else, or there is no tokenizer for it.
    """
    paths = files.text_model_files(name)
    whole, metadata = {}, {}
    for path in paths:
        part, meta = model_files.load(path, REMEDY)
        whole.update(part)
        metadata.update(meta)
    embedded = whole.pop("spiece_model", None)
    try:
        whole, _ = comfy.utils.convert_old_quants(whole, "", metadata)
        given = _given_config(paths[0], metadata)
        family, state = text_model_state(whole, given)
        config = text_model_config(family, state, given)
        with torch.device("meta"):
            model = _CLASSES[family](config, torch.float32, "meta", comfy.ops.disable_weight_init)
        weights = {k: v for k, v in state.items() if not k.endswith(_QUANTIZATION_KEYS)}
        complaints = differences(weights, {k: v.shape for k, v in model.state_dict().items()})
        if complaints:
            raise ValueError(f"This text encoder is not whole, or stored in a way unknown here: {complaints}. {REMEDY}")
    except ValueError as error:
        raise ValueError(f"{paths[0]}: {error}") from None
    quantized = comfy.utils.detect_layer_quantization(state, "") is not None
    model_files.check_numbers(paths[0], state, () if quantized else weights, REMEDY)
    folder = os.path.dirname(paths[0])
    tokenize = load_tokenizer(folder, embedded, family, config["vocab_size"])
    pads_left = family == "t5gemma" and embedded is None and padding_side(folder) == "left"
    return build_text_model(family, config, state, tokenize, name, pads_left)


def _given_config(path: str, metadata: dict[str, str]) -> dict[str, Any]:
    """What a config.json beside a folder's weights, or the metadata of the file, says about the text encoder."""
    beside = os.path.join(os.path.dirname(path), "config.json")
    text = metadata.get("config", "{}")
    if os.path.isfile(beside):
        with open(beside, encoding="utf-8") as file:
            text = file.read()
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{beside} is damaged ({error}). Get it again.") from None
    for part in ("encoder", "text_config"):
        if isinstance(found, dict) and isinstance(found.get(part), dict):
            found = found[part]
    return found if isinstance(found, dict) else {}


def build_text_model(
    family: str,
    config: dict[str, Any],
    state: dict[str, torch.Tensor],
    tokenize: Callable,
    name: str,
    pads_left: bool = False,
) -> TextModel:
    """The text encoder with these weights, all of which are there; `name` is for messages."""
    stored, quantization = _storage_dtype(state), comfy.utils.detect_layer_quantization(state, "")
    if quantization is None:
        state = {k: v.to(stored) for k, v in state.items()}

    quantized = {} if quantization is None else {"quantization_metadata": quantization}

    class Model(sd1_clip.SDClipModel):
        def __init__(self, device="cpu", dtype=None, model_options=None):
            super().__init__(
                device=device,
                dtype=dtype,
                layer="last",
                textmodel_json_config=dict(config),
                special_tokens=_SPECIAL_IDS[family],
                layer_norm_hidden_state=False,
                model_class=_CLASSES[family],
                enable_attention_masks=True,
                return_attention_masks=True,
                model_options={**(model_options or {}), **quantized},
            )

    class Encoder(sd1_clip.SD1ClipModel):
        def __init__(self, device="cpu", dtype=None, model_options=None):
            super().__init__(
                device=device, dtype=dtype, model_options=model_options or {}, name=KEY, clip_model=cast(Any, Model)
            )

    class NoTokenizer:
        """Ids come from `tokenize`; the host's object wants a class all the same."""

        def __init__(self, **_: Any):
            pass

    class Target:
        params: dict = {}
        clip = Encoder
        tokenizer = NoTokenizer

    clip = comfy.sd.CLIP(
        Target, parameters=comfy.utils.calculate_parameters(state), state_dict=[state], model_options={"dtype": stored}
    )
    return TextModel(clip, family, config["hidden_size"], tokenize, name, config, pads_left)


def _storage_dtype(state: dict[str, torch.Tensor]) -> torch.dtype:
    """As the file has its embeddings; for those in 8-bit floats, which the host's norms can't add, as it has its norms."""
    embedding = next(k for k in state if k.endswith(("embed_tokens.weight", "word_embeddings.weight")))
    finer = (
        v.dtype for k, v in state.items() if k.endswith(("norm.weight", "_ln.weight")) and v.dtype not in _EIGHT_BITS
    )
    dtype = state[embedding].dtype
    return next(finer, torch.bfloat16) if dtype in _EIGHT_BITS else dtype
