"""The zoo's language model: it learns to answer questions about scenes described in words.

It never sees a picture. Frozen afterwards, it stands in every stitch of the built-in world, and its accuracy when
it reads the words is the ceiling that an encoder's patches are measured against.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sutura.core.checkpoint import atomic_directory
from sutura.core.config import Section
from sutura.core.runtime import seed_everything
from sutura.data.scenes import describe, make_scene, questions, vocabulary_texts
from sutura.stitch.generate import generate
from sutura.stitch.model import StitchModel
from sutura.stitch.pack import IGNORE, Row, pack
from sutura.stitch.prompt import PromptBuilder
from sutura.train.checkpointing import checkpoints_in
from sutura.train.loop import Objective, OptimConfig, fit
from sutura.train.stitching import StitchBatch

CHECKED = 1000
"""Described scenes that the card's accuracy is measured on."""
SPECIAL = ("<|end|>", "<|user|>", "<|assistant|>", "<|pad|>")
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.role == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


class WorldLmConfig(Section):
    """Sizes, length and curriculum of the language model's training.

    Args:
        width, depth, heads, mlp_width: of a Qwen2-architecture model.
        vocabulary: size of the byte-level BPE vocabulary, so that any text can be written with it.
        scenes: described scenes a step.
        questions: questions about each.
        steps: optimizer steps.
        listen: weight of the loss on the questions' own words. A question names things that are there ("the small
            metal …"), so guessing its next word already asks for what answering asks for: to find the thing with
            these words in the description. With loss on answers only, a model of this size did not begin to.
        grow: shares of the steps between which scenes grow from up to three objects to as many as six. Before it
            has learned to tell two objects apart, a model of this size learns nothing from scenes of six.
    """

    name: str = "world-lm"
    seed: int = 0
    width: int = 128
    depth: int = 4
    heads: int = 4
    mlp_width: int = 384
    vocabulary: int = 512
    scenes: int = 8
    questions: int = 9
    steps: int = 7000
    listen: float = 0.3
    grow: tuple[float, float] = (0.3, 0.7)
    optim: OptimConfig = OptimConfig(
        lr=1e-3, weight_decay=0.01, schedule="cosine", warmup=100, betas=(0.9, 0.98)
    )
    directory: str = "runs/zoo"


def build_tokenizer(vocabulary: int) -> Any:
    """A byte-level BPE tokenizer trained on the world's words, with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    # A space before every word makes "red" in an answer and " red" in a description one token.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(vocabulary_texts(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",
        pad_token="<|pad|>",
        additional_special_tokens=list(SPECIAL[1:3]),
        chat_template=TEMPLATE,
        model_max_length=2048,
    )


def build_language_model(config: WorldLmConfig, tokenizer: Any) -> Any:
    """A Qwen2-architecture model (Yang et al. 2024, arXiv:2407.10671) at toy size, seeded."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    seed_everything(config.seed, "world-lm")
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            intermediate_size=config.mlp_width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
        )
    )


class WorldTextFeed:
    """Fresh scenes at every step, growing from two objects to six; a pure function of (seed, step)."""

    def __init__(self, config: WorldLmConfig, prompt: PromptBuilder) -> None:
        self.config = config
        self.prompt = prompt
        self.steps = config.steps

    def micro_batches(self, step: int) -> list[StitchBatch]:
        config = self.config
        begin, end = (share * config.steps for share in config.grow)
        most = 3 + min(3, max(0, int(4 * (step - begin) / max(1.0, end - begin))))
        first = step * config.scenes
        rows = list(self._rows("text-train", range(first, first + config.scenes), most))
        packed = pack(rows, head_ids=self.prompt.head_ids, pad_id=min(self.prompt.stop_ids))
        return [StitchBatch(packed, packed.supervised)]

    def _rows(self, split: str, indices: range, most: int) -> Iterator[Row]:
        for index in indices:
            scene = make_scene(self.config.seed, split, index, min_objects=1, max_objects=most)
            asked = questions(scene, count=self.config.questions, seed=self.config.seed)
            turns = tuple(self.prompt.turn(f"{index}/{i}", q.text, q.answer) for i, q in enumerate(asked))
            yield Row(0, turns, self.prompt.encode_text(describe(scene)))


