"""A wrong name gets a suggestion, a taken name is refused, plug-ins come in by entry points."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sutura.core import registry
from sutura.core.errors import UserError
from sutura.core.registry import Registry, suggest


@pytest.fixture
def fruit():
    table = Registry("fruit")
    table.add("apple", 1)
    table.add("pear", 2)
    return table


def test_look_up(fruit):
    assert fruit.get("pear") == 2
    assert fruit.names() == list(fruit) == ["apple", "pear"]
    assert "apple" in fruit
    assert "plum" not in fruit


def test_a_wrong_name_gets_a_suggestion(fruit):
    with pytest.raises(UserError, match=r"no fruit named 'aple'\. Did you mean 'apple'"):
        fruit.get("aple")
    with pytest.raises(UserError, match=r"Known: apple, pear\."):
        fruit.get("xyz")


def test_a_taken_name_is_refused(fruit):
    with pytest.raises(UserError, match="'apple' is already registered"):
        fruit.add("apple", 3)
    assert fruit.get("apple") == 1


def test_plug_ins_are_read_once_and_only_when_needed(monkeypatch):
    asked = []

    def entry_points(group):
        asked.append(group)
        return [SimpleNamespace(name="kiwi", load=lambda: 7)]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    table = Registry("fruit", "sutura.fruit")
    table.add("apple", 1)
    assert table.get("apple") == 1
    assert asked == []
    assert table.get("kiwi") == 7
    assert table.names() == ["apple", "kiwi"]
    assert asked == ["sutura.fruit"]


def test_a_plug_in_cannot_take_a_name(monkeypatch):
    monkeypatch.setattr(
        registry, "entry_points", lambda group: [SimpleNamespace(name="apple", load=lambda: 7)]
    )
    table = Registry("fruit", "sutura.fruit")
    table.add("apple", 1)
    with pytest.raises(UserError, match="already registered"):
        table.names()


def test_long_tables_are_cut():
    assert suggest("?", [f"name{i:03}" for i in range(50)]).endswith("name039 ….")
