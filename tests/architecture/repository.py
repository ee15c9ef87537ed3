"""What the repository holds: the files git knows or would take, and their syntax trees."""

from __future__ import annotations

import ast
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "sutura"
BINARY = {".safetensors", ".png", ".jpg", ".jpeg", ".parquet", ".npz", ".npy"}


@cache
def files() -> tuple[Path, ...]:
    """Every file that is committed or would be, ignored ones left out."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return tuple(sorted(path for path in paths if path.is_file()))


def python_files(*folders: str) -> list[Path]:
    """Python files in the named top folders."""
    return [p for p in files() if p.suffix == ".py" and p.relative_to(ROOT).parts[0] in folders]


def text_files() -> list[Path]:
    """Files a person may read."""
    return [path for path in files() if path.suffix not in BINARY]


@cache
def tree(path: Path) -> ast.Module:
    """Syntax tree of a Python file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def place(path: Path, line: int | None = None) -> str:
    """How a finding names its place."""
    name = path.relative_to(ROOT).as_posix()
    return name if line is None else f"{name}:{line}"
