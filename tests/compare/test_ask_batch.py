"""A CSV of questions about a folder of pictures: every row is answered or set aside with its reason."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sutura.cli import main
from sutura.compare import ask_batch
from sutura.compare.ask_batch import answer_file
from sutura.core.errors import UserError
from sutura.stitch.bundle import Stitch, load_stitch
from sutura.stitch.sampling import Sampling
from tiny_stitches import know_tiny_encoders, save_stitch, tiny_picture


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("batch")
    with pytest.MonkeyPatch.context() as patch:
        know_tiny_encoders(patch)
        save_stitch(folder / "one", seed=0)
        save_stitch(folder / "blind", blind=True, most=30)
        (folder / "pictures" / "deep").mkdir(parents=True)
        for shade, name in enumerate(("a.png", "b.png", "deep/c.png")):
            tiny_picture(30 * shade).save(folder / "pictures" / name)
        (folder / "pictures" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
        tiny_picture().save(folder / "outside.png")
        yield folder


@pytest.fixture(scope="module")
def stitches(place: Path) -> dict[str, Stitch]:
    return {name: load_stitch(place / name, device="cpu") for name in ("one", "blind")}


GOOD = (
    'id,image,question\n7,a.png,"What colour, and how many?"\n8,b.png,How many spheres are there?\n'
    "\n9,a.png,Is it yellow?\n10,deep/c.png,How many?\n"
)


def put(
    place: Path, tmp_path: Path, text: str | bytes, stitches: dict[str, Stitch], **options: Any
) -> tuple[Any, list[dict[str, str]]]:
    questions = tmp_path / "questions.csv"
    questions.write_bytes(text.encode() if isinstance(text, str) else text)
    out = tmp_path / "answers.csv"
    done = answer_file(stitches, questions, place / "pictures", out, max_new_tokens=4, **options)
    with out.open(encoding="utf-8", newline="") as file:
        return done, list(csv.DictReader(file))


def test_every_row_has_the_answer_it_would_get_alone(
    place: Path, tmp_path: Path, stitches: dict[str, Stitch]
) -> None:
    """In the order of the file, other columns carried over, questions of a picture wherever they stand."""
    done, rows = put(place, tmp_path, "\ufeff" + GOOD, stitches)
    assert [(row["id"], row["stitch"]) for row in rows] == [
        (number, name) for number in ("7", "8", "9", "10") for name in ("one", "blind")
    ]
    for row in rows:
        stitch = stitches[row["stitch"]]
        image = None if stitch.blind else place / "pictures" / row["image"]
        answer = stitch.ask_all([(image, [row["question"]])], max_new_tokens=4)[0]
        told = (row["prediction"], row["tokens"], row["cut"])
        assert told == (answer.text, str(answer.tokens), str(int(not answer.stopped)))
    assert (done.rows, len(done.set_aside), done.listed) == (8, 0, None)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["answers.csv", "questions.csv"]


@pytest.mark.parametrize(("questions", "pictures"), [(1, 1), (2, 16), (64, 2)])
def test_the_size_of_a_batch_changes_nothing(
    questions: int,
    pictures: int,
    place: Path,
    tmp_path: Path,
    stitches: dict[str, Stitch],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = GOOD + "".join(f"{i},a.png,How many {i} cubes?\n" for i in range(5))
    (tmp_path / "once").mkdir()
    sampling = Sampling(1.2, seed=2)
    _, once = put(place, tmp_path / "once", text, stitches, sampling=sampling)
    monkeypatch.setattr(ask_batch, "QUESTIONS", questions)
    monkeypatch.setattr(ask_batch, "PICTURES", pictures)
    _, again = put(place, tmp_path, text, stitches, sampling=sampling)
    assert once == again
    assert len(once) == 18


BAD = {
    "gone.png,How many?": "missing",
    "broken.png,How many?": "not a picture",
    "deep,How many?": "not a file",
    "../outside.png,How many?": "outside the folder",
    "/etc/hostname,How many?": "outside the folder",
    "a.png,  ": "empty question",
    ",How many?": "no picture named",
    "a.png,How many?,more": "wrong number of cells",
    "a.png": "wrong number of cells",
}


def test_bad_rows_are_set_aside_counted_and_listed(
    place: Path, tmp_path: Path, stitches: dict[str, Stitch]
) -> None:
    long = "many " * 40
    lines = ["image,question", *BAD, f"a.png,{long}", "b.png,How many?"]
    done, rows = put(place, tmp_path, "\n".join(lines), stitches)
    assert [(row["image"], row["stitch"]) for row in rows] == [
        ("a.png", "one"),
        ("b.png", "one"),
        ("b.png", "blind"),
    ]
    expected = [*BAD.values(), "question too long"]
    assert done.set_aside.counts == {reason: expected.count(reason) for reason in expected}
    assert done.listed == tmp_path / "answers.set-aside.csv"
    with done.listed.open(encoding="utf-8", newline="") as file:
        listed = list(csv.DictReader(file))
    assert [row["reason"] for row in listed] == expected
    assert [int(row["line"]) for row in listed] == list(range(2, 12))
    assert (listed[-1]["stitch"], listed[0]["stitch"], listed[0]["image"]) == ("blind", "", "gone.png")
    assert done.rows + len(done.set_aside) * 2 - 1 == 2 * (len(lines) - 1)


def test_a_blind_stitch_alone_needs_no_picture_to_be_there(
    place: Path, tmp_path: Path, stitches: dict[str, Stitch]
) -> None:
    done, rows = put(place, tmp_path, "image,question\ngone.png,How many?\n", {"b": stitches["blind"]})
    assert (done.rows, rows[0]["prediction"]) == (
        1,
        stitches["blind"].ask(None, "How many?", max_new_tokens=4),
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "no column image and none question; its first line holds nothing"),
        ("picture,question\na.png,What?\n", "no column image; its first line holds picture, question"),
        ("image;question\na.png;What?\n", "no column image and none question"),
        ("image,question\n", "no question"),
        ("image,image,question\na,b,c\n", "names image twice"),
        ("image,question,prediction\na.png,What?,red\n", "has a column prediction"),
        ("image,question\na.png,What\udcff?\n".encode("utf-8", "surrogateescape"), "not UTF-8"),
        ("image,question\ngone.png,What?\n", r"could be answered; set aside: 1 missing \(line 2\)"),
        (f'image,question\na.png,"{"x" * 200_000}"\n', "not a CSV file: field larger"),
    ],
)
def test_a_file_of_another_form_is_refused(
    text: str | bytes, sentence: str, place: Path, tmp_path: Path, stitches: dict[str, Stitch]
) -> None:
    with pytest.raises(UserError, match=sentence):
        put(place, tmp_path, text, stitches)
    assert [p.name for p in tmp_path.iterdir()] == ["questions.csv"]


def test_what_is_not_there_and_what_is_there_already(
    place: Path, tmp_path: Path, stitches: dict[str, Stitch]
) -> None:
    out = tmp_path / "answers.csv"
    with pytest.raises(UserError, match=r"nowhere\.csv cannot be read"):
        answer_file(stitches, tmp_path / "nowhere.csv", place / "pictures", out)
    with pytest.raises(UserError, match="is no folder"):
        answer_file(stitches, tmp_path / "nowhere.csv", place / "a", out)
    for name in ("answers.csv", "answers.set-aside.csv"):
        (tmp_path / name).write_text("kept")
        with pytest.raises(UserError, match=f"{name} exists already"):
            put(place, tmp_path, GOOD, stitches)
        assert (tmp_path / name).read_text() == "kept"
        (tmp_path / name).unlink()


def test_from_the_command_line(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "q.csv").write_text(GOOD + "11,gone.png,How many?\n")
    monkeypatch.chdir(place)
    words = ["sutura", "ask", "--stitch", "one", "--device", "cpu", "--images", "pictures"]
    words += ["--batch", str(tmp_path / "q.csv"), "--out", str(tmp_path / "a.csv")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as left:
        main()
    out, err = capsys.readouterr()
    assert (left.value.code or 0, out) == (0, f"{tmp_path / 'a.csv'}: 4 answers\n")
    assert "set aside: 1 missing (line 7); all of them are listed in" in err
