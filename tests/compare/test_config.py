"""A comparison's config: what it says after resolving is what is run."""

from __future__ import annotations

import yaml

from sutura.compare.config import CompareConfig
from sutura.core.config import parse


def config(**more) -> CompareConfig:
    rows = [{"id": "zoo:clip", "name": "clip"}, {"id": "zoo:clip", "name": "all", "tokens": None, "layer": 0}]
    data = {"train": {"limit": 4}, "test": [{"benchmark": "world/test", "data": {"limit": 2}}]}
    return parse(CompareConfig, {"name": "x", "encoders": rows, "data": data, **more})


def test_a_resolved_config_runs_the_same_again():
    """Fault: read back, every row had its defaults as settings of its own, and the common ones were not used."""
    asked = config(encoder={"tokens": 16, "layer": -2}, controls={"untrained": "zoo:clip"})
    assert [(r.display_name(), r.tokens, r.layer) for r in asked.encoder_rows()] == [
        ("clip", 16, -2),
        ("all", None, 0),
        ("untrained", 16, -2),
    ]
    again = parse(CompareConfig, yaml.safe_load(yaml.safe_dump(asked.resolved())))
    assert again.encoder_rows() == asked.encoder_rows()
    assert again.resolved() == asked.resolved()
    plain = config()
    assert parse(CompareConfig, plain.resolved()).encoder_rows() == plain.encoder_rows()


def test_one_value_of_the_optimizer_leaves_its_others_as_they_are():
    """Fault: with `optim: {lr: …}` the schedule became the one of another command, without a word."""
    plain, changed = config().optim, config(optim={"lr": 0.003}).optim
    assert (plain.schedule, plain.warmup) == ("constant", 100)
    assert changed == plain.model_copy(update={"lr": 0.003})
