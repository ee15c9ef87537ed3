"""The settings of an `align` run, and what each means. No torch here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sutura.core.config import Section
from sutura.data.caption_source import CaptionSource
from sutura.train.config import OptimConfig

Part = Literal["vision", "text", "predictor", "image_head", "text_head", "scale"]
#: What of the model may train or be frozen.
PARTS: tuple[Part, ...] = ("vision", "text", "predictor", "image_head", "text_head", "scale")
HeadKind = Literal["mlp", "clip", "clip_residual"]
#: The terms of the loss, in the order of their weights' names in a phase.
TERMS = {"alpha": "prediction", "beta": "contrastive", "gamma": "variance", "delta": "hard_negative"}


class Phase(Section):
    """A stretch of the run with its own weights of the loss and its own frozen parts.

    Args:
        epochs, share: its length, in passes over the data or as a share of the run; one of the two. The last phase
            may leave both out and takes what is left.
        alpha: weight of the prediction of hidden patches.
        beta: weight of the contrastive term.
        gamma: weight of the variance hinge on both projections.
        delta: weight of the hardest-negative hinge.
        frozen: parts that do not move in this phase, not by a bit; their dropout is off.
        vision_blocks: of a frozen picture tower, so many last blocks train all the same, with the final norm.
        vision_lr: the learning rate of what trains of the picture tower; None takes `rates.vision`.
    """

    epochs: float | None = Field(default=None, gt=0)
    share: float | None = Field(default=None, gt=0, le=1)
    alpha: float = Field(default=0.0, ge=0)
    beta: float = Field(default=1.0, ge=0)
    gamma: float = Field(default=0.01, ge=0)
    delta: float = Field(default=0.0, ge=0)
    frozen: tuple[Part, ...] = ()
    vision_blocks: int = Field(default=0, ge=0)
    vision_lr: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _can_be_had(self) -> Phase:
        if self.epochs is not None and self.share is not None:
            raise ValueError("a phase is so many epochs or such a share of the run, not both")
        if not self.alpha + self.beta + self.gamma + self.delta:
            raise ValueError("alpha, beta, gamma and delta are all 0, so that there is no loss")
        if self.vision_blocks and "vision" not in self.frozen:
            raise ValueError(
                "vision_blocks picks what trains of a frozen vision; freeze vision, or leave it out"
            )
        return self

    def weights(self) -> dict[str, float]:
        """Of every term, by its name."""
        return {name: getattr(self, letter) for letter, name in TERMS.items()}

    def trains_vision(self) -> bool:
        """Whether any of the picture tower moves."""
        return "vision" not in self.frozen or self.vision_blocks > 0


class LossConfig(Section):
    """The terms of the loss; their weights stand in the phases.

    Args:
        contrastive: `siglip`, a yes or no for every pair; or `infonce`, a choice among the batch.
        smoothing: of the contrastive targets.
        queue: of InfoNCE: embeddings of earlier batches that count as negatives; they come from the moving average
            of the towers (`average.decay`), so that all of them are of nearly one model. 0 has none.
        margin: of the hardest-negative hinge, in cosines.
        log_scale: where the log of the inverse temperature starts; None takes the start's own, else log 10 for
            SigLIP and log(1/0.07) for InfoNCE.
        bias: where SigLIP's bias starts. A batch of tens has few negatives a positive, and suits a smaller one.
        calibrate: where SigLIP begins from the projections of a model it did not train (a CLIP), and `log_scale` is
            None, fit both to held-out pairs before the first step; embeddings stay as they are.
    """

    contrastive: Literal["siglip", "infonce"] = "siglip"
    smoothing: float = Field(default=0.05, ge=0, lt=1)
    queue: int = Field(default=0, ge=0)
    margin: float = Field(default=0.2, ge=0)
    log_scale: float | None = None
    bias: float = -10.0
    calibrate: bool = True


class PredictorConfig(Section):
    """What guesses the hidden patches, and which are hidden.

    Args:
        width: of its tokens; None takes half of the picture tower's.
        depth: its layers.
        heads: of every attention; divide the width.
        ratio: share of the patches that is hidden, exactly, in rectangles.
    """

    width: int | None = Field(default=None, ge=4)
    depth: int = Field(default=4, ge=1)
    heads: int = Field(default=4, ge=1)
    ratio: float = Field(default=0.75, gt=0, lt=1)


class EmaConfig(Section):
    """The target encoder's momentum, a cosine from `start` at the first step to `end` after the last."""

    start: float = Field(default=0.996, ge=0, le=1)
    end: float = Field(default=1.0, ge=0, le=1)


