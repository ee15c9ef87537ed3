"""The settings of text-conditioned masked prediction. No torch here, so that a config is read in a moment."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from sutura.core.config import Section
from sutura.encoders.config import EncoderConfig
from sutura.train.config import OptimConfig

#: Where a target may come from, as a report says it.
TARGETS = {
    "other": "another frozen network's patches of the whole picture",
    "ema": "a moving average of the online encoder, which trains",
    "average": "the last blocks of the frozen online network over the whole picture, averaged",
}


class OnlineConfig(Section):
    """The encoder that sees the patches which are not hidden.

    Args:
        encoder: the zoo's, or a plain ViT of transformers or timm: hidden patches are dropped before its first block.
        train: nothing, its last blocks (a number, with the final norm), or all of it.
        lr_scale: of its weights, as a multiple of the run's learning rate.
    """

    encoder: EncoderConfig = EncoderConfig(id="zoo:mae", final_norm=True)
    train: int | Literal["none", "all"] = "none"
    lr_scale: float = Field(default=0.1, gt=0)


class TargetConfig(Section):
    """What is predicted at the hidden places.

    Args:
        kind: `other`: a different frozen network. `ema`: a moving average of the online encoder, which has to train.
            `average`: the online network as it was before training, its last `blocks` blocks averaged.
        encoder: of `other`.
        blocks: of `ema` and `average`, blocks averaged; 1 takes the last block after the final norm.
        momentum: of `ema` at the first step; it rises to 1.
        normalise: `layer` normalises every token over its width before the loss; `none` leaves it.
    """

    kind: Literal["other", "ema", "average"] = "other"
    encoder: EncoderConfig | None = EncoderConfig(id="zoo:clip", final_norm=True)
    blocks: int = Field(default=1, ge=1)
    momentum: float = Field(default=0.996, gt=0, lt=1)
    normalise: Literal["layer", "none"] = "layer"


class TextConfig(Section):
    """The frozen text network whose hidden states are the caption's tokens.

    Args:
        use: False trains and scores without any text.
        id: a language model or a text encoder: `zoo:world-lm`, a local folder, or a Hub id.
        revision: branch, tag or commit on the Hub.
        layer: which hidden states: -1 the last block's, with the network's final norm; 0 the embeddings.
        longest: tokens read of a caption; longer ones are cut, and counted.
        drop: share of training pictures that come without a caption, so that "no caption" is a case it knows.
        batch: captions encoded at once.
    """

    use: bool = True
    id: str = "zoo:world-lm"
    revision: str | None = None
    layer: int = -1
    longest: int = Field(default=48, ge=1)
    drop: float = Field(default=0.1, ge=0, lt=1)
    batch: int = Field(default=64, ge=1)


class PredictorConfig(Section):
    """Sizes of the predictor."""

    width: int = Field(default=96, ge=4)
    depth: int = Field(default=3, ge=1)
    heads: int = Field(default=4, ge=1)


class MaskConfig(Section):
    """What is hidden, in the same number of patches in every picture.

    Args:
        kind: `random`: single patches anywhere (`RandomMask`); `rectangles`: rectangles until the number is reached
            (`BlockMask`).
        ratio: share of the patches that is hidden, rounded to whole patches.
    """

    kind: Literal["random", "rectangles"] = "random"
    ratio: float = Field(default=0.6, gt=0, lt=1)


class PicturesConfig(Section):
    """Pictures with captions to train on, and others to measure on; no picture is in both.

    Args:
        path: `world` (trained on its split `pretrain`, measured on `test`), or pictures with captions as
            `sutura jepa eval --data` takes them.
        source: further values of the captions' source: `columns`, `split_lists`, `val_share`, …
        split, held_split: to train on and to measure on, where `path` is not the world.
        count: pictures to train on, at most.
        held: pictures to measure on, at most.
        captions: most captions a picture; the first is the one measured with.
        seed: of the world.
        cache: holds pictures, features and text states on disk.
    """

    path: str = "world"
    source: dict[str, Any] = Field(default_factory=dict)
    split: str = "train"
    held_split: str = "val"
    count: int = Field(default=2000, ge=2)
    held: int = Field(default=400, ge=8)
    captions: int = Field(default=5, ge=1)
    seed: int = 0
    cache: str = "runs/cache"


class ProbeSection(Section):
    """A linear probe on what the model adds.

    Args:
        data: labelled pictures in three parts, as `sutura probe` takes them (a name or a section's values); None
            leaves the probe out.
        kinds: of probes.
    """

    data: str | dict[str, Any] | None = None
    kinds: tuple[str, ...] = ("linear",)


class ConditionedConfig(Section):
    """A run of text-conditioned masked prediction.

    Args:
        passes: pictures seen in the whole run, repeats counted; a whole number of batches.
        batch: pictures of one optimizer step.
        micro_batch: pictures of one forward pass; the loss does not depend on it.
        loss: distance of a predicted token to its target.
        resamples: of the probe's bootstrap.
        checkpoint_every: steps between checkpoints.
    """

    name: str = "conditioned"
    seed: int = 0
    online: OnlineConfig = OnlineConfig()
    target: TargetConfig = TargetConfig()
    text: TextConfig = TextConfig()
    predictor: PredictorConfig = PredictorConfig()
    mask: MaskConfig = MaskConfig()
    loss: Literal["cosine", "smooth-l1"] = "cosine"
    pictures: PicturesConfig = PicturesConfig()
    passes: int = Field(default=19200, ge=1)
    batch: int = Field(default=32, ge=1)
    micro_batch: int = Field(default=32, ge=1)
    optim: OptimConfig = OptimConfig(lr=1e-3, weight_decay=0.05, schedule="cosine", warmup=50)
    probe: ProbeSection = ProbeSection()
    directory: str = "runs/jepa"
    device: str = "auto"
    checkpoint_every: int = Field(default=200, ge=1)

    @model_validator(mode="after")
    def _fits_together(self) -> ConditionedConfig:
        target, online = self.target, self.online
        if target.kind == "ema" and online.train == "none":
            raise ValueError(
                "target.kind=ema with online.train=none: the moving average of a frozen encoder is that encoder for "
                "ever. Set online.train (a number of blocks, or all), or target.kind=other or average."
            )
        if target.kind == "other":
            if target.encoder is None:
                raise ValueError("target.kind=other needs target.encoder")
            if target.encoder == online.encoder:
                raise ValueError(
                    "target.encoder is the online encoder itself; target.kind=average says so, other names a "
                    "different network"
                )
        if target.kind == "other" and target.blocks != 1:
            raise ValueError("target.blocks belongs to target.kind=ema or average")
        if target.kind == "average" and target.blocks < 2:
            raise ValueError(
                "target.kind=average with target.blocks=1: the frozen online encoder's own output is no target beyond "
                "itself. Average 2 blocks or more."
            )
        if not online.encoder.final_norm:
            raise ValueError(
                "online.encoder.final_norm=false: the online encoder is read behind its final norm; set it to true"
            )
        for name in ("tokens", "fuse"):
            if getattr(online.encoder, name):
                raise ValueError(f"online.encoder.{name}: the online encoder keeps its own patches")
        if self.passes < self.batch or self.passes % self.batch:
            raise ValueError(f"passes={self.passes} is not a multiple of batch={self.batch}")
        if self.batch % self.micro_batch:
            raise ValueError(f"batch={self.batch} is not a multiple of micro_batch={self.micro_batch}")
        return self

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return self.passes // self.batch
