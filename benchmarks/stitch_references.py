"""What the stitch benchmarks time: models at their true shapes, the plain loop, ours with one lever more at a time.

The plain loop is what a tutorial writes: the encoder runs on every sample, one question is one sample, the language
model computes logits everywhere, and evaluation calls `generate` on one sample at a time.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from stitch_timing import CPU, Step
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    IJepaConfig,
    IJepaModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    ViTConfig,
    ViTModel,
)

from sutura.stitch.generate import generate
from sutura.stitch.model import StitchModel
from sutura.stitch.pack import Row, pack, split_turns
from sutura.stitch.projector import ProjectorConfig, build_projector
from sutura.stitch.prompt import Turn
from sutura.train.stitching import StitchBatch, stitch_loss


@dataclass(frozen=True)
class Shape:
    """Sizes of one situation: a language model, an encoder of one of three kinds, and the questions."""

    llm: dict[str, Any]
    vit: dict[str, Any]
    turns: tuple[int, ...] = (4, 6, 6)
    question: int = 19
    answer: int = 2
    tokens: int | None = None
    batch: int = 16
    kind: str = "vit"

    @property
    def patches(self) -> int:
        """Patches of a picture, as the encoder cuts it."""
        return (self.vit["image_size"] // self.vit["patch_size"]) ** 2

    @property
    def per_picture(self) -> float:
        """Answers a picture."""
        return statistics.mean(self.turns)


def _llm(vocabulary: int, width: int, inner: int, depth: int, heads: int, kv: int) -> dict[str, Any]:
    return dict(vocab_size=vocabulary, hidden_size=width, intermediate_size=inner, num_hidden_layers=depth,
                num_attention_heads=heads, num_key_value_heads=kv)  # fmt: skip


def _vit(width: int, depth: int, heads: int, inner: int, image: int, patch: int) -> dict[str, Any]:
    return dict(hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, intermediate_size=inner,
                image_size=image, patch_size=patch)  # fmt: skip


LANGUAGES = {
    "0.5b": _llm(151936, 896, 4864, 24, 14, 2),
    "1.5b": _llm(151936, 1536, 8960, 28, 12, 2),
}
"""Qwen2.5's shapes."""
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit-b16": ("vit", _vit(768, 12, 12, 3072, 224, 16)),
    "clip-l14": ("clip", _vit(1024, 24, 16, 4096, 224, 14)),
    "vit-l16": ("vit", _vit(1024, 24, 16, 4096, 224, 16)),
    "ijepa-h14": ("ijepa", _vit(1280, 32, 16, 5120, 224, 14)),
}
SHAPES = {
    "tiny": Shape(llm=_llm(441, 128, 384, 4, 4, 4), vit=_vit(128, 6, 4, 512, 64, 8),
                  turns=(7,), question=13, tokens=16, batch=112),
    "0.5b": Shape(llm=LANGUAGES["0.5b"], vit=ENCODERS["vit-b16"][1]),
}  # fmt: skip
HEAD = 4
"""Template tokens before a question."""


def combination(language: str, encoder: str, *, toy: bool = False) -> Shape:
    """A language model with an encoder; `toy` keeps the kinds and the questions, and shrinks everything else."""
    kind, vit = ENCODERS[encoder]
    llm = LANGUAGES[language]
    if toy:
        llm, vit = _llm(441, 64, 128, 3, 4, 2), _vit(32, 2, 2, 64, 32, 8)
    return Shape(llm=llm, vit=vit, kind=kind)


class Plain(nn.Module):
    """Encoder, projector, language model; every forward pass runs all of it on every sample."""

    def __init__(self, vit: nn.Module, projector: nn.Module, lm: nn.Module, shape: Shape) -> None:
        super().__init__()
        self.vit, self.projector, self.shape = vit, projector, shape
        self.lm: Any = lm

    def patches(self, pixels: Tensor) -> Tensor:
        with torch.no_grad():
            hidden = self.vit(pixels).last_hidden_state
        # I-JEPA has no token before its patches, the others have one: counted, not known by name.
        return pool(hidden[:, hidden.shape[1] - self.shape.patches :], self.shape.tokens)

    def features(self, pixels: Tensor, at_once: int = 16) -> Tensor:
        """Patches of many pictures in main memory, where the feature cache would be read from."""
        return torch.cat([self.patches(part).cpu() for part in pixels.split(at_once)])

    def embeddings(self, pixels: Tensor, ids: Tensor) -> Tensor:
        visual = self.projector(self.patches(pixels).float())
        text = self.lm.get_input_embeddings()(ids)
        return torch.cat([visual.to(text.dtype), text], dim=1)

    def loss(self, pixels: Tensor, ids: Tensor, labels: Tensor) -> Tensor:
        embeddings = self.embeddings(pixels, ids)
        blank = labels.new_full((labels.shape[0], embeddings.shape[1] - labels.shape[1]), -100)
        return self.lm(inputs_embeds=embeddings, labels=torch.cat([blank, labels], dim=1)).loss


