"""`sutura eval` over a folder of stitches, one encoder of it, and a few questions."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from compare.pictures import gathered, one, spots
from sutura.compare.load import at_most
from sutura.compare.single import evaluate_saved
from sutura.core.errors import UserError
from sutura.data.vqa import load_vqa
from sutura.encoders import load_encoder
from sutura.evals.config import EvaluateConfig
from sutura.evals.ledger import read_ledger
from sutura.evals.training_record import RECORD, make_record, write_record
from sutura.stitch.bundle import StitchConfig, build_stitch
from sutura.stitch.language import LlmConfig
from tiny_models import save_language_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three stitches, one of them blind, none of them trained."""
    place = tmp_path_factory.mktemp("stitches")
    llm = LlmConfig(id=save_language_model(place / "lm"), rank=4)
    for name in ("clip", "mae"):
        encoder = load_encoder(f"zoo:{name}", tokens=4)
        stitch = build_stitch(StitchConfig(encoder=encoder.config, llm=llm), encoder.facts())
        stitch.save(place / "all" / name)
    build_stitch(StitchConfig(encoder=None, llm=llm)).save(place / "all" / "blind")
    return place / "all"


def ask(folder: Path, tmp_path: Path, **options: object) -> set[tuple[str, str]]:
    """(encoder, condition) pairs that were scored."""
    out = tmp_path / "ledger.parquet"
    out.unlink(missing_ok=True)
    short = EvaluateConfig(max_new_tokens=2)
    limits = ["limit=3", "questions_per_picture=2"]
    evaluate_saved([folder], "world/test", limits, out=out, config=short, **options)  # type: ignore[arg-type]
    frame = read_ledger(out)
    assert frame["item_id"].n_unique() == options.get("max_samples", 6)
    return set(frame.select("encoder", "condition").iter_rows())


def test_a_folder_is_all_its_stitches(folder: Path, tmp_path: Path) -> None:
    both = {(name, how) for name in ("clip", "mae") for how in ("picture", "wrong-picture")}
    assert ask(folder, tmp_path) == {*both, ("none", "blind")}


def test_one_encoder_and_a_few_questions(folder: Path, tmp_path: Path) -> None:
    found = ask(folder, tmp_path, encoder="zoo:mae", max_samples=3)
    assert found == {("mae", "picture"), ("mae", "wrong-picture")}
    with pytest.raises(UserError, match=r"no stitch|No stitch here has the encoder 'dino'"):
        ask(folder, tmp_path, encoder="dino")


def test_scores_stand_again_without_what_was_trained_on(folder: Path, tmp_path: Path) -> None:
    """A stitch that remembers one of the three test pictures, under another name."""
    data = load_vqa({"source": "world", "split": "test", "limit": 3, "questions_per_picture": 2})
    seen = gathered(
        "seen",
        [one("mine", data.pictures[1].image.open()), *(one(f"{n}", i) for n, i in enumerate(spots(3)))],
    )
    stitch = tmp_path / "clip"
    shutil.copytree(folder / "clip", stitch)
    write_record(stitch / RECORD, make_record(seen))
    limits, short = ["limit=3", "questions_per_picture=2"], EvaluateConfig(max_new_tokens=2)
    text = evaluate_saved([stitch], "world/test", limits, config=short)
    assert (
        "1 of 3 pictures (33.3%) of world/test are in seen/seen (1 with the same pixels; 1 of these under"
        in text
    )
    whole, left = text.split("Without the 2 questions about pictures that were trained on:")
    assert [line.split("|")[4].strip() for line in whole.splitlines() if line.startswith("| clip")] == [
        "6",
        "6",
    ]
    assert [line.split("|")[4].strip() for line in left.splitlines() if line.startswith("| clip")] == [
        "4",
        "4",
    ]


def test_a_benchmark_judged_by_likelihood_has_it_measured(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sutura eval` turns it on; a comparison, whose cells are named by their settings, says so and stops."""
    from dataclasses import replace

    from sutura.compare import single
    from sutura.compare.load import load_data
    from sutura.compare.settings import settings
    from sutura.evals.benchmarks import get_benchmark

    row = replace(get_benchmark("world/test", {"limit": 2, "questions_per_picture": 1}), metric="rotated")
    choices = ("red", "yes", "2")

    def load(source: object) -> object:
        data = load_vqa(source)  # type: ignore[arg-type]
        pictures = [
            replace(p, samples=tuple(replace(s, choices=(*s.answers, *choices)) for s in p.samples))
            for p in data.pictures
        ]
        return replace(data, pictures=pictures)

    monkeypatch.setattr(single, "get_benchmark", lambda *_, **__: row)
    monkeypatch.setattr(single, "load_vqa", load)
    out = tmp_path / "ledger.parquet"
    table = evaluate_saved([folder / "clip"], "world/test", out=out, config=EvaluateConfig(max_new_tokens=1))
    assert "rotated, % [95 %]" in table
    assert read_ledger(out).filter(encoder="clip")["rotated"].null_count() == 0

    asked = ["data.train.limit=2", "data.test=[{benchmark: sugarcrepe/add_obj, data: {path: x}}]"]
    with pytest.raises(
        UserError, match=r"judged by likelihood_token.*evaluate.likelihood=true and not with false"
    ):
        load_data(settings("world", asked))


def test_so_many_questions_and_no_more() -> None:
    data = load_vqa({"source": "world", "split": "test", "limit": 4, "questions_per_picture": 3})
    few = at_most(data, 5)
    assert [len(picture.samples) for picture in few.pictures] == [3, 2]
    assert few.fingerprint != data.fingerprint
    assert at_most(data, 12) == at_most(data, None) == data
    with pytest.raises(UserError, match="max_samples=0"):
        at_most(data, 0)