class ViewsConfig(Section):
    """Multi-crop: small views of a picture beside the global one.

    A local view is a small part of the picture, resized. The picture tower reads it (positions resampled to its
    grid) and the same head projects its pooled token, which is held against the same texts by the same contrastive
    loss. It is never masked, predicted, a target, evaluated, or put in the queue.

    Args:
        local: views a picture; 0 has none.
        size: their side in pixels, a multiple of the patch.
        area: range of the picture's area that a view shows.
        weight: of the views' mean contrastive loss against the global view's: (1 - weight) · global + weight · local.
    """

    local: int = Field(default=0, ge=0)
    size: int = Field(default=96, ge=8)
    area: tuple[float, float] = (0.05, 0.4)
    weight: float = Field(default=0.5, gt=0, lt=1)


class AugmentConfig(Section):
    """What changes a picture each time that it is seen; all off by default.

    Args:
        shift: the most a picture moves, in pixels; its border is repeated.
        crop: range of the area that the global view shows.
        flip: whether half are mirrored; wrong where captions speak of sides.
        jitter: probability that brightness, contrast, saturation and hue change.
        brightness, contrast, saturation: the factor lies within 1 ± this.
        hue: turned by at most this, in turns of the colour circle.
        grayscale: probability of losing all colour; wrong where captions name colours.
        erase: probability that a rectangle of 2 to 33 % becomes the mean colour.
    """

    shift: int = Field(default=0, ge=0)
    crop: tuple[float, float] | None = None
    flip: bool = False
    jitter: float = Field(default=0.0, ge=0, le=1)
    brightness: float = Field(default=0.4, ge=0, le=1)
    contrast: float = Field(default=0.4, ge=0, le=1)
    saturation: float = Field(default=0.4, ge=0, le=1)
    hue: float = Field(default=0.1, ge=0, le=0.5)
    grayscale: float = Field(default=0.0, ge=0, le=1)
    erase: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _moves_one_way(self) -> AugmentConfig:
        if self.crop is not None and not 0 < self.crop[0] <= self.crop[1] <= 1:
            raise ValueError(f"crop={list(self.crop)} is no range of shares of an area, such as [0.4, 1.0]")
        if self.crop is not None and self.shift:
            raise ValueError("a picture is cropped or shifted, not both")
        return self

    def changes(self) -> bool:
        """Whether a picture looks different from one time to the next."""
        return bool(self.shift or self.crop or self.flip or self.jitter or self.grayscale or self.erase)


class RatesConfig(Section):
    """Multiples of `optim.lr`, part by part. A head of None takes 10 if it is an `mlp`, which starts anew, else 1.

    That of the picture tower is above 0: a phase freezes it, and warns of the moving average of a frozen network.
    """

    vision: float = Field(default=1.0, gt=0)
    text: float = Field(default=1.0, ge=0)
    predictor: float = Field(default=20.0, ge=0)
    image_head: float | None = Field(default=None, ge=0)
    text_head: float | None = Field(default=None, ge=0)
    scale: float = Field(default=1.0, ge=0)


class AverageConfig(Section):
    """Other weights of the same run that are scored at the end beside the last step's.

    Args:
        decay: of a moving average of both towers and heads; 0 keeps none.
        wise: WiSE-FT: shares of the trained weights in a mean with the start's, each scored.
    """

    decay: float = Field(default=0.0, ge=0, lt=1)
    wise: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _shares(self) -> AverageConfig:
        if any(not 0 < share < 1 for share in self.wise):
            raise ValueError(f"wise={list(self.wise)} are shares of the trained weights, between 0 and 1")
        return self


class LookConfig(Section):
    """What is measured while the run goes on.

    Args:
        every: steps between two looks at held-out pictures: collapse measures, and R@1 among them.
        pictures: of the held-out set, at most.
        gradient_every: steps between two measurements of every term's gradient norm, which cost one backward each.
        on_collapse: what collapsed embeddings do to the run.
    """

    every: int = Field(default=100, ge=0)
    pictures: int = Field(default=256, ge=8)
    gradient_every: int = Field(default=50, ge=0)
    on_collapse: Literal["warn", "stop"] = "warn"


class VisionSizes(Section):
    """A picture tower from random weights."""

    image_size: int = Field(default=64, ge=8)
    patch_size: int = Field(default=8, ge=1)
    width: int = Field(default=128, ge=4)
    depth: int = Field(default=6, ge=1)
    heads: int = Field(default=4, ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0)


class TextSizes(Section):
    """A text tower from random weights, and the words it reads: those of the training captions.

    Args:
        kind: `causal`, as CLIP's; or `bidirectional`, as BERT's, which is read as a mean over its tokens.
        length: longest text in words, its end included.
        least_count: a word that occurs less often is read as unknown.
        most_words: the most frequent ones.
    """

    kind: Literal["causal", "bidirectional"] = "causal"
    width: int = Field(default=128, ge=4)
    depth: int = Field(default=2, ge=1)
    heads: int = Field(default=4, ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0)
    length: int = Field(default=40, ge=2)
    least_count: int = Field(default=1, ge=1)
    most_words: int = Field(default=20_000, ge=1)


