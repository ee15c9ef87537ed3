"""The settings of a pretraining run, and what each means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from sutura.core.config import Section, apply_overrides, merge, parse, read_preset
from sutura.data.picture_source import PictureSource
from sutura.nn.masking import MultiBlock
from sutura.train.config import OptimConfig


class SupervisedConfig(Section):
    """Options of training with labels, all off by default.

    Args:
        smoothing: share of a label's weight that goes to all labels alike.
        mixup: of the Beta distribution that pairs of pictures, and their labels, are mixed by; 0 mixes none.
    """

    smoothing: float = Field(default=0.0, ge=0, lt=1)
    mixup: float = Field(default=0.0, ge=0)


class ClipConfig(Section):
    """The text tower of CLIP, SigLIP and EVA's second stage, and the space where the towers meet."""

    dim: int = Field(default=128, ge=1)
    text_width: int = Field(default=128, ge=1)
    text_depth: int = Field(default=2, ge=1)
    text_heads: int = Field(default=4, ge=1)


class SiglipConfig(Section):
    """Where SigLIP's scale and bias start; its towers are those of `clip`.

    Args:
        log_scale: log of the inverse temperature.
        bias: added to every logit.
    """

    log_scale: float = 2.302585
    bias: float = -10.0


class MaeConfig(Section):
    """MAE's decoder, and the share of patches it hides."""

    decoder_width: int = Field(default=64, ge=4)
    decoder_depth: int = Field(default=2, ge=1)
    decoder_heads: int = Field(default=4, ge=1)
    ratio: float = Field(default=0.75, gt=0, lt=1)


class EvaConfig(Section):
    """EVA's two stages.

    Args:
        target: what stage one predicts of hidden patches: `clip` a teacher's features, as the paper does, or
            `pixels`, as tutorials describe it.
        teacher: `zoo:clip` or a zoo folder.
        first: share of the passes that stage one takes; the rest is CLIP.
        ratio: share of patches hidden in stage one.
    """

    target: Literal["clip", "pixels"] = "clip"
    teacher: str = "zoo:clip"
    first: float = Field(default=0.5, gt=0, lt=1)
    ratio: float = Field(default=0.4, gt=0, lt=1)


class IjepaConfig(Section):
    """I-JEPA's predictor, masks, targets and moving average.

    Args:
        hidden: what is predicted: the paper's `rectangles`, or as in MAE `scattered` patches, a share `ratio` of all.
        ratio: of scattered patches.
        momentum: of the target encoder at the first step; it rises linearly to 1. At 1 the target encoder stays as it
            began, with random weights.
        keep: the encoder to use afterwards: the `target` encoder, as in the paper, or the `context` encoder, which is
            the one that learned where the target encoder hardly moves.
        levels: what of the target encoder is predicted: its `last` block, as in the paper, or the mean over `all`.
        normalise: how targets are normalised: each patch over its own width, as the paper has it, or by its
            `place` over the pictures of the batch (LOG.md, 2026-11-21, says why).
        distance: to the targets: `smooth_l1` as in the paper's code, or `l2` as in its text.
    """

    predictor_width: int = Field(default=64, ge=4)
    predictor_depth: int = Field(default=3, ge=1)
    predictor_heads: int = Field(default=4, ge=1)
    hidden: Literal["rectangles", "scattered"] = "rectangles"
    ratio: float = Field(default=0.75, gt=0, lt=1)
    targets: int = Field(default=4, ge=1)
    target_scale: tuple[float, float] = (0.15, 0.2)
    target_aspect: tuple[float, float] = (0.75, 1.5)
    context_scale: tuple[float, float] = (0.85, 1.0)
    context_aspect: tuple[float, float] = (0.8, 1.25)
    least_context: int = Field(default=10, ge=1)
    momentum: float = Field(default=0.99, ge=0, le=1)
    keep: Literal["target", "context"] = "target"
    levels: Literal["last", "all"] = "last"
    normalise: Literal["place", "patch"] = "place"
    distance: Literal["smooth_l1", "l2"] = "smooth_l1"

    @model_validator(mode="after")
    def _what_is_kept_has_learned(self) -> IjepaConfig:
        if self.momentum == 1 and self.keep == "target":
            raise ValueError(
                "momentum=1 leaves the target encoder as it began; keep=context keeps the one that learns"
            )
        return self

    def masks(self, grid: tuple[int, int]) -> MultiBlock:
        """The mask sampler."""
        return MultiBlock(
            grid,
            targets=self.targets,
            target_scale=self.target_scale,
            target_aspect=self.target_aspect,
            context_scale=self.context_scale,
            context_aspect=self.context_aspect,
            least_context=self.least_context,
        )


