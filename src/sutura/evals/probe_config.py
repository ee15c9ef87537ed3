"""What a config can say of probes. No torch here, so that a config is read in a moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from sutura.core.config import Section, apply_overrides, parse
from sutura.core.errors import UserError
from sutura.core.registry import suggest
from sutura.data.label_source import LabelSource, label_source
from sutura.encoders.config import EncoderConfig

KINDS = ("linear", "knn", "attentive", "fewshot", "zeroshot")
#: Of an encoder that has no text tower.
USUAL = ("linear", "knn", "attentive", "fewshot")


class LinearConfig(Section):
    """Logistic regression on pooled features, solved to its optimum: there is no learning rate to choose.

    Args:
        penalties: weight decays to choose among on the selection part.
        steps: the most L-BFGS takes; a fit that needs more is counted and told.
    """

    penalties: tuple[float, ...] = Field(
        default=(1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0), min_length=1
    )
    steps: int = Field(default=500, ge=1)


class KnnConfig(Section):
    """Nearest neighbours by cosine.

    Args:
        ks: numbers of neighbours to choose among on the selection part.
        temperature: a neighbour's vote weighs exp(cosine / temperature).
    """

    ks: tuple[int, ...] = Field(default=(1, 5, 10, 20), min_length=1)
    temperature: float = Field(default=0.07, gt=0)


class AttentiveConfig(Section):
    """One learned query that attends over all patches, and a linear classifier behind it.

    Args:
        lrs, weight_decays: the grid to choose from on the selection part.
        epochs: passes over the pictures fitted on.
        batch: pictures a step.
        heads: of the attention; one for every 64 channels by default.
    """

    lrs: tuple[float, ...] = Field(default=(3e-4, 1e-3, 3e-3), min_length=1)
    weight_decays: tuple[float, ...] = Field(default=(0.01, 0.1), min_length=1)
    epochs: int = Field(default=10, ge=1)
    batch: int = Field(default=128, ge=1)
    heads: int | None = Field(default=None, ge=1)


class FewShotConfig(Section):
    """The linear probe on a few pictures a class.

    Args:
        shots: pictures a class.
        draws: of these pictures; the interval covers what the draw changes.
    """

    shots: tuple[int, ...] = Field(default=(1, 5, 10), min_length=1)
    draws: int = Field(default=5, ge=2)


class ZeroShotConfig(Section):
    """Class names in sentences, for encoders with a text tower.

    Args:
        templates: sentences with `{}` where the class name goes; None takes those that fit the data.
    """

    templates: tuple[str, ...] | None = None


class ProbeFeatures(Section):
    """The cache of frozen features, the one stitches are trained from.

    Args:
        dtype: precision on disk.
        batch: pictures encoded at once.
    """

    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    batch: int = Field(default=64, ge=1)


class ProbeConfig(Section):
    """Encoders, labelled pictures and the probes put on them.

    Args:
        resamples: of every bootstrap.
        seed: of few-shot draws, of the attentive probe, of bootstraps.
        runs: holds the cache of features under `features`.
    """

    encoders: tuple[EncoderConfig, ...] = Field(min_length=1)
    data: LabelSource = LabelSource()
    kinds: tuple[str, ...] = Field(default=USUAL, min_length=1)
    linear: LinearConfig = LinearConfig()
    knn: KnnConfig = KnnConfig()
    attentive: AttentiveConfig = AttentiveConfig()
    fewshot: FewShotConfig = FewShotConfig()
    zeroshot: ZeroShotConfig = ZeroShotConfig()
    features: ProbeFeatures = ProbeFeatures()
    resamples: int = Field(default=1000, ge=100)
    seed: int = 0
    device: str = "auto"
    runs: str = "runs"

    @model_validator(mode="after")
    def _rows_are_distinct(self) -> ProbeConfig:
        names = [row.display_name() for row in self.encoders]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two encoders are called {name!r}; give one of them a name of its own")
        for kind in self.kinds:
            if kind not in KINDS:
                raise ValueError(f"there is no probe {kind!r}. {suggest(kind, KINDS)}")
        return self


def probe_config(
    encoders: Sequence[Any],
    data: str | Mapping[str, Any] | LabelSource,
    kinds: str | Sequence[str] | None,
    overrides: Sequence[str] = (),
    **sections: Any,
) -> ProbeConfig:
    """A config from what a person gives.

    Args:
        encoders: ids, or configs' values.
        data: see `label_source`.
        kinds: names, or one text with commas between them; None takes the usual ones.
        overrides: `section.key=value`.
        sections: further values of the config.

    Raises:
        UserError: no encoder, no such data, or values that do not fit.
    """
    if not encoders:
        raise UserError("No encoder to probe was given (--encoder zoo:clip, say).")
    names = kinds.split(",") if isinstance(kinds, str) else list(USUAL if kinds is None else kinds)
    values = {
        "encoders": [row.model_dump() if isinstance(row, EncoderConfig) else row for row in encoders],
        "data": label_source(data).model_dump(exclude_unset=True),
        "kinds": [name.strip().replace("-", "") for name in names if name.strip()],
        **sections,
    }
    return parse(ProbeConfig, apply_overrides(values, overrides), where="the probe")
