"""Tiny language models with a real tokenizer, an encoder that is none, and slow references to compare with.

Weights are drawn wide on purpose: with the usual 0.02 every token looks like every other, attention is flat,
and a mask that leaks would change nothing that a test could see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sutura.core.runtime import generator, seed_everything
from sutura.data.samples import BytesPicture, PictureTurns, Sample, SetAside, VqaData, make_data
from sutura.stitch.language import LlmConfig, add_adapter
from sutura.stitch.model import StitchModel
from sutura.stitch.pack import Row
from sutura.stitch.projector import ProjectorConfig, build_projector
from sutura.stitch.prompt import PromptBuilder, Turn
from sutura.train.stitching import FeedConfig, StitchFeed, to_rows

SPECIAL = ("<|end|>", "<|user|>", "<|assistant|>", "<|pad|>", "<|eot|>")
CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
    "{% if m.role == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WORDS = (
    "What colour is the large cube? How many spheres are there? Is there a small metal cylinder?",
    "red green blue yellow gray brown purple cyan yes no zero one two three four five",
    "Question: What is left of the thing? Answer: a chair, the table, two lamps and a door.",
    "2021 2021 2021 2021",
)
WIDTH, ENCODER_WIDTH, IMAGE_TOKENS = 16, 12, 4
KINDS = ("qwen2", "qwen3", "llama", "gemma2")


@cache
def tiny_tokenizer(template: str | None = CHAT) -> Any:
    """A byte-level BPE tokenizer that can write any text; `None` leaves out the chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(WORDS * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",
        pad_token="<|pad|>",
        additional_special_tokens=[*SPECIAL[1:3], SPECIAL[4]],
        chat_template=template,
    )


def tiny_lm(kind: str = "qwen2", *, attention: str = "", seed: int = 0, spread: float = 0.3) -> Any:
    """A random two-layer causal language model with grouped heads; gemma2 caps its scores and logits."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = tiny_tokenizer()
    extra: dict[str, Any] = {}
    if kind == "gemma2":
        extra = {
            "query_pre_attn_scalar": 8,
            "final_logit_softcapping": 2.0,
            "attn_logit_softcapping": 4.0,
        }
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=256,
        tie_word_embeddings=kind == "qwen3",
        initializer_range=spread,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **extra,
    )
    seed_everything(seed, "tiny", kind)
    attention = attention or ("eager" if kind == "gemma2" else "sdpa")
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    return model.requires_grad_(False).eval()


def save_language_model(folder: Path, kind: str = "qwen2", *, seed: int = 0) -> str:
    """A folder as transformers writes it; returns its place for `LlmConfig.id`."""
    tiny_lm(kind, seed=seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def tiny_projector(seed: int = 0) -> nn.Module:
    """From ENCODER_WIDTH to WIDTH, wide enough to matter."""
    projector = build_projector(ProjectorConfig(), ENCODER_WIDTH, WIDTH, seed=seed)
    with torch.no_grad():
        for parameter in projector.parameters():
            parameter.mul_(2.0)
    return projector


def tiny_patches(pictures: int, *, seed: int = 0, tokens: int = IMAGE_TOKENS) -> Tensor:
    """What an encoder might say of pictures."""
    return torch.randn(pictures, tokens, ENCODER_WIDTH, generator=generator(seed, "patches"))


def awaken(model: nn.Module) -> nn.Module:
    """Draw every LoRA matrix B, which begins as zero and would hide the gradient of A."""
    draw = generator(7, "awaken")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.3, generator=draw)
    return model


class TinyEncoder(nn.Module):
    """Stands where a VisionEncoder would: frozen, with dropout and batch norm that must never wake up."""

    def __init__(self, seed: int = 0, name: str = "tiny") -> None:
        super().__init__()
        seed_everything(seed, "tiny-encoder")
        self.name, self.id, self.width = name, name, ENCODER_WIDTH
        self.patch = nn.Linear(3 * 16, ENCODER_WIDTH)
        self.norm = nn.BatchNorm1d(ENCODER_WIDTH)
        self.dropout = nn.Dropout(0.5)
        self.fingerprint = f"{name}-{seed}"
        self.requires_grad_(False).eval()

    def transform(self, picture: Any) -> Tensor:
        """The top left 8 × 8 pixels."""
        grid = torch.tensor([[picture.getpixel((x, y)) for x in range(8)] for y in range(8)])
        return grid.permute(2, 0, 1).float() / 255

    def forward(self, pixels: Tensor) -> Tensor:
        patches = pixels.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
        return self.dropout(self.norm(self.patch(patches).transpose(1, 2)).transpose(1, 2))

    def facts(self) -> dict[str, Any]:
        """As a VisionEncoder gives them."""
        return {"name": self.name, "id": self.id, "width": self.width, "fingerprint": self.fingerprint}


def tiny_data(
    questions: Sequence[Sequence[tuple[str, str]]] = (
        (("What colour is the cube?", "red"), ("How many spheres are there?", "two")),
        (("Is there a small metal cylinder?", "no"),),
        (
            ("What is left of the thing?", "a chair"),
            ("How many?", "5"),
            ("Is it yellow?", "yes"),
            ("colour?", "gray"),
        ),
    ),
) -> VqaData:
    """Pictures p0, p1, …, each with its questions and answers."""
    pictures = []
    for p, pairs in enumerate(questions):
        image = BytesPicture(b"")
        samples = tuple(
            Sample(image, question, (answer,), f"p{p}", f"p{p}/q{q}", "kind")
            for q, (question, answer) in enumerate(pairs)
        )
        pictures.append(PictureTurns(f"p{p}", image, samples))
    return make_data("tiny", "train", pictures, content=[p.image_id for p in pictures])


def learn_rows(prompt: PromptBuilder, data: VqaData | None = None) -> list[Row]:
    """Rows with answers, one a picture, uneven on purpose."""
    pictures = (data or tiny_data()).pictures
    return [
        Row(i, tuple(prompt.turn(s.item_id, s.question, s.answers[0]) for s in picture.samples))
        for i, picture in enumerate(pictures)
    ]


def naive_logits(lm: Any, ids: Sequence[int], visual: Tensor | None) -> Tensor:
    """Logits behind every text token of one sequence: no mask, no positions, no cache, the whole head."""
    text = lm.get_input_embeddings()(torch.tensor([list(ids)]))
    skipped = 0
    if visual is not None:
        text, skipped = torch.cat([visual[None].to(text.dtype), text], dim=1), len(visual)
    return lm(inputs_embeds=text, use_cache=False).logits[0, skipped:]


def naive_nats(
    model: StitchModel, turn: Turn, visual: Tensor | None, prefix_ids: Sequence[int] = ()
) -> Tensor:
    """Negative log-likelihood of each of an answer's tokens, the turn alone in its sequence."""
    ids = [*prefix_ids, *turn.prompt_ids, *turn.answer_ids]
    logits = naive_logits(model.lm, ids, visual)
    first = len(ids) - len(turn.answer_ids)
    return F.cross_entropy(logits[first - 1 : -1].float(), torch.tensor(turn.answer_ids), reduction="none")


