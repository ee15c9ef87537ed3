"""Files are whole or absent; a weight lands or the program stops."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sutura.core.checkpoint import (
    atomic_directory,
    atomic_file,
    load_strict,
    load_tensors,
    read_json,
    save_tensors,
    write_json,
)
from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint_tensors


def names(directory):
    return sorted(p.name for p in directory.iterdir())


def broken(context, write):
    """Write something, then fail inside the block."""

    def block():
        with context as temporary:
            write(temporary)
            raise RuntimeError("stopped half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        block()


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with atomic_file(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    broken(atomic_file(path), lambda temporary: temporary.write_text("half"))
    assert path.read_text() == "new"
    assert names(path.parent) == ["a.txt"]


def test_a_directory_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "run"
    broken(atomic_directory(path), lambda temporary: (temporary / "a").write_text("half"))
    assert names(tmp_path) == []
    with atomic_directory(path) as temporary:
        (temporary / "a").write_text("whole")
        assert not path.exists()
    assert names(path) == ["a"]


def test_a_directory_is_never_overwritten_unasked(tmp_path):
    """Fault: a finished run is overwritten."""
    path = tmp_path / "run"
    for content in ("a", "b"):
        with atomic_directory(path, replace=True) as temporary:
            (temporary / content).touch()
    assert names(path) == ["b"], "replaced, not merged"
    with pytest.raises(UserError, match="never overwritten"), atomic_directory(path):
        pytest.fail("the block must not run")
    broken(atomic_directory(path, replace=True), lambda temporary: (temporary / "c").touch())
    assert names(path) == ["b"]
    assert names(tmp_path) == ["run"]


def test_json(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"b": [1, None], "a": "é"})
    assert read_json(path) == {"b": [1, None], "a": "é"}
    assert path.read_text().index('"b"') < path.read_text().index('"a"')
    path.write_text(path.read_text()[:-4])
    with pytest.raises(UserError, match="not valid JSON"):
        read_json(path)
    with pytest.raises(UserError, match="missing"):
        read_json(tmp_path / "b.json")


def test_tensors_keep_their_bits(tmp_path):
    shared = torch.randn(4, 3)
    tensors = {
        "view": shared.T,
        "same storage": shared,
        "bf16": torch.randn(3).bfloat16(),
        "scalar": torch.tensor(2.0),
        "int": torch.arange(3),
    }
    save_tensors(tmp_path / "w.safetensors", tensors, {"step": "3"})
    assert fingerprint_tensors(load_tensors(tmp_path / "w.safetensors")) == fingerprint_tensors(tensors)


def test_damaged_tensors_stop_the_program(tmp_path):
    path = tmp_path / "w.safetensors"
    save_tensors(path, {"a": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="damaged"):
        load_tensors(path)
    torch.save({"a": torch.zeros(3)}, path)
    with pytest.raises(UserError, match="another format"):
        load_tensors(path)
    with pytest.raises(UserError, match="missing"):
        load_tensors(tmp_path / "none.safetensors")


def test_every_weight_lands(tmp_path):
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    load_strict(target, source.state_dict(), "a test")
    assert torch.equal(target.weight, source.weight)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda w: {"weight": w["weight"]}, r"1 missing \(bias\)"),
        (lambda w: w | {"extra": w["bias"]}, r"1 not of this model \(extra\)"),
        (lambda w: w | {"weight": w["weight"].T}, r"weight: file \(3, 2\), model \(2, 3\)"),
    ],
)
def test_weights_that_do_not_fit_stop_the_program(change, told):
    """Fault: a missing weight is a warning and training goes on from random ones."""
    target = nn.Linear(3, 2)
    before = fingerprint_tensors(target.state_dict())
    with pytest.raises(UserError, match=told):
        load_strict(target, change(dict(nn.Linear(3, 2).state_dict())), "a test")
    assert fingerprint_tensors(target.state_dict()) == before, "nothing may be loaded"
