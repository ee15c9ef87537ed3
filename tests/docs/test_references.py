"""Tables are those of the result files they came from, and what a document points to exists."""

from __future__ import annotations

import csv
import re
import tomllib
from pathlib import Path

import pytest

from docs.documents import DOCUMENTS, LINK, MARKER, PLACE, ROOT, name_of, prose

TABLES = [(path, found[1], found[2]) for path in DOCUMENTS for found in MARKER.finditer(prose(path))]


def cells(table: str) -> list[list[str]]:
    """A Markdown table as rows of cells, without its ruler."""
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.strip().splitlines()
    ]
    return [row for row in rows if not all(re.fullmatch(r":?-+:?", cell) for cell in row)]


def tables_in(path: Path) -> list[list[list[str]]]:
    """Every table of a result file, Markdown or CSV."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        return [[[cell.strip() for cell in row] for row in csv.reader(text.splitlines())]]
    return [cells(found) for found in re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE)]


@pytest.mark.parametrize(("path", "source", "table"), TABLES, ids=[f"{name_of(p)} {s}" for p, s, _ in TABLES])
def test_a_table_is_the_one_in_its_result_file(path: Path, source: str, table: str) -> None:
    """The marker `<!-- table: docs/results/NAME.md -->` before a table names the file it was copied from."""
    assert (ROOT / source).is_file(), f"{name_of(path)} takes a table from {source}, which is not there"
    assert cells(table) in tables_in(ROOT / source)


def test_the_readme_shows_results_with_their_source() -> None:
    assert any(path.name == "README.md" and path.parent == ROOT for path, _, _ in TABLES)


def test_an_altered_figure_would_be_noticed(tmp_path: Path) -> None:
    table = "| encoder | % |\n|---|---|\n| clip | 71.2 |\n"
    (tmp_path / "report.md").write_text(f"# Report\n\n{table}\ntext\n")
    (tmp_path / "report.csv").write_text("encoder,%\nclip,71.2\n")
    for name in ("report.md", "report.csv"):
        assert cells(table) in tables_in(tmp_path / name)
        assert cells(table.replace("71.2", "72.2")) not in tables_in(tmp_path / name)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_what_a_document_points_to_exists(path: Path) -> None:
    text = prose(path)
    links = [link.partition("#")[0] for link in LINK.findall(text) if not re.match(r"[a-z]+:|#", link)]
    missing = [link for link in links if not (path.parent / link).exists()]
    missing += [name for name in PLACE.findall(text) if not (ROOT / name).exists()]
    assert missing == []


def test_every_text_of_the_docs_can_be_found_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [p.name for p in (ROOT / "docs").glob("*.md") if f"docs/{p.name}" not in readme] == []


def test_every_dependency_earns_its_place_in_contributing() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {re.split(r"[<>=~!\[; ]", line)[0] for line in project["dependencies"]}
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = cells(text.split("## Why each dependency is here")[1].split("\n\n")[1])
    assert {row[0] for row in table[1:]} == named
