"""The house stays as it was drawn: folders, lengths, names, sizes, and nothing half-finished in it."""

from __future__ import annotations

import re

import pytest

from architecture.repository import ROOT, SOURCE, files, place, python_files, text_files, tree

LONGEST = 400
LARGEST_FILE = 5 * 2**20
LARGEST_ZOO = 25 * 2**20
ROOMS = ("core", "nn", "losses", "models", "encoders", "stitch", "data", "train", "evals", "compare", "hub")
AT_THE_TOP = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LOG.md",
    "CITATION.cff",
    "LICENSE",
    "Makefile",
    "pyproject.toml",
    ".ci/run",
    "docs/stitching.md",
    "docs/protocol.md",
    "examples",
    "benchmarks",
)


def test_no_python_file_is_longer_than_400_lines() -> None:
    lengths = {
        place(path): len(path.read_text(encoding="utf-8").splitlines())
        for path in python_files("src", "tests", "benchmarks", "examples")
    }
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST} == {}


def test_no_module_is_a_drawer_for_everything() -> None:
    names = {"utils", "util", "helpers", "helper", "misc", "common"}
    found = [place(p) for p in files() if p.suffix == ".py" and names & {p.stem, *p.parent.parts}]
    assert found == []


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_its_folder_and_its_tests(room: str) -> None:
    assert (SOURCE / room / "__init__.py").is_file(), f"src/sutura/{room} is not a package"
    assert list((ROOT / "tests" / room).rglob("test_*.py")), f"tests/{room} holds no test"


@pytest.mark.parametrize(
    "name", [*AT_THE_TOP, "src/sutura/presets", "src/sutura/zoo", "src/sutura/data/scenes"]
)
def test_what_a_newcomer_looks_for_is_there(name: str) -> None:
    assert (ROOT / name).exists()


def test_nothing_is_left_unfinished() -> None:
    # The words are put together here so that this file does not find itself.
    words = re.compile("|".join((rf"\b{'TO'}{'DO'}\b", rf"\b{'FIX'}{'ME'}\b", f"Not{'Implemented'}")))
    found = [
        place(path, number)
        for path in text_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if words.search(line)
    ]
    assert found == []


def test_no_text_names_a_path_of_somebodys_machine() -> None:
    tops = ("work", "root", "tmp", r"home/\w+", r"Users/\w+", "opt", "mnt")
    pattern = re.compile(r"(?<![\w.\-/}])/(?:" + "|".join(tops) + r")/\w")
    found = [
        f"{place(path, number)}: {line.strip()[:80]}"
        for path in text_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]
    assert found == []


def test_no_file_is_too_large_for_a_clone() -> None:
    sizes = {path: path.stat().st_size for path in files()}
    assert {place(p): size for p, size in sizes.items() if size > LARGEST_FILE} == {}
    zoo = sum(size for path, size in sizes.items() if (SOURCE / "zoo") in path.parents)
    assert zoo <= LARGEST_ZOO, f"the zoo is {zoo / 2**20:.1f} MiB"


def test_every_weight_of_the_zoo_has_a_card_with_its_command() -> None:
    for weights in (SOURCE / "zoo").rglob("*.safetensors"):
        card = weights.parent / "README.md"
        assert card.is_file(), f"{place(weights)} has no card"
        assert "sutura zoo build" in card.read_text(encoding="utf-8"), (
            f"{place(card)} does not say how to repeat it"
        )


def test_every_module_says_what_it_is_for() -> None:
    import ast

    assert [place(path) for path in python_files("src") if not ast.get_docstring(tree(path))] == []
