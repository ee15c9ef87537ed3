"""What does not belong together is told before anything is trained, with what to do about it."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from compare.test_run import settings as toy_settings
from sutura.compare import compare
from sutura.compare import run as run_module
from sutura.compare import settings as settings_module
from sutura.compare import single as single_module
from sutura.compare.config import CompareConfig
from sutura.core.config import parse
from sutura.core.errors import UserError
from sutura.core.processes import Processes
from sutura.encoders import load_encoder, loaders
from sutura.encoders.catalog import BY_ID, check_row
from sutura.encoders.catalog_rows import Row
from sutura.stitch.bundle import StitchConfig, build_stitch, load_stitch
from sutura.stitch.generate import generate
from sutura.stitch.language import LlmConfig, add_adapter, load_adapter
from sutura.stitch.pack import Row as PackedRow
from tiny_encoders import build, write_processor
from tiny_models import save_language_model, tiny_lm, tiny_tokenizer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    def get(kind: str) -> Path:
        folder = tmp_path_factory.mktemp("bad") / kind
        build(kind).save_pretrained(folder)
        write_processor(folder, crop=kind == "clip")
        return folder

    return get


def row_of(architecture: str) -> Row:
    """A row of the sizes that every tiny checkpoint with a CLS token has."""
    return Row("org/tiny", "transformers", 32, 8, 32, 3, 1, "x", "x", "MIT", "1", architecture=architecture)


def test_an_encoder_of_another_architecture_than_its_row(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every number agrees: only the architecture gives it away."""
    folder = checkpoint("vit")
    monkeypatch.setitem(BY_ID, "org/tiny", row_of("CLIPVisionModel"))
    monkeypatch.setattr(loaders, "fetch", lambda repo, **options: loaders_fetched(folder))
    with pytest.raises(UserError, match="architecture is ViTModel, the catalog says CLIPVisionModel"):
        load_encoder("org/tiny")
    monkeypatch.setitem(BY_ID, "org/tiny", row_of("ViTModel"))
    assert load_encoder("org/tiny").width == 32


def loaders_fetched(folder: Path) -> Any:
    from sutura.core.fetch import Fetched

    return Fetched(folder, "c0ffee")


def test_every_row_that_names_an_architecture_names_what_its_family_loads() -> None:
    from sutura.encoders.families import FAMILIES

    known = {family.model for family in FAMILIES.values()}
    for row in BY_ID.values():
        if row.loader == "transformers":
            assert row.architecture in known, row.id
        elif row.loader == "timm":
            assert row.architecture == row.id.removeprefix("timm/").split(".")[0]


def test_check_row_still_compares_sizes(checkpoint: Callable[[str], Path]) -> None:
    encoder = load_encoder(str(checkpoint("ijepa")))
    with pytest.raises(UserError, match="num_prefix_tokens is 0, the catalog says 1"):
        check_row(row_of("IJepaModel"), encoder)


# Language models.


def save_lm(folder: Path, *, pad: bool = True, tied: bool = False, extra: int = 0, short: int = 0) -> str:
    """A language model with what real ones differ in."""
    from transformers import AutoModelForCausalLM

    tokenizer = tiny_tokenizer()
    config = copy.deepcopy(tiny_lm().config)
    config.vocab_size = len(tokenizer) + extra - short
    config.tie_word_embeddings = tied
    config.pad_token_id = tokenizer.pad_token_id if pad else None
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if not pad:
        written = json.loads((folder / "tokenizer_config.json").read_text())
        written.pop("pad_token", None)
        (folder / "tokenizer_config.json").write_text(json.dumps(written))
    return str(folder)


@pytest.mark.parametrize(
    "options",
    [
        {"pad": False},
        {"tied": True},
        {"tied": False},
        {"extra": 60},
        {"pad": False, "extra": 7, "tied": True},
    ],
)
def test_language_models_differ_and_work(options: dict[str, Any], tmp_path: Path) -> None:
    """No pad token, tied and untied heads, more rows of embedding than tokens: a blind stitch answers and is kept."""
    lm = save_lm(tmp_path / "lm", **options)
    stitch = build_stitch(StitchConfig(encoder=None, llm=LlmConfig(id=lm, rank=4)))
    if not options.get("pad", True):
        assert stitch.prompt.tokenizer.pad_token is None
    rows = [PackedRow(i, (stitch.prompt.turn(str(i), "How many?" * (i + 1)),)) for i in range(2)]
    answers = generate(stitch.model, stitch.prompt, rows, None, max_new_tokens=6)
    stitch.save(tmp_path / "stitch")
    again = load_stitch(tmp_path / "stitch", device="cpu")
    assert [a.text for a in generate(again.model, again.prompt, rows, None, max_new_tokens=6)] == [
        a.text for a in answers
    ]


