"""Two encoders side by side: each sees with its own transform, and their features stand one behind the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from encoders.test_cache import make_turns
from sutura.core.config import parse
from sutura.core.errors import UserError
from sutura.encoders import EncoderConfig, cached_features, load_encoder
from tiny_encoders import write_processor

Checkpoint = Callable[[str], Path]


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of another width, picture size and normalisation than the others."""
    folder = tmp_path_factory.mktemp("wide")
    from transformers import ViTConfig, ViTModel

    sizes = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ViTModel(ViTConfig(image_size=48, patch_size=8, **sizes), add_pooling_layer=False).save_pretrained(folder)
    write_processor(folder, size=48, mean=[0.1, 0.2, 0.3], std=[0.5, 0.5, 0.5])
    return folder


@torch.no_grad()
def test_width_is_the_sum_and_each_part_sees_with_its_own_transform(
    checkpoint: Checkpoint, wide: Path, picture: Image.Image
) -> None:
    first, second = str(checkpoint("clip")), str(wide)
    fused = load_encoder({"id": f"fused:{first}+{second}", "tokens": 4})
    parts = [load_encoder(name, tokens=4) for name in (first, second)]
    assert (fused.width, fused.num_tokens) == (32 + 24, 4)
    pictures = [picture, picture.rotate(90)]
    whole = fused(torch.stack([fused.transform(p) for p in pictures]))
    alone = [part(torch.stack([part.transform(p) for p in pictures])) for part in parts]
    torch.testing.assert_close(whole, torch.cat(alone, dim=-1), atol=1e-5, rtol=1e-5)


def test_facts_are_those_of_both(checkpoint: Checkpoint, wide: Path) -> None:
    row = {
        "fuse": [{"id": str(checkpoint("clip")), "name": "a"}, {"id": str(wide), "name": "b"}],
        "tokens": 4,
    }
    fused = load_encoder(row)
    facts = fused.facts()
    parts = [load_encoder(str(checkpoint("clip"))).facts(), load_encoder(str(wide)).facts()]
    assert facts["name"] == "a+b"
    assert facts["fused"] == ["a", "b"]
    assert facts["params"] == sum(part["params"] for part in parts)
    assert facts["image_size"] == "32 + 48"
    assert (facts["width"], facts["num_tokens"], facts["trained"]) == (56, 4, True)
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    turned = load_encoder({**row, "fuse": row["fuse"][::-1]})
    assert turned.fingerprint != fused.fingerprint
    untrained = load_encoder({**row, "untrained_seed": 1})
    assert untrained.fingerprint != fused.fingerprint
    assert untrained.facts()["trained"] is False


def test_both_ways_to_write_it_are_one_config() -> None:
    short, long = EncoderConfig(id="fused:a+b"), EncoderConfig.model_validate({"fuse": ["a", {"id": "b"}]})
    assert short == long
    assert parse(EncoderConfig, short.resolved()) == short
    assert short.display_name() == "a+b"
    with pytest.raises(ValidationError, match="at least two parts"):
        EncoderConfig(id="fused:a")
    with pytest.raises(ValidationError, match="layer of a fused encoder belong to its parts"):
        EncoderConfig(id="fused:a+b", layer=-2)


def test_grids_that_differ_are_refused_with_a_number_that_fits(checkpoint: Checkpoint, wide: Path) -> None:
    with pytest.raises(UserError, match=r"4 × 4, .* 6 × 6\). Set tokens to a number both can hand on, 16"):
        load_encoder({"id": f"fused:{checkpoint('clip')}+{wide}"})


@torch.no_grad()
def test_features_are_cached_part_by_part(
    checkpoint: Checkpoint, wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is on disk of a part alone is read and not computed again; joined rows equal live ones."""
    turns = make_turns(*range(5))
    alone = load_encoder(str(checkpoint("clip")), tokens=4)
    cached_features(alone, turns, tmp_path, data_fingerprint="d", dtype="float32")
    fused = load_encoder({"id": f"fused:{checkpoint('clip')}+{wide}", "tokens": 4})
    opened = [turn.image.opened for turn in turns]  # type: ignore[union-attr]
    store = cached_features(fused, turns, tmp_path, data_fingerprint="d", dtype="float32")
    assert [turn.image.opened for turn in turns] == [n + 1 for n in opened]  # type: ignore[union-attr]
    assert len([p for p in tmp_path.iterdir() if p.is_dir()]) == 2
    names = ["p3", "p0", "p3"]
    live = fused(torch.stack([fused.transform(turns[int(name[1:])].image.open()) for name in names]))
    torch.testing.assert_close(store.rows(names), live, atol=1e-5, rtol=1e-5)
    assert (store.width, store.num_tokens, len(store), "p4" in store, "p9" in store) == (
        56,
        4,
        5,
        True,
        False,
    )
    broken = make_turns(1, -1)
    joined = cached_features(fused, broken, tmp_path, data_fingerprint="e")
    assert joined.image_ids == ("p1",)
    assert joined.unreadable == {"p-1": "truncated"}


def test_all_of_it_can_be_trained(checkpoint: Checkpoint, wide: Path, picture: Image.Image) -> None:
    fused = load_encoder({"id": f"fused:{checkpoint('clip')}+{wide}", "tokens": 4})
    assert fused.unfreeze("all") > 0
    fused(fused.transform(picture)[None]).sum().backward()
    learning = [p for p in fused.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in learning)
    with pytest.raises(UserError, match="no blocks to tell apart"):
        fused.unfreeze(1)


def test_common_settings_reach_the_parts() -> None:
    from sutura.compare.config import CompareConfig

    config = parse(
        CompareConfig,
        {
            "name": "x",
            "encoders": [{"fuse": ["a", {"id": "b", "layer": -3}]}, "c"],
            "encoder": {"layer": -2, "tokens": 16},
            "data": {"train": {}, "test": ["world/test"]},
        },
    )
    fused, plain = config.encoder_rows()
    assert [part.layer for part in fused.fuse] == [-2, -3]
    assert (fused.layer, fused.tokens, plain.layer) == (-1, 16, -2)
    again = parse(CompareConfig, config.resolved())
    assert again.encoder_rows() == config.encoder_rows()


def test_one_checkpoint_twice_says_everything_twice(checkpoint: Checkpoint) -> None:
    name = str(checkpoint("dinov2"))
    fused = load_encoder({"fuse": [name, name]})
    with torch.no_grad():
        rows = fused(torch.stack([fused.transform(Image.new("RGB", (40, 40), "red"))]))
    assert torch.equal(rows[..., :32], rows[..., 32:])
