"""Checkpoints with both towers, and text towers alone, small and with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tiny_encoders import MEAN, STD, scramble

VISION = {"image_size": 32, "patch_size": 8, "width": 16, "layers": 2, "head_width": 8}
TEXT = {"context_length": 12, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 2}
WORDS = ("a", "photo", "of", "two", "dogs", "on", "red", "sofa", "small", "cube", "!")


def save_open_clip(folder: Path, seed: int = 0, **extra: Any) -> Any:
    """A whole CLIP in open_clip's folder format; returns open_clip's own model."""
    import open_clip

    vision, text = VISION | extra.pop("vision", {}), TEXT | extra.pop("text", {})
    config = {"embed_dim": 6, "vision_cfg": vision, "text_cfg": text, **extra}
    torch.manual_seed(seed)
    model = scramble(open_clip.model.CLIP(**json.loads(json.dumps(config))).eval(), seed)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    preprocess = {"mean": MEAN, "std": STD, "resize_mode": "squash", "interpolation": "bicubic"}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
    )
    return model


def save_word_tokenizer(folder: Path, first: str = "<bos>", last: str = "<eos>") -> None:
    """A tokenizer of transformers that knows WORDS."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(("<pad>", first, "<unk>", last, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=[(first, 1), (last, 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token=first, eos_token=last, unk_token="<unk>"
    ).save_pretrained(folder)


def save_distilbert(folder: Path, masked_lm: bool = True, **extra: Any) -> Any:
    """A DistilBERT with its tokenizer, with the head it was pretrained by; returns the encoder alone."""
    from transformers import DistilBertConfig, DistilBertForMaskedLM, DistilBertModel

    sizes = {"dim": 8, "hidden_dim": 16, "n_layers": 2, "n_heads": 2, "vocab_size": 20}
    config = DistilBertConfig(**(sizes | extra), max_position_embeddings=16, pad_token_id=0)
    torch.manual_seed(0)
    model = scramble((DistilBertForMaskedLM if masked_lm else DistilBertModel)(config).eval())
    model.save_pretrained(folder)
    save_word_tokenizer(folder)
    return model.distilbert if masked_lm else model
