"""The table of encoders: looking rows up, showing them, holding them against the loaded module."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sutura.core.checkpoint import read_json
from sutura.core.errors import UserError
from sutura.core.registry import suggest
from sutura.encoders.catalog_rows import MEASURED, ROWS, TOLD, Row

if TYPE_CHECKING:
    from sutura.encoders.base import VisionEncoder

BY_ID: dict[str, Row] = {row.id: row for row in ROWS}


def zoo_root() -> Path:
    """Where the weights that the project trained itself lie."""
    return Path(str(files("sutura"))) / "zoo"


def zoo_folder(name: str) -> Path:
    """The folder of an encoder of ours by its name: `zoo:NAME`, or a path. It need not be there."""
    return zoo_root() / name.removeprefix("zoo:") if name.startswith("zoo:") else Path(name)


def zoo_rows(root: Path | None = None) -> Iterator[Row]:
    """A row for each encoder in the zoo, read from its config."""
    folder = root or zoo_root()
    for path in sorted(folder.glob("*/config.json")):
        config = read_json(path)
        if config.get("model") != "vit":
            continue
        args = config["args"]
        yield Row(
            id=f"zoo:{path.parent.name}",
            loader="zoo",
            image_size=config["transform"]["image_size"],
            patch_size=args["patch_size"],
            width=args["width"],
            depth=args["depth"],
            num_prefix_tokens=int(args.get("cls", False)) + args.get("registers", 0),
            objective=config.get("objective", ""),
            data=config.get("data", ""),
            licence=config.get("licence", ""),
            paper=config.get("paper", ""),
            checked=dict.fromkeys((*MEASURED, *TOLD), "our own config"),
        )


def zoo_row(name: str) -> Row:
    """The row of a zoo encoder by its name, without `zoo:`. Raises UserError, with a suggestion, for any other."""
    rows = {row.id.removeprefix("zoo:"): row for row in zoo_rows()}
    if name not in rows:
        raise UserError(f"The zoo holds no encoder {name!r}. {suggest(name, rows)}")
    return rows[name]


def known_ids() -> list[str]:
    """Every id that the catalog resolves."""
    return [*BY_ID, *(row.id for row in zoo_rows())]


def catalog_table() -> list[dict[str, Any]]:
    """The catalog for reading: a row an encoder, with what nobody has checked."""
    return [
        {
            "id": row.id,
            "from": row.loader,
            "image": row.image_size,
            "patch": row.patch_size,
            "tokens": row.tokens,
            "prefix": row.num_prefix_tokens,
            "width": row.width,
            "depth": row.depth,
            "objective": row.objective,
            "data": row.data,
            "licence": row.licence + (" (non-commercial)" if row.non_commercial else ""),
            "paper": row.paper and f"arXiv:{row.paper}",
            "checked": ", ".join(sorted(set(row.checked.values()))),
            "unchecked": ", ".join(row.unchecked),
            "notes": row.notes,
        }
        for row in (*ROWS, *zoo_rows())
    ]


def check_row(row: Row, encoder: VisionEncoder) -> list[str]:
    """Compare a row with the loaded module.

    Returns:
        The row's facts that are still unchecked now.

    Raises:
        UserError: the module is not what the row says.
    """
    found = {
        "patch_size": encoder.trunk.patch_size,
        "width": encoder.width,
        "depth": encoder.trunk.depth,
        "num_prefix_tokens": encoder.num_prefix_tokens,
    }
    if encoder.config.image_size is None and encoder.config.transform is None:
        found |= {"image_size": encoder.image_size, "tokens": encoder.grid[0] * encoder.grid[1]}
    if row.architecture:
        found["architecture"] = encoder.about.get("architecture")
    wrong = [
        f"{key} is {value}, the catalog says {getattr(row, key)}"
        for key, value in found.items()
        if value != getattr(row, key)
    ]
    if wrong:
        raise UserError(
            f"{row.id!r} is not what the catalog describes: {'; '.join(wrong)}. Either the checkpoint has "
            "changed (pin "
            "its revision) or the row is wrong."
        )
    return [key for key in row.unchecked if key not in found]
