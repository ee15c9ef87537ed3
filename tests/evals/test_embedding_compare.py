"""`sutura encoders compare` on pictures of the built-in world and the zoo's encoders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from sutura.cli import app
from sutura.core.errors import UserError
from sutura.data.world_vqa import ScenePicture
from sutura.evals.embedding_compare import compare_embeddings

ENCODERS: tuple[Any, ...] = (
    "zoo:clip",
    {"id": "zoo:clip", "name": "clip again", "tokens": 16},
    {"id": "zoo:clip", "untrained_seed": 0, "name": "random"},
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(6):
        ScenePicture(0, "test", number, 64).open().save(folder / f"{number}.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("not looked at")
    return folder


@pytest.fixture(scope="module")
def report(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compare_embeddings(
        [pictures], ENCODERS, tmp_path_factory.mktemp("out") / "made", shown=2, device="cpu"
    )


def test_the_folder_holds_report_numbers_and_maps(report: Path) -> None:
    found = sorted(
        path.relative_to(report.parent).as_posix() for path in report.parent.rglob("*") if path.is_file()
    )
    maps = [f"pca/{name}/00{n}.png" for name in ("clip", "clip-again", "random") for n in (1, 2)]
    assert found == sorted(["embeddings.json", "maps.png", *maps, "report.md"])
    sheet = Image.open(report.parent / "maps.png")
    assert sheet.size == (6 + 10 * 134, 34 + 2 * 134 + 6)
    assert Image.open(report.parent / maps[0]).size == (8 * 16, 8 * 16)
    assert Image.open(report.parent / maps[2]).size == (4 * 16, 4 * 16)


def test_numbers_tell_what_is_the_same_and_what_is_not(report: Path) -> None:
    numbers = json.loads((report.parent / "embeddings.json").read_text())
    assert numbers["samples"] == {"pictures": 6, "patches": 6 * 16}
    assert numbers["common_grid"] == [4, 4]
    assert [name.rsplit("/")[-1] for name in numbers["set_aside"]["not a picture"]] == ["broken.jpg"]
    for over in ("pictures", "patches"):  # averaging to 4 × 4 is what tokens=16 does
        alike = numbers["cka"][over]["debiased"]
        assert alike["clip"]["clip again"] == pytest.approx(1, abs=1e-4)
        assert alike["clip"]["random"] < 0.9
        assert alike["clip"]["random"] == alike["random"]["clip"]
    clip, random = numbers["encoders"]["clip"], numbers["encoders"]["random"]
    assert clip["grid"] == [8, 8]
    assert 1 < clip["effective_rank"]["pictures"] <= 5 == clip["effective_rank"]["of"]["pictures"]
    assert random["cosine_between_pictures"] > clip["cosine_between_pictures"]
    text = report.read_text()
    assert "not a picture: 1" in text
    assert "common grid of 4 × 4" in text
    assert "Fewer than 50 samples" in text


def test_the_same_pictures_give_the_same_files(report: Path, pictures: Path, tmp_path: Path) -> None:
    again = compare_embeddings([pictures], ENCODERS, tmp_path / "b", shown=2, device="cpu")
    for path in (p for p in report.parent.rglob("*") if p.is_file()):
        assert path.read_bytes() == (again.parent / path.relative_to(report.parent)).read_bytes(), path.name


def test_one_picture_is_enough_for_all_but_cka_over_pictures(pictures: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app,
        ["encoders", "compare", str(pictures / "0.png"), "--encoders", "zoo:clip",
         "{id: zoo:clip, layer: 1, name: early}",
         "--out", str(tmp_path / "one"), "--device", "cpu"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    text = (tmp_path / "one" / "report.md").read_text()
    assert "1 pictures, 2 encoders: clip, early." in text
    assert "1 pictures are too few, CKA needs at least 4" in text
    assert "### Over patches\n\n64 samples" in text


@pytest.mark.parametrize(
    ("encoders", "sentence"),
    [
        (["zoo:clip"], "1 encoder is nothing to compare"),
        (["zoo:clip", "zoo:clpi"], "Did you mean 'clip'"),
        (["zoo:clip", "zoo:clip"], "Two encoders are called 'clip'"),
        (["zoo:clip", "{id: zoo:mae, lair: 3}"], "lair"),
    ],
)
def test_encoders_that_cannot_be_compared(
    pictures: Path, tmp_path: Path, encoders: list[str], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        compare_embeddings([pictures / "0.png"], encoders, tmp_path / "x", device="cpu")
    assert not (tmp_path / "x").exists()


def test_pictures_that_cannot_be_read(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No picture can be read among .*broken.jpg. 1 not a picture"):
        compare_embeddings([pictures / "broken.jpg"], ENCODERS, tmp_path / "x")
    with pytest.raises(UserError, match="no picture or folder at"):
        compare_embeddings([pictures / "none.png"], ENCODERS, tmp_path / "x")
    with pytest.raises(UserError, match="not an empty folder"):
        compare_embeddings([pictures], ENCODERS, pictures)
    assert (pictures / "0.png").is_file()
