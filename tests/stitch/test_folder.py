"""Stitches in a folder, all of them or those of one encoder."""

from __future__ import annotations

from pathlib import Path

import pytest

from sutura.core.checkpoint import write_json
from sutura.core.errors import UserError
from sutura.stitch.folder import stitches_in


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    facts = {"a": {"name": "clip", "id": "org/clip"}, "b": {"name": "vit", "id": "org/vit"}, "c": {}}
    for name, encoder in facts.items():
        (tmp_path / "all" / name).mkdir(parents=True)
        write_json(tmp_path / "all" / name / "stitch.json", {"encoder": encoder})
    cell = tmp_path / "cells" / "0123" / "stitch"
    cell.mkdir(parents=True)
    write_json(cell / "stitch.json", {"encoder": facts["a"]})
    return tmp_path


def test_a_folder_gives_all_it_holds(folder: Path) -> None:
    assert [found.name for found in stitches_in([folder / "all"])] == ["a", "b", "c"]
    assert stitches_in([folder / "cells"]) == [folder / "cells" / "0123" / "stitch"]
    assert stitches_in([folder / "all" / "b"]) == [folder / "all" / "b"]


def test_an_encoder_is_named_by_its_name_or_id(folder: Path) -> None:
    both = [folder / "all", folder / "cells"]
    for name in ("clip", "org/clip"):
        assert [found.name for found in stitches_in(both, name)] == ["a", "stitch"]
    assert [found.name for found in stitches_in(both, "blind")] == ["c"]


def test_a_folder_may_be_called_by_an_encoders_name(folder: Path) -> None:
    assert stitches_in([folder / "all"], "b") == [folder / "all" / "b"]


def test_wrong_names_and_empty_folders_are_told(folder: Path) -> None:
    with pytest.raises(UserError, match=r"encoder 'clipp'. Did you mean 'clip'"):
        stitches_in([folder / "all"], "clipp")
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no stitch\.json, and neither does any folder in it"):
        stitches_in([folder / "empty"], "clip")
    assert stitches_in([folder / "empty"]) == [folder / "empty"]  # loading it says what is missing
