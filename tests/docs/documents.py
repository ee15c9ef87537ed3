"""What the documents show: fenced blocks, commands, links, and tables taken from result files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "src" / "sutura" / "zoo").rglob("*.md")),
)
FENCE = re.compile(r"^(`{3,})([^\n`]*)\n(.*?)^\1\s*$", re.MULTILINE | re.DOTALL)
INCLUDES = re.compile(r"^<!-- source: \S+ -->\n\Z", re.MULTILINE)
MARKER = re.compile(r"<!-- table: (\S+) -->\n+((?:\|.*\n?)+)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
PLACE = re.compile(r"`((?:src|tests|docs|examples|benchmarks|\.ci)/[\w./-]*\w/?)`")


@dataclass(frozen=True)
class Block:
    """A fenced block and where it stands; `included` where it is taken from the source and not to be run."""

    path: Path
    line: int
    language: str
    text: str
    included: bool = False

    def __str__(self) -> str:
        return f"{name_of(self.path)}:{self.line}"


def name_of(path: Path) -> str:
    """A document's name in test ids."""
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path) -> list[Block]:
    """Fenced blocks of a document, in order."""
    text = path.read_text(encoding="utf-8")
    return [
        Block(
            path,
            text.count("\n", 0, found.start()) + 1,
            found[2].strip().split(" ")[0],
            found[3],
            INCLUDES.search(text[: found.start()]) is not None,
        )
        for found in FENCE.finditer(text)
    ]


def commands(path: Path) -> Iterator[tuple[Block, list[str]]]:
    """Command lines in shell blocks as words; comments, prompts and continued lines are understood."""
    for block in blocks(path):
        if block.language not in ("", "sh", "bash", "console", "shell"):
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # environment
                words = words[1:]
            words = without_launcher(words)
            if words and words[0] in ("sutura", ".venv/bin/sutura", "make"):
                yield block, [words[0].rpartition("/")[2], *words[1:]]


def without_launcher(words: list[str]) -> list[str]:
    """The command that each of several processes runs: `accelerate launch … -m sutura.cli stitch …` starts `stitch`."""
    if words[:2] == ["accelerate", "launch"] or words[:1] == ["torchrun"]:
        return ["sutura", *words[words.index("sutura.cli") + 1 :]]
    return words


def prose(path: Path) -> str:
    """The document without its fenced blocks."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))
