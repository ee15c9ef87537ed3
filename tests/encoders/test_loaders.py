"""From a name to an encoder, and every way it can fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sutura.core.errors import UserError
from sutura.core.fetch import Fetched
from sutura.encoders import EncoderConfig, VisionEncoder, catalog, load_encoder, loaders
from sutura.encoders.outline import outline_encoder
from sutura.models.vit import ViT
from sutura.models.zoo_format import save_zoo_vit
from tiny_encoders import save_timm, write_processor

ARGS = {"image_size": 32, "patch_size": 8, "width": 16, "depth": 2, "heads": 2, "cls": True, "registers": 2}


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ViT:
    """A zoo with one encoder, "seer"."""
    torch.manual_seed(0)
    vit = ViT(**ARGS).eval()
    transform = {"image_size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    about = {"objective": "supervised", "data": "the world", "licence": "Apache-2.0"}
    folder = tmp_path / "zoo" / "seer"
    save_zoo_vit(
        folder, vit, args=ARGS, transform=transform, about=about, card="A card.", dtype=torch.float32
    )
    monkeypatch.setattr(catalog, "zoo_root", lambda: tmp_path / "zoo")
    return vit


@pytest.mark.parametrize("name", ["zoo:seer", "zoo/seer"])
@torch.no_grad()
def test_the_zoos_encoders(name: str, zoo: ViT, pixels: torch.Tensor, picture: Any) -> None:
    encoder = load_encoder(name)
    assert encoder.num_prefix_tokens == 3
    _, out = zoo(pixels)
    torch.testing.assert_close(encoder(pixels), out["patches"])
    torch.testing.assert_close(load_encoder(name, layer=0)(pixels), out["block_0"][:, 3:])
    torch.testing.assert_close(load_encoder(name, final_norm=True)(pixels), out["normed"])
    white = encoder.transform(picture.resize((32, 32)).point(lambda _: 255))
    torch.testing.assert_close(white, torch.full((3, 32, 32), 2.0))
    assert load_encoder(name, image_size=48).grid == (6, 6)
    facts = encoder.facts()
    assert (facts["objective"], facts["licence"], facts["source"]) == ("supervised", "Apache-2.0", "zoo")
    assert facts["unchecked"] == []
    assert load_encoder(name, untrained_seed=0).fingerprint != encoder.fingerprint


@torch.no_grad()
def test_the_encoder_inside_a_pretraining_run(zoo: ViT, tmp_path: Path, pixels: torch.Tensor) -> None:
    """By the run's folder or its `encoder`, planned or loaded, under the run's name."""
    run = tmp_path / "seer-0a1b"
    run.mkdir()
    (tmp_path / "zoo/seer").rename(run / "encoder")
    for given in (run, run / "encoder"):
        encoder = load_encoder(str(given))
        torch.testing.assert_close(encoder(pixels), zoo(pixels)[1]["patches"])
        outline = outline_encoder(EncoderConfig(id=str(given)))
        assert encoder.name == outline.name == "seer-0a1b"
        assert (outline.width, outline.grid) == (encoder.width, encoder.grid)


@pytest.mark.parametrize(
    ("id", "name"),
    [
        ("runs/pretrain/clip-0a1b/encoder", "clip-0a1b"),
        ("clip-0a1b/encoder/", "clip-0a1b"),
        ("./encoder", "encoder"),
        ("../encoder", "encoder"),
        ("/encoder", "encoder"),
        ("encoder", "encoder"),
        ("hf:org/clip-vit", "clip-vit"),
        ("open_clip:ViT-B-32/openai", "ViT-B-32/openai"),
    ],
)
def test_names_for_tables(id: str, name: str) -> None:
    assert EncoderConfig(id=id).display_name() == name


def test_unknown_names_get_a_suggestion(zoo: ViT) -> None:
    with pytest.raises(UserError, match="'openai/clip-vit-large-patch14'"):
        load_encoder("openai/clip-vit-large-patch-14")
    with pytest.raises(UserError, match="'seer'"):
        load_encoder("zoo:sear")
    with pytest.raises(UserError, match="'vit_tiny_patch16_224"):
        load_encoder("timm:vit_tiny_patch16_242")
    with pytest.raises(UserError, match="'ViT-B-32'"):
        load_encoder("open_clip:ViT-B-33/openai")
    with pytest.raises(UserError, match="'laion2b_s34b_b79k'"):
        load_encoder("open_clip:ViT-B-32/laion2b_s34b_b79")


def test_unknown_options_get_a_suggestion(checkpoint: Any) -> None:
    with pytest.raises(UserError, match="'tokens'"):
        load_encoder(str(checkpoint("vit")), token=4)


def test_a_folder_of_nothing_known(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no encoder that can be read"):
        load_encoder(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "repo"),
    [
        ("hf:org/name", "org/name"),
        ("timm:vit_base_patch16_clip_224.openai", "timm/vit_base_patch16_clip_224.openai"),
        ("open_clip:ViT-B-16-SigLIP/webli", "timm/ViT-B-16-SigLIP"),
        ("openai/clip-vit-base-patch32", "openai/clip-vit-base-patch32"),
        ("timm/eva02_large_patch14_224.mim_m38m", "timm/eva02_large_patch14_224.mim_m38m"),
    ],
)
def test_names_of_the_hub_lead_to_their_repositories(
    name: str, repo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asked(Exception):
        pass

    def fetch(repo: str, *, revision: str | None, patterns: list[str]) -> Fetched:
        assert not any(pattern.endswith(".bin") for pattern in patterns)
        raise Asked(repo, revision)

    monkeypatch.setattr(loaders, "fetch", fetch)
    with pytest.raises(Asked) as asked:
        load_encoder(name, revision="v1")
    assert asked.value.args == (repo, "v1")


def test_offline_is_a_sentence() -> None:
    with pytest.raises(UserError, match=r"not in the local cache.*offline.*local folder"):
        load_encoder("openai/clip-vit-large-patch14")


@torch.no_grad()
def test_someone_elses_encoder_plugs_in(
    checkpoint: Any, monkeypatch: pytest.MonkeyPatch, pixels: torch.Tensor
) -> None:
    from sutura.core.registry import Registry
    from sutura.encoders.base import Trunk
    from sutura.encoders.config import TransformConfig
    from sutura.encoders.transform import from_numbers

    class Shrunken(Trunk):
        depth, layer, architecture = 1, 0, {"architecture": "average"}

        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1))

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.avg_pool2d(pixels, 8) * self.scale

    def make(config: EncoderConfig) -> VisionEncoder:
        given = TransformConfig(image_size=32, mean=(0, 0, 0), std=(1, 1, 1), resize="squash")
        return VisionEncoder(Shrunken(), from_numbers(given), config, {"licence": "mine"})

    plugins: Any = Registry("encoder")
    plugins.add("averages", make)
    plugins.add("broken", lambda config: torch.nn.Linear(1, 1))
    monkeypatch.setattr(loaders, "PLUGINS", plugins)
    encoder = load_encoder("averages", tokens=4)
    assert (encoder.width, encoder.num_tokens, encoder.facts()["licence"]) == (3, 4, "mine")
    assert encoder(pixels).shape == (2, 4, 3)
    with pytest.raises(UserError, match="VisionEncoder"):
        load_encoder("broken")


def test_the_entry_point_group_is_the_documented_one() -> None:
    assert loaders.PLUGINS.group == "sutura.encoders"


def test_a_config_a_mapping_and_a_name_are_the_same(checkpoint: Any) -> None:
    folder = str(checkpoint("ijepa"))
    made = [
        load_encoder(folder, tokens=4),
        load_encoder({"id": folder, "tokens": 4}),
        load_encoder(EncoderConfig(id=folder), tokens=4),
    ]
    assert len({encoder.fingerprint for encoder in made}) == 1
    assert {encoder.num_tokens for encoder in made} == {4}


def test_formats_are_told_apart_by_their_files(checkpoint: Any, tmp_path: Path) -> None:
    save_timm(tmp_path, "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2)
    write_processor(tmp_path)
    assert load_encoder(str(tmp_path)).facts()["loader"] == "timm"
    assert load_encoder(str(checkpoint("clip"))).facts()["loader"] == "transformers"
