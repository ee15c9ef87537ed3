"""A probe of the token that shows an object: planted tokens, resamples of scenes, and the page of encoders."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from compare_on_disk import make_comparison
from scripts import load_script
from sutura.core.errors import UserError
from sutura.data.scenes import ATTRIBUTES, make_scene
from sutura.encoders import catalog
from sutura.encoders.base import Trunk, VisionEncoder
from sutura.encoders.config import EncoderConfig, TransformConfig
from sutura.encoders.transform import Transform, from_numbers
from sutura.evals import object_probe
from sutura.evals.object_probe import (
    SceneBootstrap,
    ShownObjects,
    by_chance,
    object_features,
    probe_objects,
    right,
)
from sutura.models.vit import ViT
from sutura.models.zoo_format import save_zoo_vit
from tiny_encoders import MEAN, STD, scramble

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "object_probe.py"
ARGS = {"image_size": 16, "patch_size": 4, "width": 16, "depth": 1, "heads": 2, "pooling": "mean"}
WIDTH = sum(map(len, ATTRIBUTES.values()))


class Planted(Trunk):
    """A map of features for each picture, which is found by the value of its pixels."""

    def __init__(self, maps: Tensor) -> None:
        super().__init__()
        self.depth, self.layer, self.architecture = 1, 0, {}
        self.maps = torch.nn.Parameter(maps)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.maps[pixels[:, 0, 0, 0].round().long()]


def planted(maps: np.ndarray, tokens: int, transform: Transform | None = None) -> VisionEncoder:
    """An encoder whose features of picture i are `maps[i]` (width × 8 × 8)."""
    plain = {"image_size": 64, "mean": (0, 0, 0), "std": (1 / 255,) * 3, "resize": "squash"}
    given = transform or from_numbers(TransformConfig(**plain))
    return VisionEncoder(Planted(torch.from_numpy(maps).float()), given, EncoderConfig(id="p", tokens=tokens))


def numbered(count: int) -> np.ndarray:
    """Pictures that show nothing but their number."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 64, 64, 3))


