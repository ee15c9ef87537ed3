"""`sutura ask` and `sutura describe`, from the command line to what is printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pytest

from sutura.cli import main
from sutura.stitch.bundle import Stitch, load_stitch
from tiny_stitches import know_tiny_encoders, save_stitch, tiny_picture

QUESTIONS = ("What colour is the cube?", "How many spheres are there?", "Is it yellow?")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two seeing stitches, a blind one, and two pictures."""
    folder = tmp_path_factory.mktemp("asking")
    with pytest.MonkeyPatch.context() as patch:
        know_tiny_encoders(patch)
        save_stitch(folder / "one", seed=0, turns="shared", description="what is there?")
        save_stitch(folder / "two", seed=1)
        save_stitch(folder / "blind", blind=True)
        tiny_picture().save(folder / "a.png")
        tiny_picture(90).save(folder / "b.png")
        yield folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: Path) -> Run:
    """Start the program: arguments (and what is typed) → exit code, stdout, stderr."""
    monkeypatch.chdir(place)

    def start(*arguments: str, typed: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sutura", *arguments])
        monkeypatch.setattr(sys, "stdin", StringIO(typed))
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return start


def ask(*arguments: str) -> tuple[str, ...]:
    return ("ask", "--device", "cpu", *arguments)


def saved(place: Path, name: str) -> Stitch:
    return load_stitch(place / name, device="cpu")


def test_one_stitch_prints_its_answer(run: Run, place: Path) -> None:
    code, out, _ = run(*ask("--stitch", "one", "--image", "a.png", QUESTIONS[0]))
    assert (code, out) == (0, saved(place, "one").ask(place / "a.png", QUESTIONS[0]) + "\n")


def test_a_folder_is_all_its_stitches_and_one_encoder_of_it_is_one(run: Run) -> None:
    options = ("--image", "a.png", "--json", QUESTIONS[0])
    code, out, _ = run(*ask("--stitch", ".", *options))
    assert (code, len(out.splitlines())) == (0, 3)
    code, out, _ = run(*ask("--stitch", ".", "--encoder", "tiny:1", *options))
    assert (code, [json.loads(line)["stitch"] for line in out.splitlines()]) == (0, ["two"])
    code, _, err = run(*ask("--stitch", ".", "--encoder", "tiny:7", *options))
    assert code == 2
    assert "No stitch here has the encoder 'tiny:7'" in err


def test_json_says_all_of_it(run: Run, place: Path) -> None:
    options = ("--image", "a.png", "--json", "--max-new-tokens", "5")
    code, out, _ = run(*ask("--stitch", "one", "--stitch", "blind", *options, QUESTIONS[0]))
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [(row["stitch"], row["encoder"]) for row in rows] == [("one", "tiny:0"), ("blind", "blind")]
    for row in rows:
        image = None if row["stitch"] == "blind" else place / "a.png"
        assert row["answer"] == saved(place, row["stitch"]).ask(image, QUESTIONS[0], max_new_tokens=5)
        assert (row["image"], row["question"]) == ("a.png", QUESTIONS[0])
        assert 0 < row["first_token_s"] <= row["total_s"]
        assert row["tokens"] <= 5
        assert row["cut"] == (row["tokens"] == 5)


def test_several_stitches_stand_in_a_table(run: Run, place: Path) -> None:
    names = ("one", "two", "blind")
    stitches = [word for name in names for word in ("--stitch", name)]
    code, out, _ = run(*ask(*stitches, "--image", "a.png", "--max-new-tokens", "4", QUESTIONS[1]))
    assert code == 0
    assert all(word in out for word in (QUESTIONS[1], "first token, ms", "total, ms", *names, "tiny:1"))
    for name in names:
        image = None if name == "blind" else place / "a.png"
        answer = saved(place, name).ask(image, QUESTIONS[1], max_new_tokens=4).split()
        row = " ".join(line for line in out.splitlines() if f"│ {name} " in line)
        assert all(word in row for word in answer[:1])


def test_the_options_of_drawing_reach_the_answer(run: Run, place: Path) -> None:
    from sutura.stitch.sampling import Sampling

    options = ("--temperature", "1.5", "--top-p", "0.95", "--top-k", "80", "--seed", "3")
    code, out, _ = run(*ask("--stitch", "one", "--image", "a.png", *options, QUESTIONS[0]))
    sampling = Sampling(1.5, 0.95, 80, 3)
    expected = saved(place, "one").ask(place / "a.png", QUESTIONS[0], sampling=sampling)
    assert (code, out.rstrip("\n")) == (0, expected)
    assert expected != saved(place, "one").ask(place / "a.png", QUESTIONS[0])


def test_describe_asks_what_each_was_trained_with(run: Run, place: Path) -> None:
    """Fault: one wording for all, which a stitch that learned another does not answer."""
    options = ("--image", "a.png", "--device", "cpu", "--max-new-tokens", "5")
    code, out, err = run("describe", "--stitch", "one", *options)
    assert (code, out) == (0, saved(place, "one").describe(place / "a.png", max_new_tokens=5) + "\n")
    assert "asked: what is there?" in err
    code, out, _ = run("describe", "--stitch", "one", "--stitch", "two", *options, "--json")
    asked = [json.loads(line)["question"] for line in out.splitlines()]
    assert asked == ["what is there?", "Describe the picture."]


def test_a_conversation(run: Run, place: Path) -> None:
    """Answers of questions asked alone; a mistake is told and the conversation goes on."""
    typed = [QUESTIONS[0], "", QUESTIONS[1], ":image b.png", QUESTIONS[0], ":image gone.png", ":imagine"]
    typed += ["many " * 600, QUESTIONS[2], ":reset", QUESTIONS[0], ":quit", "never asked"]
    code, out, err = run(*ask("--stitch", "one", "--image", "a.png", "--interactive"), typed="\n".join(typed))
    one = saved(place, "one")
    asked = [("a", QUESTIONS[0]), ("a", QUESTIONS[1]), ("b", QUESTIONS[0]), ("b", QUESTIONS[2])]
    asked.append(("b", QUESTIONS[0]))
    expected = [one.ask(place / f"{name}.png", question) for name, question in asked]
    assert (code, out) == (0, "".join(f"{answer}\n" for answer in expected))
    for told in ("gone.png cannot be used", "There is no command :imagine", "prompt.max_tokens is 512"):
        assert told in err
    assert err.count("> ") == len(typed) - 1


def test_a_conversation_may_begin_without_a_picture(run: Run, place: Path) -> None:
    typed = f"{QUESTIONS[0]}\n:image\n:image b.png\n{QUESTIONS[1]}"
    code, out, err = run(*ask("--stitch", "one", "--interactive", "--json"), typed=typed)
    row = json.loads(out)
    assert (code, row["image"], row["question"]) == (0, "b.png", QUESTIONS[1])
    assert row["answer"] == saved(place, "one").ask(place / "b.png", QUESTIONS[1])
    assert "There is no picture yet" in err
    assert ":image needs" in err


def test_the_history_is_kept_when_asked_for_and_forgotten_on_reset(run: Run, place: Path) -> None:
    typed = "\n".join([*QUESTIONS, ":reset", QUESTIONS[0]])
    stitches = ("--stitch", "one", "--stitch", "two", "--json")
    options = (*stitches, "--image", "a.png", "--interactive", "--history")
    code, out, err = run(*ask(*options), typed=typed)
    answers = [row["answer"] for row in map(json.loads, out.splitlines()) if row["stitch"] == "one"]
    talk = saved(place, "one").conversation(place / "a.png", history=True)
    expected = [talk.ask(question).text for question in QUESTIONS]
    assert (code, answers) == (0, [*expected, expected[0]])
    assert "one was trained with turns=shared" in err
    assert "two does not say how it was trained" in err


def test_the_picture_is_fetched_once_for_all(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []

    def fetch(url: str) -> object:
        fetched.append(url)
        return tiny_picture()

    monkeypatch.setattr("sutura.data.remote_image.fetch_picture", fetch)
    url = "https://pictures.test/a.png"
    options = ("--stitch", "one", "--stitch", "two", "--image", url, "--json")
    code, out, _ = run(*ask(*options, QUESTIONS[0]))
    assert (code, fetched) == (0, [url])
    assert json.loads(out.splitlines()[0])["answer"] == saved(place, "one").ask(place / "a.png", QUESTIONS[0])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "Nothing was asked"),
        (("  ",), "Nothing was asked"),
        (("--history", "What?"), "add --interactive"),
        (("--images", ".", "What?"), "belong to --batch"),
        (("--batch", "q.csv", "What?"), "leave out a question"),
        (("--batch", "q.csv", "--image", "a.png", "--json"), "leave out --image, --json"),
        (("--batch", "q.csv"), "--batch needs --images"),
        (("--top-p", "0.5", "What?"), "top_p=0.5 without a temperature"),
        (("--temperature", "-1", "What?"), "temperature=-1"),
        (("What?",), "is no stitch"),
    ],
)
def test_what_does_not_go_together_is_told_before_anything_is_loaded(
    run: Run, arguments: tuple[str, ...], sentence: str
) -> None:
    code, out, err = run(*ask("--stitch", "nowhere", *arguments))
    assert (code, out) == (2, "")
    assert sentence in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--stitch", "one", "What?"), "one looks at pictures: give --image"),
        (("--stitch", "one", "--image", "gone.png", "What?"), "gone.png cannot be used"),
        (("--stitch", "one", "--image", "http://127.0.0.1/a.png", "What?"), "which is loopback"),
        (("--stitch", "one", "--stitch", "one", "--image", "a.png", "What?"), "given twice"),
    ],
)
def test_a_mistake_about_the_picture(run: Run, arguments: tuple[str, ...], sentence: str) -> None:
    code, out, err = run(*ask(*arguments))
    assert (code, out) == (2, "")
    assert sentence in err
