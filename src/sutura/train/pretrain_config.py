"""The settings of a pretraining run, and what each means."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from sutura.core.config import Section
from sutura.nn.masking import MultiBlock
from sutura.train.optim import OptimConfig


class ClipConfig(Section):
    """CLIP's text tower and the space where the towers meet."""

    dim: int = Field(128, ge=1)
    text_width: int = Field(128, ge=1)
    text_depth: int = Field(2, ge=1)
    text_heads: int = Field(4, ge=1)


class IjepaConfig(Section):
    """I-JEPA's predictor, masks and moving average.

    Args:
        momentum: of the target encoder at the first step; it rises linearly to 1.
    """

    predictor_width: int = Field(64, ge=4)
    predictor_depth: int = Field(3, ge=1)
    predictor_heads: int = Field(4, ge=1)
    targets: int = Field(4, ge=1)
    target_scale: tuple[float, float] = (0.15, 0.2)
    target_aspect: tuple[float, float] = (0.75, 1.5)
    context_scale: tuple[float, float] = (0.85, 1.0)
    context_aspect: tuple[float, float] = (0.8, 1.25)
    least_context: int = Field(10, ge=1)
    momentum: float = Field(0.99, ge=0, lt=1)

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

    clip: ClipConfig = ClipConfig()
    ijepa: IjepaConfig = IjepaConfig()


class VitConfig(Section):
    """The encoder, the same for every objective."""

    image_size: int = Field(64, ge=8)
    patch_size: int = Field(8, ge=1)
    width: int = Field(128, ge=4)
    depth: int = Field(6, ge=1)
    heads: int = Field(4, ge=1)
    mlp_ratio: float = Field(4.0, gt=0)

    def args(self) -> dict[str, Any]:
        """Keyword arguments of `ViT`."""
        return {**self.resolved(), "pooling": "mean", "positions": "learned"}


class PicturesConfig(Section):
    """The world's pictures that pretraining sees, and how they are brought to the encoder.

    Args:
        count: different pictures.
        captions: written for each; a pass draws one of them.
        seed: of the world.
        shift: the most a picture moves at each pass, in pixels.
        mean, std: of the colours, per channel in 0 to 1; part of the encoder from then on.
        cache: folder for the drawn pictures, shared by all objectives.
    """

    count: int = Field(24_000, ge=2)
    captions: int = Field(4, ge=1)
    seed: int = 0
    shift: int = Field(4, ge=0)
    mean: tuple[float, float, float] = (0.70, 0.69, 0.69)
    std: tuple[float, float, float] = (0.14, 0.14, 0.14)
    cache: str = "runs/cache/scenes"


class CheckConfig(Section):
    """The look at the encoder after (and, for its rank, during) training, on pictures of the selection split.

    Args:
        fitted, scored: pictures that the linear probe is fitted on and scored on.
        watched: pictures whose features the collapse measures are taken from.
        every: steps between two such looks while training; 0 looks at the end only.
    """

    fitted: int = Field(2000, ge=2)
    scored: int = Field(1000, ge=2)
    watched: int = Field(512, ge=8)
    every: int = Field(200, ge=0)


class PretrainConfig(Section):
    """One pretraining run. Presets that are compared differ in `name` and `objective`, and nothing else.

    Args:
        objective: a name in `METHODS`.
        passes: pictures seen, repeats counted; the budget that objectives share.
        batch: pictures a step.
        seed: of the first weights, the order of pictures and every draw.
        directory: receives the run as `<name>-<hash of this config>`.
        checkpoint_every: steps; a run that was stopped goes on from the last one.
    """

    name: str
    objective: str
    seed: int = 0
    passes: int = Field(102_400, ge=2)
    batch: int = Field(128, ge=2)
    vit: VitConfig = VitConfig()
    pictures: PicturesConfig = PicturesConfig()
    methods: MethodConfig = MethodConfig()
    optim: OptimConfig = OptimConfig(lr=1e-3, weight_decay=0.05, schedule="cosine", warmup=50)
    check: CheckConfig = CheckConfig()
    directory: str = "runs/zoo"
    checkpoint_every: int = Field(200, ge=0)
