"""What a conditioned run refuses before it begins."""

from __future__ import annotations

from typing import Any

import pytest

from sutura.core.config import parse, preset_names, read_preset
from sutura.core.errors import UserError
from sutura.train.conditioned_config import ConditionedConfig

SAME = {"id": "zoo:mae", "final_norm": True}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"target": {"kind": "ema"}}, "the moving average of a frozen encoder is that encoder for ever"),
        ({"target": {"kind": "other", "encoder": None}}, "needs target.encoder"),
        ({"target": {"encoder": SAME}}, "is the online encoder itself"),
        ({"target": {"blocks": 2}}, "belongs to target.kind=ema or average"),
        ({"target": {"kind": "average"}}, "no target beyond itself"),
        ({"online": {"encoder": {"final_norm": False}}}, "read behind its final norm"),
        ({"passes": 100}, "not a multiple of batch=32"),
        ({"micro_batch": 5}, "not a multiple of micro_batch=5"),
        ({"online": {"encoder": {"id": "zoo:mae", "tokens": 16}}}, "keeps its own patches"),
        ({"mask": {"ratio": 1.0}}, "less than 1"),
        ({"mask": {"kind": "rectangle"}}, "random"),
        ({"predictr": {}}, "Did you mean"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        parse(ConditionedConfig, changes)


def test_a_moving_average_of_an_encoder_that_trains_is_fine() -> None:
    config = parse(ConditionedConfig, {"target": {"kind": "ema"}, "online": {"train": 2}})
    assert config.steps == 600


def test_every_shipped_preset_of_the_form_is_whole() -> None:
    names = [
        name for name in preset_names("jepa") if read_preset(f"jepa/{name}").get("form") == "conditioned"
    ]
    assert {"conditioned-tiny", "conditioned-coco"} <= set(names)
    for name in names:
        values = read_preset(f"jepa/{name}")
        values.pop("form")
        assert parse(ConditionedConfig, values).name == name