def test_ids_that_no_token_has_are_never_answered(tmp_path: Path) -> None:
    """Fault: the rows a vocabulary is padded with are drawn, and their ids are no text."""
    lm = save_lm(tmp_path / "lm", extra=60)
    stitch = build_stitch(StitchConfig(encoder=None, llm=LlmConfig(id=lm, rank=4)))
    known = len(stitch.prompt.tokenizer)
    head = stitch.model.lm.get_output_embeddings()

    def insist(module: Any, given: Any, logits: torch.Tensor) -> torch.Tensor:
        return logits.index_fill(-1, torch.arange(known, known + 60), 1e4)

    handle = head.register_forward_hook(insist)
    row = PackedRow(0, (stitch.prompt.turn("a", "How many?"),))
    plain = generate(stitch.model, stitch.prompt, [row], None, max_new_tokens=4)
    handle.remove()
    assert plain == generate(stitch.model, stitch.prompt, [row], None, max_new_tokens=4)


def test_a_tokenizer_larger_than_its_model_is_told_before_any_picture_is_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        run_module, "load_encoders", lambda *given: pytest.fail("an encoder was loaded first")
    )
    lm = save_lm(tmp_path / "lm", short=3)
    with pytest.raises(UserError, match="do not belong together"):
        compare(toy_settings(tmp_path, tmp_path / "runs", llm={"id": lm, "rank": 4}))


def test_an_adapter_for_another_trunk_is_refused(tmp_path: Path) -> None:
    """The same architecture and rank in other weights, and an adapter of another width."""
    lm = save_language_model(tmp_path / "lm")
    stitch = build_stitch(StitchConfig(encoder=None, llm=LlmConfig(id=lm, rank=4)))
    stitch.save(tmp_path / "stitch")
    other = save_language_model(tmp_path / "other", seed=5)
    shutil.rmtree(lm)
    shutil.copytree(other, lm)
    with pytest.raises(UserError, match=r"has fingerprint .* trained on"):
        load_stitch(tmp_path / "stitch", device="cpu")
    wider: Any = add_adapter(_wider(), LlmConfig(rank=4), seed=0)
    with pytest.raises(UserError, match="another language model or rank"):
        load_adapter(wider, tmp_path / "stitch" / "adapter")


def _wider() -> Any:
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(tiny_lm().config)
    config.hidden_size = 32
    return AutoModelForCausalLM.from_config(config).requires_grad_(False)


# Data.


def test_columns_that_differ_are_told_with_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"picture": "0.png", "q": "how many?", "a": "two"}\n')
    train = {"source": "jsonl", "path": str(tmp_path / "x.jsonl")}
    for columns, words in (
        ({}, r"no column for image .*columns are a, picture, q; name one with columns.image=…"),
        ({"image": "pictures"}, r"takes image from 'pictures', which is not there.*Did you mean 'picture'"),
        ({"image": "picture"}, "no column for question"),
        (
            {"image": "picture", "question": "q", "anwsers": "a"},
            "unknown role 'anwsers'. Did you mean 'answers'",
        ),
        ({"image": "picture", "conversation": "talk"}, "takes conversation from 'talk'"),
    ):
        data = {"train": {**train, "columns": columns}, "test": ["world/test"]}
        with pytest.raises(UserError, match=words):
            compare(toy_settings(tmp_path, tmp_path / "runs", data=data))
    assert not (tmp_path / "runs").exists()


def test_another_schema_than_the_cauldrons_is_told(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": [b"x"], "question": ["how?"]}), tmp_path / "train.parquet")
    data = {"train": {"source": "cauldron", "path": str(tmp_path / "train.parquet")}, "test": ["world/test"]}
    with pytest.raises(UserError, match=r"no column for images .*columns are image, question"):
        compare(toy_settings(tmp_path, tmp_path / "runs", data=data))


@pytest.mark.parametrize(
    ("change", "processes", "told"),
    [
        ({"feed": {"micro_batch": "auto"}}, 2, "micro_batch=auto cannot be used in several processes"),
        ({"engine": {"shard": "fsdp"}}, 1, "and this is one: start it with accelerate"),
        ({"track": {"to": ["wandbb"]}}, 1, "wandb"),
    ],
)
def test_what_the_processes_cannot_do_is_told_before_data_are_read(
    change: dict[str, Any], processes: int, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: refused after hours of features, when the first cell begins to train."""

    def too_late(*_: Any, **__: Any) -> Any:
        raise AssertionError("the data are read")

    config = parse(CompareConfig, toy_settings(tmp_path, tmp_path / "runs", **change))
    monkeypatch.setattr(settings_module, "here", lambda: Processes(0, processes))
    for module in (run_module, single_module):
        monkeypatch.setattr(module, "prepare", too_late)
    with pytest.raises(UserError, match=told):
        compare(config)
    with pytest.raises(UserError, match=told):
        single_module.train_one(config, "one")
    assert not (tmp_path / "runs").exists()
