"""A fingerprint changes with the content and with nothing else."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from sutura.core.hashing import fingerprint, fingerprint_bytes, fingerprint_file, fingerprint_tensors

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def reordered(value):
    if isinstance(value, dict):
        return {k: reordered(v) for k, v in reversed(value.items())}
    return [reordered(v) for v in value] if isinstance(value, list) else value


@given(JSON)
def test_order_of_keys_does_not_matter(value):
    assert fingerprint(value) == fingerprint(reordered(value))


def test_values_are_pinned_across_processes_and_versions():
    assert fingerprint({"b": 1, "a": [None, True, "é"]}) == "58064a6eabcd16ba"
    assert fingerprint_bytes(b"ab", b"c") == "43ee655579de01ca"
    assert fingerprint_tensors({"w": torch.arange(3.0)}) == "41c7807ab4834aeb"


def test_every_difference_shows():
    assert fingerprint([1, 2]) != fingerprint([2, 1])
    assert fingerprint({"a": 1}) != fingerprint({"a": "1"})
    assert fingerprint_bytes(b"ab", b"c") != fingerprint_bytes(b"a", b"bc")


def test_tensors_by_name_type_shape_and_bit():
    base = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    assert fingerprint_tensors(dict(reversed(base.items()))) == fingerprint_tensors(base)
    transposed_view = torch.arange(6.0).reshape(3, 2).T
    assert fingerprint_tensors({"a": transposed_view}) == fingerprint_tensors(
        {"a": transposed_view.contiguous()}
    )
    bit = base["a"].clone()
    bit[1, 2] = 1e-45
    for other in (
        {"a": torch.zeros(3, 2), "b": base["b"]},
        {"a": torch.zeros(2, 3, dtype=torch.int32), "b": base["b"]},
        {"c": torch.zeros(2, 3), "b": base["b"]},
        {"a": bit, "b": base["b"]},
        {"a": -base["a"], "b": base["b"]},
    ):
        assert fingerprint_tensors(other) != fingerprint_tensors(base)


def test_odd_tensors_have_fingerprints():
    scalars = [torch.tensor(1.0), torch.tensor(1.0, dtype=torch.bfloat16), torch.empty(0), torch.tensor(True)]
    assert len({fingerprint_tensors({"x": t}) for t in scalars}) == 4


def test_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * 3_000_000)
    first = fingerprint_file(path)
    path.write_bytes(b"x" * 2_999_999 + b"y")
    assert fingerprint_file(path) != first
