from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from sutura.compare.report_page.items import LONGEST, Item, choose, kinds_of
from sutura.compare.report_page.pictures import Pictures, thumbnails
from sutura.compare.scores import Arm
from sutura.compare.standing import stand
from sutura.core.errors import UserError
from sutura.data.samples import BytesPicture, Sample
from sutura.data.vqa import load_vqa
from sutura.data.world_vqa import ScenePicture, scene_turns
from sutura.evals.ledger import check_ledger, ledger_row

Synthetic = Callable[..., pl.DataFrame]
SKILLS = {Arm("clip"): 0.8, Arm("vit"): 0.6, Arm("none", "blind"): 0.4}


def ledger(right: dict[str, dict[str, str]]) -> pl.DataFrame:
    """Item → encoder → one letter a seed: r for right."""
    rows = []
    for item, encoders in right.items():
        sample = Sample(BytesPicture(b""), "?", ("yes",), f"picture of {item}", item, "exist")
        for encoder, letters in encoders.items():
            for seed, letter in enumerate(letters):
                said = "yes" if letter == "r" else f"no {seed}"
                about = {"run": "r", "encoder": encoder, "seed": seed, "condition": "picture"}
                rows.append(ledger_row(sample, said, benchmark="b", **about))
    return check_ledger(pl.DataFrame(rows, infer_schema_length=None))


def test_kinds_of_agreement_by_hand() -> None:
    frame = ledger(
        {
            "1": {"clip": "rrr", "vit": "rrr"},
            "2": {"clip": "www", "vit": "www"},
            "3": {"clip": "rrw", "vit": "wwr"},
            "4": {"clip": "rrw", "vit": "rrr"},
            "5": {"clip": "wwr", "vit": "www"},
        }
    )
    standing = stand(frame, {})
    kinds, _ = kinds_of(standing)
    sample = choose([standing], frame, 5)
    found = {item.item_id: item for item in sample.items}
    assert {name: item.kind for name, item in found.items()} == {
        "1": "all right",
        "2": "all wrong",
        "3": "encoders disagree",
        "4": "mixed",
        "5": "mixed",
    }
    assert len(kinds) == sample.of == 5
    assert sample.counts == {"all right": 1, "all wrong": 1, "encoders disagree": 1, "mixed": 2}
    clip = next(arm for arm in found["3"].answered if arm.name == "clip")
    assert clip.right
    assert clip.answers == (("yes", True, 2), ("no 2", False, 1))


def test_the_draw_is_balanced_and_does_not_depend_on_the_order_of_rows(synthetic: Synthetic) -> None:
    skills = {Arm("clip"): 0.5, Arm("vit"): 0.5}
    frame = synthetic(skills, pictures=200, seeds=(0, 1), types=("count", "exist", "side"))
    sample = choose([stand(frame, {})], frame, 48)
    assert len(sample.items) == 48
    strata = Counter((item.family, item.kind) for item in sample.items)
    assert set(strata) == {(f, k) for f in ("count", "exist", "side") for k in sample.counts}
    assert max(strata.values()) - min(strata.values()) <= 2
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=1)
    assert choose([stand(shuffled, {})], shuffled, 48) == sample
    assert len({item.image_id for item in sample.items}) > 40


def test_benchmarks_share_the_sample_and_a_small_one_is_shown_whole(synthetic: Synthetic) -> None:
    frame = pl.concat(
        [synthetic(SKILLS, pictures=2, per_picture=2), synthetic(SKILLS, benchmark="world/compositional")]
    )
    standings = [stand(frame, {}, name) for name in ("world/test", "world/compositional")]
    counts = Counter(item.benchmark for item in choose(standings, frame, 40).items)
    assert counts == {"world/test": 4, "world/compositional": 36}


