"""Sending stitches and comparisons to the Hub."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path

from sutura.compare.grid import CELL
from sutura.compare.publish import COMPARISON
from sutura.core.checkpoint import atomic_file
from sutura.core.errors import UserError
from sutura.core.fetch import endpoint, hub_api, told
from sutura.core.log import say
from sutura.core.secrets import refuse_secrets
from sutura.evals.training_record import RECORD
from sutura.hub.cards import comparison_card, stitch_card
from sutura.hub.staging import shortened, stage_cell, stage_comparison, stage_stitch
from sutura.stitch.bundle import STITCH

CARD = "README.md"
REPO = "HF_REPO_ID"


def push(
    path: Path,
    repo: str | None = None,
    *,
    private: bool = True,
    thumbnails: bool = False,
    command: str = "",
) -> str:
    """Send a stitch, a finished cell or a whole comparison; the repository is made where it is not there.

    Sent again, only what changed travels. Paths of this machine are taken out of what is sent, and a file that
    holds a token or key stops everything.

    Args:
        path: a stitch's directory, `runs/cells/<hash>`, or `runs/<name>`.
        repo: "org/name"; HF_REPO_ID by default.
        private: of a repository that is made now; one that is public already is refused while this is set.
        thumbnails: also send the record of the training data, with its 32 × 32 thumbnails of training pictures.
        command: what trained a lone stitch, for its card.

    Returns:
        The address it lies at.

    Raises:
        UserError: nothing there to send, no repository named, or the Hub says no.
    """
    name = repository(repo)
    with tempfile.TemporaryDirectory(prefix="sutura-push-") as made:
        root = Path(made)
        if (path / COMPARISON).is_file():
            folders, places = stage_comparison(path, root, thumbnails=thumbnails)
            for folder in folders:
                write_card(folder, stitch_card(folder, thumbnails=thumbnails, command=command))
            write_card(root, shortened(comparison_card(path, thumbnails=thumbnails), places))
        elif (path / CELL).is_file() or (path / STITCH).is_file():
            stage = stage_cell if (path / CELL).is_file() else stage_stitch
            folder = stage(path, root, thumbnails=thumbnails)
            write_card(folder, stitch_card(folder, thumbnails=thumbnails, command=command))
        else:
            raise UserError(
                f"{path} is nothing to send: it holds no {STITCH}, {CELL} or {COMPARISON}. Give a stitch's directory "
                "or runs/<name>, as a comparison left it."
            )
        refuse_secrets(root)
        kept = [] if thumbnails else _records(path)
        ready(name, private=private)
        return _send(root, name, kept, about=path.name)


def write_card(folder: Path, text: str) -> None:
    """Put a card in the place of what was there; paths of this machine in its command are shortened."""
    with atomic_file(folder / CARD) as temporary:
        temporary.write_text(shortened(text, {}), encoding="utf-8")


def repository(repo: str | None) -> str:
    """The repository to send to. Raises UserError when none is named."""
    name = (repo or os.environ.get(REPO, "")).strip()
    if not name:
        raise UserError(
            f"Where to? Give --repo org/name, hub.repo=org/name, or {REPO} in the environment or .env."
        )
    return name


def ready(repo: str, *, private: bool) -> None:
    """Make the repository where it is not there yet, and see that it may be written to.

    Raises:
        UserError: no token, one without the right to write, or a public repository for what is to be private.
    """
    with told(repo, None, write=True):
        api = hub_api()
        api.create_repo(repo, private=private, exist_ok=True)
        public = not api.repo_info(repo).private
    if private and public:
        raise UserError(
            f"{repo!r} is public, and what is sent was to be private. Send it to another repository, make this one "
            "private in its settings, or say that it may be seen (--public, hub.private=false)."
        )


def _records(path: Path) -> list[Path]:
    if (path / COMPARISON).is_file():
        return sorted((path.resolve().parent / "cells").glob(f"*/stitch/{RECORD}"))
    return sorted(path.rglob(RECORD))


def _send(root: Path, repo: str, kept: list[Path], *, about: str) -> str:
    files = [path for path in root.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    with told(repo, None, write=True), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "It seems that you are about to commit a data file"
        )  # a ledger is one
        hub_api().upload_folder(repo_id=repo, folder_path=str(root), commit_message=f"sutura: {about}")
    left = (
        f"; {RECORD} stays here, since it holds thumbnails of training pictures (--thumbnails sends it)"
        if kept
        else ""
    )
    say(f"sent to {repo}: {len(files)} files, {size:.1f} MB{left}")
    return f"{endpoint() or 'https://huggingface.co'}/{repo}"
