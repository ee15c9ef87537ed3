"""A whole comparison at toy size: the same code path as `make compare`, minutes shorter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from sutura.compare import compare
from sutura.compare import run as run_module
from sutura.compare.config import CompareConfig
from sutura.compare.grid import CELL, LEDGER
from sutura.compare.publish import report
from sutura.compare.single import evaluate_saved, train_one
from sutura.core.checkpoint import load_tensors, read_json
from sutura.core.config import parse
from sutura.core.errors import UserError
from sutura.core.log import read_metrics
from sutura.evals.config import EvaluateConfig
from sutura.evals.ledger import read_ledger
from sutura.evals.training_record import RECORD
from sutura.models.vit import ViT
from sutura.models.zoo_format import save_zoo_vit
from sutura.stitch.bundle import load_stitch
from tiny_models import save_language_model

VIT = {"image_size": 64, "patch_size": 16, "width": 24, "depth": 2, "heads": 2}


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    save_language_model(folder / "lm")
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        transform = {"image_size": 64, "mean": [0.5] * 3, "std": [0.25] * 3}
        about = {"objective": name, "data": "none"}
        save_zoo_vit(folder / name, ViT(**VIT), args=VIT, transform=transform, about=about, card="tiny")
    return folder


def settings(parts: Path, runs: Path, **changes: Any) -> dict[str, Any]:
    """Two encoders and all controls, one seed."""
    return {
        "name": "toy",
        "encoders": [{"id": str(parts / "one"), "name": "one"}, {"id": str(parts / "two"), "name": "two"}],
        "llm": {"id": str(parts / "lm"), "rank": 4, "dropout": 0.1},
        "data": {
            "train": {"source": "world", "split": "train", "limit": 14, "questions_per_picture": 3},
            "test": [{"benchmark": "world/test", "data": {"limit": 6, "questions_per_picture": 3}}],
        },
        "feed": {"batch": 9, "micro_batch": 6},
        "optim": {"lr": 0.003, "warmup": 1},
        "evaluate": {"max_new_tokens": 4},
        "controls": {"untrained": str(parts / "one"), "text_ceiling": True},
        "seeds": [0],
        "features": {"dtype": "float32"},
        "runs": str(runs),
        **changes,
    }


def cells_of(path: Path) -> dict[tuple[str, str, int], Path]:
    """(encoder, condition, seed) → the cell's directory."""
    names = read_json(path.parent / "comparison.json")["cells"]
    folders = [path.parents[1] / "cells" / name for name in names]
    cells = {folder: read_json(folder / CELL) for folder in folders}
    return {(c["encoder"], c["condition"], c["seed"]): folder for folder, c in cells.items()}


