"""Fetching stitches and comparisons from the Hub; what was trained by others is checked before it is used."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sutura.compare.grid import CELL, LEDGER, PROTOCOL, STITCH_FOLDER
from sutura.compare.publish import COMPARISON
from sutura.core.checkpoint import atomic_directory, read_json, write_json
from sutura.core.errors import UserError
from sutura.core.fetch import Fetched, fetch
from sutura.core.log import say
from sutura.evals.answers import score
from sutura.evals.ledger import LATER_SCORES, read_ledger
from sutura.hub.staging import CELL_FILES, COMPARISON_FILES
from sutura.stitch.bundle import STITCH
from sutura.stitch.folder import CONFIG, PROJECTOR, is_published, only, stitches_in
from sutura.stitch.published import ADAPTER
from sutura.stitch.published import FILES as PUBLISHED

_HASH = re.compile(r"[0-9a-f]{16}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]*")
#: Small files by which a repository is understood before its weights are fetched.
_UNDERSTAND = ("*.json", PROJECTOR, f"*/{PROJECTOR}")


def stitches_of(repo: str, encoder: str | None = None, revision: str | None = None) -> list[Path]:
    """Directories of a repository's stitches, in the local cache; `load_stitch` takes each of them.

    Args:
        repo: "org/name", as `sutura push` filled it or in the layout of `stitch/published.py`.
        encoder: only the stitches of this one, by its folder's name, its name in tables, or its id.
        revision: branch, tag or commit; the main branch by default.

    Raises:
        UserError: no stitch in it, none of that encoder, or the Hub says no.
    """
    found, folders = _look(repo, revision)
    if encoder is not None:
        folders = only(folders, encoder, f"{repo} has no stitch of")
    for folder in folders:
        refuse_code(folder, f"{repo}'s {_inside(folder)}")
    _rest(repo, found, folders)
    return folders


def given(stitches: Sequence[Path] | None, repo: str | None, encoder: str | None = None) -> list[Path]:
    """Directories of stitches: those named, those in folders named, and those of a repository.

    Args:
        stitches: as `stitches_in` takes them.
        repo: "org/name".
        encoder: only the stitches of this one.

    Raises:
        UserError: neither was given, or none is of that encoder.
    """
    if not stitches and not repo:
        raise UserError(
            "No stitch was given; name a directory with --stitch, or a repository with --from-hub."
        )
    here = stitches_in(stitches, encoder) if stitches else []
    return [*here, *(stitches_of(repo, encoder) if repo else ())]


def refuse_code(folder: Path, what: str) -> None:
    """Raises UserError where a stitch from elsewhere wants code to be run that comes with a checkpoint."""
    path = folder / STITCH
    if path.is_file() and _wants_code(read_json(path).get("config")):
        raise UserError(
            f"{what} asks that code of a checkpoint be run (trust_remote_code), which is not taken from others. "
            "Nothing was loaded. If you trust it, download the folder by hand and name it with --stitch."
        )


def _wants_code(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value.get("trust_remote_code")) or any(map(_wants_code, value.values()))
    return isinstance(value, list) and any(map(_wants_code, value))


def pull(repo: str, out: Path, *, encoder: str | None = None, revision: str | None = None) -> list[Path]:
    """Copy a repository to a folder: a comparison as `runs` keeps it, single stitches each in a folder.

    Args:
        repo: "org/name".
        out: where to; what lies there is never overwritten.
        encoder: as `stitches_of` takes it; of a comparison too, only these stitches are copied then.
        revision: branch, tag or commit.

    Returns:
        The directories written: for a comparison its own and its cells', else the stitches'.
    """
    whole = encoder is None and _is_comparison(repo, revision)
    if whole:
        found = fetch(repo, revision=revision, patterns=["*"])
        name = str(read_json(found.folder / COMPARISON).get("notes", {}).get("name") or "")
        if not _NAME.fullmatch(name):
            raise UserError(
                f"{repo} holds a comparison called {name!r}, which is no name. Nothing was written."
            )
        with atomic_directory(out / name) as folder:
            for file in COMPARISON_FILES:
                _copy(found.folder / file, folder / file)
        return [out / name, *_place(repo, found, out)]
    written = []
    for source in stitches_of(repo, encoder, revision):
        inside = _inside(source)
        target = out / inside if inside.parts else out / repo.rpartition("/")[2]
        with atomic_directory(target) as folder:
            _copy(source, folder)
        written.append(target)
    return written


def take_cells(repo: str, runs: Path, revision: str | None = None) -> list[Path]:
    """Put a repository's finished cells where a comparison looks for its own; those that are there stay.

    A cell's name is the hash of all it depends on, so one that does not belong is never used. That its ledger is
    what its stitch answered is not checked; the cell and the report say where it came from.

    Raises:
        UserError: the repository holds no cells.
    """
    found = fetch(repo, revision=revision, patterns=["*"])
    written = _place(repo, found, runs)
    if not list(found.folder.rglob(CELL)):
        raise UserError(
            f"{repo} holds no finished cells; `sutura push runs/<name>` sends them with a comparison."
        )
    return written


def _place(repo: str, found: Fetched, runs: Path) -> list[Path]:
    written, old = [], 0
    for source in sorted(path.parent for path in found.folder.rglob(CELL)):
        facts = read_json(source / CELL)
        name = str(facts.get("hash"))
        if not _HASH.fullmatch(name):
            raise UserError(
                f"{_inside(source)} of {repo} has the hash {name!r}, which is none. Nothing more was taken."
            )
        if facts.get("protocol") != PROTOCOL:
            old += 1
            continue
        target = runs / "cells" / name
        if target.exists():
            continue
        refuse_code(source, f"{repo}'s {_inside(source)}")
        _check_ledger(source, facts, f"The ledger of {_inside(source)} in {repo}")
        with atomic_directory(target) as folder:
            for path in sorted(p for p in source.rglob("*") if p.is_file()):
                inside = path.relative_to(source)
                _copy(path, folder / inside if str(inside) in CELL_FILES else folder / STITCH_FOLDER / inside)
            if not (folder / STITCH_FOLDER / STITCH).is_file():
                shutil.rmtree(folder / STITCH_FOLDER, ignore_errors=True)  # a reading of the text has none
            write_json(folder / CELL, {**facts, "from_hub": {"repo": repo, "revision": found.revision}})
        written.append(target)
    if old:
        say(f"{repo}: {old} cells were made under another protocol than {PROTOCOL} and were left there")
    say(f"{repo}: {len(written)} finished cells taken, at commit {found.revision}")
    return written


def _check_ledger(source: Path, facts: Mapping[str, Any], what: str) -> None:
    """Whether a ledger speaks of its own cell alone, and its scores are those of the answers in it.

    That the answers are the stitch's is not known; the questions' answers are compared with other ledgers' when these
    are read together.

    Raises:
        UserError: neither a ledger, nor one of this cell, nor one whose scores follow.
    """
    frame = read_ledger(source / LEDGER)
    conditions = {str(facts.get("condition"))}
    if conditions == {"picture"}:
        conditions.add("wrong-picture")
    for column, allowed in (
        ("run", {facts.get("hash")}),
        ("encoder", {facts.get("encoder")}),
        ("seed", {facts.get("seed")}),
        ("condition", conditions),
    ):
        if strange := set(frame[column].unique()) - allowed:
            raise UserError(
                f"{what} holds rows of {column} {min(map(str, strange))}, which is not the cell's. "
                "Nothing more was taken."
            )
    for row in frame.iter_rows(named=True):
        due = score(row["prediction"], row["references"])
        # A score that is younger than the ledger is not known there.
        younger = {name for name in LATER_SCORES if row[name] is None}
        wrong = [name for name, value in due.items() if row[name] != value and name not in younger]
        if wrong:
            raise UserError(
                f"{what} says {wrong[0]}={row[wrong[0]]} where {row['prediction']!r} scores {due[wrong[0]]} (item "
                f"{row['item_id']!r}). Nothing more was taken."
            )


def _is_comparison(repo: str, revision: str | None) -> bool:
    return (fetch(repo, revision=revision, patterns=[COMPARISON]).folder / COMPARISON).is_file()


def _look(repo: str, revision: str | None) -> tuple[Fetched, list[Path]]:
    """The small files of a repository, and the folders in it that are stitches."""
    found = fetch(repo, revision=revision, patterns=_UNDERSTAND)
    folders = [path.parent for path in found.folder.rglob(STITCH)]
    folders += [path.parent for path in found.folder.rglob(PROJECTOR) if is_published(path.parent)]
    if not folders:
        raise UserError(
            f"{repo} holds no stitch: no folder in it has {STITCH}, or {CONFIG} with {PROJECTOR} and {ADAPTER}."
        )
    return found, sorted(set(folders))


def _rest(repo: str, found: Fetched, folders: Iterable[Path]) -> None:
    """Fetch the weights of the folders chosen."""
    patterns: list[str] = []
    for folder in folders:
        inside = folder.relative_to(found.folder).as_posix()
        start = "" if inside == "." else f"{inside}/"
        wanted = PUBLISHED if is_published(folder) else ("*",)
        patterns += [f"{start}{name}" for name in wanted]
    fetch(repo, revision=found.revision, patterns=patterns)


def _inside(folder: Path) -> Path:
    """A folder's place within its snapshot in the cache (models--…/snapshots/<commit>/…)."""
    parts = folder.parts
    cache = max(place for place, part in enumerate(parts) if part.startswith("models--"))
    return Path(*parts[cache + 3 :])


def _copy(source: Path, target: Path) -> None:
    """A file or a folder, links of the cache followed; nothing where there is nothing."""
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    elif source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
