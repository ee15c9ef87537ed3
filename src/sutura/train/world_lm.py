"""The zoo's language model: it learns to answer questions about scenes described in words.

It never sees a picture. Frozen afterwards, it stands in every stitch of the built-in world, and its accuracy when
it reads the words is the ceiling that an encoder's patches are measured against.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from sutura.core.checkpoint import atomic_directory
from sutura.core.config import Section
from sutura.core.hashing import fingerprint
from sutura.core.runtime import derive_seed, seed_everything
from sutura.data.scenes import RETELL, Scene, describe, make_scene, questions, retell, vocabulary_texts
from sutura.stitch.generate import generate
from sutura.stitch.model import StitchModel
from sutura.stitch.pack import IGNORE, Row, pack
from sutura.stitch.prompt import PromptBuilder
from sutura.train.checkpointing import checkpoints_in
from sutura.train.config import OptimConfig
from sutura.train.loop import FitResult, Objective, fit
from sutura.train.optim import Group
from sutura.train.stitching import StitchBatch
from sutura.train.world_maps import MapStage, map_tokens, maps_of, word_ids

CHECKED, ASKED = 1000, 9
"""Described scenes that the card's accuracy is measured on, and questions about each."""
RETELLINGS = 4
"""How often a description is told again where there are no questions."""
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
        scenes: described scenes a step, of one to six objects.
        steps: optimizer steps.
        retold: the first so many steps have no questions: the model tells the description again, four times in
            other orders. Each word then asks for the object that has the words before it, which is what every
            question asks too, and asks it at every word instead of once a question. With questions from the
            first step on, a model of this size hardly learns to find a thing by several words.
        questions: about each scene, of all families; the description is told again once beside them.
        further: questions more about each scene, of the families in `hard`.
        hard: families that take longest to learn.
        listen: weight of the loss on the questions' own words.
        muon: Muon's learning rate for the trunk's matrices, as a multiple of the rate for everything else.
        look_back: how firmly three heads of the first layer look one, two and three tokens back before the first
            step; 0 leaves them to find that out.
        maps: the stages after the first one: maps whose words are certain, then doubtful ones.
    """

    name: str = "world-lm"
    seed: int = 0
    width: int = 128
    depth: int = 4
    heads: int = 4
    mlp_width: int = 384
    vocabulary: int = 512
    scenes: int = 8
    steps: int = 10000
    retold: int = 900
    questions: int = 5
    further: int = 4
    hard: tuple[str, ...] = ("side", "count", "compare_count", "chain")
    listen: float = 0.3
    muon: float = 2.0
    look_back: float = 1.5
    optim: OptimConfig = OptimConfig(
        lr=3e-3, weight_decay=0.01, schedule="cosine", warmup=100, betas=(0.9, 0.98)
    )
    maps: tuple[MapStage, ...] = (
        MapStage(),
        MapStage(sides=(4, 8), steps=2000, doubtful=True),
        MapStage(sides=(4, 8), steps=3000, doubtful=True),
    )
    directory: str = "runs/zoo"

    @property
    def total_steps(self) -> int:
        """Optimizer steps of all stages."""
        return self.steps + sum(stage.steps for stage in self.maps)

    def stage(self, number: int) -> str:
        """Fingerprint of all that a stage depends on; stage 0 has no maps. A later change leaves it as it is."""
        content = {name: value for name, value in self.resolved().items() if name != "maps"}
        return fingerprint(content | {"maps": [stage.resolved() for stage in self.maps[:number]]})


def build_tokenizer(vocabulary: int, texts: Sequence[str] | None = None) -> Any:
    """A byte-level BPE tokenizer trained on texts, by default on the world's words, with a chat template."""
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
    tokenizer.train_from_iterator(vocabulary_texts() if texts is None else texts, trainer)
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
    model = Qwen2ForCausalLM(
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
    look_back(model, config.look_back)
    return model


@torch.no_grad()
def look_back(model: Any, firmness: float, steps: Sequence[int] = (1, 2, 3)) -> None:
    """Start the first layer's first heads looking a fixed number of tokens back, by their biases alone.

    Under rotary positions a constant query and a constant key have a score that depends on their distance only.
    With every pair of the key at angle zero and the query turned back by `d` steps it is largest at distance d.

    Args:
        model: a Qwen2 model, whose queries and keys have biases.
        firmness: length of each pair; the score at distance d is its square times the head's pairs, over the
            root of the head's width.
        steps: one distance a head, as far as there are heads.

    Source: Su et al. 2021, arXiv:2104.09864, equation 16.
    """
    turns = model.model.rotary_emb.inv_freq
    attention = model.model.layers[0].self_attn
    for head, back in zip(range(model.config.num_attention_heads), steps, strict=False):
        own = slice(head * attention.head_dim, (head + 1) * attention.head_dim)
        attention.k_proj.bias[own] = firmness * torch.cat([torch.ones_like(turns), torch.zeros_like(turns)])
        attention.q_proj.bias[own] = firmness * torch.cat([torch.cos(back * turns), -torch.sin(back * turns)])


def trunk_by_muon(scale: float) -> Callable[[Any], list[Group]]:
    """Parameter groups: the layers' matrices by Muon at `scale` times the rate, the rest by AdamW."""

    def groups(model: Any) -> list[Group]:
        named = {name: p.ndim for name, p in model.named_parameters() if p.requires_grad}
        matrices = [name for name, ndim in named.items() if ndim == 2 and ".layers." in name]
        rest = [name for name in named if name not in set(matrices)]
        return [Group("trunk", matrices, lr_scale=scale, muon=True), Group("rest", rest)]

    return groups


class WorldTextFeed:
    """Fresh scenes at every step, first told again and then asked about; a pure function of (seed, step).

    Args:
        config: of the run.
        prompt: of the model's tokenizer.
        stage: 0 for descriptions alone; a later one goes on where the one before ended, with maps in every other
            step.
    """

    def __init__(self, config: WorldLmConfig, prompt: PromptBuilder, stage: int = 0) -> None:
        self.config, self.prompt = config, prompt
        lengths = [config.steps, *(one.steps for one in config.maps)]
        self.before, self.steps = sum(lengths[:stage]), lengths[stage]
        self.map = config.maps[stage - 1] if stage else None

    def micro_batches(self, step: int) -> list[StitchBatch]:
        config = self.config
        mapped = self.map if step % 2 == 1 else None
        turn, step = step // 2, step + self.before
        scenes = [
            make_scene(config.seed, "text-train", index, min_objects=1)
            for index in range(step * config.scenes, (step + 1) * config.scenes)
        ]
        asked = step >= config.retold
        rows = [self._row(number, scene, asked, mapped is not None) for number, scene in enumerate(scenes)]
        packed = pack(rows, head_ids=self.prompt.head_ids, pad_id=min(self.prompt.stop_ids))
        maps = None
        if mapped is not None:
            side = mapped.sides[turn % len(mapped.sides)]
            maps = maps_of(scenes, side, config.seed if mapped.doubtful else None)
        return [StitchBatch(packed, packed.supervised, maps)]

    def _row(self, number: int, scene: Scene, asked: bool, mapped: bool) -> Row:
        config = self.config
        pairs: dict[str, str] = {}
        if asked:
            further = derive_seed(config.seed, "further")
            found = questions(scene, count=config.questions, seed=config.seed)
            found += questions(scene, count=config.further, seed=further, families=config.hard)
            pairs = {question.text: question.answer for question in found}
        rng = Random(derive_seed(config.seed, "retell", scene.index))
        told = [(RETELL, retell(scene, rng, places=not mapped)) for _ in range(1 if asked else RETELLINGS)]
        turns = [
            self.prompt.turn(f"{scene.index}/{i}", text, answer)
            for i, (text, answer) in enumerate([*pairs.items(), *told])
        ]
        return Row(number, tuple(turns), () if mapped else self.prompt.encode_text(describe(scene)))


def reading_loss(listen: float, words: Int[Tensor, " words"] | None = None) -> Objective:
    """Nats of the answers' tokens, and `listen` times those of the questions' tokens, each as a mean.

    The first word of a question is not asked for: nothing before it belongs to its turn. `words` are the ids
    that maps are made of; without them there are no maps.
    """

    def objective(
        model: StitchModel, batch: StitchBatch, step: int
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        packed = batch.packed
        before = packed.segments.roll(1, dims=1)
        heard = (packed.segments > 0) & (packed.segments == before)
        everything = replace(packed, labels=torch.where(heard, packed.input_ids, IGNORE))
        rows, columns = heard.nonzero(as_tuple=True)
        maps = None
        if batch.patches is not None:
            assert words is not None, "maps are made of words"
            maps = map_tokens(model, batch.patches, words)
        nats, _ = model(everything, maps)
        answers = packed.labels[rows, columns] != IGNORE
        answered, listened = nats[answers].mean(), nats[~answers].mean()
        return answered + listen * listened, {"answers": answered, "questions": listened}

    return objective  # type: ignore[return-value]


def reading_accuracy(
    model: StitchModel, prompt: PromptBuilder, config: WorldLmConfig, scenes: int, side: int | None = None
) -> dict[str, float]:
    """Accuracy by family on scenes of the selection split, described in words or as certain maps of a side."""
    right: dict[str, list[bool]] = {}
    for first in range(0, scenes, 64):
        shown = [make_scene(config.seed, "text-select", i) for i in range(first, min(first + 64, scenes))]
        rows, expected = [], {}
        for number, scene in enumerate(shown):
            asked = questions(scene, count=ASKED, seed=config.seed)
            expected |= {f"{number}/{i}": question for i, question in enumerate(asked)}
            turns = tuple(prompt.turn(f"{number}/{i}", q.text) for i, q in enumerate(asked))
            rows.append(Row(number, turns, prompt.encode_text(describe(scene)) if side is None else ()))
        with torch.no_grad():
            visual = None if side is None else map_tokens(model, maps_of(shown, side), word_ids(prompt))
        for answer in generate(model, prompt, rows, visual, max_new_tokens=4):
            question = expected[answer.item_id]
            right.setdefault(question.family, []).append(answer.text == question.answer)
            right.setdefault("all", []).append(answer.text == question.answer)
    return {family: sum(hits) / len(hits) for family, hits in sorted(right.items())}


def train_world_lm(config: WorldLmConfig, on_step: Any = None) -> Path:
    """Train the language model and save it, with its tokenizer and card, as one transformers folder.

    Every stage keeps its checkpoint in a folder of its own; a finished one is not repeated when a later changes.
    """
    tokenizer = build_tokenizer(config.vocabulary)
    prompt = PromptBuilder(tokenizer)
    model = StitchModel(build_language_model(config, tokenizer), None)
    seconds, done = 0.0, 0
    for number in range(1 + len(config.maps)):
        result = _train_stage(model, config, prompt, number, done, on_step)
        seconds, done = seconds + result.seconds, done + result.steps
    return save_world_lm(model, prompt, config, seconds)


def _train_stage(
    model: StitchModel, config: WorldLmConfig, prompt: PromptBuilder, number: int, done: int, on_step: Any
) -> FitResult:
    feed = WorldTextFeed(config, prompt, number)
    place = Path(config.directory) / f"{config.name}-{config.stage(number)}"
    optim = config.optim.model_copy(update={"lr": feed.map.lr}) if feed.map is not None else config.optim

    def report(step: int, row: dict[str, Any]) -> None:
        if on_step is not None:
            on_step(done + step, row)

    def check(trained: StitchModel, step: int) -> dict[str, float]:
        side = feed.map.sides[-1] if feed.map is not None else None
        return reading_accuracy(trained.eval(), prompt, config, min(128, CHECKED), side)

    return fit(
        model,
        reading_loss(config.listen, word_ids(prompt)),
        feed,
        optim,
        seed=config.seed,
        groups=trunk_by_muon(config.muon),
        directory=place,
        checkpoint_every=500,
        evaluate=check,
        evaluate_every=1000,
        resume=bool(checkpoints_in(place)),
        config_hash=config.stage(number),
        on_step=report,
    )


def save_world_lm(
    model: StitchModel, prompt: PromptBuilder, config: WorldLmConfig, seconds: float, note: str = ""
) -> Path:
    """The trained model as a transformers folder whose card has its accuracy from words and from maps."""
    sides = (None, *sorted({side for stage in config.maps for side in stage.sides}))
    scores = {side: reading_accuracy(model.eval(), prompt, config, CHECKED, side) for side in sides}
    final = Path(config.directory) / f"{config.name}-{config.hash()}" / "model"
    with atomic_directory(final, replace=True) as folder:
        model.lm.save_pretrained(folder)
        prompt.tokenizer.save_pretrained(folder)
        (folder / "README.md").write_text(_card(config, scores, seconds, note), encoding="utf-8")
    return final


def _card(
    config: WorldLmConfig, scores: Mapping[int | None, dict[str, float]], seconds: float, note: str
) -> str:
    heads = ["words" if side is None else f"map {side} × {side}" for side in scores]
    families = next(iter(scores.values()))
    table = "\n".join(
        f"| {family} | " + " | ".join(f"{found[family]:.1%}" for found in scores.values()) + " |"
        for family in families
    )
    stages = " ".join(
        f"Then {stage.steps} steps in which every other one shows the scenes as maps of "
        f"{' or '.join(str(side) for side in stage.sides)} cells a side, each one token: "
        + (
            "blots of words that are only probable."
            if stage.doubtful
            else "the mean of its words' embeddings."
        )
        for stage in config.maps
    )
    return (
        f"# {config.name}\n\nA small language model that reads scenes of the built-in world in words and answers "
        f"questions about them. Trained from scratch by `sutura zoo build world-lm`, on generated text only.\n\n"
        f"Qwen2 architecture, width {config.width}, depth {config.depth}, byte-level BPE vocabulary of "
        f"{config.vocabulary}. {config.steps} steps of {config.scenes} scenes: in the first {config.retold} the "
        f"description is told again in other orders, then {config.questions} questions of all families, up to "
        f"{config.further} of {', '.join(config.hard)}, and the description again once. {stages} Loss on answers "
        f"plus {config.listen} × loss on the questions' words; Muon for the trunk's matrices. "
        f"{seconds / 60:.1f} minutes on {torch.get_num_threads()} CPU thread(s), seed {config.seed}.{note}\n\n"
        f"Accuracy on {CHECKED:,} scenes it was not trained on (one training run, greedy, exact match; maps with "
        f"certain words):\n\n| family | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}\n{table}\n\n"
        f"The tokenizer's rules are in tokenizer.json: load it with `PreTrainedTokenizerFast`, since "
        f"`AutoTokenizer` replaces them by Qwen2's.\n\nLicence: Apache-2.0.\n"
    )
