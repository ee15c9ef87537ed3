"""Every row of the table reads files of the form it was written for, made here in small."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as Pictures

from sutura.core.errors import UserError
from sutura.data.samples import VqaData
from sutura.data.vqa import load_vqa
from sutura.evals.benchmarks import BENCHMARKS, get_benchmark
from sutura.evals.photograph_rows import ROWS


def picture(number: int) -> bytes:
    out = io.BytesIO()
    Pictures.new("RGB", (8, 8), (number, 40, 90)).save(out, format="PNG")
    return out.getvalue()


def cell(number: int) -> dict[str, Any]:
    return {"bytes": picture(number), "path": None}


def write(path: Path, rows: Sequence[dict[str, Any]], **kinds: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    found = Dataset.from_dict(columns)
    features = {**found.features, **kinds}
    Dataset.from_dict(columns, features=Features(features)).to_parquet(str(path))
    return path


def read(name: str, path: Path, **more: Any) -> VqaData:
    """The row's data with local files instead of the Hub's."""
    row = get_benchmark(name, {"path": str(path), "subset": None, **more})
    return load_vqa(row.data)


@pytest.fixture
def unpacked(tmp_path: Path) -> Callable[[str, bytes | str], Path]:
    def put(name: str, content: bytes | str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return put


def test_tallyqa(tmp_path: Path) -> None:
    """Columns image and qa, a list of questions a row."""
    asked = [
        {"question": "How many cats?", "answer": 3, "is_simple": True, "data_source": "vg", "question_id": 7}
    ]
    asked.append(
        {**asked[0], "question": "How many sleep?", "answer": 0, "is_simple": False, "question_id": 8}
    )
    rows = [{"image": cell(1), "qa": asked}, {"image": cell(2), "qa": asked[:1]}]
    path = write(tmp_path / "test-0.parquet", rows, image=Image())
    data = read("tallyqa/test", path)
    assert [(s.question, s.answers, s.question_type) for s in data.samples] == [
        ("How many cats?", ("3",), "simple"),
        ("How many sleep?", ("0",), "not simple"),
        ("How many cats?", ("3",), "simple"),
    ]
    assert len(data.pictures) == 2
    kinds = {name: get_benchmark(f"tallyqa/test/{name}") for name in ("simple", "complex")}
    assert [kinds["simple"].holds(s.question_type) for s in data.samples] == [True, False, True]
    assert [kinds["complex"].holds(s.question_type) for s in data.samples] == [False, True, False]


def test_questions_as_lists_side_by_side_are_the_same_questions(tmp_path: Path) -> None:
    sides = {
        "question": ["How many cats?", "How many sleep?"],
        "answer": ["3", "0"],
        "is_simple": [True, False],
    }
    path = write(tmp_path / "test-0.parquet", [{"image": cell(1), "qa": sides}], image=Image())
    assert [s.answers for s in read("tallyqa/test", path).samples] == [("3",), ("0",)]
    bad = write(tmp_path / "test-1.parquet", [{"image": cell(1), "qa": [{"q": "a"}]}], image=Image())
    with pytest.raises(UserError, match="holds q; each needs question and answer"):
        read("tallyqa/test", bad)


def test_pope(tmp_path: Path) -> None:
    """Its question ids begin anew in each category, so they are not taken for ids."""
    rows = [
        {
            "id": str(number),
            "question_id": "1",
            "question": f"Is there a {thing} in the image?",
            "answer": answer,
            "image_source": "COCO_val2014_1",
            "image": cell(1),
            "category": category,
        }
        for number, (thing, answer, category) in enumerate(
            [("dog", "yes", "random"), ("cat", "no", "popular"), ("cup", "no", "adversarial")]
        )
    ]
    data = read("pope", write(tmp_path / "test-0.parquet", rows, image=Image()))
    assert [(s.answers, s.question_type) for s in data.samples] == [
        (("yes",), "random"),
        (("no",), "popular"),
        (("no",), "adversarial"),
    ]
    assert len(data.pictures) == 1
    assert get_benchmark("pope/popular").holds("popular")
    assert not get_benchmark("pope/popular").holds("random")


def test_scienceqa_takes_the_choice_at_the_place_named(tmp_path: Path) -> None:
    row = {
        "image": cell(1),
        "question": "Which?",
        "choices": ["sun", "moon"],
        "answer": 1,
        "hint": "By night.",
    }
    rows = [row, {**row, "image": cell(2), "hint": "", "answer": 0}, {**row, "image": cell(3), "answer": 5}]
    rows.append({**row, "image": None})
    data = read("scienceqa/image-test", write(tmp_path / "test-0.parquet", rows, image=Image()))
    assert [(s.question, s.answers, s.choices) for s in data.samples] == [
        ("By night.\nWhich?", ("moon",), ("sun", "moon")),
        ("Which?", ("sun",), ("sun", "moon")),
    ]
    assert data.set_aside.counts == {"empty answer": 1, "missing": 1}
    assert get_benchmark("scienceqa/image-test").likelihood == "rotated"


@pytest.mark.parametrize("part", ["add_obj", "swap_att"])
def test_sugarcrepe_takes_the_class_named(tmp_path: Path, part: str) -> None:
    """true_label is a class whose names are captions, in an order of their own."""
    rows = [
        {"image": cell(1), "tested_labels": ["a red cat", "a blue cat"], "true_label": 1},
        {"image": cell(2), "tested_labels": ["a dog", "two dogs"], "true_label": 0},
    ]
    names = ClassLabel(names=["a dog", "a red cat", "a blue cat", "two dogs"])
    path = write(
        tmp_path / "test-0.parquet",
        rows,
        image=Image(),
        tested_labels=List(Value("string")),
        true_label=names,
    )
    data = read(f"sugarcrepe/{part}", path)
    assert [(s.answers, s.choices) for s in data.samples] == [
        (("a red cat",), ("a red cat", "a blue cat")),
        (("a dog",), ("a dog", "two dogs")),
    ]
    assert {s.question for s in data.samples} == {"What does the picture show?"}
    assert get_benchmark(f"sugarcrepe/{part}").likelihood is True


def test_gqa_finds_its_pictures_in_another_table(tmp_path: Path) -> None:
    questions = [
        {"id": f"q{k}", "imageId": image, "question": f"Is it {k}?", "answer": "no"}
        for k, image in enumerate(["n2", "n1", "n2", "gone"])
    ]
    path = write(tmp_path / "questions" / "testdev-0.parquet", questions)
    pictures = [{"id": "n1", "image": cell(1)}, {"id": "n2", "image": cell(2)}]
    images = write(tmp_path / "images" / "testdev-0.parquet", pictures, image=Image())
    data = read("gqa/testdev", path, options={"images": {"path": str(images)}})
    assert [(s.image_id.split("/")[-1], s.item_id.split("/")[-1]) for s in data.samples] == [
        ("n2", "q0"),
        ("n2", "q2"),
        ("n1", "q1"),
    ]
    assert data.samples[0].image.open().getpixel((0, 0)) == (2, 40, 90)
    assert data.set_aside.counts == {"missing": 1}
    with pytest.raises(UserError, match=r"options.images .* no 'paht'.*Did you mean 'path'"):
        read("gqa/testdev", path, options={"images": {"paht": str(images)}})
    with pytest.raises(UserError, match="no column 'key' for id"):
        read("gqa/testdev", path, options={"images": {"path": str(images), "id": "key"}})


def test_vqav2_is_judged_by_the_official_rules(tmp_path: Path) -> None:
    answers = [{"answer": "yes", "answer_id": k, "answer_confidence": "yes"} for k in range(10)]
    row = {
        "question_id": 5,
        "image": cell(1),
        "question": "Is it?",
        "answers": answers,
        "answer_type": "yes/no",
    }
    data = read("vqav2/validation", write(tmp_path / "validation-0.parquet", [row], image=Image()))
    assert [(s.answers, s.question_type) for s in data.samples] == [(("yes",) * 10, "yes/no")]
    found = get_benchmark("vqav2/validation")
    assert (found.metric, found.version) == ("vqa_official", "2")


def test_clevr_as_it_is_published(unpacked: Callable[..., Path], tmp_path: Path) -> None:
    asked = [
        {
            "image_filename": f"CLEVR_val_00000{k % 2}.png",
            "question": f"How many? {k}",
            "answer": str(k),
            "question_index": k,
            "program": [{"function": "scene"}, {"function": "count"}],
        }
        for k in range(3)
    ]
    unpacked("questions/CLEVR_val_questions.json", json.dumps({"info": {}, "questions": asked}))
    for k in range(2):
        unpacked(f"images/val/CLEVR_val_00000{k}.png", picture(k))
    data = read("clevr/val", tmp_path)
    assert [(s.answers, s.question_type, s.image_id) for s in data.samples][:2] == [
        (("0",), "count", f"{tmp_path.name}/CLEVR_val_000000"),
        (("2",), "count", f"{tmp_path.name}/CLEVR_val_000000"),
    ]
    unpacked("questions/CLEVR_test_questions.json", json.dumps({"questions": [{"question": "Which?"}]}))
    with pytest.raises(UserError, match="holds no answers"):
        read("clevr/val", tmp_path, split="test")
    with pytest.raises(UserError, match="reads training data"):
        read("clevr/val", tmp_path, split="train")
    with pytest.raises(UserError, match="unpacked"):
        read("clevr/val", tmp_path / "questions")


def test_cocoqa_as_it_is_published(unpacked: Callable[..., Path], tmp_path: Path) -> None:
    lines = {
        "questions": "what is it\nhow many cats are there\n",
        "answers": "cat\ntwo\n",
        "img_ids": "9\n25\n",
        "types": "0\n1\n",
    }
    for name, text in lines.items():
        unpacked(f"test/{name}.txt", text)
    unpacked("coco/COCO_val2014_000000000009.jpg", picture(1))
    unpacked("coco/train2014/COCO_train2014_000000000025.jpg", picture(2))
    data = read("cocoqa/test", tmp_path, image_folder=str(tmp_path / "coco"))
    assert [(s.answers, s.question_type) for s in data.samples] == [
        (("cat",), "object"),
        (("two",), "number"),
    ]
    unpacked("test/answers.txt", "cat\n")
    with pytest.raises(UserError, match=r"answers.txt 1"):
        read("cocoqa/test", tmp_path)


def test_nlvr_as_it_is_published(unpacked: Callable[..., Path], tmp_path: Path) -> None:
    lines = [
        {"identifier": "72-0", "directory": "5", "sentence": "There is a box.", "label": "true"},
        {"identifier": "72-1", "directory": "5", "sentence": "There are two.", "label": "false"},
        {"identifier": "73-0", "directory": "6", "sentence": "Gone.", "label": "false"},
    ]
    unpacked("dev/dev.json", "\n".join(map(json.dumps, lines)))
    for example in (0, 1):
        for order in range(2):
            unpacked(f"dev/images/5/dev-72-{example}-{order}.png", picture(2 * example + order))
    data = read("nlvr/dev", tmp_path)
    assert [s.answers for s in data.samples] == [("yes",), ("no",)]
    assert data.samples[0].question == 'Is this true of the picture: "There is a box."'
    assert data.set_aside.counts == {"missing": 1}
    assert len(read("nlvr/dev", tmp_path, options={"orders": 2}).samples) == 4
    with pytest.raises(UserError, match="1 to 6"):
        read("nlvr/dev", tmp_path, options={"orders": 7})


def test_the_document_names_every_row_with_its_floors() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    table = text[text.index("## Benchmarks") : text.index("## Rating sheets")]
    for name, values in ROWS.items():
        group, part = name.split("/")[0], name.split("/")[-1]
        lines = [line for line in table.splitlines() if line.startswith("|") and f"`{group}" in line]
        (line,) = [line for line in lines if part in line]
        if group != "cauldron":
            assert all(f"{kind} {100 * score:.1f}" in line for kind, score, _ in values.get("floors", ())), (
                name
            )
            assert f"`{values.get('metric', 'exact')}`" in line


def test_every_row_is_in_the_table_and_none_trains() -> None:
    for name, values in ROWS.items():
        row = BENCHMARKS.get(name)
        assert not row.is_training, name
        assert row.note
        assert all(floor.source for floor in row.floors)
        assert row.answer_kind == values["answer_kind"]
    families = {name.split("/")[0] for name in ROWS}
    assert families >= {
        "clevr",
        "cocoqa",
        "tallyqa",
        "scienceqa",
        "vqav2",
        "gqa",
        "pope",
        "sugarcrepe",
        "nlvr",
        "daquar",
    }


@pytest.mark.parametrize("name", ["gqa/testdev", "pope", "scienceqa/image-test", "tallyqa/test", "nlvr/dev"])
def test_no_row_can_be_turned_to_training_data_in_silence(name: str) -> None:
    with pytest.raises(UserError, match=r"reads training data.*allow_training"):
        get_benchmark(name, {"split": "train"})
    assert get_benchmark(name, {"split": "train"}, allow_training=True).is_training


def test_an_empty_name_in_the_column_map_takes_no_column(tmp_path: Path) -> None:
    row = {"image": cell(1), "question": "Is it?", "answer": "no", "question_id": "1"}
    path = write(tmp_path / "test-0.parquet", [row, {**row, "question": "Was it?"}], image=Image())
    local = {"source": "parquet", "split": "test", "path": str(path)}
    with pytest.raises(UserError, match="twice"):
        load_vqa(get_benchmark("local:x", local).data)
    assert len(load_vqa(get_benchmark("local:x", {**local, "columns": {"item_id": ""}}).data)) == 2
