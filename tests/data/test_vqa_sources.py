"""The readers: the_cauldron's schema, Parquet and JSON lines with a column map."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sutura.core.errors import UserError
from sutura.data.images import BadPicture
from sutura.data.vqa import load_vqa


def ask(user: str, assistant: str | None = "yes") -> dict[str, str | None]:
    return {"user": user, "assistant": assistant}


def load_cauldron(path, **options):
    return load_vqa({"source": "cauldron", "path": str(path), **options})


# --- the_cauldron ---


def test_turns_of_a_row_become_samples_of_one_picture(tmp_path, picture, encoded, cauldron):
    rows = [
        ([encoded(picture(0))], [ask("How many chairs?", "2"), ask("What is red?", "a lamp, a rug")]),
        ([encoded(picture(1))], [ask("Is it day?", " no ")]),
    ]
    data = load_cauldron(cauldron(tmp_path / "train.parquet", rows))
    assert [len(turns.samples) for turns in data.pictures] == [2, 1]
    assert [(s.question, s.answers, s.question_type) for s in data.samples] == [
        ("How many chairs?", ("2",), "how many"),
        ("What is red?", ("a lamp, a rug",), "what is"),
        ("Is it day?", ("no",), "is it"),
    ]
    assert len({s.item_id for s in data.samples}) == 3
    for number, turns in enumerate(data.pictures):
        assert {s.image_id for s in turns.samples} == {turns.image_id}
        assert np.array_equal(turns.image.open(), picture(number))
        assert np.array_equal(pickle.loads(pickle.dumps(turns.image)).open(), picture(number))


def test_the_same_picture_in_two_rows_is_one_picture(tmp_path, picture, encoded, cauldron):
    same = encoded(picture(0))
    rows = [([same], [ask("one?")]), ([encoded(picture(1))], [ask("two?")]), ([same], [ask("three?")])]
    data = load_cauldron(cauldron(tmp_path / "train.parquet", rows))
    assert [[s.question for s in turns.samples] for turns in data.pictures] == [["one?", "three?"], ["two?"]]


def test_nothing_is_lost_silently(tmp_path, picture, encoded, cauldron):
    """Kept and set aside make up all questions of the file, each under its reason and its place."""
    good, other = encoded(picture(0)), encoded(picture(1))
    long = encoded(picture(2, (128, 128)), "JPEG")
    rows = [
        ([good], [ask("kept?"), ask(""), ask("unanswered?", "  "), ask("null?", None)]),
        ([good, other], [ask("which of two?"), ask("and now?")]),
        ([long[: len(long) // 2]], [ask("cut short?"), ask("still?"), ask("")]),
        ([b""], [ask("zero bytes?")]),
        ([b"not a picture at all"], [ask("a text?")]),
        ([], [ask("no picture?")]),
        ([other], []),
        ([other], [ask("kept too?")]),
    ]
    data = load_cauldron(cauldron(tmp_path / "train.parquet", rows))
    assert [s.question for s in data.samples] == ["kept?", "kept too?"]
    assert data.set_aside.items == {
        "several pictures in one row": ["row 1 question 0", "row 1 question 1"],
        "no picture in the row": ["row 5 question 0"],
        "empty question": ["row 0 question 1"],
        "empty answer": ["row 0 question 2", "row 0 question 3"],
        "truncated": ["row 2 question 0", "row 2 question 1", "row 2 question 2"],
        "zero bytes": ["row 3 question 0"],
        "not a picture": ["row 4 question 0"],
        "no question": ["row 6"],
    }
    everything = sum(max(1, len(turns)) for _, turns in rows)
    assert len(data) + len(data.set_aside) == everything


def test_without_verify_a_bad_picture_is_found_on_opening(tmp_path, picture, encoded, cauldron):
    long = encoded(picture(2, (128, 128)), "JPEG")
    path = cauldron(tmp_path / "train.parquet", [([long[: len(long) // 2]], [ask("cut short?")])])
    data = load_cauldron(path, verify=False)
    with pytest.raises(BadPicture, match="truncated"):
        data.pictures[0].image.open()
    with pytest.raises(UserError, match=r"no usable question in 1 rows.*1 truncated \(row 0 question 0\)"):
        load_cauldron(path)


def test_conversions_are_counted(tmp_path, picture, encoded, cauldron):
    rows = [
        ([encoded(picture(0))], [ask("plain?")]),
        ([encoded(picture(1).convert("CMYK"), "JPEG")], [ask("ink?")]),
    ]
    data = load_cauldron(cauldron(tmp_path / "train.parquet", rows))
    assert data.converted.items == {"CMYK": ["row 1"]}


def test_a_folder_gives_the_files_of_its_split(tmp_path, picture, encoded, cauldron):
    for number, name in enumerate(("train-00000-of-00002", "train-00001-of-00002", "test", "validation")):
        cauldron(tmp_path / f"{name}.parquet", [([encoded(picture(number))], [ask(name)])])
    questions = {
        s: [x.question for x in load_cauldron(tmp_path, split=s).samples] for s in ("train", "test", "val")
    }
    assert questions == {
        "train": ["train-00000-of-00002", "train-00001-of-00002"],
        "test": ["test"],
        "val": ["validation"],
    }
    with pytest.raises(UserError, match=r"no file of split 'dev2'.*test, train, validation"):
        load_cauldron(tmp_path, split="dev2")


def test_a_training_file_is_not_read_as_a_test_split(tmp_path, picture, encoded, cauldron):
    """Fault: "held-out" benchmarks are the first rows of the training split."""
    path = cauldron(tmp_path / "train-00000-of-00001.parquet", [([encoded(picture(0))], [ask("q?")])])
    with pytest.raises(UserError, match="told to be split 'test', yet the file is train-00000"):
        load_cauldron(path, split="test")


def test_parts_of_a_split_divide_its_pictures(tmp_path, picture, encoded, cauldron):
    """A set without a split for selection is divided by picture, whatever the seed."""
    rows = [([encoded(picture(n, (12, 12)))], [ask("a?"), ask("b?")]) for n in range(40)]
    path = cauldron(tmp_path / "train.parquet", rows)
    ids = {
        part: {t.image_id for t in load_cauldron(path, part=part, select_share=0.3, seed=seed).pictures}
        for seed, part in enumerate(("all", "fit", "select"))
    }
    assert ids["fit"] | ids["select"] == ids["all"]
    assert not ids["fit"] & ids["select"]
    assert 4 <= len(ids["select"]) <= 20


def test_limit_draws_pictures_by_seed_and_a_smaller_one_is_part_of_a_larger(
    tmp_path, picture, encoded, cauldron
):
    rows = [([encoded(picture(n, (12, 12)))], [ask(f"{n}?"), ask("b?")]) for n in range(20)]
    rows[3] = ([b""], [ask("bad?")])
    path = cauldron(tmp_path / "train.parquet", rows)

    def drawn(limit: int, seed: int) -> list[int]:
        data = load_cauldron(path, limit=limit, seed=seed)
        assert len(data.pictures) == limit
        assert len(data) == 2 * limit
        return [int(turns.samples[0].question[:-1]) for turns in data.pictures]

    assert drawn(5, 1) == drawn(5, 1) == sorted(drawn(5, 1))
    assert drawn(5, 1) != drawn(5, 2)
    assert set(drawn(5, 1)) < set(drawn(9, 1))
    assert drawn(5, 1) != list(range(5)), "the head of a file does not stand for the file"


def test_questions_per_picture_is_a_seeded_choice(tmp_path, picture, encoded, cauldron):
    rows = [([encoded(picture(0))], [ask(f"{n}?") for n in range(9)])]
    path = cauldron(tmp_path / "train.parquet", rows)
    chosen = [
        [s.question for s in load_cauldron(path, questions_per_picture=3, seed=n).samples] for n in (0, 0, 5)
    ]
    assert chosen[0] == chosen[1] == sorted(chosen[0])
    assert len(chosen[0]) == len(chosen[2]) == 3
    assert chosen[0] != chosen[2]


def test_another_schema_is_explained(tmp_path, datasets_cache):
    pq.write_table(pa.table({"image": [b"x"], "question": ["q"]}), tmp_path / "train.parquet")
    with pytest.raises(UserError, match=r"no column for images.*columns are image, question"):
        load_cauldron(tmp_path / "train.parquet")
    pq.write_table(pa.table({"images": ["x"], "texts": ["q"]}), tmp_path / "flat.parquet")
    with pytest.raises(UserError, match="not a list of pictures"):
        load_cauldron(tmp_path / "flat.parquet")


def test_a_set_saved_by_datasets_is_read(tmp_path, picture, datasets_cache):
    from datasets import Dataset, DatasetDict, Features, Image, List, Value

    turn = {"user": Value("string"), "assistant": Value("string")}
    rows = {"images": [[picture(0)]], "texts": [[{"user": "q?", "assistant": "a"}]]}
    made = Dataset.from_dict(rows, features=Features({"images": List(Image()), "texts": List(turn)}))
    DatasetDict(train=made).save_to_disk(tmp_path / "saved")
    data = load_cauldron(tmp_path / "saved")
    assert np.array_equal(data.pictures[0].image.open(), picture(0))
    with pytest.raises(UserError, match="no split 'test'; it has train"):
        load_cauldron(tmp_path / "saved", split="test")


def test_files_that_are_no_tables_are_explained(tmp_path, datasets_cache):
    (tmp_path / "train.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(UserError, match=r"train\.parquet cannot be read as Parquet"):
        load_cauldron(tmp_path / "train.parquet")
    with pytest.raises(UserError, match=r"nothing at .*nowhere.*hf:"):
        load_cauldron(tmp_path / "nowhere")
    with pytest.raises(UserError, match="needs a path"):
        load_vqa({"source": "cauldron"})


# --- Parquet with a column map ---


def test_parquet_with_a_column_map(tmp_path, picture, encoded, datasets_cache):
    a, b = encoded(picture(0)), encoded(picture(1))
    table = {
        "photo": [a, b, a],
        "ask": ["what?", "which?", "who?"],
        "gold": [["x", "y"], ["z"], []],
        "kind": ["k1", "k2", "k1"],
        "options": [["x", "z"], ["z"], ["x"]],
        "id": [7, 8, 9],
    }
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    columns = {
        "image": "photo",
        "question": "ask",
        "answers": "gold",
        "question_type": "kind",
        "choices": "options",
        "item_id": "id",
    }
    data = load_vqa(
        {"source": "parquet", "name": "mine", "path": str(tmp_path / "rows.parquet"), "columns": columns}
    )
    found = [(s.question, s.answers, s.question_type, s.choices, s.item_id) for s in data.samples]
    assert found == [
        ("what?", ("x", "y"), "k1", ("x", "z"), "mine/7"),
        ("which?", ("z",), "k2", ("z",), "mine/8"),
    ]
    assert data.set_aside.items == {"empty answer": ["row 0 question 1"]}


def test_rows_of_one_picture_are_joined_and_a_limit_counts_pictures(
    tmp_path, picture, encoded, datasets_cache
):
    pictures = [encoded(picture(n, (12, 12))) for n in range(6)]
    table = {
        "image": [pictures[n % 6] for n in range(18)],
        "question": [f"{n}?" for n in range(18)],
        "answer": ["a"] * 18,
    }
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    data = load_vqa({"source": "parquet", "path": str(tmp_path / "rows.parquet"), "limit": 2})
    assert [len(turns.samples) for turns in data.pictures] == [3, 3]
    ids = pa.table(table | {"image_id": [f"p{n % 6}" for n in range(18)]})
    pq.write_table(ids, tmp_path / "ids.parquet")
    data = load_vqa({"source": "parquet", "name": "set", "path": str(tmp_path / "ids.parquet"), "limit": 2})
    assert [len(turns.samples) for turns in data.pictures] == [3, 3]
    assert all(turns.image_id.startswith("set/p") for turns in data.pictures)


def test_two_pictures_under_one_id_are_set_aside(tmp_path, picture, encoded, datasets_cache):
    table = {
        "image": [encoded(picture(0)), encoded(picture(1)), encoded(picture(0))],
        "question": ["a?", "b?", "c?"],
        "answer": ["a", "b", "c"],
        "image_id": ["p", "p", "p"],
    }
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    data = load_vqa({"source": "parquet", "path": str(tmp_path / "rows.parquet")})
    assert [s.question for s in data.samples] == ["a?", "c?"]
    assert data.set_aside.items == {"another picture under the same image_id": ["row 1 question 0"]}


def test_a_path_of_this_machine_is_no_name_of_a_picture(tmp_path, picture, encoded, datasets_cache):
    """Fault: ids of ledgers and curves that go to the Hub with somebody's home folder in them."""
    table = {
        "image": [encoded(picture(0)), encoded(picture(1))],
        "question": ["a?", "b?"],
        "answer": ["a", "b"],
        "image_id": [f"{tmp_path}/{name}/photo.jpg" for name in ("one", "two")],
    }
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    data = load_vqa({"source": "parquet", "path": str(tmp_path / "rows.parquet")})
    assert len({turns.image_id for turns in data.pictures}) == 2
    assert not any(str(tmp_path) in s.image_id + s.item_id for s in data.samples)
    assert all("/photo.jpg-" in turns.image_id for turns in data.pictures)


