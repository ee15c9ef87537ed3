"""The folder that snippets and commands run in, and a comparison made small enough for a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


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

    Plans keep theirs but for the number of encoders: one.
    """
    import sutura.compare.plan_text as plans
    import sutura.compare.run as module

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