def reading_loss(listen: float) -> Objective:
    """Nats of the answers' tokens, and `listen` times those of the questions' tokens, each as a mean.

    Differs: from isolated turns in one place. The first word of a turn is guessed from the end of the turn before it.
    """

    def objective(
        model: StitchModel, batch: StitchBatch, step: int
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        packed = batch.packed
        everything = replace(packed, labels=torch.where(packed.segments > 0, packed.input_ids, IGNORE))
        rows, columns = (everything.labels != IGNORE).nonzero(as_tuple=True)
        nats, _ = model(everything, None)
        answers = packed.labels[rows, columns] != IGNORE
        answered, listened = nats[answers].mean(), nats[~answers].mean()
        return answered + listen * listened, {"answers": answered, "questions": listened}

    return objective  # type: ignore[return-value]


def reading_accuracy(
    model: StitchModel, prompt: PromptBuilder, config: WorldLmConfig, scenes: int
) -> dict[str, float]:
    """Accuracy by family on described scenes of the selection split."""
    right: dict[str, list[bool]] = {}
    for first in range(0, scenes, 64):
        rows, expected = [], {}
        for index in range(first, min(first + 64, scenes)):
            scene = make_scene(config.seed, "text-select", index)
            asked = questions(scene, count=config.questions, seed=config.seed)
            for i, question in enumerate(asked):
                expected[f"{index}/{i}"] = question
            turns = tuple(prompt.turn(f"{index}/{i}", q.text) for i, q in enumerate(asked))
            rows.append(Row(0, turns, prompt.encode_text(describe(scene))))
        for answer in generate(model, prompt, rows, None, max_new_tokens=4):
            question = expected[answer.item_id]
            right.setdefault(question.family, []).append(answer.text == question.answer)
            right.setdefault("all", []).append(answer.text == question.answer)
    return {family: sum(hits) / len(hits) for family, hits in sorted(right.items())}


def train_world_lm(config: WorldLmConfig, on_step: Any = None) -> Path:
    """Train the language model and save it, with its tokenizer and card, as one transformers folder."""
    tokenizer = build_tokenizer(config.vocabulary)
    prompt = PromptBuilder(tokenizer)
    model = StitchModel(build_language_model(config, tokenizer), None)
    work = Path(config.directory) / f"{config.name}-{config.hash()}"
    result = fit(
        model,
        reading_loss(config.listen),
        WorldTextFeed(config, prompt),
        config.optim,
        seed=config.seed,
        directory=work,
        checkpoint_every=500,
        evaluate=lambda m, step: reading_accuracy(m.eval(), prompt, config, min(128, CHECKED)),
        evaluate_every=500,
        resume=bool(checkpoints_in(work)),
        config_hash=config.hash(),
        on_step=on_step,
    )
    scores = reading_accuracy(model.eval(), prompt, config, CHECKED)
    final = work / "model"
    with atomic_directory(final, replace=True) as folder:
        model.lm.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "README.md").write_text(_card(config, scores, result.seconds), encoding="utf-8")
    return final


def _card(config: WorldLmConfig, scores: dict[str, float], seconds: float) -> str:
    table = "\n".join(f"| {family} | {score:.1%} |" for family, score in scores.items())
    threads = torch.get_num_threads()
    return (
        f"# {config.name}\n\nA small language model that reads scenes of the built-in world in words and answers "
        f"questions about them. Trained from scratch by `sutura zoo build world-lm`, on generated text only.\n\n"
        f"Qwen2 architecture, width {config.width}, depth {config.depth}, byte-level BPE vocabulary of "
        f"{config.vocabulary}; {config.steps} steps of {config.scenes} scenes × {config.questions} questions, "
        f"loss on answers plus {config.listen} × loss on the questions' words, {seconds / 60:.1f} minutes on "
        f"{threads} CPU threads, seed {config.seed}.\n\n"
        f"Accuracy on {CHECKED:,} described scenes it was not trained on (one training run, greedy, exact match):\n\n"
        f"| family | accuracy |\n|---|---|\n{table}\n\nThe tokenizer's rules are in tokenizer.json: load it "
        f"with `PreTrainedTokenizerFast`, since `AutoTokenizer` replaces them by Qwen2's.\n\nLicence: Apache-2.0.\n"
    )
