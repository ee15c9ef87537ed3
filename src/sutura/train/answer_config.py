"""The settings of VL-JEPA's `answer` form, and what each means. No torch here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from sutura.core.config import Section
from sutura.data.sources import VqaSource
from sutura.encoders.config import EncoderConfig
from sutura.stitch.config import ProjectorConfig, PromptConfig
from sutura.train.config import FeedConfig, OptimConfig


class PredictorConfig(Section):
    """The predictor: the last layers of a causal language model, its causal mask off; all its weights train.

    Args:
        id: `zoo:NAME`, a local folder, or a Hub id; its tokenizer and token embeddings (frozen) read the query.
        layers: how many, counted from the last.
        random: draw the layers' weights anew: what the language model's start is worth.
        lr_scale: the layers' learning rate, as a multiple of the run's, which projector and heads train at.
    """

    id: str = "zoo:world-lm"
    revision: str | None = None
    layers: int = Field(default=8, ge=1)
    random: bool = False
    lr_scale: float = Field(default=1.0, ge=0)
    attention: Literal["sdpa", "eager"] = "sdpa"
    trust_remote_code: bool = False


class TextSideConfig(Section):
    """The text encoder that embeds answers.

    Args:
        id: `zoo:NAME`, a local folder, or a Hub id of a model that transformers' AutoModel loads.
        lr_scale: its learning rate, as a multiple of the run's; 0 keeps it frozen. Its head trains at the run's.
        max_tokens: of an answer; a longer one is set aside and counted, or refused where it is a candidate.
    """

    id: str = "zoo:world-lm"
    revision: str | None = None
    lr_scale: float = Field(default=0.05, ge=0)
    max_tokens: int = Field(default=512, ge=1)
    trust_remote_code: bool = False


class AnswerLossConfig(Section):
    """What holds predictions and answers together.

    Args:
        kind: `infonce` in both directions over a step's different answers, or `sigmoid` (SigLIP's).
        log_scale: where the log of the inverse temperature starts; log(1/0.07) or log 10 by default, by kind.
        bias: where the bias of `sigmoid` starts. SigLIP's −10 is for batches of thousands.
    """

    kind: Literal["infonce", "sigmoid"] = "infonce"
    log_scale: float | None = None
    bias: float = -10.0


class TasksConfig(Section):
    """What the trained model is asked, unchanged.

    Args:
        most_candidates: discriminative VQA takes the nearest of so many training answers, the most frequent.
        least: times that an answer must have been given in training to be a candidate.
        describe: the query that asks for the whole picture: for retrieval, classification and streams.
        streams: of the built-in world, for selective decoding; 0 leaves it out.
        frames: of a stream.
        decodes: decoding operations a stream at which the curve is drawn.
        classify: pictures with one object each, for open-vocabulary classification; 0 leaves it out.
        gallery: pictures and descriptions for retrieval both ways; 0 leaves it out.
        batch: questions predicted at once.
    """

    most_candidates: int = Field(default=3000, ge=2)
    least: int = Field(default=2, ge=1)
    describe: str = "what is there?"
    streams: int = Field(default=0, ge=0)
    frames: int = Field(default=64, ge=2)
    decodes: tuple[Annotated[int, Field(ge=1)], ...] = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
    classify: int = Field(default=0, ge=0)
    gallery: int = Field(default=0, ge=0)
    batch: int = Field(default=256, ge=1)


class FeatureConfig(Section):
    """The cache of frozen features, shared with the stitches.

    Args:
        dtype: precision on disk.
        batch: pictures encoded at once.
        directory: of all caches.
    """

    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    batch: int = Field(default=64, ge=1)
    directory: str = "runs/features"


def _as_encoder(value: Any) -> Any:
    return {"id": value} if isinstance(value, str) else value


class AnswerConfig(Section):
    """One run of the `answer` form.

    Args:
        encoder: frozen; a plain name stands for its id.
        dim: width of the shared space.
        train, test: questions with answers; `test` is scored.
        feed: as of a stitch, which sees the same rows in the same order; a step's answers are one batch of the loss.
        blind: also train a model that sees no picture, for the floor.
        seed: of first weights and order.
        directory: receives the run as `<name>-<hash>`.
        checkpoint_every: steps; a run that was stopped goes on from the last one.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    encoder: Annotated[EncoderConfig, BeforeValidator(_as_encoder)]
    projector: ProjectorConfig = ProjectorConfig(kind="linear")
    predictor: PredictorConfig = PredictorConfig()
    text: TextSideConfig = TextSideConfig()
    dim: int = Field(default=1536, ge=2)
    prompt: PromptConfig = PromptConfig()
    train: VqaSource
    test: VqaSource
    loss: AnswerLossConfig = AnswerLossConfig()
    feed: FeedConfig = FeedConfig(batch=128, micro_batch=128)
    optim: OptimConfig = OptimConfig()
    tasks: TasksConfig = TasksConfig()
    features: FeatureConfig = FeatureConfig()
    blind: bool = True
    seed: int = 0
    device: str = "auto"
    directory: str = "runs/jepa"
    checkpoint_every: int = Field(default=200, ge=0)

    @model_validator(mode="after")
    def _a_step_is_one_batch(self) -> AnswerConfig:
        if self.feed.turns == "conversation":
            raise ValueError(
                "feed.turns=conversation: an answer's embedding is predicted from its own query alone"
            )
        if self.feed.batch < 2:
            raise ValueError(
                f"feed.batch={self.feed.batch}: answers are told apart within a step; give it at least 2"
            )
        return self
