"""docs/faults.md names tests that exist, and at least one for every fault."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROWS = 52
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def rows(root: Path) -> list[str]:
    lines = (root / "docs/faults.md").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("|") and not line.startswith(("| the fault,", "|---"))]


@cache
def names_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_fault_names_a_test_that_exists(root: Path) -> None:
    found = rows(root)
    assert len(found) == ROWS
    for row in found:
        named = NAMED.findall(row)
        assert named, f"no test for: {row[:80]}"
        assert len(named) == row.count("::"), f"a name that is not path::test in: {row[:80]}"
        for path, name in named:
            assert (root / path).is_file(), f"{path} is not there"
            assert name in names_in(root / path), f"{path} has no {name}"