class StartConfig(Section):
    """The towers before the first step; tower, tokenizer and picture transform come from one place.

    Args:
        vision: a checkpoint of a picture tower or of a two-tower model; None begins from random weights.
        text: a checkpoint of a text tower; None takes the two-tower model's own, or random weights.
        image_size: side of the pictures, where it is not the checkpoint's; positions are interpolated.
        length: fewer tokens a text than the text tower holds.
        plain_gelu: run weights that were trained with QuickGELU under plain GELU, as earlier work did.
        pooling: how a text is read: `own`, as its tower was trained (the end of the text in CLIP); or `mean` over its
            tokens, which earlier work did with a causal tower too.
        vit, words: sizes, where a tower begins from random weights.
        mean, std: of the colours, for a picture tower from random weights.
    """

    vision: str | None = None
    text: str | None = None
    image_size: int | None = Field(default=None, ge=8)
    length: int | None = Field(default=None, ge=2)
    plain_gelu: bool = False
    pooling: Literal["own", "mean"] = "own"
    vit: VisionSizes = VisionSizes()
    words: TextSizes = TextSizes()
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)


class AlignDataConfig(Section):
    """Pictures with captions, and which of them do what.

    Args:
        source: where they are.
        train, look, test: splits to train on, to look at while training, and to score at the end.
        train_limit, look_limit, test_limit: at most so many pictures of each, the first ones; None takes all.
        store: side of the squares kept on disk; the picture tower's by default. More leaves room for crops and moves.
        cache: folder of pictures, token ids and frozen towers' outputs, shared by runs.
    """

    source: CaptionSource = CaptionSource()
    train: str = "train"
    look: str = "val"
    test: str = "test"
    train_limit: int | None = Field(default=None, ge=2)
    look_limit: int | None = Field(default=None, ge=2)
    test_limit: int | None = Field(default=None, ge=2)
    store: int | None = Field(default=None, ge=8)
    cache: str = "runs/cache/image-texts"

    def of(self, limit: int | None) -> CaptionSource:
        """The source with a limit of its own."""
        return self.source if limit is None else self.source.model_copy(update={"limit": limit})


class AlignConfig(Section):
    """One `align` run.

    Args:
        start: the towers before the first step.
        dim: of the space where they meet.
        image_head, text_head: `mlp` starts anew; `clip` is one linear layer, seeded from the start's own projection
            where it has one; `clip_residual` adds to it an MLP that is zero in the beginning.
        epochs: passes over the training pictures.
        batch: pairs of an optimizer step.
        micro_batch: pairs of a forward pass; None takes the whole batch. Accumulation adds no negatives by itself.
        negatives: what a pair is compared with: the others of its `micro_batch`, or, `cached`, of the whole batch.
        checkpointing: recompute the towers' blocks in the backward pass instead of keeping them.
        cache_towers: a tower that no phase up to a step has trained is not run but read from disk, where its input
            never changes: texts always, pictures without augmentation, views, queue and prediction.
        directory: receives the run as `<name>-<hash>`.
        checkpoint_every: steps.
    """

    name: str
    seed: int = 0
    data: AlignDataConfig = AlignDataConfig()
    start: StartConfig = StartConfig()
    dim: int = Field(default=512, ge=1)
    image_head: HeadKind = "mlp"
    text_head: HeadKind = "mlp"
    loss: LossConfig = LossConfig()
    phases: tuple[Phase, ...] = (Phase(),)
    predictor: PredictorConfig = PredictorConfig()
    ema: EmaConfig = EmaConfig()
    views: ViewsConfig = ViewsConfig()
    augment: AugmentConfig = AugmentConfig()
    rates: RatesConfig = RatesConfig()
    average: AverageConfig = AverageConfig()
    look: LookConfig = LookConfig()
    epochs: float = Field(default=15.0, gt=0)
    batch: int = Field(default=64, ge=2)
    micro_batch: int | None = Field(default=None, ge=2)
    negatives: Literal["micro_batch", "cached"] = "micro_batch"
    checkpointing: bool = False
    cache_towers: bool = True
    optim: OptimConfig = OptimConfig(lr=1e-4, betas=(0.9, 0.95), schedule="cosine")
    device: str = "auto"
    directory: str = "runs/jepa"
    checkpoint_every: int = Field(default=200, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> AlignConfig:
        if self.micro_batch is not None and self.micro_batch > self.batch:
            raise ValueError(f"micro_batch={self.micro_batch} is more than batch={self.batch}")
        if self.loss.queue and self.loss.contrastive != "infonce":
            raise ValueError(
                "loss.queue adds negatives to InfoNCE; SigLIP has none. Set loss.contrastive=infonce"
            )
        if self.loss.queue and not self.average.decay:
            raise ValueError(
                "loss.queue holds embeddings of the moving average; set average.decay, such as 0.999"
            )
        return self

    @property
    def forward(self) -> int:
        """Pairs of a forward pass."""
        return self.micro_batch or self.batch

    def compared(self) -> int:
        """Pairs that a contrastive loss sees at once."""
        return self.batch if self.negatives == "cached" else self.forward
