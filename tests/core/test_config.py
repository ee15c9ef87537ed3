"""Sections refuse what they do not know and say what was meant; presets have one level of base."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest

from sutura.core.config import Section, apply_overrides, load_config, merge, parse, read_preset
from sutura.core.errors import UserError


class Inner(Section):
    width: int = 8
    depth: int = 2


class Outer(Section):
    name: str
    inner: Inner = Inner()
    others: tuple[Inner, ...] = ()
    rate: float = 0.5
    maybe: Inner | None = None


def test_unknown_keys_are_refused_with_a_suggestion():
    with pytest.raises(UserError, match=r"inner\.widht: unknown key\. Did you mean 'width'\?"):
        parse(Outer, {"name": "a", "inner": {"widht": 3}})
    with pytest.raises(UserError, match=r"others\.0\.dept: unknown key\. Did you mean 'depth'\?"):
        parse(Outer, {"name": "a", "others": [{"dept": 3}]})
    with pytest.raises(UserError, match=r"maybe\.widt: unknown key\. Did you mean 'width'\?"):
        parse(Outer, {"name": "a", "maybe": {"widt": 3}})
    with pytest.raises(UserError, match=r"inne: unknown key\. Did you mean 'inner'"):
        parse(Outer, {"name": "a", "inne": {}})


def test_every_fault_is_listed_with_the_value_found():
    with pytest.raises(UserError) as caught:
        parse(Outer, {"inner": {"width": "wide", "depth": []}}, where="preset 'x'")
    text = str(caught.value)
    assert text.startswith("preset 'x' does not fit Outer:")
    assert "name: Field required" in text
    assert "inner.width" in text
    assert "'wide'" in text
    assert "inner.depth" in text


def test_sections_are_frozen():
    with pytest.raises(pydantic.ValidationError):
        Inner().width = 3


def test_hash_follows_the_values_with_defaults_filled_in():
    assert parse(Outer, {"name": "a"}).hash() == parse(Outer, {"name": "a", "inner": {"width": 8}}).hash()
    assert parse(Outer, {"name": "a"}).hash() != parse(Outer, {"name": "a", "inner": {"width": 9}}).hash()


class Deep(Section):
    inner: Inner = Inner(width=4)
    outer: Outer = Outer(name="here", inner=Inner(depth=7))


@pytest.mark.parametrize(
    ("given", "width", "depth", "deep"),
    [
        ({}, 4, 2, (8, 7)),
        ({"inner": {"depth": 3}, "outer": {"inner": {"width": 1}}}, 4, 3, (1, 7)),
        ({"inner": {"width": 9}, "outer": {"name": "b"}}, 9, 2, (8, 7)),
        ({"inner": Inner(), "outer": Outer(name="c")}, 8, 2, (8, 2)),
    ],
)
def test_a_section_given_in_part_keeps_its_default_for_the_rest(
    given: dict[str, Any], width: int, depth: int, deep: tuple[int, int]
) -> None:
    """Fault: one value said, and the others fall back to the section's own defaults, not to those it has here."""
    found = parse(Deep, given)
    assert (found.inner.width, found.inner.depth) == (width, depth)
    assert (found.outer.inner.width, found.outer.inner.depth) == deep
    assert parse(Deep, found.resolved()) == found


def test_overrides_are_read_as_yaml_and_keep_their_neighbours():
    values = {"inner": {"width": 3, "depth": 4}, "name": "a"}
    changed = apply_overrides(
        values, ["inner.width=5", "name=b", "others=[{depth: 1}]", "maybe=null", "new.deep.key=true"]
    )
    assert changed == {
        "inner": {"width": 5, "depth": 4},
        "name": "b",
        "others": [{"depth": 1}],
        "maybe": None,
        "new": {"deep": {"key": True}},
    }
    assert values == {"inner": {"width": 3, "depth": 4}, "name": "a"}, "the preset is not changed in place"


def test_an_override_may_hold_an_equals_sign_and_needs_one():
    assert apply_overrides({}, ["name=a=b"]) == {"name": "a=b"}
    for bad in ("name", "=3"):
        with pytest.raises(UserError, match=r"section\.key=value"):
            apply_overrides({}, [bad])
    with pytest.raises(UserError, match="not valid YAML"):
        apply_overrides({}, ["a=[1"])


def test_an_exponent_without_a_dot_is_a_number():
    """YAML 1.1 reads `1e-3` as text; the section makes a number of it."""
    assert parse(Outer, apply_overrides({"name": "a"}, ["rate=1e-3"])).rate == 0.001


def test_lists_are_replaced_and_mappings_merged():
    assert merge({"a": [1, 2], "b": {"c": 1, "d": 2}}, {"a": [3], "b": {"c": 9}}) == {
        "a": [3],
        "b": {"c": 9, "d": 2},
    }


def test_one_level_of_base(tmp_path):
    (tmp_path / "low.yaml").write_text("name: low\ninner: {width: 3, depth: 5}\n")
    (tmp_path / "mid.yaml").write_text(f"base: {tmp_path / 'low.yaml'}\ninner: {{width: 4}}\n")
    (tmp_path / "top.yaml").write_text(f"base: {tmp_path / 'mid.yaml'}\n")
    assert read_preset(str(tmp_path / "mid.yaml")) == {"name": "low", "inner": {"width": 4, "depth": 5}}
    config = load_config(Outer, str(tmp_path / "mid.yaml"), ["inner.depth=7"])
    assert config == Outer(name="low", inner=Inner(width=4, depth=7))
    with pytest.raises(UserError, match="one level is the rule"):
        read_preset(str(tmp_path / "top.yaml"))


def test_presets_that_are_none(tmp_path):
    with pytest.raises(UserError, match="no preset named 'nope'"):
        read_preset("nope")
    with pytest.raises(UserError, match="No preset file"):
        read_preset(str(tmp_path / "nope.yaml"))
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(UserError, match="holds list"):
        read_preset(str(tmp_path / "list.yaml"))
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    with pytest.raises(UserError, match="not valid YAML"):
        read_preset(str(tmp_path / "broken.yaml"))
