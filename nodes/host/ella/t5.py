"""FLAN-T5's encoder on the host's own T5: its layers, memory management, tokenizer and prompt weights.

ELLA was trained on the features of a T5 in half precision, whose residual stream overflows and is clamped: that clamp
is part of what the connector knows. The host's T5 computes in float32 without it, so both are added here. Where half
precision is slow or missing (CPUs), the clamp alone is applied to float32 numbers.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, cast

import comfy.model_management
import comfy.ops
import comfy.sd
import comfy.text_encoders
import comfy.utils
import torch
from comfy import sd1_clip
from comfy.text_encoders.t5 import T5, T5LayerNorm
from transformers import T5TokenizerFast  # pyright: ignore[reportAttributeAccessIssue] (found when asked for)

from ....ella.checkpoint import T5Config, t5_config, t5_encoder_state
from .. import model_files
from ..choices import one_of
from . import files

log = logging.getLogger(__name__)

KEY = "flan_t5"
PRECISIONS = ("as trained", "float32")
END, PAD = 1, 0
TRAINED_LENGTH = 128
REMEMBERED_TEXTS = 32
REMEDY = (
    "Put the encoder of FLAN-T5-XL into models/ella_encoder or models/text_encoders (download it again if it is "
    "there), and choose it in ELLATextEncoderLoader."
)

HALF_MAX = 65504.0
HALF_CLAMP_AFTER_INF = 64512.0  # 65504 - 1000, rounded to half precision
HALF_ROUNDS_TO_INF = 65520.0


def _saturate(x: torch.Tensor) -> torch.Tensor:
    """The reference clamp: to the largest half, or a little below it once anything has overflowed."""
    overflow = torch.isinf(x) if x.dtype == torch.float16 else x.abs() >= HALF_ROUNDS_TO_INF
    limit = torch.where(overflow.any(), HALF_CLAMP_AFTER_INF, HALF_MAX).to(x.dtype)
    return torch.clamp(x, min=-limit, max=limit)


def _saturate_output(_module, _args, output):
    if isinstance(output, tuple):  # self-attention also returns the position bias
        return (_saturate(output[0]), *output[1:])
    return _saturate(output)


class HalfSafeNorm(T5LayerNorm):
    """Squares of large halves overflow, so the mean square is taken in float32, as in the reference."""

    def forward(self, x):
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return comfy.ops.cast_to_input(self.weight, x) * wide.to(x.dtype)


class EllaT5(T5):
    """The host's T5; with `as_trained` in its configuration it computes like a half-precision T5 that clamps."""

    def __init__(self, config_dict, dtype, device, operations):
        super().__init__(config_dict, dtype, device, operations)
        self.as_trained = config_dict["as_trained"]
        if not self.as_trained:
            return
        for parent in list(self.modules()):
            for name, child in parent.named_children():
                if type(child) is T5LayerNorm:
                    norm = HalfSafeNorm(
                        child.weight.shape[0], child.variance_epsilon, dtype=dtype, device=device, operations=operations
                    )
                    setattr(parent, name, norm)
        for block in cast(Iterable[Any], self.encoder.block):
            for layer in block.layer:
                layer.register_forward_hook(_saturate_output)

    def forward(self, input_ids, attention_mask, embeds=None, **kwargs):
        if embeds is None:
            embeds = self.shared(input_ids, out_dtype=torch.float32)
        half = self.as_trained and comfy.model_management.should_use_fp16(embeds.device)
        kwargs.pop("dtype", None)
        return super().forward(
            None, attention_mask, embeds=embeds.to(torch.float16 if half else torch.float32), **kwargs
        )


