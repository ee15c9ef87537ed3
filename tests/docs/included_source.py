"""Blocks of a document that are taken from the source: how they are found, and how they are filled.

A line `<!-- source: sutura/models/vit.py:ViT.forward -->` stands before a Python block that shows that function or
class without its docstring, or `sutura/nn/position.py:_sincos+doc` with it. After a change of the source,

    PYTHONPATH=tests .venv/bin/python -m docs.included_source

fills every such block anew.
"""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from docs.documents import DOCUMENTS, ROOT, name_of

SOURCE = ROOT / "src"
MARKED = re.compile(
    r"^<!-- source: (?P<file>[^\s:]+):(?P<name>[\w.]+)(?P<doc>\+doc)? -->\n```python\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
ANY_MARKER = re.compile(r"^<!-- source:.*-->", re.MULTILINE)


@dataclass(frozen=True)
class Included:
    """A block of a document and the place in the source that it shows."""

    file: str
    name: str
    doc: bool
    text: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.name}"

    def source(self) -> str:
        """What the block has to hold."""
        return code_of(SOURCE / self.file, self.name, doc=self.doc)


def included(text: str) -> list[Included]:
    """The marked blocks of a document, in order; `line` is that of the fence.

    Raises:
        ValueError: a marker that is not followed at once by a Python block.
    """
    found = [
        Included(m["file"], m["name"], m["doc"] is not None, m["text"], text.count("\n", 0, m.start()) + 2)
        for m in MARKED.finditer(text)
    ]
    markers = len(ANY_MARKER.findall(text))
    if markers != len(found):
        raise ValueError(f"{markers} source markers, {len(found)} Python blocks right below one.")
    return found


def fill(text: str) -> str:
    """The document with every marked block as the source has it now."""

    def block(m: re.Match[str]) -> str:
        code = code_of(SOURCE / m["file"], m["name"], doc=m["doc"] is not None)
        return f"{m[0].partition('```')[0]}```python\n{code}```"

    return MARKED.sub(block, text)


def code_of(file: Path, name: str, *, doc: bool = False) -> str:
    """A function or class as it stands in a file, moved to the left margin.

    Args:
        file: of Python source.
        name: `function`, `Class` or `Class.method`.
        doc: whether its docstring stays.

    Raises:
        LookupError: the file has no such function or class.
    """
    lines = file.read_text(encoding="utf-8").splitlines()
    node: ast.AST = ast.parse("\n".join(lines))
    for part in name.split("."):
        inside = [
            child
            for child in ast.iter_child_nodes(node)
            if isinstance(child, ast.FunctionDef | ast.ClassDef) and child.name == part
        ]
        if not inside:
            raise LookupError(f"{file.name} has no {name}.")
        node = inside[-1]
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    start = min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1
    kept = list(range(start, node.end_lineno or start))
    first = node.body[0]
    if not doc and ast.get_docstring(node) is not None:
        end = (first.end_lineno or first.lineno) + (not lines[first.end_lineno or 0].strip())
        kept = [i for i in kept if not first.lineno - 1 <= i < end]
    return textwrap.dedent("\n".join(lines[i] for i in kept)) + "\n"


def main() -> None:
    """Fill the blocks of every document."""
    for path in DOCUMENTS:
        old = path.read_text(encoding="utf-8")
        included(old)
        new = fill(old)
        if new != old:
            path.write_text(new, encoding="utf-8")
            print(f"{name_of(path)}: filled")


if __name__ == "__main__":
    main()
