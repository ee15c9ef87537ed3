"""One split divided by picture, rows taken as an earlier study took them, and dialogues that stay dialogues."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sutura.core.errors import UserError
from sutura.data.rows import dialogue_of
from sutura.data.samples import make_data
from sutura.data.vqa import load_vqa

PARTS = ("test", "select", "fit")


def ask(user: str, assistant: str = "yes") -> dict[str, str]:
    return {"user": user, "assistant": assistant}


@pytest.fixture
def many(tmp_path, picture, encoded, cauldron):
    rows = [([encoded(picture(i))], [ask(f"one {i}?"), ask(f"two {i}?")]) for i in range(120)]
    return cauldron(tmp_path / "train.parquet", rows)


def load(path, **options):
    return load_vqa({"source": "cauldron", "path": str(path), "verify": False, **options})


def names(data) -> set[str]:
    return {picture.image_id for picture in data.pictures}


def test_parts_are_disjoint_and_make_up_the_whole(many):
    """Fault: a "held-out" benchmark that was trained on."""
    found = {part: names(load(many, part=part, test_share=0.3, select_share=0.2)) for part in PARTS}
    assert not found["test"] & found["select"] | found["test"] & found["fit"] | found["select"] & found["fit"]
    assert found["test"] | found["select"] | found["fit"] == names(load(many))
    assert names(load(many, part="train", test_share=0.3)) == found["select"] | found["fit"]
    assert 0.15 < len(found["test"]) / 120 < 0.45
    assert found["test"] == names(load(many, part="test", test_share=0.3))
    assert found["test"] >= names(load(many, part="test", test_share=0.1))


def test_a_limit_and_a_name_do_not_move_a_picture_to_another_part(many):
    """What is held out depends on the picture's bytes: it is held out of every set that holds the file."""
    held = names(load(many, part="test", test_share=0.3))
    assert names(load(many, part="test", test_share=0.3, limit=7, seed=5, name="other")) <= held
    assert not names(load(many, part="train", test_share=0.3, limit=20, name="other")) & held


def test_the_same_file_under_ids_of_its_own_is_held_out_too(tmp_path, picture, encoded, cauldron):
    files = [encoded(picture(i)) for i in range(40)]
    table = pa.table(
        {
            "image": pa.array([{"bytes": data, "path": None} for data in files]),
            "question": [f"what {i}?" for i in range(40)],
            "answer": ["yes"] * 40,
            "image_id": [f"mine-{i}" for i in range(40)],
        }
    )
    pq.write_table(table, tmp_path / "ids.parquet")
    schema = cauldron(tmp_path / "train.parquet", [([data], [ask("what?")]) for data in files])
    part = {"part": "test", "test_share": 0.4}
    mine = load_vqa({"source": "parquet", "path": str(tmp_path / "ids.parquet"), **part})
    theirs = load(schema, **part)
    assert len(mine.pictures) == len(theirs.pictures) > 5
    shown = [turns.image.open().tobytes() for turns in theirs.pictures]
    assert sorted(turns.image.open().tobytes() for turns in mine.pictures) == sorted(shown)


def test_a_file_under_two_ids_is_in_one_part(tmp_path, picture, encoded):
    """Fault: a selection split with copies of what is trained on, each under an id of its own."""
    files = [encoded(picture(i)) for i in range(30)]
    table = pa.table(
        {
            "image": pa.array([{"bytes": data, "path": None} for data in files * 2]),
            "question": [f"what {i}?" for i in range(60)],
            "answer": ["yes"] * 60,
            "image_id": [f"mine-{i}" for i in range(60)],
        }
    )
    pq.write_table(table, tmp_path / "twice.parquet")
    source = {"source": "parquet", "path": str(tmp_path / "twice.parquet"), "select_share": 0.5}
    fit, select = (
        {turns.image.open().tobytes() for turns in load_vqa({**source, "part": part}).pictures}
        for part in ("fit", "select")
    )
    assert min(len(fit), len(select)) > 5
    assert not fit & select


def test_the_part_stands_in_the_splits_name(many):
    assert load(many, part="test", test_share=0.3).split == "train:test"
    assert load(many).split == "train"
    with pytest.raises(UserError, match="part=test needs test_share"):
        load(many, part="test")


def test_first_rows_and_first_turns(many):
    data = load(many, first_rows=5, first_turn=True)
    assert [s.question for s in data.samples] == [f"one {i}?" for i in range(5)]
    assert len(load(many, first_rows=5).samples) == 10
    assert len(load(many, first_rows=500).pictures) == 120


def test_rows_with_several_pictures_can_show_their_first(tmp_path, picture, encoded, cauldron):
    rows = [([encoded(picture(1)), encoded(picture(2))], [ask("which?")]), ([], [ask("none?")])]
    path = cauldron(tmp_path / "train.parquet", [*rows, ([encoded(picture(3))], [ask("one?")])])
    shown = load(path, several="first")
    assert [s.question for s in shown.samples] == ["which?", "one?"]
    assert shown.pictures[0].image.open().tobytes() == picture(1).tobytes()
    assert shown.set_aside.counts == {"no picture in the row": 1}
    assert [s.question for s in load(path).samples] == ["one?"]


# --- dialogues ---

LLAVA = [
    {"from": "human", "value": "<image>\nWhat is it?"},
    {"from": "gpt", "value": "a chair"},
    {"from": "human", "value": "Which colour?"},
    {"from": "gpt", "value": "red"},
]
PAIRS = [("What is it?", "a chair"), ("Which colour?", "red")]


