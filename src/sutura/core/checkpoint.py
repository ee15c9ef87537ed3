"""Files that are whole or absent, and weights that land or stop the program."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sutura.core.errors import UserError
from sutura.core.leftovers import clear_away, unfinished

if TYPE_CHECKING:
    from torch import Tensor, nn


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it into place when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_away(path.parent.resolve())
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=unfinished(path), suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary directory; rename it to `path` when the block ends without an error.

    Args:
        path: the final directory.
        replace: whether an existing directory may be replaced; otherwise it is an error.
    """
    if path.exists() and not replace:
        raise UserError(f"{path} exists already and is never overwritten; choose another place or remove it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_away(path.parent.resolve())
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=unfinished(path)))
    try:
        yield temporary
        temporary.chmod(0o755)
        if path.exists():
            doomed = Path(tempfile.mkdtemp(dir=path.parent, prefix=unfinished(path, "old")))
            path.rename(doomed / path.name)
            temporary.rename(path)
            shutil.rmtree(doomed)
        else:
            temporary.rename(path)
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented, keys in the order given."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON. Raises UserError when the file is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing.") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON ({error}); it was cut short or edited by hand.") from None


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors as safetensors, atomically."""
    from safetensors.torch import save_file

    with atomic_file(path) as temporary:
        save_file(
            {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
            temporary,
            metadata=dict(metadata) if metadata else None,
        )


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file whole.

    Raises:
        UserError: missing, not safetensors, or cut short.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(f"{path} is missing; weights are read from safetensors files only.")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(
            f"{path} cannot be read as safetensors ({error}); it is damaged or another format."
        ) from None


def load_strict(module: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Load every tensor into the module, or stop: no key missing, none left over, no shape different.

    Args:
        module: receives the weights.
        tensors: state dict.
        what: names the weights in the message.
    """
    expected = module.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    extra = sorted(tensors.keys() - expected.keys())
    shapes = [
        f"{name}: file {tuple(tensors[name].shape)}, model {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & tensors.keys())
        if tensors[name].shape != expected[name].shape
    ]
    if missing or extra or shapes:
        parts = [
            f"{len(names)} {label} ({', '.join(names[:4])}{' …' if len(names) > 4 else ''})"
            for names, label in (
                (missing, "missing"),
                (extra, "not of this model"),
                (shapes, "of another shape"),
            )
            if names
        ]
        raise UserError(f"Weights of {what} do not fit: {'; '.join(parts)}. Nothing was loaded.")
    module.load_state_dict(dict(tensors), strict=True)