def test_pictures_as_paths_beside_the_table(tmp_path, picture, encoded, datasets_cache):
    (tmp_path / "photo.png").write_bytes(encoded(picture(0)))
    table = {
        "image": ["photo.png", "gone.png", "https://example.org/x.png"],
        "question": ["a?"] * 3,
        "answer": ["b"] * 3,
    }
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    data = load_vqa({"source": "parquet", "path": str(tmp_path / "rows.parquet")})
    assert np.array_equal(data.pictures[0].image.open(), picture(0))
    assert data.set_aside.counts == {"missing": 2}


def test_a_wrong_column_map_names_the_columns_there_are(tmp_path, picture, encoded, datasets_cache):
    table = {"image": [encoded(picture(0))], "question_text": ["q?"], "answer": ["a"], "id": ["1"]}
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")

    def load(**columns):
        return load_vqa({"source": "parquet", "path": str(tmp_path / "rows.parquet"), "columns": columns})

    with pytest.raises(UserError) as caught:
        load(question="question_txt")
    assert "image, question_text, answer, id" in str(caught.value)
    assert "Did you mean 'question_text'" in str(caught.value)
    with pytest.raises(
        UserError, match=r"no column for question .*columns are image, question_text, answer, id"
    ):
        load()
    with pytest.raises(UserError, match=r"unknown role 'questoin'. Did you mean 'question'"):
        load(questoin="question_text")


