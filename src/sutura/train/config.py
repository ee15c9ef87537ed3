"""What a config can say of training. No torch here, so that a config is read in a moment."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sutura.core.config import Section

Schedule = Literal["constant", "cosine", "linear"]


class OptimConfig(Section):
    """How weights move.

    Args:
        lr: peak learning rate.
        weight_decay: AdamW's, on tensors of two or more dimensions only (see `decay_all`).
        betas: AdamW's moments.
        schedule: shape of the learning rate after the warm-up.
        warmup: steps of linear rise; 0 starts at the peak.
        floor: fraction of `lr` at which cosine and linear end.
        clip: largest allowed gradient norm over all trainable weights; None leaves gradients alone.
        precision: float32, or bfloat16 autocast over float32 weights.
        decay_all: decay biases, norms and scalars too.
        trained_dtype: precision of the trained weights and of AdamW's moments. bfloat16 is there to repeat earlier
            runs: updates smaller than a weight's spacing are lost.
        lr_sweep: learning rates to choose from, for every encoder and the blind run by themselves, on a selection split
            that nothing else reads (see `data.select`); `lr` stands where there is none.
        max_bad_batches: steps with a non-finite loss or gradient that are skipped before the run stops.
    """

    lr: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Schedule = "cosine"
    warmup: int = Field(default=0, ge=0)
    floor: float = Field(default=0.0, ge=0, le=1)
    clip: float | None = Field(default=1.0, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    decay_all: bool = False
    trained_dtype: Literal["float32", "bfloat16"] = "float32"
    lr_sweep: tuple[Annotated[float, Field(gt=0)], ...] = ()
    max_bad_batches: int = Field(default=10, ge=0)


class FeedConfig(Section):
    """How answers are dealt into optimizer steps. Everything counts answers, not pictures.

    Args:
        batch: answers of one optimizer step; a picture's questions stay together, so it may hold a few more.
        micro_batch: answers of one forward pass; the step's loss does not depend on it. `auto` begins with the whole
            batch and halves it where memory runs out.
        epochs: passes over the data, unless `answers` says how many answers to train on.
        answers: answers to train on, whatever the size of the data.
        turns: `shared` packs a picture's questions behind its tokens, `separate` gives each its own row,
            `first` takes the first question of each picture only, `conversation` lets every turn see the turns before
            it with their answers, as one dialogue. A source whose own `turns` is `conversation` is one always.
        average: `step` divides a step's loss by all its supervised tokens, `micro` averages the means of its
            micro-batches, as plain gradient accumulation does: an answer in a batch of short answers weighs more, and
            the loss depends on `micro_batch`.
    """

    batch: int = 16
    micro_batch: int | Literal["auto"] = 16
    epochs: float = 1.0
    answers: int | None = None
    turns: Literal["shared", "separate", "first", "conversation"] = "shared"
    average: Literal["step", "micro"] = "step"

    @model_validator(mode="after")
    def _micro_batches_that_count_have_a_size(self) -> FeedConfig:
        if self.average == "micro" and self.micro_batch == "auto":
            raise ValueError(
                "average=micro needs a micro_batch of a fixed size: the loss depends on it, and auto changes it with "
                "the memory"
            )
        return self


class TrackConfig(Section):
    """Who is told of a run's metrics beside metrics.jsonl, which is always written.

    Args:
        to: trackers by accelerate's names: wandb, tensorboard, trackio, mlflow, …
        project: the name that runs are gathered under.
    """

    to: tuple[str, ...] = ()
    project: str = "sutura"
