"""A small language model that has read the questions and answers of a training split, and nothing else.

    python benchmarks/small_language_model.py DIR/train.parquet DIR/words
    sutura compare --preset daquar llm.id=DIR/words llm.train=lora …

Offline there is no language model that knows English. This one knows the words of one data set (Parquet in
the_cauldron's schema) and which answers go with which questions, which is what a blind run can know. Pictures must
add the rest.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from sutura.core.runtime import generator
from sutura.stitch.model import StitchModel
from sutura.stitch.pack import Row, pack
from sutura.stitch.prompt import PromptBuilder
from sutura.train.config import OptimConfig
from sutura.train.loop import fit
from sutura.train.stitching import StitchBatch
from sutura.train.world_lm import build_tokenizer, reading_loss


@dataclass
class Reading:
    """Each picture's questions, without the picture; 16 pictures a step."""

    rows: list[Row]
    prompt: PromptBuilder
    epochs: int = 12

    @property
    def steps(self) -> int:
        return self.epochs * (len(self.rows) // 16)

    def micro_batches(self, step: int) -> list[StitchBatch]:
        epoch, place = divmod(step, len(self.rows) // 16)
        order = torch.randperm(len(self.rows), generator=generator(0, "reading", epoch)).tolist()
        chosen = [self.rows[i] for i in order[place * 16 : place * 16 + 16]]
        packed = pack(chosen, head_ids=self.prompt.head_ids, pad_id=min(self.prompt.stop_ids))
        return [StitchBatch(packed, packed.supervised)]


def main(train: Path, folder: Path) -> None:
    turns = [[(t["user"], t["assistant"]) for t in texts] for texts in pl.read_parquet(train)["texts"]]
    tokenizer = build_tokenizer(3000, [text for picture in turns for pair in picture for text in pair])
    prompt = PromptBuilder(tokenizer)
    rows = [
        Row(0, tuple(prompt.turn(f"{n}/{i}", q, a) for i, (q, a) in enumerate(p)))
        for n, p in enumerate(turns)
    ]
    torch.manual_seed(0)
    sizes = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 6}
    lm = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            num_key_value_heads=6,
            tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            **sizes,
        )
    )
    optim = OptimConfig(lr=2e-3, weight_decay=0.05, schedule="cosine", warmup=50)
    result = fit(
        StitchModel(lm, None), reading_loss(0.3), Reading(rows, prompt), optim, seed=0, directory=None
    )
    lm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    print(
        f"{folder}: {len(rows)} pictures' questions read in {result.seconds:.0f} s, loss {result.loss.final_mean:.3f}"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
