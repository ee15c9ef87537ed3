"""Models that put pictures and texts in one space, from whatever names them."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from sutura.core.checkpoint import read_json
from sutura.core.errors import UserError
from sutura.encoders.text import TwoTower, load_two_tower

#: Form of a `sutura jepa` run → module and function that load it: (folder, name of the weights' file) → TwoTower.
LOADERS = {"align": ("sutura.train.align_saved", "load_align")}
WEIGHTS = "weights.safetensors"
#: The weights that a run began with, where it kept them.
START = "start.safetensors"


class Named(NamedTuple):
    """A model to be loaded.

    Args:
        name: for tables; of several models no two have the same.
        spec: as `load_joint` takes it.
        run: its folder, where `sutura jepa` trained it; training pictures are recorded there.
    """

    name: str
    spec: str
    run: Path | None = None


def is_joint_run(folder: Path) -> bool:
    """Whether a folder is a run of `sutura jepa`."""
    config = folder / "config.json"
    return config.is_file() and "form" in read_json(config)


def named(specs: list[str] | tuple[str, ...]) -> list[Named]:
    """The rows of a table: every model, and before a run the start it began from, where it kept that.

    Raises:
        UserError: one model twice.
    """
    rows: list[Named] = []
    for spec in specs:
        folder, weights = _split(spec)
        if not is_joint_run(folder):
            rows.append(Named(spec, spec))
            continue
        if weights == WEIGHTS and (folder / START).is_file():
            rows.append(Named(f"{folder.name} (start)", str(folder / START), folder))
        if weights == WEIGHTS:
            rows.append(Named(folder.name, spec, folder))
        else:
            rows.append(Named(f"{folder.name} ({Path(weights).stem})", spec, folder))
    names = [row.name for row in rows]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{twice[0]!r} is given twice.")
    return rows


def load_joint(spec: str) -> TwoTower:
    """A model with both towers.

    Args:
        spec: a run's folder of `sutura jepa train`, or one of its other files of weights
            (`runs/jepa/NAME/start.safetensors`, `…/average.safetensors`); or whatever `load_two_tower` takes.

    Raises:
        UserError: no such model, an unfinished run, or a form that does not embed pictures and texts on their own.
    """
    folder, weights = _split(spec)
    if not is_joint_run(folder):
        if not folder.exists() and _like_a_folder(spec):
            raise UserError(
                f"There is no folder {folder}. Give a run of `sutura jepa train`, or a two-tower model's id."
            )
        return load_two_tower(spec)
    written = read_json(folder / "config.json")
    form = written["form"]
    if form not in LOADERS:
        again = written.get("command") or "`sutura jepa train` with its preset"
        raise UserError(
            f"{folder.name} is a run of the form {form!r}, which has no embedding of a text on its own; retrieval "
            f"needs the form {', '.join(LOADERS)}. For its own scores run {again} again; a finished run is not "
            "trained anew."
        )
    if not (folder / weights).is_file():
        raise UserError(
            f"{folder} holds no {weights}: the run is not finished. `sutura jepa train` with the same preset goes on."
        )
    module, function = LOADERS[form]
    tower: TwoTower = getattr(import_module(module), function)(folder, weights)
    tower.model.eval().requires_grad_(False)
    return tower


def _like_a_folder(spec: str) -> bool:
    """Whether a person who wrote this meant a place on this machine, and no id of a model."""
    named = spec.startswith((".", "/", "~", "runs/")) or spec.endswith("/") or spec.count("/") > 1
    return named and ":" not in spec


def _split(spec: str) -> tuple[Path, str]:
    """Folder and file of weights that a spec names."""
    path = Path(spec).expanduser()
    return (path.parent, path.name) if path.suffix == ".safetensors" else (path, WEIGHTS)
