"""The zoo: what it holds, and training any of it again."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from sutura.core.checkpoint import atomic_directory, read_json
from sutura.core.config import load_config, preset_names
from sutura.core.errors import UserError
from sutura.core.log import progress_bars, say
from sutura.core.registry import suggest
from sutura.encoders.catalog import zoo_root

LANGUAGE_MODEL = "world-lm"
#: Members that others need, and so are built before them.
FIRST = ("clip",)


def zoo_table() -> list[dict[str, str]]:
    """One row a member: name, kind, size on disk."""
    rows = []
    for config in sorted(zoo_root().glob("*/config.json")):
        content = read_json(config)
        size = sum(path.stat().st_size for path in config.parent.iterdir() if path.is_file())
        kind = content.get("objective") or content.get("model_type") or content.get("model", "")
        rows.append({"id": f"zoo:{config.parent.name}", "kind": str(kind), "size": f"{size / 1e6:.1f} MB"})
    return rows


def build_member(name: str, overrides: Sequence[str] = (), *, install: bool = True) -> list[Path]:
    """Train one member (or `all`) from nothing, as its preset says, and put it into the zoo.

    A finished run is not repeated. A stopped one goes on from its checkpoint.

    Args:
        name: a preset under `zoo/`, or `all`.
        overrides: `section.key=value`; a changed member is trained but not installed.
        install: copy the result into the package.

    Raises:
        UserError: an unknown name.
    """
    known = preset_names("zoo")
    if name != "all" and name not in known:
        raise UserError(f"The zoo has no member {name!r} to build. {suggest(name, [*known, 'all'])}")
    built = []
    for member in build_order(known) if name == "all" else [name]:
        folder = _train(member, overrides)
        if install and not overrides:
            with atomic_directory(zoo_root() / member, replace=True) as place:
                shutil.copytree(folder, place, dirs_exist_ok=True)
            folder = zoo_root() / member
            say(f"{member} is in the zoo: {folder}")
        built.append(folder)
    return built


def build_order(members: Sequence[str]) -> list[str]:
    """Members in the order they can be built in: a teacher before its student."""
    return sorted(members, key=lambda member: (member not in FIRST, member))


def _train(member: str, overrides: Sequence[str]) -> Path:
    from sutura.train.pretrain import PretrainConfig, pretrain_shown
    from sutura.train.world_lm import WorldLmConfig, train_world_lm

    if member != LANGUAGE_MODEL:
        command = shlex.join(["sutura", "zoo", "build", member, *overrides])
        return pretrain_shown(load_config(PretrainConfig, f"zoo/{member}", overrides), command)
    config = load_config(WorldLmConfig, f"zoo/{member}", overrides)
    with progress_bars() as bars:
        task = bars.add_task(f"training {member}", total=config.total_steps, note="")

        def on_step(done: int, row: dict) -> None:
            bars.update(task, completed=done, note=f"loss {row['loss']:.3f}")

        return train_world_lm(config, on_step)
