"""Every claim a row makes of itself, held against the libraries installed here."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from sutura.core.errors import UserError
from sutura.encoders import catalog, load_encoder
from sutura.encoders.catalog import BY_ID, catalog_table, check_row
from sutura.encoders.catalog_rows import CONFIG, JSON, MEASURED, MODULE, ROWS, Row
from sutura.encoders.families import FAMILIES
from sutura.encoders.from_transformers import FamilyTrunk

#: transformers rows → vision model_type.
TYPES = {
    "openai/clip-vit-base-patch32": "clip_vision_model",
    "openai/clip-vit-base-patch16": "clip_vision_model",
    "openai/clip-vit-large-patch14": "clip_vision_model",
    "google/vit-base-patch16-224": "vit",
    "google/vit-large-patch16-224": "vit",
    "facebook/dino-vitb16": "vit",
    "facebook/ijepa_vith14_1k": "ijepa",
    "google/siglip-base-patch16-224": "siglip_vision_model",
    "google/siglip-so400m-patch14-384": "siglip_vision_model",
    "google/siglip2-base-patch16-224": "siglip_vision_model",
    "facebook/dinov2-large": "dinov2",
    "facebook/dinov2-with-registers-large": "dinov2_with_registers",
    "facebook/dinov3-vitl16-pretrain-lvd1689m": "dinov3_vit",
    "facebook/vjepa2-vitl-fpc64-256": "vjepa2",
}


@cache
def timm_model(name: str) -> Any:
    import timm

    with torch.device("meta"):
        return timm.create_model(name.split(".")[0], pretrained=False)


def claims(*hows: str) -> list[tuple[Row, str]]:
    return [(row, key) for row in ROWS for key, how in row.checked.items() if how in hows]


@pytest.mark.parametrize(
    ("row", "key"), claims(CONFIG, MODULE), ids=lambda value: getattr(value, "id", value)
)
def test_what_is_said_to_be_checked_against_timm_is(row: Row, key: str) -> None:
    """Fault: encoder width and token count keyed by type while the model id is free."""
    from timm.models import get_pretrained_cfg

    assert row.timm_name is not None
    cfg = get_pretrained_cfg(row.timm_name)
    if key == "licence":
        assert cfg.license == row.licence.lower()
    elif key == "image_size":
        assert cfg.input_size == (3, row.image_size, row.image_size)
    else:
        model = timm_model(row.timm_name)
        patch = model.patch_embed.patch_size[0]
        found = {
            "patch_size": patch,
            "width": model.embed_dim,
            "depth": len(model.blocks),
            "num_prefix_tokens": model.num_prefix_tokens,
            "tokens": (row.image_size // patch) ** 2,
        }
        assert found[key] == getattr(row, key)


@pytest.mark.parametrize("row", [r for r in ROWS if r.open_clip_name], ids=lambda row: row.id)
def test_what_open_clips_json_knows_agrees(row: Row) -> None:
    import open_clip

    assert row.open_clip_name is not None
    name, _, tag = row.open_clip_name.partition("/")
    assert tag in open_clip.list_pretrained_tags_by_model(name)
    config = open_clip.get_model_config(name)
    vision = config["vision_cfg"]
    assert vision["image_size"] == row.image_size
    if "width" in vision:
        assert (vision["width"], vision["layers"], vision["patch_size"]) == (
            row.width,
            row.depth,
            row.patch_size,
        )
    assert config.get("quick_gelu", False) == ("QuickGELU" in row.notes)
    assert JSON not in row.checked.values() or row.checked["image_size"] == JSON


@pytest.mark.parametrize("row", [r for r in ROWS if r.loader == "transformers"], ids=lambda row: row.id)
def test_rows_agree_with_transformers_on_the_meta_device(row: Row) -> None:
    """Prefix and width as the library's own module gives them; two blocks stand for all of them."""
    import transformers

    family = FAMILIES[TYPES[row.id]]
    config_class = getattr(transformers, family.model).config_class
    values: dict[str, Any] = {
        "hidden_size": row.width,
        family.size: row.image_size,
        "patch_size": row.patch_size,
        "num_hidden_layers": 2,
        "num_attention_heads": row.width // 64,
        "intermediate_size": 64,
    }
    if "registers" in row.id or "dinov3" in row.id:
        values["num_register_tokens"] = 4
    if family.model == "VJEPA2Model":
        values |= {"pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}
    with torch.device("meta"):
        config = config_class(**values)
        model = getattr(transformers, family.model)(config, **dict(family.arguments)).eval()
    trunk = FamilyTrunk(model.get_submodule(family.trunk), family, -1, final_norm=False)
    with torch.device("meta"):
        features = trunk(torch.zeros(1, 3, row.image_size, row.image_size))
    assert features.shape[1] == row.width
    assert features.shape[2] * features.shape[3] == row.tokens
    assert trunk.num_prefix_tokens == row.num_prefix_tokens


def test_v_jepa_2s_row_is_the_librarys_default_config() -> None:
    from transformers import VJEPA2Config

    row, config = BY_ID["facebook/vjepa2-vitl-fpc64-256"], VJEPA2Config()
    assert (config.crop_size, config.patch_size) == (row.image_size, row.patch_size)
    assert (config.hidden_size, config.num_hidden_layers) == (row.width, row.depth)


def test_what_nobody_has_checked_shows_as_such() -> None:
    for row in ROWS:
        assert set(row.checked) <= {*MEASURED, "licence"}, "no source here knows objective or data"
        assert {"objective", "data", "paper"} <= set(row.unchecked)
    shown = {entry["id"]: entry for entry in catalog_table()}
    assert "licence" in shown["openai/clip-vit-large-patch14"]["unchecked"]
    assert "non-commercial" in shown["facebook/ijepa_vith14_1k"]["licence"]
    assert "image_size" in shown["facebook/dinov3-vitl16-pretrain-lvd1689m"]["unchecked"]


def test_the_catalog_holds_what_was_asked_for() -> None:
    wanted = [
        "clip-vit-large-patch14",
        "vit-large-patch16",
        "ijepa",
        "siglip-",
        "siglip2",
        "dinov2",
        "dinov3",
        "eva02",
        "vjepa2",
    ]
    assert all(any(part in name for name in BY_ID) for part in wanted)
    assert len(BY_ID) == len(ROWS)


def test_a_module_that_is_not_what_the_row_says_is_refused(
    checkpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: encoder width and token count keyed by type while the model id is free."""
    from sutura.core.fetch import Fetched
    from sutura.encoders import loaders

    folder: Path = checkpoint("vit")
    monkeypatch.setattr(loaders, "fetch", lambda repo, **_: Fetched(folder, "abc123"))
    with pytest.raises(UserError, match=r"width is 32, the catalog says 1024.*pin"):
        load_encoder("google/vit-large-patch16-224")
    encoder = load_encoder(str(folder))
    right = Row("here", "transformers", 32, 8, 32, 3, 1, "guessing", "none", "CC-BY-NC-4.0", "0000.00000")
    assert check_row(right, encoder) == ["objective", "data", "licence", "paper"]
    wrong = Row("here", "transformers", 32, 8, 32, 3, 0, "", "", "", "")
    with pytest.raises(UserError, match="num_prefix_tokens is 1, the catalog says 0"):
        check_row(wrong, encoder)


def test_a_row_that_fits_lends_its_facts_and_the_revision_is_recorded(
    checkpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sutura.core.fetch import Fetched
    from sutura.encoders import loaders

    row = Row("org/tiny", "transformers", 32, 8, 32, 3, 1, "guessing", "none", "CC-BY-NC-4.0", "0000.00000")
    monkeypatch.setitem(loaders.BY_ID, "org/tiny", row)
    asked: list[Any] = []

    def fetch(repo: str, **options: Any) -> Fetched:
        asked.append((repo, options["revision"]))
        return Fetched(checkpoint("vit"), "c0ffee")

    monkeypatch.setattr(loaders, "fetch", fetch)
    facts = load_encoder("org/tiny", revision="main").facts()
    assert asked == [("org/tiny", "main")]
    assert facts["revision"] == "c0ffee"
    assert facts["source"] == "https://huggingface.co/org/tiny"
    assert (facts["licence"], facts["non_commercial"]) == ("CC-BY-NC-4.0", True)
    assert facts["unchecked"] == ["objective", "data", "licence", "paper"]


def test_zoo_rows_are_found_by_their_config(tmp_path: Path) -> None:
    config = {
        "model": "vit",
        "args": {"patch_size": 8, "width": 16, "depth": 2, "cls": True, "registers": 3},
        "transform": {"image_size": 32},
        "objective": "supervised",
        "data": "the world",
        "licence": "Apache-2.0",
    }
    for name, content in (("seer", config), ("speaker", {"model_type": "qwen2"})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(content))
    rows = list(catalog.zoo_rows(tmp_path))
    assert [row.id for row in rows] == ["zoo:seer"]
    assert (rows[0].num_prefix_tokens, rows[0].tokens, rows[0].unchecked) == (4, 16, [])


def test_listing_the_catalog_loads_no_torch() -> None:
    code = (
        "import sys; from sutura.encoders.catalog import catalog_table; catalog_table(); "
        "from sutura.encoders import EncoderConfig; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'timm', 'open_clip')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