class MethodConfig(Section):
    """What the methods need beyond the encoder; a run reads its own method's part."""

    supervised: SupervisedConfig = SupervisedConfig()
    clip: ClipConfig = ClipConfig()
    siglip: SiglipConfig = SiglipConfig()
    mae: MaeConfig = MaeConfig()
    eva: EvaConfig = EvaConfig()
    ijepa: IjepaConfig = IjepaConfig()


class VitConfig(Section):
    """The encoder, the same for every objective."""

    image_size: int = Field(default=64, ge=8)
    patch_size: int = Field(default=8, ge=1)
    width: int = Field(default=128, ge=4)
    depth: int = Field(default=6, ge=1)
    heads: int = Field(default=4, ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0)

    def args(self) -> dict[str, Any]:
        """Keyword arguments of `ViT`."""
        return {**self.resolved(), "pooling": "mean", "positions": "learned"}


class PicturesConfig(Section):
    """The pictures that pretraining sees, and how they are brought to the encoder.

    Args:
        source: where they come from.
        count: the built-in world: different pictures.
        captions: the most for one picture; a pass draws one of them.
        seed: the built-in world: its own.
        shift: the most a picture moves at each pass, in pixels.
        flip: whether a picture is mirrored at every second pass, drawn; wrong where sides are answers.
        crop: range of a picture's area that a pass sees, cut out at random and resized; None sees all.
        mean, std: of the colours, per channel in 0 to 1; part of the encoder from then on.
        cache: folder for the pictures as the encoder takes them, shared by all objectives.
    """

    source: PictureSource = PictureSource()
    count: int = Field(default=24_000, ge=2)
    captions: int = Field(default=4, ge=1)
    seed: int = 0
    shift: int = Field(default=4, ge=0)
    flip: bool = False
    crop: tuple[float, float] | None = None
    mean: tuple[float, float, float] = (0.70, 0.69, 0.69)
    std: tuple[float, float, float] = (0.14, 0.14, 0.14)
    cache: str = "runs/cache/scenes"


class CheckConfig(Section):
    """The look at the encoder after (and, for its rank, during) training, on pictures of the selection split.

    Args:
        fitted, scored: pictures that the linear probe is fitted on and scored on.
        watched: pictures whose features the collapse measures are taken from.
        every: steps between two such looks while training; 0 looks at the end only.
        on_collapse: what a collapsed encoder does to the run: `warn` says so and goes on, `stop` ends it.
    """

    fitted: int = Field(default=2000, ge=2)
    scored: int = Field(default=1000, ge=2)
    watched: int = Field(default=512, ge=8)
    every: int = Field(default=200, ge=0)
    on_collapse: Literal["warn", "stop"] = "warn"


class PretrainConfig(Section):
    """One pretraining run. Presets that are compared differ in `name` and `objective`, and nothing else.

    Args:
        objective: a name in `METHODS`.
        passes: pictures seen, repeats counted; the budget that objectives share.
        batch: pictures a step.
        seed: of the first weights, the order of pictures and every draw.
        device: to train on.
        directory: receives the run as `<name>-<hash of this config>`.
        checkpoint_every: steps; a run that was stopped goes on from the last one.
    """

    name: str
    objective: str
    seed: int = 0
    passes: int = Field(default=102_400, ge=2)
    batch: int = Field(default=128, ge=2)
    vit: VitConfig = VitConfig()
    pictures: PicturesConfig = PicturesConfig()
    methods: MethodConfig = MethodConfig()
    optim: OptimConfig = OptimConfig(lr=1e-3, weight_decay=0.05, schedule="cosine", warmup=50)
    check: CheckConfig = CheckConfig()
    device: str = "auto"
    directory: str = "runs/zoo"
    checkpoint_every: int = Field(default=200, ge=0)


#: Of ImageNet's training pictures, as torchvision's models and most others take photographs.
PHOTOGRAPHS = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def pretrain_settings(
    objective: str, data: str = "world", preset: str = "pretrain/tiny", overrides: Sequence[str] = ()
) -> PretrainConfig:
    """The config of a run as the command line asks for it.

    Args:
        objective: a name in `METHODS`.
        data: as `pictures.source.path`. Pictures that are not the world's are normalised as photographs are,
            where the preset and the overrides do not say how.
        preset: a shipped preset or a YAML file.
        overrides: `section.key=value`, which win over all else.
    """
    asked = {"name": objective, "objective": objective, "pictures": {"source": {"path": data}}}
    colours = {} if data == "world" else {"pictures": PHOTOGRAPHS}
    values = merge(merge(colours, read_preset(preset)), asked)
    return parse(PretrainConfig, apply_overrides(values, overrides), where=f"preset {preset!r}")
