from __future__ import annotations

import pytest

from sutura.core.errors import UserError
from sutura.evals.benchmarks import BENCHMARKS, WORLD_FAMILIES, Benchmark, get_benchmark


def test_no_row_of_the_table_reads_training_data() -> None:
    """Fault: "held-out" benchmarks were the first rows of the training split."""
    for name in BENCHMARKS:
        row = BENCHMARKS.get(name)
        assert row.name == name
        assert not row.is_training
        assert row.split
        assert all(0 <= floor.score <= 1 and floor.source for floor in row.floors)


@pytest.mark.parametrize(
    "data",
    [
        {"source": "cauldron", "split": "train"},
        {"source": "parquet", "split": "test", "path": "clevr/train-00000-of-00003.parquet"},
        {"source": "parquet", "split": "test", "paths": ["a/test.parquet", "a/train.parquet"]},
    ],
)
def test_a_training_split_is_refused_unless_told(data: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"reads training data.*allow_training"):
        get_benchmark("local:mine", data)
    assert get_benchmark("local:mine", data, allow_training=True).is_training


def test_a_table_row_cannot_be_turned_to_training_data_in_silence() -> None:
    with pytest.raises(UserError, match="reads training data"):
        get_benchmark("daquar", {"path": "daquar/train.parquet"})
    with pytest.raises(UserError, match="reads training data"):
        get_benchmark("world/test", {"split": "train"})


def test_folders_named_train_and_words_that_hold_train_are_no_training_data() -> None:
    found = get_benchmark(
        "local:x", {"source": "parquet", "split": "test", "path": "training/constraints.parquet"}
    )
    assert not found.is_training


@pytest.mark.parametrize("subset", ["clevr", "cocoqa", "tallyqa", "scienceqa", "vqav2"])
def test_sets_with_a_training_split_alone_hold_a_share_out_and_say_so(subset: str) -> None:
    """Fault: "held-out" benchmarks were the first rows of the training split."""
    row = get_benchmark(f"cauldron/{subset}")
    assert (row.split, row.data["part"], row.data["test_share"]) == ("train", "test", 0.1)
    assert "10% of the pictures" in row.note
    assert "not the original test split" in row.note
    for change in ({"part": "all"}, {"part": "train"}, {"test_share": 0.0}):
        with pytest.raises(UserError, match=r"reads training data.*allow_training"):
            get_benchmark(row.name, change)


def test_ten_answers_are_scored_by_agreement() -> None:
    row = get_benchmark("vqav2/validation")
    assert (row.split, row.metric, row.answer_kind) == ("validation", "vqa_official", "crowd")
    assert not row.is_training


def test_data_is_laid_over_the_row() -> None:
    found = get_benchmark("daquar", {"path": "daquar/test.parquet", "limit": 5})
    assert dict(found.data) == {
        "source": "cauldron",
        "split": "test",
        "path": "daquar/test.parquet",
        "limit": 5,
    }
    assert "limit" not in BENCHMARKS.get("daquar").data


def test_local_rows_need_a_split_and_take_a_metric() -> None:
    with pytest.raises(UserError, match="which split"):
        get_benchmark("local:x", {"source": "parquet"})
    found = get_benchmark("local:x", {"source": "parquet", "split": "val", "metric": "vqa"})
    assert found.metric == "vqa"
    assert "metric" not in found.data


def test_wrong_names_are_told() -> None:
    with pytest.raises(UserError, match=r"Did you mean .*'world/test'"):
        get_benchmark("world/tset")
    with pytest.raises(UserError, match="metric 'f1'"):
        Benchmark("x", {}, "test", "open", metric="f1")


def test_a_family_holds_its_own_questions_only() -> None:
    assert get_benchmark("world/test/count").holds("count")
    assert not get_benchmark("world/test/count").holds("exist")
    assert get_benchmark("world/test").holds("anything")


def test_the_world_states_its_measured_floors() -> None:
    kinds = {floor.kind: floor.score for floor in BENCHMARKS.get("world/test/exist").floors}
    assert kinds["majority per type"] < 0.6
    assert "question only" in kinds
    assert BENCHMARKS.get("world/compositional").floors == ()


def test_the_families_are_those_the_world_asks() -> None:
    questions = pytest.importorskip("sutura.data.scenes.questions", reason="the built-in world is not there")
    assert set(WORLD_FAMILIES) == set(questions.FAMILIES)