def cell_of(mask: np.ndarray, side: int) -> tuple[int, int]:
    """Row and column of the cell with most of a mask, counted pixel by pixel."""
    counts = np.zeros((side, side))
    for row, column in zip(*np.nonzero(mask), strict=True):
        counts[row * side // 64, column * side // 64] += 1
    row, column = np.unravel_index(counts.argmax(), counts.shape)
    return int(row), int(column)


@pytest.fixture(scope="module")
def alone() -> ShownObjects:
    """One object a picture."""
    return ShownObjects.of([make_scene(0, "select", i, min_objects=1, max_objects=1) for i in range(120)], 64)


@pytest.mark.parametrize("tokens", [64, 16, 4])
def test_values_planted_in_the_objects_token_are_found_and_elsewhere_they_are_not(
    alone: ShownObjects, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_probe, "BATCH", 50)
    side = int(tokens**0.5)
    here, there = np.zeros((2, 120, WIDTH, 8, 8))
    starts = np.cumsum([0, *map(len, ATTRIBUTES.values())])[:-1]
    step = 8 // side
    for picture, mask, values in zip(alone.picture, alone.masks, alone.values, strict=True):
        row, column = cell_of(mask, side)
        for maps, at in ((here, row), (there, (row + side // 2) % side)):
            area = np.s_[at * step : (at + 1) * step, column * step : (column + 1) * step]
            for code in starts + values:
                maps[picture, code][area] = 1.0
    seen, elsewhere = (planted(maps, tokens) for maps in (here, there))
    found, floor = probe_objects([seen], elsewhere, numbered(120), alone, fitted=80)
    assert {name: of["score"] for name, of in found["accuracy"].items()} == dict.fromkeys(
        (*ATTRIBUTES, "mean"), 1.0
    )
    chance = by_chance(alone, 80)
    assert {name: of["score"] for name, of in floor["accuracy"].items()} == pytest.approx(chance)
    assert found["above_untrained"]["mean"]["score"] == pytest.approx(1 - chance["mean"])
    assert chance["mean"] < 0.6


def test_objects_are_those_with_enough_visible_pixels_and_lie_where_most_of_them_are() -> None:
    scenes = [make_scene(0, "select", i) for i in range(30)]
    some, all_of_them = ShownObjects.of(scenes, 64, least=100), ShownObjects.of(scenes, 64, least=1)
    assert 0 < len(some.picture) < len(all_of_them.picture)
    assert some.masks.sum(axis=(1, 2)).min() >= 100
    grid = some.tokens((4, 4))
    assert [divmod(int(token), 4) for token in grid] == [cell_of(mask, 4) for mask in some.masks]
    shown = scenes[some.picture[0]].objects
    named = [of[value] for of, value in zip(ATTRIBUTES.values(), some.values[0], strict=True)]
    assert named in [[o.size, o.colour, o.material, o.shape] for o in shown]
    with pytest.raises(UserError, match="draw larger pictures"):
        ShownObjects.of(scenes[:2], 64, least=4097)


def test_an_uneven_grid_shares_pixels_out_by_area() -> None:
    """Fault: a pixel on the line between two of 3 × 3 tokens counts for one of them, or for both."""
    mask = np.zeros((1, 64, 64), bool)
    mask[0, 21, 0] = mask[0, 30, 0] = True  # a token ends at 21 1/3: a third of row 21 is above the line
    objects = ShownObjects(np.zeros(1, int), mask, np.zeros((1, 4), int))
    assert objects.tokens((3, 3)).tolist() == [3]
    mask[0, 0, 0] = mask[0, 1, 0] = True  # 2 1/3 pixels above the line, 1 2/3 below
    assert objects.tokens((3, 3)).tolist() == [0]


def test_the_fit_is_ridge_regression_to_one_hot_values(alone: ShownObjects) -> None:
    """Against least squares with the penalty as further rows."""
    rng = np.random.default_rng(0)
    # Almost as many features as objects, so that the strength of the penalty decides.
    features = rng.normal(size=(len(alone.picture), 70)).astype(np.float32) * 50 + 7
    features[:, 0] += 60 * alone.values[:, 0]
    first = alone.picture < 80
    x = (features - features[first].mean(0, dtype=float)) / features[first].std(0, ddof=1, dtype=float)
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    extra = np.sqrt(1e-2 * first.sum()) * np.eye(71)
    for k, (name, of) in enumerate(ATTRIBUTES.items()):
        wanted = np.concatenate([np.eye(len(of))[alone.values[first, k]], np.zeros((71, len(of)))])
        weights = np.linalg.lstsq(np.concatenate([x[first], extra]), wanted, rcond=None)[0]
        expected = (x[~first] @ weights).argmax(1) == alone.values[~first, k]
        assert right(features, alone, 80)[:, k].tolist() == expected.tolist(), name
    with pytest.raises(UserError, match="two to be fitted"):
        right(features, alone, 500)
    features[3, 3] = np.nan
    with pytest.raises(UserError, match="not all finite"):
        right(features, alone, 80)


def test_resamples_are_of_scenes_and_the_same_for_all() -> None:
    """Fault: objects of one scene are resampled as if each had a picture of its own."""
    hits = np.random.default_rng(0).random((80, 4)) < 0.6
    once = SceneBootstrap(np.arange(80)).accuracy(hits)
    copied, scenes = hits.repeat(9, axis=0), np.arange(80).repeat(9)
    by_scene = SceneBootstrap(scenes).accuracy(copied)
    by_object = SceneBootstrap(np.arange(720)).accuracy(copied)

    def width(of: dict[str, float]) -> float:
        return of["high"] - of["low"]

    for name in (*ATTRIBUTES, "mean"):
        assert by_scene[name] == pytest.approx(once[name])
        assert width(by_object[name]) == pytest.approx(width(once[name]) / 3, rel=0.15)
    normal = 2 * 1.96 * hits[:, 0].std() / 80**0.5
    assert width(once["size"]) == pytest.approx(normal, rel=0.1)
    better = hits.copy()
    better[:8] = True
    gap = SceneBootstrap(scenes).accuracy((better.astype(int) - hits).repeat(9, axis=0))
    improved = SceneBootstrap(scenes).accuracy(better.repeat(9, axis=0))
    assert gap["mean"]["score"] == pytest.approx(improved["mean"]["score"] - once["mean"]["score"])
    assert 0 <= gap["mean"]["low"] <= gap["mean"]["high"]
    assert width(gap["mean"]) < width(once["mean"])


def test_a_transform_that_cuts_the_border_off_is_refused(alone: ShownObjects) -> None:
    def cut(picture: Image.Image) -> Tensor:
        return (
            torch.from_numpy(np.array(picture.crop((4, 4, 60, 60)).resize((64, 64)))).permute(2, 0, 1).float()
        )

    maps = np.zeros((120, 2, 8, 8))
    with pytest.raises(UserError, match="cuts the border off"):
        object_features(
            planted(maps, 16, Transform(lambda p: cut(p.resize((64, 64))), {}, "crop")), numbered(120), alone
        )


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load_script("object_probe", monkeypatch)


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sequence[str]:
    """Three encoders of a zoo, with the probe of their cards but for the last."""
    for seed, name in enumerate(("clip", "vit", "mae")):
        torch.manual_seed(seed)
        probes = (
            {"probe": {"score": 0.5 + 0.1 * seed}, "untrained_probe": {"score": 0.45}} if seed < 2 else {}
        )
        save_zoo_vit(
            tmp_path / "zoo" / name, scramble(ViT(**ARGS).eval(), seed), args=ARGS,
            transform={"image_size": 16, "mean": MEAN, "std": STD},
            about={"name": name, "objective": name, **probes}, card="card",
        )  # fmt: skip
    monkeypatch.setattr(catalog, "zoo_root", lambda: tmp_path / "zoo")
    monkeypatch.chdir(tmp_path)
    return ["zoo:clip", "zoo:vit", "zoo:mae"]


@pytest.fixture
def ran(script: ModuleType, zoo: Sequence[str], tmp_path: Path) -> Callable[..., dict]:
    """Runs the script on few scenes; gives what it wrote as data."""

    def run(*words: str) -> dict:
        given = ["--untrained", "zoo:clip", "--fitted", "30", "--scored", "15", "--size", "32"]
        script.main(["--encoders", *zoo, *given, "--out", str(tmp_path / "out/page.md"), *words])
        return json.loads((tmp_path / "out/page.json").read_text())

    return run


def test_the_page_has_every_encoder_at_every_number_of_tokens(
    ran: Callable[..., dict], tmp_path: Path
) -> None:
    saved = ran("--tokens", "4", "16")
    assert set(saved) == {"about", "rows"}
    assert set(saved["about"]) == {
        "scenes", "objects", "chance", "command", "machine", "versions", "date", "commit", "seconds",
    }  # fmt: skip
    found = [(row["encoder"], row["tokens"]) for row in saved["rows"]]
    assert found == [(name, n) for n in (4, 16) for name in ("clip", "vit", "mae", "untrained")]
    for row in saved["rows"]:
        scores = [row["accuracy"][name]["score"] for name in ATTRIBUTES]
        assert row["accuracy"]["mean"]["score"] == pytest.approx(np.mean(scores))
        assert all(of["low"] <= of["score"] <= of["high"] for of in row["accuracy"].values())
        assert (row["above_untrained"] is None) == (row["untrained_seed"] is not None)
    assert saved["rows"][1]["card"] == 0.6
    assert saved["rows"][3]["card"] == 0.45
    text = (tmp_path / "out/page.md").read_text()
    assert "## 4 tokens" in text
    assert "| encoder | size | colour | material | shape | mean | mean above untrained |" in text
    assert text.count("| *most frequent value* |") == 2
    assert "python benchmarks/object_probe.py --encoders zoo:clip" in text


def test_stitches_of_a_comparison_stand_beside(ran: Callable[..., dict], tmp_path: Path) -> None:
    directory = make_comparison(tmp_path / "runs", encoders={"clip": 0.9, "vit": 0.5, "mae": 0.2})
    whole = json.loads((directory / "comparison.json").read_text())
    whole["config"]["data"]["train"] = {}
    (directory / "comparison.json").write_text(json.dumps(whole))
    saved = ran("--comparison", str(directory))
    reached = {row["encoder"]: row["stitch"] and row["stitch"]["mean"] for row in saved["rows"]}
    assert reached["untrained"] is None
    assert reached["clip"] > 0.8 > reached["vit"] > reached["mae"]
    ours, cards = saved["correlations"]
    assert (ours["n"], cards["n"]) == (3, 2)
    rows = saved["rows"][:3]
    probe, stitch = ([row[a]["mean"] for row in rows] for a in ("accuracy", "stitch"))
    assert ours["pearson"] == pytest.approx(np.corrcoef([of["score"] for of in probe], stitch)[0, 1])
    assert cards["pearson"] is cards["spearman"] is None
    text = (tmp_path / "out/page.md").read_text()
    assert "| object's token, 16 tokens |" in text
    assert "| averaged patches | – | – | 2 |" in text
    assert "a description, not a test" in text


def test_what_is_wrong_ends_in_one_sentence(
    script: ModuleType, ran: Callable[..., dict], zoo: Sequence[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match=r"^object_probe: .*nobody"):
        script.main(
            ["--encoders", "zoo:nobody", "--untrained", "zoo:clip", "--out", str(tmp_path / "page.md")]
        )
    with pytest.raises(SystemExit, match=r"^object_probe: tokens=5 .* 4 and "):
        ran("--tokens", "5")
    with pytest.raises(SystemExit, match="both must be at least 1"):
        ran("--scored", "0")
    with pytest.raises(SystemExit, match="holds no comparison"):
        ran("--comparison", str(tmp_path))
    assert not (tmp_path / "runs/cache").exists()  # refused before scenes are drawn
    assert not (tmp_path / "page.md").exists()
    assert not (tmp_path / "out").exists()
