"""Every Python snippet in the documents runs, one after the other, as a reader would run them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from docs.documents import DOCUMENTS, ROOT, Block, blocks, name_of

WITH_SNIPPETS = [path for path in DOCUMENTS if any(block.language == "python" for block in blocks(path))]
#: Those that are read from top to bottom like a page, and those that draw; both have to stay short all the same.
LONGER = {"vit_clip_siglip_sketch.py": 200, "foundation_figures.py": 300}
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("path", WITH_SNIPPETS, ids=name_of)
def test_the_snippets_of_a_document_run(path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later snippets see the names of earlier ones."""
    monkeypatch.chdir(place)
    names: dict[str, object] = {"__name__": "snippet"}
    for block in blocks(path):
        if block.language == "python" and not block.included:
            exec(_compiled(block), names)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("path", EXAMPLES, ids=name_of)
def test_an_example_runs(path: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started with a new folder as its argument, for those that write something."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", [str(path), str(tmp_path)])
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("path", EXAMPLES, ids=name_of)
def test_an_example_fits_on_a_screen(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGER.get(path.name, 90)


def _compiled(block: Block) -> object:
    """With the document's own line numbers, so that a failure points into it."""
    return compile("\n" * block.line + block.text, str(block.path), "exec")