def pool(patches: Tensor, tokens: int | None) -> Tensor:
    if tokens is None:
        return patches
    side, wanted = int(patches.shape[1] ** 0.5), int(tokens**0.5)
    grid = patches.transpose(1, 2).unflatten(2, (side, side))
    return nn.functional.adaptive_avg_pool2d(grid, wanted).flatten(2).transpose(1, 2)


def build(shape: Shape, dtype: torch.dtype, device: torch.device = CPU) -> Plain:
    """Random weights drawn on the device: frozen ones in `dtype`, those that train in float32."""
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with device:
            config = Qwen2Config(**shape.llm, tie_word_embeddings=True, max_position_embeddings=2048)
            lm: Any = Qwen2ForCausalLM(config)
            if shape.kind == "clip":
                vit: nn.Module = CLIPVisionModel(CLIPVisionConfig(**shape.vit))
            elif shape.kind == "ijepa":
                vit = IJepaModel(IJepaConfig(**shape.vit), add_pooling_layer=False)
            else:
                vit = ViTModel(ViTConfig(**shape.vit), add_pooling_layer=False)
    finally:
        torch.set_default_dtype(torch.float32)
    vit.eval().requires_grad_(False)
    lm.generation_config.eos_token_id = lm.generation_config.pad_token_id = None
    lm = get_peft_model(
        lm, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules=["q_proj", "v_proj"])
    )
    projector = build_projector(ProjectorConfig(), shape.vit["hidden_size"], shape.llm["hidden_size"], seed=0)
    return Plain(vit, projector, lm, shape).to(device)


class FixedPrompt:
    """Turns of a fixed length; stands in for the prompt builder, whose text plays no part here."""

    head_ids = tuple(range(HEAD))
    vocabulary = 10**9
    stop_ids = frozenset({0})

    @staticmethod
    def decode(ids: list[int]) -> str:
        return " ".join(map(str, ids))


class HardlyStops(FixedPrompt):
    """So that both sides decode the same number of tokens: one id of the vocabulary ends an answer, by chance only."""

    def __init__(self, vocabulary: int) -> None:
        self.stop_ids = frozenset({vocabulary - 1})


def make_rows(shape: Shape, generator: torch.Generator) -> list[Row]:
    rows, answers = [], 0
    while answers < shape.batch:
        count = shape.turns[len(rows) % len(shape.turns)]
        turns = []
        for i in range(count):
            ids = torch.randint(
                10, shape.llm["vocab_size"], (shape.question + shape.answer,), generator=generator
            )
            asked = (*FixedPrompt.head_ids, *ids[: shape.question].tolist())
            turns.append(Turn(f"{len(rows)}/{i}", asked, tuple(ids[shape.question :].tolist())))
        rows.append(Row(len(rows), tuple(turns)))
        answers += count
    return rows


def first(rows: Sequence[Row], answers: int) -> list[Row]:
    """Rows from the beginning until they hold so many answers."""
    kept: list[Row] = []
    while sum(len(row.turns) for row in kept) < answers and len(kept) < len(rows):
        kept.append(rows[len(kept)])
    return kept


def cut(rows: Sequence[Row], answers: int) -> list[list[Row]]:
    """Rows in passes of about so many answers."""
    parts: list[list[Row]] = []
    left = list(rows)
    while left:
        parts.append(first(left, answers))
        left = left[len(parts[-1]) :]
    return parts


