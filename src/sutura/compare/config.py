"""What a comparison is: encoders, one protocol for all of them, data, controls, seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from sutura.core.config import Section
from sutura.data.sources import VqaSource
from sutura.encoders.config import EncoderConfig
from sutura.evals.config import EvaluateConfig
from sutura.stitch.config import LlmConfig, ProjectorConfig, PromptConfig
from sutura.train.config import FeedConfig, OptimConfig, TrackConfig


class EncoderSettings(Section):
    """What holds for every encoder of the comparison; a row's own value wins over it.

    Args:
        tokens: picture tokens given to the language model; None leaves each encoder's own number.
        layer: which block's output; -1 is the last.
        final_norm: whether the encoder's own final norm is applied to it.
        train: `none` keeps it frozen; `last_k` or `all` trains it too, and then rows no longer isolate the encoder.
        last_k: blocks that train under `last_k`.
    """

    tokens: int | None = None
    layer: int | None = None
    final_norm: bool | None = None
    train: Literal["none", "last_k", "all"] = "none"
    last_k: int = Field(default=2, ge=1)


def _as_test(value: Any) -> Any:
    return {"benchmark": value} if isinstance(value, str) else value


class TestSet(Section):
    """One benchmark to score on.

    Args:
        benchmark: a row of the benchmark table, or `local:NAME` for data of your own.
        data: laid over the row's data (path, limit, columns, …).
        allow_training: accept a training split; such a score says how well a model remembers.
    """

    __test__ = False

    benchmark: str
    data: dict[str, Any] = Field(default_factory=dict)
    allow_training: bool = False


class DataSettings(Section):
    """Which data.

    Args:
        train: what every stitch is trained on.
        test: benchmarks to score on; a plain name stands for one without changes.
        select: what `optim.lr_sweep` chooses learning rates on and learning curves (`curve.points`) are measured on; it
            shares no picture with training or test data.
        overlap: look for test pictures among the training pictures before anything is scored.
        leave_out: what is found so (the same pixels, or a re-encoded or resized copy) is left out of training and
            selection, and counted. Sets made of the same photographs are separated by it.
    """

    train: VqaSource
    test: tuple[Annotated[TestSet, BeforeValidator(_as_test)], ...] = Field(min_length=1)
    select: VqaSource | None = None
    overlap: bool = True
    leave_out: bool = False

    @model_validator(mode="after")
    def _looks_before_it_leaves_out(self) -> DataSettings:
        if self.leave_out and not self.overlap:
            raise ValueError(
                "leave_out needs overlap=true: copies that are not looked for cannot be left out"
            )
        return self


class Controls(Section):
    """What stands beside every score.

    Args:
        blind: the same training without picture tokens.
        untrained: this encoder again with random weights, trained like the others; None leaves it out.
        wrong_picture: every trained stitch again with the pictures swapped.
        majority: the most frequent training answer of each question type.
        text_ceiling: the language model reading the scene in words; the built-in world only.
    """

    blind: bool = True
    untrained: EncoderConfig | None = None
    wrong_picture: bool = True
    majority: bool = True
    text_ceiling: bool = False


class CurveSettings(Section):
    """Learning curves: small evaluations on the selection split while a cell trains. Off by default.

    They change nothing of the training. A cell with a curve is another cell than one without, so that switching them
    on computes the cells anew.

    Args:
        points: how many, evenly spaced over the run, the end included, and one more before the first step; 0 for none.
        items: questions asked at each: the first so many of `data.select`.
        levels: accuracies, 0 to 1, for which the answers needed to reach them are told; without any, one is chosen
            halfway between the blind run's end and the best end.
    """

    points: int = Field(default=0, ge=0)
    items: int = Field(default=350, ge=2)
    levels: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()


class FeatureSettings(Section):
    """The cache of frozen features.

    Args:
        cache: keep what the projector reads on disk, so that each picture is encoded once.
        dtype: precision on disk.
        batch: pictures encoded at once.
    """

    cache: bool = True
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    batch: int = Field(default=64, ge=1)


class Engine(Section):
    """Where and how cells run; nothing here changes a result's meaning.

    Args:
        workers: cells trained at the same time, each in a process of its own; 0 runs them in this one.
        threads: CPU threads of each worker; None divides the processors among the workers.
        device: of training and evaluation.
        checkpoint_every: optimizer steps between checkpoints of a cell in flight; 0 writes none.
        shard: `fsdp` lays the frozen blocks over the processes of a run started as several.
    """

    workers: int = Field(default=0, ge=0)
    threads: int | None = None
    device: str = "auto"
    checkpoint_every: int = Field(default=0, ge=0)
    shard: Literal["none", "fsdp"] = "none"


class HubSettings(Section):
    """Sending results to the Hub while they are made.

    Args:
        push: send every cell when it is finished, and the whole with its card at the end.
        repo: "org/name"; HF_REPO_ID of the environment or of `.env` by default.
        private: of a repository that is made now; a public one is refused while this is set.
        thumbnails: also send what a stitch remembers of its training pictures, 32 × 32 thumbnails included.
    """

    push: bool = False
    repo: str | None = None
    private: bool = True
    thumbnails: bool = False


class CompareConfig(Section):
    """A whole comparison. Editable as Python data, as YAML, and with `section.key=value` on the command line.

    `remarks` are sentences that the report repeats: what a reader must know and no file says.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]*$")
    encoders: tuple[EncoderConfig, ...] = Field(min_length=1)
    encoder: EncoderSettings = EncoderSettings()
    projector: ProjectorConfig = ProjectorConfig()
    llm: LlmConfig = LlmConfig()
    prompt: PromptConfig = PromptConfig()
    data: DataSettings
    feed: FeedConfig = FeedConfig()
    optim: OptimConfig = OptimConfig(schedule="constant", warmup=100)
    evaluate: EvaluateConfig = EvaluateConfig()
    controls: Controls = Controls()
    curve: CurveSettings = CurveSettings()
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    features: FeatureSettings = FeatureSettings()
    engine: Engine = Engine()
    track: TrackConfig = TrackConfig()
    hub: HubSettings = HubSettings()
    remarks: tuple[str, ...] = ()
    runs: str = "runs"

    @model_validator(mode="after")
    def _rows_are_distinct(self) -> CompareConfig:
        names = [row.display_name() for row in self.encoder_rows()]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two encoder rows are called {name!r}; give one of them a name of its own")
        if self.optim.lr_sweep and self.data.select is None:
            raise ValueError(
                "optim.lr_sweep needs data.select, a selection split: the training source again with part=select, "
                "say, and part=fit for training"
            )
        if self.curve.points and self.data.select is None:
            raise ValueError(
                "curve.points needs data.select, a selection split that no score reads: {source: world, split: select, "
                "limit: 50}, or the training source again with part=select and part=fit for training"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} repeat; a repeated seed is the same run twice")
        return self

    @property
    def reads_selection(self) -> bool:
        """Whether anything of the comparison looks at `data.select`."""
        return bool(self.optim.lr_sweep or self.curve.points)

    def resolved(self) -> dict[str, Any]:
        """As it is run: every row with the common settings in it, so that parsed again it runs the same."""
        values = super().resolved()
        rows = [row.resolved() for row in self.encoder_rows()]
        if self.controls.untrained is not None:
            values["controls"]["untrained"] = rows.pop()
        return values | {"encoders": rows}

    def encoder_rows(self) -> list[EncoderConfig]:
        """Every encoder with the common settings filled in, the untrained control last."""
        rows = list(self.encoders)
        if self.controls.untrained is not None:
            control = self.controls.untrained
            seed = control.untrained_seed if control.untrained_seed is not None else 0
            rows.append(
                control.model_copy(update={"untrained_seed": seed, "name": control.name or "untrained"})
            )
        common = {
            name: value
            for name in ("tokens", "layer", "final_norm")
            if (value := getattr(self.encoder, name)) is not None
        }
        return [_filled(row, common) for row in rows]


def _filled(row: EncoderConfig, common: Mapping[str, Any]) -> EncoderConfig:
    """A row with the common settings that it does not set itself; a fused one hands layer and norm to its parts."""
    missing = {name: value for name, value in common.items() if name not in row.model_fields_set}
    if row.fuse:
        inner = {name: value for name, value in common.items() if name != "tokens"}
        missing = {name: value for name, value in missing.items() if name == "tokens"}
        missing["fuse"] = tuple(_filled(part, inner) for part in row.fuse)
    return row.model_copy(update=missing)