def _model_class(config: T5Config, as_trained: bool, quantization):
    class FlanT5(sd1_clip.SDClipModel):
        def __init__(self, device="cpu", dtype=None, model_options=None):
            options = dict(model_options or {})
            if quantization is not None:
                options["quantization_metadata"] = quantization
            super().__init__(
                device=device,
                dtype=dtype,
                textmodel_json_config={**config.as_dict(), "as_trained": as_trained},
                special_tokens={"end": END, "pad": PAD},
                model_class=cast(Any, EllaT5),  # the host's annotation is its default
                enable_attention_masks=True,
                return_attention_masks=True,
                model_options=options,
            )

    class FlanT5Encoder(sd1_clip.SD1ClipModel):
        def __init__(self, device="cpu", dtype=None, model_options=None):
            super().__init__(
                device=device, dtype=dtype, model_options=model_options or {}, name=KEY, clip_model=cast(Any, FlanT5)
            )

    return FlanT5Encoder


def tokenizer_class(width: int):
    """The host's T5 tokenizer (its ids are FLAN-T5's) with end token, without padding."""
    folder = os.path.join(os.path.dirname(comfy.text_encoders.__path__[0]), "text_encoders", "t5_tokenizer")

    class FlanT5Tokenizer(sd1_clip.SDTokenizer):
        def __init__(self, embedding_directory=None, tokenizer_data=None):
            super().__init__(
                folder,
                embedding_directory=embedding_directory,
                embedding_size=width,
                embedding_key=KEY,
                tokenizer_class=T5TokenizerFast,
                pad_with_end=False,
                has_start_token=False,
                pad_to_max_length=False,
                max_length=99999999,
                min_length=1,
                tokenizer_data=tokenizer_data or {},
            )

    class Tokenizer(sd1_clip.SD1Tokenizer):
        def __init__(self, embedding_directory=None, tokenizer_data=None):
            super().__init__(embedding_directory, tokenizer_data or {}, name=KEY, tokenizer=FlanT5Tokenizer)

    return Tokenizer


class EllaTextEncoder:
    """A FLAN-T5 encoder under the host's memory management; remembers the features of the latest texts."""

    def __init__(self, clip: comfy.sd.CLIP, config: T5Config, name: str, default_length: int = 0):
        self.clip, self.config, self.name = clip, config, name
        self.default_length = default_length  # for nodes without a length of their own
        self._features: OrderedDict[tuple[str, int], torch.Tensor] = OrderedDict()

    @property
    def patcher(self):
        """For the host, which tracks models by this name."""
        return self.clip.patcher

    def tokens(self, text: str, length: int = 0) -> list[tuple[int, float]]:
        """(id, weight) pairs ending with the end token; `length` > 0 pads or cuts to it, with a warning about a cut."""
        (pairs,) = self.clip.tokenize(text)[KEY]
        pairs = list(pairs)
        if 0 < length < len(pairs):
            lost = self.clip.tokenizer.decode([i for i, _ in pairs[length - 1 : -1]]).strip()
            log.warning(
                "ELLA: the text has %d tokens, %d more than the fixed length of %d; this part is not used: '%s'. "
                "Choose the length 'flexible' to use all of it.",
                len(pairs), len(pairs) - length, length, lost,
            )  # fmt: skip
            pairs = [*pairs[: length - 1], pairs[-1]]
        pairs += [(PAD, 1.0)] * (length - len(pairs))
        largest = max(i for i, _ in pairs if isinstance(i, int))
        if largest >= self.config.vocab_size:
            raise ValueError(
                f"The text encoder '{self.name}' knows {self.config.vocab_size} tokens, but the text has token "
                f"{largest}: it is not a FLAN-T5. Choose FLAN-T5-XL's encoder in ELLATextEncoderLoader."
            )
        return pairs

    def features(self, text: str, length: int = 0) -> torch.Tensor:
        """Features (1, L, d_model), float32: L is the number of tokens, or `length` when that is not 0.

        The result is shared between calls: do not write into it.
        """
        key = (text, length)
        if key not in self._features:
            tokens = {KEY: [self.tokens(text, length)]}
            self._features[key] = cast(torch.Tensor, self.clip.encode_from_tokens(tokens))
            while len(self._features) > REMEMBERED_TEXTS:
                self._features.popitem(last=False)
        self._features.move_to_end(key)
        return self._features[key]