def test_long_texts_are_cut_and_it_is_known(synthetic: Synthetic) -> None:
    frame = synthetic(SKILLS, pictures=1, per_picture=1).with_columns(prediction=pl.lit("a" * 5000))
    (item,) = choose([stand(frame, {})], frame, 5).items
    assert item.clipped
    assert all(len(text) <= LONGEST for arm in item.answered for text, _, _ in arm.answers)


def asked(sample: Sample, benchmark: str = "world/test", question: str | None = None) -> Item:
    return Item(
        benchmark,
        sample.item_id,
        sample.image_id,
        "f",
        "mixed",
        question or sample.question,
        sample.answers,
        (),
        False,
    )


def test_pictures_of_the_world_are_drawn_anew_and_only_for_the_same_question() -> None:
    scene = ScenePicture(0, "test", 3, 128)
    samples = scene_turns(scene, 4).samples
    pictures = Pictures(
        {"world/test": {"benchmark": "world/test", "data": {"limit": 9, "questions_per_picture": 4}}}
    )
    found, said = pictures.find("world/test", [asked(sample) for sample in samples])
    assert said == ""
    assert all(picture == scene for picture in found.values())
    other = [asked(samples[0]), asked(samples[1], question="another question?")]
    found, said = pictures.find("world/test", other)
    assert list(found) == [samples[0].item_id]
    assert "1 of 2 pictures of world/test are not shown" in said


def test_pictures_of_files_are_found_and_their_absence_is_told(tmp_path: Path) -> None:
    ScenePicture(0, "test", 0).open().save(tmp_path / "a.png")
    line = '{"image": "a.png", "question": "what?", "answers": "cube"}\n'
    (tmp_path / "data.jsonl").write_text(line)
    data = {"source": "jsonl", "path": str(tmp_path / "data.jsonl"), "split": "test"}
    (sample,) = load_vqa(data).samples
    pictures = Pictures({"local:mine": {"benchmark": "local:mine", "data": data}})
    found, said = pictures.find("local:mine", [asked(sample, "local:mine")])
    assert said == ""
    small = thumbnails(found, 100_000)
    assert small[sample.item_id].startswith("data:image/webp;base64,")
    (tmp_path / "data.jsonl").write_text(line.replace("cube", "sphere"))
    assert pictures.find("local:mine", [asked(sample, "local:mine")])[0] == {}
    (tmp_path / "data.jsonl").unlink()
    found, said = pictures.find("local:mine", [asked(sample, "local:mine")])
    assert found == {}
    assert "no JSON-lines file" in said
    assert "does not say where" in pictures.find("other", [asked(sample, "other")])[1]


def test_a_report_downloads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.config

    from sutura.compare.report_page import pictures as module

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    asked_for = []

    def load(source: dict[str, object]) -> None:
        asked_for.append(source["path"])
        raise UserError("read from the cache")

    monkeypatch.setattr(module, "load_vqa", load)
    data = {"source": "parquet", "path": "hf:Some-One/MySet", "split": "test"}
    pictures = Pictures({"local:hub": {"benchmark": "local:hub", "data": data}})
    (sample,) = scene_turns(ScenePicture(0, "test", 0), 1).samples
    assert "a report downloads nothing" in pictures.find("local:hub", [asked(sample, "local:hub")])[1]
    assert asked_for == []
    (tmp_path / "Some-One___my_set").mkdir()
    assert "read from the cache" in pictures.find("local:hub", [asked(sample, "local:hub")])[1]
    assert asked_for == ["hf:Some-One/MySet"]


def test_thumbnails_keep_their_budget() -> None:
    found = {index: ScenePicture(0, "test", index, 256) for index in range(6)}
    large = thumbnails(found, 10**6)
    assert len(large) == 6
    total = sum(map(len, large.values()))
    middle = thumbnails(found, total - 1)
    assert len(middle) == 6
    assert sum(map(len, middle.values())) < total
    few = thumbnails(found, 1500)
    assert 0 < len(few) < 6
    assert sum(map(len, few.values())) <= 1500
