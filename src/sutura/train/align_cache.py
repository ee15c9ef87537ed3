"""What a frozen tower says of every picture, or of every text: computed once, read through a memory map."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sutura.core.checkpoint import atomic_directory, read_json, write_json
from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint

#: Raised when the layout on disk changes.
FORMAT = 1


class Rows:
    """A vector of every picture or text, in float32 on disk.

    Args:
        folder: as `tower_rows` wrote it.
    """

    def __init__(self, folder: Path) -> None:
        facts = read_json(folder / "facts.json")
        self.count, self.width = facts["count"], facts["width"]
        path = folder / "rows.bin"
        if not path.is_file() or path.stat().st_size != 4 * self.count * self.width:
            raise UserError(f"{path} is not of the size that facts.json says; remove {folder} and run again.")
        self._rows = np.memmap(path, np.float32, "r", shape=(self.count, self.width))

    def __len__(self) -> int:
        return self.count

    def take(self, which: np.ndarray) -> Float[Tensor, "some width"]:
        """Some of the vectors, in the order asked for."""
        return torch.from_numpy(self._rows[which])


@torch.no_grad()
def tower_rows(
    tower: Callable[[np.ndarray], Float[Tensor, "some width"]],
    count: int,
    folder: Path,
    key: list[str],
    *,
    batch: int = 64,
    on_progress: Callable[[int], None] | None = None,
) -> Rows:
    """Vectors of all pictures or texts, from disk if they are there.

    Args:
        tower: numbers → vectors; frozen, in eval mode.
        count: of the pictures or texts.
        folder: of all such caches.
        key: whatever a vector depends on: the tower's weights, the pictures, how they are brought to it.
        batch: computed together.
        on_progress: called with how many were just computed.

    Raises:
        UserError: vectors that are not finite.
    """
    place = Path(folder) / f"tower-{fingerprint(['tower', FORMAT, count, *key])}"
    if not place.is_dir():
        with atomic_directory(place, replace=True) as temporary:
            width = 0
            with (temporary / "rows.bin").open("wb") as file:
                for start in range(0, count, batch):
                    rows = tower(np.arange(start, min(start + batch, count))).float().cpu()
                    if not bool(torch.isfinite(rows).all()):
                        raise UserError(
                            f"The frozen tower gives values that are not finite for rows {start} and on; look at its "
                            "weights, or set `cache_towers: false`."
                        )
                    width = rows.shape[1]
                    file.write(rows.contiguous().numpy().tobytes())
                    if on_progress is not None:
                        on_progress(len(rows))
            write_json(temporary / "facts.json", {"count": count, "width": width})
    return Rows(place)
