"""Code shown in a document is the code of the package: a block below a source marker cannot drift from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.documents import DOCUMENTS, ROOT, blocks, name_of
from docs.included_source import SOURCE, Included, code_of, fill, included

INCLUDED = [(path, found) for path in DOCUMENTS for found in included(path.read_text(encoding="utf-8"))]
REFILL = "run: PYTHONPATH=tests .venv/bin/python -m docs.included_source"
GUIDE = ROOT / "docs" / "foundations.md"
MODELS = ("vit", "clip", "siglip", "mae", "eva", "ijepa")


@pytest.mark.parametrize(("path", "found"), INCLUDED, ids=[f"{name_of(p)} {f}" for p, f in INCLUDED])
def test_a_block_is_the_source_it_names(path: Path, found: Included) -> None:
    assert found.text == found.source(), f"{name_of(path)}:{found.line} has drifted; {REFILL}"


@pytest.mark.parametrize("model", MODELS)
def test_the_guide_shows_code_of_every_model(model: str) -> None:
    """From the model itself, or, for SigLIP, whose towers are CLIP's, its loss."""
    shown = {str(found) for path, found in INCLUDED if path == GUIDE}
    wanted = (
        {"sutura/losses/contrastive.py:sigmoid_loss"}
        if model == "siglip"
        else {
            f"sutura/models/{model}.py:{name}.forward"
            for name in ("ViT", "TextTransformer", "MAE", "EVA", "IJEPA")
        }
    )
    assert shown & wanted


def test_included_blocks_are_not_run_as_snippets() -> None:
    """They need their module around them; every other Python block of the guide runs."""
    marked = {found.text for path, found in INCLUDED if path == GUIDE}
    python = [block for block in blocks(GUIDE) if block.language == "python"]
    assert {block.text for block in python if block.included} == marked
    assert any(not block.included for block in python)


SAMPLE = '''"""A module."""


class Thing:
    """A thing."""

    size = 1

    @property
    def double(self) -> int:
        """Twice the size.

        Returns:
            Pieces.
        """

        return 2 * self.size  # whole ones


def bare(x: int) -> int:
    return x
'''


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """A small file of source."""
    file = tmp_path / "thing.py"
    file.write_text(SAMPLE)
    return file


def test_a_docstring_is_left_out_and_all_else_stays(module: Path) -> None:
    """Decorators and comments are part of what is shown; a method moves to the left margin."""
    assert code_of(module, "Thing.double") == (
        "@property\ndef double(self) -> int:\n    return 2 * self.size  # whole ones\n"
    )
    assert "Twice the size." in code_of(module, "Thing.double", doc=True)
    assert code_of(module, "bare") == "def bare(x: int) -> int:\n    return x\n"
    assert code_of(module, "Thing").startswith("class Thing:\n    size = 1\n")


def test_a_name_that_is_gone_is_an_error(module: Path) -> None:
    with pytest.raises(LookupError, match=r"no Thing\.treble"):
        code_of(module, "Thing.treble")


def test_a_drifted_block_is_noticed_and_filled_anew() -> None:
    """Even where the code means the same: a renamed variable, another comment."""
    name = "sutura/nn/patch.py:unpatchify"
    right = code_of(SOURCE / "sutura/nn/patch.py", "unpatchify")
    text = f"Before.\n\n<!-- source: {name} -->\n```python\n{right.replace('rows', 'lines')}```\n\nAfter.\n"
    (found,) = included(text)
    assert found.text != found.source()
    (found,) = included(fill(text))
    assert found.text == found.source() == right
    assert fill(text) == text.replace("lines", "rows")


@pytest.mark.parametrize("below", ["\n```python\npass\n```\n", "```sh\nls\n```\n", "Words.\n"])
def test_a_marker_without_its_block_is_an_error(below: str) -> None:
    """Else a marker spelled a little wrong would leave its block unwatched."""
    with pytest.raises(ValueError, match="1 source markers, 0"):
        included(f"<!-- source: sutura/nn/patch.py:patchify -->\n{below}")


def test_a_block_knows_that_it_is_included(tmp_path: Path) -> None:
    file = tmp_path / "text.md"
    file.write_text(
        "<!-- source: a.py:b -->\n```python\nreturn 1\n```\n\n```python\nprint(1)\n```\n\n```sh\nls\n```\n"
    )
    assert [(b.language, b.included) for b in blocks(file)] == [
        ("python", True),
        ("python", False),
        ("sh", False),
    ]
