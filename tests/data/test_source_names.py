"""Names of sources, of config keys, and of question types."""

from __future__ import annotations

import pytest

from sutura.core.config import parse
from sutura.core.errors import UserError
from sutura.data.manifest import question_type_of
from sutura.data.vqa import SOURCES, VqaSource, load_vqa


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("How many chairs are there?", "how many"),
        ("Question: What's the largest object?\nChoices: …", "what's the"),
        ("  colour?", "colour"),
        ("?!", ""),
    ],
)
def test_question_types(question, kind):
    assert question_type_of(question) == kind


def test_sources_are_looked_up_by_name_and_others_plug_in():
    with pytest.raises(UserError, match=r"no data source named 'cauldon'. Did you mean 'cauldron'"):
        load_vqa({"source": "cauldon"})
    with pytest.raises(UserError, match=r"splti: unknown key. Did you mean 'split'"):
        load_vqa({"splti": "test"})
    assert SOURCES.group == "sutura.data"
    assert {"world", "cauldron", "parquet", "jsonl", "mixture"} <= set(SOURCES.names())
    nested = parse(VqaSource, {"source": "mixture", "parts": [{"limit": 3}]})
    assert nested.parts[0].limit == 3
