"""A preset with its overrides, resolved and shown. No torch here: a dry run answers in a moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from sutura.compare.config import CompareConfig
from sutura.core.config import load_config, parse
from sutura.core.errors import UserError
from sutura.core.processes import here
from sutura.data.sources import VqaSource


def settings(
    preset: str, overrides: Sequence[str] = (), *, limit: int | None = None, cache: bool = True
) -> CompareConfig:
    """A preset with overrides, and at most `limit` pictures of every data set."""
    config = load_config(CompareConfig, preset, overrides)
    changes: dict[str, Any] = {}
    if limit is not None:
        if limit < 2:
            raise UserError(
                f"--limit {limit}: at least 2 pictures are needed, one to be swapped with the other."
            )

        def most(given: int | None) -> int:
            return limit if given is None else min(limit, given)

        train = config.data.train.model_copy(update={"limit": most(config.data.train.limit)})
        tests = tuple(
            test.model_copy(update={"data": {**test.data, "limit": most(parse(VqaSource, test.data).limit)}})
            for test in config.data.test
        )
        changes["data"] = config.data.model_copy(update={"train": train, "test": tests})
        if (select := config.data.select) is not None:
            few = select.model_copy(update={"limit": most(select.limit)})
            changes["data"] = changes["data"].model_copy(update={"select": few})
        changes["name"] = f"{config.name}-limit-{limit}"
    if not cache:
        changes["features"] = config.features.model_copy(update={"cache": False})
    return config.model_copy(update=changes)


def check_before_work(config: CompareConfig) -> None:
    """Refuse what the settings and the processes alone tell, before data are read and pictures encoded.

    Raises:
        UserError: a tracker that is not there, a micro-batch that adapts in several processes, weights laid over
            a single one.
    """
    from sutura.train.micro_batch import check_alone
    from sutura.train.shard import check_several
    from sutura.train.track import check_trackers

    check_trackers(config.track.to)
    if config.feed.micro_batch == "auto":
        check_alone(here())
    if config.engine.shard == "fsdp":
        check_several(here())


def dry(config: CompareConfig) -> str:
    """The resolved config and the cells it asks for, as YAML; nothing is loaded."""
    rows = [row.display_name() for row in config.encoder_rows()]
    cells = len(config.seeds) * (len(rows) + config.controls.blind) + config.controls.text_ceiling
    tried = len(config.optim.lr_sweep) * (len(rows) + config.controls.blind)
    choosing = f"# {tried} cells before them choose learning rates on the selection split\n" * bool(tried)
    text = yaml.safe_dump(config.resolved(), sort_keys=False, allow_unicode=True)
    named = ", ".join([*rows, *["blind"] * config.controls.blind])
    return f"{text}{choosing}# {cells} cells: {len(config.seeds)} seeds × ({named})"
