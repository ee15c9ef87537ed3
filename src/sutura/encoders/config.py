"""What an encoder row of a config can say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from sutura.core.config import Section

FUSED = "fused:"
RUN_ENCODER = "encoder"
"""Where a pretraining run keeps its encoder: beside its checkpoints."""


class TransformConfig(Section):
    """How a picture becomes pixels, for a checkpoint that does not bring this with it.

    Args:
        image_size: side of the square the encoder sees.
        mean: subtracted from colours in 0 to 1.
        std: divides them after it.
        resize: `squash` brings both sides to the square, `crop` brings the shorter side and cuts the centre
            out.
        interpolation: of the resizing.
    """

    image_size: int = Field(gt=0)
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: Literal["squash", "crop"]
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bicubic"

    @field_validator("std")
    @classmethod
    def _positive(cls, std: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(std) <= 0:
            raise ValueError("every std must be above 0")
        return std


class EncoderConfig(Section):
    """Which encoder, and which of its features.

    Args:
        id: a catalog name; `zoo:NAME`; a local folder in transformers', timm's, open_clip's or the zoo's
            format, or that of a pretraining run with its encoder inside;
            `hf:org/name`, `timm:NAME` or `open_clip:NAME/TAG` for the Hub; or another package's encoder. `fused:A+B`
            is two encoders side by side.
        layer: the block whose output is read; -1 is the last, -2 the one before it, 0 the first.
        final_norm: whether the model's own final norm is applied to that output.
        tokens: how many patches to hand on; None hands on as many as there are.
        image_size: another side than the checkpoint's own, by the library's position interpolation.
        revision: branch, tag or commit on the Hub; what it resolved to stands in the facts.
        trust_remote_code: whether code from the Hub may run.
        untrained_seed: the same architecture with random weights from this seed: the untrained control.
        trained: False for a checkpoint whose weights are random: it stands in reports as an untrained control.
        name: for tables; by default the id's last part, or the run's folder for the `encoder` of a pretraining run.
        transform: for a folder that does not say how pictures are to be prepared.
        fuse: encoders whose features of a patch stand side by side, each a row of its own; `tokens` is common to all.
    """

    id: str = Field(min_length=1)
    layer: int = -1
    final_norm: bool = False
    tokens: int | None = Field(default=None, gt=0)
    image_size: int | None = Field(default=None, gt=0)
    revision: str | None = None
    trust_remote_code: bool = False
    untrained_seed: int | None = None
    trained: bool = True
    name: str | None = None
    transform: TransformConfig | None = None
    fuse: tuple[EncoderConfig, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _said(cls, values: Any) -> Any:
        """A text alone is an id. `fused:A+B` and `fuse: [A, B]` say the same; each fills in the other."""
        if isinstance(values, str):
            values = {"id": values}
        if not isinstance(values, Mapping):
            return values
        given = dict(values)
        name = str(given.get("id") or "")
        if name.startswith(FUSED) and not given.get("fuse"):
            given["fuse"] = [part for part in name.removeprefix(FUSED).split("+") if part]
        if given.get("fuse"):
            parts = [{"id": part} if isinstance(part, str) else part for part in given["fuse"]]
            ids = [str(part.get("id") if isinstance(part, Mapping) else part.id) for part in parts]
            given |= {"fuse": parts, "id": FUSED + "+".join(ids)}
        return given

    @model_validator(mode="after")
    def _parts_are_two(self) -> EncoderConfig:
        if self.id.startswith(FUSED) and len(self.fuse) < 2:
            raise ValueError("a fused encoder has at least two parts: fused:A+B, or fuse: [A, B]")
        own = ("layer", "final_norm", "image_size", "revision", "transform", "trust_remote_code")
        set_here = [name for name in own if getattr(self, name) != type(self).model_fields[name].default]
        if self.fuse and set_here:
            raise ValueError(f"{', '.join(set_here)} of a fused encoder belong to its parts")
        return self

    def parts(self) -> tuple[EncoderConfig, ...]:
        """The rows whose features are kept: the parts of a fused one, with its tokens and seed; else this row."""
        common = {
            name: value for name in ("tokens", "untrained_seed") if (value := getattr(self, name)) is not None
        }
        return tuple(part.model_copy(update=common) for part in self.fuse) or (self,)

    def display_name(self) -> str:
        """The name for tables."""
        if self.name:
            return self.name
        if self.fuse:
            return "+".join(part.display_name() for part in self.fuse)
        last = self.id.rstrip("/").split(":")[-1]
        if not self.id.startswith("open_clip:"):
            *before, last = last.split("/")
            if last == RUN_ENCODER and before and before[-1].strip("."):
                last = before[-1]
        return last if self.untrained_seed is None else f"{last} (untrained)"
