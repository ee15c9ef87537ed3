"""What a table of the Hub may name as a picture: files that came with it, and no other."""

from __future__ import annotations

import numpy as np
import pytest

from sutura.data import tables
from sutura.data.vqa import load_vqa


@pytest.mark.parametrize("as_dicts", [True, False])
def test_a_set_of_the_hub_names_no_file_of_this_machine(
    as_dicts, tmp_path, picture, encoded, datasets_cache, monkeypatch
):
    """Fault: a stranger's table holds a path, and what lies there is read as a picture and trained on."""
    from datasets import Dataset

    own, home = tmp_path / "hub" / "datasets--org--set", tmp_path / "home"
    for place in (own, home, tmp_path / "hub" / "datasets--org--set-2"):
        place.mkdir(parents=True)
        (place / "photo.png").write_bytes(encoded(picture(len(place.name))))
    (own / "link.png").symlink_to(home / "photo.png")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(home)
    strange = [
        home / "photo.png",
        "photo.png",
        "../home/photo.png",
        own / ".." / ".." / "home" / "photo.png",
        own / "link.png",
        tmp_path / "hub" / "datasets--org--set-2" / "photo.png",
        home / "not-there.png",
    ]
    paths = [str(path) for path in (own / "photo.png", *strange)]
    cells = [{"bytes": None, "path": path} for path in paths] if as_dicts else paths
    count = len(cells)
    rows = Dataset.from_dict({"image": cells, "question": ["a?"] * count, "answer": ["b"] * count})
    monkeypatch.setattr(tables, "hub_rows", lambda source: (rows, "c0ffee"))
    data = load_vqa({"source": "parquet", "path": "hf:org/set"})
    assert len(data.pictures) == 1
    assert np.array_equal(data.pictures[0].image.open(), picture(len(own.name)))
    assert data.set_aside.counts == {"no file of the set": len(strange)}
