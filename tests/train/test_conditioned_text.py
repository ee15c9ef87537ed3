"""Captions as hidden states: the library's, one by one or in batches, from disk the second time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sutura.core.errors import UserError
from sutura.train import conditioned_text
from sutura.train.conditioned_config import TextConfig
from sutura.train.conditioned_text import load_text_network, shorten, text_states
from tiny_conditioned import save_bert
from tiny_models import save_language_model, tiny_tokenizer

TEXTS = ("a red cube", "three large metal spheres and a lamp", "no")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_language_model(tmp_path_factory.mktemp("text"))


@torch.no_grad()
def _one_by_one(config: TextConfig, state: int) -> list[torch.Tensor]:
    tokenizer, model = load_text_network(config)
    rows: list[Any] = [tokenizer(text, return_tensors="pt")["input_ids"] for text in TEXTS]
    return [model(input_ids=ids, output_hidden_states=True).hidden_states[state][0] for ids in rows]


@pytest.mark.parametrize("kind", ["language model", "bert"])
@pytest.mark.parametrize("layer", [-1, 1])
def test_states_are_the_librarys_without_padding(kind: str, layer: int, network: str, tmp_path: Path) -> None:
    place = network if kind == "language model" else save_bert(tmp_path / "bert")
    config = TextConfig(id=place, layer=layer, batch=3, longest=64)
    store = text_states(config, TEXTS, tmp_path, "cpu")
    wanted = _one_by_one(config, layer)
    states, padding = store.rows([2, None, 1, 0])
    for row, which in ((0, 2), (2, 1), (3, 0)):
        own = states[row][~padding[row]]
        assert torch.allclose(own, wanted[which].float(), atol=2e-2 * float(wanted[which].abs().max()))
        assert len(own) == len(wanted[which])
    assert bool(padding[1].all())
    assert not states[padding].any()


def test_the_second_time_nothing_is_encoded(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = text_states(TextConfig(id=network), TEXTS, tmp_path, "cpu")
    monkeypatch.setattr(conditioned_text, "load_text_network", None)
    again = text_states(TextConfig(id=network), TEXTS, tmp_path, "cpu")
    assert again.fingerprint == first.fingerprint
    assert torch.equal(again.rows([1])[0], first.rows([1])[0])


def test_what_is_too_long_is_cut_and_counted(
    network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = text_states(TextConfig(id=network, longest=3), TEXTS, tmp_path, "cpu")
    longer = sum(len(tiny_tokenizer()(text)["input_ids"]) > 3 for text in TEXTS)
    assert store.cut == longer >= 2
    assert store.rows([0, 1, 2])[0].shape[1] == 3
    assert f"{longer} of 3 captions are longer" in " ".join(capsys.readouterr().err.split())


def test_a_text_that_is_cut_keeps_the_special_token_at_its_end(tmp_path: Path) -> None:
    """Fault: BERT reads a cut caption without its [SEP]."""
    tokenizer = load_text_network(TextConfig(id=save_bert(tmp_path / "bert")))[0]
    special = tokenizer.all_special_ids[0]
    plain = next(i for i in range(len(tokenizer)) if i not in tokenizer.all_special_ids)
    assert shorten([plain] * 5 + [special], 3, tokenizer) == [plain, plain, special]
    assert shorten([plain] * 6, 3, tokenizer) == [plain] * 3
    assert shorten([plain, special], 3, tokenizer) == [plain, special]


def test_a_layer_that_is_not_there_and_weights_that_are_missing_are_refused(
    network: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"text.layer=7"):
        text_states(TextConfig(id=network, layer=7), TEXTS, tmp_path, "cpu")
    place = Path(save_bert(tmp_path / "harmed"))
    weights = load_file(place / "model.safetensors")
    lost = next(name for name in weights if name.endswith("attention.self.query.weight"))
    save_file({k: v for k, v in weights.items() if k != lost}, place / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="do not fit its architecture"):
        text_states(TextConfig(id=str(place)), TEXTS, tmp_path, "cpu")