def test_repeated_item_ids_are_refused(tmp_path, picture, encoded, datasets_cache):
    table = {
        "image": [encoded(picture(0))] * 2,
        "question": ["a?", "b?"],
        "answer": ["x", "y"],
        "item_id": ["1", "1"],
    }
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    with pytest.raises(UserError, match=r"item id .*/1' twice"):
        load_vqa({"source": "parquet", "path": str(tmp_path / "rows.parquet")})


def test_vqav2_answers_are_read(tmp_path, picture, encoded, datasets_cache):
    gold = [{"answer": "yes", "answer_id": n} for n in range(9)] + [{"answer": "no", "answer_id": 9}]
    table = {"image": [encoded(picture(0))], "question": ["q?"], "answers": [gold]}
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    data = load_vqa({"source": "parquet", "path": str(tmp_path / "rows.parquet")})
    assert data.samples[0].answers == ("yes",) * 9 + ("no",)


# --- JSON lines ---


def test_json_lines_beside_a_folder(tmp_path, picture, encoded):
    (tmp_path / "images").mkdir()
    for number in range(2):
        (tmp_path / "images" / f"{number}.png").write_bytes(encoded(picture(number)))
    rows = [
        {"image": "0.png", "question": "what colour?", "answer": "red"},
        {"image": "1.png", "question": "how many?", "answer": 3},
        {"image": "0.png", "question": "is it so?", "answer": "no"},
        {"image": "2.png", "question": "gone?", "answer": "yes"},
        {"image": "1.png", "question": "", "answer": "yes"},
        {"question": "no picture?", "answer": "yes"},
    ]
    lines = [json.dumps(row) for row in rows]
    lines[2:2] = ["", "{ broken", "[1, 2]"]
    (tmp_path / "set.jsonl").write_text("\n".join(lines))
    data = load_vqa(
        {"source": "jsonl", "path": str(tmp_path / "set.jsonl"), "image_folder": str(tmp_path / "images")}
    )
    assert [(s.question, s.answers) for s in data.samples] == [
        ("what colour?", ("red",)),
        ("is it so?", ("no",)),
        ("how many?", ("3",)),
    ]
    assert [np.array_equal(t.image.open(), picture(n)) for n, t in enumerate(data.pictures)] == [True, True]
    assert data.set_aside.items == {
        "not a JSON object": ["line 4", "line 5"],
        "missing": ["line 7 question 0", "line 9 question 0"],
        "empty question": ["line 2 question 1"],
    }
    assert len(data) + len(data.set_aside) == len(rows) + 2


def test_a_folder_that_is_not_there_is_said(tmp_path):
    (tmp_path / "set.jsonl").write_text("{}")
    with pytest.raises(UserError, match="image_folder 'nowhere' is not a folder"):
        load_vqa({"source": "jsonl", "path": str(tmp_path / "set.jsonl"), "image_folder": "nowhere"})
    with pytest.raises(UserError, match="no JSON-lines file"):
        load_vqa({"source": "jsonl", "path": str(tmp_path / "other.jsonl")})


# --- the Hub ---


def test_hub_sets_are_asked_for_by_name_subset_and_split(monkeypatch, datasets_cache):
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    asked = []

    def load_dataset(name, subset, *, split, **pinned):
        asked.append((name, subset, split, pinned))
        raise DatasetNotFoundError(f"{name} does not exist")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        UserError, match=r"'org/set' \(subset vqav2, split train\) cannot be loaded: org/set does"
    ):
        load_cauldron("hf:org/set", subset="vqav2")
    with pytest.raises(UserError):
        load_cauldron("hf:org/set", subset="vqav2", revision="v2")
    assert asked == [("org/set", "vqav2", "train", {}), ("org/set", "vqav2", "train", {"revision": "v2"})]