@pytest.fixture(scope="session")
def finished(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a finished comparison."""
    return compare(settings(parts, tmp_path_factory.mktemp("runs")), command="sutura compare")


def test_every_control_stands_beside_every_score(finished: Path) -> None:
    cells = cells_of(finished)
    frame = pl.concat([read_ledger(folder / LEDGER) for folder in cells.values()])
    found = set(frame.select("encoder", "condition").unique().iter_rows())
    looks = {(name, how) for name in ("one", "two", "untrained") for how in ("picture", "wrong-picture")}
    assert found == looks | {("none", "blind"), ("none", "text-ceiling")}
    assert (frame.group_by("encoder", "condition").len()["len"] == 18).all()
    text = finished.read_text()
    for word in (
        "majority",
        "blind",
        "wrong picture",
        "untrained",
        "text-ceiling",
        "overlap",
        "No picture of",
    ):
        assert word.lower() in text.lower(), word


def test_reported_accuracy_is_the_ledgers(finished: Path) -> None:
    folder = cells_of(finished)[("one", "picture", 0)]
    frame = read_ledger(folder / LEDGER).filter(pl.col("condition") == "picture")
    accuracy = 100 * float(frame["exact"].mean())  # type: ignore[arg-type]
    line = next(line for line in finished.read_text().splitlines() if line.startswith("| one |"))
    assert line.split("|")[2].split()[0] == f"{accuracy:.1f}"


def test_finished_cells_are_not_run_again(
    finished: Path, parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, page = finished.read_bytes(), finished.with_suffix(".html").read_bytes()

    def refuse(jobs: list[Any], config: CompareConfig, *_: Any) -> None:
        assert not jobs

    monkeypatch.setattr(run_module, "run_jobs", refuse)
    again = compare(settings(parts, finished.parents[1]), command="sutura compare")
    assert again.read_bytes() == before
    assert report(finished.parent).read_bytes() == before
    assert finished.with_suffix(".html").read_bytes() == page, "pictures at hand and found again are the same"


def test_same_seed_same_bits(finished: Path, parts: Path, tmp_path: Path) -> None:
    """Fault: a seed that stands in the config and is never read."""
    changed = settings(parts, tmp_path, seeds=[0, 1], controls={"blind": False})
    cells, first = cells_of(compare(changed)), cells_of(finished)[("one", "picture", 0)]
    weights = load_tensors(first / "stitch" / "projector.safetensors")
    same = load_tensors(cells[("one", "picture", 0)] / "stitch" / "projector.safetensors")
    other = load_tensors(cells[("one", "picture", 1)] / "stitch" / "projector.safetensors")
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert not all(torch.equal(weights[name], other[name]) for name in weights)


def losses(cell: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(cell / "metrics.jsonl")]


def test_cached_equals_live(finished: Path, parts: Path, tmp_path: Path) -> None:
    live = settings(
        parts, tmp_path, features={"cache": False}, controls={"blind": False, "wrong_picture": False}
    )
    folder = cells_of(compare(live))[("one", "picture", 0)]
    cached = cells_of(finished)[("one", "picture", 0)]
    assert losses(folder) == pytest.approx(losses(cached), rel=1e-4)
    answers = read_ledger(folder / LEDGER)["prediction"]
    seen = read_ledger(cached / LEDGER).filter(pl.col("condition") == "picture")["prediction"]
    assert answers.to_list() == seen.to_list()


def test_workers_equal_one_process(finished: Path, parts: Path, tmp_path: Path) -> None:
    changed = settings(
        parts, tmp_path, engine={"workers": 2, "threads": torch.get_num_threads()}, controls={"blind": False}
    )
    cells = cells_of(compare(changed))
    for name in ("one", "two"):
        assert losses(cells[(name, "picture", 0)]) == losses(cells_of(finished)[(name, "picture", 0)])


def test_a_killed_cell_goes_on_to_the_same_bits(
    finished: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sutura.compare import cell as cell_module

    stitch_loss = cell_module.stitch_loss
    calls = []

    def dies(model: Any, batch: Any, step: int) -> Any:
        calls.append(step)
        if step == 3:
            raise KeyboardInterrupt
        return stitch_loss(model, batch, step)

    changed = settings(parts, tmp_path, engine={"checkpoint_every": 2}, controls={"blind": False})
    monkeypatch.setattr(cell_module, "stitch_loss", dies)
    with pytest.raises(KeyboardInterrupt):
        compare(changed)
    assert not (tmp_path / "toy" / "report.md").exists()
    calls.clear()
    monkeypatch.setattr(cell_module, "stitch_loss", lambda *a: calls.append(a[2]) or stitch_loss(*a))
    cells = cells_of(compare(changed))
    assert calls[0] == 2, "the cell did not go on from its checkpoint"
    assert losses(cells[("one", "picture", 0)]) == losses(cells_of(finished)[("one", "picture", 0)])


def test_two_rows_differ_in_the_encoder_and_nothing_else(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: data order, first weights or dropout differ per encoder.

    Watched at every forward pass of both cells: the questions and their token ids, the state dropout is drawn
    from, and at the first one the trainable weights, are the same; what the encoder says of the pictures is not.
    """
    from sutura.compare import cell as cell_module

    stitch_loss = cell_module.stitch_loss
    seen: list[dict[str, Any]] = []

    def watch(model: Any, batch: Any, step: int) -> Any:
        weights = [p.detach().clone() for p in model.parameters() if p.requires_grad]
        packed = {name: value for name, value in vars(batch.packed).items() if torch.is_tensor(value)}
        seen.append(
            {
                "step": step,
                "ids": batch.ids,
                "packed": packed,
                "drawn from": torch.get_rng_state(),
                "weights": weights,
                "patches": batch.patches,
            }
        )
        return stitch_loss(model, batch, step)

    monkeypatch.setattr(cell_module, "stitch_loss", watch)
    few = {"blind": False, "wrong_picture": False, "majority": False}
    cells = cells_of(compare(settings(parts, tmp_path, controls=few)))
    identity = {name: read_json(cells[(name, "picture", 0)] / CELL)["identity"] for name in ("one", "two")}
    one, two = identity["one"], identity["two"]
    assert {key for key in one if one[key] != two[key]} == {"encoder"}
    half = len(seen) // 2
    assert half > 2
    assert len({ids for call in seen[:half] for ids in call["ids"]}) == 14 * 3
    for mine, theirs in zip(seen[:half], seen[half:], strict=True):
        assert (mine["step"], mine["ids"]) == (theirs["step"], theirs["ids"])
        assert mine["packed"].keys() == theirs["packed"].keys()
        assert all(torch.equal(mine["packed"][name], theirs["packed"][name]) for name in mine["packed"])
        assert torch.equal(mine["drawn from"], theirs["drawn from"])
        assert not torch.equal(mine["patches"], theirs["patches"])
    pairs = list(zip(seen[0]["weights"], seen[half]["weights"], strict=True))
    assert len(pairs) > 4
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_trained_encoder_is_said_not_to_be_isolated(parts: Path, tmp_path: Path) -> None:
    changed = settings(
        parts,
        tmp_path,
        encoders=[{"id": str(parts / "one"), "name": "one"}],
        encoder={"train": "last_k", "last_k": 1},
        controls={"blind": False, "wrong_picture": False},
    )
    path = compare(changed)
    cell = read_json(cells_of(path)[("one", "picture", 0)] / CELL)
    assert cell["trainable"]["encoder"] > 0
    assert "do not isolate the encoder" in path.read_text()
    stitch = load_stitch(cells_of(path)[("one", "picture", 0)] / "stitch", device="cpu")
    fresh = ViT(**VIT)
    assert len(fresh.state_dict())
    assert stitch.encoder is not None
    base = load_tensors(parts / "one" / "model.safetensors")
    moved = [
        n
        for n, t in stitch.encoder.state_dict().items()
        if not torch.equal(t, base.get(n.split("vit.")[-1], t))
    ]
    assert moved


def test_saved_stitches_can_be_asked_and_scored(finished: Path, tmp_path: Path) -> None:
    cells = cells_of(finished)
    folder = cells[("one", "picture", 0)] / "stitch"
    from PIL import Image

    stitch = load_stitch(folder, device="cpu")
    assert isinstance(stitch.ask(Image.new("RGB", (70, 50), "red"), "what colour is the cube?"), str)
    assert stitch.trained_with == {"turns": "shared", "description": None}
    out = tmp_path / "ledger.parquet"
    limits = ["limit=6", "questions_per_picture=3"]
    short = EvaluateConfig(max_new_tokens=4, headline="lenient")
    table = evaluate_saved([folder], "world/test", limits, out=out, config=short)
    assert "lenient, %" in table, "the headline asked for leads"
    scored = read_ledger(out).filter(pl.col("condition") == "picture").sort("item_id")
    cached = read_ledger(folder.parent / LEDGER).filter(pl.col("condition") == "picture").sort("item_id")
    assert scored["prediction"].to_list() == cached["prediction"].to_list()
    assert "wrong-picture" in table
    assert "18" in table


def test_saved_stitches_stand_beside_majority_and_blind(finished: Path, tmp_path: Path) -> None:
    """As the report shows them: the same numbers, from what the stitches carry and not from the data."""
    cells = cells_of(finished)
    folders = [cells[key] / "stitch" for key in (("one", "picture", 0), ("none", "blind", 0))]
    out = tmp_path / "ledger.parquet"
    short = EvaluateConfig(max_new_tokens=4)
    test = ["limit=6", "questions_per_picture=3"]
    told = evaluate_saved(folders, "world/test", test, out=out, config=short)
    scored = read_ledger(out).sort("condition", "item_id")
    reported = pl.concat(
        [read_ledger(finished.parent / "majority.parquet"), read_ledger(cells[("none", "blind", 0)] / LEDGER)]
    )
    for condition in ("majority", "majority-overall", "blind"):
        mine = scored.filter(pl.col("condition") == condition).sort("item_id")
        theirs = reported.filter(pl.col("condition") == condition).sort("item_id")
        assert mine["prediction"].to_list() == theirs["prediction"].to_list(), condition
        assert f"| {condition} | {condition} |" in told
    assert "- No picture of world/test (6) is in world/train (14)" in told
    assert "No blind stitch" not in told
    seen = evaluate_saved(
        folders[:1], "world/test", ["split=train", *test], allow_training=True, config=short
    )
    assert "6 of 6 pictures (100.0%) of world/train are in world/train (6 with the same pixels" in seen
    assert "No blind stitch was given" in seen


def test_a_stitch_without_its_memory_says_what_cannot_be_checked(finished: Path, tmp_path: Path) -> None:
    """Fault: a missing check that reads like a passed one."""
    bare = tmp_path / "bare"
    shutil.copytree(cells_of(finished)[("one", "picture", 0)] / "stitch", bare)
    assert "Remove it before passing on" in (bare / "README.md").read_text()
    (bare / RECORD).unlink()
    short = EvaluateConfig(max_new_tokens=2)
    told = evaluate_saved([bare], "world/test", ["limit=2", "questions_per_picture=1"], config=short)
    assert f"could not be checked for {bare}: it holds no {RECORD}" in told
    assert "most frequent training answer is not shown" in told
    assert "| majority |" not in told


def test_one_stitch_is_a_cell_of_the_comparison(finished: Path, parts: Path, tmp_path: Path) -> None:
    config = parse(CompareConfig, settings(parts, finished.parents[1]))
    out = tmp_path / "mine"
    assert train_one(config, "two", seed=0, out=out) == out
    assert read_json(out / "stitch.json")["cell"] == cells_of(finished)[("two", "picture", 0)].name
    with pytest.raises(UserError, match="exists already"):
        train_one(config, "two", seed=0, out=out)


def test_bad_configs_are_explained_before_anything_runs(parts: Path, tmp_path: Path) -> None:
    base = settings(parts, tmp_path)
    for change, words in (
        ({"sedes": [1]}, "seeds"),
        ({"seeds": [1, 1]}, "repeat"),
        ({"encoders": [str(parts / "one"), str(parts / "one")]}, "name of its own"),
        ({"data": {**base["data"], "test": ["world/tset"]}}, "world/test"),
    ):
        with pytest.raises(UserError, match=words):
            compare({**base, **change})
    training = {**base["data"], "test": [{"benchmark": "world/test", "data": {"split": "train", "limit": 4}}]}
    with pytest.raises(UserError, match="training"):
        compare({**base, "data": training})
    assert not list(tmp_path.glob("cells/*"))


def test_report_needs_its_cells(finished: Path, tmp_path: Path) -> None:
    place = tmp_path / "runs" / "toy"
    place.mkdir(parents=True)
    (place / "comparison.json").write_text(json.dumps(read_json(finished.parent / "comparison.json")))
    with pytest.raises(UserError, match="run the comparison again"):
        report(place)


def test_other_training_data_makes_other_cells(finished: Path, parts: Path) -> None:
    """The text ceiling too: its ledger names the training data, and ledgers of two cannot be read together."""
    base = settings(parts, finished.parents[1])
    data = {**base["data"], "train": {**base["data"]["train"], "limit": 8}}
    few = {"blind": False, "wrong_picture": False, "text_ceiling": True}
    cells = cells_of(
        compare({**base, "name": "other", "data": data, "controls": few, "encoders": base["encoders"][:1]})
    )
    assert not {folder.name for folder in cells.values()} & {f.name for f in cells_of(finished).values()}


def test_a_trained_encoder_starts_afresh_for_every_seed(parts: Path, tmp_path: Path) -> None:
    common = {
        "encoders": [{"id": str(parts / "one"), "name": "one"}],
        "encoder": {"train": "all"},
        "controls": {"blind": False, "wrong_picture": False},
    }
    both = cells_of(compare(settings(parts, tmp_path / "both", seeds=[0, 1], **common)))
    alone = cells_of(compare(settings(parts, tmp_path / "alone", seeds=[1], **common)))
    key = ("one", "picture", 1)
    assert losses(both[key]) == losses(alone[key])


def test_a_language_model_may_stay_untouched(parts: Path, tmp_path: Path) -> None:
    """`llm.train: none` trains the projector alone; the blind row is the language model as it is."""
    changed = settings(parts, tmp_path, llm={"id": str(parts / "lm"), "train": "none"})
    cells = cells_of(compare(changed))
    blind = read_json(cells[("none", "blind", 0)] / CELL)
    assert blind["answers"] == 0
    assert read_json(cells[("one", "picture", 0)] / CELL)["trainable"]["adapter"] == 0


def test_one_id_for_two_pictures_is_refused(parts: Path, tmp_path: Path) -> None:
    """Features are looked up by id: a test question must not be answered from a training picture."""
    from PIL import Image

    for split, colour in (("train", "red"), ("test", "blue")):
        rows = []
        for i in range(2):
            Image.new("RGB", (32, 32), colour).save(tmp_path / f"{split}{i}.png")
            row = {"image": f"{split}{i}.png", "question": "colour?", "answer": colour, "image_id": str(i)}
            rows.append(json.dumps(row))
        (tmp_path / f"{split}.jsonl").write_text("\n".join(rows))
    train = {"source": "jsonl", "path": str(tmp_path / "train.jsonl"), "split": "train"}
    test = {"source": "jsonl", "path": str(tmp_path / "test.jsonl"), "split": "test"}
    data = {"train": train, "test": [{"benchmark": "local:mine", "data": test}]}
    with pytest.raises(UserError, match="two different pictures"):
        compare(settings(parts, tmp_path / "runs", data=data, controls={"text_ceiling": False}))