def load_text_encoder(name: str, precision: str = PRECISIONS[0], default_length: int = 0) -> EllaTextEncoder:
    """Load a T5 encoder from a folder or a single file.

    Raises:
        FileNotFoundError: nothing of that name; the message lists the searched folders.
        ValueError: the file holds something else; the message says what it seems to be.
    """
    one_of(precision, PRECISIONS, "precision", "ELLATextEncoderLoader")
    whole, metadata = {}, {}
    paths = files.encoder_files(name)
    for path in paths:
        part, meta = model_files.load(path, REMEDY)
        whole.update(part)
        metadata.update(meta)
    state = t5_encoder_state(whole)
    if not state:
        raise model_files.wrong_kind(paths[0], whole, "a T5 text encoder", REMEDY)
    try:
        state, _ = comfy.utils.convert_old_quants(state, "", metadata)
        config = t5_config(state)
        quantized = comfy.utils.detect_layer_quantization(state, "") is not None
        wanted = _whole_encoder(state, config, name)
    except ValueError as error:
        raise ValueError(f"{paths[0]}: {error}") from None
    model_files.check_numbers(paths[0], state, () if quantized else wanted, REMEDY)
    return build_text_encoder(state, config, name, precision == PRECISIONS[0], default_length)


def _whole_encoder(state: dict[str, torch.Tensor], config: T5Config, name: str) -> list[str]:
    """The keys of an encoder of these sizes; ValueError when some are missing, superfluous or of another shape."""
    wanted = T5(config.as_dict(), torch.float16, "meta", comfy.ops.disable_weight_init).state_dict()
    missing = [k for k in wanted if k not in state]
    unexpected = [k for k in state if k not in wanted and not k.endswith(_QUANTIZATION_KEYS)]
    if missing or unexpected:
        raise ValueError(
            f"'{name}' is not a whole T5 encoder: missing {missing[:3]}, not understood {unexpected[:3]}. {REMEDY}"
        )
    misfits = [k for k in wanted if state[k].shape != wanted[k].shape]
    if misfits:
        key = misfits[0]
        raise ValueError(
            f"'{name}' is damaged: '{key}' has the shape {tuple(state[key].shape)} instead of "
            f"{tuple(wanted[key].shape)}. {REMEDY}"
        )
    return list(wanted)


def build_text_encoder(
    state: dict[str, torch.Tensor], config: T5Config, name: str, as_trained: bool, default_length: int = 0
) -> EllaTextEncoder:
    """The encoder with these weights, all of which are there; `name` is for messages."""
    quantization = comfy.utils.detect_layer_quantization(state, "")
    dtype = _storage_dtype(state, as_trained, quantization is not None)
    if quantization is None:
        state = {k: v.to(dtype) for k, v in state.items()}

    class Target:
        params: dict = {}
        clip = _model_class(config, as_trained, quantization)
        tokenizer = tokenizer_class(config.d_model)

    clip = comfy.sd.CLIP(
        Target, parameters=comfy.utils.calculate_parameters(state), state_dict=[state], model_options={"dtype": dtype}
    )
    return EllaTextEncoder(clip, config, name, default_length)


_QUANTIZATION_KEYS = (".weight_scale", ".input_scale", ".comfy_quant")


def _storage_dtype(state: dict[str, torch.Tensor], as_trained: bool, quantized: bool) -> torch.dtype:
    """How the weights are kept: all of them as the file has its norms, except that training had them in half.

    A file that is fp8 throughout stays fp8; one with fp8 matrices and finer norms is kept in half, so that its norms
    lose nothing. Scaled fp8 layers know their own storage; for those this is what the rest is kept in.
    """
    stored = state["encoder.final_layer_norm.weight"].dtype
    if quantized or stored in (torch.float8_e4m3fn, torch.float8_e5m2):
        return stored
    return torch.float16 if as_trained else stored
