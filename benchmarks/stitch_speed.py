"""Answers a second, training and evaluating, against a plain transformers + peft loop in the same run.

The plain loop is what a tutorial writes: the encoder runs on every sample, one question is one sample, the language
model computes logits everywhere, and evaluation calls `generate` on one sample at a time. Ours adds one lever after
another. Weights are random at the true shapes; pictures are random pixels; questions have the lengths and the number
a picture of the data set named (VQAv2: 5.4 questions a picture; the built-in world: 7).

    python benchmarks/stitch_speed.py --size tiny
    python benchmarks/stitch_speed.py --size 0.5b --repeats 3 --precision bfloat16
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2Config, Qwen2ForCausalLM, ViTConfig, ViTModel

from sutura.stitch.generate import generate
from sutura.stitch.model import StitchModel
from sutura.stitch.pack import Row, pack, split_turns
from sutura.stitch.projector import ProjectorConfig, build_projector
from sutura.stitch.prompt import Turn
from sutura.train.stitching import StitchBatch, stitch_loss


@dataclass(frozen=True)
class Shape:
    """Sizes of one situation."""

    llm: dict[str, Any]
    vit: dict[str, Any]
    turns: tuple[int, ...]
    question: int
    answer: int
    tokens: int | None
    batch: int


SHAPES = {
    "tiny": Shape(
        llm=dict(vocab_size=441, hidden_size=128, intermediate_size=384, num_hidden_layers=4,
                 num_attention_heads=4, num_key_value_heads=4),
        vit=dict(hidden_size=128, num_hidden_layers=6, num_attention_heads=4, intermediate_size=512,
                 image_size=64, patch_size=8),
        turns=(7,), question=13, answer=2, tokens=16, batch=112,
    ),
    "0.5b": Shape(
        llm=dict(vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
                 num_attention_heads=14, num_key_value_heads=2),
        vit=dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
                 image_size=224, patch_size=16),
        turns=(4, 6, 6), question=19, answer=2, tokens=None, batch=16,
    ),
}  # fmt: skip
HEAD = 4
"""Template tokens before a question."""


class Plain(nn.Module):
    """Encoder, projector, language model; every forward pass runs all of it on every sample."""

    def __init__(self, vit: nn.Module, projector: nn.Module, lm: nn.Module, tokens: int | None) -> None:
        super().__init__()
        self.vit, self.projector, self.lm, self.tokens = vit, projector, lm, tokens

    def patches(self, pixels: Tensor) -> Tensor:
        with torch.no_grad():
            patches = self.vit(pixels).last_hidden_state[:, 1:]
        return pool(patches, self.tokens)

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


def build(shape: Shape, dtype: torch.dtype) -> Plain:
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    lm: Any = Qwen2ForCausalLM(
        Qwen2Config(**shape.llm, tie_word_embeddings=True, max_position_embeddings=2048)
    )
    vit = ViTModel(ViTConfig(**shape.vit), add_pooling_layer=False).eval().requires_grad_(False)
    torch.set_default_dtype(torch.float32)
    lm.generation_config.eos_token_id = lm.generation_config.pad_token_id = None
    lm = get_peft_model(
        lm, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules=["q_proj", "v_proj"])
    )
    projector = build_projector(ProjectorConfig(), shape.vit["hidden_size"], shape.llm["hidden_size"], seed=0)
    return Plain(vit, projector, lm, shape.tokens)


class FixedPrompt:
    """Turns of a fixed length; stands in for the prompt builder, whose text plays no part here."""

    head_ids = tuple(range(HEAD))
    stop_ids = frozenset({0})

    @staticmethod
    def decode(ids: list[int]) -> str:
        return " ".join(map(str, ids))


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


def memory() -> float:
    """Peak of this process, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def timed(step: Callable[[], int], repeats: int) -> float:
    """Median answers a second, after one step that is not counted."""
    step()
    rates = []
    for _ in range(repeats):
        began = time.perf_counter()
        answers = step()
        rates.append(answers / (time.perf_counter() - began))
    gc.collect()
    return statistics.median(rates)


def ceiling(precision: str) -> float:
    """Floating-point operations a second of a large matrix product, median of five."""
    a = torch.rand(2048, 2048).to(getattr(torch, precision))

    def product() -> int:
        a @ a
        return 1

    return timed(product, 5) * 2 * 2048**3


def arithmetic(step: Callable[[], int]) -> float:
    """Floating-point operations an answer of one step, counted by torch."""
    with FlopCounterMode(display=False) as counter:
        answers = step()
    return counter.get_total_flops() / answers


