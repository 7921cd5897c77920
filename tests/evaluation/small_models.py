"""Small random models of the real classes, saved as a user's folders are: nothing is downloaded."""

from __future__ import annotations

import json
from pathlib import Path

import torch


def clip_tokenizer(folder: Path, length: int = 16):
    """A byte-level CLIP tokenizer without merges: every text is spelt."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(c + "</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=length), len(words)


def save(folder: Path, model, processor) -> str:
    torch.manual_seed(0)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


TEXT = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


def owl(folder: Path, kind: str) -> str:
    """OWL-ViT or OWLv2 with 4 x 4 boxes."""
    import transformers as t

    folder.mkdir()
    tokenizer, size = clip_tokenizer(folder)
    text = TEXT | {"vocab_size": size, "bos_token_id": size - 2, "eos_token_id": size - 1, "pad_token_id": 0}
    names = ("OwlViT", "OwlViTImageProcessor") if kind == "owlvit" else ("Owlv2", "Owlv2ImageProcessor")
    config = getattr(t, f"{names[0]}Config")(text_config=text, vision_config=VISION, projection_dim=16)
    images = getattr(t, names[1])(size={"height": 32, "width": 32}, crop_size={"height": 32, "width": 32})
    processor = getattr(t, f"{names[0]}Processor")(images, tokenizer)
    return save(folder, getattr(t, f"{names[0]}ForObjectDetection")(config), processor)


def clip(folder: Path) -> str:
    import transformers as t

    folder.mkdir()
    tokenizer, size = clip_tokenizer(folder, 64)
    text = TEXT | {
        "vocab_size": size,
        "max_position_embeddings": 64,
        "bos_token_id": size - 2,
        "eos_token_id": size - 1,
    }
    model = t.CLIPModel(t.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16))
    images = t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return save(folder, model, t.CLIPProcessor(images, tokenizer))


def mask2former(folder: Path) -> str:
    import transformers as t

    folder.mkdir()
    config = t.Mask2FormerConfig(
        backbone_config=t.SwinConfig(
            image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=2,
            out_features=["stage1", "stage2", "stage3", "stage4"],
        ),
        feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16, dim_feedforward=16,
        encoder_layers=1, decoder_layers=1, num_attention_heads=2, num_queries=8,
        id2label={0: "cup", 1: "dog"}, label2id={"cup": 0, "dog": 1},
    )  # fmt: skip
    processor = t.Mask2FormerImageProcessor(size={"height": 64, "width": 64})
    return save(folder, t.Mask2FormerForUniversalSegmentation(config), processor)


def vlm(folder: Path) -> str:
    """LLaVA: a CLIP tower and a one-layer LLaMA that spells in bytes."""
    import transformers as t
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder.mkdir()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<pad>", "<s>", "</s>", "<image>"]
    own = Tokenizer(models.BPE({w: i for i, w in enumerate([*specials, *alphabet])}, []))
    own.pre_tokenizer, own.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = t.PreTrainedTokenizerFast(
        tokenizer_object=own, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    text = t.LlamaConfig(
        vocab_size=len(alphabet) + 4, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=512, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    config = t.LlavaConfig(
        vision_config=t.CLIPVisionConfig(**VISION), text_config=text, image_token_id=3, image_seq_length=16
    )
    images = t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    template = (
        "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}"
        "{% endif %}{% endfor %}{% endfor %} "
    )
    processor = t.LlavaProcessor(
        images, tokenizer, patch_size=8, vision_feature_select_strategy="default", chat_template=template,
        num_additional_image_tokens=1,
    )  # fmt: skip
    return save(folder, t.LlavaForConditionalGeneration(config), processor)
