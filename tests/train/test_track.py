"""Trackers are told what metrics.jsonl is told, before training if they cannot be, and no secret."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, on_main_process

from sutura.core.errors import UserError
from sutura.core.log import read_metrics
from sutura.train import track
from sutura.train.config import TrackConfig
from sutura.train.loop import fit
from sutura.train.track import check_trackers, flat, tracked


class Fake(GeneralTracker):
    """What a tracker of one's own looks like; keeps what it is told."""

    name = "fake"
    requires_logging_directory = True
    told: dict[str, Any]
    fails_at: int | None = None
    failure: Exception = ConnectionError("no network")

    def __init__(self, run_name: str, logging_dir: str, **kwargs: Any) -> None:
        super().__init__()
        Fake.told = {"project": run_name, "where": logging_dir, "rows": {}, "finished": False}

    @property
    def tracker(self) -> Any:
        return self.told

    @on_main_process
    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.told["settings"] = values

    @on_main_process
    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        if step == self.fails_at:
            raise self.failure
        self.told["rows"][step] = values

    @on_main_process
    def finish(self) -> None:
        self.told["finished"] = True


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    """Registered as accelerate wants it."""
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "fake", Fake)
    try:
        from accelerate.tracking import register_tracker_class
    except ImportError:  # older accelerate keeps the same table, without a function for it
        pass
    else:
        del LOGGER_TYPE_TO_CLASS["fake"]
        register_tracker_class(Fake)
    monkeypatch.setattr(Fake, "fails_at", None)
    return Fake


def run(
    toy: Any, folder: Path, settings: dict[str, Any] | None = None, model: Any = None, **options: Any
) -> Any:
    model = model or toy.model()
    config = TrackConfig(to=("fake",), project="mine")
    with tracked(config, run="one", directory=folder / "track", settings=settings or {}) as log:
        return fit(
            model,
            toy.objective,
            toy.feed(4),
            toy.optim,
            seed=0,
            directory=folder / "run",
            on_step=log,
            **options,
        )


def test_a_tracker_is_told_what_the_metrics_file_is_told(toy: Any, fake: type[Fake], tmp_path: Path) -> None:
    result = run(toy, tmp_path, evaluate=lambda model, step: {"score": step * 2}, evaluate_every=2)
    assert fake.told["project"] == "mine"
    assert Path(fake.told["where"]) == tmp_path / "track"
    rows = list(read_metrics(result.history))
    assert [fake.told["rows"][row["step"]]["loss"] for row in rows] == [row["loss"] for row in rows]
    assert fake.told["rows"][4]["evaluation/score"] == 8
    assert fake.told["finished"]


def test_no_secret_reaches_a_tracker(
    toy: Any, fake: type[Fake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted under a name of its own, in a list, and inside another text from the environment."""
    monkeypatch.setenv("HF_TOKEN", "hf_planted0123456789")
    settings = {
        "hub": {"token": "planted-one", "api_keys": [1], "nested": {"WANDB_API_KEY": "planted-two"}},
        "data": {"path": "https://user:hf_planted0123456789@example.org/x"},
        "prompt": {"max_tokens": 128},
        "none": None,
    }
    run(toy, tmp_path, settings)
    told = fake.told["settings"]
    assert "planted" not in str(told)
    assert told["hub.token"] == "(hidden)"
    assert told["data.path"] == "https://user:(hidden)@example.org/x"
    assert told["prompt.max_tokens"] == 128, "a number of tokens is no secret"
    assert all(isinstance(value, str | int | float | bool) for value in told.values())


def test_a_tracker_that_fails_does_not_take_the_run_with_it(
    toy: Any, fake: type[Fake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(track, "say", said.append)
    monkeypatch.setattr(Fake, "fails_at", 2)
    result = run(toy, tmp_path)
    assert list(fake.told["rows"]) == [1]
    assert said == ["Tracker 'fake' failed at step 2 and is left out from here: no network"]
    assert len(list(read_metrics(result.history))) == 4


def test_a_tracker_that_is_broken_is_a_sentence(
    toy: Any, fake: type[Fake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fake, "fails_at", 2)
    monkeypatch.setattr(Fake, "failure", KeyError("loss"))
    with pytest.raises(UserError, match=r"Tracker 'fake' failed at step 2: 'loss'\. Leave it out"):
        run(toy, tmp_path)
    assert fake.told["finished"]


def test_a_run_that_fails_closes_its_trackers(toy: Any, fake: type[Fake], tmp_path: Path) -> None:
    frozen = toy.model().requires_grad_(False)
    with pytest.raises(UserError, match="frozen"):
        run(toy, tmp_path, model=frozen)
    assert fake.told["finished"]


def test_a_tracker_that_is_not_there_is_told_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    import accelerate.tracking

    monkeypatch.setattr(accelerate.tracking, "_available_trackers", [])
    for name in ("wandb", "tensorboard", "trackio", "mlflow"):
        with pytest.raises(UserError, match=rf"'{name}'.*not installed: pip install {name}"):
            check_trackers([name])
    with pytest.raises(UserError, match=r"'wandbb', which is no tracker\. Did you mean 'wandb'"):
        check_trackers(["wandbb"])
    check_trackers([])


def test_a_tracker_that_does_not_start_is_a_sentence(
    toy: Any, fake: type[Fake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(self: Any) -> None:
        raise RuntimeError("no key\nand much more")

    monkeypatch.setattr(Fake, "start", refuses, raising=False)
    with pytest.raises(UserError, match=r"could not be started: no key Log in to it"):
        run(toy, tmp_path)


@pytest.mark.skipif(
    find_spec("tensorboard") is None and find_spec("tensorboardX") is None,
    reason="tensorboard is not installed; it is no dependency",
)
def test_tensorboard_writes_its_files(toy: Any, tmp_path: Path) -> None:
    config = TrackConfig(to=("tensorboard",))
    with tracked(config, run="one", directory=tmp_path, settings={"a": {"b": 1}, "c": None}) as log:
        fit(toy.model(), toy.objective, toy.feed(2), toy.optim, seed=0, directory=None, on_step=log)
    assert list((tmp_path / "sutura").glob("events.out.*"))


def test_settings_become_numbers_and_texts() -> None:
    assert flat({"a": {"b": 1, "c": [1, 2]}, "d": None, "e": True}) == {
        "a.b": 1,
        "a.c": "[1, 2]",
        "d": "None",
        "e": True,
    }