@pytest.mark.parametrize(
    "told",
    [
        LLAVA,
        [{"role": "user" if t["from"] == "human" else "assistant", "content": t["value"]} for t in LLAVA],
        [
            {
                "role": "user" if t["from"] == "human" else "assistant",
                "content": [{"type": "image", "text": None}, {"type": "text", "text": t["value"]}],
            }
            for t in LLAVA
        ],
        [{"user": q, "assistant": a, "source": "x"} for q, a in PAIRS],
        [{"from": "system", "value": "Be brief."}, *LLAVA],
    ],
    ids=["from and value", "role and content", "parts", "user and assistant", "a system turn"],
)
def test_the_forms_of_a_dialogue(told):
    assert dialogue_of(told) == PAIRS


def test_a_turn_of_another_form_is_told():
    with pytest.raises(UserError, match="turn holds speaker, text; it needs from and value"):
        dialogue_of([{"speaker": "me", "text": "hello"}])


@pytest.fixture
def dialogues(tmp_path, picture, encoded):
    """Two dialogues about one picture and one about another, as a JSON list."""
    for i in range(2):
        (tmp_path / f"{i}.png").write_bytes(encoded(picture(i)))
    told = [{"image": f"{i}.png", "conversations": LLAVA} for i in (0, 0, 1)]
    (tmp_path / "talk.json").write_text(json.dumps(told))
    return tmp_path / "talk.json"


def talk(path, **options):
    columns = {"conversation": "conversations"}
    return load_vqa({"source": "jsonl", "path": str(path), "columns": columns, **options})


def test_two_dialogues_about_one_picture_stay_two(dialogues):
    """One encoding, two histories."""
    data = talk(dialogues, turns="conversation")
    assert [turns.conversation for turns in data.pictures] == [True] * 3
    assert [[(s.question, s.answers[0]) for s in turns.samples] for turns in data.pictures] == [PAIRS] * 3
    assert len(data.distinct_pictures) == 2
    assert len({s.item_id for s in data.samples}) == 6
    isolated = talk(dialogues)
    assert [len(turns.samples) for turns in isolated.pictures] == [4, 2]
    assert not any(turns.conversation for turns in isolated.pictures)
    assert data.fingerprint != isolated.fingerprint
    assert [
        len(t.samples) for t in talk(dialogues, turns="conversation", questions_per_picture=1).pictures
    ] == [
        1,
        1,
        1,
    ]


def test_the_cauldrons_turns_and_parquet_columns_can_be_dialogues(tmp_path, picture, encoded, cauldron):
    same = encoded(picture(0))
    path = cauldron(tmp_path / "train.parquet", [([same], [ask("a?"), ask("b?")]), ([same], [ask("c?")])])
    data = load(path, turns="conversation")
    assert [[s.question for s in turns.samples] for turns in data.pictures] == [["a?", "b?"], ["c?"]]
    image = pa.array([{"bytes": same, "path": None}] * 2)
    pq.write_table(pa.table({"image": image, "talk": pa.array([LLAVA, LLAVA])}), tmp_path / "talk.parquet")
    found = load_vqa(
        {
            "source": "parquet",
            "path": str(tmp_path / "talk.parquet"),
            "columns": {"conversation": "talk"},
            "turns": "conversation",
        }
    )
    assert [[s.question for s in turns.samples] for turns in found.pictures] == [
        ["What is it?", "Which colour?"]
    ] * 2


def test_a_dialogue_ends_where_a_turn_is_set_aside(tmp_path, picture, encoded, cauldron):
    turns = [ask("a?"), ask("b?", " "), ask("c?"), ask("d?")]
    path = cauldron(tmp_path / "train.parquet", [([encoded(picture(0))], turns)])
    talk = load(path, turns="conversation")
    assert [s.question for s in talk.samples] == ["a?"]
    assert talk.set_aside.counts == {"after a turn that was set aside": 2, "empty answer": 1}
    assert [s.question for s in load(path).samples] == ["a?", "c?", "d?"]


def test_a_mixture_keeps_dialogues_and_questions_apart(dialogues, many):
    talking = {"source": "jsonl", "path": str(dialogues), "name": "talk", "turns": "conversation"}
    parts = [
        {**talking, "columns": {"conversation": "conversations"}},
        {"source": "cauldron", "path": str(many), "name": "questions", "limit": 5},
    ]
    data = load_vqa({"source": "mixture", "parts": parts})
    kinds = {turns.samples[0].item_id.split(":")[0]: turns.conversation for turns in data.pictures}
    assert kinds == {"talk": True, "questions": False}


def test_fingerprints_of_plain_sets_are_what_they_were(many):
    """A new field must not rename the cells of every earlier comparison."""
    data = load(many)
    content = [turns.image_id for turns in data.pictures]
    again = make_data(data.name, data.split, data.pictures, content=content)
    assert again.fingerprint == data.fingerprint


def test_a_json_file_that_is_no_list_is_told(tmp_path):
    (tmp_path / "x.json").write_text('{"image": "0.png"}')
    with pytest.raises(UserError, match=r"x\.json is no list of JSON objects"):
        talk(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("[")
    with pytest.raises(UserError, match=r"x\.json is not JSON"):
        talk(tmp_path / "x.json")