@torch.no_grad()
def naive_answer(
    model: StitchModel, turn: Turn, visual: Tensor | None, stops: frozenset[int], most: int
) -> list[int]:
    """Greedy ids, the whole sequence run again for every token; the stop token is the last."""
    ids: list[int] = []
    while len(ids) < most:
        ids.append(int(naive_logits(model.lm, [*turn.prompt_ids, *ids], visual)[-1].argmax()))
        if ids[-1] in stops:
            break
    return ids


def tiny_stitch(
    *, blind: bool = False, dropout: float = 0.0, encoder: TinyEncoder | None = None
) -> StitchModel:
    lm = awaken(add_adapter(tiny_lm(), LlmConfig(rank=4, dropout=dropout), seed=0))
    return StitchModel(lm, None if blind else tiny_projector(), encoder)


def see(names: Sequence[str]) -> Tensor:
    """What the cache would hold: patches of p0, p1, …"""
    return tiny_patches(40)[[int(name[1:]) for name in names]]


def many_questions(pictures: int = 12) -> VqaData:
    """Pictures with one to four questions."""
    words = ("red", "green", "two", "a chair", "yes", "no")
    return tiny_data(
        [
            [(f"How many {q} in {p}?", words[(p + q) % len(words)]) for q in range(1 + (p * 7) % 4)]
            for p in range(pictures)
        ]
    )


def tiny_feed(
    prompt: PromptBuilder,
    *,
    seed: int = 0,
    patches: Callable[[Sequence[str]], Tensor] | None = see,
    **config: Any,
) -> StitchFeed:
    rows = to_rows(many_questions(), prompt, learn=True, set_aside=SetAside())
    return StitchFeed(rows, FeedConfig(**config), prompt, seed=seed, patches=patches)
