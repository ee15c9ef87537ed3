"""The folder that snippets and commands run in, and a comparison made small enough for a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sutura.core.config import apply_overrides

#: What makes a preset of `sutura jepa` small.
FEW = {
    "jepa/tiny": (
        "data.train_limit=24",
        "data.look_limit=8",
        "data.test_limit=8",
        "batch=8",
        "epochs=1",
        "look.pictures=8",
    ),
    "jepa/conditioned-tiny": (
        "pictures.count=16",
        "pictures.held=8",
        "passes=16",
        "batch=8",
        "micro_batch=8",
        "probe.data=null",
    ),
    "jepa/answer-tiny": (
        "train.limit=12",
        "test.limit=4",
        "feed.epochs=1",
        "feed.batch=16",
        "feed.micro_batch=16",
        "tasks={streams: 2, frames: 16, decodes: [1, 2, 4, 16], classify: 3, gallery: 0, least: 1}",
    ),
}


@pytest.fixture(scope="session")
def zoo() -> Path:
    """The shipped weights; what needs them is left out while they are not built."""
    from sutura.core.config import preset_names
    from sutura.encoders.catalog import zoo_root

    missing = [
        name for name in preset_names("zoo") if not (zoo_root() / name / "model.safetensors").is_file()
    ]
    if missing:
        pytest.skip(f"the zoo lacks {', '.join(missing)}; run `make zoo`")
    return zoo_root()


@pytest.fixture(scope="session")
def place(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photo.jpg` and a barely trained stitch in `my-stitch/`, as CONTRIBUTING promises."""
    from sutura.data.world_vqa import ScenePicture
    from sutura.encoders import EncoderConfig, load_encoder
    from sutura.stitch.bundle import StitchConfig, build_stitch

    folder = tmp_path_factory.mktemp("reader")
    ScenePicture(0, "test", 0, 128).open().save(folder / "photo.jpg")
    config = EncoderConfig(id="zoo:clip", tokens=16)
    encoder = load_encoder(config)
    stitch = build_stitch(StitchConfig(encoder=config), encoder.facts())
    stitch.save(folder / "my-stitch")
    return folder


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparisons keep their config but for size: a few pictures, one seed, one step, this process.

    Plans keep theirs but for the number of encoders: one. Joint embeddings take a few steps.
    """
    import sutura.compare.plan_text as plans
    import sutura.compare.run as module
    import sutura.evals.jepa as joint

    real = module.run

    def run(config: Any, **options: Any) -> Path:
        train = config.data.train.model_copy(update={"limit": 4})
        tests = tuple(t.model_copy(update={"data": {**t.data, "limit": 2}}) for t in config.data.test[:1])
        shrunk = config.model_copy(
            update={
                "encoders": config.encoders[:2],
                "data": config.data.model_copy(update={"train": train, "test": tests}),
                "feed": config.feed.model_copy(update={"epochs": 1.0, "answers": None}),
                "evaluate": config.evaluate.model_copy(update={"max_new_tokens": 2}),
                "seeds": config.seeds[:1],
                "engine": config.engine.model_copy(update={"workers": 0, "device": "cpu", "threads": None}),
            }
        )
        return real(shrunk, **options)

    monkeypatch.setattr(module, "run", run)
    whole = plans.settings

    def settings(*arguments: Any, **options: Any) -> Any:
        config = whole(*arguments, **options)
        return config.model_copy(update={"encoders": config.encoders[:1]})

    monkeypatch.setattr(plans, "settings", settings)

    read = joint.read_preset
    monkeypatch.setattr(joint, "read_preset", lambda name: apply_overrides(read(name), FEW.get(name, ())))