def train_steps(shape: Shape, model: Plain, rows: list[Row], precision: str) -> dict[str, Callable[[], int]]:
    """The plain step, then ours with one lever more at a time."""
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-4)
    stitched = StitchModel(model.lm, model.projector)
    size = shape.vit["image_size"]
    pixels = torch.rand(len(rows), 3, size, size).to(next(model.vit.parameters()).dtype)
    cached = model.patches(pixels).float()
    separate = [one for row in rows for one in split_turns(row, "separate")]
    samples = [one.turns[0] for one in separate]
    ids = torch.tensor([[*t.prompt_ids, *t.answer_ids] for t in samples])
    labels = torch.tensor([[-100] * len(t.prompt_ids) + list(t.answer_ids) for t in samples])
    owner = torch.tensor([one.picture for one in separate])
    tokens = sum(len(t.answer_ids) for t in samples)

    def autocast() -> Any:
        return torch.autocast("cpu", torch.bfloat16) if precision == "bfloat16" else nullcontext()

    def finish() -> int:
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return len(samples)

    def plain() -> int:
        model.lm.train()
        for first in range(0, len(samples), 4):
            part = slice(first, first + 4)
            with autocast():
                loss = (
                    model.loss(pixels[owner[part]], ids[part], labels[part])
                    * len(samples[part])
                    / len(samples)
                )
            loss.backward()
        return finish()

    def ours(parts: list[list[Row]], live: bool) -> Callable[[], int]:
        def step() -> int:
            model.lm.train()
            for part in parts:
                order = sorted({row.picture for row in part})
                place = {picture: i for i, picture in enumerate(order)}
                local = [Row(place[row.picture], row.turns) for row in part]
                packed = pack(local, head_ids=FixedPrompt.head_ids, pad_id=0)
                with autocast():
                    patches = model.patches(pixels[order]) if live else cached[order]
                    loss, _ = stitch_loss(stitched, StitchBatch(packed, tokens, patches), 0)
                loss.backward()
            return finish()

        return step

    fours = [separate[i : i + 4] for i in range(0, len(separate), 4)]
    pictures = [[row] for row in rows]
    return {
        "plain loop": plain,
        "+ head on answers only": ours(fours, live=True),
        "+ cached features": ours(fours, live=False),
        "+ shared prefix": ours(pictures, live=False),
        "+ whole batch in one pass": ours([rows], live=False),
    }


def evaluation_steps(
    shape: Shape, model: Plain, rows: list[Row], new_tokens: int
) -> dict[str, Callable[[], int]]:
    """`generate` one sample at a time with a live encoder; ours over cached features."""
    size = shape.vit["image_size"]
    pixels = torch.rand(len(rows), 3, size, size).to(next(model.vit.parameters()).dtype)
    cached = model.patches(pixels).float()
    stitched = StitchModel(model.lm, model.projector).eval()

    def plain(few: int = 6) -> int:
        model.eval()
        done = 0
        for row in rows:
            for turn in row.turns:
                with torch.no_grad():
                    embeddings = model.embeddings(
                        pixels[row.picture : row.picture + 1], torch.tensor([turn.prompt_ids])
                    )
                    model.lm.generate(
                        inputs_embeds=embeddings, attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.long),
                        max_new_tokens=new_tokens, min_new_tokens=new_tokens, do_sample=False,
                    )  # fmt: skip
                done += 1
                if done == few:
                    return done
        return done

    prompt: Any = HardlyStops(shape.llm["vocab_size"])
    many = [Row(i, rows[i % len(rows)].turns) for i in range(max(len(rows), 128 // max(shape.turns)))]
    where = [i % len(rows) for i in range(len(many))]

    def ours() -> int:
        with torch.inference_mode():
            visual = stitched.project(cached[where])
        answers = generate(stitched, prompt, many, visual, max_new_tokens=new_tokens)
        return len(answers)

    return {"plain, one sample at a time": plain, "shared prefix, batched, cached": ours}


class HardlyStops(FixedPrompt):
    """So that both sides decode the same number of tokens: one id of the vocabulary ends an answer, by chance only."""

    def __init__(self, vocabulary: int) -> None:
        self.stop_ids = frozenset({vocabulary - 1})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SHAPES, default="tiny")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--new-tokens", type=int, default=3)
    parser.add_argument("--only", choices=("training", "evaluation"), help="one of the two parts")
    parser.add_argument("--json", help="append the figures to this file")
    options = parser.parse_args()
    shape = SHAPES[options.size]
    model = build(shape, getattr(torch, options.precision))
    rows = make_rows(shape, torch.Generator().manual_seed(0))
    figures: dict[str, Any] = {
        "size": options.size,
        "precision": options.precision,
        "threads": torch.get_num_threads(),
    }
    parts = {
        "training": lambda: train_steps(shape, model, rows, options.precision),
        "evaluation": lambda: evaluation_steps(shape, model, rows, options.new_tokens),
    }
    for title in [options.only] if options.only else parts:
        steps = parts[title]()
        rates: dict[str, float] = {}
        print(
            f"\n{title}, {options.size}, {options.precision}, {figures['threads']} threads, {platform.machine()}"
        )
        for name, step in steps.items():
            rates[name] = timed(step, options.repeats)
            ratio = rates[name] / next(iter(rates.values()))
            print(
                f"  {name:34s} {rates[name]:9.2f} answers/s  {ratio:6.2f}x  peak so far {memory():.2f} GB",
                flush=True,
            )
        figures[title] = rates
        if title == "evaluation":
            top = figures["ceiling"] = ceiling(options.precision)
            work = [arithmetic(step) for step in steps.values()]
            figures["operations"] = dict(zip(steps, work, strict=True))
            for (name, rate), each in zip(rates.items(), work, strict=True):
                print(
                    f"  {name:34s} {each / 1e9:9.2f} G operations an answer, {rate * each / top:.0%} of the ceiling"
                )
            print(
                f"  ceiling {top / 1e9:.0f} G operations/s: at best {top / work[1] / rates[next(iter(rates))]:.1f}x"
            )
    if options.json:
        with open(options.json, "a") as file:
            file.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