class Training:
    """Optimizer steps over the same pictures: plain, and ours with one lever more at a time.

    Args:
        model: on its device.
        rows: at least as many as the largest batch asked for; the plain step takes the first `shape.batch` answers.
    """

    def __init__(self, model: Plain, rows: Sequence[Row], precision: str) -> None:
        self.model, self.rows, shape = model, list(rows), model.shape
        self.few = first(rows, shape.batch)
        self.weights = [p for p in model.parameters() if p.requires_grad]
        self.device = self.weights[0].device
        self.half = precision == "bfloat16"
        self.optimizer = torch.optim.AdamW(self.weights, lr=1e-4, fused=self.device.type == "cuda")
        self.stitched = StitchModel(model.lm, model.projector)
        size, kind = shape.vit["image_size"], next(model.vit.parameters()).dtype
        self.pixels = torch.rand(len(rows), 3, size, size, device=self.device).to(kind)
        self.cached = model.features(self.pixels)
        self.separate = [one for row in self.few for one in split_turns(row, "separate")]
        samples = [one.turns[0] for one in self.separate]
        self.ids = torch.tensor([[*t.prompt_ids, *t.answer_ids] for t in samples], device=self.device)
        asked = len(samples[0].prompt_ids)
        self.labels = self.ids.clone()
        self.labels[:, :asked] = -100
        self.owner = torch.tensor([one.picture for one in self.separate], device=self.device)

    def _autocast(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16) if self.half else nullcontext()

    def plain(self) -> float | Tensor:
        """Loss of the plain loop, its gradients added up: four samples at a time."""
        total: float | Tensor = 0.0
        for part in torch.arange(len(self.ids), device=self.device).split(4):
            with self._autocast():
                loss = self.model.loss(self.pixels[self.owner[part]], self.ids[part], self.labels[part])
                loss = loss * len(part) / len(self.ids)
            loss.backward()
            total = total + loss.detach()
        return total

    def ours(self, parts: Sequence[Sequence[Row]], live: bool) -> float | Tensor:
        """The same from `stitch_loss`, a forward and backward pass a part."""
        total: float | Tensor = 0.0
        tokens = sum(len(turn.answer_ids) for part in parts for row in part for turn in row.turns)
        for part in parts:
            order = [row.picture for row in part]
            packed = pack(
                [replace(row, picture=i) for i, row in enumerate(part)],
                head_ids=FixedPrompt.head_ids,
                pad_id=0,
            )
            with self._autocast():
                patches = self.model.patches(self.pixels[order]) if live else self.cached[order]
                loss, _ = stitch_loss(self.stitched, StitchBatch(packed, tokens, patches), 0)
            loss.backward()
            total = total + loss.detach()
        return total

    def step(self, gradients: Callable[[], Any], answers: int) -> Step:
        """An optimizer step around the gradients."""

        def whole() -> int:
            self.model.lm.train()
            gradients()
            torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            return answers

        return whole

    def steps(self, larger: Sequence[tuple[int, int]] = ()) -> dict[str, Step]:
        """Name → step.

        Args:
            larger: further steps, as (answers a step, answers a pass).
        """
        count = len(self.separate)
        fours = [self.separate[i : i + 4] for i in range(0, count, 4)]
        found = {
            "plain loop": self.step(self.plain, count),
            "+ head on answers only": self.step(lambda: self.ours(fours, live=True), count),
            "+ cached features": self.step(lambda: self.ours(fours, live=False), count),
            "+ shared prefix": self.step(lambda: self.ours([[row] for row in self.few], live=False), count),
            "+ whole batch in one pass": self.step(lambda: self.ours([self.few], live=False), count),
        }
        for answers, at_once in larger:
            parts = cut(first(self.rows, answers), at_once)
            held = sum(len(row.turns) for part in parts for row in part)
            name = f"+ {answers} answers a step, {len(parts)} pass{'es' if len(parts) > 1 else ''}"
            found[name] = self.step(lambda parts=parts: self.ours(parts, live=False), held)
        return found

    def agreement(self) -> dict[str, float]:
        """Whether both sides do the same work: their losses, and the cosine between their gradients, at dropout 0."""
        self.model.eval()
        losses, gradients = [], []
        for run in (self.plain, lambda: self.ours([self.few], live=False)):
            self.optimizer.zero_grad()
            losses.append(float(run()))
            gradients.append(torch.cat([p.grad.flatten() for p in self.weights if p.grad is not None]))
        self.optimizer.zero_grad()
        cosine = torch.nn.functional.cosine_similarity(gradients[0], gradients[1], dim=0)
        return {"plain_loss": losses[0], "our_loss": losses[1], "gradient_cosine": float(cosine)}


def evaluation_steps(
    model: Plain, rows: Sequence[Row], new_tokens: int, *, few: int = 6, batches: Sequence[int] = (128,)
) -> dict[str, Step]:
    """`generate` one sample at a time with a live encoder; ours over cached features.

    Args:
        few: samples that the plain step answers.
        batches: about how many questions ours answers at once.
    """
    shape = model.shape
    size, weight = shape.vit["image_size"], next(model.vit.parameters())
    pixels = torch.rand(len(rows), 3, size, size, device=weight.device).to(weight.dtype)
    cached = model.features(pixels)
    stitched = StitchModel(model.lm, model.projector).eval()

    def plain() -> int:
        model.eval()
        asked = [(row.picture, turn) for row in rows for turn in row.turns][:few]
        for picture, turn in asked:
            with torch.no_grad():
                ids = torch.tensor([turn.prompt_ids], device=weight.device)
                embeddings = model.embeddings(pixels[picture : picture + 1], ids)
                model.lm.generate(
                    inputs_embeds=embeddings,
                    attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.long, device=weight.device),
                    max_new_tokens=new_tokens, min_new_tokens=new_tokens, do_sample=False,
                )  # fmt: skip
        return len(asked)

    prompt: Any = HardlyStops(shape.llm["vocab_size"])

    def ours(batch: int) -> Step:
        many = [
            Row(i, rows[i % len(rows)].turns) for i in range(max(len(rows), int(batch / shape.per_picture)))
        ]
        where = [i % len(rows) for i in range(len(many))]

        def step() -> int:
            model.eval()
            with torch.inference_mode():
                visual = stitched.project(cached[where].to(stitched.device))
            return len(generate(stitched, prompt, many, visual, max_new_tokens=new_tokens))

        return step

    named = {f"shared prefix, cached, {batch} at once": ours(batch) for batch in batches}
    return {"plain, one sample at a time": plain, **named}
